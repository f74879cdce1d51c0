"""The order of a run: batches of draws, each an index with its own random seed; exact to resume.

The seed travels with the index, so a sample is the same whichever worker process makes it, and whether or not the run
was interrupted before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from maskwright.data.order import Stream, one_pass, pass_length
from maskwright.data.replay import Replay
from maskwright.data.source import Loads, image_sizes, mix
from maskwright.errors import InputError


class Draw(NamedTuple):
    """One sample to be made: which record, and the seed of what is random about it."""

    index: int
    seed: int


class Shuffled:
    """Endless batches: every image once, in random order, then all again in another order.

    With ``weights`` some come more often than others. With ``group`` a batch holds only landscape or only portrait
    pictures, which wastes less padding; each kind keeps its share of the batches. A mix of
    sources (``MixedSource``) is drawn from at its shares; weights then choose within each part. A source in shards
    (``ShardSource``) is read shard by shard. With ``replay`` hard images come again more often. All of them
    go together.

    Over several processes each batch is cut into ranks, so that together they see what one process with the whole batch
    would see.

    Args:
        source: the data set; only its length, sizes and ``mix`` are used.
        batch_size: samples in a batch of this process.
        seed: equal seeds give equal orders.
        group: keep landscape and portrait pictures apart.
        rank: which process this is.
        world: how many processes there are.
        weights: float [images], 0 or more: how often each comes in a pass, in the mean (``data.rare_classes``).
        replay: a memory of losses; then the training loop must ``report`` them.
        stream: how shards are shuffled.

    Raises:
        InputError: no images, or a batch size, rank or weights that cannot be.
    """

    def __init__(
        self,
        source: Loads,
        batch_size: int,
        *,
        seed: int = 0,
        group: bool = False,
        rank: int = 0,
        world: int = 1,
        weights: np.ndarray | None = None,
        replay: Replay | None = None,
        stream: Stream | None = None,
    ) -> None:
        if len(source) == 0:
            raise InputError("the data set must have images to draw from, got none")
        if batch_size < 1 or not 0 <= rank < world:
            raise InputError(f"expected batch_size >= 1 and 0 <= rank < world, got {batch_size}, {rank}, {world}")
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.count = len(source)
        self.replay = replay
        self._weights = _checked(weights, self.count)
        parts, shares, self._blocks = mix(source)
        self._stream = stream
        self._tall = np.zeros(self.count, bool)
        if group:
            sizes = image_sizes(source)
            self._tall = sizes[:, 0] > sizes[:, 1]
        # streams[g][p]: the images of shape g in part p, each stream an endless sequence of passes.
        may = np.ones(self.count, bool) if self._weights is None else self._weights > 0
        held = range(len(shares) if shares is not None else int(parts.max()) + 1)
        self._members = [[np.flatnonzero((self._tall == g) & (parts == p) & may) for p in held] for g in (0, 1)]
        mass = np.array([[self._mass(m) for m in row] for row in self._members], np.float64)
        part_shares = mass.sum(axis=0) / mass.sum() if shares is None else shares * (mass.sum(axis=0) > 0)
        joint = part_shares * mass / np.maximum(mass.sum(axis=0), 1e-300)
        if not joint.sum() > 0:
            raise InputError("the images that a mix draws from must have weights above 0")
        self._lengths = [[pass_length(self._weight_of(m), len(m)) for m in row] for row in self._members]
        self._group_shares = joint.sum(axis=1) / joint.sum()
        self._part_shares = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
        self._batches = 0
        self._group_used = np.zeros(2, np.int64)
        self._part_used = np.zeros((2, len(held)), np.int64)
        self._orders: dict[tuple[int, int], tuple[int, np.ndarray]] = {}

    @property
    def epoch(self) -> int:
        """How many batches show as many samples as there are images (with weights: as their sum), rounded up."""
        return -(-pass_length(self._weights, self.count) // (self.batch_size * self.world))

    @property
    def batches(self) -> int:
        """How many batches were drawn so far."""
        return self._batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """Batches from where the state stands, without end."""
        while True:
            yield self.draw()

    def draw(self) -> list[Draw]:
        """The next batch of this rank.

        Raises:
            InputError: with ``replay``, losses did not come in time.
        """
        g = _most_behind(self._group_shares, self._group_used)
        everyone = self.batch_size * self.world
        again: dict[int, int] = {}
        if self.replay is not None:
            again = self.replay.choose(self.seed, self._batches, everyone, self._tall == g)
        first = self._batches * everyone
        mine = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        images: list[int] = []
        for position in range(everyone):
            image = again.get(position)
            if image is None:
                p = _most_behind(self._part_shares[g], self._part_used[g])
                wanted = position in mine or self.replay is not None
                image = self._member(g, p, int(self._part_used[g, p])) if wanted else -1
                self._part_used[g, p] += 1
            images.append(image)
        if self.replay is not None:
            self.replay.note(self._batches, images)
        self._group_used[g] += 1
        self._batches += 1
        return [Draw(images[position], _mixed(self.seed, first + position)) for position in mine]

    def report(self, losses: Sequence[float]) -> None:
        """How hard the samples were of the oldest batch not reported yet; nothing happens without ``replay``.

        Args:
            losses: one for each sample of the batch over all ranks, in rank order (gathered, the same on every rank).

        Raises:
            ValueError: as ``Replay.report``.
        """
        if self.replay is not None:
            self.replay.report(losses)

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands, as plain numbers."""
        out: dict[str, Any] = {
            "count": self.count,
            "seed": self.seed,
            "everyone": self.batch_size * self.world,
            "batches": self._batches,
            "groups": self._group_used.tolist(),
            "parts": self._part_used.tolist(),
        }
        if self._weights is not None:
            out["weights"] = _print_of(self._weights)
        if self.replay is not None:
            out["replay"] = self.replay.state_dict(self._batches)
        return out

    def completed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state that was taken when its last batch was drawn, with what was reported on its batches since."""
        if self.replay is None or "replay" not in state:
            return dict(state)
        return {**state, "replay": self.replay.completed(state["replay"])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that ``state`` had drawn, in its order whatever seed this sampler was made with.

        Raises:
            InputError: the state is of another number of images, batch size, mix or weights.
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
        if state.get("weights") != mine.get("weights") or ("replay" in state) != ("replay" in mine):
            raise InputError(
                "the order to resume was drawn with other weights or without (or with) replay. "
                "Resume with the same way of sampling, or start anew."
            )
        self.seed, self._batches = int(state["seed"]), int(state["batches"])
        self._group_used = np.array(state["groups"], np.int64)
        self._part_used = np.array(state["parts"], np.int64).reshape(2, -1)
        self._orders.clear()
        if self.replay is not None:
            self.replay.load_state_dict(state["replay"])

    def _member(self, g: int, p: int, position: int) -> int:
        members = self._members[g][p]
        cycle, place = divmod(position, self._lengths[g][p])
        known = self._orders.get((g, p))
        if known is None or known[0] != cycle:
            rng = np.random.default_rng([self.seed, g, p, cycle])
            blocks = None if self._blocks is None else self._blocks[members]
            known = (cycle, one_pass(rng, members, self._weight_of(members), blocks, self._stream))
            self._orders[(g, p)] = known
        return int(known[1][place])

    def _weight_of(self, members: np.ndarray) -> np.ndarray | None:
        return None if self._weights is None else self._weights[members]

    def _mass(self, members: np.ndarray) -> float:
        return float(len(members)) if self._weights is None else float(self._weights[members].sum())


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


def _checked(weights: np.ndarray | None, count: int) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or not (weights >= 0).all() or not weights.any():
        raise InputError(
            f"weights must be {count} finite numbers, 0 or more and not all 0, got an array of shape {weights.shape}"
        )
    return weights


def _print_of(weights: np.ndarray) -> int:
    """A number that tells these weights from others."""
    return crc32(np.ascontiguousarray(weights.astype("<f4")).tobytes())


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
