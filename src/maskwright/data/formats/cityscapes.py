"""Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_*`` (or ``gtCoarse``).

Objects come from ``instanceIds`` (value = class * 1000 + number; below 1000 a class, and for a class with instances a
group that is not told apart: crowd); classes from ``labelIds``, else ``labelTrainIds``, else ``instanceIds``, else
``color``. Where there is no ``instanceIds``, ``polygons.json`` is drawn as the data set's own tool (json2instanceImg)
draws it: in file order, later over earlier, with PIL's polygons; a name ending in ``group`` is a crowd, deleted and
unnumbered labels are left out.

The records hold things as objects and the classes of all pixels as ``semantic``; ``data.tasks.to_panoptic`` makes the
panoptic segments that the data set's own tool (createPanopticImgs) makes of ``instanceIds``.

Source: https://github.com/mcordts/cityscapesScripts (README, "Dataset Structure").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats import maps, maps_out
from maskwright.data.formats.build import Builder
from maskwright.data.formats.cityscapes_labels import BY_ID, Classes, labels_of, taxonomy_of
from maskwright.data.formats.cityscapes_polygons import draw_polygons, polygons_of
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import write_json
from maskwright.structures import LabelMap, Record, Taxonomy

_KINDS = ("gtFine", "gtCoarse")
_PICTURE = "_leftImg8bit"
_RADIX = 1000
_PARTS = ("instanceIds.png", "labelIds.png", "labelTrainIds.png", "color.png", "polygons.json")


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder that holds ``gtFine`` or ``gtCoarse`` with such files, or is one of them."""
    patterns = [f"{deep}*_{kind}_{part}" for kind in _KINDS for part in _PARTS for deep in ("*/*/", "*/", "")]
    return any(maps.holds(folder, *patterns) for _, folder in _ground(path))


def read(
    path: Path, *, images: Path | None = None, strict: bool = True, classes: Classes = "evaluated"
) -> Dataset:  # fmt: skip
    """Read all splits: the folders of ``gtFine`` and of ``leftImg8bit``.

    Args:
        path: the folder of the data set, or its ``gtFine`` (then ``leftImg8bit`` lies beside it).
        images: a folder instead of ``leftImg8bit``.
        strict: as in ``formats.read``.
        classes: ``evaluated`` for the 19 classes, other pixels void and other objects left out; ``all`` for all 34,
            ``unlabeled`` too.

    Returns:
        keys are file names below the split's folder without ``_leftImg8bit``. A split named ``test...`` or without any
        labels has pictures only. Classes drawn from polygons lie in memory, 2 bytes a pixel: keep ``labelIds``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, or objects cannot be used.
    """
    grounds = _ground(path)
    if not grounds:
        raise InputError(f"{path} holds neither gtFine nor gtCoarse. Name the folder of the Cityscapes data set.")
    root = path if path.is_dir() and path.name not in _KINDS else grounds[0][1].parent
    pictures_at = root / "leftImg8bit" if images is None else images
    rows = labels_of(classes)
    build = Builder(path, "cityscapes", taxonomy_of(classes), strict=strict)
    reader = _Reader(build, {row.ident: label for label, row in enumerate(rows)}, classes)
    done: set[str] = set()
    splits = list(dict.fromkeys(p.name for _, folder in [*grounds, ("", pictures_at)] for p in maps.folders(folder)))
    for split in splits:
        for kind, folder in grounds:
            found = _annotations(folder / split, kind)
            if split not in done and (found or kind == grounds[-1][0]):
                done.add(split)
                _read_split(reader, split, pictures_at / split, found)
    return build.done()


def picture(root: Path, split: str, record: Record) -> Path:
    """Where a record's picture belongs in the folder that ``write`` made."""
    return root / "leftImg8bit" / split / f"{maps_out.stem_of(record.key)}{_PICTURE}{Path(record.key).suffix or '.png'}"


