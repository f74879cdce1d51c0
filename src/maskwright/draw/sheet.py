"""A contact sheet: pictures in rows, a line of text over each, as one JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskwright.storage import replacing

_GAP, _TEXT = 8, 16


def sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]], *, side: int = 480) -> np.ndarray:
    """Rows of pictures with a caption over each.

    Args:
        rows: (caption, uint8 [H, W, 3]) of each picture; rows may have different lengths and sizes.
        side: what the longer side of a picture is made to fit, in pixels; smaller pictures stay as they are.

    Returns:
        uint8 [H, W, 3], white between the pictures.

    Raises:
        ValueError: there is no picture.
    """
    if not any(rows):
        raise ValueError("a sheet needs at least one picture, got none")
    small = [[(text, _fitted(pixels, side)) for text, pixels in row] for row in rows]
    widths = [sum(pixels.shape[1] for _, pixels in row) + _GAP * (len(row) + 1) for row in small]
    heights = [max((pixels.shape[0] for _, pixels in row), default=0) + _TEXT + _GAP for row in small]
    canvas = np.full((sum(heights) + _GAP, max(widths), 3), 255, np.uint8)
    captions: list[tuple[int, int, str]] = []
    top = _GAP
    for row, height in zip(small, heights, strict=True):
        left = _GAP
        for text, pixels in row:
            h, w = pixels.shape[:2]
            canvas[top + _TEXT : top + _TEXT + h, left : left + w] = pixels
            captions.append((left, top, text[: max(1, w // 6)]))
            left += w + _GAP
        top += height
    picture = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for left, top, text in captions:
        draw.text((left, top), text, font=font, fill=(45, 55, 72))
    return np.array(picture)


def save_jpeg(path: str | Path, picture: np.ndarray, quality: int = 88) -> None:
    """Write uint8 [H, W, 3] (RGB) as JPEG; the file appears complete or not at all.

    Raises:
        InputError: ``path`` cannot be written.
    """
    with replacing(path) as beside:
        Image.fromarray(picture).save(beside, format="JPEG", quality=quality)


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    if max(pixels.shape[:2]) <= side:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.array(picture)
