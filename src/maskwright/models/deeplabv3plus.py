"""DeepLabv3+: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation", ECCV 2018 (arXiv:1802.02611).

A residual network keeps a stride of 16 by dilating its last stage; atrous spatial pyramid pooling looks at its map at
several dilations and as a whole (DeepLabv3, arXiv:1706.05587, section 3.3). A decoder enlarges that fourfold, joins a
fine map of stride 4 reduced to 48 channels, and refines both by two convolutions (section 3.1).

Differences: ``decoder=False`` is DeepLabv3, as torchvision has it: dilated to a stride of 8, rates twice as large, the
logits of that stride enlarged. Convolutions of the decoder are plain, as in the paper's experiments on ResNets.

Weights: importer for torchvision's ``deeplabv3_resnet50`` and ``_resnet101`` (BSD-3), which have no decoder.

    tensor           meaning                  shape
    pixels           RGB, 0..255              [B, 3, H, W]
    semantic_logits  one map a class          [B, C, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from maskwright.models.parts.semantic import PixelClassifier, SemanticRaw
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.aspp import DeepLabHead, DeepLabPlusHead
from maskwright.nn.norm import NormName
from maskwright.structures import Taxonomy

Raw = SemanticRaw


class DeepLabV3Plus(PixelClassifier):
    """DeepLabv3+ on built parts.

    Args:
        backbone: pixels to maps, finest first. head: the maps to logits.
        options: of ``PixelClassifier``.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.backbone, self.head = backbone, head

    def logits(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, h, w]."""
        return self.head(self.backbone(pixels))


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    decoder: bool = True,
    output_stride: Literal[8, 16] = 16,
    width: int = 256,
    rates: Sequence[int] | None = None,
    fine_width: int = 48,
    depth: int = 2,
    head_norm: NormName = "batch",
    dropout: float = 0.1,
    **options: Any,
) -> DeepLabV3Plus:
    """``rates`` are (6, 12, 18) at a stride of 16 and twice that at 8 (DeepLabv3, section 4.1)."""
    backbone = TimmBackbone(
        body, out_indices=(1, 4), norm=norm, frozen_stages=frozen_stages, pretrained=pretrained,
        zero_init=zero_init, output_stride=output_stride,
    )  # fmt: skip
    fine, coarse = backbone.channels
    common: dict[str, Any] = {
        "width": width,
        "rates": rates or tuple(rate * 16 // output_stride for rate in (6, 12, 18)),
        "norm": head_norm,
        "dropout": dropout,
    }
    classes = len(taxonomy)
    if decoder:
        head: nn.Module = DeepLabPlusHead(coarse, fine, classes, fine_width=fine_width, depth=depth, **common)
    else:
        head = DeepLabHead(coarse, classes, **common)
    return DeepLabV3Plus(backbone, head, taxonomy=taxonomy, **options)


def deeplabv3plus_r50(taxonomy: Taxonomy, **options: Any) -> DeepLabV3Plus:
    """ResNet-50 with a stride of 16, ASPP 256, decoder 256."""
    return _build(taxonomy, **{"body": "resnet50", **options})
