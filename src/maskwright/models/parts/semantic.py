"""What families that only say the class of each pixel share: the losses and scenes of a map of logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskwright.models.parts.panoptic import semantic_target
from maskwright.nn.heads.semantic_fpn import pixel_cross_entropy
from maskwright.nn.norm import normalize_pixels
from maskwright.ops.query_maps import Resampling, largest
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(slots=True)
class SemanticRaw:
    """Logits [B, C, h, w] of the taxonomy's classes, on the padded pictures; ``padded`` is their (H, W)."""

    semantic_logits: Tensor
    padded: tuple[int, int]


class PixelClassifier(nn.Module):
    """Pixels through ``maps`` and ``head`` to a class each.

    Args:
        taxonomy: the C classes; things and stuff alike.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.

    ``score_threshold`` makes pixels void whose class is less probable; there are no objects that ``max_per_image``
    could limit.
    """

    size_divisor = 32
    task = "semantic"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        taxonomy: Taxonomy,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.resize = resize or Resize(short=800, long=1333)
        self.score_threshold, self.max_per_image = 0.0, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalized pixels [B, 3, H, W] to logits [B, C, h, w]; a family's own."""
        raise NotImplementedError

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> SemanticRaw:
        """Logits of every pixel's class; ``scenes`` change nothing."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return SemanticRaw(self.logits(pixels), (pixels.shape[-2], pixels.shape[-1]))

    def loss(self, raw: SemanticRaw, batch: Batch) -> dict[str, Tensor]:
        """The mean cross-entropy over pixels that are not void, of logits enlarged to the picture."""
        total, pixels = pixel_cross_entropy(raw.semantic_logits, self._target(raw, batch))
        return {"semantic": total / pixels.clamp(min=1)}

    def loss_counts(self, raw: SemanticRaw, batch: Batch) -> dict[str, Tensor]:
        """How many pixels the loss is a mean over."""
        return {"semantic": (self._target(raw, batch) >= 0).sum().float()}

    @torch.no_grad()
    def predict(self, raw: SemanticRaw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes with a semantic map, in file pixels; their objects are unknown."""
        return [
            Scene(size=view.original, semantic=likeliest(logits, raw.padded, view, self.score_threshold))
            for logits, view in zip(raw.semantic_logits, geometry, strict=True)
        ]

    def _target(self, raw: SemanticRaw, batch: Batch) -> Tensor:
        return semantic_target(batch, raw.padded, raw.semantic_logits.device)


def likeliest(logits: Tensor, padded: tuple[int, int], view: Geometry, threshold: float = 0.0) -> Tensor:
    """The class at each pixel of the file, int64 [H, W] on the host.

    Logits [C, h, w] of the ``padded`` picture are enlarged to it, cut, and resized to the file's size, tile by tile.

    Args:
        threshold: a pixel is void (-1) where its class is less probable than this.
    """
    way = Resampling.chained((logits.shape[-2], logits.shape[-1]), padded, view.valid, view.original)
    if threshold <= 0:
        return largest(logits, way)[0].cpu().long()
    out = torch.full(way.size, -1, dtype=torch.int64)
    for rows, columns, values in way.tiles(logits):
        prob, best = values.softmax(0).max(0)
        out[rows, columns] = best.masked_fill(prob < threshold, -1).cpu()
    return out
