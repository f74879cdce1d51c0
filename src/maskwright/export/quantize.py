"""INT8 after training: an ONNX artifact whose convolutions and linear layers compute in 8 bits.

ONNX Runtime's static quantization in QDQ form: weights by output channel, signed; activations by tensor, unsigned, with
ranges that the model shows on calibration pictures. All else (NMS, RoIs, sums, decoding) stays as it is. What that does
to accuracy is for the caller to measure; layers can be left out by group (``groups``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskwright.errors import InputError
from maskwright.export import artifact
from maskwright.export.exported import ExportedModel
from maskwright.export.onnx import PROGRAM, first_line, require
from maskwright.storage import write_json

Feed = tuple[Tensor, Tensor]
"""Pixels float32 [B, 3, H, W] and sizes int64 [B, 2], as a program takes them."""

_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"


@contextmanager
def fed(model: ExportedModel) -> Generator[list[Feed]]:
    """Keeps what the program of ``model`` is given meanwhile: calibration inputs, prepared as in use."""
    inner: Callable[[Tensor, Tensor], list[Tensor]] = model.runtime
    kept: list[Feed] = []

    def runtime(pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        kept.append((pixels.clone(), sizes.clone()))
        return inner(pixels, sizes)

    model.runtime = runtime
    try:
        yield kept
    finally:
        model.runtime = inner


def groups(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Parts of an artifact's model and the names of their layers that can be quantized, in the graph's order.

    A part is a child of the model, such as ``neck``; of backbones, their stages.

    Raises:
        InputError: it is no artifact for ONNX Runtime in fp32.
    """
    out: dict[str, list[str]] = {}
    for part, name in _layers(_open(Path(folder))):
        out.setdefault(part, []).append(name)
    return out


def quantize(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    feeds: Sequence[Feed],
    *,
    build: artifact.Build,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the int8 artifact of an fp32 one.

    Args:
        folder: an artifact for ONNX Runtime, ``fp32``.
        out: the folder to make; an artifact that is there is replaced, anything else is refused.
        feeds: calibration inputs (``fed``); in each the model must find something, so that every layer is seen at work.
        build: makes the family that reads the outputs, as ``zoo.build``.
        without: parts (of ``groups``) that stay in fp32.

    Returns:
        What ``artifact.json`` says; ``quantized`` in it names the parts, ``check`` says how its answers for the golden
        inputs agree with the model's. Whether that is enough is for the caller to say, who can measure accuracy.

    Raises:
        InputError: not such an artifact, an unknown part, no calibration inputs, or a runtime that refuses the graph.
    """
    require("onnx", "onnxruntime")
    folder, out = Path(folder), Path(out)
    if not feeds:
        raise InputError("int8 needs calibration pictures in which the model finds something, and there are none.")
    program = _open(folder)
    parts: dict[str, list[str]] = {}
    for part, name in _layers(program):
        parts.setdefault(part, []).append(name)
    unknown = sorted(set(without) - parts.keys())
    if unknown:
        raise InputError(f"parts to leave in fp32 must be of {', '.join(parts)}, got {', '.join(unknown)}.")
    chosen = [name for part, names in parts.items() if part not in without for name in names]
    if not chosen:
        raise InputError("something must be quantized, but all parts are left in fp32. Export with --precision fp16.")
    artifact._require_free(out)
    with artifact._folder(out) as beside:
        for path in folder.iterdir():
            if path.name not in (PROGRAM, artifact.NAME):
                shutil.copy2(path, beside / path.name)
        _write(program, beside / PROGRAM, feeds, chosen)
        document = artifact._read(folder)
        files = {path.name: artifact._facts(path) for path in sorted(beside.iterdir()) if path.name != artifact.NAME}
        document |= {
            "precision": "int8",
            "files": files,
            "quantized": {"parts": [part for part in parts if part not in without], "without": list(without)},
        }
        document.pop("check", None)
        write_json(beside / artifact.NAME, document, indent=True)
        document["check"] = artifact.check(beside, build).to_json()
        write_json(beside / artifact.NAME, document, indent=True)
    return document


def _open(folder: Path) -> Any:
    require("onnx")
    import onnx

    document = artifact._read(folder)
    if (document["target"], document["precision"]) != ("onnx", "fp32"):
        raise InputError(
            f"int8 is made of an artifact for onnx in fp32, but {folder} is for {document['target']} in "
            f"{document['precision']}. Export one with --to onnx."
        )
    return onnx.load(str(folder / PROGRAM))


def _layers(program: Any) -> Iterator[tuple[str, str]]:
    """(part, name) of each layer with weights of its own."""
    known = {each.name for each in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type in _TYPES and len(node.input) > 1 and node.input[1] in known:
            yield _part(node), node.name


def _part(node: Any) -> str:
    """Of the scopes that torch's exporter notes: the model's child, and for backbones the stage in it."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    paths = [word.strip(" '\"[]").removeprefix("model.") for word in text.split(",")]
    words = next((path.split(".") for path in reversed(paths[:-1]) if path and path != "model"), [node.name])
    return ".".join(words[:3]) if words[0] == "backbone" else words[0]


def _write(program: Any, path: Path, feeds: Sequence[Feed], chosen: Sequence[str]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            feed = next(self.left, None)
            given = {each.name for each in program.graph.input}
            values = {} if feed is None else {"pixels": feed[0].numpy(), "sizes": feed[1].numpy()}
            return None if feed is None else {name: value for name, value in values.items() if name in given}

    own = onnx.ModelProto()
    own.CopyFrom(program)
    _own_biases(own)
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        plain = Path(place) / PROGRAM
        onnx.save(own, str(plain))
        try:
            quantize_static(
                str(plain),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_TYPES),
                per_channel=True,
                # without VNNI two products of 8 bits are added in 16, which overflows unless weights have 7
                reduce_range=not _has_vnni(),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=list(chosen),
                extra_options={"CalibMovingAverage": True},
            )
        except Exception as error:  # its exceptions have no common base but this one
            raise InputError(f"ONNX Runtime cannot quantize this program: {first_line(error)}") from error


def _own_biases(program: Any) -> None:
    """Levels of a pyramid share a layer; in 8 bits a bias has the scale of what comes in, which differs by level."""
    import onnx

    values = {each.name: each for each in program.graph.initializer}
    seen: set[str] = set()
    for node in program.graph.node:
        if node.op_type not in _TYPES or len(node.input) < 3 or node.input[2] not in values:
            continue
        bias = node.input[2]
        if bias in seen:
            copy = onnx.TensorProto()
            copy.CopyFrom(values[bias])
            copy.name = f"{bias}.{node.name}"
            program.graph.initializer.append(copy)
            node.input[2] = copy.name
        seen.add(bias)


def _has_vnni() -> bool:
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(value) and ("vnni" in name or name == "amx_int8") for name, value in capabilities.items())
