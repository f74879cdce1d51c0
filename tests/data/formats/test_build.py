"""What all readers share: names, boxes, areas, ids, problems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.data.dataset import WHOLE
from maskwright.data.formats.build import Builder, inside_folder, ring
from maskwright.errors import InputError
from maskwright.structures import Region, Taxonomy

SQUARE = (np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float64),)


def test_names_become_labels_in_alphabetical_order(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy")
    build.image("b.png", tmp_path / "b.png", (5, 6), split="train")
    assert build.object("owl", SQUARE, "b.png:1", track=7)
    assert build.object("cat", None, "b.png:2", box=(0, 0, 2, 2), crowd=True, ident=9)
    build.split("test")
    made = build.done(order=("zebra",))
    assert made.taxonomy.names == ("zebra", "cat", "owl")
    assert list(made.splits) == ["train", "test"]
    found = made.splits["train"].record(0)
    assert found.labels.tolist() == [2, 1]
    assert found.boxes.tolist() == [[1, 1, 4, 3], [0, 0, 2, 2]]
    assert found.areas.tolist() == [6, 4]
    assert found.ids.tolist() == [1, 9]
    assert found.crowd.tolist() == [False, True]
    assert found.tracks is not None
    assert found.tracks.tolist() == [7, -1]
    assert len(made) == 1
    assert len(made.splits["test"]) == 0


def test_ids_given_and_made_do_not_meet(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy")
    build.image("b.png", tmp_path, (5, 6))
    for ident in (2, None, None, 1):
        build.object("a", SQUARE, f"object {ident}", ident=ident)
    with pytest.raises(InputError, match="1 with an id that was used before: object 1"):
        build.done()


BAD = [
    ("an odd name", {"name": " ", "shape": SQUARE}),
    ("no outline", {"name": "a", "shape": None}),
    ("two points", {"name": "a", "shape": (np.zeros((2, 2)),)}),
    ("not finite", {"name": "a", "shape": (SQUARE[0] * np.nan,)}),
    ("far away", {"name": "a", "shape": (SQUARE[0] * 100,)}),
    ("no area", {"name": "a", "shape": (np.array([[1, 1], [2, 1], [3, 1]], float),)}),
    ("other runs", {"name": "a", "shape": {"size": (9, 9), "counts": b"91"}}),
    ("a box", {"name": "a", "shape": None, "box": (0, 0, np.inf, 2)}),
    ("flat box", {"name": "a", "shape": None, "box": (0, 0, 0, 2)}),
    ("a region", {"name": "a", "shape": Region(Path("x.png"), "index", 1)}),
]


@pytest.mark.parametrize(("what", "wrong"), BAD, ids=[what for what, _ in BAD])
def test_problems_are_counted_and_named(tmp_path: Path, what: str, wrong: dict) -> None:
    for strict in (True, False):
        build = Builder(tmp_path, "toy", strict=strict)
        build.image("b.png", tmp_path, (5, 6))
        for i in range(7):
            assert not build.object(where=f"line {i}", **wrong)
        assert build.object("a", SQUARE, "line 8")
        if strict:
            with pytest.raises(InputError, match=r"7 with .*line 0, line 1, line 2, line 3, line 4, \.\.\."):
                build.done()
        else:
            made = build.done()
            assert [len(where) for where in made.dropped.values()] == [7]
            assert len(made.splits[WHOLE].record(0)) == 1


def test_a_taxonomy_refuses_other_names(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy", Taxonomy(names=("cat",)), strict=False)
    build.image("b.png", tmp_path, (5, 6))
    assert not build.object("dog", SQUARE, "here")
    assert build.done().dropped == {"a class that is not known ('dog')": ["here"]}


def test_pictures_are_named_once_and_inside(tmp_path: Path) -> None:
    build = Builder(tmp_path, "toy")
    build.image("b.png", tmp_path, (5, 6))
    build.image("b.png", tmp_path, (5, 6), split="val")
    with pytest.raises(InputError, match=r"b\.png is there twice"):
        build.image("b.png", tmp_path, (5, 6))
    with pytest.raises(InputError, match="positive"):
        build.image("c.png", tmp_path, (0, 6))
    for name in ("/etc/x.png", "../x.png", "a/../../x.png", "C:\\x.png", "..\\x.png", "", "a\0b"):
        with pytest.raises(InputError, match="inside its folder"):
            inside_folder(name, tmp_path)
    assert inside_folder("a\\b.png", tmp_path) == "a/b.png"


def test_rings() -> None:
    assert ring([[0, 0], [1, 0], [1, 2]]) is not None
    for wrong in ([[0, 0], [1, 0]], [[0, 0, 0]] * 3, "abc", None, [[0, "x"]] * 3, {"a": 1}):
        assert ring(wrong) is None
