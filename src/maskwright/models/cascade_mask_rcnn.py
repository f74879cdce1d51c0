"""Cascade Mask R-CNN: Cai & Vasconcelos, "Cascade R-CNN: High Quality Object Detection and Instance Segmentation",
TPAMI 2019 (arXiv:1906.09756); its part on boxes is CVPR 2018 (arXiv:1712.00726).

Three box heads in a row, each on the boxes of the one before and trained against a higher overlap (0.5, 0.6, 0.7), so
that every head sees boxes as good as it is meant to make better (sections 4.1 and 4.2); each stage has a mask head too
(section 5, figure 6 d). At inference the three heads' class scores and the three masks are averaged.

Differences: mmdetection, the default here, draws RoIs anew at each stage, with the truth's boxes among them, and
averages class logits; detectron2 keeps the first stage's RoIs, averages probabilities (``average="probabilities"``) and
has one mask head, behind the last stage (``mask_stages=(2,)``).

Weights: an importer for mmdetection's checkpoints (Apache-2.0).

    tensor        meaning                                        shape
    pixels        RGB, 0..255                                    [B, 3, H, W]
    objectness    one map a level, A anchors a cell              [B, A, H/s, W/s]
    proposals     one tensor an image                            [P, 4]
    class_logits  a stage, R boxes, background last              [R, C + 1]
    box_deltas    a stage, one box for all classes               [R, 4]
    mask_logits   a stage with a mask head, m = 28               [M, C, m, m]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.truth import boxes_of
from maskwright.models.parts.two_stage import Truth, TwoStage, resnet, split
from maskwright.nn.heads.roi_box import BoxHead, Detections
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.heads.roi_sampling import Samples, label_rois
from maskwright.nn.heads.rpn import RPNHead, clip
from maskwright.nn.losses import cross_entropy_sum
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.ops import boxes as box_ops
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy

Weights = tuple[float, float, float, float]
STAGE_WEIGHTS: tuple[Weights, ...] = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067),
)
"""What each stage's deltas are multiplied by: the better the boxes, the smaller the deltas (section 4.3)."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``samples`` of each stage with scenes, ``detections`` without.

    Without scenes, ``boxes`` are what the last stage's deltas refer to, and ``mask_logits`` those of the detections.
    """

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]
    class_logits: list[Tensor]
    box_deltas: list[Tensor]
    mask_logits: list[Tensor]
    samples: list[list[Samples]] | None = None
    boxes: list[Tensor] | None = None
    detections: list[Detections] | None = None
    anchors_sampled: int | None = None


class CascadeMaskRCNN(TwoStage):
    """Cascade Mask R-CNN on built parts.

    Args:
        backbone, neck, rpn: the parts.
        box_head: one ``BoxHead`` a stage, class-agnostic in its boxes.
        mask_head: one ``MaskHead`` for each of ``mask_stages``.
        mask_stages: stages whose positive RoIs train a mask head (section 5.2); all heads are averaged at inference.
        overlaps: IoU from which a RoI is positive, a stage each (section 4.2).
        stage_weights: box coder weights, a stage each. stage_loss_weights: factors of each stage's losses.
        average: whether class logits or probabilities of the stages are averaged.
        options: as ``TwoStage``'s.
    """

    box_head: nn.ModuleList
    mask_head: nn.ModuleList

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: nn.ModuleList,
        mask_head: nn.ModuleList,
        *,
        mask_stages: Sequence[int] = (0, 1, 2),
        overlaps: Sequence[float] = (0.5, 0.6, 0.7),
        stage_weights: Sequence[Weights] = STAGE_WEIGHTS,
        stage_loss_weights: Sequence[float] = (1.0, 0.5, 0.25),
        average: Literal["logits", "probabilities"] = "logits",
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, rpn, box_head, mask_head, **options)
        stages = len(box_head)
        if not len(overlaps) == len(stage_weights) == len(stage_loss_weights) == stages:
            raise ValueError(f"overlaps, stage_weights and stage_loss_weights must have {stages} entries, one a stage")
        self.mask_stages, self.overlaps = tuple(mask_stages), tuple(overlaps)
        self.stage_weights, self.stage_loss_weights = tuple(stage_weights), tuple(stage_loss_weights)
        self.average = average
        layers = [f"box_head.{i}.{name}" for i in range(stages) for name in ("class_logits", "box_deltas")]
        self.class_layers = (*layers, *(f"mask_head.{i}.predictor" for i in range(len(mask_head))))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Proposals, and each stage's heads on sampled RoIs (with ``scenes``) or on the boxes so far (without)."""
        features, objectness, deltas = self.dense(inputs)
        anchors = self.anchors(features, inputs.pixels.shape[-2:])
        numbers = self.proposals_test if scenes is None else self.proposals_train
        raw = Raw(objectness, deltas, anchors, self.propose(objectness, deltas, anchors, inputs, numbers), [], [], [])
        if scenes is not None:
            self._stages_to_learn(raw, features, inputs, scenes)
            return raw
        boxes = raw.proposals
        for stage, head in enumerate(self.box_head):
            boxes = boxes if stage == 0 else self._refined(raw, boxes, inputs)
            logits, moves = head(self.pool(features, boxes, self.box_size))
            raw.class_logits.append(logits)
            raw.box_deltas.append(moves)
        raw.boxes = boxes
        raw.detections = self.detect(
            boxes, self.averaged(raw.class_logits), raw.box_deltas[-1], inputs,
            weights=self.stage_weights[-1],
        )  # fmt: skip
        pooled = self.pool(features, [found.boxes for found in raw.detections], self.mask_size)
        raw.mask_logits = [head(pooled) for head in self.mask_head]
        return raw

    def _stages_to_learn(self, raw: Raw, features: Sequence[Tensor], inputs: Images, scenes: Sequence[Scene]) -> None:
        """Each stage on RoIs drawn from what the stage before made of its own, without the truth's boxes in these."""
        raw.samples, boxes = [], raw.proposals
        for stage, head in enumerate(self.box_head):
            if stage:
                refined = self._refined(raw, boxes, inputs)
                boxes = [b[~s.given] for b, s in zip(refined, raw.samples[-1], strict=True) if s.given is not None]
            each = zip(range(len(scenes)), boxes, scenes, strict=True)
            raw.samples.append([self.sample(features, *image, stage=stage) for image in each])
            boxes = [s.boxes for s in raw.samples[-1]]
            logits, moves = head(self.pool(features, boxes, self.box_size))
            raw.class_logits.append(logits)
            raw.box_deltas.append(moves)
            if stage in self.mask_stages:
                positive = [s.boxes[s.labels < len(self.taxonomy)] for s in raw.samples[-1]]
                mask_head = self.mask_head[self.mask_stages.index(stage)]
                raw.mask_logits.append(mask_head(self.pool(features, positive, self.mask_size)))

    @torch.no_grad()
    def _refined(self, raw: Raw, boxes: Sequence[Tensor], inputs: Images) -> list[Tensor]:
        """Boxes [R, 4] of each image moved by the latest stage, for the likeliest class where it has one box each."""
        logits, moves = raw.class_logits[-1], raw.box_deltas[-1]
        weights = self.stage_weights[len(raw.box_deltas) - 1]
        moved = box_ops.decode(moves, torch.cat(list(boxes)), weights).unflatten(1, (-1, 4))
        if moved.shape[1] > 1:
            label = logits[:, :-1].argmax(1)
            moved = moved.gather(1, label[:, None, None].expand(-1, 1, 4))
        parts = moved[:, 0].split([b.shape[0] for b in boxes])
        inclusive = self.convention.inclusive
        return [clip(part, size, inclusive) for part, size in zip(parts, inputs.sizes, strict=True)]

    @torch.no_grad()
    def sample(
        self, features: Sequence[Tensor], image: int, proposals: Tensor, scene: Scene, stage: int = 0
    ) -> Samples:
        """Draw RoIs of one image for ``stage``; the truth's own boxes are among the candidates."""
        objects, ignored = split(scene)
        candidates = label_rois(
            proposals, boxes_of(objects).to(proposals), objects.labels.to(proposals.device),
            ignored.to(proposals), background=len(self.taxonomy), threshold=self.overlaps[stage],
        )  # fmt: skip
        return self.drawn(candidates, features, image, self.box_head[stage])

    def averaged(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits [R, C + 1] whose softmax is what the stages say together."""
        if self.average == "logits":
            return torch.stack(list(logits)).mean(0)
        return torch.stack([each.float().softmax(-1) for each in logits]).mean(0).log()

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_rpn_class, L_rpn_box, and L_class, L_box, L_mask of each stage (``class_0`` …), times its factor."""
        if raw.samples is None:
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        truth = Truth.of(batch, raw.objectness[0].device)
        rpn_class, rpn_box = self.rpn_sums(raw, truth, batch.inputs)
        counts = self.loss_counts(raw, batch)
        sums = {"rpn_class": rpn_class, "rpn_box": rpn_box}
        for stage, samples in enumerate(raw.samples):
            factor, labels = self.stage_loss_weights[stage], torch.cat([s.labels for s in samples])
            box = self.box_sum(samples, raw.box_deltas[stage], truth, self.stage_weights[stage])
            sums[f"class_{stage}"] = cross_entropy_sum(raw.class_logits[stage], labels) * factor
            sums[f"box_{stage}"] = box * factor
            if stage in self.mask_stages:
                maps = raw.mask_logits[self.mask_stages.index(stage)]
                sums[f"mask_{stage}"] = self.mask_sum(samples, maps, truth) * factor
        return self.weighted(sums, counts)

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        anchors = self.anchors_counted(raw, batch)
        counts = {"rpn_class": anchors, "rpn_box": anchors}
        for stage, samples in enumerate(raw.samples or []):
            rois = sum(len(s.labels) for s in samples)
            counts |= {f"class_{stage}": rois, f"box_{stage}": rois}
            if stage in self.mask_stages:
                counts[f"mask_{stage}"] = len(raw.mask_logits[self.mask_stages.index(stage)])
        return {name: raw.objectness[0].new_tensor(float(count)) for name, count in counts.items()}

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: the mean of the stages' masks of each detection's class."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        labels = torch.cat([found.labels for found in raw.detections])
        stages = [self.chosen(maps, labels).float().sigmoid() for maps in raw.mask_logits]
        probs = torch.stack(stages).mean(0).split([len(found.labels) for found in raw.detections])
        each = zip(raw.detections, probs, geometry, strict=True)
        return [self.scene(found, maps, view) for found, maps, view in each]


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    extra: int = 1,
    neck_norm: NormName = None,
    rpn_depth: int = 1,
    stages: int = 3,
    box_head: Literal["fc2", "conv4_fc1"] = "fc2",
    box_hidden: int = 1024,
    agnostic_box: bool = True,
    head_norm: NormName = None,
    mask_stages: Sequence[int] = (0, 1, 2),
    mask_width: int = 256,
    mask_depth: int = 4,
    box_size: int = 7,
    agnostic_mask: bool = False,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    anchor_border: float | None = 0.0,
    convention: str = "mmdetection",
    betas: tuple[float, float] = (1 / 9, 1.0),
    proposals_train: tuple[int, int] = (2000, 2000),
    **options: Any,
) -> CascadeMaskRCNN:
    backbone, options = resnet(body, **options)
    classes, maps = len(taxonomy), 1 if agnostic_mask else len(taxonomy)
    heads = [
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box)
        for _ in range(stages)
    ]
    masks = [MaskHead(channels, maps, width=mask_width, depth=mask_depth, norm=head_norm) for _ in mask_stages]
    return CascadeMaskRCNN(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        nn.ModuleList(heads),
        nn.ModuleList(masks),
        mask_stages=mask_stages,
        taxonomy=taxonomy,
        box_size=box_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        anchor_border=anchor_border,
        convention=convention,
        betas=betas,
        proposals_train=proposals_train,
        **options,
    )


def cascade_mask_rcnn_r50(taxonomy: Taxonomy, **options: Any) -> CascadeMaskRCNN:
    """ResNet-50, FPN 256, three stages at overlaps of 0.5, 0.6 and 0.7, a mask head each."""
    return _build(taxonomy, **{"body": "resnet50", **options})
