"""The order of a run: batches of draws, each an index with its own random seed; exact to resume.

The seed travels with the index, so a sample is the same whichever worker process makes it, and whether or not the run
was interrupted before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from maskwright.data.source import Loads, image_sizes
from maskwright.errors import InputError


class Draw(NamedTuple):
    """One sample to be made: which record, and the seed of what is random about it."""

    index: int
    seed: int


class Shuffled:
    """Endless batches: every image once, in random order, then all again in another order.

    With ``group`` a batch holds only landscape or only portrait pictures, which wastes less padding; each kind keeps
    its share of the batches. A source with ``parts`` and ``shares`` (``MixedSource``) is drawn from at its shares.

    Over several processes each batch is cut into ranks, so that together they see what one process with the whole batch
    would see.

    Args:
        source: the data set; only its length, sizes and shares are used.
        batch_size: samples in a batch of this process.
        seed: equal seeds give equal orders.
        group: keep landscape and portrait pictures apart.
        rank: which process this is.
        world: how many processes there are.

    Raises:
        InputError: no images, or a batch size or rank that cannot be.
    """

    def __init__(
        self, source: Loads, batch_size: int, *, seed: int = 0, group: bool = False, rank: int = 0, world: int = 1
    ) -> None:
        if len(source) == 0:
            raise InputError("the data set must have images to draw from, got none")
        if batch_size < 1 or not 0 <= rank < world:
            raise InputError(f"expected batch_size >= 1 and 0 <= rank < world, got {batch_size}, {rank}, {world}")
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.count = len(source)
        parts = np.asarray(getattr(source, "parts", np.zeros(self.count, np.int64)))
        part_shares = np.asarray(getattr(source, "shares", (1.0,)), np.float64)
        tall = np.zeros(self.count, bool)
        if group:
            sizes = image_sizes(source)
            tall = sizes[:, 0] > sizes[:, 1]
        # streams[g][p]: the images of shape g in part p, each stream an endless sequence of permutations.
        self._members = [[np.flatnonzero((tall == g) & (parts == p)) for p in range(len(part_shares))] for g in (0, 1)]
        lengths = np.array([[len(m) for m in row] for row in self._members], np.float64)
        joint = part_shares * lengths / lengths.sum(axis=0)
        self._group_shares = joint.sum(axis=1) / joint.sum()
        self._part_shares = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
        self._batches = 0
        self._group_used = np.zeros(2, np.int64)
        self._part_used = np.zeros((2, len(part_shares)), np.int64)
        self._orders: dict[tuple[int, int], tuple[int, np.ndarray]] = {}

    @property
    def epoch(self) -> int:
        """How many batches show as many samples as there are images, rounded up."""
        return -(-self.count // (self.batch_size * self.world))

    @property
    def batches(self) -> int:
        """How many batches were drawn so far."""
        return self._batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """Batches from where the state stands, without end."""
        while True:
            yield self.draw()

    def draw(self) -> list[Draw]:
        """The next batch of this rank."""
        g = _most_behind(self._group_shares, self._group_used)
        everyone = self.batch_size * self.world
        first = self._batches * everyone
        mine = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        out: list[Draw] = []
        for position in range(everyone):
            p = _most_behind(self._part_shares[g], self._part_used[g])
            if position in mine:
                out.append(Draw(self._member(g, p, int(self._part_used[g, p])), _mixed(self.seed, first + position)))
            self._part_used[g, p] += 1
        self._group_used[g] += 1
        self._batches += 1
        return out

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands, as plain numbers."""
        return {
            "count": self.count,
            "seed": self.seed,
            "everyone": self.batch_size * self.world,
            "batches": self._batches,
            "groups": self._group_used.tolist(),
            "parts": self._part_used.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that ``state`` had drawn, in its order whatever seed this sampler was made with.

        Raises:
            InputError: the state is of another number of images, batch size or mix.
        """
        mine = self.state_dict()
        for name, what in (("count", "images"), ("everyone", "samples in a batch over all processes")):
            if state[name] != mine[name]:
                raise InputError(
                    f"the order to resume was drawn with {state[name]} {what}, now there are {mine[name]}. "
                    "Resume with the same data and batch size, or start anew."
                )
        if np.shape(state["parts"]) != np.shape(mine["parts"]):
            raise InputError("the order to resume was drawn from another mix of sources. Resume with the same ones.")
        self.seed, self._batches = int(state["seed"]), int(state["batches"])
        self._group_used = np.array(state["groups"], np.int64)
        self._part_used = np.array(state["parts"], np.int64).reshape(2, -1)
        self._orders.clear()

    def _member(self, g: int, p: int, position: int) -> int:
        members = self._members[g][p]
        cycle, place = divmod(position, len(members))
        known = self._orders.get((g, p))
        if known is None or known[0] != cycle:
            known = (cycle, np.random.default_rng([self.seed, g, p, cycle]).permutation(members))
            self._orders[(g, p)] = known
        return int(known[1][place])


class Sequential:
    """Every image once, in order: the batches of an evaluation. Ranks take turns batch by batch.

    Args:
        source: the data set; only its length is used.
        batch_size: samples in a batch.
        rank: which process this is.
        world: how many processes there are.
    """

    def __init__(self, source: Loads, batch_size: int = 1, *, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise InputError(f"expected batch_size >= 1 and 0 <= rank < world, got {batch_size}, {rank}, {world}")
        self.count, self.batch_size, self.rank, self.world = len(source), batch_size, rank, world
        self._batches = 0

    def __len__(self) -> int:
        total = -(-self.count // self.batch_size)
        return len(range(self.rank, total, self.world))

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches that remain; iterating again after the end starts anew."""
        while self._batches < len(self):
            first = (self.rank + self._batches * self.world) * self.batch_size
            self._batches += 1
            yield [Draw(i, _mixed(0, i)) for i in range(first, min(first + self.batch_size, self.count))]
        self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands, as plain numbers."""
        return {"count": self.count, "batches": self._batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that ``state`` had drawn; ``InputError`` if it is of another number of images."""
        if state["count"] != self.count:
            raise InputError(f"the order to resume had {state['count']} images, now there are {self.count}.")
        self._batches = int(state["batches"])


def _most_behind(shares: np.ndarray, used: np.ndarray) -> int:
    """The stream furthest behind its share of the next draw (largest remainder); one without a share is never due."""
    due = np.where(shares > 0, shares * (int(used.sum()) + 1) - used, -np.inf)
    return int(np.argmax(due))


def _mixed(seed: int, number: int) -> int:
    """A well mixed 63-bit number (splitmix64) of a seed and a running number."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + number + 0x9E3779B97F4A7C15) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & mask
    return (value ^ (value >> 31)) >> 1
