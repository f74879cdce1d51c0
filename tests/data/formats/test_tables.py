"""The class tables beside the readers, against data sets as published."""

from __future__ import annotations

import json

from maskwright.data.formats import tables
from tests.shared import shared


def test_coco_things() -> None:
    listed = json.loads(shared("data/coco128/instances.json").read_bytes())["categories"]
    things = tables.coco_things()
    assert dict(zip(things.source_ids, things.names, strict=True)) == {c["id"]: c["name"] for c in listed}
    assert (len(things), all(things.thing)) == (80, True)
    assert sorted(set(range(1, 91)) - set(things.source_ids)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


def test_coco_panoptic() -> None:
    listed = json.loads(shared("data/coco128/panoptic.json").read_bytes())["categories"]
    found = tables.coco_panoptic()
    assert [(c["id"], c["name"], bool(c["isthing"])) for c in listed] == list(
        zip(found.source_ids, found.names, found.thing, strict=True)
    )
    assert len(set(found.colors)) == 133


def test_coco_stuff_holds_the_things_and_is_named_as_panoptic() -> None:
    found = tables.coco_stuff()
    assert (len(found), sum(found.thing)) == (171, 80)
    assert found.names[:80] == tables.coco_things().names
    assert found.source_ids[80:] == tuple(range(92, 183))
    # Panoptic keeps 36 stuff classes as they are and merges the others.
    whole = [n for n, thing in zip(*[tables.coco_panoptic().names, tables.coco_panoptic().thing], strict=True)
             if not thing and not n.endswith("-merged")]  # fmt: skip
    own = dict(zip(found.names, found.source_ids, strict=True))
    ids = dict(zip(tables.coco_panoptic().names, tables.coco_panoptic().source_ids, strict=True))
    assert all(own[name] == ids[name] for name in whole)
    assert len(tables.coco_stuff(things=False)) == 91


def test_all_have_distinct_names_and_full_columns() -> None:
    for make in (tables.voc, tables.coco_things, tables.coco_panoptic, tables.coco_stuff, tables.ade20k):
        taxonomy = make()
        assert len(set(taxonomy.names)) == len(taxonomy) == len(taxonomy.colors)
        assert all(name == name.strip() for name in taxonomy.names)
