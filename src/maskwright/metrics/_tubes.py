"""Tubes: run-lengths of masks on (T, H, W), taken apart into frames and put together from them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Runs = tuple[np.ndarray, np.ndarray]


@dataclass(slots=True)
class Frame:
    """What is visible in one frame: ``owners`` int64 [n], rising, which tubes; their runs on (H, W)."""

    owners: np.ndarray
    counts: np.ndarray
    offsets: np.ndarray


def frames(counts: np.ndarray, offsets: np.ndarray, size: tuple[int, int, int]) -> list[Frame]:
    """The frames of N tubes; a tube without pixels in a frame is not in it.

    Args:
        counts, offsets: sound run-lengths on ``size`` (see ``ops.rle``). size: (T, H, W).
    """
    begin, end, owner = _intervals(counts, offsets)
    pixels = size[1] * size[2]
    first, last = begin // max(pixels, 1), (end - 1) // max(pixels, 1)
    times = last - first + 1  # in how many frames an interval lies
    owner, origin = np.repeat(owner, times), np.repeat(np.cumsum(times) - times, times)
    frame = np.repeat(first, times) + np.arange(len(owner)) - origin
    begin = np.maximum(np.repeat(begin, times) - frame * pixels, 0)
    end = np.minimum(np.repeat(end, times) - frame * pixels, pixels)
    order = np.lexsort((begin, owner, frame))
    frame, owner, begin, end = frame[order], owner[order], begin[order], end[order]
    cuts = np.searchsorted(frame, np.arange(size[0] + 1))
    out: list[Frame] = []
    for t in range(size[0]):
        part = slice(int(cuts[t]), int(cuts[t + 1]))
        owners, places = np.unique(owner[part], return_inverse=True)
        out.append(Frame(owners, *_runs(places.reshape(-1), begin[part], end[part], len(owners), pixels)))
    return out


def areas(counts: np.ndarray, offsets: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Pixels of N tubes in each frame: int64 [N, T]."""
    from maskwright.ops import rle

    out = np.zeros((len(offsets) - 1, size[0]), np.int64)
    for t, frame in enumerate(frames(counts, offsets, size)):
        out[frame.owners, t] = rle.area(frame.counts, frame.offsets)
    return out


def tubes(
    counts: np.ndarray, offsets: np.ndarray, owner: np.ndarray, frame: np.ndarray, number: int, size: Sequence[int]
) -> Runs:
    """``number`` tubes on ``size`` (T, H, W) of masks on (H, W): mask i is what tube ``owner[i]`` shows in frame
    ``frame[i]``; no two are of one tube and frame."""
    begin, end, mask = _intervals(counts, offsets)
    shift = frame[mask].astype(np.int64) * (size[1] * size[2])
    begin, end, owner = begin + shift, end + shift, owner[mask]
    order = np.lexsort((begin, owner))
    return _runs(owner[order], begin[order], end[order], number, size[0] * size[1] * size[2])


def _intervals(counts: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Foreground of N masks: [begin, end) and the mask it belongs to, int64 each."""
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(counts, dtype=np.int64)
    before = np.concatenate([[0], ends])[offsets[:-1]]
    ends = ends - np.repeat(before, lengths)
    place = np.arange(len(counts)) - np.repeat(offsets[:-1], lengths)
    keep = (place % 2 == 1) & (counts > 0)
    return ends[keep] - counts[keep], ends[keep], owner[keep]


def _runs(owner: np.ndarray, begin: np.ndarray, end: np.ndarray, number: int, pixels: int) -> Runs:
    """The runs of ``number`` masks of their foreground [begin, end), sorted by owner and place."""
    each = np.bincount(owner, minlength=number)
    offsets = np.concatenate([[0], np.cumsum(2 * each + 1)]).astype(np.int64)
    borders = np.empty(int(offsets[-1]), np.int64)  # where runs end; a mask's last one ends with the canvas
    place = 2 * np.arange(len(owner)) + owner
    borders[place], borders[place + 1] = begin, end
    borders[offsets[1:] - 1] = pixels
    counts = np.diff(borders, prepend=0)
    counts[offsets[:-1]] = borders[offsets[:-1]]
    return counts.astype(np.int32), offsets
