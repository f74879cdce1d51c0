"""A scene painted over its picture: translucent fills, crisp outlines, and labels where there is room for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from maskwright.draw.stuff import ink_on, wash, write_names
from maskwright.ops.rle_maps import paint_map
from maskwright.storage import replacing
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from maskwright.structures.taxonomy import palette

_FILL = 0.38
"""How much of a mask's color lies over the pixels; enough to tell neighbors apart, little enough to see through."""
_TINT = 0.3
"""The same for stuff, so that things stand out."""
_LABELS = 60
"""With more objects than this, labels would hide the picture."""
_DISTINCT = 48
"""Instance colors repeat after so many; nearby numbers differ most."""


def overlay(
    picture: Tensor | np.ndarray, scene: Scene, taxonomy: Taxonomy, *, labels: bool | None = None
) -> np.ndarray:
    """Paint the segments of ``scene`` over ``picture``.

    Objects have a color each where all are of one class, and shades of their class's color otherwise. Large
    objects are painted first, small ones on top. Outlines and text grow with the picture. Labels (class and score) are
    left out where objects are many or small, and where they would lie on one another. Masks are painted one by one
    from their run-lengths, within their boxes; objects without masks are drawn as boxes. Segments of stuff, and a
    semantic map where there are no segments, are a tint in the color of their class with its name in their midst.

    Args:
        picture: uint8, a tensor [3, H, W] or an array [H, W, 3], RGB.
        scene: annotated or predicted, on (H, W).
        taxonomy: the classes that ``scene.segments.labels`` number.
        labels: ``False`` for none; ``True`` also for many objects.

    Returns:
        uint8 [H, W, 3], RGB; a new array.

    Raises:
        ValueError: the picture has another size than the scene, or another layout.
    """
    canvas = _canvas(picture)
    if canvas.shape[:2] != scene.size:
        raise ValueError(f"the picture must have the scene's size {scene.size} (H, W), got {canvas.shape[:2]}.")
    scene = scene.with_masks()
    segments, pen = scene.segments, _Pen.of(scene.size)
    if segments is None or len(segments) == 0:
        if scene.semantic is None:
            return canvas
        classes = scene.semantic.cpu().numpy()
        drawn = wash(canvas, classes, taxonomy)
        return drawn if labels is False else write_names(drawn, classes, taxonomy, pen.text)[0]
    stuff = ~torch.tensor(taxonomy.thing, dtype=torch.bool)[segments.labels.cpu()]
    if not bool(stuff.any()) or segments.masks is None:
        return _objects(canvas, segments, taxonomy, pen, labels)
    behind, segments = _painted(segments[stuff]), segments[~stuff]
    canvas = _objects(wash(canvas, behind, taxonomy, _TINT), segments, taxonomy, pen, False)
    if labels is False:
        return canvas
    seen = np.where(_painted(segments) >= 0, -1, behind)
    canvas, taken = write_names(canvas, seen, taxonomy, pen.text)
    return _labeled(canvas, segments, taxonomy, pen, labels, taken)


def _objects(canvas: np.ndarray, segments: Segments, taxonomy: Taxonomy, pen: _Pen, labels: bool | None) -> np.ndarray:
    if len(segments) == 0:
        return canvas
    boxes = _boxes(segments)
    colors = _colors(segments, taxonomy)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    for i in np.argsort(-sides.prod(1), kind="stable").tolist():
        if segments.masks is None:
            _frame(canvas, boxes[i], colors[i], pen.line)
        else:
            _paint(canvas, segments.masks, i, colors[i], pen.line)
    return _labeled(canvas, segments, taxonomy, pen, labels)


