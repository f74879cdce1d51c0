"""SOLO: Wang, Kong, Shen, Jiang, Li, "SOLO: Segmenting Objects by Locations", ECCV 2020 (arXiv:1912.04488).

Every pyramid level is laid out as a grid of S x S cells, and a cell in which an object's center lies says the object's
class and draws its mask, without boxes: the mask branch has one map of the picture for each cell (sections 3.1 and
3.2). The decoupled head has one map for each column and one for each row, whose product is a cell's mask (section 5).
Coordinates are given to the mask branch, since convolutions do not know where they are.

Differences: the authors' first code ended with mask NMS; it and mmdetection now end with matrix NMS (SOLOv2, section
3.3), as here. Only masks of cells whose class passes the threshold are computed, in training only those of positives.

A cell is a share of the padded picture: what learned from crops finds little in pictures that are several times as
large (measured in docs/families.md). Train on whole pictures at the size of the test, as both origins do.

Weights: importers for the authors' checkpoints (non-commercial) and mmdetection's (Apache-2.0 code).

    tensor   meaning                                              shape
    pixels   RGB, 0..255                                          [B, 3, H, W]
    classes  logits of the cells, a level each                    [B, K, S, S]
    hidden   what a level's masks are made of                     [B, C, 2H/s, 2W/s], decoupled 2 x [B, S, 2H/s, 2W/s]
    probs    masks found in one image, at the finest level's size [N, H/4, W/4]
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
from maskwright.nn.heads.grids import CategoryBranch, GridMasks, balanced, resize
from maskwright.nn.losses import Dice, product_logit
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1.0, 96.0), (48.0, 192.0), (96.0, 384.0), (192.0, 768.0), (384.0, 2048.0))
"""Root areas of the objects of each level, in pixels (table 3)."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``truth`` with scenes, ``detections`` without."""

    classes: list[Tensor]
    hidden: list[list[Tensor]]
    truth: list[GridTruth] | None = None
    detections: list[GridDetections] | None = None


