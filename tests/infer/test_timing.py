"""Times of a toy model by stage, on the way of ``stream``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright.errors import InputError
from maskwright.infer.predictor import STAGES, predict
from maskwright.infer.timing import inputs_of, repeated, time_files
from tests.infer.toy import Toy, save, spot


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / "a.png"), save(tmp_path / "b.png", spot((50, 50)))]


def test_every_stage_is_measured_and_warm_up_is_left_out(paths: list[Path]) -> None:
    model = Toy()
    done: list[tuple[int, int]] = []
    found = time_files({"toy": model}, paths, rounds=3, warmup=2, device="cpu", progress=lambda *d: done.append(d))
    toy = found["toy"]
    assert list(toy["stages"]) == [*STAGES, "rest"]
    assert all(toy["stages"][name]["p50"] > 0 for name in STAGES)
    assert toy["runs"] == 6
    assert len(model.seen) == 8
    assert done[-1] == (8, 8)
    assert sum(stage["share"] for stage in toy["stages"].values()) == pytest.approx(1)
    assert toy["end_to_end"]["p50"] <= toy["end_to_end"]["p90"] <= toy["end_to_end"]["p99"]
    assert toy["objects"] == 2


def test_the_network_gets_what_predict_gives_it(paths: list[Path]) -> None:
    model = Toy()
    time_files({"toy": model}, paths[:1], rounds=1, warmup=0, device="cpu", precision="32", score_threshold=0.3)
    predict(model, paths[0], device="cpu", precision="32", score_threshold=0.3)
    timed, plain = model.seen
    assert torch.equal(timed.pop("pixels"), plain.pop("pixels"))
    assert timed == plain
    assert model.score_threshold == 0.1
    inputs = inputs_of(model, paths[0], device="cpu")
    assert inputs.pixels.shape == (1, 3, 96, 128)
    assert not model._forward_pre_hooks
    scene: Any = repeated(model, paths[0], device="cpu", score_threshold=0.3)()
    assert len(scene.segments) == 2


def test_several_models_take_turns(paths: list[Path]) -> None:
    order: list[str] = []

    class Named(Toy):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, inputs: Any, scenes: Any = None) -> Any:
            order.append(self.name)
            return super().forward(inputs, scenes)

    found = time_files({"x": Named("x"), "y": Named("y")}, paths, rounds=2, warmup=1, device="cpu")
    assert list(found) == ["x", "y"]
    assert order == ["x", "y"] * 5


def test_bad_input(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        time_files({"toy": Toy()}, [tmp_path / "broken.png"], device="cpu")
    with pytest.raises(InputError, match="at least one picture"):
        time_files({"toy": Toy()}, [])
    with pytest.raises(InputError, match="rounds must be 1 or more"):
        time_files({"toy": Toy()}, paths, rounds=0)
    with pytest.raises(InputError, match="score_threshold"):
        time_files({"toy": Toy()}, paths, device="cpu", score_threshold=2.0)
