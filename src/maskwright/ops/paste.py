"""Mask probabilities of boxes, straight to run-lengths on the picture: no picture-sized array is ever made.

Two ways to place a probability map, as the peers do: ``paste`` (detectron2: pixel centers at +0.5, exact box, ``>=``)
and ``paste_expanded`` (torchvision: map padded by a pixel, box grown accordingly and cut to integers, ``>``). Both are
bilinear, so between four neighboring map values a pixel column is a straight line: where both ends lie clearly on one
side of the threshold, nothing is computed. Pixels within 1e-5 of the threshold are computed in float32 with torch's own
order of operations (fused multiply-adds, as its CPU kernels for current processors), so that even ties agree.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from maskwright.errors import InputError
from maskwright.ops.rle_core import Runs, canvas

_FARTHEST = 2.0**30
_GRID_SAMPLE, _INTERPOLATE_SMALL, _INTERPOLATE = 0, 1, 2
_SMALL = 128  # torch's bilinear resize takes another kernel, which rounds otherwise, up to this height + width


def paste(probs: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Runs:
    """Run-lengths of N masks: ``probs[i]`` stretched over ``boxes[i]`` on ``size``, where it is >= ``threshold``.

    detectron2's ``paste_masks_in_image`` on the CPU (``grid_sample`` with ``align_corners=False`` and zeros outside).

    Args:
        probs: floating [N, h, w] in [0, 1].
        boxes: floating [N, 4] as (x1, y1, x2, y2); they may reach beyond the picture; empty ones give no pixels.
        size: (H, W).
        threshold: above 0, since everything outside the boxes is 0.

    Returns:
        Runs as ``ops.rle`` has them: counts int32 [R] and offsets int64 [N + 1].

    Raises:
        InputError: a shape is wrong, a box is not finite (named by its index), or ``threshold`` is not above 0.
    """
    maps, places = _checked(probs, boxes, size, threshold)
    padded = np.pad(maps, ((0, 0), (1, 2), (1, 2))).transpose(0, 2, 1)
    return _paste(np.ascontiguousarray(padded), places, int(size[0]), int(size[1]), np.float32(threshold), True)


def paste_expanded(probs: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Runs:
    """Run-lengths of N masks: ``probs[i]`` resized to ``boxes[i]`` on ``size``, where it is > ``threshold``.

    torchvision's ``roi_heads.paste_masks_in_image``: the map gets a border of zeros one pixel wide, the box grows by
    the same share and its corners are cut to integers; the map is resized to the pixels from corner to corner.

    Arguments, result and errors are those of ``paste``; maps must be square.
    """
    maps, places = _checked(probs, boxes, size, threshold)
    if maps.shape[1] != maps.shape[2]:
        raise InputError(f"torchvision's way takes square maps [N, m, m], got {tuple(maps.shape)}.")
    side = maps.shape[1]
    grown = _expand(torch.from_numpy(places), float(side + 2) / side).to(torch.int64).to(torch.float64)
    padded = np.pad(maps, ((0, 0), (1, 2), (1, 2))).transpose(0, 2, 1)
    return _paste(np.ascontiguousarray(padded), grown.numpy(), int(size[0]), int(size[1]), np.float32(threshold), False)


def _expand(boxes: Tensor, scale: float) -> Tensor:
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    return torch.cat([center - half, center + half], dim=1)


def _checked(
    probs: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    canvas(size)
    if len(size) != 2:
        raise InputError(f"masks are pasted on (H, W), got size {tuple(size)}.")
    if probs.ndim != 3 or (len(probs) > 0 and min(probs.shape[1:]) == 0):
        raise InputError(f"probs must have shape (N, h, w), got {tuple(probs.shape)}. Choose one class each.")
    if boxes.shape != (len(probs), 4):
        raise InputError(f"boxes must have shape ({len(probs)}, 4), one for each map, got {tuple(boxes.shape)}.")
    if not threshold > 0:
        raise InputError(f"threshold must be above 0, got {threshold}: outside of the boxes everything is 0.")
    places = np.require(boxes.detach().cpu().float().numpy(), np.float32, ("C", "W"))
    wild = np.flatnonzero(~(np.abs(places) < _FARTHEST).all(1))
    if len(wild):
        raise InputError(f"boxes must be finite, box {wild[0]} is {places[wild[0]].tolist()}.")
    return np.require(probs.detach().cpu().float().numpy(), np.float32, ("C", "W")), places


@njit(cache=True, nogil=True)
def _fused(a, b, c):
    """a * b + c with one rounding, in float32."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@njit(cache=True, nogil=True)
