"""COCO instances: annotation files read and written, results written (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskwright.data.formats.coco_objects import Objects, Problems, parse_object
from maskwright.data.io import image_size
from maskwright.data.label_maps import resolve
from maskwright.data.memory import give_back
from maskwright.data.source import FileSource, Loads
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.storage import read_json, replacing, write_json
from maskwright.structures import Record, Region, Scene, Shape, Taxonomy

_KEYS = ("images", "annotations", "categories")
_MANY = 10_000  # annotations, after whose reading a kilobyte each would stay with the process


class CocoSource(FileSource):
    """A COCO file.

    Attributes:
        path: the JSON file.
        dropped: what ``strict=False`` left out: what is wrong with it -> the annotation ids.
    """

    def __init__(self, table: Table, taxonomy: Taxonomy, path: Path, dropped: dict[str, list[int]]) -> None:
        super().__init__(table, taxonomy)
        self.path = path
        self.dropped = dropped


def read_coco(
    path: str | Path,
    images: str | Path | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    strict: bool = True,
    check: bool = True,
) -> CocoSource:
    """Read an instance annotation file: polygons, both run-length forms, crowd, images without objects.

    Classes are the file's categories in the order of their ids, which need not be dense.

    Args:
        path: the JSON file.
        images: the folder that ``file_name`` starts from; by default each file is looked for beside the JSON and in
            ``images/`` beside it.
        taxonomy: classes to label by, matched by name (a trained model's); by default the file's own.
        strict: refuse a file with broken objects; otherwise they are left out and listed in ``dropped``.
        check: look whether every image is on disk.

    Raises:
        InputError: the file is missing, not JSON or not COCO; ids repeat or refer to nothing; objects are broken
            (polygons with fewer than three points, an odd number of coordinates, not finite, far outside; boxes without
            area; run-lengths of another size) and ``strict``; images are not on disk. Each kind is counted, with the
            first five.
    """
    path = Path(path)
    data = read_json(path)
    _require_coco(data, path)
    names, own = _taxonomy(data["categories"], path)
    label_of = own.label_of if taxonomy is None else _by_name(names, taxonomy, data["annotations"], path)
    entries = _images(data["images"], path)
    paths = _locate([e["file_name"] for e in entries], path, None if images is None else Path(images), check)
    for entry, file in zip(entries, paths, strict=True):
        _complete_size(entry, file, path)

    problems = Problems(path)
    sizes = {e["id"]: (e["height"], e["width"]) for e in entries}
    of_image: dict[int, Objects] = {e["id"]: [] for e in entries}
    seen: set[int] = set()
    for position, raw in enumerate(data["annotations"]):
        parsed = parse_object(raw, position, sizes, label_of, seen, problems)
        if parsed is not None:
            of_image[raw["image_id"]].append(parsed)
    if strict:
        problems.refuse()

    table = Table()
    for entry, file in zip(entries, paths, strict=True):
        table.add_image(entry["file_name"], file, sizes[entry["id"]], entry["id"])
        for parsed in of_image[entry["id"]]:
            table.add_object(**parsed)
    many = len(data["annotations"]) > _MANY
    del data, of_image
    if many:
        give_back()
    return CocoSource(table, taxonomy or own, path, problems.found)


def write_coco(path: str | Path, records: Loads | Iterable[Record], taxonomy: Taxonomy) -> None:
    """Write an instance annotation file that ``read_coco`` reads back as the same records.

    ``file_name`` is the record's key. Thing flags and colors are written where they are not the defaults.

    Args:
        path: the JSON file, replaced atomically.
        records: a source, or records.
        taxonomy: class names and the category ids to write.

    Raises:
        InputError: the file cannot be written, or a label is not in the taxonomy.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in map(resolve, _each(records)):
        height, width = record.size
        images.append({"id": record.image_id, "file_name": record.key, "height": height, "width": width})
        for i, shape in enumerate(record.shapes):
            label = int(record.labels[i])
            if not 0 <= label < len(taxonomy):
                raise InputError(f"{record.key}: label {label} is not one of the {len(taxonomy)} classes to be written")
            x1, y1, x2, y2 = (float(v) for v in record.boxes[i])
            annotations.append(
                {
                    "id": int(record.ids[i]),
                    "image_id": record.image_id,
                    "category_id": taxonomy.source_ids[label],
                    "iscrowd": int(record.crowd[i]),
                    "area": float(record.areas[i]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": _segmentation(shape),
                }
            )
    if len({entry["id"] for entry in annotations}) < len(annotations):  # those of panoptic segments repeat
        for number, entry in enumerate(annotations, 1):
            entry["id"] = number
    write_json(path, {"images": images, "annotations": annotations, "categories": _categories(taxonomy)})


def results(scene: Scene, image_id: int, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """A predicted scene as COCO result entries: ``bbox`` (x, y, w, h), ``score``, and ``segmentation`` where known.

    Raises:
        ValueError: the scene has no segments or they have no scores.
    """
    segments = scene.objects()
    if segments.scores is None:
        raise ValueError(
            "results need scores, and these objects have none: they are annotated. Use write_coco for them"
        )
    masks = segments.masks
    boxes = segments.boxes if segments.boxes is not None or masks is None else masks.boxes()
    xyxy = np.zeros((0, 4)) if boxes is None else boxes.detach().cpu().double().numpy()
    runs = None if masks is None else masks.rle()
    out: list[dict[str, Any]] = []
    for i, (label, score) in enumerate(zip(segments.labels.tolist(), segments.scores.tolist(), strict=True)):
        entry: dict[str, Any] = {"image_id": image_id, "category_id": taxonomy.source_ids[label], "score": score}
        if len(xyxy):
            x1, y1, x2, y2 = xyxy[i].tolist()
            entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if runs is not None:
            entry["segmentation"] = runs[i]
        out.append(entry)
    return out


@contextmanager
def result_file(path: str | Path, taxonomy: Taxonomy) -> Generator[Callable[[Record, Scene], None]]:
    """A COCO result file to be filled image by image: yields ``add(record, scene)``; entries do not pile up.

    Image and category ids are those of the annotation file, so ``score`` compares the two as they are. Nothing is
    written where the block fails.

    Raises:
        InputError: ``path`` cannot be written.
    """
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(b"[")
        lead = b"\n"

        def add(record: Record, scene: Scene) -> None:
            nonlocal lead
            for entry in results(scene, record.image_id, taxonomy):
                file.write(lead + orjson.dumps(entry))
                lead = b",\n"

        yield add
        file.write(b"\n]\n")


def _each(records: Loads | Iterable[Record]) -> Iterable[Record]:
    if isinstance(records, Loads):
        return (records.record(i) for i in range(len(records)))
    return records


def _segmentation(shape: Shape) -> Any:
    if shape is None:
        return []
    assert not isinstance(shape, Region)
    if isinstance(shape, dict):
        counts = shape["counts"]
        return {"size": list(shape["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
    return [np.asarray(ring, np.float64).reshape(-1).tolist() for ring in shape]


def _categories(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    plain = Taxonomy(names=taxonomy.names, source_ids=taxonomy.source_ids)
    out: list[dict[str, Any]] = []
    for i, name in enumerate(taxonomy.names):
        entry: dict[str, Any] = {"id": taxonomy.source_ids[i], "name": name}
        if taxonomy.thing != plain.thing:
            entry["isthing"] = int(taxonomy.thing[i])
        if taxonomy.colors != plain.colors:
            entry["color"] = list(taxonomy.colors[i])
        out.append(entry)
    return out


def _require_coco(data: Any, path: Path) -> None:
    if isinstance(data, list):
        raise InputError(
            f"{path} is not a COCO annotation file: it must hold an object with {', '.join(_KEYS)}, got a list. "
            "A results file is a list; name the annotation file that goes with it."
        )
    missing = [key for key in _KEYS if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if missing:
        found = ", ".join(sorted(map(str, data))[:8]) if isinstance(data, dict) else type(data).__name__
        raise InputError(
            f"{path} is not a COCO annotation file: it lacks the lists {', '.join(missing)}, got {found or 'nothing'}."
        )
    for key in _KEYS:
        for position, entry in enumerate(data[key]):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: entry {position} of {key} must be an object, got {type(entry).__name__}")


def _taxonomy(categories: list[dict[str, Any]], path: Path) -> tuple[dict[int, str], Taxonomy]:
    for position, entry in enumerate(categories):
        if not _is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: category {position} must have an integer id and a name, got {str(entry)[:120]}")
    _refuse_repeats([c["id"] for c in categories], "category ids", path)
    _refuse_repeats([c["name"] for c in categories], "category names", path)
    ordered = sorted(categories, key=lambda c: c["id"])
    colors = [(r, g, b) for r, g, b in (c["color"] for c in ordered if _is_color(c.get("color")))]
    own = Taxonomy(
        names=tuple(c["name"] for c in ordered),
        thing=tuple(bool(c.get("isthing", 1)) for c in ordered),
        colors=tuple(colors) if len(colors) == len(ordered) else (),
        source_ids=tuple(c["id"] for c in ordered),
    )
    return {c["id"]: c["name"] for c in ordered}, own


def _by_name(
    names: dict[int, str], taxonomy: Taxonomy, annotations: Sequence[dict[str, Any]], path: Path
) -> dict[int, int]:
    """Category id -> label of ``taxonomy``; classes it lacks may be listed but not used."""
    used = {a.get("category_id") for a in annotations if _is_int(a.get("category_id"))}
    lacking = sorted(name for ident, name in names.items() if name not in taxonomy.names and ident in used)
    if lacking:
        raise InputError(
            f"{path} has objects of {len(lacking)} classes ({', '.join(lacking[:5])}) that are not among the "
            f"{len(taxonomy)} wanted ({', '.join(taxonomy.names[:5])}). Train for them, or remove them from the file."
        )
    return {ident: taxonomy.index(name) for ident, name in names.items() if name in taxonomy.names}


def _images(entries: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    for position, entry in enumerate(entries):
        if not _is_int(entry.get("id")) or not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            raise InputError(f"{path}: image {position} must have an integer id and a file_name, got {str(entry)[:99]}")
    _refuse_repeats([e["id"] for e in entries], "image ids", path)
    _refuse_repeats([e["file_name"] for e in entries], "image file names", path)
    return [dict(entry) for entry in entries]


def _locate(names: list[str], path: Path, images: Path | None, check: bool) -> list[Path]:
    """Where each ``file_name`` is; without ``check`` all are assumed where the first one found is."""
    if images is not None and not images.is_dir():
        raise InputError(f"the folder of images must be a directory, got {images}")
    roots = [path.parent, path.parent / "images"] if images is None else [images]
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: file_name must stay inside its folder, got {name}. Name the folder with images=")
    if not check:
        first = next((root for name in names[:100] for root in roots if (root / name).is_file()), roots[0])
        return [first / name for name in names]
    out: list[Path] = []
    missing: list[str] = []
    for name in names:
        found = next((root / name for root in roots if (root / name).is_file()), None)
        if found is None:
            missing.append(name)
        out.append(found or roots[0] / name)
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} images are not on disk: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''} (looked in {' and '.join(map(str, roots))}). "
            "Name their folder with images= (--images)."
        )
    return out


def _complete_size(entry: dict[str, Any], file: Path, path: Path) -> None:
    if "height" not in entry and "width" not in entry and file.is_file():
        entry["height"], entry["width"] = image_size(file)
    if not all(_is_int(entry.get(side)) and 0 < entry[side] < 1 << 31 for side in ("height", "width")):
        got = f"{entry.get('height')} and {entry.get('width')}"
        raise InputError(f"{path}: image {entry['id']} must have a positive integer height and width, got {got}")


def _refuse_repeats(values: Sequence[Any], what: str, path: Path) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[Any] = set()
    twice = list(dict.fromkeys(v for v in values if v in seen or seen.add(v)))
    raise InputError(f"{path}: {what} must be distinct, but {len(twice)} repeat: {', '.join(map(str, twice[:5]))}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_int(v) and 0 <= v <= 255 for v in value)
