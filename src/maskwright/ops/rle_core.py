"""Run-lengths, the base: check, encode, decode, select, measure. Users import ``maskwright.ops.rle``.

"Runs" are two arrays: ``counts`` int32 [R], the runs of all masks one after the other, and ``offsets`` int64 [N + 1];
mask ``i`` owns ``counts[offsets[i] : offsets[i + 1]]``. Runs alternate background, foreground, background …, starting
with background (possibly 0 long), and walk the last two axes column by column as COCO does; leading axes are slowest.

Compiled code does not check bounds, so every function that writes where the runs say checks the runs first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError

Counts = NDArray[np.int32]
Offsets = NDArray[np.int64]
Runs = tuple[Counts, Offsets]

MAX_PIXELS = 2**31 - 1
"""A run is an int32, so a canvas holds at most this many pixels."""


# ---- checks ---------------------------------------------------------------------------------------------------------


def canvas(size: Sequence[int]) -> tuple[int, int, int]:
    """``(frames, H, W)`` of a size ``(*leading, H, W)`` or ``(P,)``, the latter as one column of P rows.

    Raises:
        InputError: a side is not a non-negative integer, or the canvas has more than 2^31 - 1 pixels.
    """
    sides = tuple(int(side) for side in size)
    if not sides or min(sides) < 0 or sides != tuple(size):
        raise InputError(f"a size must be non-negative integers (H, W), got {tuple(size)}. Check height and width.")
    if prod(sides) > MAX_PIXELS:
        raise InputError(f"a canvas must have at most {MAX_PIXELS} pixels, got {sides}. Cut it into tiles.")
    return (1, sides[0], 1) if len(sides) == 1 else (prod(sides[:-2]), sides[-2], sides[-1])


def arrays(counts: NDArray[np.integer], offsets: NDArray[np.integer]) -> Runs:
    """The runs as contiguous writable arrays (one compiled version of each kernel serves all callers).

    Raises:
        InputError: the offsets do not cut ``counts`` into consecutive pieces.
    """
    flat = np.require(counts, np.int32, ("C", "W"))
    cuts = np.require(offsets, np.int64, ("C", "W"))
    if flat.ndim != 1 or cuts.ndim != 1 or len(cuts) == 0 or cuts[0] != 0 or cuts[-1] != len(flat):
        raise InputError(
            f"offsets must be [N + 1] from 0 to the {flat.size} counts, got shape {cuts.shape}"
            + (f" from {cuts.flat[0]} to {cuts.flat[-1]}" if cuts.size else "")
            + ". Offset i is where mask i starts."
        )
    falling = np.flatnonzero(cuts[1:] < cuts[:-1])
    if len(falling):
        raise InputError(
            f"offsets must not fall, mask {falling[0]} goes from {cuts[falling[0]]} to {cuts[falling[0] + 1]}."
        )
    return flat, cuts


def checked(counts: NDArray[np.integer], offsets: NDArray[np.integer], pixels: int) -> Runs:
    """``arrays``, and every mask has non-negative runs that add up to ``pixels``.

    Raises:
        InputError: naming the first mask that does not.
    """
    runs = arrays(counts, offsets)
    bad = int(_first_invalid(*runs, pixels))
    if bad >= 0:
        part = runs[0][runs[1][bad] : runs[1][bad + 1]].astype(np.int64)
        negative = f", with {int((part < 0).sum())} negative" if len(part) and part.min() < 0 else ""
        raise InputError(
            f"run-lengths must be non-negative and add up to {pixels} pixels, mask {bad} has {len(part)} runs that "
            f"add up to {int(part.sum())}{negative}. Was it made for another size?"
        )
    return runs


def first_invalid(counts: NDArray[np.integer], offsets: NDArray[np.integer], pixels: int) -> int:
    """The index of the first mask whose runs are negative or do not add up to ``pixels``; -1 when all are sound.

    Offsets that do not cut ``counts`` into consecutive pieces count as a fault of the mask where that shows.
    """
    cuts = np.require(offsets, np.int64, ("C", "W")).reshape(-1)
    if len(cuts) == 0 or cuts[0] != 0:
        return 0
    outside = np.flatnonzero((cuts[1:] < cuts[:-1]) | (cuts[1:] > len(counts)))
    if len(outside):
        return int(outside[0])
    if cuts[-1] != len(counts):
        return max(len(cuts) - 2, 0)
    return int(_first_invalid(np.require(counts, np.int32, ("C", "W")), cuts, pixels))


@njit(cache=True, nogil=True)
def _first_invalid(counts, offsets, pixels):
    for i in range(len(offsets) - 1):
        total, lowest = 0, 0
        for k in range(offsets[i], offsets[i + 1]):
            total += np.int64(counts[k])
            lowest = min(lowest, counts[k])
        if lowest < 0 or total != pixels:
            return i
    return -1


# ---- pixels to runs and back ----------------------------------------------------------------------------------------


def encode(masks: NDArray[np.bool_] | NDArray[np.uint8]) -> Runs:
    """Run-lengths of masks [N, *size], bool or uint8 (non-zero is foreground).

    Raises:
        InputError: there is no leading axis, or the canvas is empty or beyond 2^31 - 1 pixels.
    """
    if masks.ndim < 2:
        raise InputError(f"masks must have shape (N, *size), got {masks.shape}. Add a leading axis.")
    frames, height, width = canvas(masks.shape[1:])
    flags = masks if masks.dtype == np.bool_ else masks != 0
    if frames * height * width == 0:
        return np.zeros(len(masks), np.int32), np.arange(len(masks) + 1, dtype=np.int64)
    pixels = np.require(flags, requirements=("C", "W")).view(np.uint8)
    return _encode(pixels.reshape(len(masks), frames, height, width))


@njit(cache=True, nogil=True)
def _encode(masks):
    # Both passes read row by row, as the pixels lie; a column's changes go to the places that belong to that column.
    number, frames, height, width = masks.shape
    out = np.empty(1024, np.int32)
    offsets = np.zeros(number + 1, np.int64)
    few = np.zeros(width, np.uint8)
    changes = np.zeros(width, np.int64)
    at = np.zeros(width, np.int64)
    used = 0
    for n in range(number):
        begin, last = used, np.uint8(0)
        for f in range(frames):
            mask = masks[n, f]
            for w in range(width):
                before = last if w == 0 else mask[height - 1, w - 1]
                changes[w] = mask[0, w] != before
            h = 1
            while h < height:
                stop = min(height, h + 255)  # uint8 sums cannot overflow in 255 rows, and are quick
                few[:] = 0
                while h < stop:
                    for w in range(width):
                        few[w] += mask[h, w] ^ mask[h - 1, w]
                    h += 1
                for w in range(width):
                    changes[w] += few[w]
            low, high, total = width, 0, 0
            for w in range(width):
                at[w] = used + total
                total += changes[w]
                if changes[w] > 0:
                    low, high = min(low, w), w + 1
            if used + total + 1 > len(out):
                grown = np.empty(max(2 * len(out), used + total + 1), np.int32)
                grown[:used] = out[:used]
                out = grown
            base = np.int64(f) * height * width
            for w in range(low, high):
                before = last if w == 0 else mask[height - 1, w - 1]
                if mask[0, w] != before:
                    out[at[w]] = base + np.int64(w) * height
                    at[w] += 1
            for h in range(1, height):
                for block in range(low, high, 64):
                    stop = min(block + 64, high)
                    differs = np.uint8(0)
                    for w in range(block, stop):
                        differs |= mask[h, w] ^ mask[h - 1, w]
                    if differs:
                        for w in range(block, stop):
                            if mask[h, w] != mask[h - 1, w]:
                                out[at[w]] = base + np.int64(w) * height + h
                                at[w] += 1
            used += total
            last = mask[height - 1, width - 1]
        if used + 1 > len(out):
            grown = np.empty(2 * len(out), np.int32)
            grown[:used] = out[:used]
            out = grown
        out[used] = frames * height * width
        used += 1
        previous = 0
        for k in range(begin, used):
            position = out[k]
            out[k] = position - previous
            previous = position
        offsets[n + 1] = used
    return out[:used].copy(), offsets


def decode(counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int]) -> NDArray[np.bool_]:
    """Bool masks [N, *size], C-contiguous.

    Raises:
        InputError: the runs of a mask do not fit ``size``; checked before anything is allocated.
    """
    frames, height, width = canvas(size)
    runs = checked(counts, offsets, frames * height * width)
    out = np.zeros((len(runs[1]) - 1, frames, height, width), np.uint8)
    _decode(*runs, out)
    return out.view(np.bool_).reshape(len(out), *(int(side) for side in size))


@njit(cache=True, nogil=True)
def _decode(counts, offsets, out):
    # Mark where each column changes, then carry the marks down row by row: sequential in memory both times.
    number, frames, height, width = out.shape
    low = np.empty(frames, np.int64)
    high = np.empty(frames, np.int64)
    for n in range(number):
        low[:] = width
        high[:] = 0
        position = np.int64(0)
        for k in range(offsets[n], offsets[n + 1]):
            end = position + counts[k]
            if (k - offsets[n]) % 2 == 1 and end > position:
                column, y = position // height, position % height
                while position < end:
                    f, w = column // width, column % width
                    stop = min(np.int64(height), y + end - position)
                    if y == 0:
                        out[n, f, 0, w] = 1
                    else:
                        out[n, f, y, w] ^= 1
                    if stop < height:
                        out[n, f, stop, w] ^= 1
                    low[f], high[f] = min(low[f], w), max(high[f], w + 1)
                    position += stop - y
                    column, y = column + 1, 0
            position = end
        for f in range(frames):
            for h in range(1, height):
                for w in range(low[f], high[f]):
                    out[n, f, h, w] ^= out[n, f, h - 1, w]


# ---- select and measure ---------------------------------------------------------------------------------------------


def take(counts: NDArray[np.integer], offsets: NDArray[np.integer], index: NDArray[np.integer]) -> Runs:
    """The masks at ``index`` int64 [K], in that order; negative indices count from the end.

    Raises:
        InputError: an index is outside the N masks.
    """
    flat, cuts = arrays(counts, offsets)
    number = len(cuts) - 1
    chosen = np.require(index, np.int64, ("C", "W")).reshape(-1)
    outside = (chosen < -number) | (chosen >= number)
    if outside.any():
        raise InputError(f"an index must lie in [{-number}, {number}), got {chosen[outside][0]}.")
    return _take(flat, cuts, np.where(chosen < 0, chosen + number, chosen))


@njit(cache=True, nogil=True)
def _take(counts, offsets, index):
    cuts = np.zeros(len(index) + 1, np.int64)
    for i in range(len(index)):
        cuts[i + 1] = cuts[i] + offsets[index[i] + 1] - offsets[index[i]]
    out = np.empty(cuts[-1], np.int32)
    for i in range(len(index)):
        out[cuts[i] : cuts[i + 1]] = counts[offsets[index[i]] : offsets[index[i] + 1]]
    return out, cuts


def area(counts: NDArray[np.integer], offsets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Foreground pixels of each mask, int64 [N]."""
    return _area(*arrays(counts, offsets))