def _sampled_axis(begin, end, cells, side):
    """detectron2's rows or columns: the first pixel, and for each pixel the map cell and the share of the next one."""
    first = np.int64(min(max(np.floor(np.float64(begin)) - 1, 0.0), np.float64(side)))
    final = np.int64(min(max(np.ceil(np.float64(end)) + 1, 0.0), np.float64(side)))
    near = np.empty(max(final - first, 0), np.int64)
    share = np.empty(len(near), np.float32)
    used, start = 0, first
    if end == begin:
        return start, near[:0], share[:0]
    length = np.float32(end - begin)
    for p in range(first, final):
        center = np.float32(np.float32(p) + np.float32(0.5))
        place = np.float32(np.float32(np.float32(center - begin) / length) * np.float32(2)) - np.float32(1)
        place = _fused(np.float32(place + np.float32(1)), np.float32(cells) / np.float32(2), np.float32(-0.5))
        low = np.floor(place)
        if low < -1 or low >= cells:  # wholly outside the map: zero, thus below any threshold
            if used > 0:
                break
            start = p + 1
            continue
        near[used] = np.int64(low) + 1  # the map has a border of zeros
        share[used] = np.float32(place - low)
        used += 1
    return start, near[:used], share[:used]


@njit(cache=True, nogil=True)
def _resized_axis(begin, length, cells, side, small):
    """torchvision's rows or columns: ``cells`` (border included) resized to ``length`` pixels from ``begin`` on."""
    first = min(max(begin, np.int64(0)), np.int64(side))
    final = max(min(begin + length, np.int64(side)), first)
    near = np.empty(final - first, np.int64)
    share = np.empty(final - first, np.float32)
    scale = np.float32(np.float32(cells) / np.float32(length))
    for p in range(first, final):
        center = np.float32(np.float32(p - begin) + np.float32(0.5))
        if small:
            place = _fused(scale, center, np.float32(-0.5))
        else:
            place = np.float32(np.float32(scale * center) - np.float32(0.5))
        place = max(place, np.float32(0))
        low = min(np.int64(place), np.int64(cells - 1))
        near[p - first] = low
        share[p - first] = min(max(np.float32(place - np.float32(low)), np.float32(0)), np.float32(1))
    return first, near, share


@njit(cache=True, nogil=True)
def _value(a, b, c, d, across, down, rule):
    """Bilinear value between a b (upper) and c d (lower), rounded as torch's kernel ``rule`` rounds."""
    one = np.float32(1)
    left, up = np.float32(one - across), np.float32(one - down)
    if rule == 2:
        upper = _fused(a, left, np.float32(b * across))
        lower = _fused(c, left, np.float32(d * across))
        return _fused(upper, up, np.float32(lower * down))
    if rule == 0:
        value = _fused(b, np.float32(across * up), np.float32(a * np.float32(left * up)))
    else:
        value = _fused(a, np.float32(up * left), np.float32(b * np.float32(up * across)))
    value = _fused(c, np.float32(left * down), value)
    return _fused(d, np.float32(across * down), value)


