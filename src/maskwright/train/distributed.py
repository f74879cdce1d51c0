"""One training over several processes: where this one stands, and what all of them agree on.

Processes are started by ``torchrun`` or SLURM's ``srun``; Fabric joins them and wraps the objective for data
parallelism. All write nothing but the first, which also tells. Every decision that hangs on time or chance of one
process (a signal, the clock, a loss that is not finite) is made by all together, so none waits for another in vain.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.ops.hardware import choose_device


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process stands: its number of ``world``, and on its machine; ``nodes`` machines."""

    rank: int = 0
    world: int = 1
    local: int = 0
    nodes: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0


def place(environment: Mapping[str, str] | None = None) -> Place:
    """What ``torchrun`` or ``srun`` says of this process; alone where neither started it.

    Raises:
        InputError: machines have different numbers of processes.
    """
    said = os.environ if environment is None else environment
    if "RANK" in said and "WORLD_SIZE" in said and "LOCAL_RANK" in said:
        world = int(said["WORLD_SIZE"])
        each = int(said.get("LOCAL_WORLD_SIZE", world))
        return _even(Place(int(said["RANK"]), world, int(said["LOCAL_RANK"]), max(1, world // each)))
    if "SLURM_STEP_ID" in said and int(said.get("SLURM_NTASKS", "1")) > 1:
        numbers = (int(said[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NNODES"))
        return _even(Place(*numbers))
    return Place()


def _even(found: Place) -> Place:
    if found.world % found.nodes:
        raise InputError(
            f"each machine must have as many processes, but {found.world} are on {found.nodes} machines. "
            "Start the same number on each."
        )
    return found


def device_of(name: str, where: Place) -> torch.device:
    """The device of this process: GPUs are taken in order, one for each process of a machine.

    Raises:
        InputError: there is no such device, or it is one GPU for several processes.
    """
    if where.world == 1:
        return choose_device(name)
    device = choose_device(name)
    if device.type != "cuda":
        return device
    if ":" in name:
        raise InputError(f"several processes need a GPU each, so --device must be cuda, got {name}.")
    if torch.cuda.device_count() <= where.local:
        raise InputError(
            f"process {where.local + 1} of this machine needs a GPU of its own, but there are "
            f"{torch.cuda.device_count()}. Start fewer processes."
        )
    return torch.device("cuda", where.local)


def launch(device: torch.device, precision: str, where: Place, timeout_minutes: float) -> Fabric:
    """A Fabric for this process, joined with the others."""
    names: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    if where.world == 1:
        devices: Any = [device.index] if device.type == "cuda" else 1
        return Fabric(accelerator=device.type, devices=devices, precision=names[precision])
    # Parts of a model may have no gradient on a batch without objects; buffers are shared before they are used.
    strategy = DDPStrategy(
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(minutes=timeout_minutes),
        find_unused_parameters=True,
        broadcast_buffers=False,
    )
    fabric = Fabric(
        accelerator=device.type,
        devices=where.world // where.nodes,
        num_nodes=where.nodes,
        strategy=strategy,
        precision=names[precision],
    )
    fabric.launch()
    return fabric


def synchronized(module: nn.Module, device: torch.device) -> None:
    """Let batch norms in training mode see the pictures of all processes.

    Raises:
        InputError: not on GPUs, which PyTorch's synchronized norm asks for.
    """
    if device.type != "cuda":
        raise InputError(f"--sync-norm needs GPUs, got {device}. Group norms do without (see the model's options).")
    cast(Any, nn.SyncBatchNorm).convert_sync_batchnorm(module)


# ---- what all agree on ----------------------------------------------------------------------------------------------


def joined() -> bool:
    """Whether there are other processes."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def waiting(minutes: float) -> Generator[None]:
    """Say what it means where this process waited in vain for another.

    Raises:
        InputError: another one died, or did not come within ``minutes``.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if not joined() or not any(words in said for words in _ALONE):
            raise
        raise InputError(
            f"another process of this training died, or hung: this one waited {minutes:g} minutes at most "
            "(--timeout-minutes). Look at what the others said last; the checkpoints are whole, and --resume goes on "
            f"from the newest, also with fewer processes. PyTorch said: {str(error).splitlines()[0]}"
        ) from error


_ALONE = ("timed out", "timeout", "closed by peer", "connection reset", "broken pipe")


def largest(values: Sequence[float], device: torch.device) -> list[float]:
    """The largest of all processes' numbers, place by place."""
    if not joined():
        return list(values)
    together = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(together, op=torch.distributed.ReduceOp.MAX)
    return [float(value) for value in together]


def gathered(value: Any) -> list[Any]:
    """The objects of all processes, in their order."""
    if not joined():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers: running statistics drift apart, as each sees other pictures."""
    if joined():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def total(value: Tensor) -> Tensor:
    """The sum over all processes; the same tensor where there is one."""
    if not joined():
        return value
    together = value.detach().clone()
    torch.distributed.all_reduce(together)
    return together
