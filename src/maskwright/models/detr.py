"""DETR: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020 (arXiv:2005.12872).

A transformer reads a ResNet's last map; 100 learned queries each come out as one object or as none (section 3.2).
Training pairs queries with objects one to one at the least cost and learns from the pairs, after every decoder layer
(section 3.1, appendix A.2). A mask head draws each query's attention finer and finer (appendix A.1); filling every
pixel with the likeliest query's mask makes panoptic segmentation.

The published ``detr-r50`` and ``-r101`` detect boxes only, being the start to which the mask head was added: built with
``masks=False`` (the importer does) their scenes have boxes and no masks. Here they have the mask head by default.

Differences: facebookresearch/detr enlarges masks bilinearly to the network's picture and takes the nearest pixel for
the file's; pixels go to the largest logit. transformers multiplies probabilities by scores (``rule="transformers"``).
Its panoptic decoding stretches the batch's padding into the picture; ours cuts it off.

Weights: importers for facebookresearch/detr and transformers, both Apache-2.0. Classes are COCO's ids from 0.

    tensor         meaning                                                        shape
    pixels         RGB, 0..255                                                    [B, 3, H, W]
    class_logits   of each query after each layer; the last logit is "none"       L x [B, Q, C + 1]
    boxes          center x, center y, width, height as shares of the picture     L x [B, Q, 4]
    mask_logits    with scenes those of the N matched queries only                [B, Q, H/4, W/4] or [N, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.queries import (
    QUERY_RULES,
    Matches,
    QueryTruth,
    confident,
    enlarge,
    fused_scene,
    panoptic_scene,
    query_truth,
)
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.detr_masks import AttentionMaps, MaskHead
from maskwright.nn.losses import Dice, Focal, Weighted
from maskwright.nn.norm import normalize_pixels
from maskwright.nn.position import inside_map, sine_position
from maskwright.nn.transformer import MLP, Decoder, Encoder
from maskwright.ops import boxes as box_ops
from maskwright.ops.assign_sets import match_sets
from maskwright.ops.query_maps import Resampling, above, largest
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LOSS_WEIGHTS = {"class": 1.0, "box": 5.0, "giou": 2.0}
_CHUNK = 25
"""How many queries' masks are drawn at once."""
_SMALLEST = 4
"""Panoptic segments of so many pixels or fewer disappear."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``truth`` and ``matches`` (one a layer) with scenes."""

    class_logits: list[Tensor]
    boxes: list[Tensor]
    mask_logits: Tensor | None
    padded: tuple[int, int]
    truth: list[QueryTruth] | None = None
    matches: list[Matches] | None = None


