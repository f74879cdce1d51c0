"""LabelMe (labelme.io, wkentaro): a JSON beside every picture.

Shapes with one ``group_id`` and one label are one object, as the tool's own converters have it. ``polygon``, ``circle``
and ``mask`` are outlines, ``rectangle`` is a box without an outline (grouped with outlines: a part of them);
``line``, ``linestrip``, ``point`` and ``points`` are no regions and are left out. ``labels.txt``, the file of the
tool's ``--labels``, gives the order of the classes; its first lines ``__ignore__`` and ``_background_`` are no classes,
and shapes named so are left out. The shape flag ``crowd`` marks regions of many objects.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.io import image_size
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.storage import read_json, replacing
from maskwright.structures import Record, Shape

LABELS = "labels.txt"
NO_CLASSES = ("__ignore__", "_background_")

_LINES = ("line", "linestrip", "point", "points")
_LOOKED_AT = 1 << 13
_SPLITS = ("train", "val", "test")


def recognizes(path: Path) -> bool:
    """A JSON with ``shapes`` and ``imagePath``, or a folder (of folders) whose first JSON is one."""
    if path.is_file():
        return _looks_right(path)
    return any(_looks_right(file) for file in _first(path))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read one file, or all files of a folder and its subfolders.

    A folder without JSON files has a split in each of its folders, if these are named after train, val and test or if
    it has no ``labels.txt`` itself. Pictures are looked for where ``imagePath`` says, beside the JSON, and in
    ``images`` by either name.

    Raises:
        InputError: there is no such file; one is not of this format; pictures are missing or named outside the folder;
            objects are broken and ``strict``.
    """
    build = Builder(path, "labelme", strict=strict)
    roots = _roots(path)
    left: dict[str, list[str]] = {}
    order = dict.fromkeys(_class_names(path / LABELS)) if path.is_dir() else {}
    missing: list[str] = []
    total = 0
    for split, root in roots.items():
        build.split(split)
        order |= dict.fromkeys(_class_names(root / LABELS))
        files = [path] if path.is_file() else list(_jsons(root))
        if not files and not (root / LABELS).is_file():
            raise InputError(f"{path} holds no LabelMe files (JSON with shapes and imagePath).")
        total += len(files)
        for file in files:
            _read_file(build, file, root, split, images, left, missing)
    require_pictures(missing, total, path, [images] if images else list(roots.values()))
    return figures.leaving_out(build.done(order), left)


def write(path: Path, dataset: Dataset) -> None:
    """Write a JSON for every image, beside the place of its picture, and ``labels.txt``; a folder for each split.

    Polygons stay polygons (several parts: one group), run-lengths become shapes of type ``mask``, boxes without an
    outline rectangles. Ids, areas, and boxes that differ from their outline are not kept.

    Raises:
        InputError: a class name that cannot be a line of ``labels.txt`` or is reserved; the folder cannot be written.
    """
    names = dataset.taxonomy.names
    for name in names:
        if name in NO_CLASSES or name != name.strip() or len(name.splitlines()) != 1:
            raise InputError(f"LabelMe cannot have a class named {name!r}. Rename it (remap).")
    text = "\n".join((*NO_CLASSES, *names)) + "\n"
    for split, source in dataset.splits.items():
        root = path if split == WHOLE else path / inside_folder(split, path)
        with replacing(root / LABELS) as beside:
            beside.write_text(text, encoding="utf-8")
        taken: set[str] = set()
        for index in range(len(source)):
            record = resolve(source.record(index))
            key = inside_folder(record.key, path)
            name = str(PurePosixPath(key).with_suffix(".json"))
            name = key + ".json" if name in taken else name
            taken.add(name)
            figures.write_one_of_many(root / name, _document(record, names, PurePosixPath(key).name))


def picture(root: Path, split: str, record: Record) -> Path:
    """Beside its JSON."""
    return root / record.key if split == WHOLE else root / split / record.key


