"""Mask2Former: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image
Segmentation", CVPR 2022 (arXiv:2112.01527).

A pixel decoder with deformable attention makes maps of four scales (section 3.2 and appendix); a hundred learned
queries read the three coarse ones in turn, each only where its own mask of the layer before is (masked attention,
equation 2), and become a class and a mask each. Matching and losses look at random and uncertain points (section 3.3).
One network tells things, stuff or both; rows differ in what they are asked for and in their number of queries.

Differences: transformers resizes masks to 384 x 384 before it decodes them, multiplies their probability by the score
before it is compared, and enlarges probabilities instead of logits; see ``QUERY_RULES``. The networks are the same.

Weights: importers for the official checkpoints and for transformers' (both CC BY-NC 4.0).

    tensor         meaning                                                   shape
    pixels         RGB, 0..255                                               [B, 3, H, W]
    mask features  of the pixel decoder, on stride 4                         [B, K, H/4, W/4]
    maps           of the pixel decoder, strides 32, 16, 8                   [B, 256, H/s, W/s]
    class_logits   of Q queries, "no object" last                            [B, Q, C + 1]
    mask_logits    inner products of queries and mask features               [B, Q, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.parts.point_sets import POINT_LOSS, Learned, PointCriterion, weighted
from maskwright.models.parts.queries import (
    QUERY_RULES,
    instance_scene,
    panoptic_scene,
    semantic_scene,
)
from maskwright.nn.backbones.swin import SWINS, Swin
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.masked_attention import MaskedDecoder, QueryMasks
from maskwright.nn.necks.deformable_encoder import DeformablePixelDecoder
from maskwright.nn.norm import normalize_pixels
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
Task = Literal["instance", "semantic", "panoptic"]


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes: classes and masks after the last layer; with scenes after every one, first to last.

    ``padded`` is (H, W) of the pixels; ``learned``, with scenes, says which query stands for which object.
    """

    layers: list[QueryMasks]
    padded: tuple[int, int]
    learned: Learned | None = None

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Logits of classes and of masks, a layer each."""
        return [(layer.class_logits, layer.mask_logits) for layer in self.layers]


class Mask2Former(nn.Module):
    """Mask2Former on built parts.

    Args:
        backbone, pixel_decoder, decoder: the parts; the backbone gives maps of strides 4 to 32, finest first.
        taxonomy: the C classes; its things and stuff tell what is merged.
        task: what ``predict`` makes; the network is the same for all.
        criterion: numbers of matching and sampling.
        loss_weights: factors of ``class`` (2) and ``mask`` (1: ``mask_loss`` has its own inside).
        rule: a name in ``parts.queries.QUERY_RULES``; ``model.rule`` holds its numbers.
        score_threshold: panoptic: of queries that take part; instance: of objects. ``None``: 0.8 and 0.
        overlap: a panoptic segment that keeps less than this share of what it claims disappears.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    class_layers = ("decoder.class_logits",)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: nn.Module,
        decoder: MaskedDecoder,
        *,
        taxonomy: Taxonomy,
        task: Task = "panoptic",
        criterion: PointCriterion | None = None,
        loss_weights: Mapping[str, float] | None = None,
        rule: str = "mask2former",
        score_threshold: float | None = None,
        max_per_image: int = 100,
        overlap: float = 0.8,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if rule not in QUERY_RULES:
            raise ValueError(f"rule must be one of {', '.join(QUERY_RULES)}, got {rule!r}")
        if task not in ("instance", "semantic", "panoptic"):
            raise ValueError(f"task must be 'instance', 'semantic' or 'panoptic', got {task!r}")
        self.backbone, self.pixel_decoder, self.decoder = backbone, pixel_decoder, decoder
        self.taxonomy, self.task, self.rule = taxonomy, task, replace(QUERY_RULES[rule], overlap=overlap)
        self.criterion = criterion or PointCriterion()
        self.loss_weights = {"class": 2.0, **(loss_weights or {})}
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = POINT_LOSS
        self.max_per_image = max_per_image
        fallback = 0.8 if task == "panoptic" else 0.0
        self.score_threshold = fallback if score_threshold is None else score_threshold
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Classes and masks of all queries; with ``scenes`` those of all layers, which learn too."""
        features, maps = self.pixel_decoder(self.features(inputs))
        padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
        raw = Raw(self.decoder(features, maps, every=scenes is not None), padded)
        if scenes is not None:
            raw.learned = Learned.of(raw.pairs, scenes, self.taxonomy, padded, self.criterion)
        return raw

    def features(self, inputs: Images) -> list[Tensor]:
        """The backbone's maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.backbone(pixels)

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class and L_mask (section 3.3) of the last layer, and of those before (``class_0``, ``mask_0``, ...)."""
        losses = _learned(raw).losses(raw.pairs, self.criterion, self.mask_loss)
        return weighted(losses, self.loss_weights)

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        return _learned(raw).counts(raw.pairs, self.criterion)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, as ``task`` asks: objects, a label for every pixel, or segments that share none."""
        if raw.learned is not None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        last, scenes = raw.layers[-1], list[Scene]()
        limits: dict[str, Any] = {"score_threshold": self.score_threshold, "max_per_image": self.max_per_image}
        for classes, masks, view in zip(last.class_logits, last.mask_logits, geometry, strict=True):
            if self.rule.direct:  # transformers' processor brings all masks to one size first
                masks = functional.interpolate(masks[None].float(), (384, 384), mode="bilinear")[0]
            place = (classes, masks, view, raw.padded)
            if self.task == "semantic":
                scenes.append(semantic_scene(*place, self.rule))
            elif self.task == "instance":
                scenes.append(instance_scene(*place, self.taxonomy, self.rule, **limits))
            else:
                scenes.append(panoptic_scene(*place, self.taxonomy, self.rule, **limits))
        return scenes


