"""Accumulated gradients equal those of the large batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from maskwright.models.mask2former import mask2former_instance_r50
from maskwright.models.mask_rcnn import mask_rcnn_r18_light
from maskwright.objectives.supervised import Supervised
from maskwright.structures import Batch, Images, Masks, Scene, Segments, Taxonomy
from maskwright.train.window import NotFiniteError, Step, backward, shares
from tests.train.toy import Toy, batch


def gradients(
    model: nn.Module, batches: list[Batch], seed: int = 3
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    fabric = Fabric(accelerator="cpu", devices=1)
    objective = Supervised(model)
    network, _ = fabric.setup(Step(objective), torch.optim.SGD(objective.parameters(), lr=0.1))
    model.zero_grad()
    torch.manual_seed(seed)
    values = backward(fabric, network, batches, counts=network.module.counts)
    return values, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TakesAll(Toy):
    """Chooses every pixel of an object, so that the counts vary and nothing else is random."""

    def forward(self, inputs: Images, scenes: object = None) -> object:
        raw = super().forward(inputs, scenes)  # type: ignore[arg-type]
        if scenes is not None:
            raw.chosen = torch.stack([s.objects().masks.dense().any(0) for s in scenes])  # type: ignore[attr-defined]
        return raw


@pytest.mark.parametrize("parts", [[[1, 2], [3, 4], [5, 6]], [[1], [2, 3, 4, 5, 6]], [[3], [6], [1, 2, 4, 5]]])
def test_a_window_equals_the_large_batch(parts: list[list[int]]) -> None:
    """Also where a micro-batch has no object at all (pictures 3 and 6)."""
    torch.manual_seed(0)
    model = TakesAll().double()
    one = gradients(model, [batch([i for part in parts for i in part])])
    many = gradients(model, [batch(part) for part in parts])
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    for name, value in one[1].items():
        torch.testing.assert_close(many[1][name], value, rtol=1e-5, atol=1e-6)
    # What the field does, a mean of means, is another gradient here.
    naive = sum(gradients(model, [batch(part)])[1]["head.weight"] for part in parts) / len(parts)
    assert not torch.allclose(naive, one[1]["head.weight"], rtol=1e-3)


def test_a_random_choice_is_the_same_when_it_is_counted_and_when_it_is_learned() -> None:
    """The window's losses are sums over counts only if both passes choose alike."""
    torch.manual_seed(0)
    model = Toy()
    batches = [batch([1, 2]), batch([4, 5]), batch([7, 8])]
    values, _ = gradients(model, batches, seed=5)
    torch.manual_seed(5)
    sums, counts = 0.0, 0.0
    for each in batches:
        raw = model(each.inputs, each.truth())
        count = float(model.loss_counts(raw, each)["hits"])
        sums += float(model.loss(raw, each)["hits"].detach()) * count
        counts += count
    assert values["hits"] == pytest.approx(sums / counts, rel=1e-5)
    assert torch.equal(torch.rand(4), _after(model, batches))


def _after(model: Toy, batches: list[Batch]) -> torch.Tensor:
    gradients(model, batches, seed=5)
    return torch.rand(4)


def test_running_statistics_see_each_batch_once() -> None:
    torch.manual_seed(0)
    model = Toy(norm=True)
    gradients(model, [batch([1, 2]), batch([4, 5]), batch([7, 8])])
    assert int(model.norm.num_batches_tracked) == 3


def test_an_objective_without_counts_weighs_micro_batches_equally() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, data: Batch) -> dict[str, torch.Tensor]:
            return {"size": self.weight * len(data)}

    fabric = Fabric(accelerator="cpu", devices=1)
    plain = Plain()
    network, _ = fabric.setup(Step(plain), torch.optim.SGD(plain.parameters(), lr=0.1))
    values = backward(fabric, network, [batch([1]), batch([2, 3, 4])], counts=network.module.counts)
    assert values == {"loss": 2.0, "size": 2.0}
    assert float(plain.weight.grad) == 2.0


def test_shares_where_nothing_counts() -> None:
    zero, three = torch.tensor(0.0), torch.tensor(3.0)
    weights = shares([{"a": zero, "b": zero}, {"a": zero, "b": three}], ["a", "b", "unknown"])
    assert [float(w["a"]) for w in weights] == [0.5, 0.5]
    assert [float(w["b"]) for w in weights] == [0.0, 1.0]
    assert [float(w["unknown"]) for w in weights] == [0.5, 0.5]


