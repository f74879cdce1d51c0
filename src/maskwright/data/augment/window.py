"""Drawing the window of a crop: anywhere, around an object, or so that it cuts no object that it centers on."""

from __future__ import annotations

import numpy as np

from maskwright.structures import Record

Window = tuple[int, int, int, int]

_TRIED = 5


def draw_window(
    record: Record,
    full: tuple[int, int],
    crop: tuple[int, int],
    rng: np.random.Generator,
    *,
    keep_whole: bool = False,
    on_object: bool = False,
) -> tuple[Window, tuple[int, int]]:
    """A window in file pixels and the canvas it is resized to.

    The window covers whole file pixels, so that the factor from window to canvas may differ from the one wanted by as
    much as half a pixel in the window's length.

    Args:
        record: the objects, in file pixels.
        full: (H, W) that the whole picture would be resized to.
        crop: (H, W) wanted; an axis shorter than that is kept whole.
        rng: where randomness comes from.
        keep_whole: shift the window, as little as that needs, to where it cuts the fewest objects whose centers it
            shows; objects larger than the window do not count.
        on_object: draw among the windows that show the center of an object, itself drawn at random.

    Returns:
        (y, x, height, width) in file pixels, and (H, W) of the canvas.
    """
    lengths, canvas = [0, 0], [0, 0]
    for axis in (0, 1):
        whole = full[axis] <= crop[axis]
        canvas[axis] = full[axis] if whole else crop[axis]
        side = record.size[axis]
        lengths[axis] = side if whole else min(max(round(crop[axis] * side / full[axis]), 1), side)
    room = np.array([record.size[axis] - lengths[axis] for axis in (0, 1)])
    low, high = np.zeros(2, np.int64), room.copy()
    countable = np.flatnonzero(~record.crowd)
    boxes = record.boxes[countable].astype(np.float64)
    # Boxes as (y, x) pairs, like the window.
    near, far = np.floor(boxes[:, 1::-1]), np.ceil(boxes[:, :1:-1])
    if on_object and len(boxes):
        center = (near + far)[int(rng.integers(len(boxes)))] / 2
        high = np.clip(np.floor(center).astype(np.int64), 0, room)
        low = np.clip(np.floor(center - lengths).astype(np.int64) + 1, 0, high)
    start = np.array([int(rng.integers(low[axis], high[axis] + 1)) for axis in (0, 1)])
    if keep_whole and len(boxes):
        start = _shifted(start, np.array(lengths), (low, high), np.maximum(near, 0), np.minimum(far, record.size))
    return (int(start[0]), int(start[1]), lengths[0], lengths[1]), (canvas[0], canvas[1])


def _shifted(
    start: np.ndarray, lengths: np.ndarray, span: tuple[np.ndarray, np.ndarray], near: np.ndarray, far: np.ndarray
) -> np.ndarray:
    """The start [2], from ``span`` and nearest to the one drawn, whose window cuts the fewest objects it centers on.

    Tried are the starts at which one of the objects nearest to the middle is just kept, or its center just left out.
    """
    fits = np.flatnonzero((far - near <= lengths).all(axis=1))
    near, far = near[fits], far[fits]
    centers = (near + far) / 2
    nearest = np.argsort(((centers - start - lengths / 2) ** 2).sum(axis=1), kind="stable")[:_TRIED]
    per_axis: list[np.ndarray] = []
    for axis in (0, 1):
        low, high, middle = near[nearest, axis], far[nearest, axis], centers[nearest, axis]
        edges = (low, high - lengths[axis], np.floor(middle) + 1, np.ceil(middle) - lengths[axis])
        tried = np.unique(np.clip(np.concatenate([[start[axis]], *edges]), span[0][axis], span[1][axis]))
        per_axis.append(tried.astype(np.int64))
    starts = np.stack(np.meshgrid(*per_axis, indexing="ij"), axis=-1).reshape(-1, 2)
    shown = np.ones((len(starts), len(near)), bool)
    whole = shown.copy()
    for axis in (0, 1):
        first = starts[:, axis, None]
        shown &= (centers[:, axis] >= first) & (centers[:, axis] < first + lengths[axis])
        whole &= (near[:, axis] >= first) & (far[:, axis] <= first + lengths[axis])
    cut = (shown & ~whole).sum(axis=1)
    return starts[np.lexsort((((starts - start) ** 2).sum(axis=1), cut))[0]]
