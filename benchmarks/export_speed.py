"""Claims: an exported Mask R-CNN is faster than the eager model on one core, in ONNX Runtime and in OpenVINO.

``embedded`` (Mask R-CNN, ResNet-18 light, trained; a 640 x 480 drawn picture at its own resize, twofold) and
``rtmdet-ins-tiny`` (random weights, 80 classes, 640 x 640). From uint8 pixels to scenes in run-lengths, one thread, the
same host code after the program. Peer: the eager model as ``load`` gives it, in float32. Answers are compared first
(``metrics.alike``), runs are interleaved; the figure is the ratio of medians, eager over exported.

    python benchmarks/export_speed.py [--models NAME ...] [--targets onnx openvino] [--rounds 15] [--precision fp32]
        [--out FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from maskwright import zoo
from maskwright.export import artifact
from maskwright.export.golden import drawn
from maskwright.infer.predictor import predict
from maskwright.metrics.alike import TOLERANCES, compare
from maskwright.structures import Taxonomy

SIDES = {"embedded": (480, 640), "rtmdet-ins-tiny": (640, 640)}


def model_of(name: str, objects: int = 20) -> Any:
    """A published model, or one of the table with random weights and so high a threshold that it finds ``objects``."""
    if name == "embedded":
        return zoo.load(name)
    torch.manual_seed(0)
    model: Any = zoo.build(name, Taxonomy(names=tuple(f"class {i}" for i in range(80)))).eval()
    model.card, model.max_per_image = {}, objects
    with torch.no_grad():  # norms of random networks know nothing
        model.train()
        for seed in range(3):
            inputs = artifact.batches([drawn((256, 256), seed)], 1, model.size_divisor)[0]
            model(inputs)
        model.eval()
    low, high = 0.0, 1.0
    for _ in range(16):  # the greatest threshold with enough objects
        middle = model.score_threshold = (low + high) / 2
        found: Any = predict(model, drawn((640, 640), 0), resize=None, precision="32")
        low, high = (low, middle) if len(found.objects()) < objects else (middle, high)
    model.score_threshold = low * 0.9
    return model


def measure(name: str, targets: list[str], precision: str, rounds: int, out: Path) -> dict[str, Any]:
    """Medians in milliseconds and ratios of one model."""
    model, picture = model_of(name), drawn(SIDES.get(name, (480, 640)), 7, objects=40)
    exported: dict[str, Any] = {"eager": model}
    for target in targets:
        folder = out / f"{name}-{target}-{precision}"
        if not artifact.is_artifact(folder):
            artifact.export(model, zoo.describe(model), target, folder, precision=precision, pictures=[picture])
        exported[target] = artifact.load(folder, zoo.build)
    wanted: Any = predict(model, picture, precision="32")
    same = {}
    for target in targets:
        found: Any = predict(exported[target], picture)
        limits = {"threshold": model.score_threshold, "limit": model.max_per_image}
        agreement = compare([found], [wanted], TOLERANCES[precision], **limits)
        if not agreement.holds(TOLERANCES[precision]):
            raise SystemExit(f"{name}: {target} finds something else: {agreement}")
        same[target] = agreement.to_json()
    times: dict[str, list[float]] = {key: [] for key in exported}
    for _ in range(rounds):
        for key, each in exported.items():
            began = time.perf_counter()
            predict(each, picture, precision="32")
            times[key].append((time.perf_counter() - began) * 1e3)
    medians = {key: statistics.median(values) for key, values in times.items()}
    ratios = {key: medians["eager"] / medians[key] for key in targets}
    return {"objects": len(wanted.objects()), "ms": medians, "ratio": ratios, "agreement": same}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(SIDES))
    parser.add_argument("--targets", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="keep the artifacts here, and use those that are there")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        results = {name: measure(name, args.targets, args.precision, args.rounds, out) for name in args.models}
    if args.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        print(f"{name}: {found['objects']} objects, eager {found['ms']['eager']:.0f} ms")
        for target, ratio in found["ratio"].items():
            shared = found["agreement"][target]["objects_shared"]
            print(f"  {target:9} {found['ms'][target]:7.0f} ms  {ratio:.2f}x  {shared:.1%} of the objects the same")


if __name__ == "__main__":
    main()
