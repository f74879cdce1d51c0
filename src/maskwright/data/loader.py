"""The loader: batches made by worker processes, the same for any number of them, and resumed exactly."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from maskwright.data.collate import collate
from maskwright.data.memory import give_back
from maskwright.data.samplers import Draw
from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.structures import Batch, Images, Record, Sample

PREFETCH = 4
"""Batches that each worker keeps ready."""
BAD_IN_A_ROW = 10
"""Batches that may be left out one after the other."""

Transform = Callable[[Record, Tensor, np.random.Generator], Sample]
"""``Augment``, ``ToSize``, or anything else that makes a sample of a record, its pixels and a source of randomness."""


class Order(Protocol):
    """What the loader needs of a sampler: batches, and where they stand."""

    def __iter__(self) -> Iterator[list[Draw]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Learns(Order, Protocol):
    """An order that changes with the losses of what it gave (``Shuffled`` with ``replay``)."""

    def report(self, losses: Sequence[float]) -> None: ...

    def completed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state that was taken when its last batch was drawn, with what was reported on its batches since."""
        ...


def make_loader(
    source: Loads,
    augment: Transform,
    sampler: Order,
    *,
    workers: int = 0,
    multiple: int = 32,
    prefetch: int = PREFETCH,
    left_out: Callable[[str], None] | None = None,
    timeout: float = 0.0,
) -> Loader:
    """Batches of ``source`` in the order of ``sampler``.

    Args:
        source: records with pixels.
        augment: makes a sample; it must draw all its randomness from the generator it is given.
        sampler: an order; the loader moves it, so do not iterate it elsewhere.
        workers: processes beside this one; 0 works in this one.
        multiple: what the padded height and width are divisible by.
        prefetch: batches that each worker keeps ready.
        left_out: told why a batch with a picture that cannot be read is left out; ``None`` raises instead. More than
            ``BAD_IN_A_ROW`` such batches one after the other are raised all the same.
        timeout: seconds to wait for a worker's batch; 0 waits as long as it takes.

    Raises:
        InputError: ``sampler`` replays with a lag shorter than what the workers draw ahead.
    """
    replay = getattr(sampler, "replay", None)
    if replay is not None and replay.lag <= workers * prefetch:
        raise InputError(
            f"{workers} workers draw {workers * prefetch} batches ahead, so the lag of the replay must be more than "
            f"that, got {replay.lag}. Raise it, or lower workers or prefetch."
        )
    ways: dict[str, Any] = {"multiple": multiple, "prefetch": prefetch, "left_out": left_out, "timeout": timeout}
    return Loader(source, augment, sampler, workers=workers, **ways)


