# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels that unpack PNG: inflate (RFC 1951) and the row filters of the PNG specification (section 9).

Maps of segments are almost all repetition: a few thousand matches of 258 bytes, rows that equal the row above. What
counts is how fast those are copied, and both kernels have short cuts for exactly that; on photographs they are no
faster than anyone's. The input must be followed by ``SLACK`` readable bytes.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

MALFORMED, TOO_LONG, CUT_OFF = -1, -2, -3
SLACK = 16
_FAST_BITS, _FAST = 10, 1 << 10
_SYMBOLS, _DISTANCES = 288, 32
# Where things stand in the workspace, int32 each: two tables, and for each the symbols by code and the counts by length
_LENGTHS, _TABLE, _FAR_TABLE = 0, 320, 320 + _FAST
_ORDER, _FAR_ORDER = _FAR_TABLE + _FAST, _FAR_TABLE + _FAST + _SYMBOLS
_COUNTS, _FAR_COUNTS, _STARTS = _FAR_ORDER + _DISTANCES, _FAR_ORDER + _DISTANCES + 16, _FAR_ORDER + _DISTANCES + 32
WORK = _STARTS + 16
_BLOCK = 48  # bytes looked at together when rows are unfiltered: a whole number of pixels of 1, 2, 3, 4, 6 or 8 bytes

helper = njit(nogil=True, error_model="numpy")


@helper
def eight(data, at):
    """Eight bytes as one number, lowest first."""
    low = np.uint64(data[at]) | np.uint64(data[at + 1]) << np.uint64(8)
    low |= np.uint64(data[at + 2]) << np.uint64(16) | np.uint64(data[at + 3]) << np.uint64(24)
    high = np.uint64(data[at + 4]) << np.uint64(32) | np.uint64(data[at + 5]) << np.uint64(40)
    high |= np.uint64(data[at + 6]) << np.uint64(48) | np.uint64(data[at + 7]) << np.uint64(56)
    return low | high


@helper
def four(data, at):
    low = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
    return low | np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)


@helper
def low_bits(bits, count):
    return np.int64(bits & ((np.uint64(1) << np.uint64(count)) - np.uint64(1)))


@helper
def build(work, first, symbols, table, order, counts, meaning, meaning_at):
    """The tables of one code from the lengths at ``work[first]``; 0, or ``MALFORMED`` where they fit no code."""
    for i in range(16):
        work[counts + i] = 0
    for s in range(symbols):
        work[counts + work[first + s]] += 1
    work[counts] = 0
    left, code, index = 1, 0, 0
    for length in range(1, 16):
        left = 2 * left - work[counts + length]
        if left < 0:
            return MALFORMED
        work[_STARTS + length] = index
        index += work[counts + length]
    for s in range(symbols):
        length = work[first + s]
        if length > 0:
            work[order + work[_STARTS + length]] = s
            work[_STARTS + length] += 1
    for i in range(_FAST):
        work[table + i] = 0
    index = 0
    for length in range(1, _FAST_BITS + 1):
        for _ in range(work[counts + length]):
            turned = 0
            for b in range(length):
                turned |= (code >> b & 1) << (length - 1 - b)
            entry = meaning[meaning_at + work[order + index]] | length
            for i in range(turned, _FAST, 1 << length):
                work[table + i] = entry
            code += 1
            index += 1
        code <<= 1
    return 0


@helper
def long_code(work, bits, order, counts, meaning, meaning_at):
    """The meaning of a code that the table is too short for, with its length; 0 where there is none."""
    code, first, index = 0, 0, 0
    for length in range(1, 16):
        code |= np.int64(bits & np.uint64(1))
        bits >>= np.uint64(1)
        count = work[counts + length]
        if code - count < first:
            return np.int64(meaning[meaning_at + work[order + index + code - first]] | length)
        index += count
        first = (first + count) << 1
        code <<= 1
    return np.int64(0)


@helper
def repeat(out, at, distance, length):
    """Copy ``length`` bytes from ``distance`` before, where those may be among the copied."""
    if distance == 1:
        value = out[at - 1]
        for i in range(length):
            out[at + i] = value
        return
    source, end = at - distance, at + length
    while at < end:
        # What was copied repeats the pattern, so each turn may copy twice as much: parts that never overlap.
        part = min(at - source, end - at)
        for i in range(part):
            out[at + i] = out[source + i]
        at += part


