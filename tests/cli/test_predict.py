"""``maskwright predict`` with a toy model: what is written, printed and returned."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from maskwright import zoo
from maskwright.cli import _outputs
from maskwright.cli.main import main
from maskwright.cli.predict import unique_names
from maskwright.infer import predictor
from maskwright.structures import Taxonomy
from tests.infer.exact import Exact, discs
from tests.infer.toy import Toy, save, spot


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    model = Toy()
    model.asked = []  # type: ignore[assignment]

    def load(*names: str, **options: Any) -> Toy:
        model.asked.append((names, options))  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(zoo, "load", load)
    return model


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """one.png, day/shot.png, night/shot.png and day/dark.jpg, seen from their folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("day", "night"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "shot.png")
    save(tmp_path / "one.png")
    save(tmp_path / "day" / "dark.jpg", np.zeros((30, 30, 3), np.uint8))
    return tmp_path


def _document(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_files_folders_and_globs(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "day", "ni*/*.png", "--out", "res"]) == 0
    document = _document(pictures / "res")
    names = ["day/dark.jpg", "day/shot.png", "night/shot.png", "one.png"]
    assert sorted(image["file_name"] for image in document["images"]) == names
    assert len(document["annotations"]) == 6
    assert [c["name"] for c in document["categories"]] == ["spot", "ring"]
    overlays = sorted(path.name for path in (pictures / "res" / "overlays").iterdir())
    assert overlays == ["dark.png", "night-shot.png", "one.png", "shot.png"]
    painted = np.array(Image.open(pictures / "res" / "overlays" / "one.png"))
    assert painted.shape == (40, 60, 3)
    assert (painted != spot()).any()
    with open(pictures / "res" / "objects.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    printed = capsys.readouterr().out.splitlines()
    assert "one.png: 1 spot, 1 ring" in printed
    assert "day/dark.jpg: nothing found" in printed
    assert printed[-1].startswith("4 images, 6 objects in ")
    assert toy.asked[0][0] == ("embedded",)  # type: ignore[index]


def test_json_is_one_object(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "--json", "--no-overlays"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 1
    assert printed["objects"] == 2
    assert printed["counts"] == {"one.png": {"spot": 1, "ring": 1}}
    assert printed["failed"] == {}
    assert sorted(path.name for path in (pictures / "out").iterdir()) == ["objects.csv", "results.json"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_failures_come_last_and_lose_nothing(
    toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    (pictures / "day" / "broken.png").write_bytes((pictures / "one.png").read_bytes()[:60])
    (pictures / "day" / "notes.jpg").write_text("not a picture")
    assert main(["predict", "day", *form]) == 1
    assert {image["file_name"] for image in _document(pictures / "out")["images"]} == {"day/dark.jpg", "day/shot.png"}
    assert (pictures / "out" / "overlays" / "shot.png").is_file()
    printed = capsys.readouterr()
    assert "2 files failed:" in printed.err
    assert "day/broken.png" in printed.err
    assert "day/notes.jpg" in printed.err
    if form:
        assert set(json.loads(printed.out)["failed"]) == {"day/broken.png", "day/notes.jpg"}


def test_options_reach_the_model(toy: Toy, pictures: Path) -> None:
    words = ["--score-threshold", "0.6", "--max-per-image", "5", "--resize", "20,100", "--batch-size", "2"]
    more = ["--model", "mask-rcnn-r50", "--weights", "x.pth", "--commercial", "--precision", "32", "--device", "cpu"]
    assert main(["predict", "one.png", "night/shot.png", *words, *more]) == 0
    seen = toy.seen[0]
    assert (seen["threshold"], seen["limit"], seen["sizes"]) == (0.6, 5, ((20, 30), (20, 30)))
    names, options = toy.asked[0]  # type: ignore[index, misc]
    assert names == ("mask-rcnn-r50", "x.pth")
    assert options["commercial"] is True
    assert len(_document(pictures / "out")["annotations"]) == 2
    assert main(["predict", "one.png", "--resize", "none"]) == 0
    assert toy.seen[-1]["sizes"] == ((40, 60),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png"], "no such file or folder: absent.png"),
        (["one.png", "--score-threshold", "7"], "score_threshold must be"),
        (["one.png", "--out", "one.png"], "one.png"),
        (["one.png", "--out", "one.png/deeper"], "Choose another --out"),
        (["one.png", "--device", "warp"], "device 'warp'"),
        (["one.png", "--tile", "big"], "tiles are auto, SIZE or SIZE,OVERLAP in pixels, got 'big'"),
        (["one.png", "--tile", "64,32"], "less than half"),
        (["one.png", "--tta", "mirror"], "flip, vflip, rot90, scale"),
        (["one.png", "--votes", "1,2"], "one number for each of the 1 --weights, got 2"),
        (["one.png", "--weights", "a,,b"], "single commas"),
    ],
)
def test_unusable_input_is_refused_before_work_begins(
    toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["predict", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert toy.seen == []


def test_a_bad_resize_is_an_error_of_usage(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "one.png", "--resize", "huge"])
    assert end.value.code == 2
    assert "SHORT,LONG" in capsys.readouterr().err


def test_unknown_weights(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "--weights", "embeded"]) == 2
    assert "Did you mean embedded?" in capsys.readouterr().err


def test_interruption_keeps_what_is_done(
    toy: Toy, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = toy.predict

    def stop(raw: Any, geometry: Any) -> Any:
        if len(toy.seen) == 3:
            raise KeyboardInterrupt
        return original(raw, geometry)

    monkeypatch.setattr(toy, "predict", stop)
    assert main(["predict", "one.png", "day", "night"]) == 130
    assert len(_document(pictures / "out")["images"]) == 2
    assert "interrupted" in capsys.readouterr().err


def test_results_of_an_earlier_run_are_replaced(toy: Toy, pictures: Path) -> None:
    assert main(["predict", "day", "night"]) == 0
    assert main(["predict", "one.png"]) == 0
    assert [image["file_name"] for image in _document(pictures / "out")["images"]] == ["one.png"]


def test_overlay_names_never_repeat() -> None:
    name = unique_names()
    paths = ["a/x.png", "b/x.png", "b/x.jpg", "b/X.PNG", "c/b/x.png", "x.png", "b-x.png"]
    names = [name(Path(path)) for path in paths]
    assert names[:2] == ["x", "b-x"]
    assert len({n.casefold() for n in names}) == len(paths)


# ---- tiles, sides, several models, places ---------------------------------------------------------------------------


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Every name loads an exact model; the names that were asked for."""
    asked: list[tuple[str, ...]] = []

    def load(*names: str, **options: Any) -> Exact:
        asked.append(names)
        model = Exact("panoptic" if names[-1] == "panoptic" else "instance")
        if names[-1] == "other":
            model.taxonomy = Taxonomy(names=("red", "green", "blue"))
        return model

    monkeypatch.setattr(zoo, "load", load)
    return asked


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """field.tif with discs, in UTM 33 with pixels of half a meter, and the same as field.png."""
    monkeypatch.chdir(tmp_path)
    picture, _ = discs((203, 301), 60, (2, 12), 3)
    _located(tmp_path / "field.tif", picture, 32633)
    Image.fromarray(picture).save(tmp_path / "field.png")
    return tmp_path


def _located(path: Path, picture: np.ndarray, epsg: int) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    key = 2048 if epsg == 4326 else 3072
    for tag, kind, values in (
        (33550, 12, (0.5, 0.5, 0.0)),
        (33922, 12, (0.0, 0.0, 0.0, 500000.0, 5400000.0, 0.0)),
        (34735, 3, (1, 1, 0, 1, key, 0, 1, epsg)),
    ):
        tags.tagtype[tag] = kind
        tags[tag] = values
    Image.fromarray(picture).save(path, tiffinfo=tags, compression="tiff_lzw")


def _found(folder: Path) -> list[tuple[int, str]]:
    annotations = _document(folder)["annotations"]
    return sorted((each["category_id"], each["segmentation"]["counts"]) for each in annotations)


@pytest.mark.parametrize("name", ["field.tif", "field.png"])
@pytest.mark.parametrize("words", [["64,28"], ["auto"], ["64,28", "--tta", "flip,rot90", "--batch-size", "3"]])
def test_tiles_and_sides_find_what_the_whole_picture_has(
    exact: list[Any], field: Path, name: str, words: list[str]
) -> None:
    assert main(["predict", name, "--out", "whole"]) == 0
    assert main(["predict", name, "--out", "tiled", "--tile", *words]) == 0
    assert _found(field / "tiled") == _found(field / "whole")
    assert len(_found(field / "tiled")) > 20
    painted = [np.array(Image.open(field / each / "overlays" / "field.png")) for each in ("whole", "tiled")]
    assert np.array_equal(*painted)


def test_panoptic_in_tiles(exact: list[Any], field: Path) -> None:
    words = ["predict", "field.tif", "--weights", "panoptic", "--no-overlays", "--out"]
    assert main([*words, "whole"]) == 0
    assert main([*words, "tiled", "--tile", "64,28"]) == 0
    maps = [np.array(Image.open(field / each / "semantic" / "field.png")) for each in ("whole", "tiled")]
    assert np.array_equal(*maps)
    assert _found(field / "tiled") == _found(field / "whole")


def test_several_weights_are_merged(exact: list[Any], field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (field / "a,b").mkdir()
    words = ["--weights", "one,two", "--weights", "a,b", "--votes", "1,2,3", "--no-overlays"]
    assert main(["predict", "field.png", *words]) == 0
    assert exact == [("one",), ("two",), ("a,b",)]
    assert main(["predict", "field.png", "--out", "whole", "--no-overlays", "--model", "m"]) == 0
    assert exact[-1] == ("m", "embedded")
    assert _found(field / "out") == _found(field / "whole")
    assert main(["predict", "field.png", "--weights", "one,other"]) == 2
    assert "same classes, but only some of them know blue, ground" in capsys.readouterr().err


def test_objects_have_places_on_the_map(exact: list[Any], field: Path) -> None:
    assert main(["predict", "field.tif", "field.png", "--no-overlays", "--tile", "64,28"]) == 0
    document = json.loads((field / "out" / "objects.geojson").read_text())
    assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    of_field = [each for each in _document(field / "out")["annotations"] if each["image_id"] == 2]
    assert len(document["features"]) == len(of_field) > 20
    for feature, annotation in zip(document["features"], of_field, strict=True):
        assert feature["properties"]["file"] == "field.tif"
        assert feature["properties"]["pixels"] == annotation["area"]
        (ring,) = feature["geometry"]["coordinates"]
        x, y, width, height = annotation["bbox"]
        east, north = zip(*ring, strict=True)
        assert (min(east), max(east)) == (500000 + x / 2, 500000 + (x + width) / 2)
        assert (max(north), min(north)) == (5400000 - y / 2, 5400000 - (y + height) / 2)


def test_every_coordinate_system_has_its_document(exact: list[Any], field: Path) -> None:
    picture = np.array(Image.open(field / "field.png"))
    _located(field / "degrees.tif", picture, 4326)
    assert main(["predict", "field.tif", "degrees.tif", "--no-overlays"]) == 0
    written = sorted(path.name for path in (field / "out").glob("*.geojson"))
    assert written == ["objects-epsg32633.geojson", "objects-epsg4326.geojson"]
    assert "crs" not in json.loads((field / "out" / written[1]).read_text())
    assert main(["predict", "field.png", "--no-overlays", "--out", "none"]) == 0
    assert list((field / "none").glob("*.geojson")) == []


def test_a_large_picture_is_shown_smaller(exact: list[Any], field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "MOST_SHOWN", 1000)
    monkeypatch.setattr(_outputs, "LARGEST_OVERLAY", 110)
    assert main(["predict", "field.tif", "--tile", "64,28"]) == 0
    assert Image.open(field / "out" / "overlays" / "field.png").size == (101, 68)


def test_a_broken_file_among_tiles_loses_nothing(
    exact: list[Any], field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (field / "broken.tif").write_bytes((field / "field.tif").read_bytes()[:3000])
    (field / "text.tif").write_text("no picture")
    assert main(["predict", "field.tif", "broken.tif", "text.tif", "--tile", "64,28", "--no-overlays"]) == 1
    assert len(_found(field / "out")) > 20
    assert "2 files failed" in capsys.readouterr().err
