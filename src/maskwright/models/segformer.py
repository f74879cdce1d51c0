"""SegFormer: Xie, Wang, Yu, Anandkumar, Alvarez, Luo, "SegFormer: Simple and Efficient Design for Semantic Segmentation
with Transformers", NeurIPS 2021 (arXiv:2105.15203).

A hierarchical transformer turns pixels into four maps of strides 4 to 32: its patches overlap, its attention shortens
keys and values, and depthwise convolutions stand for positions (section 3.1). Linear layers bring the maps to one width
and size, join and classify them (section 3.2).

Differences: in the authors' code logits are enlarged to the resized picture and that to the file's size, as here; in
transformers at once (``at_once``). Norms have an epsilon of 1e-6 around blocks and 1e-5 inside them and in patches with
the authors, of 1e-5 everywhere in transformers, of 1e-6 everywhere in mmsegmentation, whose decoder has norms after its
first layers too, and a width of 256 in every variant. The authors' loss is a mean over all pixels, void ones counted as
zeros; here and in transformers void ones are not counted. The authors resize sides to multiples of 32; here pictures
are padded.

Weights: importers for the authors', transformers' and mmsegmentation's names. The published ones are under the NVIDIA
Source Code License for SegFormer, for research and evaluation only.

    tensor           meaning                  shape
    pixels           RGB, 0..255              [B, 3, H, W]
    semantic_logits  one map a class          [B, C, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.models.parts.semantic import PixelClassifier, SemanticRaw
from maskwright.nn.backbones.mit import MiT
from maskwright.nn.heads.all_mlp import AllMLPHead
from maskwright.nn.norm import NormName
from maskwright.ops.query_maps import Resampling
from maskwright.structures import Geometry, Resize, Scene, Taxonomy

Raw = SemanticRaw


class SegFormer(PixelClassifier):
    """SegFormer on built parts.

    Args:
        backbone: pixels to maps, finest first. head: the maps to logits.
        at_once: enlarge logits to the file's size in one step.
        options: of ``PixelClassifier``.
    """

    class_layers = ("head.predictor",)

    def __init__(self, backbone: nn.Module, head: nn.Module, *, at_once: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.backbone, self.head, self.at_once = backbone, head, at_once

    def logits(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H/4, W/4]."""
        return self.head(self.backbone(pixels))

    @torch.no_grad()
    def predict(self, raw: SemanticRaw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes with a semantic map, in file pixels; their objects are unknown."""
        if not self.at_once:
            return super().predict(raw, geometry)
        scenes: list[Scene] = []
        for logits, view in zip(raw.semantic_logits, geometry, strict=True):
            way = Resampling.direct((logits.shape[-2], logits.shape[-1]), raw.padded, view.valid, view.original)
            semantic = torch.empty(way.size, dtype=torch.int64)
            for rows, columns, values in way.tiles(logits):
                prob, best = values.softmax(0).max(0)
                semantic[rows, columns] = best.masked_fill(prob < self.score_threshold, -1).cpu()
            scenes.append(Scene(size=view.original, semantic=semantic))
        return scenes


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    drop_path: float = 0.1,
    epsilon: tuple[float, float] = (1e-6, 1e-5),
    frozen_stages: int = 0,
    width: int,
    head_norm: NormName = "batch",
    level_norm: bool = False,
    dropout: float = 0.1,
    **options: Any,
) -> SegFormer:
    backbone = MiT(body, drop_path=drop_path, epsilon=epsilon, frozen_stages=frozen_stages)
    head = AllMLPHead(
        backbone.channels, len(taxonomy), width=width, norm=head_norm, level_norm=level_norm, dropout=dropout
    )
    return SegFormer(backbone, head, taxonomy=taxonomy, **{"resize": Resize(short=512, long=2048), **options})


def segformer_b0(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 32 to 256, depths 2, 2, 2, 2; decoder 256."""
    return _build(taxonomy, **{"body": "mit_b0", "width": 256, **options})


def segformer_b1(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 64 to 512, depths 2, 2, 2, 2; decoder 256."""
    return _build(taxonomy, **{"body": "mit_b1", "width": 256, **options})


def segformer_b2(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 64 to 512, depths 3, 4, 6, 3; decoder 768."""
    return _build(taxonomy, **{"body": "mit_b2", "width": 768, **options})


def segformer_b3(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 64 to 512, depths 3, 4, 18, 3; decoder 768."""
    return _build(taxonomy, **{"body": "mit_b3", "width": 768, **options})


def segformer_b4(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 64 to 512, depths 3, 8, 27, 3; decoder 768."""
    return _build(taxonomy, **{"body": "mit_b4", "width": 768, **options})


def segformer_b5(taxonomy: Taxonomy, **options: Any) -> SegFormer:
    """Widths 64 to 512, depths 3, 6, 40, 3; decoder 768; pictures are larger."""
    defaults = {"body": "mit_b5", "width": 768, "resize": Resize(short=640, long=2048)}
    return _build(taxonomy, **{**defaults, **options})
