"""The loop: it learns, logs, evaluates, stops where it must, and continues as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright.errors import InputError
from maskwright.objectives.supervised import Supervised
from maskwright.structures import Batch
from maskwright.train import TrainOptions, checkpoint, seed_all, train
from maskwright.weights import store
from tests.train.toy import Toy, ToyBatches


def options(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"steps": 8, "device": "cpu", "precision": "32", "workers": 0, **changes})


def run(out: Path, *, batches: ToyBatches | None = None, model: Toy | None = None, **changes: Any) -> dict[str, Any]:
    given = {
        name: changes.pop(name)
        for name in ("evaluate", "resume", "meta", "epoch", "samples", "about")
        if name in changes
    }
    seed_all(0)
    model, batches = model or Toy(norm=True), batches or ToyBatches()
    return train(model, batches, options=options(**changes), out=out, quiet=True, **given)


def rows(out: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with open(out / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def losses(out: Path) -> list[tuple[str, ...]]:
    """Everything of the log but the time."""
    return [tuple(value for name, value in row.items() if name != "seconds") for row in rows(out)]


def test_the_order_is_told_how_hard_its_batches_were(tmp_path: Path) -> None:
    class Told(ToyBatches):
        def __init__(self) -> None:
            super().__init__(size=3)
            self.told: list[list[float]] = []

        def report(self, losses: list[float]) -> None:
            self.told.append(losses)

    batches = Told()
    run(tmp_path / "run", batches=batches, steps=4, accumulate=2, replay=0.25)
    assert [len(losses) for losses in batches.told] == [3] * 8
    logged = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert [losses[0] for losses in batches.told[::2]] == pytest.approx(logged)
    plain = Told()
    run(tmp_path / "plain", batches=plain, steps=2)
    assert plain.told == []


def test_it_learns_and_leaves_a_run_directory(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run(out, steps=150, batch_size=2, learning_rate=0.03, meta={"model": "toy", "card": {"license": "CC0"}})
    log = rows(out)
    assert [int(row["step"]) for row in log] == list(range(1, 151))
    first, last = (sum(float(row["loss"]) for row in part) for part in (log[:20], log[-20:]))
    assert last < 0.3 * first
    assert summary["step"] == 150
    assert summary["best"] is None
    state, meta = store.read(out / "last.safetensors")
    assert set(state) == set(Toy(norm=True).state_dict())
    assert meta["model"] == "toy"
    assert meta["card"]["license"] == "CC0"
    assert meta["card"]["step"] == 150
    written = json.loads((out / "options.json").read_text())
    assert written["options"]["learning_rate"] == 0.03
    assert written["chosen"] == {"device": "cpu", "precision": "32", "steps": 150, "processes": 1}
    assert written["versions"]["torch"] == torch.__version__
    assert list((out / "tensorboard").iterdir())
    assert not (out / "best.safetensors").exists()


def test_evaluations_choose_the_best(tmp_path: Path) -> None:
    figures = iter([0.1, 0.5, 0.3, 0.4])
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(model: torch.nn.Module) -> dict[str, Any]:
        torch.rand(3)  # must not move the run's random numbers
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mask": {"AP": next(figures), "per_class": {"disc": {"AP": 1.0}}}, "images": 3}

    summary = run(tmp_path / "a", evaluate=evaluate, evaluations=4)
    assert [row["step"] for row in rows(tmp_path / "a", "evaluations.csv")] == ["2", "4", "6", "8"]
    assert summary["best"] == 0.5
    assert summary["metrics"]["mask"]["per_class"] == {"disc": {"AP": 1.0}}
    best, meta = store.read(tmp_path / "a" / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in seen[1].items())
    assert meta["card"]["metrics"] == {"mask.AP": 0.5, "images": 3.0}
    run(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_evaluate_every(tmp_path: Path) -> None:
    run(tmp_path / "a", evaluate=lambda _: {"mask": {"AP": 0.0}}, evaluate_every=3)
    assert [row["step"] for row in rows(tmp_path / "a", "evaluations.csv")] == ["3", "6", "8"]


def test_averaged_weights_are_evaluated_and_saved_but_not_trained(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def evaluate(model: Any) -> dict[str, Any]:
        seen.append(model.head.weight.detach().clone())
        return {"mask": {"AP": float(len(seen))}}

    run(tmp_path / "a", evaluate=evaluate, evaluations=2, ema=0.9, learning_rate=0.05)
    run(tmp_path / "b", learning_rate=0.05)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    averaged, plain = (store.read(tmp_path / name / "last.safetensors")[0]["head.weight"] for name in "ab")
    assert torch.equal(averaged, seen[-1])
    assert torch.equal(averaged, store.read(tmp_path / "a" / "best.safetensors")[0]["head.weight"])
    assert not torch.allclose(averaged, plain, atol=1e-4)


def test_kill_9_then_resume_equals_an_unbroken_run(tmp_path: Path) -> None:
    def start(out: Path, wait: float, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "tests.train.toy", str(out), "24", str(wait), *more]
        return subprocess.Popen(words, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)

    whole, broken = start(tmp_path / "whole", 0.0), start(tmp_path / "broken", 0.05)
    log = tmp_path / "broken" / "log.csv"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 10):
        assert broken.poll() is None, broken.communicate()[1]
        time.sleep(0.01)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    assert len(rows(tmp_path / "broken")) < 24
    resumed = start(tmp_path / "broken", 0.0, "resume")
    for process in (whole, resumed):
        said = process.communicate(timeout=400)[1]
        assert process.returncode == 0, said
    assert b"resuming after step" in said
    assert len(losses(tmp_path / "whole")) == 24
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    ends = [store.read(tmp_path / name / "last.safetensors")[0] for name in ("whole", "broken")]
    assert all(torch.equal(ends[1][name], value) for name, value in ends[0].items())


class CrashError(RuntimeError):
    pass


def crash_at(number: int) -> ToyBatches:
    def hook(n: int) -> None:
        if n == number:
            raise CrashError

    return ToyBatches(hook=hook)


@pytest.mark.parametrize(("accumulate", "at"), [(1, 7), (3, 19)])
def test_a_crash_then_resume(tmp_path: Path, accumulate: int, at: int) -> None:
    """Also in the middle of a window; the log is cut to the checkpoint."""
    changes: dict[str, Any] = {"steps": 9, "checkpoint_every": 4, "accumulate": accumulate, "ema": 0.9}
    run(tmp_path / "whole", **changes)
    with pytest.raises(CrashError):
        run(tmp_path / "broken", batches=crash_at(at), **changes)
    with open(tmp_path / "broken" / "log.csv", "a", encoding="utf-8") as file:
        file.write("8,0.1")  # a row that was being written
    run(tmp_path / "broken", resume=True, **changes)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_a_damaged_checkpoint_is_skipped_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "whole")
    with pytest.raises(CrashError):
        run(tmp_path / "run", batches=crash_at(7), checkpoint_every=2)
    newest, before = checkpoint.found(tmp_path / "run" / "checkpoints")
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    seed_all(0)
    train(Toy(norm=True), ToyBatches(), options=options(), out=tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert f"resuming after step {checkpoint.step_of(before)}" in said
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_nan_stops_with_the_images_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Broken(Toy):
        def loss(self, raw: Any, batch: Batch) -> dict[str, torch.Tensor]:
            found = super().loss(raw, batch)
            return {**found, "hits": found["hits"] * float("inf")} if "picture 11" in batch.keys else found

    with pytest.raises(
        InputError, match=r"step 6: .*hits is not .*picture 10, picture 11.*checkpoint of step 4 is whole"
    ):
        run(tmp_path / "run", model=Broken(norm=True), checkpoint_every=4)
    state = checkpoint.load_newest(tmp_path / "run" / "checkpoints", lambda _: None)
    assert state is not None
    assert state["step"] == 4
    assert all(bool(torch.isfinite(value).all()) for value in state["weights"].values())


def test_a_gradient_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Broken(Toy):
        def loss(self, raw: Any, batch: Batch) -> dict[str, torch.Tensor]:
            found = super().loss(raw, batch)
            return {**found, "steep": (found["area"] * 0).sqrt()}

    with pytest.raises(InputError, match=r"step 1: the gradient must be finite.*picture 0"):
        run(tmp_path / "run", model=Broken(), clip_norm=1.0)


def test_a_bad_image_loses_no_step(tmp_path: Path) -> None:
    run(tmp_path / "whole")

    def hook(n: int) -> None:
        if n == 5:
            raise InputError("picture 10 is truncated")

    with pytest.raises(InputError, match="truncated"):
        run(tmp_path / "run", batches=ToyBatches(hook=hook))
    run(tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "whole")

    def hook(n: int) -> None:
        if n == 4:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", batches=ToyBatches(hook=hook))
    assert signal.getsignal(signal.SIGINT) is before
    assert len(rows(tmp_path / "run")) == 5
    assert (tmp_path / "run" / "last.safetensors").exists()
    run(tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_time_ends_a_run(tmp_path: Path) -> None:
    waiting = ToyBatches(hook=lambda _: time.sleep(0.05))
    summary = run(tmp_path / "run", steps=0, minutes=0.5 / 60, batches=waiting, schedule="cosine", warmup=0.0)
    assert 2 <= summary["step"] <= 12
    assert 0.5 <= summary["seconds"] < 5
    rates = [float(row["learning_rate"]) for row in rows(tmp_path / "run")]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.5 * rates[0]


def test_epochs_are_counted_in_batches(tmp_path: Path) -> None:
    assert run(tmp_path / "run", steps=0, epochs=1.5, accumulate=2, epoch=5)["step"] == 4
    with pytest.raises(InputError, match="epoch"):
        run(tmp_path / "other", steps=0, epochs=1.5)


def test_run_directories_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file\. Choose another --out"):
        run(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"--resume .* or another --out"):
        run(tmp_path / "full")
    with pytest.raises(InputError, match="Choose another --out"):
        run(tmp_path / "file" / "run")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", steps=1)["step"] == 1


def test_resuming_what_never_began_and_what_is_finished(tmp_path: Path) -> None:
    assert run(tmp_path / "run", resume=True)["step"] == 8
    before = losses(tmp_path / "run")
    assert run(tmp_path / "run", resume=True)["step"] == 8
    assert losses(tmp_path / "run") == before


def test_resuming_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match="another model"):
        run(tmp_path / "run", resume=True, model=Toy())


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path / "run", checkpoint_every=1, keep=3)
    found = checkpoint.found(tmp_path / "run" / "checkpoints")
    assert [checkpoint.step_of(path) for path in found] == [8, 7, 6]
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 3


def test_an_objective_is_told_of_each_step(tmp_path: Path) -> None:
    class Told(Supervised):
        steps: tuple[int, ...] = ()

        def after_step(self, step: int) -> None:
            self.steps = (*self.steps, step)

    seed_all(0)
    told = Told(Toy())
    train(told, ToyBatches(), options=options(steps=3), out=tmp_path / "run", quiet=True)
    assert told.steps == (1, 2, 3)


def test_a_model_that_anneals_is_told_how_far_the_run_is(tmp_path: Path) -> None:
    seen: list[float] = []

    class Annealed(Toy):
        def anneal(self, share: float) -> None:
            seen.append(share)

    with pytest.raises(CrashError):
        run(tmp_path / "run", model=Annealed(norm=True), batches=crash_at(6), checkpoint_every=2)
    run(tmp_path / "run", model=Annealed(norm=True), checkpoint_every=2, resume=True)
    assert seen == [*(k / 8 for k in range(6)), 6 / 8, 7 / 8]


def test_supervised_names_inputs_without_a_scene() -> None:
    data = next(iter(ToyBatches()))
    data = Batch(inputs=data.inputs, scenes=(None, data.scenes[1]), keys=data.keys)
    with pytest.raises(ValueError, match="picture 0"):
        Supervised(Toy())(data)


def test_an_evaluation_that_fails_loses_nothing_and_is_made_up_for(tmp_path: Path) -> None:
    run(tmp_path / "whole")

    def fail(_: object) -> dict[str, Any]:
        raise InputError("val/3.png is truncated")

    changes: dict[str, Any] = {"evaluate_every": 5}
    with pytest.raises(InputError, match="truncated"):
        run(tmp_path / "run", evaluate=fail, **changes)
    assert len(rows(tmp_path / "run")) == 5
    run(tmp_path / "run", evaluate=lambda _: {"mask": {"AP": 0.5}}, resume=True, **changes)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "run", "evaluations.csv")] == ["5", "8"]
    assert len(checkpoint.found(tmp_path / "run" / "checkpoints")) == 2
