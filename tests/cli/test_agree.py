"""``maskwright agree``: figures, drawings, consensus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli.main import main
from maskwright.data import formats
from maskwright.data.formats.coco import write_coco
from tests.data.make import record
from tests.data.test_audit import PETS, SIZE, photograph, square


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Three annotators of two pictures; the third sees one object elsewhere and one more."""
    out: list[str] = []
    for name, shift, more in (("ann", 0.0, False), ("bob", 1.0, False), ("eve", 8.0, True)):
        records = []
        for i in range(2):
            photograph(tmp_path / "images" / f"{i}.png", i)
            shapes = [square(5, 5), square(40 + shift, 30)] + ([square(5, 35, 10)] if more else [])
            records.append(
                record(
                    SIZE, shapes, key=f"{i}.png", labels=[0, 1, 0][: len(shapes)], image_id=i + 1, first_id=9 * i + 1
                )
            )
        write_coco(tmp_path / f"{name}.json", records, PETS)
        out.append(str(tmp_path / f"{name}.json"))
    return out


def test_figures_and_drawings(three: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", *three, "--json", "--draw", "1", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 2
    assert found["pairs"]["ann | bob"]["RQ"] == 1.0
    assert found["annotators"]["eve"]["PQ"] < found["annotators"]["ann"]["PQ"] < 1
    assert len(found["least"]) == 2
    picture = np.asarray(Image.open(found["drawn"][0])).astype(int)
    red = picture[..., 0] - picture[..., 1]
    assert red[40, 10] > 30  # what only one of them sees
    assert abs(red[15, 15]) <= 1  # what all see
    assert main(["agree", *three, "--intervals", "20"]) == 0
    out = capsys.readouterr().out
    assert "each against the others" in out
    assert "ann | eve" in out
    assert "[" in out


@pytest.mark.parametrize("method", ["majority", "staple"])
def test_consensus(three: list[str], tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", *three, "--consensus", str(tmp_path / method), "--method", method]) == 0
    made = formats.read(tmp_path / method)
    first = made.splits["all"].record(0)
    assert first.labels.tolist() == [0, 1]
    assert first.boxes[0].tolist() == [5, 5, 25, 25]
    # Two of three see the dog, a pixel apart: a majority takes what both see, STAPLE may take what either sees.
    assert first.boxes[1].tolist() in (
        [[41, 30, 60, 50]] if method == "majority" else [[41, 30, 60, 50], [40, 30, 61, 50]]
    )
    assert made.splits["all"].load(1)[1].shape == (3, *SIZE)
    assert main(["agree", *three, "--consensus", str(tmp_path / method)]) == 2


def test_what_cannot_be_compared(three: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", three[0]]) == 2
    assert "two or more data sets" in capsys.readouterr().err
    other = record(SIZE, [square(5, 5)], key="1.png", image_id=1)
    write_coco(tmp_path / "part.json", [other], PETS)
    assert main(["agree", three[0], str(tmp_path / "part.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    photograph(tmp_path / "images" / "far.png", 9)
    write_coco(tmp_path / "far.json", [record(SIZE, [], key="far.png")], PETS)
    assert main(["agree", three[0], str(tmp_path / "far.json")]) == 2
    assert "no image is in two" in capsys.readouterr().err
