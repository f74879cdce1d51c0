"""Annotation formats: one small file each, recognized by what a folder or file holds.

A format's module has

- ``recognizes(path: Path) -> bool``: cheap, from names and the beginnings of files; never raises on a hostile file;
- ``read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset``;
- where writing makes sense, ``write(path: Path, dataset: Dataset) -> None``, annotations only, and, unless a reader
  looks for pictures at ``images/KEY`` (``images/SPLIT/KEY`` where there are splits), ``picture(root, split, record)``,
  which says where, or ``picture = None`` where the annotations hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.errors import InputError

if TYPE_CHECKING:  # the table is read for help, which must not wait for torch
    from maskwright.data.dataset import Dataset
    from maskwright.structures import Record


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table of formats."""

    name: str
    module: str
    title: str
    writes: bool = False

    def load(self) -> Any:
        """The format's module."""
        return import_module(f"maskwright.data.formats.{self.module}")


# More particular ones first: the first that recognizes a path reads it.
FORMATS: tuple[Format, ...] = (
    Format("lvis", "lvis", "LVIS (JSON)"),
    Format("coco-stuff", "coco_stuff", "COCO-Stuff (JSON or PNG)"),
    Format("coco-panoptic", "coco_panoptic", "COCO panoptic (JSON and PNG)", True),
    Format("coco", "coco_dataset", "COCO instances (JSON)", True),
    Format("segment-anything", "segment_anything", "Segment Anything (JSON)", True),
    Format("open-images", "open_images", "Open Images (CSV and PNG)"),
    Format("yolo", "yolo", "YOLO-seg (Ultralytics)", True),
    Format("scene-parsing", "scene_parsing", "ADE20K, 150 classes (PNG)"),
    Format("ade20k", "ade20k", "ADE20K, full releases (PNG)"),
    Format("voc", "voc", "Pascal VOC (XML and PNG)", True),
    Format("cvat", "cvat", "CVAT for images 1.1 (XML)", True),
    Format("cvat-video", "cvat_video", "CVAT for video 1.1 (XML, tracks)", True),
    Format("labelme", "labelme", "LabelMe (JSON)", True),
    Format("labelme-xml", "labelme_xml", "LabelMe of MIT (XML)"),
    Format("via", "via", "VGG Image Annotator (JSON, CSV)", True),
    Format("supervisely", "supervisely", "Supervisely", True),
    Format("label-studio", "label_studio", "Label Studio (JSON, JSON-MIN)", True),
    Format("cityscapes", "cityscapes", "Cityscapes (polygons, id PNGs)", True),
    Format("mapillary", "mapillary", "Mapillary Vistas 1.2, 2.0"),
    Format("virtual-kitti", "virtual_kitti", "Virtual KITTI 1, 2"),
    Format("kitti", "kitti", "KITTI semantic and instance"),
    Format("mots", "mots", "KITTI MOTS, MOTSChallenge", True),
    Format("synthia", "synthia", "SYNTHIA (RAND, RAND-CITYSCAPES, sequences, SF, AL)"),
    Format("camvid", "camvid", "CamVid"),
    Format("flying-things", "flying_things", "FlyingThings3D"),
    Format("ai2thor", "ai2thor", "AI2-THOR frames"),
    Format("davis", "davis", "DAVIS 2016, 2017"),
    Format("shards", "tar_shards", "tar shards (webdataset), pictures inside", True),
    Format("instance-pngs", "instance_pngs", "a mask PNG an object (Data Science Bowl)", True),
    Format("label-images", "label_images", "label images (microscopy)", True),
)


_ORDER = ("train", "val", "test")  # splits whose names hold these come first


def find(name: str, *, writes: bool = False) -> Format:
    """The format of a name; ``InputError`` lists those there are."""
    known = [f for f in FORMATS if f.writes or not writes]
    for row in known:
        if row.name == name:
            return row
    what = "written" if writes else "read"
    raise InputError(f"no format {name!r} can be {what}; there are: {', '.join(f.name for f in known)}")


def recognize(path: str | Path) -> Format:
    """Which format a file or folder is in.

    Raises:
        InputError: there is no such path, or no format knows it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}. Check its name.")
    for row in FORMATS:
        if row.load().recognizes(path):
            return row
    raise InputError(
        f"{path} is in no format that is known here ({', '.join(f.name for f in FORMATS)}). "
        "Name the folder that holds the annotations, or the format (--from)."
    )


def read(
    path: str | Path, format: str | None = None, *, images: str | Path | None = None, strict: bool = True
) -> Dataset:
    """Read a data set.

    Args:
        path: a file or folder of annotations.
        format: its format's name; by default it is recognized.
        images: the folder of the pictures, where they do not lie as the format has them.
        strict: refuse a data set with broken objects; otherwise they are left out and listed in ``dropped``.

    Raises:
        InputError: the path, the format or the annotations cannot be used.
    """
    row = recognize(path) if format is None else find(format)
    found: Dataset = row.load().read(Path(path), images=None if images is None else Path(images), strict=strict)
    order = sorted(
        found.splits, key=lambda name: next((i for i, part in enumerate(_ORDER) if part in name), len(_ORDER))
    )
    return replace(found, format=row.name, splits={name: found.splits[name] for name in order})


def place_of(row: Format) -> Callable[[Path, str, Record], Path] | None:
    """Where a written format has its pictures, ``(root, split, record) -> path``; ``None`` where it holds them."""
    return getattr(row.load(), "picture", _default_place)


def _default_place(root: Path, split: str, record: Record) -> Path:
    from maskwright.data.dataset import WHOLE

    return root / "images" / record.key if split == WHOLE else root / "images" / split / record.key


def _place_of_split(name: str) -> int:
    return next((i for i, part in enumerate(_ORDER) if part in name), len(_ORDER))


def write(path: str | Path, dataset: Dataset, format: str, **options: Any) -> None:
    """Write the annotations of a data set.

    Args:
        path: the folder, or file, to write.
        dataset: what to write.
        format: a name of a format that is written.
        options: what the format's own ``write`` takes besides, such as ``overlap="cover"``.

    Raises:
        InputError: the format is not written, cannot hold what the data set has, or ``path`` cannot be written.
    """
    writer = find(format, writes=True).load().write
    unknown = [name for name in options if name not in signature(writer).parameters]
    if unknown:
        raise InputError(f"the format {format} has no option {', '.join(unknown)}")
    writer(Path(path), dataset, **options)
