"""Semantic FPN: Kirillov, Girshick, He, Dollar, "Panoptic Feature Pyramid Networks", CVPR 2019 (arXiv:1901.02446).

Panoptic FPN's semantic head alone: the levels of a feature pyramid are brought to a quarter of the picture's size by
convolutions and bilinear enlargement and are summed (section 3.1, figure 3). A 1x1 convolution says each pixel's class.

Differences: none of substance from detectron2's ``SemanticSegmentor``; all classes of the taxonomy are told apart.
Weights: none published that are imported; train your own.

    tensor           meaning                  shape
    pixels           RGB, 0..255              [B, 3, H, W]
    semantic_logits  one map a class          [B, C, H/4, W/4]
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from maskwright.models.parts.semantic import PixelClassifier, SemanticRaw
from maskwright.models.parts.two_stage import resnet
from maskwright.nn.heads.semantic_fpn import SemanticFPNHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.structures import Taxonomy

Raw = SemanticRaw


class SemanticFPN(PixelClassifier):
    """Semantic FPN on built parts.

    Args:
        backbone, neck: pixels to a pyramid, finest first. head: the pyramid to logits.
        options: of ``PixelClassifier``.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.backbone, self.neck, self.head = backbone, neck, head

    def logits(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H/4, W/4]."""
        return self.head(self.neck(self.backbone(pixels)))


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    neck_norm: NormName = None,
    width: int = 128,
    head_norm: NormName = "group",
    **options: Any,
) -> SemanticFPN:
    backbone, options = resnet(body, **options)
    neck = FPN(backbone.channels, channels, extra=0, norm=neck_norm)
    head = SemanticFPNHead(channels, len(taxonomy), levels=len(backbone.channels), width=width, norm=head_norm)
    return SemanticFPN(backbone, neck, head, taxonomy=taxonomy, **options)


def semantic_fpn_r50(taxonomy: Taxonomy, **options: Any) -> SemanticFPN:
    """ResNet-50, FPN 256, head 128."""
    return _build(taxonomy, **{"body": "resnet50", **options})
