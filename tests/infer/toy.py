"""A model small enough to reason about: it finds the bright rectangle of a picture, three times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

SCORES = (0.9, 0.5, 0.05)


class Toy(nn.Module):
    """Fulfills ``protocols.Model``; ``seen`` keeps what each forward was given."""

    task = "instance"
    size_divisor = 32

    def __init__(self, resize: Resize | None = None) -> None:
        super().__init__()
        self.taxonomy = Taxonomy(names=("spot", "ring"), source_ids=(3, 7))
        self.resize = resize or Resize(scale=2.0)
        self.score_threshold, self.max_per_image = 0.1, 100
        self.weight = nn.Parameter(torch.ones(1))
        self.frozen = nn.Dropout().eval()
        self.seen: list[dict[str, Any]] = []

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Tensor:
        settings = {"threshold": self.score_threshold, "limit": self.max_per_image}
        modes = {"training": self.training, "grad": torch.is_grad_enabled()}
        half = torch.is_autocast_enabled("cpu")
        self.seen.append({"pixels": inputs.pixels.clone(), "sizes": inputs.sizes, "half": half, **settings, **modes})
        return inputs.pixels * self.weight

    def loss(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"none": raw.sum() * 0}

    def loss_counts(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"none": torch.ones(())}

    def predict(self, raw: Tensor, geometry: Sequence[Geometry]) -> list[Scene]:
        return [self._scene(pixels, view) for pixels, view in zip(raw, geometry, strict=True)]

    def _scene(self, pixels: Tensor, view: Geometry) -> Scene:
        rows, columns = torch.nonzero(pixels.float().mean(0) > 128, as_tuple=True)
        scores = [score for score in SCORES if score >= self.score_threshold][: self.max_per_image]
        if len(rows) == 0:
            return Scene(size=view.original, segments=Segments.empty(view.original, scored=True))
        high, wide = view.scale
        box = [columns.min() / wide, rows.min() / high, (columns.max() + 1) / wide, (rows.max() + 1) / high]
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        dense = torch.zeros((len(scores), *view.original), dtype=torch.bool)
        dense[:, y1:y2, x1:x2] = True
        segments = Segments(
            size=view.original,
            labels=torch.arange(len(scores)) % 2,
            masks=Masks.from_dense(dense),
            boxes=torch.tensor([[x1, y1, x2, y2]] * len(scores), dtype=torch.float32),
            scores=torch.tensor(scores),
        )
        return Scene(size=view.original, segments=segments)


def spot(size: tuple[int, int] = (40, 60), box: tuple[int, int, int, int] = (10, 20, 30, 35)) -> np.ndarray:
    """uint8 [H, W, 3], black but for a white rectangle (x1, y1, x2, y2)."""
    picture = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = 255
    return picture


def save(path: Any, picture: np.ndarray | None = None) -> Any:
    """Write ``picture`` (by default ``spot()``) and return ``path``."""
    Image.fromarray(spot() if picture is None else picture).save(path)
    return path
