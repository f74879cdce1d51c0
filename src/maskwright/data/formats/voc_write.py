"""Pascal VOC written: XMLs, lists of splits, PNGs of classes and objects where there are masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import inside_folder
from maskwright.data.formats.pictures import stem
from maskwright.data.formats.tables import VOC_NAMES, voc_colors
from maskwright.data.formats.voc_masks import BACKGROUND, VOID, VOID_COLOR
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.ops.rle_maps import paint_map
from maskwright.storage import replacing
from maskwright.structures import Record, Taxonomy

_MOST = 254  # numbers that a map of 8 bits has beside background and void


def write(path: Path, dataset: Dataset) -> None:
    """Write a folder in VOC's layout; ``voc.read`` gives the same boxes, masks, classes and splits back.

    Masks go to the two PNGs, smaller objects over larger ones, because a pixel belongs to one object there. Boxes are
    cut off at the picture's border. Regions of many objects are marked ``difficult`` and ``crowd``. A semantic map is
    the class map; without one it is painted from the objects. Ids, areas and tracks have no place. Classes that are not
    VOC's go to ``labelmap.txt``, with VOC's colors where their own are not distinct.

    Raises:
        InputError: two splits have different images of one name; an image has more than 254 masks, or a data set with
            masks more than 254 classes; a name cannot be written.
    """
    names = [name for name in dataset.taxonomy.names if name != BACKGROUND]
    values = np.array([0 if n == BACKGROUND else names.index(n) + 1 for n in dataset.taxonomy.names], np.int64)
    for name in names:
        if name != name.strip() or not name.isprintable():
            raise InputError(f"the class name {name!r} cannot be written as XML and read back. Rename the class.")
    colors = _colors(dataset.taxonomy, names)
    written: dict[str, Path] = {}
    mapped = False
    for split, source in dataset.splits.items():
        all_, masked = [], []
        for index in range(len(source)):
            record = resolve(source.record(index))
            name = stem(inside_folder(record.key, path))
            if name.startswith("#") or name != name.strip():
                raise InputError(f"the image {record.key!r} cannot be named in a list of VOC. Rename it.")
            if written.setdefault(name, record.path) != record.path:
                raise InputError(
                    f"{path}: two images would be called {name}, {written[name]} and {record.path}, but VOC keeps all "
                    "splits in one folder. Rename one of them."
                )
            all_.append(name)
            has_masks = record.semantic is not None or any(shape is not None for shape in record.shapes)
            _write_xml(path / "Annotations" / f"{name}.xml", record, dataset.taxonomy.names, has_masks)
            if has_masks:
                masked.append(name)
                _write_maps(path, name, record, values, colors)
        mapped = mapped or bool(masked)
        _write_list(path / "ImageSets" / "Main" / f"{split}.txt", all_)
        if masked:
            _write_list(path / "ImageSets" / "Segmentation" / f"{split}.txt", masked)
    if tuple(names) != VOC_NAMES:
        lines = ["# label:color_rgb:parts:actions"]
        if mapped or BACKGROUND in dataset.taxonomy.names:
            lines.append(f"{BACKGROUND}:{_color(colors[0])}::")
        lines += [f"{name}:{_color(colors[i + 1])}::" for i, name in enumerate(names)]
        _write_list(path / "labelmap.txt", lines)


def picture(root: Path, split: str, record: Record) -> Path:
    """Where the picture of an image belongs: ``JPEGImages``, whatever its split."""
    return root / "JPEGImages" / record.key


def _colors(taxonomy: Taxonomy, names: Sequence[str]) -> list[tuple[int, int, int]]:
    """The colors of background and classes, by value."""
    own = dict(zip(taxonomy.names, taxonomy.colors, strict=True))
    colors = [(0, 0, 0), *(own[name] for name in names)]
    good = len(set(colors)) == len(colors) and VOID_COLOR not in colors
    # The last of VOC's colors is void's; more than its others are needed only where there are no maps.
    return colors if good or len(colors) > 255 else list(voc_colors(len(colors)))


def _write_xml(path: Path, record: Record, names: Sequence[str], segmented: bool) -> None:
    root = ElementTree.Element("annotation")
    _add(root, "folder", path.parent.parent.name)
    _add(root, "filename", record.key)
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", record.size[1]), ("height", record.size[0]), ("depth", 3)):
        _add(size, tag, value)
    _add(root, "segmented", int(segmented))
    height, width = record.size
    for i in range(len(record)):
        x1, y1, x2, y2 = (float(v) for v in record.boxes[i])
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
        if not (x2 > x1 and y2 > y1):
            raise InputError(f"{record.key}: object {record.ids[i]} lies outside its picture. Remove it first.")
        entry = ElementTree.SubElement(root, "object")
        _add(entry, "name", names[int(record.labels[i])])
        for tag in ("truncated", "difficult", "crowd") if record.crowd[i] else ("truncated", "difficult"):
            _add(entry, tag, int(tag != "truncated" and bool(record.crowd[i])))
        box = ElementTree.SubElement(entry, "bndbox")
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _add(box, tag, int(value) if float(value).is_integer() else repr(float(value)))
    ElementTree.indent(root)
    with replacing(path) as beside:
        beside.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


def _write_maps(
    root: Path, name: str, record: Record, values: np.ndarray, colors: Sequence[tuple[int, int, int]]
) -> None:
    height, width = record.size
    with_mask = [i for i, shape in enumerate(record.shapes) if shape is not None]
    if with_mask and with_mask[-1] >= _MOST:
        raise InputError(f"{record.key}: VOC numbers at most {_MOST} objects with masks, got {with_mask[-1] + 1}")
    if int(values.max(initial=0)) > _MOST:
        raise InputError(f"VOC's maps hold at most {_MOST} classes, got {len(values)}. Write boxes only, or less.")
    runs = [_runs(record.shapes[i], record.size) for i in with_mask]
    order = sorted(range(len(runs)), key=lambda k: -int(runs[k][1::2].sum()))
    counts = np.concatenate([runs[k] for k in order]) if runs else np.zeros(0, np.int32)
    offsets = np.cumsum([0, *(len(runs[k]) for k in order)]).astype(np.int64)
    chosen = np.array([with_mask[k] for k in order], np.int64)
    if isinstance(record.semantic, np.ndarray):
        classes = np.where(record.semantic < 0, VOID, values[np.maximum(record.semantic, 0)])
    else:
        classes = paint_map(counts, offsets, (height, width), values[record.labels[chosen]])
    _write_png(root / "SegmentationClass" / f"{name}.png", classes, colors)
    if with_mask:
        numbers = paint_map(counts, offsets, (height, width), chosen + 1)
        _write_png(root / "SegmentationObject" / f"{name}.png", numbers, voc_colors(256))


def _runs(shape: object, size: tuple[int, int]) -> np.ndarray:
    if isinstance(shape, dict):
        return rle.from_coco([shape], size)[0]
    assert isinstance(shape, tuple)
    return polygons.rasterize(list(shape), size)


def _write_png(path: Path, numbers: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> None:
    image = Image.fromarray(numbers.astype(np.uint8))
    table = [*colors[:VOID], *voc_colors(256)[len(colors[:VOID]) :]]
    table[VOID] = VOID_COLOR
    image.putpalette([channel for color in table for channel in color])
    with replacing(path) as beside:
        image.save(beside, format="PNG")


def _write_list(path: Path, lines: Sequence[str]) -> None:
    with replacing(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _color(color: Sequence[int]) -> str:
    return ",".join(map(str, color))
