"""The runtimes that a program can be written for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from maskwright.errors import InputError
from maskwright.export.exported import Runtime
from maskwright.export.program import Traced


@dataclass(frozen=True, slots=True)
class Target:
    """A runtime; its module is imported when it is used.

    Attributes:
        module: has ``write(traced, folder, precision)`` and ``start(folder, device, precision)``.
        casts: the precision is part of the traced graph.
        packages: whose versions ``artifact.json`` notes.
    """

    module: str
    casts: bool
    packages: tuple[str, ...]

    def write(self, traced: Traced, folder: Path, precision: str) -> None:
        """Write the program's files into ``folder``; ``InputError`` where that cannot be."""
        self._call("write")(traced, folder, precision)

    def start(self, folder: Path, device: torch.device, precision: str) -> Runtime:
        """Load the program; ``InputError`` where that cannot be."""
        return self._call("start")(folder, device, precision)

    def versions(self) -> dict[str, str]:
        """Of what is installed of ``packages``."""
        from importlib.metadata import PackageNotFoundError, version

        found: dict[str, str] = {}
        for name in ("maskwright", "torch", "torchvision", *self.packages):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found

    def _call(self, name: str) -> Callable[..., Any]:
        return getattr(import_module(f"maskwright.export.{self.module}"), name)


TARGETS = {
    "onnx": Target("onnx", True, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": Target("openvino", False, ("onnx", "onnxscript", "openvino")),
    "tensorrt": Target("tensorrt", True, ("onnx", "onnxscript", "tensorrt")),
    "torch": Target("torch_package", True, ()),
}


def target(name: str) -> Target:
    """The runtime called ``name``, or an ``InputError``."""
    if name not in TARGETS:
        raise InputError(f"a target must be one of {', '.join(TARGETS)}, got {name!r}.")
    return TARGETS[name]
