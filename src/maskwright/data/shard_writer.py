"""A data set written as tar shards, in the form that ``data.shards`` describes and reads."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson
from PIL import Image

from maskwright.data.io import SUFFIXES
from maskwright.data.label_maps import resolve
from maskwright.data.shard_records import annotation_of, maps_of
from maskwright.data.shards import INDEX, write_index
from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.storage import replacing
from maskwright.structures import Record


def write_shards(
    source: Loads, folder: str | Path, *, samples_per_shard: int = 1000, name: str = "train"
) -> tuple[Path, ...]:
    """Write ``source`` as ``NAME-000000.tar``, ``NAME-000001.tar``, ... and ``index.json``; the shards' paths.

    Picture files are copied as they are; pictures that no file has (drawn ones) become PNG. Equal sources give equal
    bytes. A folder holds one split. Mix the images before: neighbors in a shard are read close together.

    Args:
        source: the data set.
        folder: where to write; created when missing.
        samples_per_shard: images in a shard; shards of 0.1 to 1 GB are read well.
        name: what the shards' names begin with.

    Raises:
        InputError: no images, ``folder`` has other shards or cannot be written, or a picture is missing.
    """
    folder = Path(folder)
    if samples_per_shard < 1 or not name or Path(name).name != name:
        raise InputError(f"shards need 1 or more samples and a plain name, got {samples_per_shard} and {name!r}")
    if len(source) == 0:
        raise InputError("shards need images to be written, got none")
    if folder.is_dir() and (any(folder.glob("*.tar")) or (folder / INDEX).exists()):
        raise InputError(f"{folder} has shards already. Choose an empty folder.")
    paths: list[Path] = []
    counts: list[int] = []
    for first in range(0, len(source), samples_per_shard):
        chosen = range(first, min(first + samples_per_shard, len(source)))
        path = folder / f"{name}-{len(paths):06d}.tar"
        with replacing(path) as beside, tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in chosen:
                for ending, data, size in _sample(source, index):
                    with data:
                        _add(archive, f"{index:09d}.{ending}", data, size)
        paths.append(path)
        counts.append(len(chosen))
    write_index(folder, paths, counts, source.taxonomy)
    return tuple(paths)


def _sample(source: Loads, index: int) -> Iterator[tuple[str, IO[bytes], int]]:
    record = resolve(source.record(index))
    yield _picture(source, record, index)
    members = {"json": orjson.dumps(annotation_of(record, source.taxonomy)), **maps_of(record, source.taxonomy)}
    for ending, data in members.items():
        yield ending, io.BytesIO(data), len(data)


def _picture(source: Loads, record: Record, index: int) -> tuple[str, IO[bytes], int]:
    ending = record.path.suffix.lower()
    if ending in SUFFIXES and record.path.is_file():
        try:
            return ending[1:], open(record.path, "rb"), record.path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read the picture {record.path}: {error.strerror or error}.") from error
    _, pixels = source.load(index)
    data = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(data, "png")
    size = data.tell()
    data.seek(0)
    return "png", data, size


def _add(archive: tarfile.TarFile, name: str, data: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, data)
