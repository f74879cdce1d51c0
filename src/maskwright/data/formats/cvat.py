"""CVAT for images 1.1: one XML for all pictures (https://docs.cvat.ai/docs/other/xml_format).

Polygons, ellipses, masks and turned boxes are outlines; an upright box is a box without an outline. Outlines with one
label and one ``group_id`` are one object, as in the tool's own COCO export, whose attribute ``is_crowd`` marks crowds.
Objects come in their ``z_order``. Polylines, points, cuboids, skeletons and tags are no regions and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.cvat_shapes import (
    NO_REGIONS,
    REGIONS,
    add_crowd,
    add_labels,
    beginning,
    classes,
    figure,
    file_of,
    is_crowd,
    outline_of,
    save,
    shape_elements,
    text_of,
    whole,
)
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.storage import read_xml
from maskwright.structures import Record, Shape


def recognizes(path: Path) -> bool:
    """An XML (``annotations.xml`` of a folder, or its only XML) whose root is ``annotations`` and that has images."""
    if path.is_dir():
        try:
            found = sorted(path.glob("*.xml"))[:2]
        except OSError:
            return False
        path = found[0] if len(found) == 1 else path
    text = beginning(path)
    return b"<image " in text or (bool(text) and b"<track " not in text and b"interpolation</mode>" not in text)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a task's or a project's export; its subsets are the splits.

    Pictures are looked for in ``images/SUBSET``, ``images``, ``SUBSET`` and beside the XML.

    Raises:
        InputError: the file is missing or not of this format; pictures are missing; objects are broken and ``strict``.
    """
    file = file_of(path)
    root = read_xml(file)
    if root.tag != "annotations":
        raise InputError(f"{file} is not a CVAT file: its root must be annotations, got {root.tag[:60]}.")
    build = Builder(file, "cvat", classes(root, file), strict=strict)
    for name in (root.findtext("meta/project/subsets") or "").split("\n"):
        if name.strip():
            build.split(inside_folder(name.strip(), file))
    default = (root.findtext("meta/task/subset") or root.findtext("meta/job/subset") or "").strip() or WHOLE
    left: dict[str, list[str]] = {}
    missing: list[str] = []
    numbers = figures.Idents()
    found = root.findall("image")
    for element in found:
        name = element.get("name") or ""
        key = inside_folder(name, file)
        split = inside_folder(element.get("subset") or default, file)
        where = _find(key, split, file.parent, images)
        if where is None:
            missing.append(name)
            continue
        size = figures.size_of(element.get("height"), element.get("width"), f"{file}: image {name}")
        build.image(key, where, size, split=split, image_id=numbers.take(element.get("id")))
        for item in _objects(build, element, size, f"image {name}", left):
            box = item.boxes[0] if item.boxes else None
            shape = figures.joined(item.shapes, size) if item.shapes else None
            build.object(item.label, shape, item.where, box=box, crowd=item.crowd)
    require_pictures(missing, len(found), file, [file.parent / "images" if images is None else images])
    return figures.leaving_out(build.done(), left)


def write(path: Path, dataset: Dataset) -> None:
    """Write one XML with all splits as subsets; colors are kept, object ids and areas are not.

    Polygons stay polygons (several parts: one group), run-lengths become masks, boxes without an outline boxes.

    Raises:
        InputError: a name that XML cannot hold; the file cannot be written.
    """
    root = Element("annotations")
    text_of(root, "version", "1.1")
    project = SubElement(SubElement(root, "meta"), "project")
    text_of(project, "name", "maskwright")
    text_of(
        project,
        "subsets",
        "\n".join(figures.check_xml(name, "a subset of CVAT") for name in dataset.splits if name != WHOLE),
    )
    add_labels(project, dataset.taxonomy)
    for split, source in dataset.splits.items():
        for index in range(len(source)):
            record = resolve(source.record(index))
            image = SubElement(
                root, "image", {"id": str(record.image_id), "name": figures.check_xml(record.key, "a picture of CVAT")}
            )
            if split != WHOLE:
                image.set("subset", split)
            image.set("width", str(record.size[1]))
            image.set("height", str(record.size[0]))
            _add_objects(image, record, dataset.taxonomy.names)
    save(root, path)


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Object:
    label: str
    where: str
    crowd: bool
    shapes: list[Shape]
    boxes: list[figures.Box]


def _find(key: str, split: str, folder: Path, images: Path | None) -> Path | None:
    roots = [folder / "images", folder] if images is None else [images]
    return next((p for root in roots for p in (root / split / key, root / key) if p.is_file()), None)


def _objects(
    build: Builder, image: Element, size: tuple[int, int], name: str, left: dict[str, list[str]]
) -> list[_Object]:
    """The objects of an image, lowest first."""
    out: dict[object, tuple[int, _Object]] = {}
    for position, element in enumerate(image):
        where = f"{name} {element.tag} {position}"
        if element.tag in NO_REGIONS:
            left.setdefault(f"shapes that are no regions ({element.tag})", []).append(where)
        if element.tag not in REGIONS:
            continue
        with figures.noting(build, where):
            shape, box = outline_of(figure(element, size), size)
            label, group, crowd = element.get("label") or "", element.get("group_id") or "0", is_crowd(element)
            height = whole(element.get("z_order"), 0)
            key = position if box is not None or group == "0" else (label, group)
            item = out.setdefault(key, (height, _Object(label, where, False, [], [])))[1]
            item.crowd |= crowd
            if box is None:
                item.shapes.append(shape)
            else:
                item.boxes.append(box)
    return [item for _, item in sorted(out.values(), key=lambda pair: pair[0])]


# ---- writing --------------------------------------------------------------------------------------------------------


def _add_objects(image: Element, record: Record, names: tuple[str, ...]) -> None:
    group = 0
    for i in range(len(record)):
        drawn = shape_elements(record, i, whole_mask=False)
        group += len(drawn) > 1
        for tag, own in drawn:
            common = {"label": names[int(record.labels[i])], "source": "manual", "occluded": "0", "z_order": "0"}
            if len(drawn) > 1:
                common["group_id"] = str(group)
            add_crowd(SubElement(image, tag, common | own), bool(record.crowd[i]))