class DETR(nn.Module):
    """DETR on built parts.

    Args:
        backbone: gives C2 to C5. encoder, decoder: of ``channels``. queries: how many objects a picture can have.
        mask_head, attention_maps: both or neither; without them scenes have boxes only.
        task: what ``predict`` gives: all queries as ``"instance"``, or a ``"panoptic"`` map.
        rule: ``"detr"`` or ``"transformers"``, see above.
        no_object: weight of "none" in the class loss.
        loss_weights: factors of the class, box and GIoU losses and of the matching costs of the same names. The mask
            loss has its own inside.
        frozen_detector: train the mask head only, as the published panoptic models were.
        score_threshold: of objects; by default 0.05, of panoptic segments 0.85.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255. resize: at test time.
    """

    size_divisor = 1
    class_layers = ("class_logits",)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        encoder: Encoder,
        decoder: Decoder,
        mask_head: MaskHead | None = None,
        attention_maps: AttentionMaps | None = None,
        *,
        taxonomy: Taxonomy,
        widths: Sequence[int],
        channels: int = 256,
        queries: int = 100,
        task: Literal["instance", "panoptic"] = "instance",
        rule: Literal["detr", "transformers"] = "detr",
        no_object: float = 0.1,
        loss_weights: Mapping[str, float] | None = None,
        frozen_detector: bool = False,
        score_threshold: float | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if task not in ("instance", "panoptic") or (task == "panoptic" and mask_head is None):
            raise ValueError(f"task must be 'instance' or (with a mask head) 'panoptic', got {task!r}")
        if rule not in ("detr", "transformers"):
            raise ValueError(f"rule must be 'detr' or 'transformers', got {rule!r}")
        self.backbone, self.encoder, self.decoder = backbone, encoder, decoder
        self.project, self.queries = nn.Conv2d(widths[-1], channels, 1), nn.Embedding(queries, channels)
        self.class_logits, self.box = nn.Linear(channels, len(taxonomy) + 1), MLP(channels, channels, 4)
        if frozen_detector:
            self.requires_grad_(False)
        self.mask_head, self.attention_maps = mask_head, attention_maps
        self.taxonomy, self.task, self.rule, self.no_object = taxonomy, task, rule, no_object
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.mask_loss: MaskLoss = Weighted(((1.0, Focal()), (1.0, Dice(smooth=1.0, epsilon=0.0, squares=False))))
        usual = 0.05 if task == "instance" else 0.85
        self.score_threshold = usual if score_threshold is None else score_threshold
        self.overlap, self.mask_threshold, self.max_per_image = 0.8, 0.5, 100
        self.resize = resize or Resize(short=800, long=1333)
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Classes and boxes after each layer; masks of all queries, or (``scenes``) of those with an object."""
        padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
        pyramid, inside = self.features(inputs)
        projected = self.project(pyramid[-1])
        known = inside if inside is not None else torch.ones_like(pyramid[-1][:, 0], dtype=torch.bool)
        position = sine_position(known, projected.shape[1])
        memory = self.encoder(projected, position, inside)
        states = self.decoder(self.queries.weight, memory, position, inside)
        raw = Raw([self.class_logits(s) for s in states], [self.box(s).float().sigmoid() for s in states], None, padded)
        picture, query = _all_of(states[-1])
        if scenes is not None:
            raw.truth = [query_truth(scene, self.taxonomy, padded, projected.device) for scene in scenes]
            layers = zip(raw.class_logits, raw.boxes, strict=True)
            raw.matches = [self.match(logits, boxes, raw.truth, inputs.sizes) for logits, boxes in layers]
            picture, query = _at_least_one(raw.matches[-1])
        if self.mask_head is not None:
            logits = self.masks(states[-1], projected, memory, pyramid[:-1], inside, picture, query)
            raw.mask_logits = logits.unflatten(0, states[-1].shape[:2]) if scenes is None else logits
        return raw

    def features(self, inputs: Images) -> tuple[list[Tensor], Tensor | None]:
        """C2 to C5, and bool [B, h, w] which cells of C5 lie in the picture; ``None`` if all do."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        pyramid = self.backbone(pixels)
        padded = (pixels.shape[-2], pixels.shape[-1])
        if not torch.compiler.is_compiling() and all(tuple(size) == padded for size in inputs.sizes):
            return pyramid, None
        cells = (pyramid[-1].shape[-2], pyramid[-1].shape[-1])
        return pyramid, inside_map(inputs.sizes, padded, cells, pixels.device)

    def masks(
        self, states: Tensor, projected: Tensor, memory: Tensor, pyramid: Sequence[Tensor], inside: Tensor | None,
        picture: Tensor, query: Tensor,
    ) -> Tensor:  # fmt: skip
        """Mask logits [N, H/4, W/4] of the queries at ``picture``, ``query`` [N]."""
        assert self.mask_head is not None
        assert self.attention_maps is not None
        keys, prepared = self.attention_maps.keys(memory), self.mask_head.prepare(projected, pyramid)
        parts: list[Tensor] = []
        for start in range(0, len(picture), _CHUNK):
            at, who = picture[start : start + _CHUNK], query[start : start + _CHUNK]
            maps = self.attention_maps(states[at, who], keys[at], None if inside is None else inside[at])
            parts.append(self.mask_head(maps, prepared, at))
        return torch.cat(parts)

    @torch.no_grad()
    def match(
        self, class_logits: Tensor, boxes: Tensor, truth: Sequence[QueryTruth], sizes: Sequence[tuple[int, int]]
    ) -> Matches:
        """The pairs of queries and objects at the least cost of class, box and GIoU (equation 1, appendix A.2)."""
        prob, costs = class_logits.float().softmax(-1), []
        for i, (known, size) in enumerate(zip(truth, sizes, strict=True)):
            wanted = _shares(known, size)
            cost = -self.loss_weights["class"] * prob[i][:, known.labels]
            cost = cost + self.loss_weights["box"] * torch.cdist(boxes[i], wanted, p=1)
            giou = box_ops.giou(_corners(boxes[i]), _corners(wanted))
            costs.append(cost - self.loss_weights["giou"] * giou)
        return Matches.of(match_sets(costs), truth, _silent(boxes, truth, sizes))

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Class, box and GIoU losses of the last layer, the same of earlier ones (``class_0`` on), and the masks'."""
        truth, matches = _learned(raw)
        out: dict[str, Tensor] = {}
        last = len(matches) - 1
        for i, pairs in enumerate(matches):
            name = "" if i == last else f"_{i}"
            total, weight = pairs.class_sum(raw.class_logits[i], self.no_object)
            out[f"class{name}"] = total / weight.clamp(min=1e-6) * self.loss_weights["class"]
            found = raw.boxes[i][pairs.picture, pairs.query]
            wanted = _wanted(pairs, truth, batch.inputs.sizes).to(found)
            giou = box_ops.giou_matched(_corners(found), _corners(wanted))
            count = max(len(pairs), 1)
            out[f"box{name}"] = (found - wanted).abs().sum() / count * self.loss_weights["box"]
            out[f"giou{name}"] = (1 - giou).sum() / count * self.loss_weights["giou"]
            if not len(pairs):
                out[f"box{name}"] = out[f"box{name}"] + raw.boxes[i].sum() * 0.0
        if raw.mask_logits is not None:
            out["mask"] = self._mask_sum(raw, truth, matches[-1]) / max(len(matches[-1]), 1)
        return out

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        _, matches = _learned(raw)
        out: dict[str, Tensor] = {}
        for i, pairs in enumerate(matches):
            name = "" if i == len(matches) - 1 else f"_{i}"
            out[f"class{name}"] = pairs.weights(raw.class_logits[i], self.no_object).sum()
            out[f"box{name}"] = out[f"giou{name}"] = raw.boxes[i].new_tensor(float(len(pairs)))
        if raw.mask_logits is not None:
            out["mask"] = raw.boxes[-1].new_tensor(float(len(matches[-1])))
        return out

    def _mask_sum(self, raw: Raw, truth: Sequence[QueryTruth], pairs: Matches) -> Tensor:
        assert raw.mask_logits is not None
        total = raw.mask_logits.float().sum() * 0.0
        for i, known in enumerate(truth):
            mine = torch.nonzero(pairs.picture == i).flatten()
            if len(mine):
                wanted = known.dense(pairs.object[mine], raw.padded).float()
                logits = enlarge(raw.mask_logits[mine], raw.padded, known.ignored)
                total = total + self.mask_loss(logits, wanted) * len(mine)
        return total

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: objects by falling score, or a panoptic map with its segments."""
        if raw.truth is not None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        read = self._objects if self.task == "instance" else self._panoptic
        return [read(raw, i, view) for i, view in enumerate(geometry)]

    def _objects(self, raw: Raw, i: int, view: Geometry) -> Scene:
        scores, labels = raw.class_logits[-1][i].float().softmax(-1)[:, :-1].max(-1)
        height, width = view.original
        boxes = _corners(raw.boxes[-1][i]) * scores.new_tensor([width, height, width, height])
        boxes = box_ops.clip(boxes, view.original)
        order = scores.argsort(descending=True, stable=True)
        order = order[(scores[order] >= self.score_threshold) & box_ops.nonempty(boxes[order])][: self.max_per_image]
        masks = None
        if raw.mask_logits is not None:
            maps = raw.mask_logits[i][order].float()
            direct = self.rule == "transformers"
            way = self._way(maps, raw.padded, view)
            runs, _ = above(maps.sigmoid() if direct else maps, way, self.mask_threshold, logits=not direct)
            masks = Masks.from_arrays(*runs, view.original)
        segments = Segments(
            size=view.original, labels=labels[order].cpu(), masks=masks, boxes=boxes[order].cpu(),
            scores=scores[order].cpu(),
        )  # fmt: skip
        return Scene(size=view.original, segments=segments)

    def _panoptic(self, raw: Raw, i: int, view: Geometry) -> Scene:
        assert raw.mask_logits is not None
        logits = raw.class_logits[-1][i]
        if self.rule == "transformers":
            rule = replace(QUERY_RULES["transformers"], overlap=self.overlap, claim=self.mask_threshold)
            return panoptic_scene(
                logits, raw.mask_logits[i], view, raw.padded, self.taxonomy, rule,
                score_threshold=self.score_threshold, max_per_image=self.max_per_image,
            )  # fmt: skip
        query, labels, scores = confident(logits, self.score_threshold, self.max_per_image)
        maps = raw.mask_logits[i][query].float()
        ids, keep = _filled(maps, labels.tolist(), self.taxonomy, self._way(maps, raw.padded, view))
        return fused_scene(ids.cpu(), labels[keep], scores[keep], range(1, len(keep) + 1))

    def _way(self, maps: Tensor, padded: tuple[int, int], view: Geometry) -> Resampling:
        cells = (maps.shape[-2], maps.shape[-1])
        if self.rule == "transformers":
            return Resampling.direct(cells, padded, view.valid, view.original)
        return Resampling.chained(cells, padded, view.valid, view.original, "nearest")


def _filled(maps: Tensor, labels: Sequence[int], taxonomy: Taxonomy, way: Resampling) -> tuple[Tensor, Tensor]:
    """Every pixel goes to the largest of K logits; what gets next to none leaves, and the rest compete again.

    Queries of one kind of stuff are one in the first round, where the first of them takes all; the others, left with
    nothing, leave. As published: in later rounds their pixels are open to all.

    Returns:
        int64 [H, W], from 1 on in the order of the queries that stay, 0 if none does; and those queries.
    """
    alive = torch.arange(len(maps), device=maps.device)
    merged = False
    while len(alive):
        owner, won = largest(maps[alive], way)
        if not merged:
            first: dict[int, int] = {}
            leader = [k if taxonomy.thing[label] else first.setdefault(label, k) for k, label in enumerate(labels)]
            table = torch.tensor(leader, device=maps.device)
            owner, won = table[owner.long()], torch.zeros_like(won).index_add_(0, table, won)
            merged = True
        if bool((won > _SMALLEST).all()):
            return owner.long() + 1, alive
        alive = alive[won > _SMALLEST]
    return torch.zeros(way.size, dtype=torch.int64), alive


def _learned(raw: Raw) -> tuple[list[QueryTruth], list[Matches]]:
    if raw.truth is None or raw.matches is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.truth, raw.matches


def _all_of(states: Tensor) -> tuple[Tensor, Tensor]:
    """Picture and query of all queries [B, Q, C], one picture after the other."""
    pictures, queries = (torch.arange(n, device=states.device) for n in states.shape[:2])
    return pictures.repeat_interleave(states.shape[1]), queries.repeat(states.shape[0])


def _at_least_one(pairs: Matches) -> tuple[Tensor, Tensor]:
    """The matched queries; the first one if there is none, so that the mask head is always run."""
    if len(pairs):
        return pairs.picture, pairs.query
    return pairs.picture.new_zeros(1), pairs.query.new_zeros(1)


def _corners(boxes: Tensor) -> Tensor:
    """(center x, center y, width, height) [..., 4] to (x1, y1, x2, y2)."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), -1)


