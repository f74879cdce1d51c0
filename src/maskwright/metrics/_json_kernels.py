# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels that read arrays of COCO objects out of JSON text, straight into tables.

They accept the JSON that tools write and refuse everything else (a wrong type, an escape in a key, a number of more
than 19 digits) by returning -1: the caller then reads the text in Python, which can say what is wrong with it. Values
of fields that no score needs are stepped over, not checked.

One row of the integer table, int64 [12]: 0 which fields are present, one bit each (id, image_id, category_id, iscrowd,
height, width, score, area, bbox); 1..6 id, image_id, category_id, iscrowd, height, width; the segmentation: 7 its kind
(0 none, 1 string, 2 list of run-lengths, 3 polygons), 8 and 9 where its text begins and ends, 10 and 11 the height and
width it states. One row of the other table, float64 [6]: score, area, and the bbox as x, y, width, height. What is
absent is 0.
"""

from __future__ import annotations

from numba import njit, types

from maskwright.metrics._number_kernels import number, space

ROW, FLOAT_ROW = 12, 6
_ID, _IMAGE, _CATEGORY = tuple(b"id"), tuple(b"image_id"), tuple(b"category_id")
_CROWD, _HEIGHT, _WIDTH = tuple(b"iscrowd"), tuple(b"height"), tuple(b"width")
_SCORE, _AREA, _BBOX, _SHAPE = tuple(b"score"), tuple(b"area"), tuple(b"bbox"), tuple(b"segmentation")
_SIZE, _COUNTS = tuple(b"size"), tuple(b"counts")
_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_OPEN, _CLOSE, _BEGIN, _END = 123, 125, 91, 93

helper = njit(nogil=True, error_model="numpy")


@helper
def same(text, at, length, word):
    """Whether the ``length`` bytes at ``at`` are ``word``."""
    found = 0
    while found < len(word) and found < length and text[at + found] == word[found]:
        found += 1
    return found == len(word) and found == length


@helper
def string_end(text, at, stop):
    """The position of the quote that ends a string whose first byte is at ``at``, or -1."""
    while at < stop:
        if text[at] == _QUOTE:
            return at
        if text[at] == _BACKSLASH:
            at += 1
        at += 1
    return -1


@helper
def value_end(text, at, stop):
    """The position after any JSON value at ``at``, or -1."""
    depth = 0
    while at < stop:
        byte = text[at]
        if byte == _QUOTE:
            at = string_end(text, at + 1, stop)
            if at < 0:
                return -1
        elif byte in (_OPEN, _BEGIN):
            depth += 1
        elif byte in (_CLOSE, _END):
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + 1
        elif depth == 0 and (byte == _COMMA or byte <= 32):
            return at
        at += 1
        if byte == _QUOTE and depth == 0:
            return at
    return -1


@helper
def segmentation(text, at, stop, rows, r, out):
    """Note what the segmentation at ``at`` is and where its text lies; the position after it, or -1."""
    if text[at] == _BEGIN:
        end = value_end(text, at, stop)
        rows[r + 7], rows[r + 8], rows[r + 9] = 3, at, end
        if end > 0 and space(text, at + 1, stop) == end - 1:
            rows[r + 7] = 0
        return end
    if text[at] != _OPEN:
        return -1
    rows[r + 7] = 0
    at = space(text, at + 1, stop)
    while at < stop and text[at] == _QUOTE:
        begin = at + 1
        end = string_end(text, begin, stop)
        if end < 0:
            return -1
        at = space(text, end + 1, stop)
        if at >= stop or text[at] != _COLON:
            return -1
        at = space(text, at + 1, stop)
        if at >= stop:
            return -1
        if same(text, begin, end - begin, _COUNTS):
            if text[at] == _QUOTE:
                rows[r + 7], rows[r + 8] = 1, at + 1
                at = string_end(text, at + 1, stop)
                rows[r + 9] = at
                at += 1
                if at == 0:
                    return -1
            elif text[at] == _BEGIN:
                rows[r + 7], rows[r + 8] = 2, at
                at = value_end(text, at, stop)
                rows[r + 9] = at
            else:
                return -1
        elif same(text, begin, end - begin, _SIZE):
            if text[at] != _BEGIN:
                return -1
            for i in range(2):
                at = number(text, space(text, at + 1, stop), stop, out)
                if at < 0 or out[2] == 0:
                    return -1
                rows[r + 10 + i] = out[1]
                at = space(text, at, stop)
                if at >= stop or text[at] != (_END if i == 1 else _COMMA):
                    return -1
            at += 1
        else:
            at = value_end(text, at, stop)
        if at < 0:
            return -1
        at = space(text, at, stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
            if at >= stop or text[at] != _QUOTE:
                return -1
    return at + 1 if at < stop and text[at] == _CLOSE else -1


@helper
def box(text, at, stop, floats, f, rows, r, out):
    """Read ``[x, y, w, h]``; an empty list counts as absent. The position after it, or -1."""
    if text[at] != _BEGIN:
        return -1
    first = space(text, at + 1, stop)
    if first < stop and text[first] == _END:
        rows[r + 0] &= ~(1 << 8)
        return first + 1
    for i in range(4):
        at = number(text, space(text, at + 1, stop), stop, out)
        if at < 0:
            return -1
        floats[f + 2 + i] = out[0]
        at = space(text, at, stop)
        if at >= stop or text[at] != (_END if i == 3 else _COMMA):
            return -1
    rows[r + 0] |= 1 << 8
    return at + 1


@helper
def field(text, at, length):
    """The number of the field named by ``length`` bytes at ``at``, or -1."""
    first = text[at]
    if first == 105:
        if same(text, at, length, _ID):
            return 0
        if same(text, at, length, _IMAGE):
            return 1
        return 3 if same(text, at, length, _CROWD) else -1
    if first == 115:
        if same(text, at, length, _SCORE):
            return 6
        return 9 if same(text, at, length, _SHAPE) else -1
    if same(text, at, length, _CATEGORY):
        return 2
    if same(text, at, length, _BBOX):
        return 8
    if same(text, at, length, _AREA):
        return 7
    if same(text, at, length, _HEIGHT):
        return 4
    return 5 if same(text, at, length, _WIDTH) else -1


@helper
def read_object(text, at, stop, rows, r, floats, f, out):
    """Read one object whose brace is at ``at``; the position after it, or -1."""
    if at >= stop or text[at] != _OPEN:
        return -1
    for k in range(ROW):
        rows[r + k] = 0
    for k in range(FLOAT_ROW):
        floats[f + k] = 0
    at = space(text, at + 1, stop)
    while at < stop and text[at] == _QUOTE:
        begin = at + 1
        end = begin
        while end < stop and text[end] != _QUOTE:
            if text[end] == _BACKSLASH:
                return -1
            end += 1
        at = space(text, end + 1, stop)
        if at >= stop or text[at] != _COLON:
            return -1
        at = space(text, at + 1, stop)
        if at >= stop:
            return -1
        which = field(text, begin, end - begin)
        if which < 0:
            at = value_end(text, at, stop)
        elif which <= 7:
            at = number(text, at, stop, out)
            if at < 0:
                return -1
            if which >= 6:
                floats[f + which - 6] = out[0]
            elif out[2] == 1:
                rows[r + 1 + which] = out[1]
            else:
                return -1
            rows[r + 0] |= 1 << which
        elif which == 8:
            at = box(text, at, stop, floats, f, rows, r, out)
        else:
            at = segmentation(text, at, stop, rows, r, out)
        if at < 0:
            return -1
        at = space(text, at, stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
            if at >= stop or text[at] != _QUOTE:
                return -1
    return at + 1 if at < stop and text[at] == _CLOSE else -1


def read_objects(text, at, limit, stop, rows, floats, capacity, out):
    """Read objects from the brace at ``at`` until the array ends or ``limit`` is reached.

    Returns how many, or -1. ``out[3]`` is the position after the array's bracket; where reading stopped at ``limit``
    (which must be where an object begins), ``limit`` itself.
    """
    count = 0
    while count < capacity:
        at = read_object(text, at, stop, rows, count * ROW, floats, count * FLOAT_ROW, out)
        if at < 0:
            return -1
        count += 1
        at = space(text, at, stop)
        if at >= stop:
            return -1
        if text[at] == _END:
            out[3] = at + 1
            return count
        if text[at] != _COMMA:
            return -1
        at = space(text, at + 1, stop)
        if at >= limit:
            out[3] = at
            return count if at == limit else -1
    return -1


def find_object(text, at, stop):
    """The first brace from ``at`` that looks like the beginning of an object in an array of objects, or ``stop``."""
    while at < stop:
        if text[at] == _CLOSE:
            after = space(text, at + 1, stop)
            if after < stop and text[after] == _COMMA:
                after = space(text, after + 1, stop)
                if after < stop and text[after] == _OPEN:
                    return after
        at += 1
    return stop


def count_bytes(text, at, stop, byte):
    """How often ``byte`` occurs from ``at`` to ``stop``."""
    count = 0
    for i in range(at, stop):
        if text[i] == byte:
            count += 1
    return count


def read_members(text, stop, spans, capacity):
    """Where the members of the object that the text is lie; how many, or -1.

    Four numbers each in ``spans``: the key's first byte and its quote, the value's first byte and the one after it.
    """
    at = space(text, 0, stop)
    if at >= stop or text[at] != _OPEN:
        return -1
    count = 0
    at = space(text, at + 1, stop)
    while at < stop and text[at] == _QUOTE and count < capacity:
        begin = at + 1
        end = string_end(text, begin, stop)
        if end < 0:
            return -1
        at = space(text, end + 1, stop)
        if at >= stop or text[at] != _COLON:
            return -1
        at = space(text, at + 1, stop)
        after = value_end(text, at, stop)
        if after < 0:
            return -1
        spans[4 * count], spans[4 * count + 1], spans[4 * count + 2], spans[4 * count + 3] = begin, end, at, after
        count += 1
        at = space(text, after, stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
            if at >= stop or text[at] != _QUOTE:
                return -1
    if at >= stop or text[at] != _CLOSE or space(text, at + 1, stop) != stop:
        return -1
    return count


_text, _table = types.CPointer(types.uint8), types.CPointer(types.int64)
_int = types.int64
KERNELS = {
    "read_objects": (read_objects, _int(_text, _int, _int, _int, _table, _table, _int, _table)),
    "find_object": (find_object, _int(_text, _int, _int)),
    "count_bytes": (count_bytes, _int(_text, _int, _int, _int)),
    "read_members": (read_members, _int(_text, _int, _table, _int)),
}
