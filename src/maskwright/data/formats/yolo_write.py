"""YOLO-seg written: ``data.yaml`` and a label file an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import inside_folder
from maskwright.data.formats.pictures import stem
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.storage import replacing
from maskwright.structures import Record, Shape

RESERVED = ("path", "names", "nc", "download")
"""Keys of ``data.yaml`` that are no splits."""


def write(path: Path, dataset: Dataset) -> None:
    """Write ``data.yaml`` and ``labels/SPLIT``; pictures belong in ``images/SPLIT``.

    A row holds one ring. Parts and holes are joined to it by cuts of no width, so that every rule that fills by
    crossings gives the same pixels back. Polygons are written as they are where that is so; those that leave the
    picture or overlap themselves become outlines of their pixels. Boxes are cut off at the border. Objects without an
    outline become rows of boxes.

    Regions of many objects (crowd) are left out, as Ultralytics' own conversion of COCO does: as rows they would be
    objects. Ids, areas and colors have no place. ``train`` and ``val``, which Ultralytics asks for, name other splits
    where there are none of these names.

    Raises:
        InputError: two images of a split differ in their ending only; a box lies outside its picture; there are class
            maps but no objects.
    """
    root = path.parent if path.suffix.lower() in (".yaml", ".yml") else path
    sources = dataset.splits.values()
    records = [source.record(i) for source in sources for i in range(min(len(source), 50))]
    if (
        records
        and not any(map(len, records))
        and any(r.semantic is not None or r.panoptic is not None for r in records)
    ):
        raise InputError("YOLO holds objects, and this data set has maps of classes only. Convert it first.")
    for split, source in dataset.splits.items():
        if split in RESERVED:
            raise InputError(f"{path}: {split} means something else in a data.yaml. Rename the split.")
        (root / "images" / inside_folder(split, path)).mkdir(parents=True, exist_ok=True)
        seen: set[str] = set()
        for index in range(len(source)):
            record = resolve(source.record(index))
            name = stem(inside_folder(record.key, path))
            if name in seen:
                raise InputError(f"{path}: two images of {split} would share {name}.txt. Rename one of them.")
            seen.add(name)
            with replacing(root / "labels" / split / f"{name}.txt") as beside:
                beside.write_text("".join(f"{row}\n" for row in _rows(record)), "ascii")
    places = {split: f"images/{split}" for split in dataset.splits}
    first = list(places.values())
    data = {
        "train": places.get("train", first[0] if first else "images"),
        "val": places.get("val", first[-1] if first else "images"),
        **places,
        "names": dict(enumerate(dataset.taxonomy.names)),
    }
    with replacing(path if path != root else root / "data.yaml") as beside:
        beside.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), "utf-8")


def picture(root: Path, split: str, record: Record) -> Path:
    """Where the picture of an image belongs: ``images/SPLIT``, beside ``data.yaml`` where ``root`` names that."""
    folder = root.parent if root.suffix.lower() in (".yaml", ".yml") else root
    return folder / "images" / split / record.key


def _rows(record: Record) -> list[str]:
    height, width = record.size
    scale = np.array((width, height), np.float64)
    rows: list[str] = []
    for i, shape in enumerate(record.shapes):
        if record.crowd[i]:
            continue
        if shape is None:
            low, high = np.clip(record.boxes[i].astype(np.float64).reshape(2, 2), 0, scale)
            if not (high > low).all():
                raise InputError(f"{record.key}: object {record.ids[i]} lies outside its picture. Remove it first.")
            values = np.concatenate([(low + high) / 2 / scale, (high - low) / scale])
        else:
            values = (one_ring(shape, record.size) / scale).reshape(-1)
        rows.append(" ".join([str(int(record.labels[i])), *map(repr, values.tolist())]))
    return rows


def one_ring(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """An outline as a single ring float64 [K, 2] within the picture that fills to the same pixels."""
    if isinstance(shape, tuple):
        ring = _joined(shape)
        inside = ring.min() >= 0 and (ring.max(axis=0) <= np.array(size[::-1])).all()
        runs = polygons.rasterize(list(shape), size)
        if inside and (len(shape) == 1 or np.array_equal(polygons.rasterize([ring], size), runs)):
            return ring
        if runs[1::2].sum() == 0:
            return np.clip(ring, 0, np.array(size[::-1], np.float64))
    else:
        assert isinstance(shape, dict)
        runs = rle.from_coco([shape], size)[0]
    return _joined(polygons.outlines(runs, size))


def _joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Walk every ring in turn, then back over the first corners: each cut between rings is walked both ways."""
    if len(rings) == 1:
        return np.asarray(rings[0], np.float64)
    closed = [np.concatenate([ring, ring[:1]]) for ring in rings]
    back = [ring[:1] for ring in reversed(rings[1:-1])]
    return np.concatenate([*closed, *back]).astype(np.float64)
