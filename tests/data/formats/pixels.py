"""Label pictures drawn by hand: what the tests of formats made of them share."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.label_maps import resolve
from maskwright.structures import Record
from tests.data.formats.draw import dense

SIZE = (6, 8)


def photo(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """A gray picture of (H, W), with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size[1], size[0]), 99).save(path)
    return path


def save(path: Path, values: np.ndarray | list, kind: Any = np.uint8) -> Path:
    """A map of integers, or of colors [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, kind)).save(path)
    return path


def map_of(**boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A map on ``SIZE`` with the value ``vN`` in (x1, y1, x2, y2), 0 elsewhere, in order."""
    out = np.zeros(SIZE, np.int64)
    for name, (x1, y1, x2, y2) in boxes.items():
        out[y1:y2, x1:x2] = int(name[1:])
    return out


def colored(ids: np.ndarray, colors: dict[int, tuple[int, int, int]]) -> np.ndarray:
    """uint8 [H, W, 3] of a map of numbers."""
    out = np.zeros((*ids.shape, 3), np.uint8)
    for value, color in colors.items():
        out[ids == value] = color
    return out


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header: tuple[int, int, int, int], packed: bytes) -> bytes:
    """A PNG of (width, height, depth, color type) and compressed rows."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def save16(path: Path, channels: np.ndarray, filters: tuple[int, ...] = (0,)) -> Path:
    """A PNG of 16 bits and three channels, uint16 [H, W, 3], its rows filtered by turns (PNG specification, 9.2)."""
    rows = np.ascontiguousarray(channels.astype(">u2")).view(np.uint8).reshape(channels.shape[0], -1).astype(np.int64)
    wide = np.pad(rows, ((1, 0), (6, 0)))
    packed = bytearray()
    for y in range(len(rows)):
        kind = filters[y % len(filters)]
        left, above, corner = wide[y + 1, : rows.shape[1]], wide[y, 6:], wide[y, : rows.shape[1]]
        by = np.stack([abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)])
        paeth = np.choose(by.argmin(axis=0), [left, above, corner])
        guess = [np.zeros_like(left), left, above, (left + above) // 2, paeth][kind]
        packed += bytes([kind]) + ((rows[y] - guess) & 255).astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png((channels.shape[1], channels.shape[0], 16, 2), zlib.compress(bytes(packed))))
    return path


def records(dataset: Dataset) -> dict[str, Record]:
    """``SPLIT/KEY`` -> resolved record."""
    return {
        f"{split}/{record.key}": record
        for split, source in dataset.splits.items()
        for record in (resolve(source.record(i)) for i in range(len(source)))
    }


def objects(record: Record, dataset: Dataset) -> list[tuple[str, bool, tuple[tuple[int, ...], ...]]]:
    """(class, crowd, mask as nested tuples) of a resolved record's objects, in order."""
    out = []
    for label, crowd, shape in zip(record.labels.tolist(), record.crowd.tolist(), record.shapes, strict=True):
        mask = dense(shape, record.size)
        assert mask is not None
        out.append((dataset.taxonomy.names[label], crowd, tuple(map(tuple, mask.astype(int).tolist()))))
    return out


def counted(dataset: Dataset) -> dict[str, dict[str, int]]:
    """``SPLIT/KEY`` -> class -> how many objects."""
    out: dict[str, dict[str, int]] = {}
    for key, record in records(dataset).items():
        names = [dataset.taxonomy.names[label] for label in record.labels.tolist()]
        out[key] = {name: names.count(name) for name in names}
    return out


def semantic(record: Record) -> np.ndarray:
    """The classes of a resolved record."""
    assert isinstance(record.semantic, np.ndarray)
    return record.semantic
