# pyright: basic
"""Long lists of a JSON file read element by element, so that a large file never stands in memory as Python objects.

A parsed COCO file takes some nine kilobytes an object, ten times what is kept of it. Here the file is mapped, one pass
over its bytes finds where the elements of the long lists lie (16 bytes each), and elements are parsed when asked for.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numba import njit

from maskwright.errors import InputError
from maskwright.storage import read_json

_TOGETHER = 256
_WRONG = -1


class JsonList:
    """A list in a file: ``len``, ``[i]`` and iteration, each of which parses anew."""

    def __init__(self, path: Path, data: mmap.mmap, bounds: np.ndarray) -> None:
        self._path, self._data, self._bounds = path, data, bounds

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, index: int) -> Any:
        """Element ``index``; ``InputError`` where it is not JSON."""
        start, end = self._bounds[index].tolist()
        return self._parsed(self._data[start:end])

    def __iter__(self) -> Iterator[Any]:
        """The elements; ``InputError`` where one is not JSON."""
        for first in range(0, len(self), _TOGETHER):
            bounds = self._bounds[first : first + _TOGETHER]
            yield from self._parsed(b"[" + self._data[int(bounds[0, 0]) : int(bounds[-1, 1])] + b"]")

    def _parsed(self, text: bytes) -> Any:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            read_json(self._path)  # says where in the file
            raise InputError(f"{self._path} is not JSON: {error}.") from error


def read_lists(path: str | Path, names: Collection[str]) -> Any:
    """What ``read_json`` gives, but with a ``JsonList`` for each list at the top level whose key is in ``names``.

    A file whose form is not plain (no object at its top, keys that repeat) is read whole, so those may be lists too.
    Elements that are broken are found when they are parsed.

    Raises:
        InputError: as ``read_json``.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # a folder, missing, empty
        return read_json(path)
    raw = np.frombuffer(data, np.uint8)
    count, total = _scan(raw, np.zeros((0, 6), np.int64), np.zeros((0, 2), np.int64))
    if count == _WRONG:
        return read_json(path)
    members, elements = np.zeros((count, 6), np.int64), np.zeros((total, 2), np.int64)
    _scan(raw, members, elements)
    keys = [data[a:b] for a, b in members[:, :2].tolist()]
    if len(set(keys)) != len(keys):
        return read_json(path)
    wanted = {f'"{name}"'.encode(): name for name in names}
    long: dict[str, JsonList] = {}
    rest: list[bytes] = []
    at = 0
    for key, (_, _, start, end, first, last) in zip(keys, members.tolist(), strict=True):
        if key in wanted and first >= 0:
            long[wanted[key]] = JsonList(path, data, elements[first:last])
            rest += [data[at:start], b"[]"]
            at = end
    try:
        out = orjson.loads(b"".join([*rest, data[at : len(data)]]))
    except orjson.JSONDecodeError:
        return read_json(path)
    out.update(long)
    return out


@njit(cache=True, nogil=True)
def _scan(data, members, elements):
    """How many members the object at the top has, and how many elements all lists that are members; -1 if it has none.

    Fills ``members`` (key from, to, value from, to, first and last element or -1) and ``elements`` (from, to).
    """
    depth = 0
    text = escaped = listed = inside = solid = False
    key_from = key_to = value_from = -1
    count = total = first = start = list_end = 0
    for i in range(len(data)):
        c = data[i]
        if text:
            if escaped:
                escaped = False
            elif c == 92:
                escaped = True
            elif c == 34:
                text = False
                if depth == 1 and value_from < 0:
                    key_to = i + 1
            continue
        if c == 32 or c == 9 or c == 10 or c == 13:
            continue
        if depth == 0 and (c != 123 or count > 0 or key_from >= 0):
            return -1, 0  # not an object, or something after it
        if depth == 1 and value_from >= 0 and not solid and c != 44 and c != 125:
            solid = True
            value_from, listed, first, start = i, c == 91, total, i + 1
            if listed:
                depth, solid, inside = 2, False, True
                continue
        if c == 34:
            text = True
            if depth == 1 and value_from < 0:
                key_from = i
            solid = True
        elif c == 123 or c == 91:
            depth += 1
            solid = True
        elif c == 58 and depth == 1 and value_from < 0:
            value_from, solid, listed = i + 1, False, False
        elif (c == 44 or c == 93) and depth == 2 and inside:
            if solid:
                if total < len(elements):
                    elements[total, 0], elements[total, 1] = start, i
                total += 1
            elif c == 44 or total > first:
                return -1, 0
            start, solid = i + 1, False
            if c == 93:
                depth, solid, inside, list_end = 1, True, False, i + 1
        elif c == 125 or c == 93 or (c == 44 and depth == 1):
            if depth == 1:
                if c == 93 or (value_from >= 0 and (key_to <= key_from or not solid)):
                    return -1, 0
                if value_from >= 0:
                    if count < len(members):
                        last = i
                        while data[last - 1] <= 32:
                            last -= 1
                        members[count, 0], members[count, 1] = key_from, key_to
                        members[count, 2], members[count, 3] = value_from, list_end if listed else last
                        members[count, 4], members[count, 5] = (first, total) if listed else (-1, -1)
                    count += 1
                value_from, solid, listed = -1, False, False
            if c != 44:
                depth -= 1
                if depth == 2 and inside:
                    solid = True
            if depth < 0:
                return -1, 0
        else:
            solid = True
    if depth != 0 or text or count == 0:
        return -1, 0
    return count, total
