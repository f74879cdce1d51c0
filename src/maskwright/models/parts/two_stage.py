"""What families with two stages share: proposals of an RPN, RoIs drawn from them, the losses and scenes of both.

A family inherits ``TwoStage``, adds its heads, and says in its own ``forward``, ``loss`` and ``predict`` what it does
with them. Everything here speaks of scenes; what speaks of tensors only is in ``nn.heads``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from maskwright.models.parts.conventions import CONVENTIONS
from maskwright.models.parts.truth import boxes_of, masks_of
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.roi_box import Detections, detect
from maskwright.nn.heads.roi_sampling import Samples, label_rois
from maskwright.nn.heads.rpn import RPNHead, legacy_cell_anchors, propose, rpn_losses
from maskwright.nn.losses import cross_entropy_sum, mask_bce, smooth_l1_sum
from maskwright.nn.modes import evaluating
from maskwright.nn.norm import normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.anchors import cell_anchors, grid_anchors
from maskwright.ops.paste import paste, paste_expanded
from maskwright.ops.roi import multilevel_roi_align
from maskwright.protocols import MaskLoss, Proposer
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class FirstStage(Protocol):
    """What the RPN's losses need of a family's ``Raw``; ``anchors_sampled`` is set by them."""

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    anchors_sampled: int | None


@dataclass(slots=True)
class DenseRaw:
    """The first stage alone."""

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    anchors_sampled: int | None = None


class SingleHeads(FirstStage, Protocol):
    """What Mask R-CNN's five losses need of a family's ``Raw``."""

    class_logits: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    samples: list[Samples] | None


@dataclass(slots=True)
class Truth:
    """A batch's objects to learn, their boxes [G, 4] and the boxes [I, 4] that make no negative, an image each."""

    objects: list[Segments]
    boxes: list[Tensor]
    ignored: list[Tensor]

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Truth:
        """The truth of ``batch``, boxes on ``device``."""
        parts = [split(scene) for scene in batch.truth()]
        boxes = [boxes_of(objects).to(device) for objects, _ in parts]
        return cls([objects for objects, _ in parts], boxes, [regions.to(device) for _, regions in parts])


