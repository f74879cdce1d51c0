"""``ShardSource``: a data set in tar shards, for sets that outgrow a disk's patience with many small files.

The layout is webdataset's (https://github.com/webdataset/webdataset): a sample is what lies side by side in a tar and
has one stem, the name up to the first dot. Of a sample ``000017`` there are

- ``000017.jpg`` (or another picture's ending), the file as it was;
- ``000017.json``: ``{"key", "image_id", "height", "width", "objects": [...]}``, with ``"sequence"`` and ``"frame"`` of
  a video. An object is ``{"id", "class" (a name), "box" (x1, y1, x2, y2), "area", "crowd", "track"?, and "polygons"
  ([[x, y, x, y, ...], ...]), "counts" (compressed COCO run-lengths) or neither}``;
- ``000017.semantic.png`` where there is a semantic map: a label (place in the classes) a pixel; void is 255, in maps of
  16 bits 65535;
- ``000017.panoptic.png`` where there is a panoptic map: 0 is void, else the place of the object in ``objects``, from 1.

``index.json`` beside the shards has the classes and how many samples and bytes each shard has: ``{"version": 1,
"classes": {...}, "shards": [{"name", "samples", "bytes"}, ...]}``. Without it, shards are scanned once.

Samples are found by their byte offset, which reads a shard's headers when it is first touched and keeps 8 bytes a
sample. So any order can be read, and resumed, without replaying pixels; ``Shuffled`` reads shard by shard.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image
from torch import Tensor

from maskwright.data.io import SUFFIXES, to_picture
from maskwright.data.shard_records import record_of
from maskwright.data.source import Base, Mix
from maskwright.data.tar import Member, Read, is_meta, members, split_name
from maskwright.errors import InputError
from maskwright.storage import read_json, write_json
from maskwright.structures import Record, Taxonomy

INDEX = "index.json"
VERSION = 1
_PICTURES = tuple(ending[1:] for ending in SUFFIXES)
_MAPS = ("semantic.png", "panoptic.png")
_LARGEST_TEXT = 1 << 28


class ShardSource(Base):
    """The images of the tar shards in a folder.

    Workers may share it after a fork: files are opened for each sample, not kept open. ``record`` reads the sample's
    annotation (and decodes its maps), not its picture. The records' ``path`` is SHARD/MEMBER, which no file has.

    Args:
        folder: the folder of the shards, in the order of ``index.json`` or of their names.
        taxonomy: the classes, where they are not the index's; without either every annotation is read for them.

    Raises:
        InputError: no shards, a damaged one, an index of other shards; the message names file and member.
    """

    def __init__(self, folder: str | Path, *, taxonomy: Taxonomy | None = None) -> None:
        self.folder = Path(folder)
        index = _index(self.folder)
        if index is None:
            paths = sorted(self.folder.glob("*.tar"))
            if not paths:
                raise InputError(f"there are no tar shards in {self.folder}. Name the folder that holds them.")
            self._paths, self._offsets = paths, {i: _scan(path) for i, path in enumerate(paths)}
            counts = [len(found) - 1 for found in self._offsets.values()]
        else:
            self._offsets: dict[int, np.ndarray] = {}
            self._paths, counts = _shards(self.folder, index)
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        known = None if index is None else _taxonomy(index, self.folder / INDEX)
        self.taxonomy = taxonomy or known or self._collected()

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def shards(self) -> tuple[Path, ...]:
        """The shards, in their order."""
        return tuple(self._paths)

    @property
    def mix(self) -> Mix:
        """One part, whose blocks are the shards."""
        counts = np.diff(self._first)
        return Mix(np.zeros(len(self), np.int64), None, np.repeat(np.arange(len(counts)), counts))

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; ``InputError`` names shard and member where that is broken."""
        with self._opened(index) as sample:
            return sample.record(self.taxonomy)

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels; ``InputError`` names shard and member."""
        with self._opened(index) as sample:
            record = sample.record(self.taxonomy)
            return record, sample.picture(record.size)

    def write_index(self) -> None:
        """Write ``index.json``, which saves the next reader the scan."""
        counts = np.diff(self._first).tolist()
        write_index(self.folder, self._paths, counts, self.taxonomy)

    def _opened(self, index: int) -> _Sample:
        index = range(len(self))[index]
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        offsets = self._offsets.get(shard)
        if offsets is None:
            offsets = _scan(self._paths[shard])
            want = int(self._first[shard + 1] - self._first[shard])
            if len(offsets) - 1 != want:
                raise InputError(
                    f"{self._paths[shard]} has {len(offsets) - 1} samples, its index says {want}. "
                    f"Remove {self.folder / INDEX} to have it scanned anew."
                )
            self._offsets[shard] = offsets
        place = index - int(self._first[shard])
        return _Sample(self._paths[shard], int(offsets[place]), int(offsets[place + 1]))

    def _collected(self) -> Taxonomy:
        """The classes that annotations name, alphabetically."""
        names: set[str] = set()
        for index in range(len(self)):
            with self._opened(index) as sample:
                objects = sample.annotation().get("objects")
                for entry in objects if isinstance(objects, list) else ():
                    if isinstance(entry, dict) and isinstance(entry.get("class"), str):
                        names.add(entry["class"])
        return Taxonomy(names=tuple(sorted(names)))


def write_index(folder: Path, paths: list[Path], counts: list[int], taxonomy: Taxonomy) -> None:
    """Write the index of shards in ``folder``."""
    rows = [
        {"name": path.name, "samples": count, "bytes": path.stat().st_size}
        for path, count in zip(paths, counts, strict=True)
    ]
    write_json(folder / INDEX, {"version": VERSION, "classes": taxonomy.to_json(), "shards": rows}, indent=True)


class _Sample:
    """The members of one sample in an opened shard."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self.path = path
        self._file = _open(path)
        self._end = end
        try:
            found = [m for m in members(_reader(self._file), start, end, path, whole=False) if not is_meta(m.name)]
        except InputError:
            self._file.close()
            raise
        self.stem = split_name(found[0].name)[0] if found else "?"
        self._members = {split_name(member.name)[1]: member for member in found}

    def __enter__(self) -> _Sample:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def annotation(self) -> dict[str, Any]:
        """What the JSON member holds."""
        member = self._members.get("json")
        if member is None:
            raise InputError(f"{self.path}: sample {self.stem} has no annotation ({self.stem}.json)")
        if member.size > _LARGEST_TEXT:
            raise InputError(f"{self.path}: {member.name} has {member.size} bytes, too many for an annotation")
        try:
            value = orjson.loads(self._bytes(member))
        except orjson.JSONDecodeError as error:
            raise InputError(f"{self.path}: {member.name} is not JSON: {error}.") from error
        if not isinstance(value, dict):
            raise InputError(f"{self.path}: {member.name} must hold an object, got {type(value).__name__}")
        return value

    def record(self, taxonomy: Taxonomy) -> Record:
        """The sample's record."""
        maps = {
            ending: (self._members[ending].name, self._bytes(self._members[ending]))
            for ending in _MAPS
            if ending in self._members
        }
        picture = self._picture()
        return record_of(self.annotation(), taxonomy, self.path, self._members["json"].name, picture.name, maps)

    def picture(self, size: tuple[int, int]) -> Tensor:
        """uint8 [3, H, W] on ``size``."""
        member = self._picture()
        where = f"{self.path}: {member.name}"
        try:
            with Image.open(io.BytesIO(self._bytes(member))) as image:
                if sorted(image.size) != sorted(size):
                    got = f"{image.size[1]}x{image.size[0]}"
                    raise InputError(f"{where} must have {size[0]}x{size[1]} pixels (height x width), got {got}")
                out = to_picture(image)
        except InputError as error:
            raise error if str(error).startswith(where) else InputError(f"{where}: {error}") from error
        except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{where} cannot be read as a picture: {error}.") from error
        if tuple(out.shape[1:]) != size:
            got = f"{out.shape[1]}x{out.shape[2]}"
            raise InputError(f"{where} must have {size[0]}x{size[1]} pixels (height x width), got {got}")
        return out

    def _picture(self) -> Member:
        found = [member for ending, member in self._members.items() if ending in _PICTURES]
        if len(found) != 1:
            what = "no picture" if not found else f"{len(found)} pictures ({', '.join(m.name for m in found[:5])})"
            raise InputError(f"{self.path}: sample {self.stem} must have one picture, it has {what}")
        return found[0]

    def _bytes(self, member: Member) -> bytes:
        out = _reader(self._file)(member.offset, member.size)
        if len(out) != member.size:
            raise InputError(f"{self.path}: {member.name} breaks off. Is the archive complete?")
        return out


