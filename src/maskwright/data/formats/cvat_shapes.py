"""What CVAT's two XML formats share: labels, shapes, and their elements (https://docs.cvat.ai/docs/other/xml_format)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from maskwright.data.formats import figures
from maskwright.data.formats.figures import FigureError
from maskwright.errors import InputError
from maskwright.storage import replacing
from maskwright.structures import Record, Shape, Taxonomy

REGIONS = ("box", "polygon", "ellipse", "mask")
NO_REGIONS = ("polyline", "points", "cuboid", "skeleton", "tag")
CROWD = "is_crowd"
"""The attribute by which CVAT's own COCO export tells crowds."""

ANNOTATIONS = "annotations.xml"
_LOOKED_AT = 1 << 16


@dataclass(frozen=True, slots=True)
class Figure:
    """One shape element: its numbers (box: two corners; ellipse: center, radii; polygon: points), or its pixels."""

    kind: str
    values: np.ndarray
    degrees: float = 0.0
    mask: Shape = None


def beginning(path: Path) -> bytes:
    """The first and last bytes of a CVAT file (or the one in a folder), nothing where it is none."""
    file = path / ANNOTATIONS if path.is_dir() else path
    if file.suffix.lower() != ".xml":
        return b""
    try:
        with open(file, "rb") as opened:
            text = opened.read(_LOOKED_AT)
            opened.seek(max(0, file.stat().st_size - _LOOKED_AT))
            text += opened.read(_LOOKED_AT)
    except OSError:
        return b""
    return text if b"<annotations" in text else b""


def file_of(path: Path) -> Path:
    """The XML: ``path`` itself, ``annotations.xml`` in it, or the only XML in it; ``InputError`` where none is."""
    if path.is_file():
        return path
    if (path / ANNOTATIONS).is_file():
        return path / ANNOTATIONS
    found = sorted(path.glob("*.xml")) if path.is_dir() else []
    if len(found) != 1:
        raise InputError(f"{path} holds no {ANNOTATIONS} of CVAT. Name the XML file.")
    return found[0]


# ---- reading --------------------------------------------------------------------------------------------------------


def classes(root: Element, file: Path) -> Taxonomy | None:
    """The labels of a file with their colors, without the parts of skeletons; ``None`` where it lists none."""
    rows: dict[str, str | None] = {}
    for label in root.iterfind("meta//labels/label"):
        name = label.findtext("name") or ""
        if not name.strip():
            raise InputError(f"{file}: a label must have a name. Add it in meta/labels.")
        if label.find("parent") is None:
            rows.setdefault(name, label.findtext("color"))
    return Taxonomy(names=tuple(rows), colors=figures.colors_of(list(rows.values()))) if rows else None


def figure(element: Element, size: tuple[int, int]) -> Figure:
    """What an element of ``REGIONS`` draws; ``FigureError`` where it draws nothing."""
    get = element.get
    if element.tag == "box":
        corners = figures.box_of(get("xtl"), get("ytl"), get("xbr"), get("ybr"))
        return Figure("box", np.array(corners), figures.finite((get("rotation") or 0,))[0])
    if element.tag == "ellipse":
        numbers = figures.finite((get("cx"), get("cy"), get("rx"), get("ry")))
        return Figure("ellipse", np.array(numbers), figures.finite((get("rotation") or 0,))[0])
    if element.tag == "polygon":
        text = (get("points") or "").strip().strip(";")
        if not text or text.count(",") != text.count(";") + 1:
            raise FigureError("a point that is not two numbers" if text else "fewer than three points")
        try:
            numbers = list(map(float, text.replace(";", ",").split(",")))
        except ValueError as error:
            raise FigureError("a point that is not two numbers") from error
        return Figure("polygon", figures.outline(np.array(numbers).reshape(-1, 2)))
    return Figure("mask", np.zeros(0), mask=_pixels(element, size))


def outline_of(found: Figure, size: tuple[int, int]) -> tuple[Shape, figures.Box | None]:
    """A figure as an outline, or as a box where it says no more."""
    if found.kind == "mask":
        return found.mask, None
    if found.kind == "polygon":
        return (found.values,), None
    x1, y1, x2, y2 = found.values.tolist()
    if found.kind == "ellipse":
        return (figures.ellipse(x1, y1, x2, y2, found.degrees),), None
    if not found.degrees % 360:
        return None, (x1, y1, x2, y2)
    return (figures.turned(figures.corners((x1, y1, x2, y2)), ((x1 + x2) / 2, (y1 + y2) / 2), found.degrees),), None


