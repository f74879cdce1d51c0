"""COCO panoptic: a JSON of segments and a PNG an image whose colors are their ids.

Kirillov et al., Panoptic Segmentation (CVPR 2019); https://cocodataset.org/#format-data, section 4. The id of a pixel
is red + 256 green + 65536 blue; 0 is void. Ids are distinct within an image only, and so are those of the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.coco_lists import (
    has_instances,
    is_int,
    joined,
    json_files,
    locate,
    picture_roots,
    read_lists,
    read_taxonomy,
    refuse_repeats,
    size_of,
)
from maskwright.data.formats.pictures import stem
from maskwright.data.label_maps import read_map, resolve
from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.storage import replacing, write_json
from maskwright.structures import LabelMap, Record, Region, Taxonomy

_KEYS = ("images", "annotations", "categories")
_PREFIX = "panoptic_"
_MOST = 1 << 24


def recognizes(path: Path) -> bool:
    """A JSON with ``segments_info``, or a folder of such files (itself or ``annotations/``), but none of instances."""
    return bool(json_files(path, _looks_right, _PREFIX)) and not has_instances(path)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a file, or all files of a folder, each a split; classes are joined by name.

    Segments are ``Region`` outlines of their PNG, which is also the ``panoptic`` map; it is decoded when it is needed.
    PNGs are looked for in the folder named as the JSON, then beside it; pictures in ``images/``, ``images/SPLIT`` and
    a folder named as the split. Images without an annotation have no panoptic map.

    Raises:
        InputError: a file is not COCO panoptic; pictures or PNGs are not on disk; segments cannot be used and
            ``strict``: an id that is no color or repeats within its image, an unknown category, a box without area.
    """
    files = json_files(path, _looks_right, _PREFIX)
    if not files:
        raise InputError(f"{path} holds no COCO panoptic file (JSON with annotations that have segments_info).")
    data = {split: read_lists(file, _KEYS, "a COCO panoptic file") for split, file in files.items()}
    taxonomies = {split: read_taxonomy(data[split]["categories"], file) for split, file in files.items()}
    taxonomy = joined(list(taxonomies.values()))
    build = Builder(path, "coco-panoptic", taxonomy, strict=strict)
    for split, file in files.items():
        build.split(split)
        own = taxonomies[split]
        names = dict(zip(own.source_ids, own.names, strict=True))
        _read_split(build, data[split], file, split, names, images)
    return build.done()


