"""``maskwright export``: a model as a folder that a runtime runs, checked against the model before it is written."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from maskwright.cli.progress import Download
from maskwright.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("weights", metavar="W", help="a run directory, a checkpoint, a published name, or embedded")
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--to",
        choices=("onnx", "openvino", "tensorrt", "torch"),
        default="onnx",
        help="what runs it: ONNX Runtime (default), OpenVINO, TensorRT, or PyTorch (compiled ahead of time)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        default="fp32",
        help="of the arithmetic (default: fp32); int8 is made by maskwright compress",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        default=1,
        metavar="N",
        help="images computed at once (default: 1), or dynamic for any number, where the family allows it",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--most", type=int, default=2048, metavar="PIXELS", help="the longest side it takes, resized (default: 2048)"
    )
    parser.add_argument(
        "--score-threshold", type=float, metavar="S", help="objects below it are never found (default: the model's)"
    )
    parser.add_argument("--max-per-image", type=int, metavar="N", help="at most so many objects (default: the model's)")
    parser.add_argument(
        "--golden", nargs="+", type=Path, default=(), metavar="IMAGE", help="check on these (default: drawn pictures)"
    )
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Export and say what was compared; unusable input, or a program that finds other things, writes nothing."""
    if args.precision == "int8":
        raise InputError("int8 needs calibration data: maskwright compress.")
    if args.score_threshold is not None and not 0 <= args.score_threshold <= 1:
        raise InputError(f"--score-threshold must be a number from 0 to 1, got {args.score_threshold}.")
    if args.max_per_image is not None and args.max_per_image < 1:
        raise InputError(f"--max-per-image must be at least 1, got {args.max_per_image}.")
    from maskwright import zoo
    from maskwright.data.io import read_image
    from maskwright.export.artifact import export

    pictures = [read_image(path) for path in args.golden]
    named = (args.weights,) if args.model is None else (args.model, args.weights)
    model: Any = zoo.load(*named, commercial=args.commercial, progress=Download())
    for name in ("score_threshold", "max_per_image"):
        if getattr(args, name) is not None:
            setattr(model, name, getattr(args, name))
    began = time.perf_counter()
    document = export(
        model,
        zoo.describe(model),
        args.to,
        args.out,
        precision=args.precision,
        batch=args.batch,
        most=args.most,
        pictures=pictures,
    )
    seconds, files = time.perf_counter() - began, document["files"]
    size = sum(facts["bytes"] for facts in files.values())
    if args.json:
        print(json.dumps({"out": str(args.out), "seconds": round(seconds, 1), "bytes": size, **_told(document)}))
        return 0
    check = document["check"]
    print(f"{args.to} {args.precision}, {size / 1e6:.1f} MB in {len(files)} files, written to {args.out}")
    print(
        f"checked against the model: {check['objects']} objects, {check['objects_shared']:.1%} the same, "
        f"scores within {check['score_error']:.1e}; {check['pixels_equal']:.2%} of class maps"
    )
    print(f"use it: maskwright predict IMAGES --weights {args.out}")
    return 0


def _told(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("target", "precision", "batch", "sizes", "limits", "check", "files")}


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, or dynamic, got {text!r}")
    return count
