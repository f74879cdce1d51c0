"""Less memory: activations computed twice, and micro-batches cut when there was not enough."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as activations

from maskwright.errors import InputError
from maskwright.structures import Batch, Images
from maskwright.train.optimizer import block_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
COMPILED = ("backbone", "neck", "pixel_decoder")
"""Parts of a model that are compiled: dense, of one input, without a look at the truth."""


def checkpoint_activations(model: nn.Module) -> int:
    """Let each block of the backbone keep only its input while training; how many blocks that are.

    Batch norms count a batch once although they compute it twice.

    Raises:
        InputError: the model has no backbone with blocks.
    """
    named = cast(Iterable[tuple[str, nn.Module]], model.named_modules())
    blocks = [module for name, module in named if name and block_of(name) == name]
    if not blocks:
        raise InputError("activations are checkpointed in the blocks of a backbone, but this model has none.")
    for block in blocks:
        cast(Any, block).forward = partial(_checkpointed, block, block.forward)
    return len(blocks)


def _checkpointed(block: nn.Module, forward: Any, *inputs: Any, **named: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unchanged(block)

    return cast(Any, activations).checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _unchanged(block: nn.Module) -> Generator[None]:
    before = statistics(block)
    try:
        yield
    finally:
        restore(before)


def compile_parts(model: nn.Module, backend: str = "inductor") -> list[str]:
    """Compile the parts of ``COMPILED`` in place, with sizes that may vary; parameters keep their names.

    Raises:
        InputError: the model has none of them.
    """
    parts = {name: part for name in COMPILED if isinstance(part := getattr(model, name, None), nn.Module)}
    if not parts:
        raise InputError(f"--compile compiles {', '.join(COMPILED)} of a model, and this one has none of them.")
    for part in parts.values():
        cast(Any, part).compile(backend=backend)
    return list(parts)


# ---- steps that are done anew ---------------------------------------------------------------------------------------


def statistics(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copies of what batch norms in training mode will change, each after the buffer itself."""
    norms = [each for each in module.modules() if isinstance(each, NORMS) and each.training]
    return [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]


@torch.no_grad()
def restore(before: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Put back what ``statistics`` copied."""
    for buffer, value in before:
        buffer.copy_(value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a step failed for want of memory, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA out of memory" in text)


def cut(window: Sequence[Batch], pieces: int) -> list[Batch]:
    """Each batch in up to ``pieces`` parts of nearly equal size, at least one picture each."""
    parts: list[Batch] = []
    for batch in window:
        number = min(pieces, len(batch))
        places = [len(batch) * k // number for k in range(number + 1)]
        parts += [_part(batch, first, end) for first, end in pairwise(places)]
    return parts


def _part(batch: Batch, first: int, end: int) -> Batch:
    if end - first == len(batch):
        return batch
    images = Images(pixels=batch.inputs.pixels[first:end], geometry=batch.inputs.geometry[first:end])
    return Batch(inputs=images, scenes=batch.scenes[first:end], keys=batch.keys[first:end])
