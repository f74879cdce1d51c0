"""The published figures in ``maskwright models`` and in the page that is made of them."""

from __future__ import annotations

import json
import runpy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from maskwright.cli import main as cli
from maskwright.cli import models as command
from maskwright.weights.rows import Published
from maskwright.weights.table import find
from maskwright.zoo import Entry

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.py"
ROW = Published(
    name="disc-net-official", model="disc-net", url="", license="MIT", commercial=True, origin="test",
    preprocessing="", note="", mask_ap=0.371, pq=0.4149, miou=1.0, data="Cityscapes",
)  # fmt: skip
ROWS = {row.name: row for row in (ROW, replace(ROW, name="disc-net-plain", mask_ap=None, pq=None, miou=None))}
ENTRY = Entry(name="disc-net", build="nowhere:disc", task="panoptic", domain="image", paper="Disc et al.")


class _Row(Entry):
    """A row of the zoo whose weights are ours."""

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(ROWS)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {field.name: getattr(ENTRY, field.name) for field in fields(Entry)}
    entries = (_Row(**own), replace(ENTRY, name="square-net", task="semantic"))
    monkeypatch.setattr(command, "models", lambda: entries)
    monkeypatch.setattr(command, "find", ROWS.__getitem__)


def test_every_published_figure_has_a_column() -> None:
    figures = {field.name for field in fields(Published) if field.type == "float | None"}
    assert set(command.FIGURES.values()) == figures
    assert len(figures) >= 4


def test_columns(zoo: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    title, first, second, third = capsys.readouterr().out.splitlines()
    ends = {name: title.index(name) + len(name) for name in command.FIGURES}
    assert {name: first[:end].split()[-1] for name, end in ends.items() if name != "box AP"} == {
        "mask AP": "37.1",
        "PQ": "41.5",
        "mIoU": "100.0",
    }
    assert first[ends["mask AP"] : ends["box AP"]].strip() == ""
    assert first.split()[:4] == ["disc-net", "panoptic", "disc-net-official", "Cityscapes"]
    assert second.split() == ["disc-net-plain", "MIT"]
    assert third.split() == ["square-net", "semantic", "—"]


def test_json(zoo: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    (known, plain), none = (row["weights"] for row in json.loads(capsys.readouterr().out)["models"])
    assert none == []
    assert [known[name] for name in command.FIGURES.values()] == [0.371, None, 0.4149, 1.0]
    assert [plain[name] for name in command.FIGURES.values()] == [None] * 4
    assert known["data"] == "Cityscapes"
    assert known["license"] == "MIT"


def test_page_has_what_the_command_prints() -> None:
    page: Any = runpy.run_path(str(DOCS))["page"]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page().splitlines() if line.startswith("|")]
    titles = lines[0]
    assert titles == ["model", "task", "paper", "weights", "data", *command.FIGURES, "license"]
    assert {len(line) for line in lines} == {len(titles)}
    shown = {line[titles.index("weights")].strip("`"): dict(zip(titles, line, strict=True)) for line in lines[2:]}
    rows = [find(name) for name in shown if name]
    assert any(row.pq is not None for row in rows)
    for row in rows:
        cells = shown[row.name]
        assert [cells[title] for title in command.FIGURES] == [
            command.percent(getattr(row, name)) for name in command.FIGURES.values()
        ]
        assert cells["license"] == row.license
        assert cells["data"] in (row.data, "")
