"""Pixels in: files, PIL images, arrays and tensors become uint8 RGB tensors [3, H, W].

The choices made here, once for the whole toolkit:

- EXIF orientation is applied, so a picture stands as a viewer shows it.
- Alpha is composited on white, as a page shows it.
- Integers deeper than 8 bits are scaled linearly: the smallest of 8, 10, 12, 14 and 16 bits that holds the brightest
  value of the picture becomes the full range. Cameras store 12 bits in 16; a fixed divisor of 257 would turn those
  pictures black, and stretching each picture from its minimum to its maximum would amplify noise in the empty ones.
- Floating point in 0..1 is multiplied by 255, in 0..255 it is kept; other ranges are refused, except in float TIFF
  files, which have no convention and are stretched from their minimum to their maximum.
- Of animated and multi-page files the first frame is read.
"""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from maskwright.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File name endings, in lower case, that a folder is searched for."""

_ORIENTATION = 0x0112
_SWAPS_SIDES = (5, 6, 7, 8)
_DEPTHS = (8, 10, 12, 14, 16)
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError)


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture: uint8 [3, H, W], RGB, upright. The tensor's memory is interleaved (channels last).

    Raises:
        InputError: the file is missing, a directory, not an image, truncated, or declares more pixels than is sane;
            the message names it.
    """
    path = Path(path)
    try:
        with open_image(path) as image:
            return _tensor(_upright(_rgb(image), _orientation(image)))
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory. Tile it, or make it smaller.") from error
    except _BROKEN as error:
        raise InputError(f"cannot read the picture {path}: {error}. Is the file complete?") from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(H, W) of the upright picture, from the file's header; ``InputError`` as ``read_image``."""
    with open_image(Path(path)) as image:
        width, height = image.size
        if width == height or (image.format == "PNG" and "exif" not in image.info and not _has_late_exif(Path(path))):
            return height, width  # asking PIL for the EXIF block of a PNG would decode it
        return (width, height) if _orientation(image) in _SWAPS_SIDES else (height, width)


def to_picture(source: Any) -> Tensor:
    """Whatever a caller holds, as uint8 [3, H, W] RGB.

    Args:
        source: a path, a PIL image, an array [H, W], [H, W, 1 | 3 | 4] or [3, H, W], or a tensor [H, W] or
            [1 | 3 | 4, H, W]. Values are bool, integers (above 8 bits they are scaled as in files) or floating point in
            0..1 or 0..255.

    Raises:
        InputError: another type, shape or range; the message says what to do.
    """
    if isinstance(source, (str, os.PathLike)):
        return read_image(source)
    if isinstance(source, Image.Image):
        try:
            return _tensor(_upright(_rgb(source), _orientation(source)))
        except _BROKEN as error:
            raise InputError(f"cannot read the PIL image: {error}.") from error
    if isinstance(source, Tensor):
        return _tensor(_from_array(_channels_last(source.detach().cpu().numpy(), "tensor")))
    if isinstance(source, np.ndarray):
        return _tensor(_from_array(_channels_last(source, "array")))
    raise InputError(
        f"a picture must be a path, a PIL image, an array [H, W, 3] or a tensor [3, H, W], got {type(source).__name__}"
    )


