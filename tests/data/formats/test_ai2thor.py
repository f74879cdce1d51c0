"""Frames of AI2-THOR: what colors are, said in each of the controller's ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskwright.data.formats import ai2thor
from maskwright.errors import InputError
from tests.data.formats.pixels import colored, counted, photo, records, save
from tests.data.formats.small_sets import BLUE, RED, TWO, make_ai2thor

OBJECTS = [{"objectId": "Mug|+1|0|2", "objectType": "Mug"}, {"objectId": "box", "objectType": "Box"}]
KEY = "all/FloorPlan1/0004.png"


def meta(root: Path) -> Path:
    return root / "FloorPlan1" / "metadata" / "0004.json"


def test_the_servers_own_list(tmp_path: Path) -> None:
    make_ai2thor(tmp_path)
    made = ai2thor.read(tmp_path)
    assert made.taxonomy.names == ("Mug", "Sofa")
    assert counted(made) == {KEY: {"Mug": 1, "Sofa": 1}}
    (found,) = records(made).values()
    assert (found.sequence, found.frame) == ("FloorPlan1", 4)
    (alone,) = records(ai2thor.read(tmp_path / "FloorPlan1")).values()
    assert (alone.key, alone.sequence, len(alone)) == ("0004.png", "FloorPlan1", 2)


FORMS: dict[str, Any] = {
    "object_id_to_color": {"Mug|+1|0|2": list(RED), "box": list(BLUE), "Floor": [0, 0, 0]},
    "color_to_object_id": {str(RED): "Mug|+1|0|2", "0,5,250": "box", "(0, 0, 0)": "Floor"},
    "colors": [{"name": "Mug|+1|0|2", "color": [*RED, 255]}, {"name": "box", "color": list(BLUE)}],
}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("form", [*sorted(FORMS), "pairs"])
def test_each_form(tmp_path: Path, form: str, inside: bool) -> None:
    make_ai2thor(tmp_path)
    key, value = form, FORMS.get(form)
    if form == "pairs":
        key, value = "color_to_object_id", [[list(RED), "Mug|+1|0|2"], [list(BLUE), "box"]]
    data = {"objects": OBJECTS, key: value} if inside else {"metadata": {"objects": OBJECTS}, key: value}
    meta(tmp_path).write_text(json.dumps(data))
    assert counted(ai2thor.read(tmp_path)) == {KEY: {"Mug": 1, "Box": 1}}


def test_objects_keep_their_track_through_a_scene(tmp_path: Path) -> None:
    make_ai2thor(tmp_path)
    scene = tmp_path / "FloorPlan1"
    photo(scene / "rgb" / "0005.png")
    save(scene / "instance_segmentation" / "0005.png", colored(TWO, {1: (7, 7, 7), 2: RED}))
    listed = {
        "objects": [],
        "object_id_to_color": {"Sofa|0|0|0": [7, 7, 7], "Lamp|1|1|1": list(RED), "Mug|+1|0|2": [1, 1, 1]},
    }
    (scene / "metadata" / "0005.json").write_text(json.dumps(listed))
    made = ai2thor.read(tmp_path)
    tracks = [
        {made.taxonomy.names[label]: track for label, track in zip(r.labels, r.tracks.tolist(), strict=True)}  # pyright: ignore
        for r in records(made).values()
    ]
    assert tracks[0]["Sofa"] == tracks[1]["Sofa"]
    assert len({tracks[0]["Sofa"], tracks[0]["Mug"], tracks[1]["Lamp"]}) == 3


BROKEN: list[Any] = [
    [],
    3,
    {},
    {"metadata": 3},
    {"colors": [3]},
    {"colors": [{"name": "a|b", "color": [1, 2]}]},
    {"colors": [{"name": "a|b", "color": [1, 2, 256]}]},
    {"colors": [{"name": 3, "color": [1, 2, 3]}]},
    {"color_to_object_id": {"red": "a|b"}},
    {"color_to_object_id": [[1, 2, 3]]},
    {"object_id_to_color": {"a|b": "x"}},
]


@pytest.mark.parametrize("data", BROKEN, ids=[str(b)[:40] for b in BROKEN])
def test_broken_metadata(tmp_path: Path, data: object) -> None:
    make_ai2thor(tmp_path)
    meta(tmp_path).write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"0004\.json"):
        ai2thor.read(tmp_path)


def test_what_is_missing(tmp_path: Path) -> None:
    make_ai2thor(tmp_path)
    meta(tmp_path).write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"0004\.json is not JSON"):
        ai2thor.read(tmp_path)
    meta(tmp_path).rename(meta(tmp_path).with_name("0009.json"))
    with pytest.raises(InputError, match=r"1 with a frame without metadata: .*0004\.png"):
        ai2thor.read(tmp_path)
    (tmp_path / "FloorPlan1" / "rgb").rename(tmp_path / "aside")
    with pytest.raises(InputError, match="no pictures"):
        ai2thor.read(tmp_path)
    assert len(ai2thor.read(tmp_path, images=tmp_path / "aside", strict=False)) == 1