@njit(cache=True, nogil=True)
def _paste(maps, boxes, height, width, threshold, sampled):
    # maps [N, columns, rows]: transposed, so that one map column after the other is contiguous.
    number, across_cells, down_cells = maps.shape
    out = np.empty(4096, np.int32)
    cuts = np.zeros(number + 1, np.int64)
    used = np.int64(0)
    line = np.empty(down_cells, np.float32)
    pixels = np.int64(height) * width
    for n in range(number):
        if sampled:
            rule = _GRID_SAMPLE
            left, near_x, share_x = _sampled_axis(boxes[n, 0], boxes[n, 2], across_cells - 3, width)
            top, near_y, share_y = _sampled_axis(boxes[n, 1], boxes[n, 3], down_cells - 3, height)
        else:
            x, y = np.int64(boxes[n, 0]), np.int64(boxes[n, 1])
            wide = max(np.int64(boxes[n, 2]) - x + 1, np.int64(1))
            high = max(np.int64(boxes[n, 3]) - y + 1, np.int64(1))
            rule = _INTERPOLATE_SMALL if wide + high <= _SMALL else _INTERPOLATE
            left, near_x, share_x = _resized_axis(x, wide, across_cells - 1, width, rule == 1)
            top, near_y, share_y = _resized_axis(y, high, down_cells - 1, height, rule == 1)
        rows = len(near_y)
        cells = np.empty(rows + 1, np.int64)  # where the rows of one map cell begin
        groups = 0
        for r in range(rows):
            if r == 0 or near_y[r] != near_y[r - 1]:
                cells[groups] = r
                groups += 1
        cells[groups] = rows
        largest = np.float32(1)
        for j in range(across_cells):
            for k in range(down_cells):
                largest = max(largest, abs(maps[n, j, k]))
        margin = np.float32(1e-5) * largest
        sure, never = np.float32(threshold + margin), np.float32(threshold - margin)
        whole = rows == height  # only then may a run go on from one column into the next
        begin, written, opened = used, np.int64(0), np.int64(-1)
        for c in range(len(near_x) if rows > 0 else 0):
            if used + rows + 4 > len(out):
                grown = np.empty(max(2 * len(out), used + rows + 4), np.int32)
                grown[:used] = out[:used]
                out = grown
            j, across = near_x[c], share_x[c]
            for k in range(down_cells):
                line[k] = maps[n, j, k] + across * (maps[n, j + 1, k] - maps[n, j, k])
            base = (left + c) * np.int64(height) + top
            for g in range(groups):
                first, final = cells[g], cells[g + 1]
                k = near_y[first]
                one, two = line[k], line[k + 1]
                if one < never and two < never:
                    if opened >= 0:
                        out[used], out[used + 1] = opened - written, base + first - opened
                        used, written, opened = used + 2, base + first, np.int64(-1)
                    continue
                if one > sure and two > sure:
                    if opened < 0:
                        opened = base + first
                    continue
                for r in range(first, final):
                    value = one + share_y[r] * (two - one)
                    if value > sure:
                        inside = True
                    elif value < never:
                        inside = False
                    else:
                        a, b, e, f = maps[n, j, k], maps[n, j + 1, k], maps[n, j, k + 1], maps[n, j + 1, k + 1]
                        value = _value(a, b, e, f, across, share_y[r], rule)
                        inside = value >= threshold if sampled else value > threshold
                    if inside and opened < 0:
                        opened = base + r
                    elif not inside and opened >= 0:
                        out[used], out[used + 1] = opened - written, base + r - opened
                        used, written, opened = used + 2, base + r, np.int64(-1)
            if opened >= 0 and not (whole and c + 1 < len(near_x)):
                out[used], out[used + 1] = opened - written, base + rows - opened
                used, written, opened = used + 2, base + rows, np.int64(-1)
        if written < pixels or used == begin:
            if used + 1 > len(out):
                grown = np.empty(2 * len(out), np.int32)
                grown[:used] = out[:used]
                out = grown
            out[used] = pixels - written
            used += 1
        cuts[n + 1] = used
    return out[:used].copy(), cuts
