"""Trackers by name, with libraries that stand in for the real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from maskwright.errors import InputError
from maskwright.storage import read_json
from maskwright.train import loggers
from tests.train.test_loop import run


class Fake(ModuleType):
    """Remembers every call, by whatever name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.broken = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == self.broken:
                raise RuntimeError("no network")
            self.calls.append((name, args, kwargs))
            return SimpleNamespace(info=SimpleNamespace(run_id="m1"), id="w1", name="t1")

        return call

    def named(self, name: str) -> list[dict[str, Any]]:
        return [kwargs for each, _, kwargs in self.calls if each == name]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    made = {name: Fake(name) for name in loggers.TRACKERS}
    for name, fake in made.items():
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr("maskwright.train.log.TRACK_EVERY", 0.0)
    return made


def test_a_run_is_told_to_all_and_goes_on_where_it_was(fakes: dict[str, Fake], tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = {"log": "mlflow,wandb,trackio", "evaluate": lambda model: {"mask": {"AP": 0.25}}, "evaluations": 2}
    run(out, steps=4, **given)
    steps = [kwargs["step"] for kwargs in fakes["mlflow"].named("log_metrics")]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    told = [args[0] for name, args, _ in fakes["wandb"].calls if name == "log"]
    assert {"val/mask.AP": 0.25} in told
    assert any("train/loss" in each for each in told)
    assert fakes["mlflow"].named("end_run") == [{"status": "FINISHED"}]
    assert fakes["wandb"].named("finish") == [{"exit_code": 0}]
    assert fakes["wandb"].named("init")[0]["config"]["options.steps"] == 4
    assert read_json(out / "trackers.json") == {"mlflow": "m1", "wandb": "w1", "trackio": "t1"}
    run(out, steps=6, resume=True, **given)
    assert fakes["mlflow"].named("start_run")[1] == {"run_id": "m1"}
    assert fakes["wandb"].named("init")[1]["id"] == "w1"
    assert fakes["trackio"].named("init")[1]["resume"] == "allow"


def test_one_that_fails_is_left_out_and_the_run_goes_on(
    fakes: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes["wandb"].broken = "log"
    assert run(tmp_path / "run", steps=3, log="wandb,trackio")["step"] == 3
    assert fakes["wandb"].named("finish") == []
    assert len(fakes["trackio"].named("log")) == 3


def test_one_that_cannot_begin_stops_the_run(fakes: dict[str, Fake], tmp_path: Path) -> None:
    fakes["trackio"].broken = "init"
    with pytest.raises(InputError, match="--log trackio cannot begin: no network"):
        run(tmp_path / "run", log="wandb,trackio")
    assert fakes["wandb"].named("finish") == [{"exit_code": 1}]


@pytest.mark.parametrize(
    ("log", "said"), [("comet", "takes mlflow, wandb, trackio"), ("wandb,wandb", "names each tracker once")]
)
def test_names_that_cannot_be(log: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run(tmp_path / "run", log=log)


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'maskwright\[mlflow\]'"):
        run(tmp_path / "run", log="mlflow")
    assert not (tmp_path / "run" / "options.json").exists()