# ---- files ----------------------------------------------------------------------------------------------------------


def _looks_right(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        with open(path, "rb") as file:
            text = file.read(_LOOKED_AT)
            file.seek(max(0, path.stat().st_size - _LOOKED_AT))
            text += file.read(_LOOKED_AT)  # the picture's bytes may lie between
    except OSError:
        return False
    return text.lstrip()[:1] == b"{" and b'"imagePath"' in text and b'"shapes"' in text


def _first(path: Path) -> Iterable[Path]:
    """The first JSON of a folder and of each of its folders."""
    try:
        for folder in (path, *sorted(p for p in path.iterdir() if p.is_dir())):
            found = min(folder.glob("*.json"), default=None)
            if found is not None:
                yield found
    except OSError:
        return


def _roots(path: Path) -> dict[str, Path]:
    """Split -> folder."""
    if path.is_file():
        return {WHOLE: path.parent}
    if not path.is_dir():
        raise InputError(f"there is no file or folder {path}. Check its name.")
    if next(path.glob("*.json"), None) is not None:
        return {WHOLE: path}
    found = {p.name: p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    found = {name: p for name, p in found.items() if (p / LABELS).is_file() or next(_jsons(p), None) is not None}
    if (path / LABELS).is_file() and not all(any(word in name.lower() for word in _SPLITS) for name in found):
        return {WHOLE: path}
    return found or {WHOLE: path}


def _jsons(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (
            file for name in sorted(names) if not name.startswith(".") and _looks_right(file := Path(folder, name))
        )


def _class_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file in UTF-8 with a class on each line: {error}.") from error
    return [line.strip() for line in lines if line.strip() and line.strip() not in NO_CLASSES]


# ---- reading --------------------------------------------------------------------------------------------------------


def _read_file(
    build: Builder,
    file: Path,
    root: Path,
    split: str,
    images: Path | None,
    left: dict[str, list[str]],
    missing: list[str],
) -> None:
    data = read_json(file)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise InputError(f"{file} is not a LabelMe file: it must hold an object with the list shapes.")
    if not isinstance(data.get("imagePath"), str):
        raise InputError(
            f"{file} is not a LabelMe file: imagePath must be a text, got {str(data.get('imagePath'))[:60]}."
        )
    key, found = _picture(file, data["imagePath"], root, images)
    if found is None:
        missing.append(key)
        return
    height, width = data.get("imageHeight"), data.get("imageWidth")
    size = image_size(found) if height is None or width is None else figures.size_of(height, width, str(file))
    build.image(key, found, size, split=split)
    name = file.relative_to(root).as_posix()
    for label, parts, crowd, where in _objects(build, data["shapes"], size, name, left):
        boxes = [part.box for part in parts if isinstance(part, _Rectangle)]
        if len(boxes) < len(parts):
            outlines = [(figures.corners(part.box),) if isinstance(part, _Rectangle) else part for part in parts]
            build.object(label, figures.joined(outlines, size), where, crowd=crowd)
        else:
            ends = np.array(boxes)
            box = (*ends[:, :2].min(axis=0).tolist(), *ends[:, 2:].max(axis=0).tolist())
            build.object(label, None, where, box=box, crowd=crowd)


def _picture(file: Path, named: str, root: Path, images: Path | None) -> tuple[str, Path | None]:
    """The image's key and where it is."""
    plain = named.replace("\\", "/")
    base = plain.rpartition("/")[2]
    inside_folder(base or ".", file)
    relative = os.path.normpath((file.parent.relative_to(root) / plain).as_posix())
    outside = plain.startswith("/") or plain[1:2] == ":" or relative.startswith("..")
    if images is not None:
        names = [base] if outside else [relative, base]
        name = next((n for n in names if (images / n).is_file()), None)
        return (name or names[0]), (None if name is None else images / name)
    if not outside and (root / relative).is_file():
        return relative, root / relative
    if (file.parent / base).is_file():
        return (file.parent / base).relative_to(root).as_posix(), file.parent / base
    if outside:
        raise InputError(
            f"{file}: imagePath must stay inside the data set's folder, got {named[:120]!r}. "
            "Name the folder of the pictures with images= (--images)."
        )
    return relative, None


class _Rectangle(NamedTuple):
    box: figures.Box


_Part = Shape | _Rectangle


def _objects(
    build: Builder, shapes: list[Any], size: tuple[int, int], name: str, left: dict[str, list[str]]
) -> list[tuple[str, list[_Part], bool, str]]:
    """Label, parts, crowd and where, of each object in the order of its first shape."""
    out: dict[Any, tuple[str, list[_Part], bool, str]] = {}
    for position, raw in enumerate(shapes):
        where = f"{name} shape {position}"
        with figures.noting(build, where):
            kind = raw.get("shape_type") or "polygon"
            label = raw["label"]
            if not isinstance(label, str):
                raise figures.FigureError("no class name")
            if kind in _LINES or label in NO_CLASSES:
                left.setdefault(f"shapes that are no regions ({label if label in NO_CLASSES else kind})", []).append(
                    where
                )
                continue
            part = _part(raw, kind, size)
            group = raw.get("group_id")
            key = position if group is None else (label, str(group))
            crowd = isinstance(raw.get("flags"), dict) and bool(raw["flags"].get("crowd"))
            found = out.setdefault(key, (label, [], crowd, where))
            found[1].append(part)
    return list(out.values())


def _part(raw: dict[str, Any], kind: str, size: tuple[int, int]) -> _Part:
    points = raw["points"]
    if kind in ("polygon", "rotation"):
        return (figures.outline(points),)
    if kind == "rectangle":
        ends = np.array(points, np.float64)
        if ends.shape not in ((2, 2), (4, 2)):
            raise figures.FigureError("a rectangle that is not two or four corners")
        return _Rectangle(figures.box_of(*ends.min(axis=0).tolist(), *ends.max(axis=0).tolist()))
    if kind == "circle":
        (x, y), (at_x, at_y) = points
        radius = float(np.hypot(*(np.array(figures.finite((at_x, at_y))) - figures.finite((x, y)))))
        return (figures.ellipse(x, y, radius, radius),)
    if kind == "mask":
        x, y, *_ = figures.box_of(*points[0], *points[1])
        mask = figures.mask_png(base64.b64decode(raw["mask"], validate=True), size)
        return figures.placed(mask, round(x), round(y), size)
    raise figures.FigureError(f"a shape of an unknown type ({str(kind)[:40]})")


# ---- writing --------------------------------------------------------------------------------------------------------


def _document(record: Record, names: tuple[str, ...], file_name: str) -> dict[str, Any]:
    shapes: list[dict[str, Any]] = []
    group = 0
    for i, shape in enumerate(record.shapes):
        entry = {
            "label": names[int(record.labels[i])],
            "group_id": None,
            "description": "",
            "flags": {"crowd": True} if record.crowd[i] else {},
            "mask": None,
        }
        if shape is None:
            x1, y1, x2, y2 = record.boxes[i].tolist()
            shapes.append({**entry, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]})
        elif isinstance(shape, dict):
            mask, x, y = figures.cropped(shape, record.size)
            ends = [[x, y], [x + mask.shape[1] - 1, y + mask.shape[0] - 1]]
            shapes.append({**entry, "shape_type": "mask", "points": ends, "mask": _png(mask)})
        else:
            assert isinstance(shape, tuple)
            group += len(shape) > 1
            for ring in shape:
                number = group if len(shape) > 1 else None
                shapes.append({**entry, "group_id": number, "shape_type": "polygon", "points": ring.tolist()})
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": record.size[0],
        "imageWidth": record.size[1],
    }


def _png(mask: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
