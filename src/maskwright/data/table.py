"""``Table``: the records of a data set in a few flat arrays.

A million objects as Python dictionaries cost gigabytes, and reference counting makes every worker process copy them.
In flat arrays they cost what their numbers cost and stay shared after a fork. Records are views cut out on demand.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from maskwright.structures import LabelMap, MapForm, Record, Region, Shape

_UNKNOWN, _POLYGONS, _RUNS, _REGION = 0, 1, 2, 3
_REGION_FORM = Struct("<q?q")  # which map, whether it asks for a value, the value


class Table:
    """Records in columns, built image by image with ``add_image`` and ``add_object``, then read with ``record``.

    Objects belong to the image added last.
    """

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._paths: list[Path] = []
        self._image_ids = array("q")
        self._sizes = array("i")
        self._first_object = array("q", [0])
        self._labels, self._ids, self._areas = array("i"), array("q"), array("d")
        self._boxes, self._crowd, self._kinds = array("f"), array("b"), array("b")
        self._first_part = array("q", [0])  # of an object, in the parts
        self._first_value = array("q", [0])  # of a part (one polygon), in the points
        self._points = array("d")
        self._first_byte = array("q", [0])  # of an object, in the run-lengths
        self._bytes = bytearray()
        self._tracks = array("q")
        self._timed = False
        self._maps: dict[tuple[Path, MapForm], int] = {}
        self._map_list: list[tuple[Path, MapForm]] = []
        self._extras: dict[int, dict[str, Any]] = {}  # what few data sets have, by image

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def objects(self) -> int:
        """How many objects there are in all."""
        return len(self._labels)

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image, int32 [n, 2]."""
        return np.array(self._sizes, np.int32).reshape(-1, 2)

    @property
    def image_ids(self) -> np.ndarray:
        """The images' numbers in their file, int64 [n]."""
        return np.array(self._image_ids, np.int64)

    @property
    def class_counts(self) -> dict[int, int]:
        """Dense label -> how many objects have it, for the labels in use."""
        labels, counts = np.unique(np.array(self._labels, np.int32), return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    @property
    def paths(self) -> Sequence[Path]:
        """Where each image's pixels are."""
        return self._paths

    def relabel(self, labels: np.ndarray) -> None:
        """Give every object with label ``i`` the label ``labels[i]``."""
        if self.objects:
            self._labels = array("i", np.asarray(labels, np.int32)[np.array(self._labels)].tobytes())

    def add_image(
        self,
        key: str,
        path: Path,
        size: tuple[int, int],
        image_id: int,
        *,
        sequence: str | None = None,
        frame: int | None = None,
        semantic: LabelMap | np.ndarray | None = None,
        panoptic: LabelMap | np.ndarray | None = None,
    ) -> None:
        """Begin an image of ``size`` (H, W); the rest as in ``Record``."""
        extras = {"sequence": sequence, "frame": frame, "semantic": semantic, "panoptic": panoptic}
        extras = {name: value for name, value in extras.items() if value is not None}
        if extras:
            self._extras[len(self)] = extras
        self._keys.append(key)
        self._paths.append(path)
        self._sizes.extend(size)
        self._image_ids.append(image_id)
        self._first_object.append(self.objects)

    def add_object(
        self, *, label: int, shape: Shape, box: Iterable[float], crowd: bool, ident: int, area: float,
        track: int | None = None,
    ) -> None:  # fmt: skip
        """Add an object to the image begun last; ``box`` is (x1, y1, x2, y2).

        ``track`` is its identity over time, -1 where it has none; ``None`` where there is no time.
        """
        self._labels.append(label)
        self._boxes.extend(box)
        self._crowd.append(crowd)
        self._ids.append(ident)
        self._areas.append(area)
        self._timed |= track is not None
        self._tracks.append(-1 if track is None else track)
        kind = _UNKNOWN
        if isinstance(shape, dict):
            kind, counts = _RUNS, shape["counts"]
            self._bytes += counts.encode("ascii") if isinstance(counts, str) else counts
        elif isinstance(shape, Region):
            kind = _REGION
            self._bytes += _REGION_FORM.pack(self._map(shape.path, shape.form), shape.value is None, shape.value or 0)
        elif shape is not None:
            kind = _POLYGONS
            for polygon in shape:
                self._points.frombytes(np.ascontiguousarray(polygon, np.float64).tobytes())
                self._first_value.append(len(self._points))
        self._kinds.append(kind)
        self._first_part.append(len(self._first_value) - 1)
        self._first_byte.append(len(self._bytes))
        self._first_object[-1] = self.objects

    def add_record(self, record: Record) -> None:
        """Add an image with all its objects."""
        self.add_image(
            record.key, record.path, record.size, record.image_id, sequence=record.sequence, frame=record.frame,
            semantic=record.semantic, panoptic=record.panoptic,
        )  # fmt: skip
        for i, shape in enumerate(record.shapes):
            self.add_object(
                label=int(record.labels[i]),
                shape=shape,
                box=record.boxes[i].tolist(),
                crowd=bool(record.crowd[i]),
                ident=int(record.ids[i]),
                area=float(record.areas[i]),
                track=None if record.tracks is None else int(record.tracks[i]),
            )

    def record(self, index: int) -> Record:
        """Image ``index`` (negative counts from the end); ``IndexError`` outside."""
        index = range(len(self))[index]
        first, last = self._first_object[index], self._first_object[index + 1]
        size = (self._sizes[2 * index], self._sizes[2 * index + 1])
        return Record(
            key=self._keys[index],
            path=self._paths[index],
            size=size,
            labels=np.array(self._labels[first:last], np.int64),
            shapes=tuple(self._shape(i, size) for i in range(first, last)),
            boxes=np.array(self._boxes[4 * first : 4 * last], np.float32).reshape(-1, 4),
            crowd=np.array(self._crowd[first:last], bool),
            ids=np.array(self._ids[first:last], np.int64),
            areas=np.array(self._areas[first:last], np.float64),
            image_id=self._image_ids[index],
            tracks=np.array(self._tracks[first:last], np.int64) if self._timed else None,
            **self._extras.get(index, {}),
        )

    def _shape(self, i: int, size: tuple[int, int]) -> Shape:
        kind = self._kinds[i]
        if kind == _RUNS:
            return {"size": size, "counts": bytes(self._bytes[self._first_byte[i] : self._first_byte[i + 1]])}
        if kind == _REGION:
            which, whole, value = _REGION_FORM.unpack(self._bytes[self._first_byte[i] : self._first_byte[i + 1]])
            path, form = self._map_list[which]
            return Region(path, form, None if whole else value)
        if kind == _POLYGONS:
            bounds = self._first_value[self._first_part[i] : self._first_part[i + 1] + 1]
            return tuple(np.array(self._points[a:b], np.float64).reshape(-1, 2) for a, b in pairwise(bounds))
        return None

    def _map(self, path: Path, form: MapForm) -> int:
        """The number of a map file; objects that share it share its name."""
        number = self._maps.setdefault((path, form), len(self._map_list))
        if number == len(self._map_list):
            self._map_list.append((path, form))
        return number
