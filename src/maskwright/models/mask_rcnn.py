"""Mask R-CNN: He, Gkioxari, Dollar, Girshick, "Mask R-CNN", ICCV 2017 (arXiv:1703.06870).

A region proposal network proposes boxes on a feature pyramid; each box is cut out of the pyramid by RoIAlign and
classified and refined by one head (section 3); a second, convolutional head draws one binary mask a class inside the
box, trained by a per-pixel sigmoid so that the classes' masks do not compete with each other.

Differences: none of substance. ``nn.conventions`` names the details in which the two public implementations differ
(detectron2's, the default, and torchvision's), so that checkpoints of both compute here what they compute there.

Weights: importers for detectron2 (CC BY-SA 3.0) and torchvision (BSD-3); ``embedded`` is our own (CC0 data).

    tensor        meaning                                        shape
    pixels        RGB, 0..255                                    [B, 3, H, W]
    objectness    one map a level, A anchors a cell              [B, A, H/s, W/s]
    proposals     one tensor an image                            [P, 4]
    class_logits  R boxes of all images, background last         [R, C + 1]
    mask_logits   M boxes of all images, m = 28 by default       [M, C, m, m]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.conventions import CONVENTIONS
from maskwright.nn.heads.roi_box import BoxHead, Detections, detect
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.heads.roi_sampling import Samples, label_rois
from maskwright.nn.heads.rpn import RPNHead, propose, rpn_losses
from maskwright.nn.losses import cross_entropy_sum, mask_bce, smooth_l1_sum
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.anchors import cell_anchors, grid_anchors
from maskwright.ops.paste import paste, paste_expanded
from maskwright.ops.roi import multilevel_roi_align
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``samples`` with scenes, ``detections`` without."""

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]
    class_logits: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    samples: list[Samples] | None = None
    detections: list[Detections] | None = None
    anchors_sampled: int | None = None


