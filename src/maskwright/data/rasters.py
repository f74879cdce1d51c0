"""Pictures read by windows, so that one that does not fit into memory can be looked at piece by piece.

A TIFF is read where a window lies (``data.tiff``), whatever its size up to 2^31 - 1 pixels, the most that run-lengths
can count. Other files can only be decoded whole: ``data.io`` refuses them at the header where they declare more than
``MOST_WHOLE`` pixels, before anything is allocated; so does ``open_raster`` for what it would have to read whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from maskwright.data.io import image_size, read_image
from maskwright.data.tiff import open_tiff
from maskwright.errors import InputError
from maskwright.ops.rle import MAX_PIXELS

MOST_WHOLE = 178_956_970
"""Pixels of the largest picture that is read whole; above it PIL, too, suspects a decompression bomb."""


class Raster(Protocol):
    """A picture to be read by windows; ``size`` is (H, W)."""

    size: tuple[int, int]

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """uint8 [3, height, width], RGB; may be called from several threads."""
        ...


class InMemory:
    """A picture uint8 [3, H, W] that is in memory already."""

    def __init__(self, picture: Tensor) -> None:
        self.picture, self.size = picture, (int(picture.shape[1]), int(picture.shape[2]))

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A view of the window."""
        return self.picture[:, top : top + height, left : left + width]


def open_raster(path: str | os.PathLike[str], *, most_whole: int = MOST_WHOLE) -> Raster:
    """A file to be read by windows.

    Args:
        most_whole: pixels above which a file that can only be decoded whole is refused.

    Raises:
        InputError: the file is missing, no picture, or declares more pixels than can be read; the message says what to
            do.
    """
    path = Path(path)
    windows = open_tiff(path) if path.suffix.lower() in (".tif", ".tiff") and path.is_file() else None
    if windows is not None:
        _refuse(path, windows.size, MAX_PIXELS, "Cut it into several files.")
        return windows
    _refuse(path, image_size(path), most_whole, "Only TIFF is read by windows: write it as one, with tiles.")
    return InMemory(read_image(path))


def overview(raster: Raster, side: int) -> Tensor:
    """uint8 [3, h, w]: the picture made smaller by a whole factor so that no side exceeds ``side``; means of pixels.

    It is read in strips; a partial cell at the edge is the mean of what it has.
    """
    height, width = raster.size
    factor = max(1, -(-max(height, width) // side))
    rows = factor * max(1, 256 // factor)
    strips: list[Tensor] = []
    for top in range(0, height, rows):
        strip = raster.read(top, 0, min(rows, height - top), width)
        if factor > 1:
            small = avg_pool2d(strip[None].float(), factor, ceil_mode=True, count_include_pad=False)[0]
            strip = (small + 0.5).to(torch.uint8)
        strips.append(strip)
    return torch.cat(strips, dim=1)


def _refuse(path: Path, size: tuple[int, int], most: int, advice: str) -> None:
    if size[0] * size[1] > most:
        raise InputError(
            f"{path} declares {size[1]} x {size[0]} = {size[0] * size[1]:,} pixels; at most {most:,} are read "
            f"of such a file. {advice}"
        )
