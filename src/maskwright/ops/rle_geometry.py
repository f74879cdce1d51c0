"""Run-lengths moved: RoIAlign crops, windows, flips, without pixels. Users import ``maskwright.ops.rle``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Runs, canvas, checked


def crop(
    counts: NDArray[np.integer],
    offsets: NDArray[np.integer],
    size: Sequence[int],
    boxes: NDArray[np.floating],
    out_size: tuple[int, int],
    aligned: bool = True,
) -> NDArray[np.float32]:
    """Mask ``i`` seen through ``boxes[i]``: float32 [N, h, w] in [0, 1], what RoIAlign reads from the dense mask.

    The sampling grid is adaptive and the samples bilinear (Mask R-CNN, section 3; torchvision's ``roi_align`` with
    ``spatial_scale=1, sampling_ratio=-1``). Because the grid is a product of rows and columns, a bin is a weighted sum
    over the mask whose weights factor into those of its row and of its column. So a run costs h subtractions of running
    sums, however long it is, and nothing is decoded.

    Args:
        counts, offsets: N masks.
        size: (H, W).
        boxes: [N, 4] as (x1, y1, x2, y2), computed with in float32 as the peers do.
        out_size: (h, w).
        aligned: pixel centers at +0.5, or at 0 with boxes at least 1 pixel wide (torchvision's detection models).

    Raises:
        InputError: the canvas is not (H, W), there is not one finite box for each mask, or runs do not fit.
    """
    frames, height, width = canvas(size)
    if len(size) != 2:
        raise InputError(f"crop needs masks on (H, W), got {tuple(size)}. Take one frame first.")
    runs = checked(counts, offsets, frames * height * width)
    rois = np.require(boxes, np.float32, ("C", "W"))
    if rois.shape != (len(runs[1]) - 1, 4):
        raise InputError(f"boxes must have shape ({len(runs[1]) - 1}, 4), one for each mask, got {rois.shape}.")
    wild = np.flatnonzero(~(np.abs(rois) < 2**30).all(1))
    if len(wild):
        raise InputError(f"boxes must be finite, box {wild[0]} is {rois[wild[0]].tolist()}.")
    h, w = int(out_size[0]), int(out_size[1])
    if h <= 0 or w <= 0:
        raise InputError(f"a crop must be at least 1 x 1, got {(h, w)}.")
    return _crop(*runs, height, width, rois, h, w, bool(aligned))


@njit(cache=True, nogil=True)
def _bin_weights(start, length, bins, side):
    """The weight [side, bins] of each pixel of an axis in each bin; 0 sampling points give 0."""
    weights = np.zeros((side, bins), np.float64)
    step = np.float32(length / np.float32(bins))
    grid = np.int64(np.ceil(np.float32(length / np.float32(bins))))
    if grid <= 0:
        return weights, np.int64(0), np.int64(0)
    low, high = np.int64(side), np.int64(0)
    for b in range(bins):
        origin = np.float32(start + np.float32(np.float32(b) * step))
        # Samples off the canvas read zero: a box far larger than the canvas must not cost a loop over its own size.
        spacing = max(np.float64(step) / grid, 1e-9)
        first = max(np.int64(0), np.int64(np.floor((-1.0 - origin) / spacing - 0.5)) - 2)
        final = min(grid, np.int64(np.ceil((side - np.float64(origin)) / spacing)) + 2)
        for i in range(first, final):
            place = np.float32(
                origin + np.float32(np.float32(np.float32(np.float32(i) + np.float32(0.5)) * step) / np.float32(grid))
            )
            if place < -1.0 or place > side:
                continue
            place = max(place, np.float32(0))
            near = np.int64(place)
            if near >= side - 1:
                near = np.int64(side - 1)
                weights[near, b] += 1.0 / grid
                high = max(high, near + 1)
            else:
                part = np.float64(place) - near
                weights[near, b] += (1.0 - part) / grid
                weights[near + 1, b] += part / grid
                high = max(high, near + 2)
            low = min(low, near)
    return weights, low, high


@njit(cache=True, nogil=True)
def _crop(counts, offsets, height, width, boxes, h, w, aligned):
    number = len(offsets) - 1
    out = np.zeros((number, h, w), np.float32)
    shift = np.float32(0.5) if aligned else np.float32(0)
    column = np.zeros(h, np.float64)
    total = np.zeros((w, h), np.float64)
    for n in range(number):
        x, y = np.float32(boxes[n, 0] - shift), np.float32(boxes[n, 1] - shift)
        across = np.float32(np.float32(boxes[n, 2] - shift) - x)
        down = np.float32(np.float32(boxes[n, 3] - shift) - y)
        if not aligned:
            across, down = max(across, np.float32(1)), max(down, np.float32(1))
        by_row, top, bottom = _bin_weights(y, down, h, height)
        by_column, left, right = _bin_weights(x, across, w, width)
        if top >= bottom or left >= right:
            continue
        sums = np.zeros((bottom - top + 1, h), np.float64)  # sums[k] = weights of rows top .. top + k - 1
        for k in range(bottom - top):
            sums[k + 1] = sums[k] + by_row[top + k]
        total[:] = 0
        position = np.int64(0)
        for k in range(offsets[n], offsets[n + 1]):
            end = position + counts[k]
            if (k - offsets[n]) % 2 == 1 and end > left * height and position < right * height:
                here = max(position, left * height)
                last = min(end, right * height)
                c = here // height
                while here < last:
                    base = c * height
                    first_row = max(here - base, top) - top
                    final_row = min(min(end - base, np.int64(height)), bottom) - top
                    if final_row > first_row:
                        for p in range(h):
                            column[p] = sums[final_row, p] - sums[first_row, p]
                        for q in range(w):
                            weight = by_column[c, q]
                            if weight != 0:
                                for p in range(h):
                                    total[q, p] += weight * column[p]
                    c += 1
                    here = c * height
            position = end
            if position >= right * height:
                break
        for p in range(h):
            for q in range(w):
                out[n, p, q] = min(max(total[q, p], 0.0), 1.0)
    return out


# ---- windows and flips ----------------------------------------------------------------------------------------------


def window(
    counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int], place: tuple[int, int, int, int]
) -> Runs:
    """The masks on another canvas: ``place`` is (top, left, H', W') in pixels of this one; outside is background.

    Raises:
        InputError: the canvas is not (H, W), or runs do not fit it.
    """
    height, width = _flat(size)
    top, left, new_height, new_width = (int(value) for value in place)
    canvas((new_height, new_width))
    runs = checked(counts, offsets, height * width)
    return _moved(*runs, height, width, top, left, new_height, new_width, False, False)


def hflip(counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int]) -> Runs:
    """The masks mirrored left to right. Raises as ``window`` does."""
    height, width = _flat(size)
    return _moved(*checked(counts, offsets, height * width), height, width, 0, 0, height, width, True, False)


def vflip(counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int]) -> Runs:
    """The masks mirrored top to bottom. Raises as ``window`` does."""
    height, width = _flat(size)
    return _moved(*checked(counts, offsets, height * width), height, width, 0, 0, height, width, False, True)


def _flat(size: Sequence[int]) -> tuple[int, int]:
    _, height, width = canvas(size)
    if len(size) != 2:
        raise InputError(f"this needs masks on (H, W), got {tuple(size)}. Take one frame first.")
    return height, width


@njit(cache=True, nogil=True)
def _reverse(starts, ends, low, high):
    high -= 1
    while low < high:
        starts[low], starts[high] = starts[high], starts[low]
        ends[low], ends[high] = ends[high], ends[low]
        low, high = low + 1, high - 1


@njit(cache=True, nogil=True)
def _moved(counts, offsets, height, width, top, left, new_height, new_width, mirror_x, mirror_y):
    number = len(offsets) - 1
    out = np.empty(max(len(counts), 64), np.int32)
    cuts = np.zeros(number + 1, np.int64)
    used = 0
    for n in range(number):
        pieces = 0  # foreground cut at column ends
        position = np.int64(0)
        for k in range(offsets[n], offsets[n + 1]):
            length = np.int64(counts[k])
            if (k - offsets[n]) % 2 == 1 and length > 0:
                pieces += (position + length - 1) // height - position // height + 1
            position += length
        starts = np.empty(pieces, np.int64)
        ends = np.empty(pieces, np.int64)
        kept = 0
        position = np.int64(0)
        for k in range(offsets[n], offsets[n + 1]):
            end = position + counts[k]
            if (k - offsets[n]) % 2 == 1:
                here = position
                while here < end:
                    c = here // height
                    stop = min(end, (c + 1) * height)
                    y0 = max(here - c * height - top, np.int64(0))
                    y1 = min(stop - c * height - top, np.int64(new_height))
                    x = c - left
                    if y1 > y0 and 0 <= x < new_width:
                        if mirror_x:
                            x = new_width - 1 - x
                        if mirror_y:
                            y0, y1 = new_height - y1, new_height - y0
                        starts[kept] = x * new_height + y0
                        ends[kept] = x * new_height + y1
                        kept += 1
                    here = stop
            position = end
        if mirror_x:  # columns came from last to first
            _reverse(starts, ends, 0, kept)
        if mirror_x != mirror_y:  # within a column, pieces now lie from last to first
            first = 0
            for k in range(1, kept + 1):
                if k == kept or starts[k] // new_height != starts[first] // new_height:
                    _reverse(starts, ends, first, k)
                    first = k
        if used + 2 * kept + 1 > len(out):
            grown = np.empty(max(2 * len(out), used + 2 * kept + 1), np.int32)
            grown[:used] = out[:used]
            out = grown
        begin, written = used, np.int64(0)
        for k in range(kept):
            if starts[k] == written and used > begin:
                out[used - 1] += ends[k] - starts[k]
            else:
                out[used] = starts[k] - written
                out[used + 1] = ends[k] - starts[k]
                used += 2
            written = ends[k]
        if written < np.int64(new_height) * new_width or used == begin:
            out[used] = np.int64(new_height) * new_width - written
            used += 1
        cuts[n + 1] = used
    return out[:used].copy(), cuts