@helper
def read_lengths(data, size, at, bits, count, work, meaning):
    """Read the code lengths of a block and build its tables; status, position, bits, their number."""
    literals, far, used = low_bits(bits, 5) + 257, low_bits(bits >> np.uint64(5), 5) + 1, 4
    used += low_bits(bits >> np.uint64(10), 4)
    bits >>= np.uint64(14)
    count -= 14
    if literals > 286 or far > 30:
        return MALFORMED, at, bits, count
    for i in range(19):
        work[_LENGTHS + i] = 0
    for i in range(used):
        if count < 3:
            bits |= eight(data, at) << np.uint64(count)
            at += (63 - count) >> 3
            count |= 56
        # 16, 17, 18, 0, then outward from 8: 8, 7, 9, 6, 10 ...
        place = (16 + i) % 19 if i < 4 else 8 + (i - 4 + 1) // 2 * (1 - 2 * ((i - 4) & 1))
        work[_LENGTHS + place] = low_bits(bits, 3)
        bits >>= np.uint64(3)
        count -= 3
    # Symbols 0..18 mean themselves here: a code's meaning is read back from the order, as a symbol.
    if build(work, _LENGTHS, 19, _TABLE, _ORDER, _COUNTS, meaning, 0) < 0:
        return MALFORMED, at, bits, count
    filled, last = 0, 0
    while filled < literals + far:
        if at > size + 8:
            return CUT_OFF, at, bits, count
        bits |= eight(data, at) << np.uint64(count)
        at += (63 - count) >> 3
        count |= 56
        entry = work[_TABLE + low_bits(bits, _FAST_BITS)]
        if entry == 0:
            return MALFORMED, at, bits, count
        length, symbol, times = entry & 15, entry >> 12, 1
        bits >>= np.uint64(length)
        count -= length
        if symbol < 16:
            last = symbol
        elif symbol == 16:
            if filled == 0:
                return MALFORMED, at, bits, count
            times = 3 + low_bits(bits, 2)
            bits >>= np.uint64(2)
            count -= 2
        else:
            last = 0
            more = 3 if symbol == 17 else 7
            times = (3 if symbol == 17 else 11) + low_bits(bits, more)
            bits >>= np.uint64(more)
            count -= more
        if filled + times > literals + far:
            return MALFORMED, at, bits, count
        for _ in range(times):
            work[_LENGTHS + filled] = last
            filled += 1
    status = build(work, _LENGTHS + literals, far, _FAR_TABLE, _FAR_ORDER, _FAR_COUNTS, meaning, _SYMBOLS)
    if status == 0:
        status = build(work, _LENGTHS, literals, _TABLE, _ORDER, _COUNTS, meaning, 0)
    return status, at, bits, count


def inflate(data, size, out, capacity, work, meaning):
    """Unpack a raw deflate stream; the number of bytes written, or ``MALFORMED``, ``TOO_LONG`` or ``CUT_OFF``.

    ``work``: int32 [WORK]; ``meaning``: int32 [320], what each symbol says, as ``_png`` makes it.
    """
    at, bits, count, top = 0, np.uint64(0), 0, 0
    final = 0
    while final == 0:
        if at > size + 8:
            return CUT_OFF
        bits |= eight(data, at) << np.uint64(count)
        at += (63 - count) >> 3
        count |= 56
        final, kind = low_bits(bits, 1), low_bits(bits >> np.uint64(1), 2)
        bits >>= np.uint64(3)
        count -= 3
        if kind == 3:
            return MALFORMED
        if kind == 0:
            begin = at - (count >> 3)
            if begin + 4 > size:
                return CUT_OFF
            length = np.int64(data[begin]) | np.int64(data[begin + 1]) << 8
            if length ^ 65535 != np.int64(data[begin + 2]) | np.int64(data[begin + 3]) << 8:
                return MALFORMED
            begin += 4
            if begin + length > size:
                return CUT_OFF
            if top + length > capacity:
                return TOO_LONG
            for i in range(length):
                out[top + i] = data[begin + i]
            top += length
            at, bits, count = begin + length, np.uint64(0), 0
            continue
        if kind == 1:
            for i in range(_SYMBOLS):
                work[_LENGTHS + i] = 8 if i < 144 else 9 if i < 256 else 7 if i < 280 else 8
            build(work, _LENGTHS, _SYMBOLS, _TABLE, _ORDER, _COUNTS, meaning, 0)
            for i in range(_DISTANCES):
                work[_LENGTHS + i] = 5
            build(work, _LENGTHS, _DISTANCES, _FAR_TABLE, _FAR_ORDER, _FAR_COUNTS, meaning, _SYMBOLS)
        else:
            status, at, bits, count = read_lengths(data, size, at, bits, count, work, meaning)
            if status < 0:
                return status
        while True:
            if at > size + 8:
                return CUT_OFF
            bits |= eight(data, at) << np.uint64(count)
            at += (63 - count) >> 3
            count |= 56
            entry = np.int64(work[_TABLE + low_bits(bits, _FAST_BITS)])
            if entry == 0:
                entry = long_code(work, bits, _ORDER, _COUNTS, meaning, 0)
            length, kind = entry & 15, entry >> 8 & 3
            bits >>= np.uint64(length)
            count -= length
            if length == 0 or kind == 3:
                return MALFORMED
            if kind == 0:
                if top >= capacity:
                    return TOO_LONG
                out[top] = entry >> 12
                top += 1
                continue
            if kind == 2:
                break
            extra = entry >> 4 & 15
            times = (entry >> 12) + low_bits(bits, extra)
            bits >>= np.uint64(extra)
            count -= extra
            entry = np.int64(work[_FAR_TABLE + low_bits(bits, _FAST_BITS)])
            if entry == 0:
                entry = long_code(work, bits, _FAR_ORDER, _FAR_COUNTS, meaning, _SYMBOLS)
            length, extra = entry & 15, entry >> 4 & 15
            bits >>= np.uint64(length)
            distance = (entry >> 12) + low_bits(bits, extra)
            bits >>= np.uint64(extra)
            count -= length + extra
            if length == 0 or entry >> 8 & 3 != 1 or distance > top:
                return MALFORMED
            if top + times > capacity:
                return TOO_LONG
            repeat(out, top, distance, times)
            top += times
    return CUT_OFF if at - (count >> 3) > size else top


