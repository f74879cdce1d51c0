"""What panoptic families with two stages share: a detector of things and a head that classifies every pixel.

The taxonomy holds things and stuff. The detector counts things only; the semantic head counts classes of its own, which
``SemanticClasses`` translates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.panoptic import semantic_target, thing_labels, thing_taxonomy, things_only
from maskwright.models.parts.two_stage import TwoStage, resnet
from maskwright.nn.heads.roi_box import BoxHead, Detections
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.nn.heads.rpn import RPNHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.ops.query_maps import Resampling, largest
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy


@dataclass(slots=True)
class PanopticRaw:
    """Mask R-CNN's tensors for things, and the semantic logits [B, K, h, w] at the finest level."""

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]
    class_logits: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    semantic_logits: Tensor
    samples: list[Samples] | None = None
    detections: list[Detections] | None = None
    anchors_sampled: int | None = None


@dataclass(frozen=True, slots=True)
class SemanticClasses:
    """The K classes of a semantic head, and those of the taxonomy.

    Attributes:
        of_class: for each class of the taxonomy the head's. to_class: for each of the head's the taxonomy's, -1 for
            all things together.
    """

    of_class: tuple[int, ...]
    to_class: tuple[int, ...]

    @classmethod
    def of(cls, taxonomy: Taxonomy, merge_things: bool) -> SemanticClasses:
        """The taxonomy's own classes; with ``merge_things`` all things are the head's class 0, stuff follows."""
        if not merge_things:
            same = tuple(range(len(taxonomy)))
            return cls(same, same)
        stuff = [label for label, thing in enumerate(taxonomy.thing) if not thing]
        place = {label: 1 + i for i, label in enumerate(stuff)}
        return cls(tuple(place.get(label, 0) for label in range(len(taxonomy))), (-1, *stuff))

    def __len__(self) -> int:
        return len(self.to_class)


def _of_detector(name: str) -> Any:
    """An attribute that is the detector's."""

    def get(self: PanopticTwoStage) -> Any:
        return getattr(self.detector, name)

    def put(self: PanopticTwoStage, value: Any) -> None:
        setattr(self.detector, name, value)

    return property(get, put)


