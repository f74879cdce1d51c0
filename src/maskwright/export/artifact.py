"""A folder that holds an exported model, everything that is needed to run it, and its check.

``artifact.json`` says what it is: format, versions, model and options, class names, preprocessing, limits, sizes, how
the outputs form the family's ``Raw``, and size and SHA-256 of every other file. ``golden.npz`` has inputs and the
outputs that the model gave for them. The folder appears only once the program's answers are the model's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.export.exported import ExportedModel, Form, Runtime
from maskwright.export.golden import SIZES, batches, drawn
from maskwright.export.layout import Layout
from maskwright.export.program import Traced, least_side, trace, without_weights
from maskwright.export.targets import TARGETS, target
from maskwright.metrics.alike import TOLERANCES, Agreement, compare
from maskwright.nn.fold import folded
from maskwright.protocols import Model, task_of
from maskwright.storage import read_json, write_json
from maskwright.structures import Images, Resize, Scene, Taxonomy

FORMAT = 1
NAME = "artifact.json"
GOLDEN = "golden.npz"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

Build = Callable[..., Model]
"""``build(name, taxonomy, **options)``, as ``zoo.build``."""


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with an artifact in it."""
    return (Path(path) / NAME).is_file()


# ---- writing --------------------------------------------------------------------------------------------------------


def export(
    model: Model,
    described: Mapping[str, Any],
    to: str,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    batch: int | None = 1,
    most: int = 2048,
    pictures: Sequence[Tensor] = (),
    fold: bool = True,
) -> dict[str, Any]:
    """Write ``model`` as an artifact.

    Args:
        model: on the host; its limits become the artifact's.
        described: what ``zoo.describe(model)`` says; ``card`` too, if there is one.
        to: ``onnx``, ``openvino``, ``tensorrt`` or ``torch``.
        out: the folder to make; an artifact that is there is replaced, anything else is refused.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        batch: pictures at once; ``None`` for any number, where the family allows it.
        most: the longest side, in pixels, that the artifact takes.
        pictures: golden inputs, uint8 [3, H, W]; drawn ones by default.
        fold: norms into the convolutions before them.

    Returns:
        What ``artifact.json`` says.

    Raises:
        InputError: an option that cannot be, something that is not installed, a model that cannot be expressed, or
            answers that are not the model's: then nothing is written.
    """
    _require_precision(precision)
    runtime = target(to)
    out = Path(out)
    _require_free(out)
    shown = list(pictures) or [drawn(size, i) for i, size in enumerate(SIZES)]
    golden = batches(shown, batch, model.size_divisor, least_side(model.size_divisor))
    with torch.no_grad():
        wanted = [_answer(model, inputs) for inputs in golden]
    _require_found(model, [scene for scenes, _ in wanted for scene in scenes])
    network = cast(nn.Module, model)
    light = cast(Model, folded(network, golden[0])) if fold else model
    traced = trace(light, golden, batch=batch, most=most, precision=precision if runtime.casts else "fp32")
    with _folder(out) as folder:
        runtime.write(traced, folder, precision)
        layout = traced.layout
        _save_golden(folder / GOLDEN, golden, [layout.flatten(raw) for _, raw in wanted])
        document = _document(model, described, to, precision, traced, folder)
        write_json(folder / NAME, document, indent=True)
        made = _open(folder, document, model, torch.device("cpu"))
        agreement = _agreement(made, golden, [scene for scenes, _ in wanted for scene in scenes], precision)
        document["check"] = agreement.to_json()
        if not agreement.holds(TOLERANCES[precision]):
            raise InputError(
                f"what the {to} program finds must be what the model finds, but only {agreement.shared:.1%} of the "
                f"objects and {agreement.pixels:.2%} of the pixels are the same. Nothing was written to {out}. "
                "Try --precision fp32, or another target."
            )
        write_json(folder / NAME, document, indent=True)
    return document


