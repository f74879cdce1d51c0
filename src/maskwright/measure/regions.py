"""Measures of masks taken from their run-lengths."""

from __future__ import annotations

import numpy as np


def centroids(counts: np.ndarray, offsets: np.ndarray, height: int) -> np.ndarray:
    """Centers of mass of N masks on an image, without decoding them.

    A run is an interval of column-major pixel numbers, so its sums of columns and rows have closed forms.

    Args:
        counts: int32 [R], runs that start with background (as ``Masks.counts``).
        offsets: int64 [N + 1], where each mask's runs begin.
        height: H of the canvas (H, W), in pixels.

    Returns:
        float64 [N, 2], (x, y) in pixels with pixel centers at +0.5; NaN for an empty mask.
    """
    lengths = counts.astype(np.int64)
    owners = np.diff(offsets)
    ends = np.cumsum(lengths)
    bases = np.concatenate([np.zeros(1, np.int64), ends])[offsets[:-1]]
    stops = ends - np.repeat(bases, owners)
    inside = (np.arange(len(counts)) - np.repeat(offsets[:-1], owners)) % 2 == 1
    starts = stops - lengths

    def sums(stop: np.ndarray) -> np.ndarray:
        """Sums of (column, row, 1) over the pixels 0 … stop - 1, int64 [3, R]."""
        column, row = np.divmod(stop, max(height, 1))
        columns = height * (column * (column - 1) // 2) + column * row
        rows = column * (height * (height - 1) // 2) + row * (row - 1) // 2
        return np.stack([columns, rows, stop])

    per_run = np.where(inside, sums(stops) - sums(starts), 0)
    total = np.concatenate([np.zeros((3, 1), np.int64), np.cumsum(per_run, axis=1)], axis=1)
    x, y, area = total[:, offsets[1:]] - total[:, offsets[:-1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([x / area, y / area], axis=1) + 0.5
