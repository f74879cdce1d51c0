"""What a run says of itself: where it comes from, pictures, its end; and when it gives up."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data.fractions import fraction_of
from maskwright.data.synthetic.discs import Discs
from maskwright.errors import InputError
from maskwright.storage import read_json
from maskwright.structures import Scene
from maskwright.train.provenance import data_hash, git_state, provenance
from maskwright.train.rate_finder import find_rate
from maskwright.train.samples import Samples
from tests.train.test_loop import options, rows, run
from tests.train.toy import Toy, ToyBatches

DISCS = Discs(6, size=(64, 80), seed=1)


class Sheet(Samples):
    """Draws without being shown anything."""

    def __init__(self) -> None:
        super().__init__(DISCS, count=2)

    def take(self) -> np.ndarray:
        return np.full((40, 60, 3), 130, np.uint8)


def test_a_run_gives_up_when_nothing_gets_better(tmp_path: Path) -> None:
    figures = iter([0.1, 0.3, 0.3, 0.2, 0.25, 0.9])
    out = tmp_path / "run"
    summary = run(
        out, steps=12, evaluate_every=2, patience=3, evaluate=lambda model: {"mask": {"AP": next(figures)}}
    )  # fmt: skip
    assert summary["step"] == 10
    assert summary["best"] == 0.3
    assert read_json(out / "summary.json")["step"] == 10
    assert len(rows(out, "evaluations.csv")) == 5


def test_patience_survives_a_resumption(tmp_path: Path) -> None:
    out, seen = tmp_path / "run", []

    def evaluate(model: object) -> dict[str, dict[str, float]]:
        seen.append(1)
        return {"mask": {"AP": 0.5}}

    given = {"evaluate_every": 1, "patience": 4, "evaluate": evaluate}
    run(out, steps=3, **given)
    assert run(out, steps=20, resume=True, **given)["step"] == 5


def test_an_unfinished_run_has_no_summary(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, steps=2)

    def stop(n: int) -> None:
        if n == 3:
            raise InputError("the disk is gone")

    with pytest.raises(InputError):
        run(out, steps=9, resume=True, batches=ToyBatches(hook=stop))
    assert not (out / "summary.json").exists()


def test_samples_are_kept_for_each_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, steps=4, evaluations=2, evaluate=lambda model: {"mask": {"AP": 0.5}}, samples=Sheet())
    pictures = sorted((out / "samples").iterdir())
    assert [path.name for path in pictures] == ["step-00000002.jpg", "step-00000004.jpg"]
    with Image.open(pictures[0]) as image:
        assert image.size == (60, 40)


def test_samples_draw_truth_beside_what_was_found() -> None:
    samples = Samples(DISCS, count=2)
    assert samples.take() is None
    for i in range(len(DISCS)):
        record = DISCS.record(i)
        samples(record, Scene(size=record.size))
    sheet = samples.take()
    assert sheet is not None
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= 2 * 80
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 50
    assert samples.take() is None


def test_the_hash_is_of_what_is_annotated() -> None:
    same = Discs(6, size=(64, 80), seed=1)
    assert data_hash(DISCS) == data_hash(same)
    assert data_hash(DISCS)[0] != data_hash(Discs(6, size=(64, 80), seed=2))[0]
    assert data_hash(DISCS)[0] != data_hash(fraction_of(DISCS, 0.5))[0]


def test_where_a_run_comes_from(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path), *words],
            check=True, capture_output=True,
        )  # fmt: skip

    git("init", "-q", "-b", "main")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-q", "-m", "first")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (clean["branch"], clean["dirty"], clean["diff"]) == ("main", False, None)
    (tmp_path / "a.txt").write_text("2")
    found = provenance({"train": DISCS}, {"train": "discs"}, directory=tmp_path)
    assert found["git"]["commit"] == clean["commit"]
    assert found["git"]["dirty"]
    assert found["data"]["train"]["images"] == 6
    assert found["data"]["train"]["path"] == "discs"
    assert found["machine"]["cores"] >= 1


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0, float("nan")])
def test_fractions_that_cannot_be(share: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        fraction_of(DISCS, share)


def test_smaller_fractions_are_parts_of_larger_ones() -> None:
    source = Discs(40, size=(64, 64), seed=0)
    keys = [{fraction_of(source, share, 3).record(i).key for i in range(n)} for share, n in ((0.1, 4), (0.5, 20))]
    assert keys[0] < keys[1]
    assert fraction_of(source, 1.0) is source
    assert len(fraction_of(source, 1e-6)) == 1


def test_the_rate_found_is_sane_and_nothing_is_changed() -> None:
    torch.manual_seed(0)
    model, batches = Toy(norm=True), ToyBatches(size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    found = find_rate(model, batches, options(optimizer="sgd"), low=1e-5, high=100.0, steps=60)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert batches.next == 0
    assert found.suggestion is not None
    assert 1e-4 < found.suggestion < 10


@pytest.mark.parametrize(("change", "said"), [({"low": 1.0, "high": 0.1}, "must rise"), ({"steps": 3}, "at least 10")])
def test_ranges_that_cannot_be(change: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_rate(Toy(), ToyBatches(), options(), **change)  # type: ignore[arg-type]


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="patience"):
        options(patience=-1)
    assert replace(options(), patience=3).patience == 3
