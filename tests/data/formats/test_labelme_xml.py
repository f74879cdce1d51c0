"""The first LabelMe: the sample, layouts, hostile files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from maskwright.data.dataset import WHOLE
from maskwright.data.formats import labelme, labelme_xml
from maskwright.errors import InputError
from tests.data.formats import draw
from tests.data.formats.hostile import BILLION_LAUGHS, png_header, refused
from tests.shared import shared


def test_the_sample() -> None:
    root = shared("data/formats/labelme")
    assert labelme_xml.recognizes(root)
    assert not labelme.recognizes(root)
    made = labelme_xml.read(root)
    objects = list(ElementTree.parse(root / "Annotations/subset1/img1.xml").getroot().iterfind("object"))
    source = made.splits[WHOLE]
    found = source.record(0)
    assert found.key == "subset1/img1.png"
    assert found.size == (77, 102)
    assert [made.taxonomy.names[i] for i in found.labels] == [o.findtext("name") for o in objects]
    for i, element in enumerate(objects):
        mask, kind = element.findtext("segm/mask"), element.findtext("type")
        points = [[float(p.findtext("x") or 0), float(p.findtext("y") or 0)] for p in element.iterfind("polygon/pt")]
        shape = found.shapes[i]
        if mask:
            with Image.open(root / "Masks/subset1" / mask) as image:
                wanted = np.asarray(image)[..., 3] > 0
            got = draw.dense(shape, found.size)
            assert got is not None
            assert (got == wanted).all()
        elif kind == "bounding_box":
            assert shape is None
            assert found.boxes[i].tolist() == [*np.min(points, axis=0), *np.max(points, axis=0)]
        else:
            assert isinstance(shape, tuple)
            assert shape[0].tolist() == points
    assert len(found) == 7
    assert sum(isinstance(s, tuple) for s in found.shapes) == 4
    source.load(0)
    assert len(labelme_xml.read(root / "Annotations/subset1/img1.xml")) == 1


OBJECT = "<object><name>{}</name><deleted>{}</deleted><id>{}</id>{}</object>"
SQUARE = "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((1, 1), (4, 1), (4, 3))) + "</polygon>"


def write(root: Path, objects: str, folder: str = "train", size: str = "", name: str = "a.png") -> Path:
    file = root / "Annotations" / folder / "a.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>\n{name}\n</filename>{size}{objects}</annotation>")
    picture = root / "Images" / folder / "a.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 5)).save(picture)
    return root


def test_splits_and_deleted_objects(tmp_path: Path) -> None:
    deleted = OBJECT.format("cat", 1, 1, SQUARE)
    write(tmp_path, OBJECT.format("\ncat\n", 0, 0, SQUARE) + deleted)
    write(tmp_path, OBJECT.format("dog", 0, 0, SQUARE), "my_test")
    write(tmp_path, "", "street")
    write(tmp_path, "", "street/deep", "<imagesize><nrows>0</nrows><ncols>0</ncols></imagesize>")
    made = labelme_xml.read(tmp_path)
    assert {split: [s.record(i).key for i in range(len(s))] for split, s in made.splits.items()} == {
        "my_test": ["a.png"],
        "train": ["a.png"],
        WHOLE: ["street/a.png", "street/deep/a.png"],
    }
    assert made.taxonomy.names == ("cat", "dog")
    assert made.dropped == {"objects that were deleted": ["Annotations/train/a.xml object 1"]}


def test_files_beside_pictures(tmp_path: Path) -> None:
    write(tmp_path, OBJECT.format("cat", 0, 0, SQUARE))
    for path in ("Annotations/train/a.xml", "Images/train/a.png"):
        (tmp_path / path).rename(tmp_path / Path(path).name)
    for folder in ("Annotations/train", "Annotations", "Images/train", "Images"):
        (tmp_path / folder).rmdir()
    assert labelme_xml.recognizes(tmp_path)
    assert len(labelme_xml.read(tmp_path)) == 1


BROKEN = [
    ("<polygon><pt><x>1</x><y>1</y></pt></polygon>", "fewer than three|not two numbers"),
    (SQUARE.replace("<x>1</x>", ""), "not a number"),
    (SQUARE.replace("<x>1</x>", "<x>nan</x>"), "not finite"),
    (SQUARE.replace("<x>1</x>", "<x>99999</x>"), "far outside"),
    ("", "neither a polygon nor a mask"),
    ("<segm><mask>none.png</mask></segm>", r"missing \(none\.png\)"),
    ("<segm><mask>../../secret.png</mask></segm>", "must not be used"),
    ("<segm><mask>small.png</mask></segm>", "not as large"),
    ("<segm><mask>bomb.png</mask></segm>", "larger than its picture|not a readable"),
]


@pytest.mark.parametrize(("body", "says"), BROKEN)
def test_broken_objects_are_named(tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "Masks" / "train").mkdir(parents=True)
    Image.new("1", (2, 2), 1).save(tmp_path / "Masks/train/small.png")
    (tmp_path / "Masks/train/bomb.png").write_bytes(png_header(30_000, 40_000))
    root = write(tmp_path, OBJECT.format("cat", 0, 7, body) + OBJECT.format("cat", 0, 8, SQUARE))
    with pytest.raises(InputError, match=rf"1 with .*({says}).*: Annotations/train/a\.xml object 7"):
        labelme_xml.read(root)
    made = labelme_xml.read(root, strict=False)
    assert len(made.splits["train"].record(0)) == 1


def test_hostile_files(tmp_path: Path) -> None:
    file = write(tmp_path, "") / "Annotations/train/a.xml"

    def no(text: str | bytes, says: str) -> None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: labelme_xml.read(tmp_path), says)

    no(BILLION_LAUGHS + "<annotation>&c;</annotation>", r"a\.xml:2: .*DOCTYPE")
    no("<annotation>" + "<a>" * 100_000, r"a\.xml:1: .*nested deeper")
    no("<annotation><filename>", r"a\.xml is not XML")
    no(b"<annotation>\xff</annotation>", r"a\.xml is not XML")
    no("<annotations/>", "root must be annotation")
    for name in ("../a.png", "/etc/a.png", "", "C:/a.png"):
        no(f"<annotation><filename>{name}</filename></annotation>", "inside its folder")
    no("<annotation><filename>b.png</filename></annotation>", r"1 of 1 images are not on disk: train/b\.png")
    size = "<imagesize><nrows>99999999</nrows><ncols>9999999</ncols></imagesize>"
    no(f"<annotation><filename>a.png</filename>{size}</annotation>", "height and width")
    (tmp_path / "empty").mkdir()
    refused(lambda: labelme_xml.read(tmp_path / "empty"), "holds no LabelMe files")


def test_others_are_not_recognized(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><filename>a</filename><bndbox/></annotation>")
    assert not labelme_xml.recognizes(tmp_path)
    assert not labelme_xml.recognizes(tmp_path / "none")
