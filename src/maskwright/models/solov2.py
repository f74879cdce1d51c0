"""SOLOv2: Wang, Zhang, Kong, Li, Shen, "SOLOv2: Dynamic and Fast Instance Segmentation", NeurIPS 2020
(arXiv:2003.10152).

As in SOLO, the cells of a grid on every pyramid level say what lies there; but a cell predicts the weights of a 1x1
convolution, and its mask is that convolution of one mask feature that all levels share (sections 3.2.1 and 3.2.2).
Duplicates lose score by matrix NMS, in one parallel step (section 3.3).

Differences: the authors' code, AdelaiDet's and mmdetection's agree but for names; mmdetection divides the mask loss by
cells, of which two objects may share one, the others by masks, as here; AdelaiDet's targets are half a cell off at
most (``rounded_targets``). Masks are computed for candidates only.

A cell is a share of the padded picture: what learned from crops finds little in pictures that are several times as
large (measured in docs/families.md). Train on whole pictures at the size of the test, as all of them do.

Weights: importers for the authors' and AdelaiDet's checkpoints (non-commercial) and mmdetection's (Apache-2.0 code).

    tensor    meaning                                              shape
    pixels    RGB, 0..255                                          [B, 3, H, W]
    classes   logits of the cells, a level each                    [B, K, S, S]
    kernels   the cells' convolutions, a level each                [B, E, S, S]
    features  what all of them are applied to                      [B, E, H/4, W/4]
    probs     masks found in one image                             [N, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.models.parts import grids as shared
from maskwright.models.parts.grids import GridDetections, GridRules, GridTruth
from maskwright.models.parts.two_stage import IMAGENET_MEAN, IMAGENET_STD, resnet
from maskwright.nn.heads.grids import CategoryBranch, DynamicKernels, UnifiedMaskFeatures, balanced
from maskwright.nn.losses import Dice
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1.0, 96.0), (48.0, 192.0), (96.0, 384.0), (192.0, 768.0), (384.0, 2048.0))
LIGHT_RANGES = ((1.0, 56.0), (28.0, 112.0), (56.0, 224.0), (112.0, 448.0), (224.0, 896.0))
"""Root areas of each level's objects in pixels, for pictures of 800 and of 448 pixels (mmdetection, AdelaiDet)."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``truth`` with scenes, ``detections`` without."""

    classes: list[Tensor]
    kernels: list[Tensor]
    features: Tensor
    truth: list[GridTruth] | None = None
    detections: list[GridDetections] | None = None