class Loader:
    """An iterable of ``Batch``; see ``make_loader``.

    ``state_dict`` speaks of the batches handed out, not of those that workers made in advance: a new loader that loads
    it continues with the batch that this one would hand out next. Iterating again goes on where the last iteration was
    left.
    """

    def __init__(
        self,
        source: Loads,
        augment: Transform,
        sampler: Order,
        *,
        workers: int,
        multiple: int,
        prefetch: int,
        left_out: Callable[[str], None] | None = None,
        timeout: float = 0.0,
    ) -> None:
        self._left_out = left_out
        self._sampler = sampler
        self._state = sampler.state_dict()
        self._ahead: deque[dict[str, Any]] = deque()
        parallel: dict[str, Any] = {}
        if workers > 0:
            give_back()
            # Forked workers share what the source holds in memory; where there is no fork they get a copy.
            method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
            parallel = {
                "timeout": timeout,
                "prefetch_factor": prefetch,
                "persistent_workers": True,
                "multiprocessing_context": method,
            }
        made: Any = _Made(source, augment, multiple)  # neither is a subclass of what torch's annotations ask for
        watched: Any = _Watched(sampler, self._ahead)
        self._loader: DataLoader[Any] = DataLoader(
            made,
            batch_sampler=watched,
            collate_fn=_first if workers == 0 else _packed,
            num_workers=workers,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # keeps the loader from drawing on the global one
            **parallel,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the state stands.

        Raises:
            InputError: a picture cannot be read; the message names its file. Or a worker died, or did not answer.
        """
        self._state = self.state_dict()
        self._sampler.load_state_dict(self._state)
        self._ahead.clear()
        in_a_row = 0
        for made in self._batches():
            if isinstance(made, InputError) and self._left_out is not None and in_a_row < BAD_IN_A_ROW:
                in_a_row += 1
                self._state = self._ahead.popleft()
                self._left_out(f"a batch is left out: {made}")
                continue
            in_a_row = 0
            if isinstance(made, InputError):
                # A new one: an error that its own frame refers to would keep the workers until garbage collection.
                raise InputError(str(made))
            self._state = self._ahead.popleft()
            yield _unpacked(made)

    def _batches(self) -> Iterator[Any]:
        stream = iter(self._loader)
        while True:
            try:
                made = next(stream)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader" not in str(error):
                    raise
                raise InputError(
                    f"a process that loads pictures died or hung ({str(error).splitlines()[0]}). Is there memory "
                    "enough, and does the disk answer? Give fewer --workers, or --workers 0 to see what it dies of."
                ) from error
            yield made

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state after the batches handed out so far, with what was reported on them."""
        state = self._state
        return self._sampler.completed(state) if isinstance(self._sampler, Learns) else dict(state)

    def report(self, losses: Sequence[float]) -> None:
        """Tell the order how hard a batch was, which matters to one with ``replay`` and to no other.

        Call it once for every batch handed out, in their order, after its loss is known and before ``state_dict`` and
        before iterating anew; batches without a report by then count as unknown.

        Args:
            losses: one for each image of the batch over all ranks, in rank order: gathered, the same on every rank.
                Where only the batch's loss is known, give it for each of its images.

        Raises:
            ValueError: there is no such batch, the number of losses is not its images', or one is not finite.
        """
        if isinstance(self._sampler, Learns):
            self._sampler.report(losses)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that ``state`` had handed out, from the next iteration on."""
        self._sampler.load_state_dict(state)
        self._state = self._sampler.state_dict()


@dataclass(frozen=True, slots=True)
class _Made:
    """A data set whose items are whole batches: the fetcher passes all draws of one at once."""

    source: Loads
    augment: Transform
    multiple: int

    def __getitems__(self, draws: list[Draw]) -> list[Batch | InputError]:
        samples: list[Sample] = []
        for draw in draws:
            try:
                record, image = self.source.load(draw.index)
                samples.append(self.augment(record, image, np.random.default_rng(draw.seed)))
            except InputError as error:
                return [error]  # handed over as a value: raised in a worker it would arrive wrapped in a traceback
        return [collate(samples, self.multiple)]


class _Watched:
    """A sampler whose states are noted, one per batch drawn from it."""

    def __init__(self, sampler: Order, states: deque[dict[str, Any]]) -> None:
        self._sampler = sampler
        self._states = states

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self._sampler:
            self._states.append(self._sampler.state_dict())
            yield batch


def _first(made: list[Any]) -> Any:
    return made[0]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays: torch's own way would open one shared file for each of the many small tensors."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.numpy(),)
        return NotImplemented


def _packed(made: list[Any]) -> Any:
    """For the way between processes: the pixels in shared memory, everything else as bytes."""
    batch = made[0]
    if not isinstance(batch, Batch):
        return batch
    rest = io.BytesIO()
    _Pickler(rest, protocol=5).dump((batch.inputs.geometry, batch.scenes, batch.keys))
    return batch.inputs.pixels, rest.getvalue()


def _unpacked(made: Any) -> Batch:
    if isinstance(made, Batch):
        return made
    pixels, rest = made
    geometry, scenes, keys = pickle.loads(rest)
    return Batch(inputs=Images(pixels=pixels, geometry=geometry), scenes=scenes, keys=keys)


def batches(loader: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The next ``count`` batches of an endless loader; ``zip(loader, range(count))`` would lose one more."""
    return islice(loader, count)