class PanopticTwoStage(nn.Module):
    """A detector of things and a semantic head on one pyramid.

    Args:
        detector: of the taxonomy's things (one that nothing trains, if there are none).
        semantic_head: pyramid levels, finest first, to logits [B, K, h, w] at the finest one.
        taxonomy: things and stuff.
        merge_things: the semantic head tells all things apart from stuff, not from each other.

    The numbers of the detector (``score_threshold``, ``max_per_image``, ``mask_loss`` …) are attributes here too.
    """

    size_divisor = 32
    task = "panoptic"
    score_threshold, max_per_image = _of_detector("score_threshold"), _of_detector("max_per_image")
    mask_loss, resize = _of_detector("mask_loss"), _of_detector("resize")
    nms_threshold, proposal_nms = _of_detector("nms_threshold"), _of_detector("proposal_nms")
    rpn_batch, roi_batch = _of_detector("rpn_batch"), _of_detector("roi_batch")
    loss_weights, proposer = _of_detector("loss_weights"), _of_detector("proposer")
    first_losses, proposals_test = _of_detector("first_losses"), _of_detector("proposals_test")
    first_parts, first_only = _of_detector("first_parts"), _of_detector("first_only")

    def __init__(self, detector: TwoStage, semantic_head: nn.Module, *, taxonomy: Taxonomy, merge_things: bool) -> None:
        super().__init__()
        self.detector, self.semantic_head = detector, semantic_head
        self.taxonomy = taxonomy
        self.semantic_classes = SemanticClasses.of(taxonomy, merge_things)
        self.thing_labels = torch.tensor(thing_labels(taxonomy), dtype=torch.int64)

    # ---- forward ------------------------------------------------------------------------------------------------

    def run(self, inputs: Images, scenes: Sequence[Scene] | None) -> tuple[PanopticRaw, list[Tensor]]:
        """The tensors of ``PanopticRaw`` and the pyramid; masks of sampled RoIs with ``scenes``, else of detections."""
        detector = self.detector
        features, objectness, deltas = detector.dense(inputs)
        anchors = detector.anchors(features, inputs.pixels.shape[-2:])
        numbers = detector.proposals_test if scenes is None else detector.proposals_train
        proposals = detector.propose(objectness, deltas, anchors, inputs, numbers)
        semantic = self.semantic_head(features)
        samples: list[Samples] | None = None
        found: list[Detections] | None = None
        if scenes is None:
            logits, boxes = detector.box_head(detector.pool(features, proposals, detector.box_size))
            found = detector.detect(proposals, logits, boxes, inputs)
            if len(self.thing_labels) == 0:  # what the untrained class finds is nothing
                found = [Detections(d.boxes[:0], d.scores[:0], d.labels[:0]) for d in found]
            rois = [d.boxes for d in found]
        else:
            things = [things_only(scene, self.taxonomy) for scene in scenes]
            samples = [
                detector.sample(features, *each) for each in zip(range(len(things)), proposals, things, strict=True)
            ]
            logits, boxes = detector.box_head(detector.pool(features, [s.boxes for s in samples], detector.box_size))
            rois = [s.boxes[s.labels < len(detector.taxonomy)] for s in samples]
        masks = detector.mask_head(detector.pool(features, rois, detector.mask_size))
        raw = PanopticRaw(objectness, deltas, anchors, proposals, logits, boxes, masks, semantic, samples, found)
        return raw, features

    # ---- loss ---------------------------------------------------------------------------------------------------

    def things(self, batch: Batch) -> Batch:
        """The batch with things only, counted as the detector counts them."""
        scenes = tuple(things_only(scene, self.taxonomy) for scene in batch.truth())
        return Batch(inputs=batch.inputs, scenes=scenes, keys=batch.keys)

    def first_stage(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of the detector's RPN, and what they are means over."""
        return self.detector.first_stage(self.things(batch))

    def proposals(self, inputs: Images, numbers: tuple[int, int]) -> list[Tensor]:
        """What the detector's RPN proposes, boxes [P, 4] of each image."""
        return self.detector.proposals(inputs, numbers)

    def semantic_truth(self, batch: Batch, device: torch.device) -> Tensor:
        """The semantic head's class of each pixel, int64 [B, H, W] on the padded pictures, -1 where void."""
        return semantic_target(batch, batch.inputs.pixels.shape[-2:], device, self.semantic_classes.of_class)

    # ---- predict ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def instances(self, raw: PanopticRaw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Things as the detector finds them, in file pixels, their masks overlapping; labels are the taxonomy's."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        maps = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        scenes = [
            self.detector.scene(found, self.detector.chosen(m, found.labels).float().sigmoid(), view)
            for found, m, view in zip(raw.detections, maps, geometry, strict=True)
        ]
        return [self.in_taxonomy(scene) for scene in scenes]

    def in_taxonomy(self, scene: Scene) -> Scene:
        """A scene of the detector with the taxonomy's labels."""
        objects = scene.objects()
        return replace(scene, segments=replace(objects, labels=self.thing_labels[objects.labels]))

    def likeliest(self, logits: Tensor, view: Geometry) -> Tensor:
        """Of logits [K, h, w] the class at each pixel of the file, int64 [H, W] on the host, -1 for merged things."""
        stride = self.detector.strides[0]
        cells = (logits.shape[-2], logits.shape[-1])
        way = Resampling.chained(cells, (cells[0] * stride, cells[1] * stride), view.valid, view.original)
        owner, _ = largest(logits.float(), way)
        return torch.tensor(self.semantic_classes.to_class)[owner.cpu().long()]

    def class_scores(self, logits: Tensor, view: Geometry) -> Tensor:
        """How sure each class of the taxonomy is, float32 [C] on the host: its mean probability where it is likeliest.

        At the cells of the logits [K, h, w] that show the picture; the largest probability where it is so nowhere.
        """
        stride = self.detector.strides[0]
        shown = logits[:, : -(-view.valid[0] // stride), : -(-view.valid[1] // stride)].float().softmax(0)
        best, owner = shown.flatten(1).max(0)
        count = torch.bincount(owner, minlength=len(shown))
        mean = torch.bincount(owner, best, minlength=len(shown)) / count.clamp(min=1)
        scores = torch.where(count > 0, mean, shown.flatten(1).amax(1)).float().cpu()
        return scores[torch.tensor(self.semantic_classes.of_class)]


# ---- building -------------------------------------------------------------------------------------------------------


def thing_detector(
    taxonomy: Taxonomy,
    body: str,
    *,
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
    score_threshold: float = 0.5,
    max_per_image: int = 100,
    loss_weights: Mapping[str, float] | None = None,
    **options: Any,
) -> TwoStage:
    """Mask R-CNN's parts for the things of a taxonomy; without any, for one class that nothing trains."""
    backbone, options = resnet(body, **options)
    things = thing_taxonomy(taxonomy) if any(taxonomy.thing) else Taxonomy(names=("thing",))
    classes = len(things)
    detector = TwoStage(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box),
        MaskHead(channels, 1 if agnostic_mask else classes, width=mask_width, depth=mask_depth, norm=head_norm),
        taxonomy=things,
        box_size=box_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        loss_weights=loss_weights,
        **options,
    )
    detector.score_threshold, detector.max_per_image = score_threshold, max_per_image
    return detector