def find_images(sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """Files named directly, by folder or by glob: sorted, once each.

    A folder gives its own pictures, not those of its subfolders; in a glob ``**`` descends.

    Raises:
        InputError: a path that does not exist, a folder without pictures, or a pattern that matches none.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not given:
        raise InputError("name at least one picture, folder or pattern")
    found: set[Path] = set()
    for item in given:
        path = Path(item)
        if path.is_dir():
            matches = [p for p in path.iterdir() if _is_picture(p)]
            if not matches:
                hint = f"For its subfolders use '{path}/**/*.png'."
                raise InputError(f"no pictures in the folder {path} (endings looked for: {' '.join(SUFFIXES)}). {hint}")
        elif path.exists():
            matches = [path]
        elif glob.has_magic(str(item)):
            matches = [p for p in map(Path, glob.glob(str(item), recursive=True)) if p.is_file()]
            if not matches:
                raise InputError(f"no file matches the pattern {item}")
        else:
            raise InputError(f"no such file or folder: {path}")
        found.update(matches)
    return sorted(found)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def open_image(path: Path) -> Image.Image:
    """The opened picture, its pixels not yet read; ``InputError`` as ``read_image``."""
    if path.is_dir():
        raise InputError(f"expected a picture, but {path} is a directory. Name the files inside it.")
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"no such picture: {path}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture, or of a kind that is not read here.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} declares too many pixels to be read at once: {error} Tile it first.") from error
    except _BROKEN as error:
        raise InputError(f"cannot read the picture {path}: {error}.") from error


def _has_late_exif(path: Path) -> bool:
    """Whether a PNG has its EXIF block after its pixels, as PNG 1.5 allows; reads chunk headers only."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # a picture whose EXIF block is broken is still a picture
    return value if value in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 of pixels [H, W, 3] (EXIF 2.3, table 6, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of the first frame, not yet upright."""
    if image.mode.startswith("I") or image.mode == "F":
        return _gray_to_rgb(_deep(np.asarray(image)))
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode == "P" and "transparency" not in image.info:
            return np.array(image.convert("RGB"))
        with_alpha = image.convert("RGBA")
        pixels = np.array(with_alpha)
        if int(pixels[..., 3].min()) == 255:
            return pixels[..., :3]
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, with_alpha))[..., :3]
    return np.array(image.convert("RGB"))


def _deep(values: np.ndarray) -> np.ndarray:
    """Integers deeper than 8 bits, or a file's floating point, to uint8."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if low >= 0 and high <= 255:
            return _round(values * (255.0 if high <= 1 else 1.0))
        return _round((values - low) * (255.0 / max(high - low, 1e-12)))
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0:
        raise InputError(f"pixel values must not be negative, got {low}. Shift them first.")
    if high <= 255:
        return values.astype(np.uint8)
    depth = next((bits for bits in _DEPTHS if high < 1 << bits), high.bit_length())
    return _round(values * np.float32(255.0 / ((1 << depth) - 1)))


def _round(values: np.ndarray) -> np.ndarray:
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def _gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def _channels_last(values: np.ndarray, kind: str) -> np.ndarray:
    """Bring what a caller passed to [H, W, 1 | 3 | 4]."""
    shape = values.shape
    wanted = "[3, H, W]" if kind == "tensor" else "[H, W, 3]"
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim == 3 and shape[0] in (1, 3, 4) and (kind == "tensor" or shape[2] not in (1, 3, 4)):
        values = values.transpose(1, 2, 0)
    elif values.ndim != 3 or shape[2] not in (1, 3, 4) or kind == "tensor":
        hint = " Pass a batch as a list of pictures." if values.ndim == 4 else ""
        raise InputError(f"a picture's {kind} must have shape {wanted}, got {tuple(shape)}.{hint}")
    if min(values.shape) == 0:
        raise InputError(f"a picture must have pixels, got an {kind} of shape {tuple(shape)}")
    return values


def _from_array(values: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of values [H, W, 1 | 3 | 4] of any sane dtype and range."""
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # also false for NaN
            raise InputError(
                f"a floating-point picture must lie in 0..1 or 0..255, got {low:.3g}..{high:.3g}. "
                "Pass it before normalization; the model normalizes by itself."
            )
        values = _round(values.astype(np.float32) * (255.0 if high <= 1 else 1.0))
    elif values.dtype.kind in "iu":
        values = values if values.dtype == np.uint8 else _deep(values)
    else:
        raise InputError(f"a picture must hold numbers, got {values.dtype}")
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 255.0
        return _round(values[..., :3] * alpha + 255.0 * (1.0 - alpha))
    return values


def _tensor(pixels: np.ndarray) -> Tensor:
    # from_numpy takes neither read-only memory nor negative strides.
    if not (pixels.flags.writeable and pixels.flags.c_contiguous):
        pixels = np.array(pixels, order="C")
    return torch.from_numpy(pixels).permute(2, 0, 1)
