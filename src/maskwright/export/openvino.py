"""OpenVINO: the ONNX program as OpenVINO's own model, and its runtime.

The precision is a wish to the runtime (``fp32``, ``bf16`` on processors that multiply it); ``fp16`` stores the weights
in half the space and computes in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.export import onnx
from maskwright.export.program import Traced

PROGRAM = "model.xml"
_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}


def write(traced: Traced, folder: Path, precision: str) -> None:
    """Write ``model.xml`` and ``model.bin`` into ``folder``.

    Raises:
        InputError: openvino, onnx or onnxscript is not installed, or an operator has no form there.
    """
    onnx.require("openvino")
    import openvino

    with tempfile.TemporaryDirectory() as place:
        onnx.write(traced, Path(place))
        try:
            model = openvino.convert_model(Path(place) / onnx.PROGRAM)
            openvino.save_model(model, folder / PROGRAM, compress_to_fp16=precision == "fp16")
        except RuntimeError as error:
            raise InputError(f"this model has no OpenVINO form: {onnx.first_line(error)}") from error


def start(folder: Path, device: torch.device, precision: str) -> OpenVino:
    """Load ``model.xml`` for the host."""
    if device.type != "cpu":
        raise InputError(f"an OpenVINO artifact runs on cpu here, got --device {device}.")
    return OpenVino(folder / PROGRAM, _HINTS[precision], torch.get_num_threads())


class OpenVino:
    """Runs ``model.xml``.

    Args:
        path: of the model. precision: of the arithmetic, ``f32`` or ``bf16``. threads: at most.

    Raises:
        InputError: openvino is not installed, or does not know an operator of the model.
    """

    def __init__(self, path: Path, precision: str = "f32", threads: int = 0) -> None:
        onnx.require("openvino")
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        options |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
        try:
            compiled: Any = core.compile_model(path, "CPU", options)
        except RuntimeError as error:
            version = openvino.get_version()
            raise InputError(f"OpenVINO {version} cannot load {path}: {onnx.first_line(error)}") from error
        self.request = compiled.create_infer_request()
        self.inputs = {name for each in compiled.inputs for name in each.get_names()}
        self.count = len(compiled.outputs)

    def __call__(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Pixels float32 [B, 3, H, W] and sizes int64 [B, 2] to the outputs, on the host."""
        fed = {"pixels": pixels.contiguous().numpy(), "sizes": sizes.numpy()}
        self.request.infer({name: fed[name] for name in fed if name in self.inputs})
        found = (self.request.get_output_tensor(i).data for i in range(self.count))
        return [torch.from_numpy(np.array(each)) for each in found]
