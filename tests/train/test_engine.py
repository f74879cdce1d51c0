"""Steps within bounds, with less memory, compiled, left out; the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from maskwright import zoo
from maskwright.data.loader import BAD_IN_A_ROW, make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.synthetic.discs import Discs
from maskwright.errors import InputError
from maskwright.structures import Batch, Taxonomy
from maskwright.train import TrainOptions, checkpoint, memory
from maskwright.train.clipping import LEAST_NORM, clip
from maskwright.train.engine import Engine
from maskwright.train.loop import IN_A_ROW
from maskwright.train.window import NotFiniteError
from tests.train.test_loop import losses, options, rows, run
from tests.train.test_window import TakesAll
from tests.train.toy import Toy, ToyBatches, batch

ONE = Taxonomy(names=("disc",))


def clipped(gradients: dict[str, Tensor], **changes: Any) -> tuple[nn.Module, dict[str, float]]:
    """A layer with these gradients after they were clipped, and what is said of them."""
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 2)
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    fabric = Fabric(accelerator="cpu", devices=1)
    network, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    return model, clip(fabric, network, optimizer, TrainOptions(**changes))


@pytest.fixture
def steep() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {"weight": torch.randn(3, 2, 2, 2, generator=rng), "bias": torch.randn(3, generator=rng)}


def test_clipping_by_norm_and_by_value(steep: dict[str, Tensor]) -> None:
    norm = float(torch.cat([value.flatten() for value in steep.values()]).norm())
    model, said = clipped(steep, clip_norm=0.5)
    assert said == {"gradient_norm": pytest.approx(norm, rel=1e-5)}
    assert torch.allclose(model.weight.grad, steep["weight"] * 0.5 / norm, rtol=1e-4)
    model, said = clipped(steep, clip_value=0.3)
    assert said == {"gradient_norm": pytest.approx(norm, rel=1e-5)}
    assert torch.equal(model.weight.grad, steep["weight"].clamp(-0.3, 0.3))


def test_adaptive_clipping_is_equation_3(steep: dict[str, Tensor]) -> None:
    model, _ = clipped(steep, clip_adaptive=0.1)
    for i in range(3):
        weight, grad = model.weight[i].detach(), steep["weight"][i]
        allowed = 0.1 * max(float(weight.norm()), LEAST_NORM)
        expected = grad * min(1.0, allowed / float(grad.norm()))
        assert torch.allclose(model.weight.grad[i], expected, rtol=1e-4)
        allowed = 0.1 * max(abs(float(model.bias[i].detach())), LEAST_NORM)
        assert abs(float(model.bias.grad[i])) == pytest.approx(min(abs(float(steep["bias"][i])), allowed), rel=1e-4)


def test_one_way_to_clip_at_most() -> None:
    with pytest.raises(InputError, match=r"--clip-norm.*clip_value"):
        TrainOptions(clip_norm=1.0, clip_value=1.0)


class Bad(Toy):
    """Its loss is infinite on some pictures."""

    def __init__(self, *keys: str) -> None:
        super().__init__(norm=True)
        self.keys = keys

    def loss(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        found = super().loss(raw, batch)
        return {**found, "hits": found["hits"] * float("inf")} if set(self.keys) & set(batch.keys) else found


def test_a_step_that_is_not_finite_can_be_left_out(tmp_path: Path) -> None:
    summary = run(tmp_path / "run", model=Bad("picture 5"), not_finite="skip", clip_norm=1.0)
    assert summary["step"] == 8
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2", "4", "5", "6", "7", "8"]
    state = checkpoint.load_newest(tmp_path / "run" / "checkpoints", lambda _: None)
    assert state is not None
    assert all(bool(torch.isfinite(value).all()) for value in state["weights"].values())


def test_many_such_steps_in_a_row_stop_the_run(tmp_path: Path) -> None:
    bad = Bad(*[f"picture {i}" for i in range(4, 50)])
    with pytest.raises(NotFiniteError, match=f"step {2 + IN_A_ROW + 1}: "):
        run(tmp_path / "run", model=bad, not_finite="skip", steps=20)


def test_a_step_left_out_changes_nothing() -> None:
    model = Bad("picture 4")
    engine = made(model, ema=0.9)
    engine.learn([batch([1, 2])], 1, 0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NotFiniteError, match="picture 4"):
        engine.learn([batch([4, 5])], 2, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def made(model: Any, **changes: Any) -> Engine:
    """An engine on the host, alone; its words are kept as ``engine.heard``."""
    from maskwright.train import distributed

    heard: list[str] = []
    engine = Engine(model, options(**changes), torch.device("cpu"), distributed.place({}), heard.append)
    engine.heard = heard  # type: ignore[attr-defined]
    return engine


class Large(TakesAll):
    """Has memory for so many pictures at once, and no more."""

    most = 4

    def forward(self, inputs: Any, scenes: Any = None) -> Any:
        if len(inputs.pixels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(inputs, scenes)


def weights_after_a_step(most: int) -> tuple[dict[str, Tensor], Engine]:
    torch.manual_seed(0)
    model = Large()
    model.most = most
    engine = made(model, optimizer="sgd")
    engine.learn([batch([1, 2, 3, 4]), batch([5, 7, 8, 10])], 1, 0.5)
    return model.state_dict(), engine


def test_too_little_memory_is_met_with_smaller_parts_of_the_same_step() -> None:
    whole, engine = weights_after_a_step(4)
    assert engine.pieces == 1
    parts, engine = weights_after_a_step(1)
    assert engine.pieces == 4
    assert len(engine.heard) == 2  # type: ignore[attr-defined]
    assert all(torch.allclose(parts[name], value, atol=5e-5) for name, value in whole.items())


def test_too_little_memory_for_one_picture_is_said() -> None:
    with pytest.raises(InputError, match=r"even for one picture.*picture 1, .*--checkpoint-activations"):
        weights_after_a_step(0)


def test_pieces_are_resumed() -> None:
    _, engine = weights_after_a_step(2)
    again = made(Large(), optimizer="sgd")
    again.load_state_dict(engine.state_dict())
    assert again.pieces == 2


def gradients_of(**changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after a step of a small Mask R-CNN, and its running statistics."""
    torch.manual_seed(0)
    model: Any = zoo.build(
        "mask-rcnn-r18", ONE, norm="train", frozen_stages=0, channels=16, mask_width=16, box_hidden=32
    )
    source = Discs(2, size=(64, 64), seed=0)
    from maskwright.data.augment.transforms import Augment

    one = next(iter(make_loader(source, Augment(hflip=0.0), Shuffled(source, 2, seed=0))))
    engine = made(model, optimizer="sgd", **changes)
    torch.manual_seed(1)
    engine.learn([one], 1, 0.1)
    statistics = {name: value for name, value in model.state_dict().items() if "running" in name or "tracked" in name}
    return dict(model.named_parameters()), statistics