@njit(cache=True, nogil=True)
def _area(counts, offsets):
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        for k in range(offsets[i] + 1, offsets[i + 1], 2):
            out[i] += counts[k]
    return out


def boxes(counts: NDArray[np.integer], offsets: NDArray[np.integer], height: int) -> NDArray[np.float32]:
    """Tight boxes float32 [N, 4] as (x1, y1, x2, y2) of masks ``height`` rows high; far edges exclusive; 0 if empty.

    Raises:
        InputError: ``height`` is negative.
    """
    if height < 0:
        raise InputError(f"height must not be negative, got {height}.")
    return _boxes(*arrays(counts, offsets), max(int(height), 1)).astype(np.float32)


@njit(cache=True, nogil=True)
def _boxes(counts, offsets, height):
    out = np.zeros((len(offsets) - 1, 4), np.int64)
    for i in range(len(out)):
        position = np.int64(0)
        x1, y1, x2, y2 = np.int64(2**62), np.int64(height), np.int64(0), np.int64(0)
        for k in range(offsets[i], offsets[i + 1]):
            length = np.int64(counts[k])
            if (k - offsets[i]) % 2 == 1 and length > 0:
                first, last = position // height, (position + length - 1) // height
                x1, x2 = min(x1, first), max(x2, last + 1)
                if last > first:
                    y1, y2 = np.int64(0), np.int64(height)
                else:
                    y1 = min(y1, position - first * height)
                    y2 = max(y2, position - first * height + length)
            position += length
        if x2 > 0:
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = x1, y1, x2, y2
    return out
