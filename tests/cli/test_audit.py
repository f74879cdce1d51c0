"""``maskwright audit``: said, drawn, repaired, and an exit code for continuous integration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli.main import main
from maskwright.data import formats
from maskwright.data.formats.coco import write_coco
from maskwright.structures import Taxonomy
from tests.data.make import record
from tests.data.test_audit import PETS, SIZE, photograph, square


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    records = []
    for i in range(3):
        photograph(tmp_path / "pets" / "images" / f"{i}.png", i)
        shapes = [square(5, 5), square(5, 5.2), square(90, 5)] if i == 1 else [square(5, 5), square(40, 30)]
        records.append(
            record(SIZE, shapes, key=f"{i}.png", labels=[0, 0, 1][: len(shapes)], image_id=i + 1, first_id=9 * i + 1)
        )
    write_coco(tmp_path / "pets" / "pets.json", records, PETS)
    return tmp_path / "pets" / "pets.json"


def test_said_drawn_and_repaired(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", str(pets), "--report", str(tmp_path / "a.html"), "--fix", str(tmp_path / "fixed")]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "error: 1 x outside" in out
    assert "warning: 1 x duplicate object" in out
    assert "all/1.png: object 11: a cat is annotated twice (IoU 1.00)" in out
    assert "3 images, 7 objects: 1 error, 1 warning" in out
    assert "2 of" in out
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg") >= 1
    assert "http" not in page.replace("http://www.w3.org", "")
    fixed = formats.read(tmp_path / "fixed")
    assert [len(fixed.splits["all"].record(i)) for i in range(3)] == [2, 1, 2]
    assert main(["audit", str(tmp_path / "fixed"), "--skip", "outside"]) == 0


def test_exit_codes(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(pets), "--fail-on", "never"]) == 0
    assert main(["audit", str(pets), "--skip", "outside"]) == 0
    assert main(["audit", str(pets), "--skip", "outside", "--fail-on", "warning"]) == 1
    assert main(["audit", str(pets), "--skip", "outsight"]) == 2
    assert "no checks outsight" in capsys.readouterr().err


def test_what_cannot_be_read_is_a_finding(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(pets.read_text())
    data["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    pets.write_text(json.dumps(data))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(pets.parent / "images" / "2.png")
    assert main(["audit", str(pets), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["counts"]["unusable"] == 1
    assert found["counts"]["broken picture"] == 1
    row = next(f for f in found["findings"] if f["check"] == "broken picture")
    assert (row["split"], row["image"], row["object"], row["severity"]) == ("all", "2.png", None, "error")


def test_nothing_is_overwritten(pets: Path, tmp_path: Path) -> None:
    assert main(["audit", str(pets), "--fix", str(tmp_path / "pets")]) == 2


def test_a_clean_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph(tmp_path / "0.png", 0)
    write_coco(tmp_path / "a.json", [record(SIZE, [square(5, 5)], key="0.png")], Taxonomy(names=("cat",)))
    assert main(["audit", str(tmp_path / "a.json"), "--skip", "rare class", "--fail-on", "note"]) == 0
    assert capsys.readouterr().out == "1 images, 1 objects: 0 errors, 0 warnings, 0 notes\n"