def test_a_loss_that_is_not_finite_names_itself_and_the_images() -> None:
    class Broken(Toy):
        def loss(self, raw: object, data: Batch) -> dict[str, torch.Tensor]:
            losses = super().loss(raw, data)  # type: ignore[arg-type]
            return {**losses, "hits": losses["hits"] * float("nan" if "picture 4" in data.keys else 1)}

    with pytest.raises(NotFiniteError, match=r"hits is not .*picture 4, picture 5"):
        gradients(Broken(), [batch([1, 2]), batch([4, 5])])


def mask_rcnn_batch(kinds: list[int]) -> Batch:
    """Pictures with ``kinds[i]`` objects each."""
    scenes = []
    for count in kinds:
        dense = torch.zeros(count, 64, 64, dtype=torch.bool)
        for i in range(count):
            dense[i, 8 + 18 * i : 24 + 18 * i, 6 : 30 + 8 * i] = True
        masks = Masks.from_dense(dense)
        segments = Segments(
            size=(64, 64), labels=torch.zeros(count, dtype=torch.int64), masks=masks, boxes=masks.boxes()
        )
        scenes.append(Scene(size=(64, 64), segments=segments))
    noise = torch.Generator().manual_seed(1)
    pixels = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=noise) for _ in range(4)]
    return Batch(
        inputs=Images.pad(pixels[: len(kinds)]),
        scenes=tuple(scenes),
        keys=tuple(f"image {i}" for i in range(len(kinds))),
    )


def split(whole: Batch, sizes: list[int]) -> list[Batch]:
    parts, at = [], 0
    for size in sizes:
        here = slice(at, at + size)
        images = Images(pixels=whole.inputs.pixels[here], geometry=whole.inputs.geometry[here])
        parts.append(Batch(inputs=images, scenes=whole.scenes[here], keys=whole.keys[here]))
        at += size
    return parts


@pytest.mark.parametrize(("kinds", "sizes"), [([1, 3, 2], [1, 2]), ([2, 0, 1], [1, 1, 1])])
def test_mask_rcnn_accumulates_exactly(kinds: list[int], sizes: list[int]) -> None:
    """With samplers that take everything; batch norms use their running statistics."""
    torch.manual_seed(0)
    model = mask_rcnn_r18_light(
        Taxonomy(names=("disc",)), channels=8, mask_width=8, box_hidden=16, roi_batch=10_000, rpn_batch=100_000,
        proposals_train=(300, 100), roi_positive=1.0, rpn_positive=1.0,
    )  # fmt: skip
    model.eval()
    whole = mask_rcnn_batch(kinds)
    one = gradients(model, [whole])
    many = gradients(model, split(whole, sizes))
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    assert len(one[1]) > 50
    for name, value in one[1].items():
        assert float((many[1][name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6, name


@pytest.mark.parametrize(("kinds", "sizes"), [([1, 3, 2], [1, 2]), ([2, 0, 1], [1, 1, 1])])
def test_mask2former_accumulates_exactly(kinds: list[int], sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same points for every mask, as those of a large batch are drawn in another order."""
    torch.manual_seed(0)
    model = mask2former_instance_r50(
        Taxonomy(names=("disc",)), body="resnet18", channels=16, mask_channels=16, hidden=32, encoder_hidden=32,
        encoder_depth=1, depth=2, heads=2, queries=5, mask_points=64,
    )  # fmt: skip
    model.eval()
    real = torch.rand

    def alike(*size: int, **options: Any) -> torch.Tensor:
        if len(size) == 3 and size[2] == 2:
            return real(1, *size[1:], generator=torch.Generator().manual_seed(size[1])).expand(size).contiguous()
        return real(*size, **options)

    monkeypatch.setattr(torch, "rand", alike)
    whole = mask_rcnn_batch(kinds)
    one = gradients(model, [whole])
    many = gradients(model, split(whole, sizes))
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    assert len(one[1]) > 50
    for name, value in one[1].items():
        assert float((many[1][name] - value).norm()) <= 1e-4 * float(value.norm()) + 5e-6, name