def write(path: Path, dataset: Dataset, *, overlap: maps_out.Overlap = "refuse") -> None:
    """Write ``gtFine``: instance and class PNGs, and polygons that draw to the same pixels.

    Args: path: the data set's folder. dataset: its class names must be names of Cityscapes. Objects of stuff are
    painted as their class; things that the semantic map has where no object is become groups of their class, and crowd
    regions of one class one group. overlap: whether objects that overlap are refused.

    Raises:
        InputError: a class that Cityscapes does not have, more than 999 objects of a picture, boxes without outlines,
            objects that overlap; counted, before anything is written.
    """
    taxonomy = dataset.taxonomy
    known = {row.name: row for row in labels_of("all")}
    unknown = [name for name in taxonomy.names if name not in known]
    if unknown:
        shown = ", ".join(unknown[:5])
        raise InputError(
            f"{path}: Cityscapes does not have {len(unknown)} of the classes: {shown}. Rename them first (remap)."
        )
    maps_out.check(path, dataset, overlap=overlap, crowd=True, most=_RADIX - 1)
    maps_out.check_stems(path, dataset)
    idents = np.array([known[name].ident for name in taxonomy.names], np.int64)
    for split in dataset.splits:
        (path / "gtFine" / split).mkdir(parents=True, exist_ok=True)
    for split, record in maps_out.records(dataset):
        base = path / "gtFine" / split / f"{maps_out.stem_of(record.key)}_gtFine_"
        ids = instance_ids(record, taxonomy, idents)
        label_ids = np.where(ids >= _RADIX, ids // _RADIX, ids)
        maps_out.save_map(base.with_name(base.name + "instanceIds.png"), ids)
        maps_out.save_map(base.with_name(base.name + "labelIds.png"), label_ids)
        write_json(base.with_name(base.name + "polygons.json"), polygons_of(ids))


def instance_ids(record: Record, taxonomy: Taxonomy, idents: np.ndarray) -> np.ndarray:
    """The map of a resolved record, int64 [H, W]: class ids, and for things class * 1000 + number from 0 in order."""
    out = np.zeros(record.size, np.int64)
    if isinstance(record.semantic, np.ndarray):
        out = np.where(record.semantic >= 0, np.append(idents, 0)[record.semantic], 0)
    values = np.zeros(len(record), np.int64)
    met: dict[int, int] = {}
    for i, label in enumerate(record.labels.tolist()):
        values[i] = idents[label]
        if taxonomy.thing[label] and not record.crowd[i] and BY_ID[int(idents[label])].instances:
            values[i] = values[i] * _RADIX + met.setdefault(label, 0)
            met[label] += 1
    over = maps_out.painted(record, values, background=-1)
    return np.where(over >= 0, over, out)


class _Reader:
    """Reads the maps of one picture after the other; what they share."""

    def __init__(self, build: Builder, label_of: Mapping[int, int], classes: Classes) -> None:
        self.build, self.label_of = build, label_of
        rows = labels_of(classes)
        self.trains = {row.train: label for label, row in enumerate(rows) if not row.ignored}
        self.colors = {maps.rgb_value(row.color): label for label, row in reversed([*enumerate(rows)])}
        self.complete = classes == "all"

    def image(self, key: str, split: str, picture: Path, parts: Mapping[str, Path]) -> None:
        size = image_size(picture)
        numbers = None
        if "instanceIds.png" in parts:
            numbers = maps.read_flat(parts["instanceIds.png"], size)
        elif "polygons.json" in parts:
            numbers = draw_polygons(self.build, parts["polygons.json"], size)
        values = np.zeros(0, np.int64) if numbers is None else maps.present(numbers)
        own = {
            int(v): self.label_of[c]
            for v in values
            if (c := int(v) // _RADIX if v >= _RADIX else int(v)) in self.label_of
        }
        semantic: LabelMap | np.ndarray | None = None
        if "labelIds.png" in parts:
            semantic = LabelMap(path=parts["labelIds.png"], classes=self.label_of)
        elif "labelTrainIds.png" in parts and not self.complete:
            semantic = LabelMap(path=parts["labelTrainIds.png"], classes=self.trains)
        elif "instanceIds.png" in parts:
            semantic = LabelMap(path=parts["instanceIds.png"], classes=own)
        elif numbers is not None:
            semantic = maps.lookup(numbers, own)
        elif "color.png" in parts:
            semantic = LabelMap(path=parts["color.png"], form="rgb", classes=self.colors)
        self.build.image(key, picture, size, split=split, semantic=semantic)
        if numbers is not None:
            file = parts.get("instanceIds.png") or parts["polygons.json"]
            maps.add_objects(self.build, numbers, self._meaning, str(file), values)

    def _meaning(self, value: int) -> maps.Meaning | None:
        ident = value // _RADIX if value >= _RADIX else value
        row = BY_ID.get(ident)
        if row is None or not row.instances or ident not in self.label_of:
            return None
        return maps.Meaning(row.name, crowd=value < _RADIX)


def _ground(path: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of the annotations below or at a path."""
    if path.name in _KINDS and path.is_dir():
        return [(path.name, path)]
    return [(kind, path / kind) for kind in _KINDS if (path / kind).is_dir()]


def _annotations(folder: Path, kind: str) -> dict[str, dict[str, Path]]:
    """Name below the split -> part -> file."""
    out: dict[str, dict[str, Path]] = {}
    for name, path in [*maps.files(folder, (".png",)).items(), *maps.files(folder, (".json",)).items()]:
        for part in _PARTS:
            ending = f"_{kind}_{part}"
            if path.name.endswith(ending):
                base = name[: len(name) + len(path.suffix) - len(ending)]
                out.setdefault(base, {})[part] = path
    return out


def _read_split(reader: _Reader, split: str, folder: Path, found: Mapping[str, Mapping[str, Path]]) -> None:
    pictures = {name.removesuffix(_PICTURE): file for name, file in maps.files(folder).items()}
    best = {name: next(iter(parts.values())) for name, parts in found.items()}
    for name, file, labels in maps.paired(reader.build, pictures, best, split):
        reader.image(f"{name}{file.suffix}", split, file, found[name] if labels is not None else {})
