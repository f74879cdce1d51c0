"""CVAT for images: there and back, the samples, every shape, hostile files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import cvat, cvat_video
from maskwright.data.formats.build import Builder
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy
from tests.data.formats import draw
from tests.data.formats.hostile import BILLION_LAUGHS, refused
from tests.shared import shared

KEPT = {*draw.WHAT, "polygons", "colors"} - {"ids"}


@settings(max_examples=40, deadline=None)
@given(draw.data_sets(splits=("train", "val", "été 1")) | draw.data_sets(splits=(WHOLE,)))
def test_there_and_back(dataset: Dataset) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw.write_pictures(
            dataset, lambda split, key: root / "images" / key if split == WHOLE else root / "images" / split / key
        )
        cvat.write(root, dataset)
        assert cvat.recognizes(root)
        assert not cvat_video.recognizes(root)
        made = cvat.read(root)
        draw.same(dataset, made, what=KEPT - ({"splits"} if len(dataset) == 0 else set()))
        assert not made.dropped


def shapes_in(record: Record) -> list[str]:
    return [type(shape).__name__ for shape in record.shapes]


def test_the_sample_of_a_project() -> None:
    root = shared("data/formats/cvat/for_images/export_project")
    tree = ElementTree.parse(root / "annotations.xml").getroot()
    assert cvat.recognizes(root)
    made = cvat.read(root)
    assert made.taxonomy.names == ("label1", "label2")
    assert set(made.splits) == {"Train", "Test", "Validation"}
    for name, source in made.splits.items():
        elements = [e for e in tree.iterfind("image") if e.get("subset") == name]
        assert [len(source.record(i)) for i in range(len(source))] == [
            len(e.findall("box")) + len(e.findall("polygon")) for e in elements
        ]
        assert source.record(0).size == (8, 8)
        assert source.record(0).boxes.tolist() == [[0, 2, 4, 4]]
        polygon = source.record(1).shapes[0]
        assert isinstance(polygon, tuple)
        assert polygon[0].tolist() == [[1, 2], [3, 4], [6, 5]]
        source.load(1)
    assert sum(map(len, made.dropped.values())) == len(tree.findall("image/polyline")) + len(
        tree.findall("image/points")
    )


def test_the_sample_of_a_task() -> None:
    root = shared("data/formats/cvat/for_images/export_task")
    assert cvat.recognizes(root)
    with pytest.raises(InputError, match=r"class that is not known \(''\): image img1\.jpg polygon 0"):
        cvat.read(root)
    made = cvat.read(root / "train.xml", strict=False)
    source = made.splits[WHOLE]
    assert [len(source.record(i)) for i in range(2)] == [1, 0]


HEAD = "<annotations><version>1.1</version><meta><task><labels>{}</labels></task></meta>"
LABELS = "<label><name>cat</name><color>#010203</color></label><label><name>dog</name></label>"


def write(root: Path, body: str, head: str = HEAD.format(LABELS)) -> Path:
    Image.new("L", (8, 6)).save(root / "a.png")
    text = f'{head}<image id="0" name="a.png" width="8" height="6">{body}</image></annotations>'
    (root / "annotations.xml").write_text(text)
    return root


def one(dataset: Dataset) -> Record:
    (source,) = dataset.splits.values()
    return source.record(0)


def test_every_shape(tmp_path: Path) -> None:
    made = cvat.read(
        write(
            tmp_path,
            '<mask label="cat" z_order="5" rle="1, 2, 3" left="1" top="2" width="3" height="2"/>'
            '<ellipse label="dog" cx="4" cy="3" rx="3" ry="2" rotation="90"/>'
            '<box label="dog" xtl="2" ytl="1" xbr="6" ybr="5" rotation="45"/>'
            '<box label="dog" xtl="6" ytl="1" xbr="2" ybr="5" rotation="0.0"/>'
            '<polygon label="cat" points="0,0;1,0;1,1" group_id="7"/>'
            '<polygon label="cat" points="2,2;3,2;3,3" group_id="7">'
            '<attribute name="is_crowd">true</attribute></polygon>'
            '<polygon label="dog" points="2,2;3,2;3,3" group_id="7" z_order="-1"/>'
            '<tag label="dog"/><cuboid label="dog"/>',
        )
    )
    found = one(made)
    assert made.taxonomy.names == ("cat", "dog")
    assert made.taxonomy.colors[0] == (1, 2, 3)
    assert shapes_in(found) == ["tuple", "tuple", "tuple", "NoneType", "tuple", "dict"]
    assert found.labels.tolist() == [1, 1, 1, 1, 0, 0]
    assert found.crowd.tolist() == [False, False, False, False, True, False]
    mask = draw.dense(found.shapes[5], (6, 8))
    assert mask is not None
    assert np.argwhere(mask).tolist() == [[2, 2], [2, 3]]
    assert np.allclose(found.boxes[1], [2, 0, 6, 6])
    root = np.sqrt(8)
    assert np.allclose(found.boxes[2], [4 - root, 3 - root, 4 + root, 3 + root])
    assert len(found.shapes[4] or ()) == 2
    assert sorted(made.dropped.values()) == [["image a.png cuboid 8"], ["image a.png tag 7"]]


def test_labels_without_a_list(tmp_path: Path) -> None:
    body = '<polygon label="b" points="0,0;1,0;1,1"/><polygon label="a" points="0,0;1,0;1,1"/>'
    assert cvat.read(write(tmp_path, body, "<annotations>")).taxonomy.names == ("a", "b")


def test_parts_of_skeletons_are_no_classes(tmp_path: Path) -> None:
    labels = LABELS + "<label><name>knee</name><type>points</type><parent>dog</parent></label>"
    assert cvat.read(write(tmp_path, "", HEAD.format(labels))).taxonomy.names == ("cat", "dog")


BROKEN = [
    ('<polygon label="cat" points="1,2;3,4"/>', "fewer than three"),
    ('<polygon label="cat" points="1,2;3,x;3,4"/>', "not two numbers"),
    ('<polygon label="cat" points="1;3;3"/>', "not two numbers"),
    ('<polygon label="cat" points="1,2;nan,3;3,4"/>', "not finite"),
    ('<polygon label="cat"/>', "fewer than three"),
    ('<polygon label="owl" points="1,2;3,4;5,2"/>', "not known"),
    ('<polygon points="1,2;3,4;5,2"/>', "not known"),
    ('<polygon label="cat" points="1,2;3,4;5,2" z_order="top"/>', "not an integer"),
    ('<box label="cat" xtl="1" ytl="1" xbr="3"/>', "not a number"),
    ('<box label="cat" xtl="1" ytl="1" xbr="1" ybr="4"/>', "without area"),
    ('<ellipse label="cat" cx="1" cy="1" rx="0" ry="4"/>', "radius"),
    ('<mask label="cat" rle="1, 2" left="0" top="0" width="2" height="2"/>', "do not fill"),
    ('<mask label="cat" rle="-1, 5" left="0" top="0" width="2" height="2"/>', "do not fill"),
    ('<mask label="cat" rle="4" left="0" top="0" width="2" height="2"/>', "without pixels"),
    ('<mask label="cat" rle="0,4" left="99999999999" top="0" width="2" height="2"/>', "far outside"),
    ('<mask label="cat" rle="0, 10000000000" left="0" top="0" width="100000" height="100000"/>', "larger"),
    ('<mask label="cat" rle="0,1" left="0" top="0" width="0" height="2"/>', "without pixels"),
    ('<mask label="cat" rle="" left="0" top="0" width="2" height="2"/>', "not integers"),
    ('<mask label="cat" rle="1, 3" left="0" top="0" width="2"/>', "not an integer"),
]


@pytest.mark.parametrize(("body", "says"), BROKEN)
def test_broken_shapes_are_named(tmp_path: Path, body: str, says: str) -> None:
    root = write(tmp_path, body + '<box label="cat" xtl="1" ytl="1" xbr="3" ybr="3"/>')
    with pytest.raises(InputError, match=rf"1 with .*{says}.*: image a\.png [a-z]+ 0"):
        cvat.read(root)
    assert len(one(cvat.read(root, strict=False))) == 1


def test_hostile_files(tmp_path: Path) -> None:
    file = tmp_path / "h.xml"

    def no(text: str | bytes, says: str) -> None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: cvat.read(file), says)

    no(BILLION_LAUGHS + "<annotations>&c;</annotations>", r"h\.xml:2: .*DOCTYPE")
    no("<annotations>" + "<a>" * 100_000, r"h\.xml:1: .*nested deeper")
    no("<annotations><image", r"h\.xml is not XML")
    no(b'<?xml version="1.0" encoding="utf-8"?><annotations>\xff</annotations>', r"h\.xml is not XML")
    no(b'<?xml version="1.0" encoding="klingon"?><annotations/>', r"h\.xml is not XML")
    no("<annotation/>", "root must be annotations")
    for name in ("../a.png", "/etc/a.png", "C:/a.png", ""):
        no(f'<annotations><image name="{name}" width="3" height="3"/></annotations>', "inside its folder")
    no('<annotations><image name="a.png" subset="../b" width="3" height="3"/></annotations>', "inside its folder")
    many = "".join(f'<image name="{i}.png" width="3" height="3"/>' for i in range(7))
    no(f"<annotations>{many}</annotations>", r"7 of 7 images are not on disk: 0\.png.*4\.png, \.\.\.")
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    for size in ('width="0" height="3"', 'width="99999" height="99999"', 'height="3"', 'width="x" height="3"'):
        no(f'<annotations><image name="a.png" {size}/></annotations>', "image a.png.*height and width")
    no("<annotations><meta><labels><label/></labels></meta></annotations>", "must have a name")


def test_a_polygon_of_a_million_points(tmp_path: Path) -> None:
    points = ";".join(["1,1", "7,1", "7,5", "1.5,5"] * 250_000)
    assert len(one(cvat.read(write(tmp_path, f'<polygon label="cat" points="{points}"/>')))) == 1


@pytest.mark.parametrize("name", ["a\x00b", "\t", " "])
def test_names_that_xml_cannot_hold(tmp_path: Path, name: str) -> None:
    build = Builder(tmp_path, "toy", Taxonomy(names=(name,)))
    with pytest.raises(InputError, match="Rename it"):
        cvat.write(tmp_path / "out", build.done())