def _shares(known: QueryTruth, size: tuple[int, int]) -> Tensor:
    """An image's boxes as center and sides [G, 4], in shares of its own size (H, W), padding not counted."""
    if known.boxes is None:
        raise ValueError("a scene to learn from needs boxes or masks, and this one has neither")
    near, far = known.boxes[:, :2], known.boxes[:, 2:]
    scale = known.boxes.new_tensor([size[1], size[0]] * 2)
    return torch.cat(((near + far) / 2, far - near), -1) / scale


def _wanted(pairs: Matches, truth: Sequence[QueryTruth], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """The matched objects' boxes as shares [N, 4]."""
    known = [_shares(t, size) for t, size in zip(truth, sizes, strict=True)]
    return torch.cat([known[i][pairs.object[pairs.picture == i]] for i in range(len(truth))])


def _silent(boxes: Tensor, truth: Sequence[QueryTruth], sizes: Sequence[tuple[int, int]]) -> Tensor | None:
    """bool [B, Q]: queries half of whose box lies in ignored regions; ``None`` if nothing is ignored."""
    if all(known.ignored is None for known in truth):
        return None
    out = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for i, (known, (height, width)) in enumerate(zip(truth, sizes, strict=True)):
        if known.ignored is None:
            continue
        sums = nn.functional.pad(known.ignored.float().cumsum(0).cumsum(1), (1, 0, 1, 0))
        pixels = _corners(boxes[i]) * boxes.new_tensor([width, height] * 2)
        x1, y1, x2, y2 = box_ops.clip(pixels, (height, width)).round().long().unbind(-1)
        covered = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
        area = (x2 - x1) * (y2 - y1)
        out[i] = (area > 0) & (2 * covered >= area)
    return out


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    channels: int = 256,
    heads: int = 8,
    hidden: int = 2048,
    encoder_depth: int = 6,
    decoder_depth: int = 6,
    dropout: float = 0.1,
    masks: bool = True,
    **options: Any,
) -> DETR:
    backbone = TimmBackbone(
        body, norm=norm, frozen_stages=frozen_stages, pretrained=pretrained, zero_init=zero_init
    )  # fmt: skip
    shape = {"heads": heads, "hidden": hidden, "dropout": dropout}
    return DETR(
        backbone,
        Encoder(channels, depth=encoder_depth, **shape),
        Decoder(channels, depth=decoder_depth, **shape),
        MaskHead(channels, heads, backbone.channels[2::-1]) if masks else None,
        AttentionMaps(channels, heads) if masks else None,
        taxonomy=taxonomy,
        widths=backbone.channels,
        channels=channels,
        **options,
    )


def detr_r50(taxonomy: Taxonomy, **options: Any) -> DETR:
    """ResNet-50, six encoder and six decoder layers of width 256, 100 queries; boxes and masks of objects."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def detr_r101(taxonomy: Taxonomy, **options: Any) -> DETR:
    """ResNet-101, else as ``detr_r50``."""
    return _build(taxonomy, **{"body": "resnet101", **options})


def detr_panoptic_r50(taxonomy: Taxonomy, **options: Any) -> DETR:
    """ResNet-50 with the mask head; a panoptic map (``task="instance"`` gives all queries' masks instead)."""
    return _build(taxonomy, **{"body": "resnet50", "task": "panoptic", **options})