def _require_precision(precision: str) -> None:
    if precision == "int8":
        raise InputError("int8 needs calibration data: maskwright compress.")
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")


def _require_free(out: Path) -> None:
    if out.exists() and not is_artifact(out) and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"an artifact goes to a folder of its own, but {out} holds something else. Choose another.")


def _require_found(model: Model, scenes: Sequence[Scene]) -> None:
    if task_of(model) == "instance" and not any(len(scene.objects()) for scene in scenes):
        raise InputError(
            "an export is checked on pictures with objects, but the model finds none in the drawn ones. "
            "Give pictures in which it finds some: --golden PICTURE."
        )


def _answer(model: Model, inputs: Images) -> tuple[list[Scene], Any]:
    network = cast(nn.Module, model)
    network.eval()
    raw = network(inputs)
    return model.predict(raw, inputs.geometry), raw


def _agreement(model: Model, golden: Sequence[Images], wanted: Sequence[Scene], precision: str) -> Agreement:
    with torch.no_grad():
        found = [scene for inputs in golden for scene in _answer(model, inputs)[0]]
    threshold = model.score_threshold if task_of(model) == "instance" else 0.0
    return compare(found, wanted, TOLERANCES[precision], threshold=threshold, limit=model.max_per_image)


def _document(
    model: Any, described: Mapping[str, Any], to: str, precision: str, traced: Traced, folder: Path
) -> dict[str, Any]:
    statistics = {
        name: getattr(model, f"pixel_{name}").flatten().tolist()
        for name in ("mean", "std")
        if hasattr(model, f"pixel_{name}")
    }
    return {
        "format": FORMAT,
        "target": to,
        "precision": precision,
        "task": task_of(model),
        "classes": list(model.taxonomy.names),
        "described": {**described, "card": dict(getattr(model, "card", None) or {})},
        "preprocessing": {
            "pixels": "RGB float32 [B, 3, H, W] in 0..255, padded with zeros at the bottom and right",
            "sizes": "int64 [B, 2], (H, W) of each picture within its padding",
            "resize": asdict(model.resize),
            "inside_the_program": statistics,
        },
        "limits": {"score_threshold": model.score_threshold, "max_per_image": model.max_per_image},
        "sizes": {"divisor": model.size_divisor, "least": traced.least, "most": traced.most},
        "batch": traced.batch,
        "outputs": list(traced.layout.names),
        "layout": traced.layout.tree,
        "files": {path.name: _facts(path) for path in sorted(folder.iterdir()) if path.name != NAME},
        "versions": TARGETS[to].versions(),
    }


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _save_golden(path: Path, golden: Sequence[Images], outputs: Sequence[Sequence[Tensor]]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, (inputs, values) in enumerate(zip(golden, outputs, strict=True)):
        arrays[f"{i}.pixels"] = inputs.pixels.to(torch.uint8).numpy()
        arrays[f"{i}.sizes"] = np.array(inputs.sizes, dtype=np.int64)
        arrays |= {f"{i}.output.{k}": value.detach().numpy() for k, value in enumerate(values)}
    np.savez_compressed(path, allow_pickle=False, **cast(Any, arrays))


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place at the end; an error leaves ``out`` as it was."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}. Choose another --out.") from error
    try:
        yield beside
        beside.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
            os.replace(out, old / out.name)
            os.replace(beside, out)
            shutil.rmtree(old)
        else:
            os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


