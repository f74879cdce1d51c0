"""Reports: one file, everything escaped, every number shown."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.draw import report
from maskwright.errors import InputError

VOID = {"meta", "img", "rect", "line", "polyline"}


class Balanced(HTMLParser):
    """Collects text and fails where a tag closes that was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(document: str) -> Balanced:
    parser = Balanced()
    parser.feed(document)
    assert parser.open == []
    return parser


def test_a_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    line = np.linspace(0, 1, 5)
    document = report.page(
        "Cells & <b>more</b>",
        report.heading("Figures", "as fractions"),
        report.table(["class", "AP", "n"], [["a<b", 0.51239, 3], ["c", -1.0, 0], ["d", float("nan"), None]]),
        report.curves({"all": (line, 1 - line)}, x="recall", y="precision", diagonal=True),
        report.matrix(["a", "b"], ["a", "b", "nothing"], np.array([[3, 1, 0], [0, 0, 0]]), side="truth", top="found"),
        report.pictures([("picture 1", np.full((8, 12, 3), 200, np.uint8))]),
    )
    text = "".join(parse(document).text)
    assert "Cells & <b>more</b>" in text
    assert "a<b" in text
    assert "0.5124" in text
    assert document.count("<td>-</td>") == 3
    assert "http" not in document
    assert "<script" not in document
    report.save(tmp_path / "new" / "page.html", document)
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == document
    with pytest.raises(InputError, match="is a directory"):
        report.save(tmp_path, document)


def test_curves_lie_in_their_frame_and_leave_out_what_is_undefined() -> None:
    recall = np.linspace(0, 1, 11)
    precision = np.where(recall > 0.5, -1.0, 0.8)
    drawn = report.curves({"a": (recall, precision), "b": (recall, recall)}, x="recall", y="precision")
    parse(drawn)
    first, second = re.findall(r'points="([^"]*)"', drawn)
    assert len(first.split()) == 6
    places = np.array([[float(v) for v in p.split(",")] for p in second.split()])
    assert places.shape == (11, 2)
    assert (np.diff(places[:, 0]) > 0).all()
    assert (np.diff(places[:, 1]) < 0).all(), "higher values lie higher"
    assert "The first" not in drawn
    assert "The first 10 of 12." in report.curves({str(i): (recall, recall) for i in range(12)}, x="x", y="y")


def test_a_matrix_shades_by_the_share_of_its_row() -> None:
    drawn = report.matrix(["a", "b"], ["a", "b"], np.array([[9, 1], [5, 5]]), side="truth", top="found")
    assert [float(v) for v in re.findall(r"176,([0-9.]+)\)", drawn)] == [0.9, 0.1, 0.5, 0.5]
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        report.matrix(["a"], ["a", "b"], np.zeros((2, 2)), side="t", top="f")


def test_pictures_are_embedded_and_made_smaller() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :100] = 255
    drawn = report.pictures([("left <white>", pixels)], longest=50)
    found = re.search(r"base64,([^\"]+)", drawn)
    assert found is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.group(1)))))
    assert picture.shape == (25, 50, 3)
    assert picture[:, :20].mean() > 240 > 20 > picture[:, -20:].mean()
    assert "left &lt;white&gt;" in drawn