def _labeled(
    canvas: np.ndarray,
    segments: Segments,
    taxonomy: Taxonomy,
    pen: _Pen,
    labels: bool | None,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """With the labels of objects, beside what is written on the rectangles ``taken``, float64 [N, 4]."""
    wanted = len(segments) <= _LABELS if labels is None else labels
    if not wanted or len(segments) == 0:
        return canvas
    return _write(canvas, segments, taxonomy, _boxes(segments), _colors(segments, taxonomy), pen, taken)


def save(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3] (RGB) as PNG, lossless; the file appears complete or not at all.

    Raises:
        InputError: ``path`` cannot be written.
    """
    with replacing(path) as beside:
        Image.fromarray(picture).save(beside, format="PNG", compress_level=4)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Widths in pixels that suit a picture's size."""

    line: int
    text: int

    @classmethod
    def of(cls, size: tuple[int, ...]) -> _Pen:
        side = (size[0] * size[1]) ** 0.5
        return cls(line=max(1, round(side / 420)), text=max(10, round(side / 48)))


def _canvas(picture: Tensor | np.ndarray) -> np.ndarray:
    pixels = picture.permute(1, 2, 0).cpu().numpy() if isinstance(picture, Tensor) else picture
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            "the picture must be uint8, a tensor [3, H, W] or an array [H, W, 3], "
            f"got {type(picture).__name__} {tuple(picture.shape)} of {picture.dtype}."
        )
    return np.array(pixels, order="C")


def _painted(segments: Segments) -> np.ndarray:
    """The labels of segments with masks as a map, -1 where there is none; later ones cover earlier ones."""
    assert segments.masks is not None
    counts, offsets = segments.masks.counts.numpy(), segments.masks.offsets.numpy()
    return paint_map(counts, offsets, segments.size, segments.labels.cpu().numpy(), -1)


def _boxes(segments: Segments) -> np.ndarray:
    """float64 [N, 4]: boxes as known, else of the masks."""
    known = segments.boxes
    if known is None:
        known = segments.masks.boxes() if segments.masks is not None else None
    if known is None:
        raise ValueError("objects need masks or boxes to be drawn, these have neither.")
    return known.cpu().double().numpy()


def _colors(segments: Segments, taxonomy: Taxonomy) -> np.ndarray:
    """uint8 [N, 3]: by instance where the scene shows one class, by class otherwise."""
    labels = segments.labels.cpu().numpy()
    # Numbered from the top left, so that the colors of a picture do not depend on the order of scores.
    boxes = _boxes(segments)
    ranks = np.empty(len(boxes), np.int64)
    ranks[np.lexsort((boxes[:, 0], boxes[:, 1]))] = np.arange(len(boxes))
    if len(np.unique(labels)) == 1:
        return np.array(palette(_DISTINCT), np.uint8)[ranks % _DISTINCT]
    colors = np.array(taxonomy.colors, np.float32)[labels]
    # Neighbors of one class get another lightness, still that class's color.
    shade = np.array([0.0, 0.3, 0.0, -0.25], np.float32)[ranks % 4, None]
    return np.where(shade > 0, colors + (255 - colors) * shade, colors * (1 + shade)).astype(np.uint8)


# ---- masks ----------------------------------------------------------------------------------------------------------


def _paint(canvas: np.ndarray, masks: Masks, index: int, color: np.ndarray, line: int) -> None:
    """Fill and outline one mask in place."""
    piece, left, top = _cut(masks, index)
    if piece.size == 0:
        return
    height, width = piece.shape
    view = canvas[top : top + height, left : left + width]
    rim = piece & ~_shrunk(piece, _rim_width(piece, line))
    inside = piece & ~rim
    view[inside] = (view[inside] * (1 - _FILL) + color * _FILL).astype(np.uint8)
    view[rim] = color


