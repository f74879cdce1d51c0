"""How to compute, by measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskwright as mw
from maskwright.errors import InputError
from maskwright.infer import choose as module
from maskwright.infer.choose import Way, choose, ways

PLAIN, LAST = Way("cpu"), Way("cpu", channels_last=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 60, (64, 64, 3))
        pixels[20:40, 15:45] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return [folder / "bad.png", *(folder / f"{i}.png" for i in range(4))]


@pytest.fixture
def model() -> Any:
    return mw.load()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[Way, float]:
    """Seconds that each way takes, by decree."""
    seconds: dict[Way, float] = {}
    run = module._run

    def timed(model: Any, way: Way, step: Any, path: Path) -> tuple[Any, float]:
        return run(model, way, step, path)[0], seconds.get(way, 1.0)

    monkeypatch.setattr(module, "_run", timed)
    return seconds


def is_channels_last(model: Any) -> bool:
    weight = next(p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    return weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("faster", "last"), [(PLAIN, False), (LAST, True)])
def test_the_fastest_is_taken(
    model: Any, pictures: list[Path], clock: dict[Way, float], faster: Way, last: bool
) -> None:
    clock.update({PLAIN: 0.5, LAST: 0.5, faster: 0.2})
    choice = choose(model, pictures, candidates=[PLAIN, LAST], rounds=1)
    assert choice.way == faster
    assert is_channels_last(model) == last
    assert choice.milliseconds[str(faster)] == pytest.approx(200)
    assert "200 ms" in str(choice)


def test_what_finds_something_else_is_refused_however_fast(
    model: Any, pictures: list[Path], clock: dict[Way, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.update({PLAIN: 0.5, LAST: 0.1})
    model.score_threshold = 0.0  # so that it finds something
    real, made = module.one_by_one, list[Any]()

    def second_is_blind(network: Any, **options: Any) -> Any:
        made.append(real(network, **options, score_threshold=1.0 if made else 0.0))
        return made[-1]

    monkeypatch.setattr(module, "one_by_one", second_is_blind)
    choice = choose(model, pictures, candidates=[PLAIN, LAST], rounds=1)
    assert choice.way == PLAIN
    assert "of the same objects" in choice.refused[str(LAST)]


def test_a_choice_is_kept_for_the_model_and_the_machine(
    model: Any, pictures: list[Path], clock: dict[Way, float], tmp_path: Path
) -> None:
    kept, said = tmp_path / "choices.json", list[str]()
    clock.update({PLAIN: 0.5, LAST: 0.2})
    options: dict[str, Any] = {"candidates": [PLAIN, LAST], "rounds": 1, "kept": kept, "say": said.append}
    assert not choose(model, pictures, **options).known
    model.to(memory_format=torch.contiguous_format)
    again = choose(model, [], **options)
    assert again.known
    assert again.way == LAST
    assert is_channels_last(model)
    assert "measured before" in str(again)
    assert len(said) == 1
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert not choose(model, pictures, **options).known
    assert len(json.loads(kept.read_text())) == 2
    kept.write_text("{")
    assert not choose(model, pictures, **options).known


def test_no_picture_that_can_be_read(model: Any, pictures: list[Path]) -> None:
    with pytest.raises(InputError, match="at least one of the pictures"):
        choose(model, pictures[:1], candidates=[PLAIN])


def test_the_ways_of_this_machine() -> None:
    found, refused = ways()
    assert found[0].precision == "32"
    assert not found[0].channels_last
    bf16 = [way for way in found if way.precision == "bf16"]
    assert bool(bf16) != bool(refused)


def test_predict_measures_where_there_are_many_and_says_so(
    pictures: list[Path],
    clock: dict[Way, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from maskwright.cli import _looks
    from maskwright.cli.main import main

    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "ways", lambda: ([PLAIN, LAST], {}))
    clock.update({PLAIN: 0.5, LAST: 0.2})
    words = ["predict", *map(str, pictures[1:4]), "--no-overlays", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "computing on" not in capsys.readouterr().err
    monkeypatch.setattr(_looks, "MANY", 3)
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "measuring 2 ways" in said
    assert f"computing on {LAST} (measured: {LAST}: 200 ms; {PLAIN}: 500 ms)" in said
    monkeypatch.setattr(_looks, "MANY", 1000)
    assert main(words) == 0
    assert "measured before" in capsys.readouterr().err
    assert main([*words, "--device", "cpu"]) == 0
    assert "computing on" not in capsys.readouterr().err
