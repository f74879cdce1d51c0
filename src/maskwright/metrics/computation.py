"""What a model costs: parameters, operations, bytes on disk and in memory, and time by stage. This module needs torch.

It is handed objects and callables and knows no model. All results are plain dictionaries that JSON can hold. Memory of
the host is measured by ``metrics.memory``, which needs no torch.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PERCENTILES = (50, 90, 99)


def count_parameters(model: nn.Module) -> dict[str, Any]:
    """``{"parameters", "trainable", "buffers", "bytes", "by_module": {child: parameters}}``, numbers of elements.

    A tensor that several modules share counts once (in ``by_module`` for each child that holds it), and so does a child
    with several names. ``bytes`` are those of parameters and buffers in their present types.
    """
    parameters, buffers = list(model.parameters()), list(model.buffers())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "buffers": sum(b.numel() for b in buffers),
        "bytes": sum(t.numel() * t.element_size() for t in (*parameters, *buffers)),
        "by_module": {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()},
    }


def count_flops(
    model: nn.Module,
    inputs: Sequence[Any],
    options: Mapping[str, Any] | None = None,
    *,
    pretend: bool = False,
    depth: int = 1,
) -> dict[str, Any]:
    """Operations of one call of ``model(*inputs, **options)`` in evaluation mode, without gradients.

    Counted by torch (``torch.utils.flop_counter``): convolutions, matrix products and attention; deformable
    convolutions too, where torchvision is loaded. Normalization, activations, pooling, resampling and NMS are not. A
    multiply-add is two FLOPs and one MAC. Papers and model cards often write "FLOPs" and mean MACs: so do
    torchvision (``weights.meta["_ops"]``, in 10^9) and fvcore.

    Networks with a data-dependent part (proposals, queries that are dropped) cost what these inputs make them cost.

    Args:
        inputs, options: arguments of the call; the batch size is theirs.
        pretend: run on tensors that have shapes but no values: fast, needs no memory, and impossible for networks whose
            shapes depend on values, such as two-stage detectors.
        depth: how deep ``by_module`` goes: 1 are the model's children.

    Returns:
        ``{"flops", "macs", "by_module": {name: flops}, "by_operator": {name: flops}}``, integers.
    """
    # The fused attention of evaluation is one operator that torch does not count.
    fused = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping=_further())
    arguments, named = tuple(inputs), dict(options or {})
    with _evaluating(model):
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), _pretending(pretend), counter:
                model(*arguments, **named)
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
    counts = counter.get_flop_counts()
    total = int(counter.get_total_flops())
    by_operator = {str(op): int(n) for op, n in counts.get("Global", {}).items()}
    root = type(model).__name__
    named_counts = {name.removeprefix(f"{root}."): ops for name, ops in counts.items() if name.startswith(f"{root}.")}
    by_module = {name: sum(map(int, ops.values())) for name, ops in named_counts.items() if name.count(".") < depth}
    return {"flops": total, "macs": total // 2, "by_module": by_module, "by_operator": by_operator}


def file_size(path: str | Path) -> int:
    """Bytes of a file, or of all files in a folder.

    Raises:
        FileNotFoundError: there is neither.
    """
    path = Path(path)
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size


def costs(
    model: nn.Module,
    inputs: Sequence[Any],
    options: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    images: int = 1,
    runs: int = 20,
    warmup: int = 3,
    threads: int | None = None,
) -> dict[str, Any]:
    """All of one model and input that can be said in this process, where the model lies.

    Args:
        inputs, options: arguments of a call, on the model's device; images: how many they hold.
        file: the model's weights on disk.
        runs, warmup, threads: as in ``measure_latency``.

    Returns:
        ``{"parameters": count_parameters, "operations": count_flops, "latency": measure_latency}``, with a file also
        ``"file_bytes"``, on a GPU also ``"memory": peak_device_memory``.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    arguments, named = tuple(inputs), dict(options or {})
    with _evaluating(model), torch.no_grad():

        def call(_: object = None) -> None:
            model(*arguments, **named)

        times = measure_latency(call, runs=runs, warmup=warmup, images=images, threads=threads, device=device)
        memory = peak_device_memory(call, device) if device.type == "cuda" else None
    out = {"parameters": count_parameters(model), "operations": count_flops(model, inputs, options), "latency": times}
    out |= {"file_bytes": file_size(file)} if file is not None else {}
    return out | ({"memory": memory} if memory is not None else {})


def peak_device_memory(call: Callable[[], object], device: torch.device | str = "cuda") -> dict[str, int]:
    """Memory of a GPU that one call needs: ``{"before", "peak", "added"}``, bytes of tensors as torch allocates them.

    What the driver and torch's cache hold beyond tensors is not in it. The call runs once before, so that what
    libraries allocate on first use is in ``before``.
    """
    call()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    return {"before": before, "peak": peak, "added": peak - before}


