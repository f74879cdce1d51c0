"""Options, schedule, optimizer, average, checkpoints and log, one by one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maskwright.errors import InputError
from maskwright.ops.hardware import choose_device, choose_precision, has_bf16
from maskwright.train import TrainOptions, checkpoint
from maskwright.train.average import Average
from maskwright.train.log import Log, flatten
from maskwright.train.optimizer import make_optimizer, set_rate
from maskwright.train.schedule import START, progress, rate
from tests.train.toy import Toy


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("batch_size", 0, "--batch-size"),
        ("learning_rate", float("nan"), "--learning-rate"),
        ("learning_rate", float("inf"), "--learning-rate"),
        ("ema", 1.0, "--ema"),
        ("warmup", -0.1, "--warmup"),
        ("milestones", (0.9, 0.5), "--milestones"),
        ("optimizer", "adam", "--optimizer"),
        ("schedule", "linear", "--schedule"),
        ("power", -1.0, "--power"),
        ("layer_decay", 0.0, "--layer-decay"),
        ("patience", -1, "--patience"),
        ("workers", -1, "--workers"),
        ("epochs", 0.0, "--steps"),
    ],
)
def test_options_out_of_range_are_named_as_typed(name: str, value: object, flag: str) -> None:
    with pytest.raises(InputError, match=flag):
        TrainOptions(**{name: value})


def test_progress_is_the_larger_share() -> None:
    assert progress(5, 10, 0.0, 0.0) == 0.5
    assert progress(5, 0, 30.0, 2.0) == 0.25
    assert progress(5, 10, 90.0, 2.0) == 0.75
    assert progress(20, 10, 0.0, 0.0) == 1.0


@given(st.sampled_from(["onecycle", "cosine", "poly", "step", "constant"]), st.floats(0, 0.9), st.floats(0, 1))
def test_the_rate_rises_then_never_rises(schedule: Any, warmup: float, done: float) -> None:
    options = TrainOptions(schedule=schedule, warmup=warmup)
    value = rate(options, done)
    assert 0 <= value <= 1 + 1e-12
    later = rate(options, min(1.0, done + 0.05))
    if done >= warmup:
        assert later <= value + 1e-12
    elif done + 0.05 < warmup:
        assert later > value


def test_schedules_by_their_numbers() -> None:
    onecycle = TrainOptions(schedule="onecycle", warmup=0.3)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), max_lr=1.0, total_steps=1001, pct_start=0.3003
    )
    for step in range(0, 1000, 50):
        assert rate(onecycle, step / 1000) == pytest.approx(reference.get_last_lr()[0], abs=3e-3)
        for _ in range(50):
            reference.optimizer.step()
            reference.step()
    step = TrainOptions(schedule="step", warmup=0.01)
    assert [rate(step, done) for done in (0.5, 0.7, 0.9)] == pytest.approx([1.0, 0.1, 0.01])
    assert rate(step, 0.0) == START["step"]
    cosine = TrainOptions(schedule="cosine", warmup=0.0, final_rate=0.1)
    assert [rate(cosine, done) for done in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.55, 0.1])
    assert rate(TrainOptions(schedule="constant", warmup=0.0), 0.99) == 1.0
    poly = TrainOptions(schedule="poly", warmup=0.2, power=2.0)
    assert [rate(poly, done) for done in (0.2, 0.6, 1.0)] == pytest.approx([1.0, 0.25, 0.0])


def test_optimizer_groups() -> None:
    model = Toy(norm=True)
    model.head.bias.requires_grad_(False)
    options = TrainOptions(weight_decay=0.1, backbone_rate=0.25, learning_rate=1.0)
    optimizer = make_optimizer(model, options)
    set_rate(optimizer, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "backbone.weight": (0.125, 0.1),
        "backbone.bias": (0.125, 0.0),
        "norm.weight": (0.5, 0.0),
        "norm.bias": (0.5, 0.0),
        "head.weight": (0.5, 0.1),
    }
    with pytest.raises(InputError, match="frozen"):
        make_optimizer(model.requires_grad_(False), options)


def test_average_of_weights_and_statistics() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.5)
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(10 * value)
        model.num_batches_tracked += 1
        average.update(model)
    # Decays of the young average: 2/11, 3/12, 4/13.
    expected = 1.0
    for value, decay in ((1.0, 2 / 11), (2.0, 3 / 12), (3.0, 4 / 13)):
        expected = decay * expected + (1 - decay) * value
    with average.applied(model):
        assert float(model.weight.detach()) == pytest.approx(expected)
        assert float(model.running_mean) > 20
        assert int(model.num_batches_tracked) == 3
    assert float(model.weight.detach()) == 3.0
    again = Average(model, 0.5)
    again.load_state_dict(average.state_dict())
    assert again.steps == 3
    assert float(again.values["weight"]) == pytest.approx(expected)


def test_checkpoint_round_trip_and_damage(tmp_path: Path) -> None:
    heard: list[str] = []
    assert checkpoint.load_newest(tmp_path, heard.append) is None
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step, "weights": {"a": torch.full((2,), float(step))}}, keep=2)
    state = checkpoint.load_newest(tmp_path, heard.append)
    assert state is not None
    assert state["weights"]["a"].tolist() == [2.0, 2.0]
    assert heard == []
    newest, older = checkpoint.found(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-10])
    state = checkpoint.load_newest(tmp_path, heard.append)
    assert state is not None
    assert state["step"] == 1
    assert str(newest) in heard[0]
    older.write_bytes(b"")
    with pytest.raises(InputError, match="all 2 checkpoints"):
        checkpoint.load_newest(tmp_path, heard.append)


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, {"step": 1}, keep=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        checkpoint.save(tmp_path, {"step": 2}, keep=1)
    assert [checkpoint.step_of(path) for path in tmp_path.iterdir()] == [1]


def test_random_numbers_continue(tmp_path: Path) -> None:
    checkpoint.seed_all(5)

    def draws() -> tuple[object, ...]:
        return random.random(), float(np.random.rand()), np.random.randn(), torch.rand(2).tolist()

    np.random.randn()  # leaves a spare normal number behind
    checkpoint.save(tmp_path, {"step": 1, "random": checkpoint.random_state()}, keep=1)
    expected = draws()
    state = checkpoint.load_newest(tmp_path, print)
    assert state is not None
    checkpoint.set_random_state(state["random"])
    assert draws() == expected


def test_log_is_cut_where_it_resumes(tmp_path: Path) -> None:
    with Log(tmp_path, step=0, steps=9, done=0.0, quiet=True) as log:
        for step in (1, 2, 3):
            log.step(step, step / 9, {"loss": 0.1 * step}, images=2, seconds=0.1)
        log.evaluation(3, {"mask": {"AP": 0.25, "per_class": {"a": {"AP": 0.5}}}})
    with Log(tmp_path, step=2, steps=9, done=2 / 9, quiet=True) as log:
        log.step(3, 3 / 9, {"loss": 7.0}, images=2, seconds=0.1)
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.1\n2,0.2\n3,7.0\n"
    assert (tmp_path / "evaluations.csv").read_text() == "step,mask.AP\n"
    with Log(tmp_path, step=0, steps=9, done=0.0, quiet=True):
        assert not (tmp_path / "log.csv").exists()


def test_flatten_leaves_classes_out() -> None:
    assert dict(flatten({"a": {"b": 1, "per_class": {"x": 2}}, "c": 0.5, "d": "text"})) == {"a.b": 1.0, "c": 0.5}


def test_hardware_choices() -> None:
    cpu = choose_device("cpu")
    assert choose_precision("auto", cpu) == ("bf16" if has_bf16(cpu) else "32")
    assert choose_precision("bf16", cpu) == "bf16"
    with pytest.raises(InputError, match="16 needs a CUDA GPU"):
        choose_precision("16", cpu)
    with pytest.raises(InputError, match="must be one of"):
        choose_precision("8", cpu)
    for name in ("abacus", "cuda:99"):
        with pytest.raises(InputError, match="Try cpu"):
            choose_device(name)
