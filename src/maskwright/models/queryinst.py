"""QueryInst: Fang, Yang, Wang, Li, Fang, Shan, Feng, Liu, "Instances as Queries", ICCV 2021 (arXiv:2105.01928).

A fixed number of learned queries, each with a box, refine themselves in six stages as Sparse R-CNN's do: they look at
each other, then each at its own RoI through kernels it makes itself (section 3.1). In every stage the same attended
queries make kernels for a mask head too (section 3.2), and each stage is matched one-to-one with the objects and
trained alone. There is no proposal network and no NMS; at inference only the last stage's mask head draws.

Differences: none of substance between the authors' code and mmdetection's. As there, boxes are never clipped between
the stages, and box gradients end at each stage; mask targets are cut out by boxes clipped to the picture, where
mmdetection clips to the padded batch, so that a picture's loss would depend on its neighbors. Unmatched queries whose
box is mostly a crowd or an ignored region do not learn to be background; the originals have no such rule.

Queries begin with boxes that are shares of the picture, and there are no more objects than queries: train on pictures
as large, and as full, as those of the test (measured in docs/families.md).

Weights: an importer for mmdetection's checkpoints (Apache-2.0).

    tensor        meaning                                            shape
    pixels        RGB, 0..255                                        [B, 3, H, W]
    class_logits  a stage, Q queries, no background                  [B, Q, C]
    boxes         a stage, in the padded picture's pixels            [B, Q, 4]
    mask_logits   with scenes: a stage, the M matched queries        [M, C, 28, 28]
    masks         without scenes: of the N best (query, class)       [B, N, 28, 28]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.models.parts.truth import masks_of
from maskwright.models.parts.two_stage import IMAGENET_MEAN, IMAGENET_STD, Truth, boxes_of, resnet, split
from maskwright.nn.heads.query_roi import QueryBoxHead, QueryMaskHead
from maskwright.nn.losses import Dice, focal_sum
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.assign_sets import match_sets
from maskwright.ops.paste import paste
from maskwright.ops.roi import multilevel_roi_align
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

BOX_WEIGHTS = (2.0, 2.0, 1.0, 1.0)
LOSS_WEIGHTS = {"class": 2.0, "box": 5.0, "iou": 2.0, "mask": 8.0}
"""Weights of the losses (section 4.1); the first three are the costs' too."""

Pairs = list[tuple[Tensor, Tensor]]
"""Queries and objects, int64 [M_i] each, of each image."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``pairs`` and ``mask_logits`` of each stage with scenes, what follows without."""

    class_logits: list[Tensor]
    boxes: list[Tensor]
    pairs: list[Pairs] = field(default_factory=list)
    mask_logits: list[Tensor] = field(default_factory=list)
    scores: Tensor | None = None
    labels: Tensor | None = None
    places: Tensor | None = None
    masks: Tensor | None = None


