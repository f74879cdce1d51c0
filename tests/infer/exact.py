"""A model that is exact on any window: bright connected regions of a picture are objects, by color of two classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy


class Exact(nn.Module):
    """Fulfills ``protocols.Model``; red above 128 is class 0, else green above 128 class 1, the rest class 2.

    Instances are connected regions of one class; panoptic scenes have classes 1 and 2 as stuff.
    """

    size_divisor = 32

    def __init__(self, task: str = "instance", score: float = 0.9) -> None:
        super().__init__()
        thing = (True, True, True) if task != "panoptic" else (True, False, False)
        self.taxonomy = Taxonomy(names=("red", "green", "ground"), thing=thing)
        self.task, self.resize, self.score = task, Resize(), score
        self.score_threshold, self.max_per_image = 0.0, 100_000
        self.weight = nn.Parameter(torch.ones(1))
        self.largest = 0

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Tensor:
        self.largest = max(self.largest, inputs.pixels.shape[-1] * inputs.pixels.shape[-2])
        return inputs.pixels

    def loss(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def loss_counts(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def predict(self, raw: Tensor, geometry: Sequence[Geometry]) -> list[Scene]:
        return [self._scene(p[:, : g.valid[0], : g.valid[1]], g) for p, g in zip(raw, geometry, strict=True)]

    def _scene(self, pixels: Tensor, view: Geometry) -> Scene:
        assert view.valid == view.original
        size = view.original
        red, green = (pixels[k].numpy() > 128 for k in (0, 1))
        classes = np.where(red, 0, np.where(green, 1, 2))
        if self.task == "semantic":
            return Scene(size=size, semantic=torch.from_numpy(classes.astype(np.int64)))
        regions, labels, count = np.zeros(size, np.int32), list[int](), 0
        for label in (0, 1):
            if self.task == "panoptic" and label == 1:
                continue
            found, number = ndimage.label(classes == label, np.ones((3, 3)))
            regions[found > 0] = found[found > 0] + count
            labels += [label] * number
            count += number
        if self.task == "panoptic":
            for label in (1, 2):
                if (classes == label).any():
                    count += 1
                    regions[classes == label] = count
                    labels.append(label)
        names = np.arange(1, count + 1)
        masks = Masks.from_arrays(*encode_map(regions, names), size)
        segments = Segments(
            size=size,
            labels=torch.tensor(labels, dtype=torch.int64),
            masks=masks,
            boxes=masks.boxes(),
            scores=torch.full((count,), self.score),
            ids=torch.from_numpy(names),
        )
        if self.task == "instance":
            return Scene(size=size, segments=segments)
        return Scene(size=size, segments=segments, panoptic=torch.from_numpy(regions.astype(np.int64)))


def discs(
    size: tuple[int, int], count: int, radii: tuple[int, int], seed: int = 0, apart: int = 2
) -> tuple[np.ndarray, int]:
    """uint8 [H, W, 3] with up to ``count`` discs of two colors that do not touch, and how many there are."""
    rng = np.random.default_rng(seed)
    picture = np.full((*size, 3), 20, np.uint8)
    busy = np.zeros(size, bool)
    drawn = 0
    for _ in range(count):
        radius = int(rng.integers(radii[0], radii[1] + 1))
        y, x = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
        wide = radius + apart
        top, bottom, left, right = (
            max(y - wide, 0),
            min(y + wide + 1, size[0]),
            max(x - wide, 0),
            min(x + wide + 1, size[1]),
        )
        far = (np.arange(top, bottom)[:, None] - y) ** 2 + (np.arange(left, right)[None] - x) ** 2
        if busy[top:bottom, left:right][far <= wide**2].any():
            continue
        inside = far <= radius**2
        busy[top:bottom, left:right] |= inside
        picture[top:bottom, left:right][inside] = (220, 30, 30) if rng.random() < 0.5 else (30, 220, 30)
        drawn += 1
    return picture, drawn