class SOLOv2(nn.Module):
    """SOLOv2 on built parts.

    Args:
        backbone, neck, categories, kernels, mask_features: the parts; the neck gives five levels, finest first.
        taxonomy: the K classes.
        grids: S of each level. ranges: (lowest, highest) root of the area of a level's objects, in pixels.
        shrink: the middle part of an object's box whose cells are positive.
        strides: of the levels once they are balanced; masks must have more cells than that.
        rounded_targets: masks to learn are scaled to whole cells before they are padded (AdelaiDet).
        rules: of decoding.
        loss_weights: factors of the losses by name; missing ones are those of the paper: mask 3, class 1.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    pixel_mean: Tensor
    pixel_std: Tensor
    class_layers = ("categories.logits",)

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        categories: CategoryBranch,
        kernels: DynamicKernels,
        mask_features: UnifiedMaskFeatures,
        *,
        taxonomy: Taxonomy,
        grids: Sequence[int] = GRIDS,
        ranges: Sequence[tuple[float, float]] = RANGES,
        shrink: float = 0.2,
        strides: Sequence[int] = (8, 8, 16, 32, 32),
        rounded_targets: bool = False,
        rules: GridRules | Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if not len(grids) == len(ranges) == len(strides):
            raise ValueError(f"grids, ranges and strides must be of one length, got {grids}, {ranges}, {strides}")
        self.backbone, self.neck = backbone, neck
        self.categories, self.kernels, self.mask_features = categories, kernels, mask_features
        self.taxonomy = taxonomy
        self.grids, self.ranges, self.shrink = tuple(grids), tuple(ranges), shrink
        self.strides, self.rules = tuple(strides), GridRules.of(rules)
        self.rounded_targets = rounded_targets
        self.loss_weights = {"mask": 3.0, **(loss_weights or {})}
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = Dice(epsilon=2e-3)
        self.score_threshold, self.max_per_image = 0.1, 100
        self.mask_stride = self.strides[0] // 2
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """All branches, and what cells learn (with ``scenes``) or what was found (without)."""
        pyramid = self.pyramid(inputs)
        levels = list(zip(balanced(pyramid), self.grids, strict=True))
        classes = [self.categories(level, grid) for level, grid in levels]
        kernels = [self.kernels(level, grid) for level, grid in levels]
        raw = Raw(classes, kernels, self.mask_features(pyramid))
        if scenes is None:
            raw.detections = self.detect(raw)
        else:
            padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
            raw.truth = [
                shared.assign(
                    scene, padded, self.grids, self.ranges, self.shrink, len(self.taxonomy), inputs.pixels.device
                )
                for scene in scenes
            ]
        return raw

    def pyramid(self, inputs: Images) -> list[Tensor]:
        """Maps P2 to P6, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def detect(self, raw: Raw) -> list[GridDetections]:
        """The objects of each image."""
        kernels = torch.cat([level.flatten(2).transpose(1, 2) for level in raw.kernels], 1)
        steps = zip(self.grids, self.strides, strict=True)
        strides = torch.cat([kernels.new_full((grid * grid,), float(stride)) for grid, stride in steps])
        out: list[GridDetections] = []
        found = shared.candidates(raw.classes, self.score_threshold, self.rules.candidates)
        for image, (cells, labels, scores) in enumerate(found):
            probs = self.masks(raw.features[image], kernels[image, cells]).float().sigmoid()
            out.append(shared.ranked(probs, scores, labels, strides[cells], self.rules, self.max_per_image))
        return out

    def masks(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Mask logits [N, h, w] of kernels [N, E] on features [E, h, w]."""
        maps = kernels @ features.flatten(1)
        return maps.unflatten(1, (features.shape[-2], features.shape[-1]))

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, a focal loss of all cells, and L_mask of the positive ones (equation 2), each times its weight."""
        counts = self.loss_counts(raw, batch)
        truth = _learned(raw)
        sums = {"class": shared.class_sum(raw.classes, truth), "mask": self._mask_sum(raw, truth)}
        return {n: s / counts[n].clamp(min=1) * self.loss_weights.get(n, 1.0) for n, s in sums.items()}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over: positive cells and one, and learned masks."""
        cells, masks = shared.positives(_learned(raw), len(self.taxonomy))
        return {"class": raw.features.new_tensor(cells + 1.0), "mask": raw.features.new_tensor(float(masks))}

    def _mask_sum(self, raw: Raw, truth: Sequence[GridTruth]) -> Tensor:
        size = (raw.features.shape[-2], raw.features.shape[-1])
        kernels = [level.flatten(2).transpose(1, 2) for level in raw.kernels]
        logits = [raw.features.new_zeros((0, *size)).float()]
        targets = [torch.zeros(0, *size)]
        for image, each in enumerate(truth):
            chosen = torch.cat([level[image, cells] for level, cells in zip(kernels, each.cells, strict=True)])
            logits.append(self.masks(raw.features[image], chosen).float())
            whose = torch.cat(each.objects)
            targets.append(shared.shrunk(each.masks, whose, self.mask_stride, size, self.rounded_targets))
        flat = torch.cat(logits)
        connected = (raw.features.sum() + sum(level.sum() for level in raw.kernels)) * 0.0
        return self.mask_loss(flat, torch.cat(targets).to(flat)) * len(flat) + connected

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        return [
            shared.scene_of(found, self.mask_stride, self.rules.mask_threshold, view)
            for found, view in zip(raw.detections, geometry, strict=True)
        ]


def _learned(raw: Raw) -> list[GridTruth]:
    if raw.truth is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.truth


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    width: int = 512,
    depth: int = 4,
    head_norm: NormName = "group",
    prior: float = 0.01,
    mask_width: int = 128,
    kernels: int = 256,
    **options: Any,
) -> SOLOv2:
    """SOLOv2 from its numbers.

    Args:
        width, depth: of the category and the kernel branch. prior: class probability that cells begin with.
        mask_width: of the mask branch's hidden maps. kernels: channels of the mask feature, numbers of a kernel.
    """
    backbone, options = resnet(body, **options)
    return SOLOv2(
        backbone,
        FPN(backbone.channels, channels, extra=1),
        CategoryBranch(channels, len(taxonomy), width=width, depth=depth, norm=head_norm, prior=prior),
        DynamicKernels(channels, kernels, width=width, depth=depth, norm=head_norm),
        UnifiedMaskFeatures(channels, width=mask_width, out_channels=kernels, norm=head_norm),
        taxonomy=taxonomy,
        **options,
    )


def solov2_r50(taxonomy: Taxonomy, **options: Any) -> SOLOv2:
    """ResNet-50, FPN 256, four convolutions of 512 in each branch: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def solov2_r101(taxonomy: Taxonomy, **options: Any) -> SOLOv2:
    """ResNet-101, FPN 256, four convolutions of 512 in each branch."""
    return _build(taxonomy, **{"body": "resnet101", **options})


def solov2_light_r18(taxonomy: Taxonomy, **options: Any) -> SOLOv2:
    """ResNet-18, two convolutions of 256 in each branch, 128 kernel numbers, short side 448 (section 4.1, light)."""
    numbers: dict[str, Any] = {
        "body": "resnet18",
        "width": 256,
        "depth": 2,
        "kernels": 128,
        "ranges": LIGHT_RANGES,
        "resize": Resize(short=448, long=768),
    }
    return _build(taxonomy, **{**numbers, **options})
