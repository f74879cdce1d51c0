"""Who may import whom. The tables are the documentation; the test reads every import, also those inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
}
"""Foreign libraries and the places that may import them."""

FILES = sorted(path for path in SOURCE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _row(layer: str) -> int | None:
    return next((i for i, row in enumerate(LAYERS) if layer in row), None)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    own = _layer(path)
    if own in ("__init__", "__main__"):
        return
    assert _row(own) is not None, f"{_name(path)} lies in no layer"
    for imported in _imports(path):
        parts = imported.split(".")
        if parts[0] != "maskwright":
            continue
        if parts[1] == "__version__":
            continue
        other = parts[1]
        row, other_row = _row(own), _row(other)
        assert other_row is not None, f"{_name(path)} imports the package root ({imported})"
        if other == own:
            if own == "models":
                allowed = ([path.stem], ["parts"])
                assert parts[2:3] in allowed, f"{_name(path)}: a family imports no other family ({imported})"
            continue
        assert row is not None
        assert other_row > row, f"{_name(path)} must not import {imported}: {other} is not below {own}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_families_are_named_in_the_zoo_and_recipes_only(path: Path) -> None:
    if _layer(path) in ("models", "zoo", "recipes"):
        return
    assert not [name for name in _imports(path) if name.startswith("maskwright.models.")]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_foreign_libraries_have_one_home(path: Path) -> None:
    for imported in _imports(path):
        homes = HOMES.get(imported.split(".")[0])
        allowed = homes is None or any(_name(path).startswith(home) for home in homes)
        assert allowed, f"{_name(path)} imports {imported}, which belongs to {homes}"
        for name in NEVER.get(_layer(path), ()):
            assert not imported.startswith(name), f"{_name(path)} must not import {imported}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_short(path: Path) -> None:
    limit = 450 if _layer(path) == "models" else 400
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_only_the_command_line_and_the_training_log_print(path: Path) -> None:
    if _layer(path) == "cli" or _name(path) == "train/log.py":
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_the_tables_cover_what_there_is() -> None:
    known = {layer for row in LAYERS for layer in row} | {"__init__", "__main__"}
    assert {_layer(path) for path in FILES} <= known