@helper
def nearest(left, above, corner):
    """The Paeth predictor: that neighbor which is nearest to left + above - corner."""
    to_left, to_above = abs(above - corner), abs(left - corner)
    to_corner = abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


@helper
def still(raw, at):
    """Whether the block at ``at`` has no residue."""
    found = 0
    for i in range(_BLOCK):
        found |= raw[at + i]
    return found == 0


def unfilter(raw, height, stride, pixel, colors, ids):
    """Undo the filters of ``height`` rows of 1 + ``stride`` bytes in place; 0, or ``MALFORMED``.

    ``pixel``: bytes of one. Where these are ``colors``, ``ids`` (int32 [height, stride // pixel]) get red + 256 green
    + 65536 blue of each. Rows must be followed by a readable byte.
    """
    width = stride // pixel
    for r in range(height):
        row = r * (stride + 1) + 1
        above, kind = row - stride - 1, raw[row - 1]
        if kind > 4:
            return MALFORMED
        if r == 0 and kind == 2:
            kind = 0
        if r == 0 and kind == 4:
            kind = 1
        at = pixel
        if kind == 2:
            for i in range(stride):
                raw[row + i] = (raw[row + i] + raw[above + i]) & 255
        elif kind == 3:
            for i in range(stride):
                left = np.int64(raw[row + i - pixel]) if i >= pixel else 0
                up = np.int64(raw[above + i]) if r > 0 else 0
                raw[row + i] = (raw[row + i] + (left + up) // 2) & 255
        elif kind == 1:
            for i in range(pixel, stride):
                raw[row + i] = (raw[row + i] + raw[row + i - pixel]) & 255
        elif kind == 4:
            for i in range(pixel):
                raw[row + i] = (raw[row + i] + raw[above + i]) & 255
            while at < stride:
                end = min(at + _BLOCK, stride)
                same = end - at == _BLOCK and still(raw, row + at)
                for i in range(pixel):
                    same = same and raw[row + at + i - pixel] == raw[above + at + i - pixel]
                if same:
                    # The rows agree before a block without residue: the predictor is the byte above, all the way.
                    for i in range(at, end):
                        raw[row + i] = raw[above + i]
                else:
                    for i in range(at, end):
                        left, up = np.int64(raw[row + i - pixel]), np.int64(raw[above + i])
                        raw[row + i] = (raw[row + i] + nearest(left, up, np.int64(raw[above + i - pixel]))) & 255
                at = end
        if colors == 1:
            for x in range(width):
                # Four bytes are one load; the last pixel's fourth is slack.
                ids[r * width + x] = four(raw, row + pixel * x) & 0xFFFFFF
    return 0


_int, _bytes, _runs = types.int64, types.CPointer(types.uint8), types.CPointer(types.int32)
KERNELS = {
    "inflate": (inflate, _int(_bytes, _int, _bytes, _int, _runs, _runs)),
    "unfilter": (unfilter, _int(_bytes, _int, _int, _int, _int, _runs)),
}
