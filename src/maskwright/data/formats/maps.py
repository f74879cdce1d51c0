"""What formats whose labels are pictures share: files paired by name, values cut into objects, colors as classes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.data.formats.build import Builder
from maskwright.data.io import SUFFIXES, open_image
from maskwright.data.label_maps import read_map, to_labels
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import LabelMap, MapForm, Taxonomy

MAPS = (".png", ".tif", ".tiff", ".bmp")
"""Endings of the lossless pictures that labels are kept in."""

MOST_OBJECTS = 1 << 17
"""Of one map; more is a picture taken for a map, or a whole slide that should be tiled."""

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a value of a map stands for: an object of a class."""

    name: str
    crowd: bool = False
    track: int | None = None


# ---- files ----------------------------------------------------------------------------------------------------------


def careful(check: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """The same check of a path, ``False`` where it would raise because something cannot be looked at."""

    @wraps(check)
    def recognizes(path: Path) -> bool:
        try:
            return check(path)
        except (OSError, ValueError):  # InputError is a ValueError
            return False

    return recognizes


def files(folder: Path, suffixes: Sequence[str] = SUFFIXES, *, deep: bool = True) -> dict[str, Path]:
    """Name without ending, relative to the folder -> file, sorted; also those of subfolders if ``deep``.

    Hidden files and folders are passed over; of two files that differ in their ending the first is taken.
    """
    found: dict[str, Path] = {}
    for root, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if deep and not name.startswith("."))
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() in suffixes and not name.startswith("."):
                path = Path(root, name)
                found.setdefault(path.relative_to(folder).with_name(stem).as_posix(), path)
    return dict(sorted(found.items()))


def holds(folder: Path, *patterns: str) -> bool:
    """Whether something in the folder matches one of the patterns; ``False`` where it cannot be looked at."""
    try:
        return any(next(folder.glob(pattern), None) is not None for pattern in patterns)
    except (OSError, ValueError, IndexError):
        return False


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def number_of(name: str) -> int | None:
    """The last number in a name: the frame it stands for; ``None`` where there is none or it has over 18 digits."""
    digits = re.findall(r"[0-9]+", name)
    return int(digits[-1]) if digits and len(digits[-1]) <= 18 else None


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file; ``InputError`` names it when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error


def paired(
    build: Builder, pictures: Mapping[str, Path], maps: Mapping[str, Path], split: str
) -> Iterator[tuple[str, Path, Path | None]]:
    """Every picture with its map, by name.

    A map without a picture is a problem. So is a picture without a map, but for splits whose name begins with ``test``
    and splits without any map, whose labels are withheld.
    """
    build.split(split)
    withheld = split.startswith("test") or not maps
    for name, picture in pictures.items():
        found = maps.get(name)
        if found is None and not withheld:
            build.problem("a picture that has no labels", str(picture))
            continue
        yield name, picture, found
    for name in maps.keys() - pictures.keys() if pictures.keys() != maps.keys() else ():
        build.problem("labels whose picture is missing", str(maps[name]))


def first_existing(candidates: Iterable[Path]) -> Path | None:
    """The first that is a folder."""
    return next((path for path in candidates if path.is_dir()), None)


# ---- values ---------------------------------------------------------------------------------------------------------


def present(numbers: np.ndarray) -> np.ndarray:
    """The distinct values of a map, rising."""
    flat = numbers.reshape(-1)
    if flat.size and flat.min() >= 0 and flat.max() < 1 << 22:
        return np.flatnonzero(np.bincount(flat))
    return np.unique(flat)


def cut(numbers: np.ndarray, values: np.ndarray) -> list[dict[str, object]]:
    """The run-lengths of each of ``values`` (distinct) in a map [H, W]."""
    size = (int(numbers.shape[0]), int(numbers.shape[1]))
    found = rle.to_coco(*encode_map(numbers, values), size)
    return [{"size": size, "counts": item["counts"].encode("ascii")} for item in found]