def test_activations_computed_twice_change_nothing() -> None:
    plain, counted = gradients_of()
    twice, counted_twice = gradients_of(checkpoint_activations=True)
    assert all(torch.allclose(twice[name], value, atol=1e-6) for name, value in plain.items())
    assert all(torch.equal(counted_twice[name], value) for name, value in counted.items())


def test_blocks_keep_only_their_input() -> None:
    model: Any = zoo.build("mask-rcnn-r18", ONE, frozen_stages=0)
    assert memory.checkpoint_activations(model) == 8
    saved: list[int] = []
    pixels = torch.randn(1, 3, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        model.train().backbone(pixels)
    kept = sum(saved)
    saved.clear()
    plain: Any = zoo.build("mask-rcnn-r18", ONE, frozen_stages=0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        plain.train().backbone(pixels)
    assert kept < 0.6 * sum(saved)
    with pytest.raises(InputError, match="blocks of a backbone"):
        memory.checkpoint_activations(Toy())


def test_compiled_parts_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = memory.compile_parts
    monkeypatch.setattr(memory, "compile_parts", lambda model: compiled.extend(real(model, backend="aot_eager")))
    plain, _ = gradients_of()
    faster, _ = gradients_of(compile=True)
    assert "backbone" in compiled
    assert list(faster) == list(plain)  # names stay
    assert all(torch.allclose(faster[name], value, atol=1e-5) for name, value in plain.items())
    with pytest.raises(InputError, match="--compile"):
        real(nn.Linear(1, 1))


class Torn:
    """Some of its pictures cannot be read."""

    def __init__(self, *bad: int) -> None:
        self.source, self.bad = Discs(12, size=(64, 64), seed=0), bad
        self.taxonomy = self.source.taxonomy

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def load(self, index: int) -> Any:
        if index in self.bad:
            raise InputError(f"picture {index} is truncated")
        return self.source.load(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_can_be_left_out(workers: int) -> None:
    from maskwright.data.augment.transforms import Augment

    def keys(count: int, *, told: Any, state: Any = None) -> tuple[list[tuple[str, ...]], Any]:
        source: Any = Torn(3)
        loader = make_loader(source, Augment(), Shuffled(source, 2, seed=0), workers=workers, left_out=told)
        if state is not None:
            loader.load_state_dict(state)
        stream = iter(loader)
        return [next(stream).keys for _ in range(count)], loader.state_dict()

    heard: list[str] = []
    whole, _ = keys(10, told=heard.append)
    assert any("picture 3 is truncated" in said for said in heard)
    assert len(heard) in (1, 2)
    first, state = keys(7, told=heard.append)
    rest, _ = keys(3, told=heard.append, state=state)
    assert first + rest == whole
    with pytest.raises(InputError, match="truncated"):
        keys(10, told=None)


def test_a_set_that_cannot_be_read_at_all_stops() -> None:
    from maskwright.data.augment.transforms import Augment

    source: Any = Torn(*range(12))
    heard: list[str] = []
    with pytest.raises(InputError, match="truncated"):
        next(iter(make_loader(source, Augment(), Shuffled(source, 2, seed=0), left_out=heard.append)))
    assert len(heard) == BAD_IN_A_ROW


def test_the_same_seed_gives_the_same_bits_also_across_a_resumption(tmp_path: Path) -> None:
    """50 steps, with random regions, running statistics and averaged weights."""
    given: dict[str, Any] = {"steps": 50, "ema": 0.9, "clip_norm": 1.0, "checkpoint_every": 10}
    for name in ("one", "two"):
        run(tmp_path / name, **given)
    assert len(losses(tmp_path / "one")) == 50
    assert losses(tmp_path / "one") == losses(tmp_path / "two")

    def stop(n: int) -> None:
        if n == 33:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(tmp_path / "three", batches=ToyBatches(hook=stop), **given)
    run(tmp_path / "three", resume=True, **given)
    assert losses(tmp_path / "three") == losses(tmp_path / "one")
