"""The first LabelMe (MIT): ``Annotations/FOLDER/NAME.xml``, ``Images/FOLDER/NAME.jpg``, ``Masks/FOLDER``.

Format: https://github.com/CSAILVision/LabelMeAnnotationTool (B. C. Russell et al., "LabelMe", IJCV 2008). Polygons and
segmentations (masks in files) are outlines, polygons of type ``bounding_box`` are boxes without an outline. Deleted
objects are left out. Parts (a wheel of a car) are objects of their own; that they are parts is not kept.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import read_xml
from maskwright.structures import Shape

_SPLITS = ("train", "val", "test")
_LOOKED_AT = 1 << 12


def recognizes(path: Path) -> bool:
    """A folder with ``Annotations`` (or an XML) whose first XML has LabelMe's objects."""
    try:
        if path.is_file():
            return _looks_right(path)
        found = next((path / "Annotations").rglob("*.xml"), None)
        found = min(path.glob("*.xml"), default=None) if found is None else found
        return found is not None and _looks_right(found)
    except OSError:
        return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a folder with ``Annotations`` and ``Images``, or a folder of XML files beside their pictures, or one XML.

    Folders named after train, val or test are splits; others are part of the pictures' names.

    Raises:
        InputError: there is no such file; one is not of this format; pictures are missing; objects are broken (a mask
            file is missing among them) and ``strict``.
    """
    root, files = _files(path)
    base = root / "Annotations" if (root / "Annotations").is_dir() else root
    pictures = [root / "Images", root] if images is None else [images]
    build = Builder(path, "labelme-xml", strict=strict)
    left: dict[str, list[str]] = {}
    missing: list[str] = []
    for file in files:
        tree = read_xml(file)
        if tree.tag != "annotation":
            raise InputError(f"{file} is not a LabelMe file: its root must be annotation, got {tree.tag[:60]}.")
        name = inside_folder((tree.findtext("filename") or "").strip(), file)
        folder = file.parent.relative_to(base).as_posix()
        key = name if folder == "." else f"{folder}/{name}"
        found = next((r / k for r in pictures for k in (key, name) if (r / k).is_file()), None)
        if found is None:
            missing.append(key)
            continue
        first, _, rest = key.partition("/")
        split = first if rest and any(word in first.lower() for word in _SPLITS) else WHOLE
        size = _size(tree, file) or image_size(found)
        build.image(rest if split != WHOLE else key, found, size, split=split)
        masks = [root / "Masks" / folder, file.parent / "Masks", file.parent]
        for position, element in enumerate(tree.iterfind("object")):
            where = f"{file.relative_to(root).as_posix()} object {element.findtext('id') or position}"
            if (element.findtext("deleted") or "0").strip() == "1":
                left.setdefault("objects that were deleted", []).append(where)
                continue
            with figures.noting(build, where):
                shape, box = _outline(element, size, masks)
                build.object((element.findtext("name") or "").strip(), shape, where, box=box)
    require_pictures(missing, len(files), path, pictures)
    return figures.leaving_out(build.done(), left)


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The root of the data set, and its XML files."""
    if path.is_file():
        parts = path.parts
        if "Annotations" in parts:
            at = len(parts) - 1 - parts[::-1].index("Annotations")
            return Path(*parts[:at]) if at else Path("."), [path]
        return path.parent, [path]
    root = path.parent if path.name == "Annotations" else path
    files = sorted((root / "Annotations" if (root / "Annotations").is_dir() else root).rglob("*.xml"))
    if not files:
        raise InputError(f"{path} holds no LabelMe files (Annotations/FOLDER/NAME.xml).")
    return root, files


def _looks_right(path: Path) -> bool:
    if path.suffix.lower() != ".xml":
        return False
    with open(path, "rb") as file:
        text = file.read(_LOOKED_AT)
        file.seek(max(0, path.stat().st_size - _LOOKED_AT))
        text += file.read(_LOOKED_AT)
    marks = (b"<polygon>", b"<segm>", b"<deleted>", b"LabelMe", b"<nrows>")
    if b"<bndbox>" in text:  # Pascal VOC, some of whose writers add polygons
        return False
    return b"<annotation>" in text and b"<filename>" in text and any(mark in text for mark in marks)


def _size(tree: Element, file: Path) -> tuple[int, int] | None:
    rows, columns = tree.findtext("imagesize/nrows"), tree.findtext("imagesize/ncols")
    if rows is None or columns is None or (rows.strip() == "0" and columns.strip() == "0"):
        return None
    return figures.size_of(rows.strip(), columns.strip(), str(file))


def _outline(element: Element, size: tuple[int, int], masks: list[Path]) -> tuple[Shape, figures.Box | None]:
    drawn = element.find("polygon")
    if drawn is not None:
        points = [figures.finite((pt.findtext("x"), pt.findtext("y"))) for pt in drawn.iterfind("pt")]
        if (element.findtext("type") or "").strip() == "bounding_box" and len(points) >= 2:
            ends = np.array(points)
            return None, figures.box_of(*ends.min(axis=0).tolist(), *ends.max(axis=0).tolist())
        return (figures.outline(points),), None
    name = (element.findtext("segm/mask") or "").strip()
    if not name:
        raise figures.FigureError("neither a polygon nor a mask")
    plain = inside_folder(name, masks[0])
    file = next((folder / plain for folder in masks if (folder / plain).is_file()), masks[0] / plain)
    return figures.placed(figures.mask_file(file, size), 0, 0, size), None