def _scan(path: Path) -> np.ndarray:
    """Where each sample of a shard begins, and where the last one ends: int64 [samples + 1]."""
    starts: list[int] = []
    seen: set[str] = set()
    endings: set[str] = set()
    last, end = None, 0
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        for member in members(_reader(file), 0, size, path):
            if is_meta(member.name):
                continue
            stem, ending = split_name(member.name)
            if stem != last:
                if stem in seen:
                    raise InputError(f"{path}: the members of {stem} must lie side by side, but {member.name} does not")
                seen.add(stem)
                starts.append(member.start)
                endings = set()
            if ending in endings:
                raise InputError(f"{path}: {member.name} is there twice")
            endings.add(ending)
            last, end = stem, member.end
    return np.array([*starts, end], np.int64)


def _open(path: Path) -> io.FileIO:
    try:
        return io.FileIO(path)
    except OSError as error:
        raise InputError(f"cannot read the shard {path}: {error.strerror or error}.") from error


def _reader(file: io.FileIO) -> Read:
    def read(offset: int, count: int) -> bytes:
        try:
            file.seek(offset)
            return file.read(count)
        except OSError as error:
            raise InputError(f"cannot read the shard {file.name}: {error.strerror or error}.") from error

    return read


def _index(folder: Path) -> Mapping[str, Any] | None:
    if not folder.is_dir():
        raise InputError(f"the folder of shards must be a directory, got {folder}")
    path = folder / INDEX
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("shards"), list):
        raise InputError(f"{path} is not an index of shards (version {VERSION}). Remove it to have them scanned.")
    return found


