# pyright: basic
"""TIFF read by windows: only the strips or tiles under a window are read and decoded. First page of a file.

TIFF 6.0 (Adobe, 1992) and BigTIFF; unsigned samples of 8 and 16 bits, gray, RGB, palette and more bands, of which the
first three count; interleaved or in planes; not compressed, deflate, LZW, PackBits and JPEG; horizontal predictor.
``open_tiff`` says ``None`` of what else there is: it is read whole (``data.io``).

Values become uint8 RGB as ``data.io`` makes them; of 16 bits the brightest value of the whole file decides the scale,
which needs one more pass over it, so windows fit together.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from PIL import Image, TiffImagePlugin
from torch import Tensor

from maskwright.errors import InputError

_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError)
_NONE, _LZW, _JPEG, _PACKBITS, _DEFLATE = 1, 5, 7, 32773, (8, 32946)
_MOST_SEGMENT = 1 << 28
_ROWS = 64
_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file's segments, strips or tiles, lie.

    Attributes:
        size: (H, W). bands: samples a pixel. dtype: of a sample, with its byte order.
        segment: (rows, columns) of a segment; edge tiles are padded to it, the last strip is not.
        grid: segments (down, across) of a plane. planes: 1 where samples are interleaved, else ``bands``.
        offsets, lengths: int64 [planes * down * across], of each segment in the file, in bytes.
    """

    size: tuple[int, int]
    bands: int
    dtype: np.dtype
    segment: tuple[int, int]
    tiled: bool
    grid: tuple[int, int]
    planes: int
    offsets: np.ndarray
    lengths: np.ndarray
    compression: int
    predictor: bool
    photometric: int
    alpha: int
    palette: np.ndarray | None
    tables: bytes


