"""UPSNet: Xiong, Liao, Zhao, Hu, Bai, Yumer, Urtasun, "UPSNet: A Unified Panoptic Segmentation Network", CVPR 2019
(arXiv:1901.03784).

Mask R-CNN finds things and a head of deformable convolutions, shared by the levels of one pyramid, classifies every
pixel, things by name (section 3.2). A panoptic head without parameters lets stuff and instances compete for each pixel:
an instance's logit is its mask's plus the semantic one of its class within its box; a further, unknown class wins where
things are seen that no instance claims (section 3.3). It is trained too: its loss reaches both heads.

Written from the paper, and equal to what the original panoptic head, pruning and semantic head give on recorded
inputs. Differences: RoIs and proposals follow detectron2's
conventions (``convention="maskrcnn-benchmark"`` has the pixel-inclusive boxes of the time); the RoI loss samples the
truth at the cells' centers; at most ``panoptic_limit`` objects enter the panoptic loss, the largest, the rest being
unknown; stuff has the mean probability of its class as its score.

Weights: none are imported; the authors' are for non-commercial use.

    tensor           meaning                                      shape
    pixels           RGB, 0..255                                  [B, 3, H, W]
    class_logits     R boxes of all images, background last       [R, T + 1]
    mask_logits      M boxes of all images                        [M, T, 28, 28]
    semantic_logits  all classes of the taxonomy                  [B, C, H/4, W/4]
    truth_logits     masks of G true objects, of their classes    [G, 28, 28]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.parts.panoptic import fused_scene, semantic_of, things_only
from maskwright.models.parts.panoptic_two_stage import PanopticRaw, PanopticTwoStage, thing_detector
from maskwright.models.parts.truth import boxes_of
from maskwright.models.parts.two_stage import TwoStage, split
from maskwright.nn.heads.roi_box import Detections
from maskwright.nn.heads.semantic_fpn import pixel_cross_entropy
from maskwright.nn.heads.upsnet import DeformableSemanticHead, Placed, panoptic_logits
from maskwright.nn.norm import NormName
from maskwright.ops import rle
from maskwright.ops.panoptic import from_map, prune
from maskwright.ops.query_maps import Resampling
from maskwright.ops.rle_maps import paint_map
from maskwright.ops.roi import multilevel_roi_align
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy

_VALUES = 1 << 22
"""How many logits a part of a picture has at most."""


@dataclass(slots=True)
class Claimed:
    """The true objects of one picture that the panoptic head is trained with.

    Attributes:
        boxes: [G, 4]. labels: int64 [G], among things.
        target: int64 [h, w] at the finest level: stuff in its order, then the G objects, then unknown; -1 where void.
    """

    boxes: Tensor
    labels: Tensor
    target: Tensor


@dataclass(slots=True)
class Raw(PanopticRaw):
    """``PanopticRaw`` and, with scenes, the masks of true objects."""

    truth_logits: Tensor | None = None
    claimed: list[Claimed] | None = None


class UPSNet(PanopticTwoStage):
    """UPSNet on built parts.

    Args:
        detector, semantic_head, taxonomy: as ``PanopticTwoStage``'s; the semantic head tells all classes apart.
        overlap: a mask disappears if more than this share of it lies on better ones of its class (section 3.4).
        stuff_area: stuff with fewer pixels of the file than this becomes void.
        unknown: the share of true objects that training takes for unknown (section 3.4).
        panoptic_limit: so many true objects a picture enter the panoptic loss at most.
        roi_size: side of the crops of the RoI loss (section 3.4).
    """

    def __init__(
        self,
        detector: TwoStage,
        semantic_head: nn.Module,
        *,
        taxonomy: Taxonomy,
        overlap: float = 0.3,
        stuff_area: int = 4096,
        unknown: float = 0.3,
        panoptic_limit: int = 100,
        roi_size: int = 28,
    ) -> None:
        super().__init__(detector, semantic_head, taxonomy=taxonomy, merge_things=False)
        self.overlap, self.stuff_area = overlap, stuff_area
        self.unknown, self.panoptic_limit, self.roi_size = unknown, panoptic_limit, roi_size
        self.stuff_labels = torch.tensor([i for i, thing in enumerate(taxonomy.thing) if not thing], dtype=torch.int64)

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """All heads; with ``scenes`` the mask head on true boxes too."""
        plain, features = self.run(inputs, scenes)
        raw = Raw(**{each.name: getattr(plain, each.name) for each in fields(plain)})
        if scenes is None:
            return raw
        size = (raw.semantic_logits.shape[-2], raw.semantic_logits.shape[-1])
        raw.claimed = [self._claim(scene, size, raw.semantic_logits.device) for scene in scenes]
        logits = self.detector.mask_head(
            self.detector.pool(features, [c.boxes for c in raw.claimed], self.detector.mask_size)
        )
        raw.truth_logits = self.detector.chosen(logits, torch.cat([c.labels for c in raw.claimed]))
        return raw

    @torch.no_grad()
    def _claim(self, scene: Scene, size: tuple[int, int], device: torch.device) -> Claimed:
        """Which true objects are known, and whose each cell is; by chance some are unknown."""
        stride, count = self.detector.strides[0], len(self.stuff_labels)
        objects, _ = split(things_only(scene, self.taxonomy))
        boxes = boxes_of(objects).to(device)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1).cpu()
        kept = torch.randperm(len(objects))[: len(objects) - int(self.unknown * len(objects))]
        kept = kept[area[kept].argsort(descending=True, stable=True)][: self.panoptic_limit]
        place = torch.full((len(objects) + 1,), count + len(kept))
        place[kept] = torch.arange(count, count + len(kept))
        if objects.masks is None:
            raise ValueError("UPSNet learns from masks, but a scene has none; give masks or another objective")
        order = objects.masks.area().argsort(descending=True, stable=True)  # smaller ones on top
        masks = objects.masks[order]
        drawn = paint_map(masks.counts.numpy(), masks.offsets.numpy(), scene.size, place[order].numpy(), background=-1)
        name = torch.full((len(self.taxonomy) + 1,), -1)  # of pixels of things without an object, too
        name[self.stuff_labels] = torch.arange(count)
        semantic, own = semantic_of(scene), torch.from_numpy(drawn)
        target = torch.where((semantic >= 0) & (own >= 0), own, name[semantic])
        cells = torch.full(size, -1)
        small = target[::stride, ::stride]
        cells[: small.shape[0], : small.shape[1]] = small
        return Claimed(
            boxes[kept.to(device)], objects.labels[kept.to(objects.labels.device)].to(device), cells.to(device)
        )

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's five losses, that of all pixels, that of pixels in objects' boxes, and the panoptic one."""
        sums = self.detector.five_sums(raw, self.things(batch))
        target = self.semantic_truth(batch, raw.semantic_logits.device)
        sums["semantic"], _ = pixel_cross_entropy(raw.semantic_logits, target)
        sums["semantic_roi"], _ = self._in_boxes(raw, target)
        sums["panoptic"] = self._panoptic_sum(raw)
        return self.detector.weighted(sums, self.loss_counts(raw, batch))

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; the panoptic one counts void cells too, as the original does."""
        target = self.semantic_truth(batch, raw.semantic_logits.device)
        cells = raw.semantic_logits[:, 0].numel()
        return {
            **self.detector.five_counts(raw, batch),
            "semantic": (target >= 0).sum().float(),
            "semantic_roi": self._in_boxes(raw, target)[1],
            "panoptic": raw.class_logits.new_tensor(float(cells), dtype=torch.float32),
        }

    def _in_boxes(self, raw: Raw, target: Tensor) -> tuple[Tensor, Tensor]:
        """The RoI loss (section 3.4): sum of the cross-entropy in all true boxes, and how many cells have a class."""
        boxes, stride = [c.boxes for c in _claimed(raw)], self.detector.strides[0]
        crops = multilevel_roi_align([raw.semantic_logits.float()], boxes, [stride], self.roi_size)
        middle = (torch.arange(self.roi_size, device=target.device) + 0.5) / self.roi_size
        wanted: list[Tensor] = []
        for pixels, box in zip(target, boxes, strict=True):
            x, y = (box[:, a, None] + (box[:, a + 2] - box[:, a])[:, None] * middle for a in (0, 1))
            row, column = y.long().clamp(0, pixels.shape[0] - 1), x.long().clamp(0, pixels.shape[1] - 1)
            wanted.append(pixels[row[:, :, None], column[:, None]])
        labels = torch.cat(wanted)
        total = (
            functional.cross_entropy(crops, labels, ignore_index=-1, reduction="sum")
            if len(labels)
            else crops.sum() * 0.0
        )
        return total, (labels >= 0).sum().float()

    def _panoptic_sum(self, raw: Raw) -> Tensor:
        """Sum of the cross-entropy over all cells that are not void."""
        claimed, logits, stride = _claimed(raw), raw.truth_logits, self.detector.strides[0]
        assert logits is not None
        total = logits.sum() * 0.0
        for semantic, masks, known in zip(
            raw.semantic_logits.float(), logits.float().split([len(c.boxes) for c in claimed]), claimed, strict=True
        ):
            boxes = (known.boxes - known.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])) / stride
            placed = Placed.at(masks, boxes, (semantic.shape[-2], semantic.shape[-1]))
            maps = self.compete(semantic, placed, known.labels)
            total = total + functional.cross_entropy(maps[None], known.target[None], ignore_index=-1, reduction="sum")
        return total

    def compete(self, semantic: Tensor, placed: Placed, labels: Tensor, rows: slice = slice(None)) -> Tensor:
        """The panoptic head on one picture; ``labels`` [N] count among things."""
        things, stuff = self.thing_labels.to(labels.device), self.stuff_labels.to(labels.device)
        return panoptic_logits(semantic, stuff, things, placed, things[labels], rows)

    # ---- predict ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Panoptic scenes in file pixels; ``instances`` has the things before they were pruned."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        masks = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        return [
            self._scene(found, self.detector.chosen(maps, found.labels).float(), semantic, view)
            for found, maps, semantic, view in zip(raw.detections, masks, raw.semantic_logits, geometry, strict=True)
        ]

    def _scene(self, found: Detections, masks: Tensor, semantic: Tensor, view: Geometry) -> Scene:
        boxes = found.boxes.float() - found.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        placed = Placed.at(masks, boxes, view.valid)
        kept = prune(
            self._drawn(placed), found.labels.cpu().numpy(), found.scores.cpu().numpy(), view.valid, self.overlap
        )
        chosen = torch.from_numpy(kept).to(found.labels.device)
        owner = self._owners(semantic, placed[chosen], found.labels[chosen], view)
        rows, columns = (torch.arange(s) * v // s for s, v in zip(view.original, view.valid, strict=True))
        owner = owner[rows][:, columns].numpy()
        things = self.thing_labels[found.labels[chosen].cpu()].numpy()
        labels = np.concatenate((self.stuff_labels.numpy(), things))
        fused = from_map(owner, labels, len(self.stuff_labels), stuff_area=self.stuff_area)
        sure, source = self.class_scores(semantic, view), torch.from_numpy(fused.source)
        scores = sure[torch.from_numpy(fused.labels)]
        scores[source >= 0] = found.scores.float().cpu()[chosen.cpu()][source[source >= 0]]
        return fused_scene(fused, scores, self.likeliest(semantic, view))

    def _drawn(self, placed: Placed) -> tuple[np.ndarray, np.ndarray]:
        """Run-lengths of the masks on the resized picture, a few at a time."""
        height, width = placed.rows.shape[1], placed.columns.shape[1]
        step = max(1, _VALUES // (height * width))
        runs = [rle.encode(np.zeros((0, height, width), bool))]
        for part in torch.arange(len(placed), device=placed.rows.device).split(step):
            runs.append(rle.encode((placed[part].masks() > 0).cpu().numpy()))
        lengths = np.concatenate([np.diff(cuts) for _, cuts in runs])
        return np.concatenate([counts for counts, _ in runs]), np.concatenate([[0], np.cumsum(lengths)]).astype(
            np.int64
        )

    def _owners(self, semantic: Tensor, placed: Placed, labels: Tensor, view: Geometry) -> Tensor:
        """Whose each pixel of the resized picture is, int64 (H, W): stuff in its order, instances, -1 for unknown."""
        stride, (height, width) = self.detector.strides[0], view.valid
        cells = (semantic.shape[-2], semantic.shape[-1])
        way = Resampling.chained(cells, (cells[0] * stride, cells[1] * stride), view.valid, view.valid)
        down, across = way.rows.to(semantic.device), way.columns.T.to(semantic.device)
        out = torch.empty(height, width, dtype=torch.int64)
        step = max(1, _VALUES // ((len(semantic) + len(placed)) * width))
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            used = slice(max(start // stride - 1, 0), -(-rows.stop // stride) + 1)  # the cells under these rows
            shown = torch.matmul(down[rows, used], torch.matmul(semantic[:, used].float(), across))
            maps = self.compete(shown, placed, labels, rows)
            best = maps.argmax(0)
            out[rows] = best.masked_fill(best == len(maps) - 1, -1).cpu()
        return out


def _claimed(raw: Raw) -> list[Claimed]:
    if raw.claimed is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.claimed


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    semantic_width: int = 128,
    semantic_depth: int = 2,
    semantic_norm: NormName = "group",
    score_threshold: float = 0.6,
    overlap: float = 0.3,
    stuff_area: int = 4096,
    unknown: float = 0.3,
    panoptic_limit: int = 100,
    roi_size: int = 28,
    agnostic_nms: bool = True,
    loss_weights: Mapping[str, float] | None = None,
    **options: Any,
) -> UPSNet:
    weights = {"semantic": 0.2, "semantic_roi": 0.04, "panoptic": 0.1, **(loss_weights or {})}
    detector = thing_detector(
        taxonomy, body, channels=channels, score_threshold=score_threshold, agnostic_nms=agnostic_nms,
        loss_weights=weights, **options,
    )  # fmt: skip
    head = DeformableSemanticHead(
        channels, len(taxonomy), levels=detector.roi_levels, width=semantic_width, depth=semantic_depth,
        norm=semantic_norm,
    )  # fmt: skip
    return UPSNet(
        detector, head, taxonomy=taxonomy, overlap=overlap, stuff_area=stuff_area, unknown=unknown,
        panoptic_limit=panoptic_limit, roi_size=roi_size,
    )  # fmt: skip


def upsnet_r50(taxonomy: Taxonomy, **options: Any) -> UPSNet:
    """ResNet-50, FPN 256, two deformable convolutions of 128: the paper's form, with its weights of losses for COCO."""
    return _build(taxonomy, **{"body": "resnet50", **options})