def _shards(folder: Path, index: Mapping[str, Any]) -> tuple[list[Path], list[int]]:
    paths: list[Path] = []
    counts: list[int] = []
    for row in index["shards"]:
        name, count = (row.get("name"), row.get("samples")) if isinstance(row, dict) else (None, None)
        plain = isinstance(name, str) and name == Path(name).name and name not in ("", ".", "..")
        if not plain or not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 1 << 40:
            raise InputError(f"{folder / INDEX}: a shard must have a name and a count of samples, got {str(row)[:120]}")
        path = folder / str(name)
        if not path.is_file():
            raise InputError(f"{folder / INDEX}: the shard {name} is not in {folder}")
        if path.stat().st_size != row.get("bytes"):
            raise InputError(
                f"{path} has {path.stat().st_size} bytes, its index says {row.get('bytes')}. Copy it again, or remove "
                f"{folder / INDEX} to have the shards scanned."
            )
        paths.append(path)
        counts.append(count)
    if not paths:
        raise InputError(f"{folder / INDEX} names no shards")
    return paths, counts


def _taxonomy(index: Mapping[str, Any], path: Path) -> Taxonomy | None:
    if index.get("classes") is None:
        return None
    try:
        return Taxonomy.from_json(index["classes"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: the classes cannot be read: {error}") from error
