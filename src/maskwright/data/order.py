"""One pass over a stream of images: how often each comes, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How images in blocks (the shards of ``data.shards``) are shuffled so that reading stays mostly sequential.

    Blocks come in random order, several of them interleaved, each from its beginning to its end; then every image moves
    by fewer than ``window`` places. That is what a buffer of ``window`` images does, without holding pixels.

    Attributes:
        open: blocks read at the same time.
        window: how far an image may move; 1 leaves the order of the blocks.
    """

    open: int = 4
    window: int = 1024

    def __post_init__(self) -> None:
        if self.open < 1 or self.window < 1:
            raise InputError(f"open and window must be 1 or more, got {self.open} and {self.window}")


def pass_length(weights: np.ndarray | None, count: int) -> int:
    """How many draws a pass over ``count`` images has: the sum of their weights, rounded; at least 1."""
    return count if weights is None else max(1, round(float(weights.sum())))


def one_pass(
    rng: np.random.Generator,
    members: np.ndarray,
    weights: np.ndarray | None = None,
    blocks: np.ndarray | None = None,
    stream: Stream | None = None,
) -> np.ndarray:
    """The images of one pass in their order, int64 [``pass_length``].

    Args:
        rng: equal states give equal passes.
        members: int64 [n], ascending.
        weights: float64 [n]: how often each comes in the mean of many passes, at the ratio of these numbers. In each
            pass it comes one of the two whole numbers of times beside that. ``None`` for once each.
        blocks: int64 [n]: which block each lies in, -1 (for all) where there are none.
        stream: how blocks are shuffled.
    """
    if weights is not None:
        members, chosen = _repeated(rng, members, weights)
        blocks = None if blocks is None else blocks[chosen]
    if blocks is None or blocks[0] < 0:
        return rng.permutation(members)
    return members[_streamed(rng, blocks, stream or Stream())]


def _repeated(rng: np.random.Generator, members: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Members in their order, each as often as drawn, and the place of each in ``members``.

    Systematic sampling in a random order: the expected counts are exact, and their sum is the same in every pass.
    """
    total = pass_length(weights, len(members))
    shuffled = rng.permutation(len(members))
    rising = np.cumsum(weights[shuffled])
    rising *= total / rising[-1]
    rising[-1] = total
    upto = np.minimum(np.floor(rising + rng.random()), total).astype(np.int64)
    counts = np.zeros(len(members), np.int64)
    counts[shuffled] = np.diff(upto, prepend=0)
    chosen = np.repeat(np.arange(len(members)), counts)
    return members[chosen], chosen


def _streamed(rng: np.random.Generator, blocks: np.ndarray, stream: Stream) -> np.ndarray:
    _, block, lengths = np.unique(blocks, return_inverse=True, return_counts=True)
    turn = rng.permutation(len(lengths)) // stream.open
    place = np.empty(len(blocks), np.int64)  # of each image within its block
    place[np.argsort(block, kind="stable")] = np.arange(len(blocks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    through = (place + 0.5) / lengths[block]
    order = np.lexsort((through, turn[block]))
    # Keys between j and j + window keep everything before j - window before j, and everything after j + window after.
    keys = np.arange(len(order)) + rng.random(len(order)) * stream.window
    return order[np.argsort(keys if stream.window > 1 else np.arange(len(order)), kind="stable")]
