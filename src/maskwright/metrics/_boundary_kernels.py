# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures of the callers' KERNELS say.
"""Kernels on the boundaries of masks, for Boundary IoU.

B. Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021. The boundary of a
mask is what a square of side ``2 margin + 1`` erodes of it, outside of the picture counting as background.

Boundaries are bits, column by column inside of the mask's box: bit ``y & 63`` of word ``y >> 6``, so that those of two
masks meet word by word. Rows are eroded where they are cheapest, on the run-lengths; columns by AND-ing words with
shifted ones, the window doubling each time (M. van Herk's problem, solved as powers of two since AND is idempotent).
A record of ``ABOUT`` int64 describes one boundary.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.metrics._shape_kernels import FULL

ABOUT = 8
WHERE, LEFT, COLUMNS, FIRST, TALL, PIXELS, THICK, STATE = range(ABOUT)
"""First word, first column, columns, first word's place in a column, words a column, pixels, whether erosion may leave
anything; state 0: nothing is known, 1: all but where and pixels, 2: all."""

helper = njit(nogil=True, error_model="numpy")


@helper
def bits_set(value):
    """How many bits of a uint64 are one (compilers know this form and make one instruction of it)."""
    one, two, four = np.uint64(1), np.uint64(2), np.uint64(4)
    value = value - ((value >> one) & np.uint64(0x5555555555555555))
    value = (value & np.uint64(0x3333333333333333)) + ((value >> two) & np.uint64(0x3333333333333333))
    value = (value + (value >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((value * np.uint64(0x0101010101010101)) >> np.uint64(56))


@helper
def fill(words, base, first, last):
    """Set bits ``first`` .. ``last - 1`` of the column that begins at ``words[base]``."""
    ones = ~np.uint64(0)
    low, high = base + (first >> 6), base + ((last - 1) >> 6)
    head = ones << np.uint64(first & 63)
    tail = ones >> np.uint64(63 - ((last - 1) & 63))
    if low == high:
        words[low] |= head & tail
        return
    words[low] |= head
    for i in range(low + 1, high):
        words[i] = ones
    words[high] |= tail


@helper
def frame(arena, begin, end, height, margin, about, k):
    """Where the boundary of the mask ``arena[begin:end]`` lies: the record at ``about[k]`` up to state 1."""
    if about[k + STATE] != 0:
        return
    left, right, upper, lower = 1 << 40, -1, height, -1
    for i in range(begin, end, 2):
        first, last = np.int64(arena[i]), np.int64(arena[i + 1]) - 1
        if last < first:
            continue
        x0, x1 = first // height, last // height
        left, right = min(left, x0), max(right, x1)
        if x0 < x1:
            upper, lower = 0, height - 1
        else:
            upper, lower = min(upper, first - x0 * height), max(lower, last - x0 * height)
    about[k + LEFT], about[k + COLUMNS] = left, max(0, right - left + 1)
    about[k + FIRST], about[k + TALL] = upper >> 6, (lower >> 6) - (upper >> 6) + 1
    thick = right - left >= 2 * margin and lower - upper >= 2 * margin
    about[k + THICK] = 1 if thick else 0
    about[k + STATE] = 1


@helper
def outline(arena, begin, end, height, margin, words, top, capacity, about, k):
    """Put the boundary of a mask at ``words[top]``, unless it is there; the new top, or ``FULL``. ``frame`` first."""
    if about[k + STATE] == 2:
        return top
    left, tall, columns = about[k + LEFT], about[k + TALL], about[k + COLUMNS]
    base, size, thick = 64 * about[k + FIRST], columns * tall, about[k + THICK] == 1
    low = top + size
    stop = low + size if thick else low
    if stop > capacity:
        return FULL
    for i in range(top, stop):
        words[i] = 0
    pixels, at = 0, begin
    column, border = left, (left + 1) * height
    while at < end:
        first, last = np.int64(arena[at]), np.int64(arena[at + 1])
        at += 2
        while at < end and arena[at] == last:  # a run of no length lies between
            last = np.int64(arena[at + 1])
            at += 2
        pixels += last - first
        while first < last:
            while first >= border:
                column += 1
                border += height
            a, b = first - border + height - base, min(last, border) - border + height - base
            place = (column - left) * tall
            fill(words, top + place, a, b)
            if thick and b - a > 2 * margin:
                fill(words, low + place, a + margin, b - margin)
            first = min(last, border)
    if thick:
        side, span, valid = 2 * margin + 1, 1, size
        while span < side:
            step = min(span, side - span)
            valid -= step * tall
            for i in range(low, low + valid):
                words[i] &= words[i + step * tall]
            span += step
        onto = top + margin * tall - low
        for i in range(low, low + valid):
            words[onto + i] &= ~words[i]
            pixels -= bits_set(words[i])
    about[k + WHERE], about[k + PIXELS], about[k + STATE] = top, pixels, 2
    return low


@helper
def outline_iou(words, about, i, j):
    """IoU of the boundaries at ``about[i]`` and ``about[j]``."""
    left = max(about[i + LEFT], about[j + LEFT])
    right = min(about[i + LEFT] + about[i + COLUMNS], about[j + LEFT] + about[j + COLUMNS])
    low = max(about[i + FIRST], about[j + FIRST])
    high = min(about[i + FIRST] + about[i + TALL], about[j + FIRST] + about[j + TALL])
    shared = 0
    for column in range(left, right):
        a = about[i + WHERE] + (column - about[i + LEFT]) * about[i + TALL] - about[i + FIRST]
        b = about[j + WHERE] + (column - about[j + LEFT]) * about[j + TALL] - about[j + FIRST]
        for y in range(low, high):
            shared += bits_set(words[a + y] & words[b + y])
    return shared / max(1, about[i + PIXELS] + about[j + PIXELS] - shared)
