# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels that read numbers out of JSON text, to the bit as Python reads them."""

from __future__ import annotations

import numpy as np
from numba import njit

helper = njit(nogil=True, error_model="numpy")


def _powers_of_five() -> np.ndarray:
    """128 bits of 5**q for q = -342 .. 308, high half first, uint64 [2 * 651]: rounded down, for q < 0 up."""
    halves: list[int] = []
    for q in range(-342, 309):
        if q < 0:
            divisor = 5**-q
            places = divisor.bit_length() if divisor & (divisor - 1) else divisor.bit_length() - 1
            value = 2 ** (places + 127 if q >= -27 else 2 * places + 128) // divisor + 1
        else:
            value = 5**q << 128
        value >>= max(0, value.bit_length() - 128)
        halves += [value >> 64, value & (2**64 - 1)]
    return np.array(halves, np.uint64)


_POWERS = _powers_of_five()


@helper
def space(text, at, stop):
    """The first position from ``at`` that is not white space."""
    while at < stop and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@helper
def wide_product(a, b):
    """The 128-bit product of two uint64 as (high, low)."""
    half, low32 = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & low32, a >> half, b & low32, b >> half
    middle = (a0 * b0 >> half) + (a1 * b0 & low32) + (a0 * b1 & low32)
    high = a1 * b1 + (a1 * b0 >> half) + (a0 * b1 >> half) + (middle >> half)
    return high, a * b


@helper
def leading_zeros(value):
    """Zero bits before the first one of a uint64 that is not zero."""
    count = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> np.uint64(64 - step) == np.uint64(0):
            value = value << np.uint64(step)
            count += step
    return count


@helper
def decimal(digits, exponent):
    """The bits of the float64 nearest to ``digits * 10**exponent``, ties to even, exactly as Python's ``float``.

    D. Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience 51 (2021), algorithm 1.
    """
    zero, one = np.uint64(0), np.uint64(1)
    if digits == zero or exponent < -342:
        return np.uint64(0)
    if exponent > 308:
        return np.uint64(0x7FF) << np.uint64(52)
    shift = leading_zeros(digits)
    digits = digits << np.uint64(shift)
    where = 2 * (exponent + 342)
    high, low = wide_product(digits, _POWERS[where])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = wide_product(digits, _POWERS[where + 1])
        low = low + more
        if low < more:
            high = high + one
    upper = np.int64(high >> np.uint64(63))
    kept = np.uint64(upper + 9)
    mantissa = high >> kept
    power = ((217706 * exponent) >> 16) + 63 + upper - shift + 1023
    if power <= 0:
        if 1 - power >= 64:
            return np.uint64(0)
        mantissa = mantissa >> np.uint64(1 - power)
        return (mantissa + (mantissa & one)) >> one  # a carry into bit 52 makes the smallest normal number
    half = mantissa & np.uint64(3) == one and mantissa << kept == high and low <= one
    if half and exponent >= -4 and exponent <= 23:
        mantissa = mantissa & ~one
    mantissa = (mantissa + (mantissa & one)) >> one
    if mantissa >= np.uint64(1) << np.uint64(53):
        mantissa = np.uint64(1) << np.uint64(52)
        power += 1
    if power >= 2047:
        return np.uint64(0x7FF) << np.uint64(52)
    return (mantissa & ((one << np.uint64(52)) - one)) | (np.uint64(power) << np.uint64(52))


@helper
def number(text, at, stop, out):
    """Read a JSON number at ``at`` into ``out[0]`` (as the bits of a float64); the position after it, or -1.

    ``out[1]`` is its value as an integer where ``out[2]`` is 1, which is where it is written as one.
    """
    negative = at < stop and text[at] == 45
    if negative:
        at += 1
    digits, count, begin = np.uint64(0), 0, at
    while at < stop and text[at] >= 48 and text[at] <= 57:
        digits = digits * np.uint64(10) + np.uint64(text[at] - 48)
        at += 1
    count = at - begin
    if count == 0 or count > 19 or (count > 1 and text[begin] == 48):
        return -1
    exponent, whole = 0, 1
    if at < stop and text[at] == 46:
        whole, begin = 0, at + 1
        at += 1
        while at < stop and text[at] >= 48 and text[at] <= 57:
            digits = digits * np.uint64(10) + np.uint64(text[at] - 48)
            at += 1
        exponent = begin - at
        if exponent == 0:
            return -1
        # Leading zeros do not overflow: 0.00012345678901234567 is 17 digits, not 21.
        if count - exponent > 19:
            first = begin
            if count > 1 or text[begin - 2] != 48:
                return -1
            while text[first] == 48 and first < at:
                first += 1
            if at - first > 19:
                return -1
    if at < stop and (text[at] == 101 or text[at] == 69):
        whole = 0
        at += 1
        down = at < stop and text[at] == 45
        if down or (at < stop and text[at] == 43):
            at += 1
        begin, power = at, 0
        while at < stop and text[at] >= 48 and text[at] <= 57 and at - begin < 5:
            power = power * 10 + np.int64(text[at]) - 48
            at += 1
        if at == begin or at - begin == 5:
            return -1
        exponent += -power if down else power
    sign = np.uint64(1) << np.uint64(63) if negative else np.uint64(0)
    out[0] = np.int64(decimal(digits, exponent) | sign)
    value = np.int64(digits)
    out[1] = -value if negative else value
    out[2] = 1 if whole == 1 and value >= 0 else 0
    return at
