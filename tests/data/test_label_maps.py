"""Maps in files: their forms, their errors, and records that refer to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats.coco import read_coco, write_coco
from maskwright.data.label_maps import read_labels, read_map, resolve, to_labels
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import LabelMap, Record, Region, Taxonomy
from tests.data.make import record

IDS = np.array([[0, 1, 300], [70000, 1, 300]], np.int32)


def rgb(path: Path, ids: np.ndarray) -> Path:
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)
    return path


def test_forms(tmp_path: Path) -> None:
    assert np.array_equal(read_map(rgb(tmp_path / "a.png", IDS), "rgb"), IDS)
    deep = IDS.astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    assert np.array_equal(read_map(tmp_path / "b.png"), deep)
    palette = Image.fromarray(np.array([[0, 2], [1, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 9, 1, 0, 255, 0, 3])
    palette.save(tmp_path / "c.png")
    assert read_map(tmp_path / "c.png").tolist() == [[0, 2], [1, 1]]
    assert read_map(tmp_path / "c.png", "rgb").tolist() == [[0, 255 + 3 * 65536], [265, 265]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "d.png")
    assert read_map(tmp_path / "d.png").tolist() == [[1, 0]]


def test_what_is_no_map(tmp_path: Path) -> None:
    path = rgb(tmp_path / "a.png", IDS)
    with pytest.raises(InputError, match="one channel"):
        read_map(path)
    with pytest.raises(InputError, match=r"2x4.*got 2x3"):
        read_map(path, "rgb", (2, 4))
    with pytest.raises(InputError, match="no such picture"):
        read_map(tmp_path / "none.png")
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="must be an RGB picture"):
        read_map(tmp_path / "b.png", "rgb")
    cut = path.read_bytes()
    path.write_bytes(cut[: len(cut) - 30])
    with pytest.raises(InputError, match=r"a\.png"):
        read_map(path, "rgb")


def test_values_become_labels() -> None:
    numbers = np.array([[0, 7, 255], [8, 70000, -1]])
    assert to_labels(numbers, {7: 0, 8: 1}).tolist() == [[-1, 0, -1], [1, -1, -1]]
    assert to_labels(numbers, {7: 0, 70000: 2, -1: 3}).tolist() == [[-1, 0, -1], [-1, 2, 3]]
    assert to_labels(numbers, {}).tolist() == [[-1] * 3] * 2


def panoptic(tmp_path: Path) -> Record:
    path = rgb(tmp_path / "a.png", IDS)
    shapes = [Region(path, "rgb", 1), Region(path, "rgb", 300), Region(path, "rgb", 300), Region(path, "rgb")]
    base = record((2, 3), shapes, boxes=[(1, 0, 2, 2), (2, 0, 3, 2), (2, 0, 3, 2), (0, 0, 3, 2)], first_id=1)
    ids = np.array([1, 300, 5, 6])
    return replace(
        base,
        ids=ids,
        semantic=LabelMap(path=path, form="rgb", classes={300: 1}),
        panoptic=LabelMap(path=path, form="rgb"),
    )


def test_resolving(tmp_path: Path) -> None:
    found = resolve(panoptic(tmp_path))
    masks = [
        rle.decode(*rle.from_coco([shape], (2, 3)), (2, 3))[0] for shape in found.shapes if isinstance(shape, dict)
    ]
    assert [m.tolist() for m in masks] == [
        (IDS == 1).tolist(),
        (IDS == 300).tolist(),
        (IDS == 300).tolist(),
        (IDS > 0).tolist(),
    ]
    assert isinstance(found.semantic, np.ndarray)
    assert found.semantic.tolist() == [[-1, -1, 1], [-1, -1, 1]]
    assert isinstance(found.panoptic, np.ndarray)
    assert found.panoptic.tolist() == [[0, 1, 300], [0, 1, 300]]  # 70000 is nobody's
    assert resolve(found) is found


def test_a_table_keeps_them(tmp_path: Path) -> None:
    one = replace(panoptic(tmp_path), tracks=np.array([4, -1, 5, 6]), sequence="clip", frame=3)
    table = Table()
    table.add_record(one)
    table.add_record(record((2, 3), []))
    back = table.record(0)
    assert back.shapes == one.shapes
    assert (back.semantic, back.panoptic, back.sequence, back.frame) == (one.semantic, one.panoptic, "clip", 3)
    assert back.tracks is not None
    assert back.tracks.tolist() == [4, -1, 5, 6]
    assert (table.record(1).semantic, table.record(1).sequence) == (None, None)
    table.relabel(np.array([2, 1]))
    assert table.record(0).labels.tolist() == [2, 2, 2, 2]


def test_writing_coco_resolves_them(tmp_path: Path) -> None:
    write_coco(tmp_path / "out.json", [panoptic(tmp_path)], Taxonomy(names=("cell",)))
    back = read_coco(tmp_path / "out.json").record(0)
    assert [s["counts"] for s in back.shapes if isinstance(s, dict)] == [
        s["counts"] for s in resolve(panoptic(tmp_path)).shapes if isinstance(s, dict)
    ]


def test_labels_of_ids_are_refused(tmp_path: Path) -> None:
    path = rgb(tmp_path / "a.png", IDS)
    assert read_labels(LabelMap(path=path, form="rgb", classes={1: 0})).max() == 0
    with pytest.raises(InputError, match="not of classes"):
        read_labels(LabelMap(path=path, form="rgb"))
