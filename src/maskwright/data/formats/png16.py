"""PNGs of 16 bits and several channels, which PIL reads with 8 bits only.

PNG Specification (W3C, third edition), sections 7 (filtering, as 9 here), 10 and 11.2; no interlacing.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numba import njit

from maskwright.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_MOST = 1 << 27  # pixels; PIL warns at 2^26


def is_png16(path: Path) -> bool:
    """Whether a file begins as a PNG of 16 bits and several channels."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError:
        return False
    return (
        len(head) == 26
        and head[:8] == _SIGNATURE
        and head[12:16] == b"IHDR"
        and head[24] == 16
        and head[25] in (2, 4, 6)
    )


def read_png16(path: Path) -> np.ndarray:
    """The samples of a 16-bit PNG, uint16 [H, W, C].

    Raises:
        InputError: the file is missing, damaged, of other depth, interlaced, or declares too many pixels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        width, height, channels, packed = _chunks(data)
        return _unpack(packed, width, height, channels)
    except (ValueError, struct.error, zlib.error, IndexError) as error:
        raise InputError(f"cannot read the map {path}: {error}. Is the file complete?") from error


def _chunks(data: bytes) -> tuple[int, int, int, bytes]:
    if data[:8] != _SIGNATURE:
        raise ValueError("not a PNG")
    at, parts = 8, []
    width = height = channels = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise ValueError("it ends within a chunk")
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if depth != 16 or color not in _CHANNELS or interlaced:
                raise ValueError(f"16 bits without interlacing are read here, it has {depth} bits, color type {color}")
            channels = _CHANNELS[color]
            if not 0 < width * height <= _MOST:
                raise ValueError(f"it declares {width} x {height} pixels")
        elif kind == b"IDAT":
            parts.append(body)
        elif kind == b"IEND":
            break
        at += 12 + length
    if not channels:
        raise ValueError("it has no header")
    return width, height, channels, b"".join(parts)


def _unpack(packed: bytes, width: int, height: int, channels: int) -> np.ndarray:
    stride = 2 * channels * width
    wanted = (stride + 1) * height
    raw = zlib.decompressobj().decompress(packed, wanted)
    if len(raw) != wanted:
        raise ValueError(f"it holds {len(raw)} bytes where {wanted} belong")
    rows = np.frombuffer(raw, np.uint8).reshape(height, stride + 1)
    if rows[:, 0].max(initial=0) > 4:
        raise ValueError("an unknown filter")
    out = np.zeros((height, stride), np.uint8)
    _unfilter(np.ascontiguousarray(rows), out, 2 * channels)
    return out.view(">u2").astype(np.uint16).reshape(height, width, channels)


@njit(cache=True, nogil=True)
def _unfilter(rows, out, step):  # pyright: ignore[reportMissingParameterType]
    for y in range(rows.shape[0]):
        kind = rows[y, 0]
        for x in range(out.shape[1]):
            left = np.int64(out[y, x - step]) if x >= step else 0
            above = np.int64(out[y - 1, x]) if y > 0 else 0
            corner = np.int64(out[y - 1, x - step]) if x >= step and y > 0 else 0
            guess = np.int64(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) // 2
            elif kind == 4:
                by_left, by_above = abs(above - corner), abs(left - corner)
                by_corner = abs(left + above - 2 * corner)
                if by_left <= by_above and by_left <= by_corner:
                    guess = left
                elif by_above <= by_corner:
                    guess = above
                else:
                    guess = corner
            out[y, x] = (np.int64(rows[y, x + 1]) + guess) & 255