def _cut(masks: Masks, index: int) -> tuple[np.ndarray, int, int]:
    """One mask within its tight box: bool [h, w], and the box's left and top. Only the box's columns are decoded."""
    height = masks.size[0]
    first, last = masks.offsets[index : index + 2].tolist()
    counts = masks.counts[first:last].numpy().astype(np.int64)
    ends = np.cumsum(counts)
    filled = ends[1::2][counts[1::2] > 0]
    if len(filled) == 0:
        return np.zeros((0, 0), bool), 0, 0
    begin = (ends - counts)[1::2][counts[1::2] > 0][0]
    left, right = int(begin // height), int((filled[-1] - 1) // height) + 1
    clipped = np.diff(np.clip(np.concatenate([[0], ends]), left * height, right * height))
    columns = np.repeat(np.arange(len(counts)) % 2 == 1, clipped).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(0))
    return columns[:, rows[0] : rows[-1] + 1].T, left, int(rows[0])


def _rim_width(piece: np.ndarray, line: int) -> int:
    """Small objects get thinner outlines, so that something of them remains to be seen."""
    return max(1, min(line, min(piece.shape) // 8))


def _shrunk(piece: np.ndarray, steps: int) -> np.ndarray:
    """The mask without its outermost pixels, ``steps`` deep; the world outside is background."""
    for step in range(steps):
        padded = np.pad(piece, 1)
        kept = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if step % 2:  # alternating with the diagonals keeps the outline's width even all around
            kept &= padded[:-2, :-2] & padded[:-2, 2:] & padded[2:, :-2] & padded[2:, 2:]
        piece = kept
    return piece


def _frame(canvas: np.ndarray, box: np.ndarray, color: np.ndarray, line: int) -> None:
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.clip(np.round(box), 0, [width, height, width, height]).astype(int)
    view = canvas[y1:y2, x1:x2]
    for edge in (view[:line], view[-line:], view[:, :line], view[:, -line:]):
        edge[:] = color


# ---- labels ---------------------------------------------------------------------------------------------------------


def _write(
    canvas: np.ndarray,
    segments: Segments,
    taxonomy: Taxonomy,
    boxes: np.ndarray,
    colors: np.ndarray,
    pen: _Pen,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """Labels, surest objects first; each takes the first place of its object that is free, or is left out."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(pen.text)
    names = taxonomy.names
    classes = segments.labels.tolist()
    scores = None if segments.scores is None else segments.scores.float().cpu().numpy()
    order = np.arange(len(classes)) if scores is None else np.argsort(-scores, kind="stable")
    pad = max(2, pen.text // 5)
    taken = np.zeros((0, 4)) if taken is None else taken
    for i in order.tolist():
        text = names[classes[i]] if scores is None else f"{names[classes[i]]} {scores[i]:.2f}"
        x1, y1, x2, y2 = draw.textbbox((0, 0), text, font=font)
        size = np.array([x2 - x1 + 2 * pad, y2 - y1 + 2 * pad])
        place = _place(boxes[i], size, taken, image.size)
        if place is None:
            continue
        taken = np.vstack([taken, place])
        color = tuple(int(v) for v in colors[i])
        draw.rounded_rectangle(tuple(place - [0, 0, 1, 1]), radius=pad, fill=color)
        draw.text((place[0] + pad - x1, place[1] + pad - y1), text, font=font, fill=ink_on(color))
    return np.array(image)


def _place(box: np.ndarray, size: np.ndarray, taken: np.ndarray, limits: tuple[int, int]) -> np.ndarray | None:
    """A free rectangle (x1, y1, x2, y2) for a label of ``size`` (width, height), or ``None``."""
    x1, y1, x2, y2 = box
    width, height = size
    if width > 1.35 * (x2 - x1) or height > 0.5 * (y2 - y1):
        return None
    top = y1 if y1 < height else y1 - height
    corners = [(x1, top), (x1, y1), ((x1 + x2 - width) / 2, (y1 + y2 - height) / 2), (x1, y2 - height)]
    for x, y in corners:
        x, y = (round(max(0.0, min(v, limit - length))) for v, limit, length in zip((x, y), limits, size, strict=True))
        place = np.array([x, y, x + width, y + height])
        apart = (taken[:, 0] >= place[2]) | (taken[:, 2] <= x) | (taken[:, 1] >= place[3]) | (taken[:, 3] <= y)
        if apart.all():
            return place
    return None
