"""The polygon files of Cityscapes: drawn as its tools draw them, and written so that they draw to given pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskwright.data.formats.build import Builder, ring
from maskwright.data.formats.cityscapes_labels import BY_ID, BY_NAME, LICENSE_PLATE
from maskwright.data.formats.maps import cut, present
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.storage import read_json

_RADIX = 1000
_MOST_POINTS = 100_000  # of one polygon; drawing takes time in proportion to rows x points
_GROUP = "group"


def draw_polygons(build: Builder, path: Path, size: tuple[int, int]) -> np.ndarray:
    """The instance ids int32 [H, W] of a polygon file, drawn in order, later objects over earlier ones.

    Objects that cannot be used are noted in ``build``.

    Raises:
        InputError: the file is not of this form, or for a picture of another size.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("objects"), list):
        raise InputError(f"{path} must hold imgHeight, imgWidth and a list of objects.")
    stated = (data.get("imgHeight"), data.get("imgWidth"))
    if stated != size:
        raise InputError(f"{path} is for a picture of {stated[0]}x{stated[1]} (height x width), which has {size}.")
    canvas = Image.new("I", (size[1], size[0]), 0)
    pen = ImageDraw.Draw(canvas)
    met: dict[int, int] = {}
    for number, item in enumerate(data["objects"]):
        where = f"{path} object {number}"
        if not isinstance(item, dict) or not isinstance(item.get("label"), str):
            build.problem("no label", where)
            continue
        if item.get("deleted") or item["label"] == LICENSE_PLATE:
            continue
        ident, group = _named(item["label"])
        if ident is None:
            build.problem(f"a class that is not known ({item['label'][:60]!r})", where)
            continue
        points = ring(item.get("polygon"))
        wrong = "a polygon that is not at least three points" if points is None else _wrong(points, size)
        if points is None or wrong:
            build.problem(wrong, where)
            continue
        value = ident
        if BY_ID[ident].instances and not group:
            value = ident * _RADIX + met.setdefault(ident, 0)
            met[ident] += 1
        pen.polygon([(float(x), float(y)) for x, y in points.tolist()], fill=value)
    return np.asarray(canvas, np.int32)


def polygons_of(ids: np.ndarray) -> dict[str, Any]:
    """The polygon file of a map of instance ids [H, W]: it draws to the same pixels.

    Every connected region is an object of its own, so a thing of several parts stays one object in the PNGs only.
    Regions are ordered from large outlines to small ones: what lies in the hole of another is drawn after it.
    """
    size = (int(ids.shape[0]), int(ids.shape[1]))
    rings: list[tuple[float, int, np.ndarray]] = []
    values = present(ids)
    for value, shape in zip(values.tolist(), cut(ids, values), strict=True):
        for outline in polygons.outlines(rle.decompress(shape["counts"]), size):  # pyright: ignore[reportArgumentType]
            area = polygons.signed_area(outline)
            if area > 0:
                rings.append((area, value, outline))
    rings.sort(key=lambda row: -row[0])
    objects = [
        {"label": _name(value), "polygon": _centers(outline).tolist()}
        for _, value, outline in rings
    ]  # fmt: skip
    return {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}


def _name(value: int) -> str:
    row = BY_ID[value // _RADIX if value >= _RADIX else value]
    return row.name + (_GROUP if row.instances and value < _RADIX else "")


def _named(label: str) -> tuple[int | None, bool]:
    """The id of a label, and whether it is a group."""
    if label in BY_NAME:
        return BY_NAME[label].ident, False
    row = BY_NAME.get(label.removesuffix(_GROUP))
    return (row.ident, True) if label.endswith(_GROUP) and row is not None and row.instances else (None, False)


def _wrong(points: np.ndarray, size: tuple[int, int]) -> str:
    far = np.array((size[1], size[0]))
    if not np.isfinite(points).all():
        return "a coordinate that is not finite"
    if len(points) > _MOST_POINTS:
        return f"a polygon of more than {_MOST_POINTS} points"
    return "a polygon far outside its picture" if (points < -far).any() or (points > 2 * far).any() else ""


def _centers(outline: np.ndarray) -> np.ndarray:
    """An outer ring along pixel edges as the ring through the centers of its border pixels, int64 [K, 2].

    PIL names pixels by their numbers and draws the border, so this ring covers what the other one encloses.
    """
    following = np.roll(outline, -1, axis=0)
    step = np.sign(following - outline)  # the mask lies at the right hand: below a step to the right
    inward = np.stack([np.where(step[:, 1] > 0, -1, 0), np.where(step[:, 0] < 0, -1, 0)], axis=1)
    before = np.roll(inward, 1, axis=0)
    vertical = step[:, 1] != 0
    shift = np.stack(
        [np.where(vertical, inward[:, 0], before[:, 0]), np.where(vertical, before[:, 1], inward[:, 1])], axis=1
    )
    return (outline + shift).astype(np.int64)
