"""Classes of pixels over a picture: a tint in each class's color, and its name in the midst of its largest part."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskwright.ops.distance import distance_to
from maskwright.structures import Taxonomy

_LOOKED_AT = 192
"""Longest side, in cells, of the map in which places for names are looked for."""


def wash(canvas: np.ndarray, classes: np.ndarray, taxonomy: Taxonomy, share: float = 0.5) -> np.ndarray:
    """Picture and class color; void stays as it is, lines of contact between classes are drawn in full.

    Args:
        canvas: uint8 [H, W, 3]. classes: integers [H, W], dense labels, -1 where void. share: of the color, 0 to 1.

    Returns:
        uint8 [H, W, 3]; a new array.
    """
    colors = np.array([*taxonomy.colors, (0, 0, 0)], np.float32)[classes]
    edge = np.zeros(classes.shape, bool)
    edge[1:] |= classes[1:] != classes[:-1]
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    much = np.where(edge, 1.0, share)[..., None]
    return np.where((classes >= 0)[..., None], (1 - much) * canvas + much * colors, canvas).round().astype(np.uint8)


def write_names(
    canvas: np.ndarray, classes: np.ndarray, taxonomy: Taxonomy, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Write each class's name once, where its farthest pixel from other classes is, largest classes first.

    A name is left out where its class is thinner than a line of text there, or where it would lie on another.

    Args:
        canvas: uint8 [H, W, 3]. classes: integers [H, W], dense labels, -1 where void. height: of text, in pixels.

    Returns:
        uint8 [H, W, 3], a new array; and the rectangles written on, float64 [N, 4] (x1, y1, x2, y2).
    """
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(height)
    pad = max(2, height // 5)
    taken = np.zeros((0, 4))
    step = max(1, -(-max(classes.shape) // _LOOKED_AT))
    coarse = classes[step // 2 :: step, step // 2 :: step]
    found, counts = np.unique(coarse[coarse >= 0], return_counts=True)
    for label in found[np.argsort(-counts, kind="stable")].tolist():
        # The world outside is another class, so that names keep off the edges.
        away = distance_to(np.pad(coarse != label, 1, constant_values=True))[1:-1, 1:-1]
        row, column = np.unravel_index(int(away.argmax()), away.shape)
        text = taxonomy.names[label]
        x1, y1, x2, y2 = draw.textbbox((0, 0), text, font=font)
        wide, tall = x2 - x1 + 2 * pad, y2 - y1 + 2 * pad
        if 2 * step * float(away[row, column]) < tall or wide > image.width or tall > image.height:
            continue
        left = min(max(round(float(column + 0.5) * step - wide / 2), 0), image.width - wide)
        top = min(max(round(float(row + 0.5) * step - tall / 2), 0), image.height - tall)
        place = np.array([left, top, left + wide, top + tall], np.float64)
        apart = (
            (taken[:, 0] >= place[2]) | (taken[:, 2] <= left) | (taken[:, 1] >= place[3]) | (taken[:, 3] <= top)
        )  # fmt: skip
        if not apart.all():
            continue
        taken = np.vstack([taken, place])
        color = taxonomy.colors[label]
        draw.rounded_rectangle((left, top, left + wide - 1, top + tall - 1), radius=pad, fill=color)
        draw.text((left + pad - x1, top + pad - y1), text, font=font, fill=ink_on(color))
    return np.array(image), taken


def ink_on(color: tuple[int, ...]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a color: by relative luminance (ITU-R BT.709 weights, linear sRGB)."""
    red, green, blue = ((v / 255) ** 2.2 for v in color)
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.42 else (255, 255, 255)
