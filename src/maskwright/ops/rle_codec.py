"""Run-lengths as COCO files keep them: compressed strings or lists of integers. Users import ``maskwright.ops.rle``.

The string form writes each count as base-32 digits, least significant first, in the characters ``0`` to ``o``: five
bits of value and one that says that more follow. From the fourth count on, the difference to the count two places
before is written; a negative difference is sign-extended from the highest digit's top bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import MAX_PIXELS, Counts, Runs, canvas, checked

_FAULTS = {
    1: "has a character outside '0'..'o'",
    2: "ends in the middle of a number",
    3: "holds a number that no run can have (below 0 or above 2^31 - 1)",
}


def compress(counts: NDArray[np.integer]) -> bytes:
    """The COCO string of one mask's runs int32 [R].

    Raises:
        InputError: a run is negative.
    """
    flat = np.require(counts, np.int32, ("C", "W")).reshape(-1)
    if len(flat) and flat.min() < 0:
        raise InputError(f"run-lengths must be non-negative, got {flat.min()}.")
    return _compress(flat, np.array([0, len(flat)], np.int64))[0].tobytes()


def decompress(text: bytes | str) -> Counts:
    """The runs int32 [R] of one COCO string.

    Raises:
        InputError: it is not such a string.
    """
    data = np.frombuffer(_ascii(text, 0), np.uint8).copy()
    counts, _, _, fault = _decompress(data, np.array([0, len(data)], np.int64))
    if fault:
        raise InputError(f"a COCO run-length string must be whole, this one {_FAULTS[int(fault)]}: {_show(text)}.")
    return counts


def from_coco(objects: Sequence[Mapping[str, Any]], size: Sequence[int]) -> Runs:
    """Runs of COCO dictionaries ``{"size": [H, W], "counts": str | bytes | list of int}``, all on ``size``.

    Raises:
        InputError: naming the mask (its index) that has no such form, another size, or runs that do not add up.
    """
    frames, height, width = canvas(size)
    wanted = [int(side) for side in size]
    texts: list[bytes] = []
    lists: dict[int, Counts] = {}
    for i, item in enumerate(objects):
        counts = _counts_of(item, i, wanted)
        if isinstance(counts, (str, bytes)):
            texts.append(_ascii(counts, i))
        else:
            texts.append(b"")
            lists[i] = _integers(counts, i)
    cuts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    flat, offsets, bad, fault = _decompress(np.frombuffer(b"".join(texts), np.uint8).copy(), cuts)
    if fault:
        raise InputError(f"mask {bad}: its run-length string {_FAULTS[int(fault)]}: {_show(texts[bad])}.")
    if lists:
        parts = [lists[i] if i in lists else flat[offsets[i] : offsets[i + 1]] for i in range(len(texts))]
        flat = np.concatenate(parts)
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return checked(flat, offsets, frames * height * width)


def to_coco(counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int]) -> list[dict[str, Any]]:
    """COCO dictionaries ``{"size": [H, W], "counts": str}``, the compressed form; they go into JSON as they are.

    Raises:
        InputError: the runs of a mask do not fit ``size``.
    """
    frames, height, width = canvas(size)
    data, cuts = _compress(*checked(counts, offsets, frames * height * width))
    text = data.tobytes().decode("ascii")
    return [
        {"size": [int(side) for side in size], "counts": text[begin:end]}
        for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    ]


def _counts_of(item: Any, index: int, wanted: list[int]) -> Any:
    if not isinstance(item, Mapping) or "counts" not in item or "size" not in item:
        got = sorted(map(str, item)) if isinstance(item, Mapping) else type(item).__name__
        raise InputError(f"mask {index}: a COCO run-length must be {{'size': [H, W], 'counts': …}}, got {got}.")
    try:
        own = [int(side) for side in item["size"]]
    except (TypeError, ValueError):
        own = None
    if own != wanted:
        hint = " Is it (W, H)?" if own == wanted[::-1] else " Does it belong to another image?"
        raise InputError(f"mask {index}: its size must be {wanted}, got {_show(item['size'])}.{hint}")
    return item["counts"]


def _ascii(text: bytes | str, index: int) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str) and text.isascii():
        return text.encode("ascii")
    raise InputError(f"mask {index}: its run-length string must be ASCII, got {_show(text)}.")


def _integers(values: Any, index: int) -> Counts:
    """A list of run-lengths as int32, or an error."""
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):  # ragged, or beyond 64 bits
        array = np.asarray("?")
    if array.ndim == 1 and array.size == 0:
        return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"mask {index}: counts must be a string or a list of integers, got {_show(values)}.")
    if array.min() < 0 or array.max() > MAX_PIXELS:
        raise InputError(f"mask {index}: run-lengths must lie in 0..2^31 - 1, got {array.min()}..{array.max()}.")
    return array.astype(np.int32)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


@njit(cache=True, nogil=True)
def _compress(counts, offsets):
    out = np.empty(7 * len(counts), np.uint8)  # a difference of two int32 has 33 bits: 7 digits
    cuts = np.zeros(len(offsets), np.int64)
    used = 0
    for i in range(len(offsets) - 1):
        begin = offsets[i]
        for k in range(begin, offsets[i + 1]):
            value = np.int64(counts[k])
            if k - begin > 2:
                value -= counts[k - 2]
            more = True
            while more:
                digit = value & 31
                value >>= 5
                more = value != (-1 if digit & 16 else 0)
                out[used] = (digit | 32 if more else digit) + 48
                used += 1
        cuts[i + 1] = used
    return out[:used].copy(), cuts


@njit(cache=True, nogil=True)
def _decompress(data, cuts):
    """Counts, offsets, and where something is wrong: the mask and the kind of fault (0: none)."""
    out = np.empty(len(data), np.int32)  # every count takes at least one character
    offsets = np.zeros(len(cuts), np.int64)
    used = 0
    for i in range(len(cuts) - 1):
        begin = used
        k = cuts[i]
        while k < cuts[i + 1]:
            value, shift, more = np.int64(0), 0, True
            while more:
                if k >= cuts[i + 1]:
                    return out[:0].copy(), offsets, i, 2
                digit = np.int64(data[k]) - 48
                if digit < 0 or digit > 63:
                    return out[:0].copy(), offsets, i, 1
                if shift > 35:  # eight digits are 40 bits; shifting further would wrap around
                    return out[:0].copy(), offsets, i, 3
                value |= (digit & 31) << shift
                shift += 5
                more = digit & 32 != 0
                if not more and digit & 16:
                    value |= np.int64(-1) << shift
                k += 1
            if used - begin > 2:
                value += out[used - 2]
            if value < 0 or value > 2147483647:
                return out[:0].copy(), offsets, i, 3
            out[used] = value
            used += 1
        offsets[i + 1] = used
    return out[:used].copy(), offsets, -1, 0