class SOLO(nn.Module):
    """SOLO on built parts.

    Args:
        backbone, neck, categories, masks: the parts; the neck gives five levels, finest first.
        taxonomy: the K classes.
        grids: S of each level. ranges: (lowest, highest) root of the area of a level's objects, in pixels.
        shrink: the middle part of an object's box whose cells are positive (section 3.3.1, epsilon).
        strides: of the levels once they are balanced; masks must have more cells than that.
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
        masks: GridMasks,
        *,
        taxonomy: Taxonomy,
        grids: Sequence[int] = GRIDS,
        ranges: Sequence[tuple[float, float]] = RANGES,
        shrink: float = 0.2,
        strides: Sequence[int] = (8, 8, 16, 32, 32),
        rules: GridRules | Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if not len(grids) == len(ranges) == len(strides):
            raise ValueError(f"grids, ranges and strides must be of one length, got {grids}, {ranges}, {strides}")
        self.backbone, self.neck, self.categories, self.masks = backbone, neck, categories, masks
        self.taxonomy = taxonomy
        self.grids, self.ranges, self.shrink = tuple(grids), tuple(ranges), shrink
        self.strides, self.rules = tuple(strides), GridRules.of(rules)
        self.loss_weights = {"mask": 3.0, **(loss_weights or {})}
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = Dice(epsilon=2e-3)
        self.score_threshold, self.max_per_image = 0.1, 100
        self.mask_stride = self.strides[0] // 2
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Both branches on all levels, and what cells learn (with ``scenes``) or what was found (without)."""
        features = balanced(self.features(inputs))
        classes = [self.categories(level, grid) for level, grid in zip(features, self.grids, strict=True)]
        raw = Raw(classes, [self.masks(level, i) for i, level in enumerate(features)])
        if scenes is None:
            size = (inputs.pixels.shape[-2] // self.mask_stride, inputs.pixels.shape[-1] // self.mask_stride)
            raw.detections = self.detect(raw, size)
        else:
            padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
            raw.truth = [
                shared.assign(
                    scene, padded, self.grids, self.ranges, self.shrink, len(self.taxonomy), inputs.pixels.device
                )
                for scene in scenes
            ]
        return raw

    def features(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps P2 to P6, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def detect(self, raw: Raw, size: tuple[int, int]) -> list[GridDetections]:
        """The objects of each image, masks at ``size``."""
        found = shared.candidates(raw.classes, self.score_threshold, self.rules.candidates)
        out: list[GridDetections] = []
        for image, (cells, labels, scores) in enumerate(found):
            probs, strides = self.probabilities(raw, image, cells, size)
            out.append(shared.ranked(probs, scores, labels, strides, self.rules, self.max_per_image))
        return out

    def probabilities(self, raw: Raw, image: int, cells: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Masks [N, *size] of ``cells`` [N], numbered through all levels, and their levels' strides [N]."""
        probs = raw.hidden[0][0].new_zeros((cells.shape[0], *size), dtype=torch.float32)
        strides = torch.zeros_like(cells)
        before = 0
        for level, (grid, stride) in enumerate(zip(self.grids, self.strides, strict=True)):
            # every level is asked, also for no cells, so that the graph has no branch
            here = torch.nonzero((cells >= before) & (cells < before + grid * grid)).flatten()
            maps = self.masks.at(raw.hidden[level], level, image, cells[here] - before)
            parts = [resize(part.float().sigmoid()[:, None], size)[:, 0] for part in maps]
            probs = probs.index_copy(0, here, parts[0] if len(parts) == 1 else parts[0] * parts[1])
            strides = strides.index_fill(0, here, stride)
            before += grid * grid
        return probs, strides

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, a focal loss of all cells, and L_mask of the positive ones (equation 4), each times its weight."""
        counts = self.loss_counts(raw, batch)
        truth = _learned(raw)
        sums = {"class": shared.class_sum(raw.classes, truth), "mask": self._mask_sum(raw, truth)}
        return {n: s / counts[n].clamp(min=1) * self.loss_weights.get(n, 1.0) for n, s in sums.items()}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over: positive cells and one, and learned masks."""
        cells, masks = shared.positives(_learned(raw), len(self.taxonomy))
        return {"class": raw.classes[0].new_tensor(cells + 1.0), "mask": raw.classes[0].new_tensor(float(masks))}

    def _mask_sum(self, raw: Raw, truth: Sequence[GridTruth]) -> Tensor:
        total = sum(part.sum() for level in raw.hidden for part in level) * 0.0
        total = total + sum(p.sum() for p in self.masks.maps.parameters()) * 0.0  # a level may have no object
        for level, hidden in enumerate(raw.hidden):
            size = (hidden[0].shape[-2], hidden[0].shape[-1])
            logits: list[Tensor] = []
            targets: list[Tensor] = []
            for image, each in enumerate(truth):
                if len(each.cells[level]) == 0:
                    continue
                maps = self.masks.at(hidden, level, image, each.cells[level])
                logits.append(maps[0].float() if len(maps) == 1 else product_logit(maps[0].float(), maps[1].float()))
                targets.append(shared.shrunk(each.masks, each.objects[level], self.strides[level] // 2, size))
            if logits:
                flat = torch.cat(logits)
                total = total + self.mask_loss(flat, torch.cat(targets).to(flat)) * len(flat)
        assert isinstance(total, Tensor)
        return total

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
    width: int = 256,
    depth: int = 7,
    head_norm: NormName = "group",
    prior: float = 0.01,
    decoupled: bool = False,
    grids: Sequence[int] = GRIDS,
    **options: Any,
) -> SOLO:
    """SOLO from its numbers.

    Args:
        width, depth: of both branches. prior: class probability that cells begin with.
        decoupled: S + S maps a level (section 5), not S^2.
    """
    backbone, options = resnet(body, **options)
    return SOLO(
        backbone,
        FPN(backbone.channels, channels, extra=1),
        CategoryBranch(channels, len(taxonomy), width=width, depth=depth, norm=head_norm, prior=prior),
        GridMasks(channels, grids, width=width, depth=depth, norm=head_norm, decoupled=decoupled),
        taxonomy=taxonomy,
        grids=grids,
        **options,
    )


def solo_r50(taxonomy: Taxonomy, **options: Any) -> SOLO:
    """ResNet-50, FPN 256, seven convolutions in each branch: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def solo_decoupled_r50(taxonomy: Taxonomy, **options: Any) -> SOLO:
    """ResNet-50, FPN 256, decoupled head."""
    return _build(taxonomy, **{"body": "resnet50", "decoupled": True, **options})
