# pyright: basic
"""Label Studio's brush strokes: RGBA pictures packed bit by bit.

The packing is that of ``@thi.ng/rle-pack`` (https://github.com/thi-ng/umbrella, packages/rle-pack), most significant
bit first: 32 bits, the number of values; 5 bits, the bits of a value less one; four times 4 bits, the bits less one of
four kinds of counts; then blocks: a bit, whether one value is repeated; 2 bits, the kind of count; the count less one;
the value, or as many values. The values are the bytes of an RGBA picture row by row; its alpha channel is the mask.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_WORD = 8
_COUNTS = np.array((3, 4, 8, 16), np.int64)
_FAULTS = {
    1: "a brush mask that ends before its picture does",
    2: "a brush mask of another size than its picture",
    3: "a brush mask whose values are not bytes",
}


def decode_brush(data: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H, W] of packed bytes: where alpha is not 0.

    Raises:
        ValueError: the bytes end early, or hold a picture of another size; the message completes "an object with …".
    """
    mask, fault = _decode(np.ascontiguousarray(data, np.uint8), size[0] * size[1])
    if fault:
        raise ValueError(_FAULTS[int(fault)])
    return mask.view(np.bool_).reshape(size)


def encode_brush(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The packed bytes of a mask [H, W], white and opaque where it is set."""
    flat = np.concatenate([[False], mask.reshape(-1), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    if len(changes) and changes[-1] == mask.size:
        changes = changes[:-1]
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).astype(np.int64)
    return _encode(runs, _COUNTS)


@njit(cache=True, nogil=True)
def _read(data, position, bits):
    """The number in ``bits`` bits from bit ``position``; -1 beyond the end."""
    if position + bits > 8 * len(data):
        return -1
    value = np.int64(0)
    while bits > 0:
        offset = position & 7
        take = min(bits, 8 - offset)
        part = (np.int64(data[position >> 3]) >> (8 - offset - take)) & ((1 << take) - 1)
        value = (value << take) | part
        position += take
        bits -= take
    return value


@njit(cache=True, nogil=True)
def _decode(data, pixels):
    nothing = np.zeros(0, np.uint8)
    if 8 * len(data) < 53:
        return nothing, 1
    if _read(data, 0, 32) != 4 * pixels:
        return nothing, 2
    word = _read(data, 32, 5) + 1
    if word != 8:
        return nothing, 3
    sizes = np.empty(4, np.int64)
    for k in range(4):
        sizes[k] = _read(data, 37 + 4 * k, 4) + 1
    out = np.zeros(pixels, np.uint8)
    position, i, total = 53, np.int64(0), 4 * pixels
    while i < total:
        head = _read(data, position, 3)
        if head < 0:
            return nothing, 1
        bits = sizes[head & 3]
        count = _read(data, position + 3, bits) + 1
        position += 3 + bits
        if count == 0:
            return nothing, 1
        end = min(i + count, total)
        if head & 4:
            value = _read(data, position, word)
            if value < 0:
                return nothing, 1
            position += word
            if value:
                out[i // 4 : end // 4] = 1  # alpha is the last of four: byte 4 p + 3 is before ``end`` if p < end // 4
        else:
            if position + count * word > 8 * len(data):
                return nothing, 1
            for k in range(i, end):
                if k & 3 == 3 and _read(data, position + (k - i) * word, word):
                    out[k >> 2] = 1
            position += count * word
        i = end
    return out, 0


@njit(cache=True, nogil=True)
def _write(out, position, value, bits):
    for k in range(bits):
        if (value >> (bits - 1 - k)) & 1:
            out[(position + k) >> 3] |= np.uint8(128 >> ((position + k) & 7))
    return position + bits


@njit(cache=True, nogil=True)
def _encode(runs, sizes):
    total, blocks = np.int64(0), np.int64(0)
    most = np.int64(1) << sizes[3]
    for k in range(len(runs)):
        total += 4 * runs[k]
        blocks += (4 * runs[k] + most - 1) // most
    out = np.zeros((53 + blocks * (3 + sizes[3] + 8) + 7) // 8, np.uint8)
    position = _write(out, 0, total, 32)
    position = _write(out, position, 7, 5)
    for k in range(4):
        position = _write(out, position, sizes[k] - 1, 4)
    for k in range(len(runs)):
        left = 4 * runs[k]
        while left > 0:
            count = min(left, most)
            kind = 0
            while count > np.int64(1) << sizes[kind]:
                kind += 1
            position = _write(out, position, 4 | kind, 3)
            position = _write(out, position, count - 1, sizes[kind])
            position = _write(out, position, 255 if k % 2 == 1 else 0, 8)
            left -= count
    return out[: (position + 7) // 8].copy()
