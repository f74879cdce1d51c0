"""Pascal VOC: an XML of boxes an image, lists of splits, and PNGs of classes and of objects.

Everingham et al., The Pascal Visual Object Classes Challenge (IJCV 2010), and the devkit's documentation. Layout:
``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/{Main,Segmentation,...}/SPLIT.txt``, ``SegmentationClass/*.png``,
``SegmentationObject/*.png``; a ``labelmap.txt`` (``name:r,g,b:parts:actions``), as CVAT and datumaro add it, names
other classes than the 20.

- Boxes count pixels from 1 and include the last: ``xmin - 1`` and ``xmax`` are the corners. A data set in which any
  ``xmin`` or ``ymin`` is below 1 comes from a tool that counts from 0; there all boxes are taken as they are.
- ``difficult`` objects are objects like others: they are single things, only hard to see. ``<crowd>1</crowd>`` is what
  ``write`` adds for regions of many objects, beside ``difficult``, by which VOC's own measures ignore them.
- Class maps are ``semantic``. Their 255 is void, their 0 the class ``background``, which exists only where there are
  such maps, as the last one, and is no thing.
- The PNG of objects gives outlines; they are joined to the boxes of the XML by their number, class and overlap. A
  region without a box is an object of its own.
- Parts, poses, actions and points are left out. Of splits, one that is the union of others (``trainval``) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.pictures import by_stem, first_folder, pictures_in, require_pictures, stem
from maskwright.data.formats.tables import VOC_NAMES, voc_colors
from maskwright.data.formats.voc_masks import BACKGROUND, VOID_COLOR, Colors, joined_regions
from maskwright.data.formats.voc_write import picture, write
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import read_xml
from maskwright.structures import LabelMap, Taxonomy

__all__ = ["picture", "read", "recognizes", "write"]

_LOOKED_AT = 1 << 14
_LISTS = "ImageSets"
_SPLITS = ("train", "valid", "val", "test")


@dataclass(slots=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    crowd: bool
    where: str


@dataclass(slots=True)
class _Image:
    """What the XML of an image says; nothing where there is none."""

    name: str
    size: tuple[int, int] | None
    objects: list[_Object]


def recognizes(path: Path) -> bool:
    """A VOC XML, a folder of them, or a folder with VOC's subfolders, or a list or folder of ``ImageSets``."""
    if path.is_file():
        return _is_voc(path) or (path.suffix == ".txt" and path.parent.parent.name == _LISTS)
    if path.parent.name == _LISTS or path.name == _LISTS:
        return True
    if any((path / name).is_dir() for name in (f"{_LISTS}/Main", f"{_LISTS}/Segmentation")):
        return True
    for folder in (path / "Annotations", path, *(path / name for name in _SPLITS)):
        files = sorted(folder.glob("*.xml"))[:20] if folder.is_dir() else []
        if any(map(_is_voc, files)):
            return True
    return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a data set, one of its lists (``.../ImageSets/Main/train.txt``), the lists of one task
    (``.../ImageSets/Segmentation``), a folder of XMLs beside their pictures, or one XML.

    Raises:
        InputError: nothing of VOC is there; an XML or list cannot be read; pictures are not on disk; the size of an
            image is not known; objects cannot be used and ``strict``.
    """
    root, lists, only = _layout(path)
    marks = _folder(root, "Annotations")
    xmls = {only.stem: only} if only else _xmls(marks)
    pictures, looked = _pictures(root, marks, images)
    splits = _splits(lists, {*xmls, *pictures}) if lists else _folders(list(xmls) or list(pictures))
    if not lists and not xmls and not (root / "SegmentationClass").is_dir():
        raise InputError(f"{path} holds no Pascal VOC data set: neither annotations (XML) nor lists of images.")
    parsed = {name: _parse(xmls[name]) for names in splits.values() for name in names if name in xmls}
    for name, image in parsed.items():
        if name not in pictures and stem(image.name) in pictures:
            pictures[name] = pictures[stem(image.name)]
    missing = [name for names in splits.values() for name in names if name not in pictures]
    require_pictures(missing, sum(map(len, splits.values())), path, looked)

    maps = {name: file for name, (_, file) in by_stem(pictures_in(root / "SegmentationClass", (".png",))).items()}
    shapes = {name: file for name, (_, file) in by_stem(pictures_in(root / "SegmentationObject", (".png",))).items()}
    used = dict.fromkeys(o.name for image in parsed.values() for o in image.objects if o.name)
    taxonomy = _taxonomy(root, list(used), with_background=bool(maps), path=path)
    colors = Colors(taxonomy, from_colors=(root / "labelmap.txt").is_file())
    shift = 0.0 if any(min(o.box[:2]) < 1 for image in parsed.values() for o in image.objects) else 1.0
    build = Builder(path, "voc", taxonomy, strict=strict)
    for split, names in splits.items():
        build.split(split)
        for name in names:
            key, file = pictures[name]
            image = parsed.get(name) or _Image(key, None, [])
            size = image.size or image_size(file)
            semantic = LabelMap(path=maps[name], **colors.of_map(maps[name])) if name in maps else None
            build.image(key, file, size, split=split, semantic=semantic)
            _objects(build, image, size, shift, maps.get(name), shapes.get(name), colors)
    return build.done()


def _objects(
    build: Builder,
    image: _Image,
    size: tuple[int, int],
    shift: float,
    classes: Path | None,
    regions: Path | None,
    colors: Colors,
) -> None:
    boxes = [(o.box[0] - shift, o.box[1] - shift, o.box[2], o.box[3]) for o in image.objects]
    outlines: dict[int, Any] = {}
    alone: list[tuple[str, Any]] = []
    if regions is not None:
        outlines, alone = joined_regions(regions, classes, size, [o.name for o in image.objects], boxes, colors)
    for i, one in enumerate(image.objects):
        build.object(one.name, outlines.get(i), one.where, box=boxes[i], crowd=one.crowd)
    for name, shape in alone:
        build.object(name, shape, f"{regions}")


# ---- what lies where ------------------------------------------------------------------------------------------------


def _layout(path: Path) -> tuple[Path, list[Path], Path | None]:
    """The root, the lists to read, and the only XML."""
    if path.is_file() and path.suffix.lower() == ".xml":
        parent = path.parent
        return (parent.parent if parent.name == "Annotations" else parent), [], path
    if path.is_file():
        return path.parent.parent.parent, [path], None
    if path.parent.name == _LISTS:
        return path.parent.parent, _lists([path]), None
    root = path.parent if path.name == _LISTS else path
    tasks = sorted(p for p in (root / _LISTS).iterdir() if p.is_dir()) if (root / _LISTS).is_dir() else []
    return root, _lists([*tasks, root / _LISTS]), None


def _lists(tasks: list[Path]) -> list[Path]:
    """The lists of splits, without those of one class (``Main/dog_train.txt``: names with -1, 0 or 1)."""
    out: list[Path] = []
    for task in tasks:
        files = sorted(task.glob("*.txt")) if task.is_dir() else []
        splits = {file.stem for file in files}
        for file in files:
            of_class = any(file.stem.endswith(f"_{split}") for split in splits)
            first = next(iter(_lines(file)), "") if of_class else ""
            if not of_class or (first and first.split()[-1] not in ("-1", "0", "1")):
                out.append(file)
    return out


def _lines(file: Path) -> list[str]:
    """The lines that say something, without comments."""
    try:
        lines = map(str.strip, file.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} must be a list of images, a name a line, in UTF-8: {error}.") from error
    return [line for line in lines if line and not line.startswith("#")]


def _folder(root: Path, name: str) -> Path:
    return first_folder([root / name]) or root


def _xmls(folder: Path) -> dict[str, Path]:
    return {name: file for name, (_, file) in by_stem(pictures_in(folder, (".xml",))).items()}


def _pictures(root: Path, marks: Path, images: Path | None) -> tuple[dict[str, tuple[str, Path]], list[Path]]:
    if images is not None and not images.is_dir():
        raise InputError(f"the folder of images must be a directory, got {images}")
    folders = [root / name for name in ("JPEGImages", "images", "Images")]
    folder = images or first_folder(folders)
    if folder is None:
        found = pictures_in(marks)
        folder = marks if found or marks == root else root
        if folder != marks:
            found = {name: path for name, path in pictures_in(root).items() if "/" not in name}
        return by_stem(found), [folder]
    return by_stem(pictures_in(folder)), [folder]


def _splits(lists: list[Path], known: set[str]) -> dict[str, list[str]]:
    splits: dict[str, dict[str, None]] = {}
    for file in lists:
        names = splits.setdefault(file.stem, {})
        for line in _lines(file):
            # Names may hold spaces, and numbers may follow them.
            names[inside_folder(line if line in known else line.split()[0], file)] = None
    plain = {split: set(names) for split, names in splits.items()}
    for split in list(splits):
        others = [s for name, s in plain.items() if name != split and s < plain[split]]
        if len(others) > 1 and set().union(*others) == plain[split]:
            del splits[split]
    return {split: list(names) for split, names in splits.items()}


def _folders(names: list[str]) -> dict[str, list[str]]:
    """Folders ``train``, ``valid`` and so on are splits where all names lie in such."""
    heads = [name.partition("/")[0] for name in names if "/" in name]
    if len(heads) < len(names) or not set(heads) <= set(_SPLITS):
        return {WHOLE: names}
    return {head: [name for name in names if name.startswith(f"{head}/")] for head in dict.fromkeys(heads)}


def _taxonomy(root: Path, used: list[str], *, with_background: bool, path: Path) -> Taxonomy:
    """Named classes first (``labelmap.txt``, else VOC's 20 where no other is used), then background."""
    file = root / "labelmap.txt"
    colors: dict[str, tuple[int, int, int]] = {}
    if file.is_file():
        colors = _labelmap(file)
        for name in used:
            colors.setdefault(name, (0, 0, 0))
    else:
        known = set(used) <= {*VOC_NAMES, BACKGROUND}
        names = [*VOC_NAMES, *(n for n in used if n == BACKGROUND)] if known else sorted(used)
        if not known and with_background:
            raise InputError(
                f"{path}: the class maps need a labelmap.txt (name:r,g,b:: a line), because the classes are not "
                f"VOC's 20: {', '.join(sorted(set(used) - set(VOC_NAMES))[:5])}."
            )
        if not known:
            return Taxonomy(names=tuple(names))
        colors = dict(zip(names, voc_colors(len(names) + 1)[1:], strict=True))
    if BACKGROUND in used or with_background:
        colors[BACKGROUND] = colors.pop(BACKGROUND, (0, 0, 0))
    else:
        colors.pop(BACKGROUND, None)
    return Taxonomy(
        names=tuple(colors),
        colors=tuple(colors.values()),
        thing=tuple(name != BACKGROUND for name in colors),
        source_ids=tuple((i + 1) if name != BACKGROUND else 0 for i, name in enumerate(colors)),
    )


def _labelmap(file: Path) -> dict[str, tuple[int, int, int]]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} must list classes, name:r,g,b:parts:actions a line, in UTF-8: {error}.") from error
    out: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, 1):
        # The name may hold colons; the three fields after it may not.
        fields = line.rsplit(":", 3)
        if not line.strip():
            continue
        try:
            r, g, b = (int(v) for v in fields[1].split(","))
            if len(fields) != 4 or not all(0 <= v <= 255 for v in (r, g, b)) or not fields[0].strip():
                raise ValueError(line)
        except (IndexError, ValueError) as error:
            if line.startswith("#"):
                continue
            raise InputError(f"{file}:{number}: a class must be name:r,g,b:parts:actions, got {line[:80]!r}") from error
        if fields[0] in out:
            raise InputError(f"{file}:{number}: the class {fields[0]!r} is there twice.")
        if (r, g, b) != VOID_COLOR:
            out[fields[0]] = (r, g, b)
    return out


