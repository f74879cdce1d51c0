"""A model and a loader small enough to train in milliseconds; run as a module it trains, to be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

SIDE = 32


@dataclass
class Raw:
    area: Tensor
    chosen: Tensor
    map: Tensor


class Toy(nn.Module):
    """Learns the area of the objects, and the pixels of a random part of them: a loss whose count varies."""

    task = "instance"
    size_divisor = 32

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.taxonomy = Taxonomy(names=("disc",))
        self.resize = Resize(scale=1.0)
        self.score_threshold, self.max_per_image = 0.0, 10
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        found = self.head(self.norm(self.backbone(inputs.pixels.to(self.head.weight) / 255)).relu())[:, 0]
        chosen = torch.zeros_like(found, dtype=torch.bool)
        if scenes is not None:
            chosen = (torch.rand(found.shape) < 0.5) & torch.stack([inside(scene) for scene in scenes])
        return Raw(found.mean((1, 2)), chosen, found)

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        target = torch.stack([inside(scene).float().mean() for scene in batch.truth()])
        counts = self.loss_counts(raw, batch)
        hits = ((raw.map - 1)[raw.chosen] ** 2).sum()
        return {
            "area": ((raw.area - target) ** 2).sum() / counts["area"],
            "hits": hits / counts["hits"].clamp(min=1),
        }

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        return {"area": torch.tensor(float(len(batch))), "hits": raw.chosen.sum().float()}

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        return [Scene(size=view.original, segments=Segments.empty(view.original, scored=True)) for view in geometry]


def inside(scene: Scene) -> Tensor:
    """bool [H, W]: the pixels of all objects."""
    masks = scene.objects().masks
    assert masks is not None
    return masks.dense().any(0)


def picture(index: int) -> tuple[Tensor, Scene]:
    """A square of some size on noise; every third picture is empty."""
    noise = torch.Generator().manual_seed(index)
    pixels = torch.randint(0, 100, (3, SIDE, SIDE), dtype=torch.uint8, generator=noise)
    dense = torch.zeros(int(index % 3 > 0), SIDE, SIDE, dtype=torch.bool)
    dense[:, 4 : 6 + 3 * (index % 7), 5 : 9 + 2 * (index % 5)] = True
    pixels[:, dense.any(0)] += 120
    masks = Masks.from_dense(dense)
    labels = torch.zeros(len(dense), dtype=torch.int64)
    segments = Segments(size=(SIDE, SIDE), labels=labels, masks=masks, boxes=masks.boxes())
    return pixels, Scene(size=(SIDE, SIDE), segments=segments)


def batch(indices: Sequence[int]) -> Batch:
    """These pictures."""
    pixels, scenes = zip(*[picture(i) for i in indices], strict=True)
    images = Images.pad(pixels)
    return Batch(inputs=images, scenes=scenes, keys=tuple(f"picture {i}" for i in indices))


class ToyBatches:
    """Endless batches of pictures; ``hook(n)`` is called before batch n and may wait or raise."""

    def __init__(self, size: int = 2, hook: Callable[[int], None] = lambda _: None) -> None:
        self.size, self.hook, self.next = size, hook, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.hook(self.next)
            made = batch([(self.next * self.size + k) % 50 for k in range(self.size)])
            self.next += 1
            yield made

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.next = int(state["next"])


if __name__ == "__main__":
    from maskwright.train import TrainOptions, seed_all, train

    out, steps, wait = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    options = TrainOptions(steps=steps, ema=0.9, clip_norm=1.0, checkpoint_every=3, device="cpu", precision="32")
    seed_all(0)
    train(
        Toy(norm=True),
        ToyBatches(hook=lambda _: time.sleep(wait)),
        options=options,
        out=out,
        resume="resume" in sys.argv,
    )
