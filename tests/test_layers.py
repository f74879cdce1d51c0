"""Who may import whom. The tables are the documentation; the test reads every import, also those inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "maskwright"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "server"),
    ("recipes",),
    ("zoo",),
    ("train", "evaluate", "infer", "export"),
    ("models", "data", "metrics", "draw", "weights", "objectives", "labelers", "measure"),
    ("protocols",),
    ("structures", "nn"),
    ("ops",),
    ("storage",),
    ("errors",),
)
"""A row may import the rows below it; the members of a row do not see each other."""

NEVER = {"metrics": {"torch.distributed"}}
"""Imports that a layer must do without although the table above would allow them."""

HOMES: dict[str, tuple[str, ...]] = {
    "timm": ("nn/backbones", "train/optimizer.py"),
    "torchvision": ("ops",),
    "scipy": ("ops",),
    "pycocotools": ("ops", "metrics"),
    "PIL": ("data", "draw", "metrics/_label_images.py", "cli/demo.py"),
    "matplotlib": ("draw",),
    "skimage": ("cli/demo.py",),
    "lightning_fabric": ("train",),
    "tensorboardX": ("train/log.py",),
    "tqdm": ("train/log.py", "cli"),
    "safetensors": ("weights",),
    "optuna": ("cli/_study.py",),
    "yaml": ("data/formats/yolo",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
    "onnxscript": ("export",),
    "openvino": ("export",),
    "tensorrt": ("export",),
    "fastapi": ("server",),
    "ray": ("infer/cluster",),
    "pyarrow": ("infer/tables.py",),
}
"""Foreign libraries and the places that may import them."""

FILES = sorted(path for path in SOURCE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports; ``from a import b`` gives ``a.b``."""
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _row(layer: str) -> int | None:
    return next((i for i, row in enumerate(LAYERS) if layer in row), None)


def _upward(path: Path) -> Iterator[str]:
    """What is wrong with the imports of one file by the table of layers."""
    own = _layer(path)
    row = _row(own)
    if own in ("__init__", "__main__"):
        return
    if row is None:
        yield f"{_name(path)} lies in no layer"
        return
    for imported in _imports(path):
        package, _, rest = imported.partition(".")
        other, *inner = rest.split(".")
        if package != "maskwright" or other == "__version__":
            continue
        below = _row(other)
        if below is None:
            yield f"{_name(path)} imports the package root ({imported})"
        elif other == own:
            if own == "models" and inner[:1] not in ([path.stem], ["parts"]):
                yield f"{_name(path)}: a family imports no other family ({imported})"
        elif below <= row:
            yield f"{_name(path)} must not import {imported}: {other} is not below {own}"


def _away(path: Path) -> Iterator[str]:
    """Which foreign libraries one file imports that have their home elsewhere."""
    for imported in _imports(path):
        homes = HOMES.get(imported.split(".")[0])
        if homes is not None and not any(_name(path).startswith(home) for home in homes):
            yield f"{_name(path)} imports {imported}, which belongs to {homes}"
        for name in NEVER.get(_layer(path), ()):
            if imported.startswith(name):
                yield f"{_name(path)} must not import {imported}"


def test_imports_point_down() -> None:
    assert not [wrong for path in FILES for wrong in _upward(path)]


def test_families_are_named_in_the_zoo_and_recipes_only() -> None:
    others = [path for path in FILES if _layer(path) not in ("models", "zoo", "recipes")]
    named = [(_name(path), name) for path in others for name in _imports(path) if name.startswith("maskwright.models.")]
    assert not named


def test_foreign_libraries_have_one_home() -> None:
    assert not [wrong for path in FILES for wrong in _away(path)]


def test_files_stay_short() -> None:
    lines = {_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > (450 if name.startswith("models/") else 400)}


def test_only_the_command_line_and_the_training_log_print() -> None:
    silent = [path for path in FILES if _layer(path) != "cli" and _name(path) != "train/log.py"]
    calls = [(_name(path), node.func) for path in silent for node in _nodes(path) if isinstance(node, ast.Call)]
    assert not [name for name, func in calls if isinstance(func, ast.Name) and func.id == "print"]


def test_the_tables_cover_what_there_is() -> None:
    known = {layer for row in LAYERS for layer in row} | {"__init__", "__main__"}
    assert {_layer(path) for path in FILES} <= known


@pytest.mark.parametrize(
    ("place", "line", "wrong"),
    [
        ("ops/rle.py", "from maskwright.structures import Masks", "structures is not below ops"),
        ("models/solo.py", "from maskwright.models.condinst import CondInst", "no other family"),
        ("data/new.py", "import scipy.ndimage", "belongs to"),
        ("nowhere/new.py", "import os", "lies in no layer"),
        ("train/new.py", "import maskwright", "package root"),
    ],
)
def test_the_rules_can_fail(place: str, line: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    path = tmp_path / place
    path.parent.mkdir()
    path.write_text(line + "\n")
    assert [text for text in (*_upward(path), *_away(path)) if wrong in text]
