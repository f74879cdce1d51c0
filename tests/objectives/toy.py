"""Objectives whose losses and gradients can be worked out by hand, and a pupil and a teacher of a few convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy
from maskwright.train.window import Step, backward
from tests.train.toy import Raw, Toy, inside


class Shared(nn.Module):
    """Two losses of one weight W = (3, 4): ``slope * sum(W)`` is 7, and ``bend * sum(W ** 2) / 2`` is 12.5.

    Both use ``early``, then ``weight``; ``own``, used last, is connected with both but matters to one only.
    A batch is (slope, bend, count of the first, count of the second).
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        self.model.early = nn.Parameter(torch.eye(2))
        self.model.bias = nn.Parameter(torch.zeros(2))
        self.model.own = nn.Parameter(torch.zeros(2, 1))

    def counted(self, batch: tuple[float, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        slope, bend, first, second = batch
        used = self.model.early.sum(0) * self.model.weight + self.model.bias
        bent = (used**2).sum() / 2 + self.model.own.sum()
        losses = {"line": slope * used.sum() + 0 * self.model.own.sum(), "curve": bend * bent}
        return losses, {"line": torch.tensor(first), "curve": torch.tensor(second)}

    def terms(self) -> tuple[str, ...]:
        return ("line", "curve")

    def after_step(self, step: int) -> None:
        self.stepped = step


class Pupil(Toy):
    """``Toy`` with a neck of two levels, that takes every pixel of an object: nothing is left to chance."""

    def __init__(self, channels: int = 4, stride: int = 1) -> None:
        super().__init__()
        self.neck = Neck(channels, stride)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        pixels = inputs.pixels.to(self.head.weight) / 255
        fine, _ = self.neck(self.backbone(pixels).relu())
        found = nn.functional.interpolate(self.head(fine), size=pixels.shape[-2:])[:, 0]
        chosen = torch.zeros_like(found, dtype=torch.bool)
        if scenes is not None:
            chosen = torch.stack([inside(scene) for scene in scenes])
        return Raw(found.mean((1, 2)), chosen, found)


class Neck(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, channels, 3, padding=1, stride=stride)

    def forward(self, maps: Tensor) -> list[Tensor]:
        fine = self.layer(maps)
        return [fine, nn.functional.avg_pool2d(fine, 2)]


class Knows(Pupil):
    """A teacher that finds two squares on every picture, a sure one at the top left and a doubtful one."""

    def __init__(self, channels: int = 6, stride: int = 1, names: tuple[str, ...] = ("disc",)) -> None:
        super().__init__(channels, stride)
        self.taxonomy = Taxonomy(names=names)

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        return [found(view.original, len(self.taxonomy) - 1) for view in geometry]


def found(size: tuple[int, int], label: int = 0) -> Scene:
    dense = torch.zeros(2, *size, dtype=torch.bool)
    dense[0, :8, :8] = True
    dense[1, 20:28, 20:28] = True
    masks = Masks.from_dense(dense)
    labels, scores = torch.full((2,), label), torch.tensor([0.9, 0.3])
    return Scene(
        size=size, segments=Segments(size=size, labels=labels, masks=masks, boxes=masks.boxes(), scores=scores)
    )


def step(objective: nn.Module, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The losses of one step over micro-batches, and the gradients."""
    fabric = Fabric(accelerator="cpu", devices=1)
    network, _ = fabric.setup(Step(objective), torch.optim.SGD(objective.parameters(), lr=0.1))
    objective.zero_grad()
    torch.manual_seed(3)
    values = backward(fabric, network, batches, counts=network.module.counts)
    return values, {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


def assert_alike(many: dict[str, Tensor], one: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    """Gradients are equal up to rounding, which is relative to the largest of them."""
    assert many.keys() == one.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    for name, value in one.items():
        assert float((many[name] - value).abs().max()) < tolerance * largest, name
