"""A semantic and a panoptic model of a few convolutions, and a street drawn as COCO panoptic, to go all roads with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Segments, Taxonomy

CLASSES = Taxonomy(names=("disc", "box", "sky", "road"), thing=(True, True, False, False), source_ids=(3, 7, 90, 200))
COLORS = ((250, 30, 30), (240, 230, 40), (90, 150, 250), (90, 90, 90))
SIZE = (48, 64)


class Fake(nn.Module):
    """The class of every pixel from its color; ``panoptic`` makes one segment of each class."""

    def __init__(self, taxonomy: Taxonomy = CLASSES, task: str = "semantic", **options: Any) -> None:
        super().__init__()
        self.taxonomy, self.task, self.size_divisor = taxonomy, task, 8
        self.resize: Resize = options.get("resize") or Resize(scale=1.0)
        self.score_threshold, self.max_per_image = 0.0, 100
        self.mix = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, len(taxonomy), 1))

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Tensor:
        return self.mix(inputs.pixels.to(self.mix[0].weight) / 64 - 2)

    def loss(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        total = raw.sum() * 0
        for logits, scene in zip(raw, batch.truth(), strict=True):
            high, wide = scene.size
            total = total + functional.cross_entropy(
                logits[None, :, :high, :wide], scene.classes()[None], ignore_index=-1, reduction="sum"
            )
        return {"pixels": total / self.loss_counts(raw, batch)["pixels"].clamp(min=1)}

    def loss_counts(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"pixels": torch.stack([(scene.classes() >= 0).sum() for scene in batch.truth()]).sum().float()}

    def predict(self, raw: Tensor, geometry: Sequence[Geometry]) -> list[Scene]:
        return [self._scene(logits.float(), view) for logits, view in zip(raw, geometry, strict=True)]

    def _scene(self, logits: Tensor, view: Geometry) -> Scene:
        part = logits[None, :, : view.valid[0], : view.valid[1]]
        classes = functional.interpolate(part, size=view.original, mode="bilinear")[0].argmax(0)
        if self.task == "semantic":
            return Scene(size=view.original, semantic=classes)
        labels = classes.unique()
        segments = Segments(
            size=view.original, labels=labels, ids=labels + 11, scores=torch.linspace(0.9, 0.5, len(labels))
        )  # fmt: skip
        return Scene(size=view.original, segments=segments, panoptic=classes + 11)


def fake_semantic(taxonomy: Taxonomy, **options: Any) -> Fake:
    return Fake(taxonomy, "semantic", **options)


def fake_panoptic(taxonomy: Taxonomy, **options: Any) -> Fake:
    return Fake(taxonomy, "panoptic", **options)


def perfect(task: str) -> Fake:
    """Weights that tell the colors of ``CLASSES`` apart: the nearest of ``COLORS``."""
    model = Fake(task=task)
    colors = torch.tensor(COLORS, dtype=torch.float32) / 64 - 2
    with torch.no_grad():
        for layer in (model.mix[0], model.mix[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        for k in range(3):  # x = relu(x) - relu(-x)
            model.mix[0].weight[2 * k, k], model.mix[0].weight[2 * k + 1, k] = 1, -1
            model.mix[2].weight[:, 2 * k, 0, 0], model.mix[2].weight[:, 2 * k + 1, 0, 0] = (
                2 * colors[:, k],
                -2 * colors[:, k],
            )
        model.mix[2].bias.copy_(-(colors**2).sum(1))
    return model


def street(folder: Path, count: int = 6) -> Path:
    """COCO panoptic of ``count`` pictures: sky over road, a box and a disc, a crowd of discs, some void."""
    (folder / "images").mkdir(parents=True)
    (folder / "panoptic").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for i in range(count):
        classes, ids = np.full(SIZE, 2), np.full(SIZE, 70_000)
        classes[24:], ids[24:] = 3, 300
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        disc = np.hypot(y - 20, x - 12 - 3 * i) < 7
        crowd = np.hypot(y - 40, x - 50) < 5
        for where, label, ident in ((disc, 0, 1), (crowd, 0, 2), ((y > 28) & (y < 40) & (x > 4 + i) & (x < 16), 1, 3)):
            classes[where], ids[where] = label, ident
        pixels = np.array(COLORS, np.int16)[classes] + rng.integers(-8, 9, (*SIZE, 3))
        ids[:3, :5] = 0
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / "images" / f"{i}.png")
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(colors).save(folder / "panoptic" / f"{i}.png")
        infos = []
        for ident, category in ((1, 3), (2, 3), (3, 7), (300, 200), (70_000, 90)):
            rows, columns = np.nonzero(ids == ident)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            infos.append({"id": ident, "category_id": category, "iscrowd": int(ident == 2), "area": len(rows),
                          "bbox": [int(v) for v in box]})  # fmt: skip
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]})
        annotations.append({"image_id": 10 + i, "file_name": f"{i}.png", "segments_info": infos})
    rows = zip(CLASSES.source_ids, CLASSES.names, CLASSES.thing, strict=True)
    categories = [{"id": ident, "name": name, "isthing": int(thing)} for ident, name, thing in rows]
    file = folder / "panoptic.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file