def between(one: Figure, other: Figure | None, part: float) -> Figure:
    """The figure ``part`` of the way from one keyframe to the next, as CVAT draws it.

    Numbers are interpolated, angles the short way round. Masks, and polygons with another number of points (which CVAT
    matches along their curves), stay as they are.
    """
    if other is None or one.kind != other.kind or one.kind == "mask" or one.values.shape != other.values.shape:
        return one
    turn = (other.degrees - one.degrees + 180) % 360 - 180
    return replace(one, values=one.values + part * (other.values - one.values), degrees=one.degrees + part * turn)


def is_crowd(element: Element) -> bool:
    """Whether the attribute says so."""
    told = (a.text for a in element.iterfind("attribute") if a.get("name") == CROWD)
    return any((text or "").strip().lower() in ("true", "1") for text in told)


def whole(text: str | None, default: int | None = None) -> int:
    """An integer of an attribute or element; ``FigureError`` where it is none."""
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError as error:
        raise FigureError(f"a number that is not an integer ({str(text)[:20]!r})") from error
    if abs(value) >= 1 << 62:
        raise FigureError("a number beyond 62 bits")
    return value


def _pixels(element: Element, size: tuple[int, int]) -> Shape:
    """Runs walk the rows of the mask's own rectangle, background first."""
    left, top, width, height = (whole(element.get(name)) for name in ("left", "top", "width", "height"))
    if width < 1 or height < 1 or width > size[1] or height > size[0]:
        raise FigureError("a mask larger than its picture, or without pixels")
    if width * height > figures.LARGEST_MASK:
        raise FigureError("a mask of too many pixels")
    try:
        counts = np.array([int(v) for v in (element.get("rle") or "").split(",")], np.int64)
    except (ValueError, OverflowError) as error:
        raise FigureError("run-lengths that are not integers") from error
    if counts.min() < 0 or counts.max() > width * height or counts.sum() != width * height:
        raise FigureError("run-lengths that do not fill the mask's width and height")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return figures.placed(flat.reshape(height, width), left, top, size)


# ---- writing --------------------------------------------------------------------------------------------------------


def text_of(parent: Element, name: str, value: Any) -> None:
    """Add a child with a text."""
    SubElement(parent, name).text = str(value)


def add_labels(parent: Element, taxonomy: Taxonomy) -> None:
    """The labels with their colors, in order; each may be a crowd."""
    labels = SubElement(parent, "labels")
    for name, color in zip(taxonomy.names, taxonomy.colors, strict=True):
        label = SubElement(labels, "label")
        text_of(label, "name", figures.check_xml(name, "a label of CVAT"))
        text_of(label, "color", figures.hex_of(color).lower())
        text_of(label, "type", "any")
        attribute = SubElement(SubElement(label, "attributes"), "attribute")
        for key, value in (
            ("name", CROWD),
            ("mutable", "False"),
            ("input_type", "checkbox"),
            ("default_value", "false"),
        ):
            text_of(attribute, key, value)
        text_of(attribute, "values", "false")


def shape_elements(record: Record, i: int, whole_mask: bool) -> list[tuple[str, dict[str, str]]]:
    """Tag and own attributes of the elements that draw object ``i`` of a resolved record.

    Args:
        record: without regions.
        i: which object.
        whole_mask: draw an outline of several polygons as one mask, not as polygons of one group.
    """
    shape = record.shapes[i]
    if shape is None:
        x1, y1, x2, y2 = map(repr, record.boxes[i].tolist())
        return [("box", {"xtl": x1, "ytl": y1, "xbr": x2, "ybr": y2})]
    if isinstance(shape, tuple) and not (whole_mask and len(shape) > 1):
        return [("polygon", {"points": ";".join(f"{x!r},{y!r}" for x, y in ring.tolist())}) for ring in shape]
    mask, left, top = figures.cropped(shape, record.size)
    flat = np.concatenate([[False], mask.reshape(-1), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    counts = counts if counts[-1] or len(counts) == 1 else counts[:-1]
    place = {"left": left, "top": top, "width": mask.shape[1], "height": mask.shape[0]}
    return [("mask", {"rle": ", ".join(map(str, counts.tolist())), **{k: str(v) for k, v in place.items()}})]


def add_crowd(element: Element, crowd: bool) -> None:
    """Tell that a shape is a crowd, where it is."""
    if crowd:
        SubElement(element, "attribute", {"name": CROWD}).text = "true"


def save(root: Element, path: Path) -> None:
    """Write the XML, at ``path`` where it is named so, else as ``annotations.xml`` in it."""
    ElementTree.indent(root)
    file = path if path.suffix.lower() == ".xml" else path / ANNOTATIONS
    with replacing(file) as beside:
        ElementTree.ElementTree(root).write(beside, encoding="utf-8", xml_declaration=True)
