"""The commands on data sets: inspect, convert, split, merge, remap, subset."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli.main import main
from maskwright.data import formats
from maskwright.data.formats.coco import write_coco
from maskwright.structures import Taxonomy
from tests.data.make import record

SQUARE = (np.array([[1, 1], [14, 1], [14, 13], [1, 13]], np.float64),)
PETS = Taxonomy(names=("cat", "dog", "owl"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """20 pictures, p0 to p4 with four each; every picture has a cat, every fourth an owl."""
    root = tmp_path / "pets"
    records = []
    for i in range(20):
        path = root / "images" / f"p{i % 5}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 18, 3), 10 * i, np.uint8)).save(path)
        labels = [0, 2] if i % 4 == 0 else [0]
        records.append(
            record((16, 18), [SQUARE] * len(labels), key=path.name, labels=labels, image_id=i + 1, first_id=10 * i + 1)
        )
    write_coco(root / "pets.json", records, PETS)
    return root / "pets.json"


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def printed(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_inspect(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", pets, "--json", "--draw", 3, "--out", tmp_path / "drawn") == 0
    found = printed(capsys)
    assert (found["format"], found["images"], found["objects"]) == ("coco", 20, 25)
    assert found["classes"]["owl"] == {"thing": True, "objects": 5, "images": 5}
    assert found["splits"]["all"]["objects_per_image"] == {"min": 1, "median": 1, "max": 2}
    assert [Path(p).name for p in found["drawn"]] == ["p0_0.png", "p0_10.png", "p4_19.png"]
    drawn = np.asarray(Image.open(found["drawn"][0]))
    assert drawn.shape == (16, 18, 3)
    assert drawn.max() > 0  # the picture itself is black
    assert run("inspect", pets) == 0
    text = capsys.readouterr().out
    assert "20 images of 16 x 18 pixels" in text
    assert "25 polygons" in text


def test_convert_brings_the_pictures_along(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for how in ("link", "copy", "none"):
        out = tmp_path / how
        assert run("convert", pets, out, "--pictures", how, "--json") == 0
        assert printed(capsys)["splits"] == {"all": 20}
        picture = out / "images" / "p0_0.png"
        assert picture.is_file() == (how != "none")
        if how == "link":
            assert os.path.samefile(picture, pets.parent / "images" / "p0_0.png")
    again = formats.read(tmp_path / "copy")
    assert again.taxonomy == PETS
    assert again.splits["all"].load(3)[1].shape == (3, 16, 18)


def test_nothing_is_overwritten(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pets.read_bytes()
    assert run("convert", pets, pets) == 2
    assert "must be new or empty" in capsys.readouterr().err
    assert run("convert", pets, tmp_path / "pets") == 2
    assert pets.read_bytes() == before


def test_split_by_group(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("split", pets, tmp_path / "out", "--shares", "train=0.6", "val=0.4", "--group", "^(p[0-9])_", "--json")
    assert run(*words) == 0
    assert printed(capsys)["splits"] == {"train": 12, "val": 8}
    made = formats.read(tmp_path / "out")
    assert list(made.splits) == ["train", "val"]
    groups = [{s.record(i).key[:2] for i in range(len(s))} for s in made.splits.values()]
    assert not groups[0] & groups[1]


def test_merge_remap_subset(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("subset", pets, tmp_path / "owls", "--classes", "owl", "--count", 2) == 0
    assert run("remap", pets, tmp_path / "birds", "--classes", "owl=bird", "dog=", "--only") == 0
    assert run("merge", tmp_path / "owls", tmp_path / "birds", tmp_path / "both", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["objects"] == 2 * 2 + 5
    made = formats.read(tmp_path / "both")
    assert made.taxonomy.names == ("cat", "dog", "owl", "bird")
    assert len(made) == 22
    keys = [made.splits["all"].record(i).key for i in range(22)]
    assert sum(key.startswith("owls/") for key in keys) == 2
    assert made.splits["all"].load(0)[1].shape == (3, 16, 18)


def test_tasks(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", pets, tmp_path / "same", "--task", "instances", "--json") == 0
    assert printed(capsys)["objects"] == 25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", "--shares", "train=x", "val=0.5"), "must be numbers"),
        (("split", "--shares", "train"), "NAME=VALUE"),
        (("split", "--group", "("), "regular expression"),
        (("split", "--group", "^z"), "matches nothing in the name p0_0.png"),
        (("remap", "--classes", "fox=dog"), "no classes fox"),
        (("subset", "--splits", "test"), "no splits test"),
        (("convert", "--to", "pascal"), "no format 'pascal' can be written"),
        (("convert", "--from", "pascal"), "no format 'pascal' can be read"),
        (("convert", "--images", "nowhere"), "must be a directory"),
    ],
)
def test_what_cannot_be(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert run(words[0], pets, tmp_path / "out", *words[1:]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lenient_counts_what_it_leaves_out(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(pets.read_text())
    for i in range(7):
        data["annotations"][i]["segmentation"] = [[1, 1, 2, 2]]
    pets.write_text(json.dumps(data))
    assert run("inspect", pets) == 2
    assert "7 with a polygon with fewer than three points" in capsys.readouterr().err
    assert run("inspect", pets, "--lenient", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["dropped"] == {"a polygon with fewer than three points": 7}
    assert "left out 7 with" in err


def test_a_missing_picture(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets.parent / "images" / "p1_1.png").unlink()
    assert run("convert", pets, tmp_path / "out") == 2
    assert "p1_1.png" in capsys.readouterr().err