# ---- time -----------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Times of runs from end to end, and of named stages within them.

        watch = Stopwatch(warmup=3)
        for path in paths:
            with watch.run():
                with watch.stage("read"):
                    image = read(path)
                with watch.stage("forward"):
                    raw = model(image)
        watch.compute()

    On a GPU every stage waits for the device at both ends, so that each pays for its own work; stages that could
    overlap then do not, and a pipeline can be faster than the sum.

    Args:
        device: what to wait for; ``None`` or a CPU: nothing.
        warmup: first runs that are not counted (memory pools, compilation, caches).
        clock: seconds, rising.
    """

    def __init__(
        self,
        *,
        device: torch.device | str | None = None,
        warmup: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {warmup}")
        self.device = torch.device(device or "cpu")
        self.warmup = warmup
        self._clock = clock
        self._seen = 0
        self._images: list[int] = []
        self._seconds: list[float] = []
        self._stages: list[dict[str, float]] = []
        self._now: dict[str, float] | None = None
        self._inside = False

    def __len__(self) -> int:
        """Runs counted."""
        return len(self._seconds)

    @contextmanager
    def run(self, images: int = 1) -> Generator[None]:
        """Time one run over ``images`` images. A run that raises is not counted."""
        if self._now is not None:
            raise RuntimeError("a run is under way; runs cannot be nested")
        if images < 1:
            raise ValueError(f"a run must have at least 1 image, got {images}")
        self._now = {}
        try:
            begin = self._time()
            yield
            seconds = self._time() - begin
            self._seen += 1
            if self._seen > self.warmup:
                self._seconds.append(seconds)
                self._images.append(images)
                self._stages.append(self._now)
        finally:
            self._now = None

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time one stage of a run; one that comes several times in a run is added up. Stages cannot be nested."""
        if self._now is None or self._inside:
            raise RuntimeError(f"stage {name!r} must lie in a run and in no other stage")
        self._inside = True
        try:
            begin = self._time()
            yield
            self._now[name] = self._now.get(name, 0.0) + self._time() - begin
        finally:
            self._inside = False

    def compute(self) -> dict[str, Any]:
        """``{"end_to_end": {"p50", "p90", "p99", "mean"}, "stages": {name: {..., "share"}}, "images_per_second"...}``.

        Times are milliseconds of a run. A stage's share is its part of all time; ``rest`` is what no stage names; a
        stage that a run does not have took 0 there. Further: runs, images, warmup, device, threads, torch, machine.

        Raises:
            RuntimeError: no run was counted.
        """
        if not self._seconds:
            raise RuntimeError(f"no run was counted ({self._seen} seen, of which the first {self.warmup} warm up)")
        names = list(dict.fromkeys(name for run in self._stages for name in run))
        whole = np.array(self._seconds)
        table = {name: np.array([run.get(name, 0.0) for run in self._stages]) for name in names}
        if names:
            table["rest"] = whole - np.sum(list(table.values()), axis=0)
        return {
            "end_to_end": _milliseconds(whole),
            "stages": {
                name: _milliseconds(seconds) | {"share": float(seconds.sum() / max(whole.sum(), 1e-12))}
                for name, seconds in table.items()
            },
            "images_per_second": float(sum(self._images) / max(whole.sum(), 1e-12)),
            "runs": len(self),
            "images": sum(self._images),
            "warmup": self.warmup,
            **machine(self.device),
        }

    def _time(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return self._clock()


def measure_latency(
    call: Callable[[Stopwatch], object],
    *,
    runs: int = 50,
    warmup: int = 5,
    images: int = 1,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Percentiles of the time of ``call(watch)``, which may name its stages; see ``Stopwatch.compute``.

    Args:
        runs, warmup: how often to call, and how often before without counting; p99 means little below 100 runs.
        images: how many images one call handles.
        threads: torch's threads on the CPU meanwhile; ``None`` leaves them.
        device: what to wait for.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    watch = Stopwatch(device=device, warmup=warmup)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for _ in range(warmup + runs):
            with watch.run(images):
                call(watch)
        return watch.compute()
    finally:
        torch.set_num_threads(before)


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What times depend on: ``{"device", "threads", "torch", "machine"}``."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    system = f"{platform.system()} {platform.machine()}"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": system}


def _milliseconds(seconds: np.ndarray) -> dict[str, float]:
    points = np.percentile(seconds * 1e3, PERCENTILES)
    named = {f"p{p}": float(value) for p, value in zip(PERCENTILES, points, strict=True)}
    return named | {"mean": float(seconds.mean() * 1e3)}


# ---- parts ----------------------------------------------------------------------------------------------------------


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """The model in evaluation mode, and each module as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _pretending(wanted: bool) -> Any:
    if not wanted:
        return nullcontext()
    from torch._subclasses.fake_tensor import FakeTensorMode  # torch documents it, but at this address only

    return FakeTensorMode(allow_non_fake_inputs=True)


def _further() -> dict[Any, Any]:
    """Operators that torch does not know how to count."""
    try:
        deformable: Any = torch.ops.torchvision.deform_conv2d
    except AttributeError:
        return {}

    def flops(_: Sequence[int], weight: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any) -> int:
        return 2 * out_shape[0] * out_shape[-2] * out_shape[-1] * int(np.prod(weight))

    return {deformable: flops}