class MaskRCNN(nn.Module):
    """Mask R-CNN on built parts.

    Args:
        backbone, neck, rpn, box_head, mask_head: the parts; the neck's levels have ``strides``.
        taxonomy: the C classes.
        strides: of the pyramid's levels, finest first; the RoI heads use all but the ``extra`` pooled one.
        anchor_sizes: side of each level's anchors in pixels. anchor_ratios: height over width.
        roi_levels: how many of the finest levels the RoI heads see.
        box_size, mask_size: RoIAlign's output sides; masks come out twice as large.
        pooling: RoIAlign's reduction over its sampled points, ``"mean"`` or ``"max"`` (section 3).
        agnostic_mask: one mask for all classes (section 4.2, class-specific vs. class-agnostic).
        agnostic_nms: detections of different classes suppress each other; the rule is NMS within a class.
        convention: a name in ``CONVENTIONS``.
        loss_weights: factors of the five losses by name; missing ones are 1.
        rpn_batch, rpn_positive: anchors sampled an image for the RPN losses, and the largest share of positives.
        roi_batch, roi_positive: RoIs sampled an image, and the largest share of positives (0.25 is 1:3).
        roi_sampling: ``"random"``, or ``"hard"`` for the RoIs with the largest losses (OHEM, Shrivastava et al. 2016).
        proposals_train, proposals_test: (before NMS per level, after NMS) RPN boxes.
        canonical_level: the pyramid level that sees RoIs of ``canonical_size`` pixels.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    pixel_mean: Tensor
    pixel_std: Tensor
    pooling: Literal["mean", "max"]

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: BoxHead,
        mask_head: MaskHead,
        *,
        taxonomy: Taxonomy,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        roi_levels: int = 4,
        box_size: int = 7,
        mask_size: int = 14,
        pooling: Literal["mean", "max"] = "mean",
        agnostic_mask: bool = False,
        agnostic_nms: bool = False,
        convention: str = "detectron2",
        loss_weights: Mapping[str, float] | None = None,
        rpn_batch: int = 256,
        rpn_positive: float = 0.5,
        roi_batch: int = 512,
        roi_positive: float = 0.25,
        roi_sampling: Literal["random", "hard"] = "random",
        proposals_train: tuple[int, int] = (2000, 1000),
        proposals_test: tuple[int, int] = (1000, 1000),
        canonical_size: float = 224.0,
        canonical_level: int = 4,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
        self.backbone, self.neck, self.rpn = backbone, neck, rpn
        self.box_head, self.mask_head = box_head, mask_head
        self.taxonomy = taxonomy
        self.convention = CONVENTIONS[convention]
        self.strides, self.roi_levels = tuple(strides), roi_levels
        self.cells = [cell_anchors((size,), anchor_ratios, self.convention.rounded_anchors) for size in anchor_sizes]
        self.box_size, self.mask_size, self.pooling = box_size, mask_size, pooling
        self.agnostic_mask, self.agnostic_nms = agnostic_mask, agnostic_nms
        self.loss_weights = dict(loss_weights or {})
        self.rpn_batch, self.rpn_positive = rpn_batch, rpn_positive
        self.roi_batch, self.roi_positive, self.roi_sampling = roi_batch, roi_positive, roi_sampling
        self.proposals_train, self.proposals_test = proposals_train, proposals_test
        self.canonical = (canonical_size, canonical_level)
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = mask_bce
        self.proposal_nms, self.nms_threshold = 0.7, 0.5
        self.score_threshold, self.max_per_image = 0.05, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Proposals, and the heads on sampled RoIs (with ``scenes``) or on proposals and detections (without)."""
        features, objectness, deltas = self.dense(inputs)
        anchors = self.anchors(features, inputs.pixels.shape[-2:])
        before, after = self.proposals_test if scenes is None else self.proposals_train
        proposals = propose(
            objectness, deltas, anchors, inputs.sizes,
            pre_nms=before, post_nms=after, threshold=self.proposal_nms, min_size=self.convention.min_proposal,
        )  # fmt: skip
        if scenes is None:
            class_logits, box_deltas = self.box_head(self.pool(features, proposals, self.box_size))
            detections = self.detect(proposals, class_logits, box_deltas, inputs)
            mask_logits = self.mask_head(self.pool(features, [d.boxes for d in detections], self.mask_size))
            return Raw(objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, None, detections)
        samples = [self.sample(features, *each) for each in zip(range(len(scenes)), proposals, scenes, strict=True)]
        class_logits, box_deltas = self.box_head(self.pool(features, [s.boxes for s in samples], self.box_size))
        positive = [s.boxes[s.labels < len(self.taxonomy)] for s in samples]
        mask_logits = self.mask_head(self.pool(features, positive, self.mask_size))
        return Raw(objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, samples)

    def dense(self, inputs: Images) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Pyramid maps, finest first, and the RPN's logits and deltas on each."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        features = self.neck(self.backbone(pixels))
        objectness, deltas = self.rpn(features)
        return features, objectness, deltas

    def anchors(self, features: Sequence[Tensor], padded: Sequence[int]) -> list[Tensor]:
        """Anchors [H_i * W_i * A, 4] of each level for a padded picture (H, W)."""
        sizes = [(int(f.shape[-2]), int(f.shape[-1])) for f in features]
        steps: list[tuple[int, int]] = [(s, s) for s in self.strides]
        if self.convention.rounded_anchors:
            steps = [(int(padded[0]) // h, int(padded[1]) // w) for h, w in sizes]
        return grid_anchors(sizes, steps, [cell.to(features[0].device) for cell in self.cells])

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """RoIAlign [R, C, size, size] of each image's boxes on the level that fits them."""
        return multilevel_roi_align(
            features[: self.roi_levels], boxes, self.strides[: self.roi_levels], size,
            sampling_ratio=self.convention.sampling_ratio, aligned=self.convention.aligned,
            canonical=self.canonical[0], canonical_level=self.canonical[1],
            epsilon_inside=self.convention.level_epsilon_inside, reduce=self.pooling,
        )  # fmt: skip

    @torch.no_grad()
    def sample(self, features: Sequence[Tensor], image: int, proposals: Tensor, scene: Scene) -> Samples:
        """Draw RoIs of one image to learn from; the truth's own boxes are among the candidates."""
        objects, ignored = _split(scene)
        candidates = label_rois(
            proposals, _boxes(objects).to(proposals), objects.labels.to(proposals.device),
            ignored.to(proposals), background=len(self.taxonomy),
        )  # fmt: skip
        losses = None
        if self.roi_sampling == "hard":
            one = [feature[image : image + 1] for feature in features]
            logits, _ = self.box_head(self.pool(one, [candidates.boxes], self.box_size))
            losses = nn.functional.cross_entropy(logits.float(), candidates.labels, reduction="none")
        return candidates.draw(self.roi_batch, self.roi_positive, losses)

    def detect(self, proposals: Sequence[Tensor], logits: Tensor, deltas: Tensor, inputs: Images) -> list[Detections]:
        """Boxes above ``score_threshold``, after NMS in each class, at most ``max_per_image``."""
        return detect(
            proposals, logits, deltas, inputs.sizes,
            box_weights=BOX_WEIGHTS, score_threshold=self.score_threshold, nms_threshold=self.nms_threshold,
            limit=self.max_per_image, min_size=self.convention.min_detection,
        )  # fmt: skip

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_rpn_class, L_rpn_box, L_class, L_box and L_mask, each times its weight (section 3; Faster R-CNN, 3.1.2)."""
        sums, counts = self._sums(raw, batch)
        return {name: sums[name] / counts[name].clamp(min=1) * self.loss_weights.get(name, 1.0) for name in sums}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        samples = raw.samples or []
        rois = sum(len(s.labels) for s in samples)
        positive = len(raw.mask_logits)
        anchors = self.rpn_batch * len(batch)
        if self.convention.sampled_denominator and raw.anchors_sampled is not None:
            anchors = raw.anchors_sampled
        counts = {"rpn_class": anchors, "rpn_box": anchors, "class": rois, "box": rois, "mask": positive}
        return {name: raw.class_logits.new_tensor(float(count)) for name, count in counts.items()}

    def _sums(self, raw: Raw, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if raw.samples is None:
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        parts = [_split(scene) for scene in batch.truth()]
        device = raw.class_logits.device
        truth = [_boxes(objects).to(device) for objects, _ in parts]
        ignored = [regions.to(device) for _, regions in parts]
        beta = self.convention.beta
        rpn_class, rpn_box, raw.anchors_sampled = rpn_losses(
            raw.objectness, raw.deltas, raw.anchors, truth, ignored,
            count=self.rpn_batch, positive_fraction=self.rpn_positive, beta=beta,
        )  # fmt: skip
        counts = self.loss_counts(raw, batch)
        labels = torch.cat([s.labels for s in raw.samples])
        sums = {
            "rpn_class": rpn_class,
            "rpn_box": rpn_box,
            "class": cross_entropy_sum(raw.class_logits, labels),
            "box": self._box_sum(raw, truth, labels, beta),
            "mask": self._mask_loss(raw, [objects for objects, _ in parts], labels) * counts["mask"],
        }
        return sums, counts

    def _box_sum(self, raw: Raw, truth: Sequence[Tensor], labels: Tensor, beta: float) -> Tensor:
        samples = raw.samples or []
        positive = torch.nonzero(labels < len(self.taxonomy)).flatten()
        boxes = torch.cat([s.boxes for s in samples])[positive]
        goals = [t[s.matched] if len(t) else s.boxes for s, t in zip(samples, truth, strict=True)]
        goal = box_ops.encode(torch.cat(goals)[positive], boxes, BOX_WEIGHTS)
        deltas = raw.box_deltas.reshape(len(labels), -1, 4)
        column = labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        return smooth_l1_sum(deltas[positive, column].float(), goal, beta) + raw.box_deltas.sum() * 0.0

    def _mask_loss(self, raw: Raw, truth: Sequence[Segments], labels: Tensor) -> Tensor:
        """The mask loss on the true class's map only: masks are decoupled from the class (section 3)."""
        background, side = len(self.taxonomy), raw.mask_logits.shape[-1]
        targets: list[Tensor] = []
        for sample, objects in zip(raw.samples or [], truth, strict=True):
            positive = sample.labels < background
            if objects.masks is None:
                raise ValueError("Mask R-CNN learns from masks, but a scene has none; give masks or another objective")
            masks = objects.masks[sample.matched[positive].cpu()]
            target = masks.crop(sample.boxes[positive].float(), side, aligned=self.convention.aligned)
            targets.append((target >= 0.5).float() if self.convention.hard_mask_targets else target)
        column = labels[labels < background]
        column = torch.zeros_like(column) if self.agnostic_mask else column
        logits = raw.mask_logits[torch.arange(len(column), device=column.device), column]
        return self.mask_loss(logits.float(), torch.cat(targets)) + raw.mask_logits.sum() * 0.0

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: boxes scaled and clipped, masks pasted straight to run-lengths."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        scenes: list[Scene] = []
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        draw = paste_expanded if self.convention.expanded_paste else paste
        for found, maps, view in zip(raw.detections, logits, geometry, strict=True):
            column = torch.zeros_like(found.labels) if self.agnostic_mask else found.labels
            probs = maps[torch.arange(len(column), device=column.device), column].float().sigmoid().cpu()
            factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
            boxes = box_ops.clip(found.boxes.float() / factor, view.original).cpu()
            keep = box_ops.nonempty(boxes)
            counts, offsets = draw(probs[keep], boxes[keep], view.original)
            segments = Segments(
                size=view.original,
                labels=found.labels.cpu()[keep],
                masks=Masks.from_arrays(counts, offsets, view.original),
                boxes=boxes[keep],
                scores=found.scores.float().cpu()[keep],
            )
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def _split(scene: Scene) -> tuple[Segments, Tensor]:
    """Objects to learn, and boxes [I, 4] of crowds and regions to ignore, which make no negative."""
    objects = scene.objects()
    crowd = objects.crowd if objects.crowd is not None else torch.zeros(len(objects), dtype=torch.bool)
    ignored = _boxes(objects[crowd]) if bool(crowd.any()) else torch.zeros(0, 4)
    if scene.ignore is not None:
        ignored = torch.cat([ignored.cpu(), scene.ignore.boxes()])
    return objects[~crowd], ignored


def _boxes(objects: Segments) -> Tensor:
    if objects.boxes is not None:
        return objects.boxes
    if objects.masks is None:
        raise ValueError("a scene to learn from needs boxes or masks, and this one has neither")
    return objects.masks.boxes()


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    stride_in_1x1: bool = False,
    pretrained: bool = False,
    zero_init: bool | None = None,
    out_indices: tuple[int, ...] = (1, 2, 3, 4),
    channels: int = 256,
    extra: int = 1,
    neck_norm: NormName = None,
    rpn_depth: int = 1,
    box_head: Literal["fc2", "conv4_fc1"] = "fc2",
    box_hidden: int = 1024,
    agnostic_box: bool = False,
    head_norm: NormName = None,
    mask_width: int = 256,
    mask_depth: int = 4,
    box_size: int = 7,
    agnostic_mask: bool = False,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> MaskRCNN:
    backbone = TimmBackbone(
        body, out_indices=out_indices, norm=norm, frozen_stages=frozen_stages,
        stride_in_1x1=stride_in_1x1, pretrained=pretrained, zero_init=zero_init,
    )  # fmt: skip
    classes = len(taxonomy)
    return MaskRCNN(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box),
        MaskHead(channels, 1 if agnostic_mask else classes, width=mask_width, depth=mask_depth, norm=head_norm),
        taxonomy=taxonomy,
        box_size=box_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        **options,
    )


def mask_rcnn_r18(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-18, FPN 256."""
    return _build(taxonomy, "resnet18", **options)


def mask_rcnn_r50(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-50, FPN 256: the paper's standard form."""
    return _build(taxonomy, "resnet50", **options)


def mask_rcnn_r101(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-101, FPN 256."""
    return _build(taxonomy, "resnet101", **options)


def mask_rcnn_x101(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNeXt-101 32x8d, FPN 256."""
    return _build(taxonomy, "resnext101_32x8d", **options)


def mask_rcnn_mobilenetv3(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """MobileNetV3-Large, FPN 128 and thin heads."""
    numbers: dict[str, Any] = {"channels": 128, "mask_width": 128, "box_hidden": 512}
    return _build(taxonomy, "mobilenetv3_large_100", **{**numbers, **options})


def mask_rcnn_r18_light(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-18 up to C4, FPN 96 with batch norm, thin heads: 4.6 million parameters, for small objects on two cores.

    Anchors start at 16 pixels and pictures are enlarged twofold: nuclei are some 20 pixels wide. Its classes are
    shapes of one kind, so a detection of one suppresses those of the others.
    """
    numbers: dict[str, Any] = {
        "out_indices": (1, 2, 3),
        "channels": 96,
        "neck_norm": "batch",
        "head_norm": "batch",
        "box_hidden": 256,
        "mask_width": 64,
        "strides": (4, 8, 16, 32),
        "anchor_sizes": (16, 32, 64, 128),
        "roi_levels": 3,
        "canonical_size": 112.0,
        "rpn_batch": 256,
        "roi_batch": 128,
        "agnostic_nms": True,
        "proposals_train": (1000, 500),
        "proposals_test": (1000, 1000),
        "resize": Resize(scale=2.0, long=2048),
    }
    return _build(taxonomy, "resnet18", **{**numbers, **options})