class TwoStage(nn.Module):
    """An RPN on a feature pyramid, and heads on RoIs.

    Args:
        backbone, neck, rpn, box_head, mask_head: the parts; the neck's levels have ``strides``.
        taxonomy: the C classes.
        strides: of the pyramid's levels, finest first; the RoI heads use all but the ``extra`` pooled one.
        anchor_sizes: side of each level's anchors in pixels. anchor_ratios: height over width.
        anchor_border: only anchors that reach less than this beyond the picture learn; ``None`` lets all learn.
        roi_levels: how many of the finest levels the RoI heads see.
        box_size, mask_size: RoIAlign's output sides; masks come out twice as large.
        pooling: RoIAlign's reduction over its sampled points, ``"mean"`` or ``"max"`` (Mask R-CNN, section 3).
        agnostic_mask: one mask for all classes (Mask R-CNN, section 4.2, class-specific vs. class-agnostic).
        agnostic_nms: detections of different classes suppress each other; the rule is NMS within a class.
        convention: a name in ``CONVENTIONS``.
        loss_weights: factors of the losses by name; missing ones are 1.
        betas: of the smooth L1 losses of anchors and RoIs; ``None`` is the convention's for both.
        rpn_batch, rpn_positive: anchors sampled an image for the RPN losses, and the largest share of positives.
        roi_batch, roi_positive: RoIs sampled an image, and the largest share of positives (0.25 is 1:3).
        roi_sampling: ``"random"``; ``"hard"`` for the RoIs whose classes cost most (OHEM, Shrivastava et al. 2016, at
            the set ratio); ``"focal"`` by chance in proportion to how wrong they are (``ops.sampling.sample_focal``).
        proposals_train, proposals_test: (before NMS per level, after NMS) RPN boxes.
        canonical_level: the pyramid level that sees RoIs of ``canonical_size`` pixels.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    first_losses: tuple[str, ...] = ("rpn_class", "rpn_box")
    first_parts: tuple[str, ...] = ("backbone", "neck", "rpn")
    first_only: tuple[str, ...] = ("rpn",)
    proposer: Proposer | None = None
    pixel_mean: Tensor
    pixel_std: Tensor
    pooling: Literal["mean", "max"]
    mask_loss: MaskLoss

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: nn.Module,
        mask_head: nn.Module,
        *,
        taxonomy: Taxonomy,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchor_border: float | None = None,
        roi_levels: int = 4,
        box_size: int = 7,
        mask_size: int = 14,
        pooling: Literal["mean", "max"] = "mean",
        agnostic_mask: bool = False,
        agnostic_nms: bool = False,
        convention: str = "detectron2",
        loss_weights: Mapping[str, float] | None = None,
        betas: tuple[float, float] | None = None,
        rpn_batch: int = 256,
        rpn_positive: float = 0.5,
        roi_batch: int = 512,
        roi_positive: float = 0.25,
        roi_sampling: Literal["random", "hard", "focal"] = "random",
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
        self.anchor_border = anchor_border
        self.cells = [cell_anchors((size,), anchor_ratios, self.convention.rounded_anchors) for size in anchor_sizes]
        if self.convention.inclusive:
            pairs = zip(self.strides, anchor_sizes, strict=True)
            self.cells = [legacy_cell_anchors(stride, size, anchor_ratios) for stride, size in pairs]
        self.box_size, self.mask_size, self.pooling = box_size, mask_size, pooling
        self.agnostic_mask, self.agnostic_nms = agnostic_mask, agnostic_nms
        self.loss_weights = dict(loss_weights or {})
        self.betas = betas or (self.convention.beta, self.convention.beta)
        self.rpn_batch, self.rpn_positive = rpn_batch, rpn_positive
        self.roi_batch, self.roi_positive, self.roi_sampling = roi_batch, roi_positive, roi_sampling
        self.proposals_train, self.proposals_test = proposals_train, proposals_test
        self.canonical = (canonical_size, canonical_level)
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss = mask_bce
        self.proposal_nms, self.nms_threshold = 0.7, 0.5
        self.score_threshold, self.max_per_image = 0.05, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

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
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        steps: list[tuple[int, int]] = [(s, s) for s in self.strides]
        if self.convention.rounded_anchors:
            steps = [(padded[0] // h, padded[1] // w) for h, w in sizes]
        return grid_anchors(sizes, steps, [cell.to(features[0].device) for cell in self.cells])

    def propose(
        self,
        objectness: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        inputs: Images,
        numbers: tuple[int, int],
    ) -> list[Tensor]:
        """Proposals [P, 4] of each image, or ``proposer``'s; ``numbers`` before NMS per level and after."""
        if self.proposer is not None:
            return self.proposer(inputs, numbers)
        return propose(
            objectness, deltas, anchors, inputs.sizes,
            pre_nms=numbers[0], post_nms=numbers[1], threshold=self.proposal_nms,
            min_size=self.convention.min_proposal, inclusive=self.convention.inclusive,
        )  # fmt: skip

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """RoIAlign [R, C, size, size] of each image's boxes on the level that fits them."""
        return multilevel_roi_align(
            features[: self.roi_levels], boxes, self.strides[: self.roi_levels], size,
            sampling_ratio=self.convention.sampling_ratio, aligned=self.convention.aligned,
            canonical=self.canonical[0], canonical_level=self.canonical[1],
            epsilon=self.convention.level_epsilon, epsilon_inside=self.convention.level_epsilon_inside,
            reduce=self.pooling, far_edge=float(self.convention.inclusive),
        )  # fmt: skip

    @torch.no_grad()
    def sample(self, features: Sequence[Tensor], image: int, proposals: Tensor, scene: Scene) -> Samples:
        """Draw RoIs of one image to learn from; the truth's own boxes are among the candidates."""
        objects, ignored = split(scene)
        candidates = label_rois(
            proposals, boxes_of(objects).to(proposals), objects.labels.to(proposals.device),
            ignored.to(proposals), background=len(self.taxonomy), claims=self.convention.claims,
        )  # fmt: skip
        return self.drawn(candidates, features, image, self.box_head)

    def drawn(self, candidates: Samples, features: Sequence[Tensor], image: int, head: nn.Module) -> Samples:
        """Of one image's candidates those to learn from; ``roi_sampling`` may ask what ``head`` makes of them."""
        losses = None
        if self.roi_sampling in ("hard", "focal"):
            one = [feature[image : image + 1] for feature in features]
            with evaluating(head, {}):  # running statistics are of what is learned from, not of all candidates
                logits, _ = head(self.pool(one, [candidates.boxes], self.box_size))
            losses = nn.functional.cross_entropy(logits.float(), candidates.labels, reduction="none")
        return candidates.draw(self.roi_batch, self.roi_positive, losses, focal=self.roi_sampling == "focal")

    def detect(
        self,
        proposals: Sequence[Tensor],
        logits: Tensor,
        deltas: Tensor,
        inputs: Images,
        *,
        weights: tuple[float, float, float, float] = BOX_WEIGHTS,
    ) -> list[Detections]:
        """Boxes above ``score_threshold``, after NMS (in each class unless agnostic), at most ``max_per_image``."""
        return detect(
            proposals, logits, deltas, inputs.sizes,
            box_weights=weights, score_threshold=self.score_threshold, nms_threshold=self.nms_threshold,
            limit=self.max_per_image, min_size=self.convention.min_detection, agnostic=self.agnostic_nms,
            inclusive=self.convention.inclusive,
        )  # fmt: skip

    # ---- loss ---------------------------------------------------------------------------------------------------

    def weighted(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each loss over what it counts, times its weight."""
        return {name: sums[name] / counts[name].clamp(min=1) * self.loss_weights.get(name, 1.0) for name in sums}

    def five_sums(self, raw: SingleHeads, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's losses, each times its count: rpn_class, rpn_box, class, box, mask."""
        if raw.samples is None:
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        truth = Truth.of(batch, raw.class_logits.device)
        rpn_class, rpn_box = self.rpn_sums(raw, truth, batch.inputs)
        labels = torch.cat([s.labels for s in raw.samples])
        return {
            "rpn_class": rpn_class,
            "rpn_box": rpn_box,
            "class": cross_entropy_sum(raw.class_logits, labels),
            "box": self.box_sum(raw.samples, raw.box_deltas, truth),
            "mask": self.mask_sum(raw.samples, raw.mask_logits, truth),
        }

    def five_counts(self, raw: SingleHeads, batch: Batch) -> dict[str, Tensor]:
        """What the five losses are means over."""
        rois = sum(len(s.labels) for s in raw.samples or [])
        anchors, positive = self.anchors_counted(raw, batch), len(raw.mask_logits)
        counts = {"rpn_class": anchors, "rpn_box": anchors, "class": rois, "box": rois, "mask": positive}
        return {name: raw.class_logits.new_tensor(float(count)) for name, count in counts.items()}

    def anchors_counted(self, raw: FirstStage, batch: Batch) -> int:
        """What the RPN's losses are divided by."""
        if self.convention.sampled_denominator and raw.anchors_sampled is not None:
            return raw.anchors_sampled
        return self.rpn_batch * len(batch)

    def rpn_sums(self, raw: FirstStage, truth: Truth, inputs: Images) -> tuple[Tensor, Tensor]:
        """Sums of L_rpn_class and L_rpn_box over the sampled anchors."""
        more = int(self.convention.inclusive)
        sizes = [(height + more, width + more) for height, width in inputs.sizes]
        class_sum, box_sum, raw.anchors_sampled = rpn_losses(
            raw.objectness, raw.deltas, raw.anchors, truth.boxes, truth.ignored,
            count=self.rpn_batch, positive_fraction=self.rpn_positive, beta=self.betas[0],
            inside=None if self.anchor_border is None else sizes, border=self.anchor_border or 0.0,
            claims=self.convention.claims,
        )  # fmt: skip
        return class_sum, box_sum

    def box_sum(
        self,
        samples: Sequence[Samples],
        box_deltas: Tensor,
        truth: Truth,
        weights: tuple[float, float, float, float] = BOX_WEIGHTS,
    ) -> Tensor:
        """Sum of L_box over the positive RoIs, on the true class's box only."""
        labels = torch.cat([s.labels for s in samples])
        positive = torch.nonzero(labels < len(self.taxonomy)).flatten()
        boxes = torch.cat([s.boxes for s in samples])[positive]
        goals = [t[s.matched] if len(t) else s.boxes for s, t in zip(samples, truth.boxes, strict=True)]
        goal = box_ops.encode(torch.cat(goals)[positive], boxes, weights)
        deltas = box_deltas.reshape(len(labels), -1, 4)
        column = labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        return smooth_l1_sum(deltas[positive, column].float(), goal, self.betas[1]) + box_deltas.sum() * 0.0

    def mask_sum(self, samples: Sequence[Samples], mask_logits: Tensor, truth: Truth) -> Tensor:
        """The mask loss of the positive RoIs' maps [M, C, m, m], of the true class's one, times M."""
        labels = torch.cat([s.labels for s in samples])
        targets = self.mask_targets(samples, truth, mask_logits.shape[-1])
        logits = self.chosen(mask_logits, labels[labels < len(self.taxonomy)])
        return (self.mask_loss(logits.float(), targets) + mask_logits.sum() * 0.0) * len(mask_logits)

    def mask_targets(self, samples: Sequence[Samples], truth: Truth, side: int) -> Tensor:
        """The truth's masks [M, side, side] through the positive RoIs of all images."""
        convention, targets = self.convention, list[Tensor]()
        for sample, objects in zip(samples, truth.objects, strict=True):
            positive = sample.labels < len(self.taxonomy)
            masks = masks_of(objects)[sample.matched[positive].cpu()]
            aligned = convention.aligned or convention.inclusive
            target = masks.crop(sample.boxes[positive].float(), side, aligned=aligned)
            targets.append((target >= 0.5).float() if convention.hard_mask_targets else target)
        return torch.cat(targets)

    def chosen(self, mask_logits: Tensor, labels: Tensor) -> Tensor:
        """Of maps [M, C, m, m] those of the classes ``labels`` [M], or the only one: [M, m, m]."""
        column = torch.zeros_like(labels) if self.agnostic_mask else labels
        # not len(): while exporting it is a symbol
        return mask_logits[torch.arange(column.shape[0], device=column.device), column]

    # ---- the first stage alone ----------------------------------------------------------------------------------

    def first_stage(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The RPN's losses as ``loss`` gives them, and what they are means over; no RoI is looked at."""
        features, objectness, deltas = self.dense(batch.inputs)
        raw = DenseRaw(objectness, deltas, self.anchors(features, batch.inputs.pixels.shape[-2:]))
        sums = self.rpn_sums(raw, Truth.of(batch, features[0].device), batch.inputs)
        count = features[0].new_tensor(float(self.anchors_counted(raw, batch)))
        counts = dict.fromkeys(self.first_losses, count)
        return self.weighted(dict(zip(counts, sums, strict=True)), counts), counts

    def proposals(self, inputs: Images, numbers: tuple[int, int]) -> list[Tensor]:
        """What the RPN proposes, boxes [P, 4] of each image by falling score; ``numbers`` as ``propose`` takes them."""
        features, objectness, deltas = self.dense(inputs)
        return self.propose(objectness, deltas, self.anchors(features, inputs.pixels.shape[-2:]), inputs, numbers)

    # ---- predict ------------------------------------------------------------------------------------------------

    def scene(self, found: Detections, probs: Tensor, view: Geometry, scores: Tensor | None = None) -> Scene:
        """One picture's detections in file pixels: boxes scaled and clipped, masks pasted straight to run-lengths.

        Args:
            found: N detections. probs: their masks [N, m, m] in [0, 1].
            scores: instead of theirs, [N]; the objects are then sorted anew.
        """
        draw = paste_expanded if self.convention.expanded_paste else paste
        factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
        # an inclusive far edge is scaled as it is (maskrcnn-benchmark), and made exclusive again in the file's pixels
        edge = found.boxes.new_tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float32) * float(self.convention.inclusive)
        boxes = (found.boxes.float() - edge) / factor
        places, boxes = box_ops.clip(boxes, view.original).cpu(), box_ops.clip(boxes + edge, view.original).cpu()
        probs, values = probs.float().cpu(), (found.scores if scores is None else scores).float().cpu()
        keep = torch.nonzero(box_ops.nonempty(boxes)).flatten()
        if scores is not None:
            keep = keep[values[keep].argsort(descending=True, stable=True)]
        counts, offsets = draw(probs[keep], places[keep], view.original)
        segments = Segments(
            size=view.original,
            labels=found.labels.cpu()[keep],
            masks=Masks.from_arrays(counts, offsets, view.original),
            boxes=boxes[keep],
            scores=values[keep].clamp(0, 1),
        )
        return Scene(size=view.original, segments=segments)


# ---- scenes ---------------------------------------------------------------------------------------------------------


def split(scene: Scene) -> tuple[Segments, Tensor]:
    """Objects to learn, and boxes [I, 4] of crowds and regions to ignore, which make no negative."""
    objects = scene.objects()
    crowd = objects.crowd if objects.crowd is not None else torch.zeros(len(objects), dtype=torch.bool)
    ignored = boxes_of(objects[crowd]) if bool(crowd.any()) else torch.zeros(0, 4)
    if scene.ignore is not None:
        ignored = torch.cat([ignored.cpu(), scene.ignore.boxes()])
    return objects[~crowd], ignored


# ---- building -------------------------------------------------------------------------------------------------------


def resnet(
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    stride_in_1x1: bool = False,
    pretrained: bool = False,
    zero_init: bool | None = None,
    out_indices: tuple[int, ...] = (1, 2, 3, 4),
    **options: Any,
) -> tuple[TimmBackbone, dict[str, Any]]:
    """A backbone from a family's options, and the options that are left."""
    backbone = TimmBackbone(
        body, out_indices=out_indices, norm=norm, frozen_stages=frozen_stages,
        stride_in_1x1=stride_in_1x1, pretrained=pretrained, zero_init=zero_init,
    )  # fmt: skip
    return backbone, options