def _read_split(
    build: Builder,
    data: Mapping[str, list[dict[str, Any]]],
    file: Path,
    split: str,
    names: Mapping[int, str],
    images: Path | None,
) -> None:
    entries = data["images"]
    for position, entry in enumerate(entries):
        if not is_int(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            raise InputError(f"{file}: image {position} must have an integer id and a file_name, got {str(entry)[:99]}")
    refuse_repeats([entry["id"] for entry in entries], "image ids", file)
    paths = locate([entry["file_name"] for entry in entries], file, picture_roots(file, split, images))
    known = {entry["id"] for entry in entries}
    of_image: dict[int, dict[str, Any]] = {}
    for position, raw in enumerate(data["annotations"]):
        where = f"{file.name} annotation {position}"
        if not is_int(raw.get("image_id")) or raw["image_id"] not in known:
            build.problem("an image_id that is not among the images", where)
        elif raw["image_id"] in of_image:
            build.problem("an image that was annotated before", where)
        elif not isinstance(raw.get("file_name"), str) or not isinstance(raw.get("segments_info"), list):
            build.problem("no file_name or no list segments_info", where)
        else:
            of_image[raw["image_id"]] = raw
    pngs = _pngs({ident: raw["file_name"] for ident, raw in of_image.items()}, file)
    for entry, picture in zip(entries, paths, strict=True):
        ident, size = entry["id"], size_of(entry, picture, file)
        png = pngs.get(ident)
        build.image(
            entry["file_name"], picture, size, split=split, image_id=ident,
            panoptic=None if png is None else LabelMap(path=png, form="rgb"),
        )  # fmt: skip
        if png is not None:
            for info in of_image[ident]["segments_info"]:
                _segment(build, info, png, size, f"{file.name} image {ident}", names)


def _pngs(names: Mapping[int, str], file: Path) -> dict[int, Path]:
    plain = {ident: inside_folder(name, file) for ident, name in names.items()}
    roots = (file.with_suffix(""), file.parent)
    sample = list(plain.values())[:100]
    root = next((root for root in roots if any((root / name).is_file() for name in sample)), roots[0])
    missing = [name for name in plain.values() if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{file}: {len(missing)} of {len(plain)} panoptic PNGs are not in {root}: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Put them in a folder named as the JSON."
        )
    return {ident: root / name for ident, name in plain.items()}


def _segment(build: Builder, info: Any, png: Path, size: tuple[int, int], where: str, names: Mapping[int, str]) -> bool:
    if not isinstance(info, dict) or not is_int(info.get("id")):
        return build.problem("a segment without an integer id", where)
    ident = info["id"]
    where = f"{where} segment {ident}"
    if not 0 < ident < _MOST:
        return build.problem(f"an id outside 1..{_MOST - 1}", where)
    category = info.get("category_id")
    if not is_int(category) or category not in names:
        return build.problem("a category_id that is not among the categories", where)
    box, area = _corners(info.get("bbox")), info.get("area")
    if info.get("bbox") is None or not isinstance(area, (int, float)) or area < 0:
        found = encode_map(read_map(png, "rgb", size), np.array([ident]))
        pixels = int(rle.area(*found)[0])
        if not pixels:
            return build.problem("a segment that is not in its PNG", where)
        box = rle.boxes(*found, size[0])[0].tolist() if info.get("bbox") is None else box
        area = pixels
    if box is None:
        return build.problem("a box that is not four numbers (x, y, width, height)", where)
    return build.object(
        names[category], Region(png, "rgb", ident), where, box=box, area=area, ident=ident,
        crowd=bool(info.get("iscrowd", 0)),
    )  # fmt: skip


def _corners(value: Any) -> list[float] | None:
    try:
        x, y, wide, tall = (float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return [x, y, x + wide, y + tall]


def write(path: Path, dataset: Dataset) -> None:
    """Write one JSON and a folder of PNGs named as it, or under a folder ``annotations/panoptic_SPLIT.json`` and so on.

    Segments without any pixel in their image's map are refused by the official tools, and here.

    Raises:
        InputError: several splits into one file; an image with objects but no panoptic map; ids that are no colors; two
            images of one split that differ in their ending only, or have one image id.
    """
    single = path.suffix.lower() == ".json"
    if single and len(dataset.splits) != 1:
        raise InputError(
            f"{path}: one COCO panoptic file holds one split, got {', '.join(dataset.splits)}. Name a folder instead."
        )
    for split, source in dataset.splits.items():
        _write_split(path if single else path / "annotations" / f"{_PREFIX}{split}.json", source, dataset.taxonomy)


def _write_split(file: Path, source: Loads, taxonomy: Taxonomy) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seen: set[str] = set()
    refuse_repeats([source.record(index).image_id for index in range(len(source))], "image ids", file)
    for index in range(len(source)):
        record = resolve(source.record(index))
        height, width = record.size
        images.append({"id": record.image_id, "file_name": record.key, "height": height, "width": width})
        name = f"{stem(inside_folder(record.key, file))}.png"
        if name in seen:
            raise InputError(f"{file}: two images would share the map {name}. Rename one of them.")
        seen.add(name)
        if record.panoptic is None and len(record):
            raise InputError(
                f"{record.key}: COCO panoptic needs a panoptic map, and this image has objects only. "
                "Convert instances and semantic maps to panoptic first."
            )
        if record.panoptic is not None:
            annotations.append(
                {"image_id": record.image_id, "file_name": name, "segments_info": _infos(record, taxonomy)}
            )
            ids = np.asarray(record.panoptic)
            _write_png(file.with_suffix("") / name, np.where(np.isin(ids, record.ids), ids, 0))
    categories = [
        {"id": ident, "name": label, "supercategory": label, "isthing": int(thing), "color": list(color)}
        for label, thing, color, ident in zip(
            taxonomy.names, taxonomy.thing, taxonomy.colors, taxonomy.source_ids, strict=True
        )
    ]
    write_json(file, {"images": images, "annotations": annotations, "categories": categories})


def _infos(record: Record, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    wrong = [int(i) for i in record.ids if not 0 < i < _MOST]
    if wrong:
        raise InputError(f"{record.key}: ids of segments must be in 1..{_MOST - 1}, got {wrong[:5]}. Number them anew.")
    absent = sorted(set(record.ids.tolist()) - set(np.unique(np.asarray(record.panoptic)).tolist()))
    if absent:
        raise InputError(f"{record.key}: {len(absent)} segments have no pixel in the panoptic map: {absent[:5]}")
    out: list[dict[str, Any]] = []
    for i in range(len(record)):
        x1, y1, x2, y2 = (float(v) for v in record.boxes[i])
        out.append(
            {
                "id": int(record.ids[i]),
                "category_id": taxonomy.source_ids[int(record.labels[i])],
                "iscrowd": int(record.crowd[i]),
                "bbox": [_plain(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                "area": _plain(float(record.areas[i])),
            }
        )
    return out


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _write_png(path: Path, ids: np.ndarray) -> None:
    colors = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
    with replacing(path) as beside:
        Image.fromarray(colors).save(beside, format="PNG")


def _looks_right(text: bytes) -> bool:
    return text.lstrip()[:1] == b"{" and b'"segments_info"' in text
