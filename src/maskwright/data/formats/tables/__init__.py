"""The official class tables of public data sets, kept as JSON beside this file: names, ids, colors, things."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from maskwright.storage import read_json
from maskwright.structures import Taxonomy

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of Pascal VOC in the order of its devkit (Everingham et al. 2010), numbered from 1 in its pictures."""


def voc() -> Taxonomy:
    """The 20 classes of Pascal VOC with the devkit's colors; source ids are the values of its class maps."""
    colors = voc_colors(21)
    return Taxonomy(names=VOC_NAMES, colors=colors[1:], source_ids=tuple(range(1, 21)))


def voc_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """The first ``count`` (to 256) colors of the VOC devkit's map: the bits of a number, three at a time, dealt to red,
    green and blue from their highest bits on."""
    out: list[tuple[int, int, int]] = []
    for number in range(count):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
        out.append((channels[0], channels[1], channels[2]))
    return tuple(out)


def coco_things() -> Taxonomy:
    """The 80 object classes of COCO; source ids are its category ids, 1 to 90 with ten gaps."""
    return _taxonomy(row for row in _rows("coco_panoptic") if row["isthing"])


def coco_panoptic() -> Taxonomy:
    """The 133 classes of COCO panoptic: 80 things and 53 stuff classes, ids 1 to 200 with gaps."""
    return _taxonomy(_rows("coco_panoptic"))


def coco_stuff(*, things: bool = True) -> Taxonomy:
    """The classes of COCO-Stuff: 80 things (unless turned off), then 91 stuff classes with ids 92 to 182."""
    stuff = [{**row, "isthing": 0} for row in _rows("coco_stuff")]
    rows = [{"id": r["id"], "name": r["name"], "isthing": 1} for r in _rows("coco_panoptic") if r["isthing"]]
    return _taxonomy([*(rows if things else ()), *stuff])


def ade20k() -> Taxonomy:
    """The 150 classes of the ADE20K scene parsing benchmark; source ids are the values 1 to 150 of its maps.

    A name is the first of the synonyms that the official table lists for a class.
    """
    return _taxonomy({**row, "name": row["name"].split(",")[0]} for row in _rows("ade20k_150"))


@cache
def _table(name: str) -> dict[str, Any]:
    return read_json(Path(__file__).parent / f"{name}.json")


def _rows(name: str) -> list[dict[str, Any]]:
    table = _table(name)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _taxonomy(rows: Any) -> Taxonomy:
    rows = list(rows)
    colors = [tuple(row["color"]) for row in rows if "color" in row]
    return Taxonomy(
        names=tuple(row["name"] for row in rows),
        thing=tuple(bool(row["isthing"]) for row in rows),
        colors=tuple(colors) if len(colors) == len(rows) else (),
        source_ids=tuple(row["id"] for row in rows),
    )