class QueryInst(nn.Module):
    """QueryInst on built parts.

    Args:
        backbone, neck: the neck's levels have ``strides``.
        box_head: one ``QueryBoxHead`` a stage. mask_head: one ``QueryMaskHead`` for each of ``mask_stages``.
        taxonomy: the C classes. queries: Q. channels: width of queries and pyramid.
        strides: of the pyramid's levels, finest first.
        mask_stages: stages whose queries learn masks, the last one among them (table 5).
        box_size, mask_size: RoIAlign's output sides. sampling_ratio: its samples a bin side.
        loss_weights: instead of those in ``LOSS_WEIGHTS``. costs: of the matching; the class, box and iou weights.
        stage_loss_weights: factors of each stage's losses.
        focal_alpha, focal_gamma: of the class loss and cost.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255. resize: how pictures are resized at test time.
    """

    size_divisor = 32
    pixel_mean: Tensor
    pixel_std: Tensor
    mask_loss: MaskLoss

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        box_head: nn.ModuleList,
        mask_head: nn.ModuleList,
        *,
        taxonomy: Taxonomy,
        queries: int = 100,
        channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32),
        mask_stages: Sequence[int] = (0, 1, 2, 3, 4, 5),
        box_size: int = 7,
        mask_size: int = 14,
        sampling_ratio: int = 2,
        loss_weights: Mapping[str, float] | None = None,
        costs: Mapping[str, float] | None = None,
        stage_loss_weights: Sequence[float] | None = None,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        stages = len(box_head)
        if len(mask_stages) != len(mask_head) or not mask_stages or mask_stages[-1] != stages - 1:
            raise ValueError(f"mask_stages must name a stage for each mask head and end with {stages - 1}")
        self.backbone, self.neck, self.box_head, self.mask_head = backbone, neck, box_head, mask_head
        self.query_boxes, self.queries = nn.Embedding(queries, 4), nn.Embedding(queries, channels)
        with torch.no_grad():  # center and sides as shares of the picture: all of it (Sparse R-CNN, table 4)
            self.query_boxes.weight.copy_(torch.tensor([0.5, 0.5, 1.0, 1.0]))
        self.taxonomy, self.strides, self.mask_stages = taxonomy, tuple(strides), tuple(mask_stages)
        self.box_size, self.mask_size, self.sampling_ratio = box_size, mask_size, sampling_ratio
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.costs = {**LOSS_WEIGHTS, **(costs or {})}
        self.stage_loss_weights = tuple(stage_loss_weights or [1.0] * stages)
        self.focal = (focal_alpha, focal_gamma)
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss = Dice(epsilon=2e-5)
        self.score_threshold, self.max_per_image = 0.0, 100
        self.class_layers = tuple(f"box_head.{i}.class_logits" for i in range(stages))
        self.class_layers += tuple(f"mask_head.{i}.predictor" for i in range(len(mask_head)))
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """All stages; mask heads of every stage on matched queries (``scenes``), or the last one on all (without)."""
        features, raw = self.dense(inputs), Raw([], [])
        boxes, queries = self._start(inputs, features[0].dtype)
        attended = queries
        for stage, head in enumerate(self.box_head):
            pooled = self.pool(features, list(boxes.detach()), self.box_size)
            logits, deltas, queries, attended = head(pooled, queries)
            refined = box_ops.decode(deltas.flatten(0, 1), boxes.flatten(0, 1), BOX_WEIGHTS).view_as(boxes)
            raw.class_logits.append(logits)
            raw.boxes.append(refined)
            boxes = refined.detach()
            if scenes is not None:
                raw.pairs.append(self._match(logits, boxes, inputs, scenes))
                if stage in self.mask_stages:
                    rows = [query for query, _ in raw.pairs[-1]]
                    places = [each[row] for each, row in zip(boxes, rows, strict=True)]
                    chosen = torch.cat([each[row] for each, row in zip(attended, rows, strict=True)])
                    mask_head = self.mask_head[self.mask_stages.index(stage)]
                    raw.mask_logits.append(mask_head(self.pool(features, places, self.mask_size), chosen))
        if scenes is None:
            maps = self.mask_head[-1](self.pool(features, list(boxes), self.mask_size), attended.flatten(0, 1))
            self._choose(raw, maps.unflatten(0, boxes.shape[:2]))
        return raw

    def dense(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """RoIAlign [R, C, size, size] of each image's boxes on the level that fits them."""
        return multilevel_roi_align(
            features, boxes, self.strides, size, sampling_ratio=self.sampling_ratio, epsilon=1e-6 / 4,
        )  # fmt: skip

    def _start(self, inputs: Images, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The learned boxes [B, Q, 4] on each picture, in pixels, and the queries [B, Q, C]."""
        center, side = self.query_boxes.weight.float().split(2, 1)
        shares = torch.cat((center - 0.5 * side, center + 0.5 * side), 1)
        boxes = shares[None] * self._extent(inputs)
        return boxes, self.queries.weight.to(dtype)[None].expand(boxes.shape[0], -1, -1)

    def _extent(self, inputs: Images) -> Tensor:
        """Width and height of each picture, twice, float32 [B, 1, 4]."""
        sizes = [[width, height, width, height] for height, width in inputs.sizes]
        return torch.tensor(sizes, dtype=torch.float32, device=self.pixel_mean.device)[:, None]

    @torch.no_grad()
    def _match(self, logits: Tensor, boxes: Tensor, inputs: Images, scenes: Sequence[Scene]) -> Pairs:
        """Queries and objects one-to-one at the least cost of class, corners and generalized IoU (section 3.3)."""
        costs: list[Tensor] = []
        for logit, box, extent, scene in zip(logits.float(), boxes, self._extent(inputs), scenes, strict=True):
            objects, _ = split(scene)
            goal, labels = boxes_of(objects).to(box), objects.labels.to(box.device)
            alpha, gamma = self.focal
            prob = logit.sigmoid()
            missed = -(prob + 1e-12).log() * alpha * (1 - prob).pow(gamma)
            invented = -(1 - prob + 1e-12).log() * (1 - alpha) * prob.pow(gamma)
            cost = (missed - invented)[:, labels] * self.costs["class"]
            cost = cost + torch.cdist(box / extent, goal / extent, p=1) * self.costs["box"]
            costs.append(cost - box_ops.giou(box, goal) * self.costs["iou"])
        return match_sets(costs)

    def _choose(self, raw: Raw, maps: Tensor) -> None:
        """The likeliest pairs of query and class of each image, at most ``max_per_image``, and their maps."""
        scores, classes = raw.class_logits[-1].float().sigmoid().flatten(1), raw.class_logits[-1].shape[2]
        raw.scores, index = scores.topk(min(self.max_per_image, scores.shape[1]), dim=1)
        query, raw.labels = torch.div(index, classes, rounding_mode="floor"), index % classes
        image = torch.arange(index.shape[0], device=index.device)[:, None]
        raw.places, raw.masks = raw.boxes[-1][image, query], maps[image, query, raw.labels]

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, L_box, L_iou and L_mask of each stage (``class_0`` …), each times its weight (section 3.3)."""
        if len(raw.pairs) != len(raw.boxes):
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        truth, counts = Truth.of(batch, raw.boxes[0].device), self.loss_counts(raw, batch)
        sums: dict[str, Tensor] = {}
        for stage, pairs in enumerate(raw.pairs):
            sums[f"class_{stage}"] = self._class_sum(raw.class_logits[stage], raw.boxes[stage], pairs, truth)
            corners, overlap = self._box_sums(raw.boxes[stage], pairs, truth, batch.inputs)
            sums |= {f"box_{stage}": corners, f"iou_{stage}": overlap}
            if stage in self.mask_stages:
                maps = raw.mask_logits[self.mask_stages.index(stage)]
                sums[f"mask_{stage}"] = self._mask_sum(maps, raw.boxes[stage].detach(), pairs, truth)
        out: dict[str, Tensor] = {}
        for name, total in sums.items():
            kind, _, stage = name.partition("_")
            factor = self.loss_weights[kind] * self.stage_loss_weights[int(stage)]
            out[name] = total / counts[name].clamp(min=1) * factor
        return out

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Each stage's matched queries, which all its losses are means over."""
        counts: dict[str, Tensor] = {}
        for stage, pairs in enumerate(raw.pairs):
            count = raw.boxes[0].new_tensor(float(sum(len(query) for query, _ in pairs)))
            kinds = ("class", "box", "iou", "mask") if stage in self.mask_stages else ("class", "box", "iou")
            counts |= {f"{kind}_{stage}": count for kind in kinds}
        return counts

    def _class_sum(self, logits: Tensor, boxes: Tensor, pairs: Pairs, truth: Truth) -> Tensor:
        """Focal loss of all queries but those that stand for nothing where the truth is not known."""
        targets = torch.zeros_like(logits, dtype=torch.float32)
        known = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        for i, (query, chosen) in enumerate(pairs):
            if len(truth.ignored[i]):
                known[i] = box_ops.iou(truth.ignored[i].to(boxes), boxes[i].detach()).amax(0) <= 0.5
            known[i, query] = True
            targets[i, query, truth.objects[i].labels.to(query.device)[chosen]] = 1.0
        return focal_sum(logits[known].float(), targets[known], *self.focal)

    def _box_sums(self, boxes: Tensor, pairs: Pairs, truth: Truth, inputs: Images) -> tuple[Tensor, Tensor]:
        """L1 distance of the corners as shares of the picture, and 1 - generalized IoU, of the matched queries."""
        found = torch.cat([each[query] for each, (query, _) in zip(boxes, pairs, strict=True)])
        goal = torch.cat([known[chosen] for known, (_, chosen) in zip(truth.boxes, pairs, strict=True)]).to(found)
        extents = zip(self._extent(inputs), pairs, strict=True)
        extent = torch.cat([each.expand(len(query), -1) for each, (query, _) in extents])
        corners = (found / extent - goal / extent).abs().sum()
        return corners + boxes.sum() * 0.0, (1 - box_ops.giou_matched(found, goal)).sum()

    def _mask_sum(self, maps: Tensor, boxes: Tensor, pairs: Pairs, truth: Truth) -> Tensor:
        """The mask loss of the matched queries' maps [M, C, m, m], of the true class's one, times M.

        The truth is cut out by boxes clipped to the picture, features by boxes as they are: so it is in both originals.
        """
        targets, labels = list[Tensor](), list[Tensor]()
        for each, (query, chosen), objects in zip(boxes, pairs, truth.objects, strict=True):
            masks = masks_of(objects)[chosen.cpu()]
            seen = box_ops.clip(each[query].float().nan_to_num(), masks.size)
            targets.append((masks.crop(seen, maps.shape[-1]) >= 0.5).float())
            labels.append(objects.labels.to(query.device)[chosen])
        logits = maps[torch.arange(len(maps), device=maps.device), torch.cat(labels)]
        return (self.mask_loss(logits.float(), torch.cat(targets)) + maps.sum() * 0.0) * len(maps)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels; boxes may reach beyond the picture and are clipped once their masks are drawn."""
        if raw.scores is None or raw.labels is None or raw.places is None or raw.masks is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        each = zip(raw.scores, raw.labels, raw.places, raw.masks, geometry, strict=True)
        return [self._scene(*parts) for parts in each]

    def _scene(self, scores: Tensor, labels: Tensor, boxes: Tensor, maps: Tensor, view: Geometry) -> Scene:
        scores, boxes = scores.float().cpu(), boxes.float().cpu()
        places = boxes / boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
        boxes = box_ops.clip(places, view.original)
        wanted = (scores > self.score_threshold) & box_ops.nonempty(boxes) & (places.abs() < 1e6).all(1)
        keep = torch.nonzero(wanted).flatten()[: self.max_per_image]
        probs = maps[keep.to(maps.device)].float().sigmoid().cpu()
        counts, offsets = paste(probs, places[keep], view.original)
        segments = Segments(
            size=view.original,
            labels=labels.cpu()[keep],
            masks=Masks.from_arrays(counts, offsets, view.original),
            boxes=boxes[keep],
            scores=scores[keep],
        )
        return Scene(size=view.original, segments=segments)


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    neck_norm: NormName = None,
    stages: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    dynamic_width: int = 64,
    class_depth: int = 1,
    box_depth: int = 3,
    dropout: float = 0.0,
    prior: float = 0.01,
    box_std: float | None = None,
    mask_stages: Sequence[int] | None = None,
    mask_width: int = 256,
    mask_depth: int = 4,
    mask_norm: NormName = "batch",
    dynamic_mask: bool = True,
    box_size: int = 7,
    **options: Any,
) -> QueryInst:
    backbone, options = resnet(body, **options)
    classes = len(taxonomy)
    box_heads = [
        QueryBoxHead(
            channels, box_size, classes, heads=heads, hidden=hidden, dynamic_width=dynamic_width,
            class_depth=class_depth, box_depth=box_depth, dropout=dropout, prior=prior, box_std=box_std,
        )
        for _ in range(stages)
    ]  # fmt: skip
    with_masks = tuple(range(stages)) if mask_stages is None else tuple(mask_stages)
    kernels = dynamic_width if dynamic_mask else 0
    masks = [
        QueryMaskHead(channels, classes, width=mask_width, depth=mask_depth, norm=mask_norm, dynamic_width=kernels)
        for _ in with_masks
    ]
    return QueryInst(
        backbone,
        FPN(backbone.channels, channels, extra=0, norm=neck_norm),
        nn.ModuleList(box_heads),
        nn.ModuleList(masks),
        taxonomy=taxonomy,
        channels=channels,
        mask_stages=with_masks,
        box_size=box_size,
        **options,
    )


def queryinst_r50(taxonomy: Taxonomy, **options: Any) -> QueryInst:
    """ResNet-50, FPN 256, 100 queries, six stages: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def queryinst_r101(taxonomy: Taxonomy, **options: Any) -> QueryInst:
    """ResNet-101, FPN 256, 100 queries, six stages."""
    return _build(taxonomy, **{"body": "resnet101", **options})
