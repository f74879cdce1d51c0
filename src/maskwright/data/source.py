"""Sources: data sets that give records without pixels, pixels on demand, and samples of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from maskwright.data.io import image_size, read_image
from maskwright.data.label_maps import resolve
from maskwright.data.rasterize import scene_of
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.structures import Geometry, Record, Sample, Taxonomy


@runtime_checkable
class Loads(Protocol):
    """What training needs of a data set (``protocols.Source`` has it too): records, and records with pixels."""

    taxonomy: Taxonomy

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""
        ...

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels, uint8 [3, H, W] on the record's size."""
        ...


class Base(ABC):
    """What every source shares: a sample is a record whose shapes lie as masks on its unresized pixels."""

    taxonomy: Taxonomy

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels.

        Raises:
            InputError: the pixels cannot be read, or are not of the size the record states; the message names the file.
        """
        record = self.record(index)
        image = read_image(record.path)
        _check_size(record, (int(image.shape[1]), int(image.shape[2])))
        return record, image

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with its pixels and its scene, unresized."""
        record, image = self.load(index)
        return Sample(key=record.key, image=image, scene=scene_of(record), geometry=Geometry.identity(record.size))


class FileSource(Base):
    """Images in files, their annotations in a table."""

    def __init__(self, table: Table, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.table = table

    @classmethod
    def from_records(cls, records: Iterable[Record], taxonomy: Taxonomy) -> FileSource:
        """A source of records made elsewhere."""
        table = Table()
        for record in records:
            table.add_record(record)
        return cls(table, taxonomy)

    def __len__(self) -> int:
        return len(self.table)

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""
        return self.table.record(index)

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image as annotated, int32 [n, 2]."""
        return self.table.sizes

    @property
    def image_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """As the function ``image_labels``."""
        kept = ~np.array(self.table._crowd, bool)
        before = np.concatenate([[0], np.cumsum(kept)])
        return before[np.array(self.table._first_object, np.int64)], np.array(self.table._labels, np.int64)[kept]

    def check_sizes(self) -> None:
        """Read every image's header and compare; ``InputError`` names the first file that disagrees."""
        for index in range(len(self)):
            record = self.record(index)
            _check_size(record, image_size(record.path))


class CachedSource(Base):
    """A source whose decoded pixels stay in memory, read once, before worker processes start.

    Workers forked afterwards share the memory. Images beyond ``limit`` bytes are read from disk whenever they are asked
    for. Where a record has outlines or labels in map files, what they decode to is kept too.
    """

    def __init__(self, source: Loads, limit: int = 4 << 30) -> None:
        self.taxonomy = source.taxonomy
        self.source = source
        self._images: list[Tensor | None] = []
        self._resolved = Table()  # flat arrays, which forked workers do not copy
        self._place = np.full(len(source), -1, np.int64)
        self._panoptic: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        used = 0
        for index in range(len(source)):
            height, width = source.record(index).size
            need = 3 * height * width
            if used + need > limit:
                self._images.append(None)
                continue
            record, image = source.load(index)
            used += need
            self._images.append(image)
            whole = resolve(record)
            if whole is not record:
                used += self._keep(index, whole)

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""
        place = int(self._place[index])
        if place < 0:
            return self.source.record(index)
        record = self._resolved.record(place)
        if place in self._panoptic:
            ids, positions = self._panoptic[place]
            record = replace(record, panoptic=ids[positions])
        return record

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels, which the caller must not write to."""
        image = self._images[index]
        return self.source.load(index) if image is None else (self.record(index), image)

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image, int [n, 2]."""
        return image_sizes(self.source)

    @property
    def image_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """As the function ``image_labels``."""
        return image_labels(self.source)

    @property
    def mix(self) -> Mix:
        """As the function ``mix``."""
        return mix(self.source)

    def _keep(self, index: int, record: Record) -> int:
        """Note a resolved record; how many bytes its maps and run-lengths take."""
        place = len(self._resolved)
        self._place[index] = place
        used = sum(len(shape["counts"]) for shape in record.shapes if isinstance(shape, dict))
        if isinstance(record.semantic, np.ndarray):
            used += record.semantic.nbytes
        if isinstance(record.panoptic, np.ndarray):
            # One or two bytes a pixel instead of eight.
            ids, positions = np.unique(record.panoptic, return_inverse=True)
            small = positions.reshape(record.size).astype(np.min_scalar_type(len(ids)))
            self._panoptic[place] = (ids, small)
            used += small.nbytes
            record = replace(record, panoptic=None)
        self._resolved.add_record(record)
        return used


class MixedSource(Base):
    """Several sources one after the other, drawn from at the given weights; all share one taxonomy.

    The weights say which fraction of what a sampler draws comes from each source, whatever the sources' lengths;
    ``Shuffled(source, ...)`` honors them. Without weights every image is drawn equally often. A mix of mixes is
    one mix.

    Raises:
        InputError: no sources, an empty one, weights that are not positive, or class names that differ.
    """

    def __init__(self, sources: Sequence[Loads], weights: Sequence[float] | None = None) -> None:
        if not sources or min(len(s) for s in sources) == 0:
            raise InputError(f"mixing needs sources with images, got lengths {[len(s) for s in sources]}")
        self.sources = tuple(sources)
        self.taxonomy = sources[0].taxonomy
        for i, source in enumerate(sources):
            if source.taxonomy.names != self.taxonomy.names:
                raise InputError(
                    "sources to mix must have the same classes in the same order, but source 0 has "
                    f"{_few(self.taxonomy.names)} and source {i} {_few(source.taxonomy.names)}. Remap one of them."
                )
        lengths = [len(source) for source in sources]
        given = list(lengths if weights is None else weights)
        if len(given) != len(sources) or not all(np.isfinite(w) and w > 0 for w in given):
            raise InputError(f"weights must be one positive number for each of {len(sources)} sources, got {given}")
        self._given = None if weights is None else tuple(float(w) / sum(given) for w in given)
        self._starts = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""
        source, local = self._locate(index)
        return source.record(local)

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels."""
        source, local = self._locate(index)
        return source.load(local)

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image, int [n, 2]."""
        return np.concatenate([image_sizes(source) for source in self.sources])

    @property
    def image_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """As the function ``image_labels``."""
        found = [image_labels(source) for source in self.sources]
        counts = np.concatenate([np.diff(first) for first, _ in found])
        return np.concatenate([[0], np.cumsum(counts)]), np.concatenate([labels for _, labels in found])

    @property
    def mix(self) -> Mix:
        """As the function ``mix``."""
        found = [mix(source) for source in self.sources]
        counts = [len(m.shares) if m.shares is not None else int(m.parts.max()) + 1 for m in found]
        parts = [m.parts + sum(counts[:i]) for i, m in enumerate(found)]
        shares: np.ndarray | None = None
        if self._given is not None or any(m.shares is not None for m in found):
            outer = np.diff(self._starts) / self._starts[-1] if self._given is None else np.array(self._given)
            inner = [m.shares if m.shares is not None else np.bincount(m.parts) / len(m.parts) for m in found]
            shares = np.concatenate([o * i for o, i in zip(outer, inner, strict=True)])
        blocks: np.ndarray | None = None
        if any(m.blocks is not None for m in found):
            ends = np.cumsum([0] + [0 if m.blocks is None else int(m.blocks.max()) + 1 for m in found])
            blocks = np.concatenate(
                [
                    np.full(len(m.parts), -1) if m.blocks is None else np.where(m.blocks < 0, -1, m.blocks + ends[i])
                    for i, m in enumerate(found)
                ]
            )
        return Mix(np.concatenate(parts), shares, blocks)

    def _locate(self, index: int) -> tuple[Loads, int]:
        index = range(len(self))[index]
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[which], index - int(self._starts[which])


class Subset(Base):
    """A view of some images of a source, in the order of ``indices``; ``IndexError`` where one is not among them."""

    def __init__(self, source: Loads, indices: Sequence[int] | np.ndarray) -> None:
        self.taxonomy, self.source = source.taxonomy, source
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(source))]
        if len(outside):
            raise IndexError(f"images must be chosen from 0..{len(source) - 1}, got {outside[:5].tolist()}")

    def __len__(self) -> int:
        return len(self.indices)

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``; reads no pixels."""
        return self.source.record(int(self.indices[index]))

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of image ``index`` and its pixels."""
        return self.source.load(int(self.indices[index]))

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image, int [n, 2]."""
        return image_sizes(self.source)[self.indices]

    @property
    def image_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """As the function ``image_labels``."""
        first, labels = image_labels(self.source)
        counts = np.diff(first)[self.indices]
        ends = np.concatenate([[0], np.cumsum(counts)])
        chosen = np.arange(ends[-1]) + np.repeat(first[self.indices] - ends[:-1], counts)
        return ends, labels[chosen]

    @property
    def mix(self) -> Mix:
        """As the function ``mix``."""
        found = mix(self.source)
        blocks = None if found.blocks is None else found.blocks[self.indices]
        return Mix(found.parts[self.indices], found.shares, blocks)


class Mix(NamedTuple):
    """What an order must know of how a source is put together.

    Attributes:
        parts: int64 [n], which part each image belongs to.
        shares: float64 [parts], how much of what is drawn comes from each; ``None``: as many as there are images.
        blocks: int64 [n], which block (shard) each image is read from, -1 where any order is as good; ``None`` for all.
    """

    parts: np.ndarray
    shares: np.ndarray | None = None
    blocks: np.ndarray | None = None


def image_sizes(source: Loads) -> np.ndarray:
    """(H, W) of every image, int [n, 2], without building records where the source knows them."""
    known = getattr(source, "sizes", None)
    if known is not None:
        return np.asarray(known)
    return np.array([source.record(i).size for i in range(len(source))], np.int64).reshape(-1, 2)


def image_labels(source: Loads) -> tuple[np.ndarray, np.ndarray]:
    """The labels on every image, crowd left out: int64 [n + 1] and int64 [objects]; image i has first[i]:first[i + 1].

    Without building records where the source knows them (its property of this name); never reads pixels.
    """
    known = getattr(source, "image_labels", None)
    if known is not None:
        return known
    found: list[np.ndarray] = []
    for i in range(len(source)):
        record = source.record(i)
        found.append(record.labels[~record.crowd])
    first = np.concatenate([[0], np.cumsum([len(labels) for labels in found], dtype=np.int64)]).astype(np.int64)
    return first, np.concatenate([np.zeros(0, np.int64), *found])


def mix(source: Loads) -> Mix:
    """Of which parts and blocks a source is made: its property of this name, or one part without blocks."""
    known = getattr(source, "mix", None)
    return Mix(np.zeros(len(source), np.int64)) if known is None else known


def _check_size(record: Record, got: tuple[int, int]) -> None:
    if got == record.size:
        return
    hint = "The annotation is for another picture."
    if got == record.size[::-1]:
        hint = "It seems annotated before its EXIF orientation was applied: save the picture upright, without the tag."
    raise InputError(
        f"{record.path}: the annotation is for {record.size[0]}x{record.size[1]} pixels (height x width), "
        f"the picture has {got[0]}x{got[1]}. {hint}"
    )


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
