"""``maskwright search``: forms, the frontier, what is chosen and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskwright import zoo
from maskwright.cli import search
from maskwright.cli.main import main
from maskwright.cli.search import Form, form_of, frontier
from maskwright.structures import Resize, Taxonomy
from tests.cli.test_compress import _one_thread, checkpoint, data

__all__ = ["_one_thread", "checkpoint", "data"]

TIMES = {"0.5x, 20 proposals": 10.0, "0.5x, 60 proposals": 20.0, "1x, 20 proposals": 30.0, "1x, 60 proposals": 60.0}
FIGURES = {"0.5x, 20 proposals": 0.2, "0.5x, 60 proposals": 0.15, "1x, 20 proposals": 0.3, "1x, 60 proposals": 0.5}
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def decreed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Times and figures by decree; what is measured is listed, with the number of images."""
    seen: list[tuple[str, int]] = []

    def time(args: Any, forms: list[Form], models: Any, pictures: Any) -> None:
        for form in forms:
            form.p50 = form.p90 = TIMES[form.name]

    def measuring(args: Any, models: Any, val: Any) -> Any:
        def measure(form: Form, images: int) -> float:
            seen.append((form.name, images))
            return FIGURES[form.name]

        return measure

    monkeypatch.setattr(search, "_time", time)
    monkeypatch.setattr(search, "_measuring", measuring)
    return seen


def words(checkpoint: Path, data: Path, out: Path, *more: str, scales: str = "0.5,1", of: str = "20,60") -> list[str]:
    plain = ["--val", str(data / "val.json"), "--out", str(out), "--device", "cpu", "--workers", "0"]
    return ["search", str(checkpoint), *plain, "--scales", scales, "--proposals", of, *more]


def test_the_best_within_the_budget_is_taken(
    checkpoint: Path, data: Path, tmp_path: Path, decreed: list[Any], capsys: Captured
) -> None:
    out = tmp_path / "found"
    assert main(words(checkpoint, data, out, "--budget", "35ms", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "search.json").read_text())
    assert told["best"] == "1x, 20 proposals"
    assert {name for name, _ in decreed} == set(TIMES) - {"1x, 60 proposals"}
    rows = {row["name"]: row for row in told["forms"]}
    assert rows["1x, 60 proposals"]["figure"] is None
    assert [name for name, row in rows.items() if row["frontier"]] == ["0.5x, 20 proposals", "1x, 20 proposals"]
    model: Any = zoo.load(out / "best.safetensors")
    known: Any = zoo.load(checkpoint)
    assert model.proposals_test[1] == 20
    assert model.resize == known.resize
    assert "within 35 ms" in model.card["searched"]
    assert (out / "forms.svg").read_text().startswith("<")
    assert (out / "forms.csv").read_text().count("\n") == 5


def test_none_within_the_budget(
    checkpoint: Path, data: Path, tmp_path: Path, decreed: list[Any], capsys: Captured
) -> None:
    assert main(words(checkpoint, data, tmp_path / "o", "--budget", "5ms")) == 1
    assert "the fastest is 0.5x, 20 proposals: 10.0 ms" in capsys.readouterr().out
    assert not (tmp_path / "o" / "best.safetensors").exists()


def test_many_forms_are_measured_on_a_part_first() -> None:
    forms = [Form(1.0, n, 0.0) for n in range(10, 60, 10)]
    seen: list[tuple[int, int]] = []

    def measure(form: Form, images: int) -> float:
        seen.append((form.proposals or 0, images))
        return form.proposals or 0.0

    search._choose(forms, measure, 40)
    assert [pair for pair in seen if pair[1] == 10] == [(n, 10) for n in range(10, 60, 10)]
    assert [pair for pair in seen if pair[1] == 40] == [(50, 40), (40, 40), (30, 40)]


def test_a_form_changes_no_other(checkpoint: Path) -> None:
    taxonomy = Taxonomy(names=("disc", "ground"), thing=(True, False))
    networks: list[Any] = [zoo.load(checkpoint), zoo.build("panoptic-fpn-r50", taxonomy, body="resnet18")]
    for network in networks:
        resize, proposals = network.resize, network.proposals_test
        small = form_of(network, Form(0.5, 7, 0.0))
        assert (network.resize, network.proposals_test) == (resize, proposals)
        half = {"short": resize.short // 2, "long": round(resize.long / 2), "scale": 0.5}
        assert small.resize == Resize(**half, antialias=resize.antialias)
        assert small.proposals_test == (proposals[0], 7)
        assert next(small.parameters()) is next(network.parameters())


def test_the_frontier() -> None:
    rows = [(10, 0.2), (20, 0.1), (30, 0.3), (30, 0.25), (40, 0.3)]
    forms = [Form(1.0, i + 1, 0.0, p50=p50, figure=figure) for i, (p50, figure) in enumerate(rows)]
    assert frontier(forms) == {forms[0].name, forms[2].name}
    assert frontier([Form(1.0, None, 0.0)]) == set()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--prune", "0,0.3"), "give --data"),
        (("--prune", "1"), "--prune must be"),
        (("--scales", "big"), "--scales must be"),
        (("--repeat", "0"), "1 or more"),
        (("--with", "--steps", "3"), "--prune asks for none"),
    ],
)
def test_searches_that_cannot_be(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: Captured, more: tuple[str, ...], said: str
) -> None:
    assert main(words(checkpoint, data, tmp_path / "o", "--budget", "1s", *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_search_that_measures(checkpoint: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    """With a pruned width, tuned; nothing by decree."""
    more = ["--budget", "60s", "--repeat", "1", "--prune", "0,0.4", "--data", str(data / "train.json"), "--json"]
    tuning = ["--with", "--steps", "1", "--batch-size", "2", "--evaluations", "1"]
    assert main([*words(checkpoint, data, tmp_path / "o", scales="1", of="20"), *more, *tuning]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told["forms"]] == ["1x, 20 proposals", "1x, 20 proposals, pruned 0.4"]
    assert all(row["p50"] > 0 and row["figure"] is not None for row in told["forms"])
    assert (tmp_path / "o" / "pruned-0.4" / "best.safetensors").is_file()
