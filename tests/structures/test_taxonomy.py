"""``Taxonomy``: names, ids and colors that stay together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.structures import Taxonomy
from maskwright.structures.taxonomy import numbered, palette

COCO = Taxonomy(names=("person", "stop sign", "toothbrush"), source_ids=(1, 13, 90), thing=(True, True, False))


def test_source_ids_with_gaps_become_dense_labels() -> None:
    assert COCO.label_of == {1: 0, 13: 1, 90: 2}
    assert len(COCO) == 3
    assert COCO.index("stop sign") == 1


def test_defaults_are_all_things_numbered_from_one() -> None:
    plain = Taxonomy(names=("a", "b"))
    assert plain.thing == (True, True)
    assert plain.source_ids == (1, 2)
    assert len(set(plain.colors)) == 2
    assert len(Taxonomy(names=())) == 0


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), unique=True, max_size=6), st.data())
def test_json_survives(names: list[str], data: st.DataObject) -> None:
    count = len(names)
    ids = data.draw(st.lists(st.integers(0, 999), unique=True, min_size=count, max_size=count))
    thing = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    taxonomy = Taxonomy(names=tuple(names), source_ids=tuple(ids), thing=tuple(thing))
    assert Taxonomy.from_json(json.loads(json.dumps(taxonomy.to_json()))) == taxonomy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ("a", "b", "a")}, "names must be distinct, but these repeat: a"),
        ({"names": ("a", "b"), "source_ids": (7, 7)}, "source_ids must be distinct, but these repeat: 7"),
        ({"names": ("a", "b"), "source_ids": (7,)}, r"source_ids must have one entry per class \(2\), got 1"),
        ({"names": ("a", "b"), "thing": (True,)}, "thing must have one entry per class"),
        ({"names": ("a",), "colors": ((1, 2, 3), (4, 5, 6))}, "colors must have one entry per class"),
    ],
)
def test_what_does_not_match_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy(**fields)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no class 'car'; there are 3: person, stop sign"):
        COCO.index("car")


def test_colors_are_distinct_bytes() -> None:
    colors = palette(60)
    assert len(set(colors)) == 60
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    assert palette(5) == colors[:5]


def test_numbered() -> None:
    assert numbered(2).names == ("class 1", "class 2")
    assert numbered(2, ("x", "y")).names == ("x", "y")