def add_objects(
    build: Builder, numbers: np.ndarray, meaning: Callable[[int], Meaning | None], where: str,
    values: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Add an object for every value of a map that means one, in rising order.

    Args:
        build: the image is begun.
        numbers: integers [H, W].
        meaning: what a value stands for, ``None`` for no object.
        where: what names the map in messages.
        values: the map's distinct values, if they are known.

    Raises:
        InputError: the map has more values than ``MOST_OBJECTS``.
    """
    values = present(numbers) if values is None else values
    if len(values) > MOST_OBJECTS:
        raise InputError(
            f"{where} has {len(values)} distinct values, more than the {MOST_OBJECTS} objects that a map may have. "
            "Is it a map of labels, and not a picture? Cut larger ones into tiles."
        )
    meant = [(value, found) for value in values.tolist() if (found := meaning(value)) is not None]
    shapes = cut(numbers, np.array([value for value, _ in meant], np.int64))
    for (value, found), shape in zip(meant, shapes, strict=True):
        build.object(found.name, shape, f"{where} value {value}", crowd=found.crowd, track=found.track)


# ---- colors ---------------------------------------------------------------------------------------------------------


def rgb_value(color: Color) -> int:
    """The number of a color in a map of form ``rgb``."""
    return color[0] + 256 * color[1] + 65536 * color[2]


def color_classes(taxonomy: Taxonomy) -> dict[int, int]:
    """Color -> dense label; of classes with one color the first."""
    out: dict[int, int] = {}
    for label, color in enumerate(taxonomy.colors):
        out.setdefault(rgb_value(color), label)
    return out


def check_classes(source: LabelMap, void: Iterable[int] = (0,)) -> None:
    """Read one map of a data set and see that its values are those of the table.

    Raises:
        InputError: more than half of its pixels have values that stand for nothing.
    """
    numbers = read_map(source.path, source.form)
    known = np.isin(numbers, np.array([*(source.classes or {}), *void], np.int64))
    if numbers.size and not known.mean() >= 0.5:
        values, counts = np.unique(numbers[~known], return_counts=True)
        most = int(values[counts.argmax()])
        shown = f"({most & 255}, {most >> 8 & 255}, {most >> 16})" if source.form == "rgb" else str(most)
        raise InputError(
            f"{source.path}: {1 - known.mean():.0%} of the pixels have values that stand for no class, most often "
            f"{shown}. Is the table of classes that of this data set?"
        )


def read_colors(path: Path) -> list[tuple[str, Color]]:
    """(class name, color) of a text file with lines ``r g b name`` or ``name r g b``, or a table with those columns.

    Raises:
        InputError: the file cannot be read, holds another kind of line, or names a class twice; names file and line.
    """
    out: list[tuple[str, Color]] = []
    for number, line in enumerate(lines(path), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        for color, name in ((words[:3], words[3:]), (words[-3:], words[:-3])):
            if name and len(color) == 3 and all(w.isascii() and w.isdigit() and int(w) < 256 for w in color):
                out.append((" ".join(name), (int(color[0]), int(color[1]), int(color[2]))))
                break
        else:
            if number > 1 or not any(w.lower() in ("r", "red", "g", "b", "r,g,b", "category", "name") for w in words):
                raise InputError(f"{path}:{number}: a line must be a color and a class (r g b name), got {line[:60]!r}")
    names = [name for name, _ in out]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: a class must be there once, but these repeat: {', '.join(twice[:5])}")
    if not out:
        raise InputError(f"{path} names no classes. It must have lines: r g b name.")
    return out


# ---- reading maps ---------------------------------------------------------------------------------------------------


def read_flat(path: Path, size: tuple[int, int] | None = None, form: MapForm = "index") -> np.ndarray:
    """``read_map`` of a file that must have one page; ``InputError`` for volumes, which are not read as pictures."""
    with open_image(path) as image:
        pages = int(getattr(image, "n_frames", 1))
    if pages != 1:
        raise InputError(
            f"{path} has {pages} pages: a volume or a film, not one map of labels. Save the pages you mean one by one."
        )
    return read_map(path, form, size)


def header(path: Path) -> tuple[str, tuple[int, int]]:
    """The mode (as PIL names it) and (H, W) of a picture, its pixels not read; ``InputError`` as ``open_image``."""
    with open_image(path) as image:
        return image.mode, (image.size[1], image.size[0])


def palette_of(path: Path) -> list[Color]:
    """The colors of a picture's palette; none where it has no palette."""
    with open_image(path) as image:
        flat = image.getpalette("RGB") if image.mode == "P" else None
    flat = flat or []
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]


def lookup(numbers: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """Dense labels int16 [H, W] of numbers, -1 where void."""
    return to_labels(numbers, classes)


def as_picture(array: np.ndarray) -> Image.Image:
    """A map of small non-negative integers as a gray picture: 8 bits where they suffice, else 16."""
    if array.size and (array.min() < 0 or array.max() >= 1 << 16):
        raise InputError(f"a map of 16 bits holds values 0..65535, got {int(array.min())}..{int(array.max())}")
    return Image.fromarray(np.ascontiguousarray(array, np.uint8 if array.max(initial=0) < 256 else np.uint16))