# ---- reading --------------------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str], build: Build, *, device: torch.device | str | None = None, verify: bool = True
) -> ExportedModel:
    """An artifact as a model.

    Args:
        path: the folder. build: makes the family that reads the outputs, as ``zoo.build``.
        device: where the runtime computes; the host by default.
        verify: compare every file's hash, not only its size.

    Raises:
        InputError: another version's artifact, a file that is missing, truncated or changed, a runtime that is not
            installed or lacks the device, or a program with operators that it does not know.
    """
    folder = Path(path)
    document = _read(folder)
    for name, facts in document["files"].items():
        if Path(name).name != name:
            raise InputError(f"{folder / NAME}: every file must have a plain file name, got {name!r}.")
        _require_whole(folder / name, facts, verify)
    described = document["described"]
    options = {key: _tuples(value) for key, value in dict(described["options"]).items()}
    try:
        built = build(
            str(described["model"]),
            Taxonomy.from_json(described["taxonomy"]),
            resize=Resize(**document["preprocessing"]["resize"]),
            **{key: value for key, value in options.items() if key not in ("pretrained", "resize")},
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder / NAME} asks for a model that cannot be built here: {error}. "
            "It was written by another version of maskwright: export again."
        ) from error
    reader: Any = without_weights(built)
    for name, value in document["limits"].items():
        setattr(reader, name, value)
    model = _open(folder, document, reader.eval(), torch.device("cpu" if device is None else device))
    model.card = {**described["card"], "exported": f"{document['target']} {document['precision']}"}
    return model


def check(path: str | os.PathLike[str], build: Build) -> Agreement:
    """Run an artifact on its golden inputs; its answers against those that the model gave.

    Raises:
        InputError: as ``load``.
    """
    model, document = load(path, build), _read(Path(path))
    wanted: list[Scene] = []
    golden: list[Images] = []
    with np.load(Path(path) / GOLDEN, allow_pickle=False) as arrays:
        for i in range(sum(name.endswith(".pixels") for name in arrays.files)):
            sizes = [(int(h), int(w)) for h, w in arrays[f"{i}.sizes"]]
            pixels = torch.from_numpy(arrays[f"{i}.pixels"]).float()
            pictures = [p[:, :h, :w] for p, (h, w) in zip(pixels, sizes, strict=True)]
            golden.append(Images.pad(pictures, multiple=model.size_divisor))
            outputs = [torch.from_numpy(arrays[f"{i}.output.{k}"]) for k in range(len(document["outputs"]))]
            with torch.no_grad():
                wanted += model._reader[0].predict(model.layout.build(outputs), golden[-1].geometry)
    return _agreement(cast(Model, model), golden, wanted, str(document["precision"]))


def _read(folder: Path) -> dict[str, Any]:
    document = read_json(folder / NAME)
    known = document.get("format") if isinstance(document, dict) else None
    if known != FORMAT:
        raise InputError(
            f"{folder / NAME} must have format {FORMAT}, got {known!r}: another version of maskwright wrote it. "
            "Export the model again with this one."
        )
    needed = ("target", "precision", "described", "preprocessing", "limits", "sizes", "outputs", "layout", "files")
    missing = [name for name in needed if name not in document]
    if missing or document["target"] not in TARGETS:
        raise InputError(f"{folder / NAME} is no whole artifact: it lacks {', '.join(missing) or 'a known target'}.")
    return document


def _require_whole(path: Path, facts: Mapping[str, Any], verify: bool) -> None:
    if not path.is_file():
        raise InputError(f"the artifact has lost {path.name}: {path} does not exist. Copy the whole folder again.")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise InputError(
            f"{path} must have {facts['bytes']} bytes, got {size}: it is truncated or was changed. "
            "Copy the folder again, or export again."
        )
    if verify and _facts(path)["sha256"] != facts["sha256"]:
        raise InputError(f"{path} is not the file that was exported: its SHA-256 differs. Export the model again.")


def _open(folder: Path, document: Mapping[str, Any], reader: Model, device: torch.device) -> ExportedModel:
    chosen = target(str(document["target"]))

    def start(device: torch.device) -> Runtime:
        return chosen.start(folder, device, str(document["precision"]))

    sizes = document["sizes"]
    form = Form(document["batch"], int(sizes["least"]), int(sizes["most"]))
    layout = Layout(document["layout"], tuple(document["outputs"]))
    return ExportedModel(reader, start, layout, form, {}, device)


def _tuples(value: Any) -> Any:
    """JSON has lists only; options are tuples."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