def read_tags(path: Path) -> dict[int, Any] | None:
    """The tags of a TIFF's first page, number -> value; ``None`` if the file is no TIFF.

    Raises:
        InputError: it cannot be read, or its directory is broken.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return None
            if head[2:4] in (b"+\0", b"\0+"):
                head += file.read(8)
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(directory.next)
            directory.load(file)
            tags: dict[int, Any] = dict(directory)
            tags[_ENDIAN] = "<" if head[:2] == b"II" else ">"
            return tags
    except _BROKEN as error:
        raise InputError(f"cannot read the picture {path}: {error}. Is the file complete?") from error


_ENDIAN = -1
"""The key under which ``read_tags`` gives the byte order, ``<`` or ``>``."""


def open_tiff(path: Path) -> TiffWindows | None:
    """A TIFF to be read by windows, or ``None`` where it must be read whole (or is no TIFF).

    Raises:
        InputError: the file cannot be read, or its directory contradicts itself.
    """
    tags = read_tags(path)
    layout = None if tags is None else _layout(tags, path)
    return None if layout is None else TiffWindows(path, layout)


def _layout(tags: dict[int, Any], path: Path) -> Layout | None:
    """Where things lie; ``None`` for what is not read by windows."""
    try:
        return _checked_layout(tags, path)
    except _BROKEN as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the picture {path}: its TIFF tags are broken ({error}).") from error


def _checked_layout(tags: dict[int, Any], path: Path) -> Layout | None:
    width, height, bands = int(tags[256]), int(tags[257]), int(tags.get(277, 1))
    if min(width, height, bands) < 1:
        raise InputError(f"{path} has no pixels: its TIFF header says {width} x {height}, {bands} samples each.")
    bits = _many(tags.get(258, 1))
    photometric, compression = int(tags.get(262, 1)), int(tags.get(259, 1))
    formats, predictor = _many(tags.get(339, 1)), int(tags.get(317, 1))
    known = compression in (_NONE, _LZW, _JPEG, _PACKBITS, *_DEFLATE) and photometric in (0, 1, 2, 3, 6)
    plain = set(bits) in ({8}, {16}) and set(formats) == {1} and predictor in (1, 2) and int(tags.get(274, 1)) == 1
    if not known or not plain or int(tags.get(266, 1)) != 1:
        return None
    if (photometric == 6) != (compression == _JPEG and bands == 3 and photometric == 6):
        return None
    if compression == _JPEG and (set(bits) != {8} or bands not in (1, 3) or int(tags.get(284, 1)) == 2):
        return None
    if photometric == 3 and (bands != 1 or set(bits) != {8} or 320 not in tags):
        return None
    tiled = 324 in tags
    planes = bands if int(tags.get(284, 1)) == 2 else 1
    segment = (int(tags[323]), int(tags[322])) if tiled else (min(int(tags.get(278, height)), height), width)
    offsets = np.asarray(_many(tags[324 if tiled else 273]), np.int64)
    lengths = np.asarray(_many(tags[325 if tiled else 279]), np.int64)
    if min(segment) < 1:
        raise InputError(f"{path} has strips or tiles of {segment[1]} x {segment[0]} pixels; it is broken.")
    grid = (-(-height // segment[0]), -(-width // segment[1]))
    number = planes * grid[0] * grid[1]
    if len(offsets) != number or len(lengths) != number or offsets.min() < 0 or lengths.min() < 0:
        raise InputError(f"{path} must have {number} strips or tiles, its tags name {len(offsets)}. Is it complete?")
    depth = set(bits).pop() // 8
    row = segment[1] * (1 if planes > 1 else bands) * depth
    if compression == _NONE and not tiled and segment[0] > _ROWS and grid[0] == 1:
        # One long strip: rows lie one after the other, so it is as good as many short ones.
        starts = np.arange(0, height, _ROWS)
        rows = np.minimum(height - starts, _ROWS)
        offsets = (offsets[:, None] + starts * row).reshape(-1)
        lengths = np.tile(rows * row, planes)
        segment, grid = (_ROWS, width), (len(starts), 1)
    if segment[0] * row > _MOST_SEGMENT:
        raise InputError(
            f"{path} must have strips or tiles of at most {_MOST_SEGMENT >> 20} MiB to be read by windows, these have "
            f"{segment[0] * row >> 20} MiB. Write it with tiles."
        )
    extra = _many(tags.get(338, ()))
    colors = 1 if photometric in (0, 1, 3) and bands < 3 else 3
    alpha = extra[0] if extra and bands > colors and extra[0] in (1, 2) else 0
    palette = None
    if photometric == 3:
        palette = np.asarray(tags[320], np.int64).reshape(3, -1).T
        palette = (palette >> 8 if palette.max(initial=0) > 255 else palette).astype(np.uint8)
        if len(palette) < 256:
            raise InputError(f"{path} must have a palette of 256 colors, its has {len(palette)}.")
    return Layout(
        size=(height, width), bands=bands, dtype=np.dtype(f"{tags[_ENDIAN]}u{depth}"), segment=segment, tiled=tiled,
        grid=grid, planes=planes, offsets=offsets, lengths=lengths, compression=compression,
        predictor=predictor == 2, photometric=photometric, alpha=alpha, palette=palette,
        tables=bytes(tags.get(347, b"")),
    )  # fmt: skip


def _many(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),)


class TiffWindows:
    """A TIFF; ``read`` may be called from several threads. Decoded segments are kept, up to ``cached`` bytes."""

    def __init__(self, path: Path, layout: Layout, cached: int = 128 << 20) -> None:
        self.path, self.layout, self.size, self.cached = path, layout, layout.size, cached
        self._length = os.stat(path).st_size
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._used, self._lock = 0, threading.Lock()
        self._factor: float | None = None

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """uint8 [3, height, width], RGB, of a window inside the picture.

        Raises:
            InputError: the window reaches outside, or the file is broken there.
        """
        rows, columns = self.layout.size
        if not (0 <= top <= top + height <= rows and 0 <= left <= left + width <= columns and height and width):
            raise InputError(f"a window must lie inside {self.layout.size}, got {(top, left, height, width)}.")
        with self._lock:
            values = self._window(top, left, height, width)
            if self.layout.dtype.itemsize == 2 and self._factor is None:
                self._factor = self._scale()
        return torch.from_numpy(np.ascontiguousarray(self._rgb(values))).permute(2, 0, 1)

    def _window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Samples [height, width, bands] as they are in the file."""
        where = self.layout
        (rows, columns), (_, across) = where.segment, where.grid
        out = np.empty((height, width, where.bands), where.dtype.newbyteorder("="))
        for plane in range(where.planes):
            bands = slice(None) if where.planes == 1 else slice(plane, plane + 1)
            for i in range(top // rows, (top + height - 1) // rows + 1):
                for j in range(left // columns, (left + width - 1) // columns + 1):
                    part = self._segment((plane * where.grid[0] + i) * across + j, i)
                    y0, y1 = max(top, i * rows), min(top + height, i * rows + part.shape[0])
                    x0, x1 = max(left, j * columns), min(left + width, j * columns + columns)
                    piece = part[y0 - i * rows : y1 - i * rows, x0 - j * columns : x1 - j * columns]
                    out[y0 - top : y1 - top, x0 - left : x1 - left, bands] = piece
        return out

    def _segment(self, index: int, row: int) -> np.ndarray:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        decoded = self._decoded(index, row)
        self._kept[index] = decoded
        self._used += decoded.nbytes
        while self._used > self.cached and len(self._kept) > 1:
            self._used -= self._kept.popitem(last=False)[1].nbytes
        return decoded

    def _decoded(self, index: int, row: int) -> np.ndarray:
        """One segment's samples [h, w, samples]."""
        where = self.layout
        rows, columns = where.segment
        high = rows if where.tiled else min(rows, where.size[0] - row * rows)
        samples = where.bands if where.planes == 1 else 1
        shape = (high, columns, samples)
        wanted = high * columns * samples * where.dtype.itemsize
        offset, length = int(where.offsets[index]), int(where.lengths[index])
        if length == 0 and offset == 0:  # GDAL's sparse files
            return np.zeros(shape, where.dtype.newbyteorder("="))
        if offset + length > self._length:
            raise InputError(f"{self.path} ends before its strip or tile {index} does. Is the file complete?")
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                data = file.read(length)
            if where.compression == _JPEG:
                return self._jpeg(data, shape)
            data = _unpacked(data, where.compression, wanted)
        except (*_BROKEN, zlib.error) as error:
            raise InputError(f"cannot decode strip or tile {index} of {self.path}: {error}.") from error
        if len(data) < wanted:
            raise InputError(f"strip or tile {index} of {self.path} has {len(data)} bytes, not {wanted}. Is it whole?")
        values = np.frombuffer(data, where.dtype, count=wanted // where.dtype.itemsize).reshape(shape)
        values = values.astype(where.dtype.newbyteorder("="), copy=False)
        return np.cumsum(values, axis=1, dtype=values.dtype) if where.predictor else values

    def _jpeg(self, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        head = b"\xff\xd8"
        if self.layout.bands == 3:  # what the colors are says the tag, not the JPEG: an Adobe marker carries it over
            kind = 1 if self.layout.photometric == 6 else 0
            head += b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([kind])
        tables = self.layout.tables[2:-2] if len(self.layout.tables) > 4 else b""
        with Image.open(io.BytesIO(head + tables + data[2:])) as image:
            if image.size[0] < shape[1] or image.size[1] < shape[0] or image.size[0] * image.size[1] > _MOST_SEGMENT:
                raise ValueError(f"its JPEG has {image.size[0]} x {image.size[1]} pixels")
            pixels = np.asarray(image.convert("RGB" if shape[2] == 3 else "L"))
        return pixels.reshape(*pixels.shape[:2], -1)[: shape[0], : shape[1]]

    def _colors(self, values: np.ndarray) -> np.ndarray:
        """The bands that make the picture: [h, w, 1 | 3]."""
        return values[..., :3] if values.shape[-1] >= 3 else values[..., :1]

    def _scale(self) -> float:
        """Full range of 16-bit samples: the smallest depth that holds the brightest value of the file."""
        high, (height, width) = 0, self.layout.size
        for top in range(0, height, self.layout.segment[0]):
            rows = min(self.layout.segment[0], height - top)
            high = max(high, int(self._colors(self._window(top, 0, rows, width)).max()))
        depth = next(bits for bits in _DEPTHS if high < 1 << bits)
        return 255.0 / ((1 << depth) - 1)

    def _rgb(self, values: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] of samples."""
        where = self.layout
        colors = self._colors(values)
        alpha = values[..., colors.shape[-1]] if where.alpha else None
        if self._factor is not None:
            colors = np.clip(colors * np.float32(self._factor) + np.float32(0.5), 0, 255).astype(np.uint8)
            alpha = None if alpha is None else (alpha >> 8).astype(np.uint8)
        if where.palette is not None:
            return where.palette[colors[..., 0]]
        if where.photometric == 0:
            colors = 255 - colors
        if alpha is not None and int(alpha.min()) < 255:
            share = alpha[..., None].astype(np.float32) / 255.0
            own = colors.astype(np.float32) * (1.0 if where.alpha == 1 else share)
            colors = np.clip(own + 255.0 * (1.0 - share) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(colors, 3, axis=2) if colors.shape[2] == 1 else colors


# ---- compression ----------------------------------------------------------------------------------------------------


def _unpacked(data: bytes, compression: int, wanted: int) -> bytes:
    """At most ``wanted`` bytes of what ``data`` holds: a bomb stops there."""
    if compression == _NONE:
        return data[:wanted]
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(data, wanted)
    packed, out = np.frombuffer(data, np.uint8), np.zeros(wanted, np.uint8)
    used = _lzw(packed, out) if compression == _LZW else _packbits(packed, out)
    return out[:used].tobytes()


@njit(cache=True, nogil=True)
def _packbits(packed, out):
    """TIFF 6.0, section 9: runs and literals; how many bytes were written."""
    used, at = 0, 0
    while at < len(packed) and used < len(out):
        head = np.int64(packed[at])
        at += 1
        if head < 128:
            count = min(head + 1, len(packed) - at, len(out) - used)
            out[used : used + count] = packed[at : at + count]
            at += count
            used += count
        elif head > 128 and at < len(packed):
            count = min(257 - head, len(out) - used)
            out[used : used + count] = packed[at]
            at += 1
            used += count
    return used


@njit(cache=True, nogil=True)
def _lzw(packed, out):
    """TIFF 6.0, section 13: codes of 9 to 12 bits, most significant bit first, that widen one code early."""
    where = np.zeros(4097, np.int64)  # a code's string is what was written there, so long
    length = np.zeros(4097, np.int64)
    used, bits, width, known, previous = 0, np.int64(0), 9, 258, -1
    total = np.int64(8 * len(packed))
    while bits + width <= total and used < len(out):
        code = 0
        first = bits // 8
        word = np.int64(packed[first]) << 16
        if first + 1 < len(packed):
            word |= np.int64(packed[first + 1]) << 8
        if first + 2 < len(packed):
            word |= np.int64(packed[first + 2])
        code = (word >> (24 - width - bits % 8)) & ((1 << width) - 1)
        bits += width
        if code == 257:
            break
        if code == 256:
            width, known, previous = 9, 258, -1
            continue
        begin = used
        if code < 256:
            out[used] = code
            used += 1
        elif code < known and previous >= 0:
            for k in range(length[code]):
                if used < len(out):
                    out[used] = out[where[code] + k]
                    used += 1
        elif code == known and previous >= 0:
            for k in range(length[known]):
                if used < len(out):
                    out[used] = out[where[known] + k]
                    used += 1
        else:
            return used  # a code that nothing has defined: what follows is not to be trusted
        if previous >= 0 and known < 4096:
            known += 1
        if known < 4096:
            # The next code is this string and the byte that will follow it.
            where[known] = begin
            length[known] = used - begin + 1
        previous = code
        width = 9 if known < 511 else 10 if known < 1023 else 11 if known < 2047 else 12
    return used
