"""TensorRT: the ONNX program as a strongly typed network (precision is in the graph), built for the GPU at hand."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.export import onnx
from maskwright.export.program import Traced

PROGRAM = "model.engine"
_USUAL = 800
"""The side, in pixels, that kernels are chosen for; others run too."""


def write(traced: Traced, folder: Path, precision: str) -> None:
    """Build ``model.engine``, which runs on GPUs of this kind with this TensorRT only.

    Raises:
        InputError: tensorrt or a GPU is missing, or an operator has no form there.
    """
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory() as place:
        onnx.write(traced, Path(place))
        if not parser.parse_from_file(str(Path(place) / onnx.PROGRAM)):
            reasons = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
            raise InputError(f"this model has no TensorRT form: {reasons[:400]}")
    profile = builder.create_optimization_profile()
    counts = (1, 1, 8) if traced.batch is None else (traced.batch,) * 3
    sides = (traced.least, max(traced.least, min(_USUAL, traced.most)), traced.most)
    profile.set_shape("pixels", *[(count, 3, side, side) for count, side in zip(counts, sides, strict=True)])
    if traced.batch is None:
        profile.set_shape("sizes", *[(count, 2) for count in counts])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError("TensorRT could not build the network; its log says why. Try a smaller --most.")
    (folder / PROGRAM).write_bytes(bytes(engine))


def start(folder: Path, device: torch.device, precision: str) -> TensorRT:
    """Load ``model.engine``."""
    return TensorRT(folder / PROGRAM)


class TensorRT:
    """Runs ``model.engine`` on the current GPU; outputs come back to the host.

    Raises:
        InputError: tensorrt or a GPU is missing, or the engine is of another GPU or version.
    """

    def __init__(self, path: Path) -> None:
        trt = _tensorrt()
        self.allocator = _allocator(trt)
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InputError(f"TensorRT {trt.__version__} cannot load {path}: it was built for another GPU or version.")
        self.engine: Any = engine
        self.context: Any = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self.kinds = {name: torch.from_numpy(_empty(trt.nptype(engine.get_tensor_dtype(name)))).dtype for name in names}

    def __call__(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Pixels float32 [B, 3, H, W] and sizes int64 [B, 2] to the outputs, on the host."""
        fed = {"pixels": pixels.contiguous().cuda(), "sizes": sizes.contiguous().cuda()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        for name in self.inputs:
            self.context.set_input_shape(name, tuple(fed[name].shape))
            self.context.set_tensor_address(name, fed[name].data_ptr())
        made = {name: self.allocator() for name in self.outputs}
        for name, memory in made.items():
            self.context.set_output_allocator(name, memory)
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise InputError(f"TensorRT could not run on pixels {tuple(pixels.shape)}; the engine's sizes are smaller.")
        stream.synchronize()
        # outputs keep the program's order, which their names begin with
        ordered = sorted(self.outputs, key=lambda name: int(name.partition(".")[0]))
        return [made[name].tensor(self.kinds[name]) for name in ordered]


def _tensorrt() -> Any:
    onnx.require("tensorrt")
    if not torch.cuda.is_available():
        raise InputError("TensorRT needs an NVIDIA GPU and its driver; none was found. Export to onnx instead.")
    return import_module("tensorrt")


def _empty(kind: Any) -> Any:
    import numpy as np

    return np.empty(0, dtype=kind)


def _allocator(trt: Any) -> Any:
    """A class that gives an output memory once its size is known: detections have no fixed number."""

    class Memory(trt.IOutputAllocator):
        def __init__(self) -> None:
            super().__init__()
            self.memory = torch.empty(0, dtype=torch.uint8, device="cuda")
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            if size > len(self.memory):
                self.memory = torch.empty(size, dtype=torch.uint8, device="cuda")
            return self.memory.data_ptr()

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def tensor(self, kind: torch.dtype) -> Tensor:
            count = 1
            for side in self.shape:
                count *= side
            return self.memory[: count * kind.itemsize].view(kind).view(self.shape).cpu()

    return Memory
