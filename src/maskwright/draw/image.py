"""A scene painted over its picture: translucent fills, crisp outlines, and labels where there is room for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from maskwright.storage import replacing
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from maskwright.structures.taxonomy import palette

_FILL = 0.38
"""How much of a mask's color lies over the pixels; enough to tell neighbors apart, little enough to see through."""
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
    from their run-lengths, within their boxes; objects without masks are drawn as boxes. Where there are no segments, a
    semantic map is painted in the colors of its classes.

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
    segments = scene.segments
    if segments is None or len(segments) == 0:
        return canvas if scene.semantic is None else _wash(canvas, scene.semantic.cpu().numpy(), taxonomy)
    pen = _Pen.of(scene.size)
    boxes = _boxes(segments)
    colors = _colors(segments, taxonomy)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    for i in np.argsort(-sides.prod(1), kind="stable").tolist():
        if segments.masks is None:
            _frame(canvas, boxes[i], colors[i], pen.line)
        else:
            _paint(canvas, segments.masks, i, colors[i], pen.line)
    if labels is None:
        labels = len(segments) <= _LABELS
    return _write(canvas, segments, taxonomy, boxes, colors, pen) if labels else canvas


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


def _wash(canvas: np.ndarray, semantic: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Half picture, half class color; void stays as it is, lines of contact between classes are drawn in full."""
    colors = np.array([*taxonomy.colors, (0, 0, 0)], np.float32)[semantic]
    edge = np.zeros(semantic.shape, bool)
    edge[1:] |= semantic[1:] != semantic[:-1]
    edge[:, 1:] |= semantic[:, 1:] != semantic[:, :-1]
    share = np.where(edge, 1.0, 0.5)[..., None]
    return np.where((semantic >= 0)[..., None], (1 - share) * canvas + share * colors, canvas).round().astype(np.uint8)


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
    canvas: np.ndarray, segments: Segments, taxonomy: Taxonomy, boxes: np.ndarray, colors: np.ndarray, pen: _Pen
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
    taken = np.zeros((0, 4))
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
        ink = (0, 0, 0) if _luminance(color) > 0.42 else (255, 255, 255)
        draw.text((place[0] + pad - x1, place[1] + pad - y1), text, font=font, fill=ink)
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


def _luminance(color: tuple[int, ...]) -> float:
    """Relative luminance in 0..1 (ITU-R BT.709 weights on linearized sRGB): decides between black and white ink."""
    red, green, blue = ((v / 255) ** 2.2 for v in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
