"""AOTInductor: the program compiled to machine code, as a package that PyTorch loads without tracing anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.export.onnx import first_line
from maskwright.export.program import Traced
from maskwright.ops import nms

PROGRAM = "model.pt2"
OPERATORS = nms.grouped_nms
"""What programs call back; importing it makes it known."""
_LAYOUTS = False
"""Channels last within compiled code gave wrong masks on the processor (PyTorch 2.15: convolutions of some RoIs)."""


def write(traced: Traced, folder: Path, precision: str) -> None:
    """Compile into ``model.pt2``; the graph has its precision.

    Raises:
        InputError: there is no C++ compiler, or the model cannot be compiled.
    """
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise InputError("a torch artifact is compiled, which needs a C++ compiler (g++ or clang++); none was found.")
    from torch._inductor import aoti_compile_and_package

    try:
        aoti_compile_and_package(
            traced.program, package_path=str(folder / PROGRAM), inductor_configs={"layout_optimization": _LAYOUTS}
        )
    except Exception as error:  # the compiler's own errors share no other base
        raise InputError(f"PyTorch cannot compile this model ahead of time: {first_line(error)}") from error


def start(folder: Path, device: torch.device, precision: str) -> TorchPackage:
    """Load ``model.pt2``, which runs where it was compiled for: the host."""
    if device.type != "cpu":
        raise InputError(f"a torch artifact runs on cpu here, got --device {device}.")
    return TorchPackage(folder / PROGRAM)


class TorchPackage:
    """Runs ``model.pt2``.

    Raises:
        InputError: it was compiled for another processor or by another PyTorch.
    """

    def __init__(self, path: Path) -> None:
        from torch._inductor import aoti_load_package

        try:
            self.compiled: Any = aoti_load_package(str(path))
        except RuntimeError as error:
            raise InputError(f"PyTorch {torch.__version__} cannot load {path}: {first_line(error)}") from error

    def __call__(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Pixels float32 [B, 3, H, W] and sizes int64 [B, 2] to the outputs."""
        with torch.no_grad():
            return list(self.compiled(pixels.contiguous(), sizes))