def _learned(raw: Raw) -> Learned:
    if raw.learned is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.learned


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "frozen",
    frozen_stages: int = 0,
    pretrained: bool = False,
    drop_path: float = 0.3,
    channels: int = 256,
    mask_channels: int = 256,
    encoder_depth: int = 6,
    encoder_hidden: int = 1024,
    points: int = 4,
    queries: int = 100,
    depth: int = 9,
    heads: int = 8,
    hidden: int = 2048,
    dropout: float = 0.0,
    mask_points: int = 12544,
    **options: Any,
) -> Mask2Former:
    if body in SWINS:
        backbone: Swin | TimmBackbone = Swin(
            body, drop_path=drop_path, pretrained=pretrained, frozen_stages=frozen_stages
        )
    else:
        backbone = TimmBackbone(body, norm=norm, frozen_stages=frozen_stages, pretrained=pretrained)
    pixels = DeformablePixelDecoder(
        backbone.channels, channels, mask_channels,
        depth=encoder_depth, heads=heads, points=points, hidden=encoder_hidden,
    )  # fmt: skip
    decoder = MaskedDecoder(
        channels, len(taxonomy), mask_channels,
        queries=queries, levels=3, depth=depth, heads=heads, hidden=hidden, dropout=dropout,
    )  # fmt: skip
    criterion = PointCriterion(points=mask_points)
    return Mask2Former(backbone, pixels, decoder, taxonomy=taxonomy, **{"criterion": criterion, **options})


_BODIES = {
    "r50": "resnet50",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window12_384",
    "swin_l": "swin_large_patch4_window12_384",
}


def mask2former_instance_r50(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """ResNet-50, 100 queries, asked for objects."""
    return _build(taxonomy, **{"body": _BODIES["r50"], "task": "instance", **options})


def mask2former_instance_swin_t(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-T, 100 queries, asked for objects."""
    return _build(taxonomy, **{"body": _BODIES["swin_t"], "task": "instance", **options})


def mask2former_instance_swin_s(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-S, 100 queries, asked for objects."""
    return _build(taxonomy, **{"body": _BODIES["swin_s"], "task": "instance", **options})


def mask2former_instance_swin_b(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-B with windows of 12, 100 queries, asked for objects."""
    return _build(taxonomy, **{"body": _BODIES["swin_b"], "task": "instance", **options})


def mask2former_instance_swin_l(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-L with windows of 12, 200 queries, asked for objects."""
    return _build(taxonomy, **{"body": _BODIES["swin_l"], "task": "instance", "queries": 200, **options})


def mask2former_semantic_r50(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """ResNet-50, 100 queries, asked for a label of every pixel."""
    return _build(taxonomy, **{"body": _BODIES["r50"], "task": "semantic", **options})


def mask2former_semantic_swin_t(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-T, 100 queries, asked for a label of every pixel."""
    return _build(taxonomy, **{"body": _BODIES["swin_t"], "task": "semantic", **options})


def mask2former_semantic_swin_s(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-S, 100 queries, asked for a label of every pixel."""
    return _build(taxonomy, **{"body": _BODIES["swin_s"], "task": "semantic", **options})


def mask2former_semantic_swin_b(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-B with windows of 12, 100 queries, asked for a label of every pixel."""
    return _build(taxonomy, **{"body": _BODIES["swin_b"], "task": "semantic", **options})


def mask2former_semantic_swin_l(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-L with windows of 12, 100 queries, asked for a label of every pixel."""
    return _build(taxonomy, **{"body": _BODIES["swin_l"], "task": "semantic", **options})


def mask2former_panoptic_r50(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """ResNet-50, 100 queries, asked for things and stuff."""
    return _build(taxonomy, **{"body": _BODIES["r50"], "task": "panoptic", **options})


def mask2former_panoptic_swin_t(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-T, 100 queries, asked for things and stuff."""
    return _build(taxonomy, **{"body": _BODIES["swin_t"], "task": "panoptic", **options})


def mask2former_panoptic_swin_s(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-S, 100 queries, asked for things and stuff."""
    return _build(taxonomy, **{"body": _BODIES["swin_s"], "task": "panoptic", **options})


def mask2former_panoptic_swin_b(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-B with windows of 12, 100 queries, asked for things and stuff."""
    return _build(taxonomy, **{"body": _BODIES["swin_b"], "task": "panoptic", **options})


def mask2former_panoptic_swin_l(taxonomy: Taxonomy, **options: Any) -> Mask2Former:
    """Swin-L with windows of 12, 200 queries, asked for things and stuff."""
    return _build(taxonomy, **{"body": _BODIES["swin_l"], "task": "panoptic", "queries": 200, **options})