# ---- one XML --------------------------------------------------------------------------------------------------------


def _is_voc(path: Path) -> bool:
    if path.suffix.lower() != ".xml":
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return False
    return b"<annotation" in head and b"<polygon" not in head and (b"<bndbox" in head or b"<segmented" in head)


def _parse(path: Path) -> _Image:
    root = read_xml(path)
    if root.tag != "annotation":
        raise InputError(f"{path} is not a Pascal VOC annotation: its root must be <annotation>, got <{root.tag[:60]}>")
    size: tuple[int, int] | None = None
    node = root.find("size")
    if node is not None:
        found = _numbers(node, ("height", "width"))
        if found is None or not all(0 < v < 1 << 31 and v == int(v) for v in found):
            raise InputError(f"{path}: <size> must have a positive whole <height> and <width>.")
        size = (int(found[0]), int(found[1]))
    objects: list[_Object] = []
    for number, entry in enumerate(root.findall("object"), 1):
        box = entry.find("bndbox")
        corners = None if box is None else _numbers(box, ("xmin", "ymin", "xmax", "ymax"))
        nan = float("nan")
        x1, y1, x2, y2 = corners or (nan, nan, nan, nan)
        objects.append(
            _Object(
                name=(entry.findtext("name") or "").strip(),
                box=(x1, y1, x2, y2),
                crowd=(entry.findtext("crowd") or "").strip() == "1",
                where=f"{path.name} object {number}",
            )
        )
    return _Image((root.findtext("filename") or "").strip(), size, objects)


def _numbers(node: Element, names: tuple[str, ...]) -> list[float] | None:
    try:
        return [float((node.findtext(name) or "").strip()) for name in names]
    except ValueError:
        return None
