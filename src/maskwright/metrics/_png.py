"""PNG to maps of ids, several times faster than general readers, without an image library.

Only what a map of ids can be: up to 16 bits in one channel, 8 bits in three or four. Everything is checked before
memory is taken for it; chunks by their CRC, so the checksum over the unpacked bytes is not computed again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from maskwright.metrics._native import Kernels

kernels = Kernels("_png_kernels")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8,), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8,)}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_MOST_PIXELS = 1 << 28
# As in _png_kernels, which imports numba:
MALFORMED, TOO_LONG, CUT_OFF = -1, -2, -3
SLACK, WORK, SYMBOLS, DISTANCES = 16, 2736, 288, 32
_WRONG = {
    MALFORMED: "its compressed data are malformed",
    TOO_LONG: "it holds more data than its size says",
    CUT_OFF: "its data are cut off",
}


class Decoder:
    """Reads one PNG after another into the same memory; one for each thread."""

    def __init__(self) -> None:
        self._raw = np.zeros(0, np.uint8)
        self._ids = np.zeros(0, np.int32)
        self._work = np.zeros(WORK, np.int32)

    def read(self, data: bytes, size: tuple[int, int] | None = None, *, indexed: bool = False) -> np.ndarray:
        """The map that ``data`` hold: int32 [H, W], good until the next call.

        Colors become red + 256 green + 65536 blue, those of a palette too; alpha is left out. Gray is its value.

        Args:
            data: a PNG file.
            size: the height and width it must have.
            indexed: give the index into a palette instead of its color.

        Raises:
            ValueError: it is no such PNG, is damaged, or has another size; the message ends a sentence about the file.
        """
        head, palette, packed = _parts(data)
        width, height = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
        depth, color, interlaced = head[8], head[9], head[12]
        if size is not None and (height, width) != size:
            raise ValueError(f"its size must be {size[0]} x {size[1]} (height x width), but it is {height} x {width}")
        if not 0 < height * width <= _MOST_PIXELS:
            raise ValueError(f"a size of {height} x {width} is not one of a map")
        if color not in _CHANNELS or head[10:12] != b"\0\0" or interlaced > 1:
            raise ValueError("its header is malformed")
        if depth not in _DEPTHS[color]:
            raise ValueError(
                f"a map of ids has at most 8 bits a color or 16 of gray, not {depth} of color type {color}"
            )
        if color == 3 and not palette and not indexed:
            raise ValueError("its palette is missing")
        passes = [(0, 0, 1, 1)] if not interlaced else _PASSES
        parts = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in passes]
        bits = depth * _CHANNELS[color]
        total = sum(h * (1 + (w * bits + 7) // 8) for h, w in parts if h > 0 and w > 0)
        self._unpack(packed, total)
        if len(self._ids) < height * width:
            self._ids = np.empty(height * width, np.int32)
        whole = self._ids[: height * width].reshape(height, width)
        at = 0
        for (y, x, dy, dx), (h, w) in zip(passes, parts, strict=True):
            if h <= 0 or w <= 0:
                continue
            if not interlaced:
                self._part(at, h, w, bits, depth, whole)
            else:
                part = np.empty((h, w), np.int32)
                self._part(at, h, w, bits, depth, part)
                whole[y::dy, x::dx] = part
            at += h * (1 + (w * bits + 7) // 8)
        if color == 3 and not indexed:
            return _colors(palette)[whole]
        return whole

    def _unpack(self, packed: bytes, total: int) -> None:
        """Inflate into ``_raw``, which must be filled exactly."""
        if len(packed) < 2 or packed[0] & 15 != 8 or packed[1] & 32 or (packed[0] << 8 | packed[1]) % 31:
            raise ValueError(_WRONG[MALFORMED])
        # A byte of deflate unpacks to at most 1032: a small file that claims a huge map takes no memory.
        if total > 1032 * len(packed):
            raise ValueError(_WRONG[CUT_OFF])
        if len(self._raw) < total + SLACK:
            self._raw = np.empty(total + SLACK, np.uint8)
        source = np.frombuffer(packed + bytes(SLACK), np.uint8)
        got = kernels(
            "inflate", source.ctypes.data + 2, len(packed) - 2, self._raw.ctypes.data, total,
            self._work.ctypes.data, _MEANINGS.ctypes.data,
        )  # fmt: skip
        if got != total:
            raise ValueError(_WRONG[min(got, 0) or CUT_OFF])

    def _part(self, at: int, height: int, width: int, bits: int, depth: int, out: np.ndarray) -> None:
        """Undo the filters of the rows from ``at`` on and write their values to ``out``."""
        stride, pixel, colored = (width * bits + 7) // 8, max(bits // 8, 1), bits >= 24 and depth == 8
        if kernels("unfilter", self._raw.ctypes.data + at, height, stride, pixel, int(colored), out.ctypes.data):
            raise ValueError("a row has an unknown filter")
        if colored:
            return
        rows = self._raw[at : at + height * (stride + 1)].reshape(height, stride + 1)[:, 1:]
        if depth == 16:
            out[...] = rows[:, ::pixel].astype(np.int32) << 8 | rows[:, 1::pixel]
        elif depth == 8:
            out[...] = rows[:, ::pixel]
        else:
            shifts = np.arange(8 - depth, -1, -depth)
            out[...] = (rows[:, :, None] >> shifts & (1 << depth) - 1).reshape(height, -1)[:, :width]


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, palette and compressed data of a PNG."""
    head = palette = b""
    packed: list[bytes] = []
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            head = body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            packed.append(body)
    if len(head) != 13:
        raise ValueError("its header is malformed")
    return head, palette, b"".join(packed)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if data[:8] != _SIGNATURE:
        raise ValueError("it is not a PNG")
    at = 8
    while True:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            raise ValueError(_WRONG[CUT_OFF])
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("its checksum is wrong: the file is damaged")
        if kind == b"IEND":
            return
        yield kind, data[at + 8 : end]
        at = end + 4


def _colors(palette: bytes) -> np.ndarray:
    """The id of each index: int32 [256], 0 beyond the palette."""
    known = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)[:256].astype(np.int32)
    out = np.zeros(256, np.int32)
    out[: len(known)] = known @ np.array([1, 1 << 8, 1 << 16], np.int32)
    return out


def _meanings() -> np.ndarray:
    """int32 [320]: what each symbol says: ``base << 12 | kind << 8 | extra bits << 4``; the low bits take its length.

    Kinds: 0 a byte, 1 a length (or distance), 2 the end of a block, 3 no such symbol. Distances begin at 288.
    """
    out = np.full(SYMBOLS + DISTANCES, 3 << 8, np.int64)
    out[:256] = np.arange(256) << 12
    out[256] = 2 << 8
    base = 3
    for symbol in range(257, 285):
        extra = max((symbol - 261) // 4, 0)
        out[symbol] = base << 12 | 1 << 8 | extra << 4
        base += 1 << extra
    out[285] = 258 << 12 | 1 << 8
    base = 1
    for symbol in range(30):
        extra = max((symbol - 2) // 2, 0)
        out[SYMBOLS + symbol] = base << 12 | 1 << 8 | extra << 4
        base += 1 << extra
    return out.astype(np.int32)


_MEANINGS = _meanings()
