"""ONNX: a traced program as a model of opset 20, and ONNX Runtime to run it.

Two operators need words of their own: grouped NMS, which is one ``NonMaxSuppression`` with a class for each group, and
RoIAlign, whose adaptive sampling ONNX writes as 0.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.export.program import Traced
from maskwright.ops import nms

OPSET = 20
PROGRAM = "model.onnx"
_FAR = 1.0e30
"""Scores are above minus this; minus twice this marks boxes of other groups."""


def write(traced: Traced, folder: Path, precision: str = "fp32") -> None:
    """Write ``model.onnx`` (and ``model.onnx.data`` for large models) into ``folder``; the graph has its precision.

    Raises:
        InputError: onnx or onnxscript is not installed, or an operator has no ONNX form.
    """
    require("onnx", "onnxscript")
    count = len(traced.layout.names)
    size = sum(tensor.numel() * tensor.element_size() for tensor in traced.program.state_dict.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                traced.program,
                f=str(folder / PROGRAM),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels", "sizes"],
                output_names=[output_name(i, traced.layout.names[i]) for i in range(count)],
                custom_translation_table=_translations(),
                external_data=size > 1 << 30,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise InputError(f"this model has no ONNX form here: {first_line(error)}") from error


def start(folder: Path, device: torch.device, precision: str = "fp32") -> OnnxRuntime:
    """Load ``model.onnx`` for the host or a GPU."""
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type)
    if provider is None:
        raise InputError(f"an ONNX artifact runs on cpu or cuda, got --device {device}.")
    return OnnxRuntime(folder / PROGRAM, provider, torch.get_num_threads())


def output_name(index: int, path: str) -> str:
    """The name of output ``index``, which is at ``path`` of the model's ``Raw``."""
    return f"{index}.{path}"


class OnnxRuntime:
    """Runs ``model.onnx``.

    Args:
        path: of the model.
        provider: of ONNX Runtime, such as ``CPUExecutionProvider``.
        threads: within an operator; 0 leaves it to ONNX Runtime.

    Raises:
        InputError: onnxruntime or the provider is not installed, or it does not know an operator of the model.
    """

    def __init__(self, path: Path, provider: str = "CPUExecutionProvider", threads: int = 0) -> None:
        require("onnxruntime")
        import onnxruntime

        there = onnxruntime.get_available_providers()
        if provider not in there:
            raise InputError(
                f"the provider must be one that this onnxruntime has ({', '.join(there)}), got {provider}. "
                "Install the onnxruntime package that brings it, or choose another --device."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its exceptions have no common base but this one
            raise InputError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {first_line(error)}"
            ) from error
        self.inputs = [each.name for each in self.session.get_inputs()]

    def __call__(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Pixels float32 [B, 3, H, W] and sizes int64 [B, 2] to the outputs, on the host."""
        fed = {"pixels": pixels.contiguous().numpy(), "sizes": sizes.numpy()}
        try:
            found = self.session.run(None, {name: fed[name] for name in self.inputs})
        except Exception as error:  # as above
            raise InputError(f"ONNX Runtime failed on pixels {tuple(pixels.shape)}: {first_line(error)}") from error
        return [torch.from_numpy(np.asarray(each)) for each in found]


def require(*names: str) -> None:
    """``InputError`` unless these modules can be imported."""
    from importlib.util import find_spec

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {' and '.join(missing)}, not installed here: pip install 'maskwright[export]'.")


def first_line(error: BaseException) -> str:
    """What an error says, shortened, and what the first of the errors that led to it says."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    told: list[str] = []
    for each in (error,) if first is error else (error, first):
        lines = [line.strip() for line in str(each).splitlines() if line.strip()]
        told.append(lines[0][:300] if lines else type(each).__name__)
    return ": ".join(told)


# ---- operators ------------------------------------------------------------------------------------------------------


def _translations() -> dict[Any, Any]:
    import onnxscript

    op: Any = onnxscript.opset20

    def grouped_nms(boxes: Any, scores: Any, groups: Any, threshold: float) -> Any:
        """Each group is a class of one NonMaxSuppression, in which the others' boxes have no score."""
        one = op.Constant(value_ints=[1])
        zero = op.Constant(value_ints=[0])
        boxes, scores = op.Cast(boxes, to=1), op.Cast(scores, to=1)
        # an appended 0: there may be no boxes, and a maximum needs something
        count = op.Add(op.ReduceMax(op.Concat(groups, zero, axis=0), zero, keepdims=0), op.Squeeze(one))
        kinds = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
        own = op.Equal(op.Unsqueeze(kinds, one), op.Unsqueeze(groups, zero))
        table = op.Where(own, op.Unsqueeze(scores, zero), op.Constant(value_float=-2 * _FAR))
        found = op.NonMaxSuppression(
            op.Unsqueeze(boxes, zero),
            op.Unsqueeze(table, zero),
            op.Constant(value_ints=[1 << 30]),
            op.Constant(value_floats=[float(threshold)]),
            op.Constant(value_floats=[-_FAR]),
        )
        kept = op.Gather(found, op.Constant(value_int=2), axis=1)
        number = op.Shape(kept)
        # by index first, so that of equal scores the first comes first, as everywhere
        kept, _ = op.TopK(kept, number, largest=0)
        _, order = op.TopK(op.Gather(scores, kept), number)
        return op.Gather(kept, order)

    def roi_align(
        features: Any, rois: Any, scale: float, height: int, width: int, ratio: int = -1, aligned: bool = False
    ) -> Any:
        axis = op.Constant(value_ints=[1])
        image = op.Squeeze(op.Slice(rois, op.Constant(value_ints=[0]), axis, axis), axis)
        places = op.Slice(rois, axis, op.Constant(value_ints=[5]), axis)
        return op.RoiAlign(
            features,
            places,
            op.Cast(image, to=7),
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=height,
            output_width=width,
            sampling_ratio=max(ratio, 0),
            spatial_scale=scale,
        )

    def product(values: Any, factor: Any) -> Any:
        return op.Mul(values, op.CastLike(_scalar(factor), values))

    def remainder(values: Any, divisor: Any) -> Any:
        divisor = op.CastLike(_scalar(divisor), values)
        # written out, because Mod takes no floating numbers this way, and Div of integers rounds toward 0
        if values.dtype.is_floating_point():
            return op.Sub(values, op.Mul(op.Floor(op.Div(values, divisor)), divisor))
        return op.Mod(values, divisor)

    def sort(values: Any, *, stable: bool = False, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
        # of equal values TopK takes the first first, so it is stable
        count = op.Shape(values, start=dim, end=None if dim == -1 else dim + 1)
        return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)

    def _scalar(value: Any) -> Any:
        if isinstance(value, bool | int):
            return op.Constant(value_int=int(value))
        return op.Constant(value_float=value) if isinstance(value, float) else value

    return {
        nms.grouped_nms._opoverload: grouped_nms,
        torch.ops.torchvision.roi_align.default: roi_align,
        torch.ops.aten.sort.stable: sort,
        # torch's own forms of these take numbers only, and a map's side is a symbol
        torch.ops.aten.mul.Scalar: product,
        torch.ops.aten.remainder.Scalar: remainder,
    }
