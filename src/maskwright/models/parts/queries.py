"""What families of queries share: from class and mask logits to scenes, and what their sets of predictions learn.

Each of Q queries says one of C classes or "nothing" (its last logit) and draws one mask. Three readings of that:

    semantic   each pixel takes the class with the largest sum over queries of class times mask probability
    panoptic   confident queries compete for each pixel; who loses most of its mask disappears; stuff is merged
    instance   the best pairs of query and class, each with its whole mask

Nothing here holds all masks at the picture's size: see ``ops.query_maps``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.parts.truth import split
from maskwright.ops import query_maps
from maskwright.ops.query_maps import Resampling
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Geometry, Masks, Scene, Segments, Taxonomy

# ---- from logits to scenes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRule:
    """Details of decoding in which public implementations differ.

    Attributes:
        direct: masks become probabilities first and then have the file's size in one step (transformers); else logits
            are enlarged to the padded picture, cut, and resized to the file's size (MaskFormer, Mask2Former).
        overlap: a segment that keeps less than this share of the pixels it claims disappears.
        claim: a query claims the pixels where its mask's probability reaches this.
        weighted: that probability is multiplied by the query's score before (transformers).
        inside: a segment has no pixels but those it claims (Mask2Former).
    """

    direct: bool = False
    overlap: float = 0.8
    claim: float = 0.5
    weighted: bool = False
    inside: bool = False

    def resampling(self, cells: Tensor, padded: tuple[int, int], view: Geometry) -> Resampling:
        """How maps [..., h, w] of a ``padded`` picture become the file's picture."""
        build = Resampling.direct if self.direct else Resampling.chained
        return build((cells.shape[-2], cells.shape[-1]), padded, view.valid, view.original)


QUERY_RULES: Mapping[str, QueryRule] = {
    "maskformer": QueryRule(),
    "mask2former": QueryRule(inside=True),
    "transformers": QueryRule(direct=True, weighted=True),
}
"""Decoding by name; ``dataclasses.replace`` changes a number."""


def semantic_scene(
    class_logits: Tensor, mask_logits: Tensor, view: Geometry, padded: tuple[int, int], rule: QueryRule
) -> Scene:
    """A label for every pixel of the file: [Q, C + 1] and [Q, h, w] of the ``padded`` picture."""
    prob = class_logits.float().softmax(-1)[:, :-1]
    way = rule.resampling(mask_logits, padded, view)
    semantic = query_maps.likeliest(prob, mask_logits, way, logits=not rule.direct, squash=rule.direct).cpu()
    return Scene(size=view.original, semantic=semantic)


def panoptic_scene(
    class_logits: Tensor,
    mask_logits: Tensor,
    view: Geometry,
    padded: tuple[int, int],
    taxonomy: Taxonomy,
    rule: QueryRule,
    *,
    score_threshold: float,
    max_per_image: int | None = None,
) -> Scene:
    """Segments that share no pixel, and their map: [Q, C + 1] and [Q, h, w] of the ``padded`` picture.

    Args:
        score_threshold: queries below it, and those that say "nothing", take no part.
        max_per_image: so many queries take part at most, the best ones.
    """
    query, labels, scores = confident(class_logits, score_threshold, max_per_image)
    if not len(query):
        return fused_scene(torch.zeros(view.original, dtype=torch.int64), labels, scores, [])
    way = rule.resampling(mask_logits, padded, view)
    found = query_maps.contest(
        mask_logits, way, scores, logits=not rule.direct, threshold=rule.claim, weighted=rule.weighted,
        index=query, squash=rule.direct,
    )  # fmt: skip
    won, claimed, names = found.won.tolist(), found.claimed.tolist(), labels.tolist()
    segment: list[int] = []
    first: dict[int, int] = {}
    count = 0
    for own, all_of_it, label in zip(won, claimed, names, strict=True):
        if own == 0 or all_of_it == 0 or own / all_of_it < rule.overlap:
            segment.append(0)
            continue
        if taxonomy.thing[label] or label not in first:
            count += 1
            first.setdefault(label, count)
            segment.append(count)
        else:
            segment.append(first[label])
    ids = torch.tensor(segment, device=found.owner.device)[found.owner.int()]
    if rule.inside:
        ids *= found.sure
    return fused_scene(ids.cpu(), labels, scores, segment)


def fused_scene(ids: Tensor, labels: Tensor, scores: Tensor, segment: Sequence[int]) -> Scene:
    """The scene of a map of segment ids, int64 [H, W] with 0 for void, by falling score; classes of pixels with it.

    Args:
        labels, scores: [K] of the queries that took part. segment: the id that each became, 0 for none; a segment of
            several queries has the first one's label and score.
    """
    size = (ids.shape[0], ids.shape[1])
    leader: dict[int, int] = {}
    for query, name in enumerate(segment):
        if name:
            leader.setdefault(name, query)
    names = torch.tensor(list(leader), dtype=torch.int64)
    chosen = torch.tensor(list(leader.values()), dtype=torch.int64)
    masks = Masks.from_arrays(*encode_map(ids.numpy(), names.numpy()), size)
    there = masks.area() > 0
    points = scores.detach().float().cpu()[chosen]
    order = torch.argsort(points, descending=True, stable=True)
    order = order[there[order]]
    masks = masks[order]
    segments = Segments(
        size=size, labels=labels.cpu()[chosen][order], masks=masks, boxes=masks.boxes(), scores=points[order],
        ids=names[order],
    )  # fmt: skip
    classes = torch.full((max([0, *leader]) + 1,), -1, dtype=torch.int64)
    classes[names] = labels.cpu()[chosen]
    semantic = classes[ids]
    return Scene(size=size, segments=segments, panoptic=ids, semantic=semantic)


def instance_scene(
    class_logits: Tensor,
    mask_logits: Tensor,
    view: Geometry,
    padded: tuple[int, int],
    taxonomy: Taxonomy,
    rule: QueryRule,
    *,
    score_threshold: float,
    max_per_image: int,
) -> Scene:
    """Things by falling score: class probability times the mean mask probability inside (Mask2Former, section 4.1).

    The ``max_per_image`` best pairs of query and class are looked at; a query may stand for several classes.
    """
    prob = class_logits.float().softmax(-1)[:, :-1]
    scores, best = prob.flatten().topk(min(max_per_image, prob.numel()))
    labels, query = best % prob.shape[1], torch.div(best, prob.shape[1], rounding_mode="floor")
    thing = torch.tensor(taxonomy.thing, device=labels.device)[labels]
    scores, labels, query = scores[thing], labels[thing], query[thing]
    drawn, where = query.unique(return_inverse=True)
    maps = mask_logits[drawn].float()
    way = rule.resampling(maps, padded, view)
    runs, inside = query_maps.above(maps.sigmoid() if rule.direct else maps, way, logits=not rule.direct)
    where = where.cpu()
    scores, labels = scores.cpu() * inside[where], labels.cpu()
    masks = Masks.from_arrays(*runs, view.original)[where]
    keep = torch.argsort(scores, descending=True, stable=True)
    keep = keep[(scores[keep] >= score_threshold) & (masks.area()[keep] > 0)]
    masks = masks[keep]
    segments = Segments(
        size=view.original, labels=labels[keep], masks=masks, boxes=masks.boxes(), scores=scores[keep]
    )  # fmt: skip
    return Scene(size=view.original, segments=segments)


def confident(class_logits: Tensor, threshold: float, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [K], rising, whose likeliest class is one, above ``threshold``; with those labels [K] and scores [K].

    Args:
        class_logits: [Q, C + 1]. limit: the best ``limit`` of them.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    query = torch.nonzero((labels < class_logits.shape[-1] - 1) & (scores > threshold)).flatten()
    if limit is not None and len(query) > limit:
        query = query[scores[query].topk(limit).indices].sort().values
    return query, labels[query], scores[query]


# ---- what queries learn ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueryTruth:
    """What the queries of one picture learn.

    Attributes:
        labels: int64 [G]. masks: G masks, ``None`` where unknown. boxes: float32 [G, 4] in pixels, ``None`` likewise.
        ignored: bool [H, W] on the padded picture, crowds and what is to be ignored; ``None`` for nowhere.
    """

    labels: Tensor
    masks: Masks | None
    boxes: Tensor | None
    ignored: Tensor | None

    def dense(self, index: Tensor, padded: tuple[int, int]) -> Tensor:
        """bool [N, H, W] of the masks at ``index`` [N] on the padded picture, without what is ignored."""
        if self.masks is None:
            raise ValueError("this model learns from masks, but a scene has none; give masks or another objective")
        return pad_masks(self.masks[index.cpu()], padded, self.labels.device, self.ignored)


def query_truth(scene: Scene, taxonomy: Taxonomy, padded: tuple[int, int], device: torch.device) -> QueryTruth:
    """The objects of a scene as queries learn them; regions of stuff count as objects.

    Classes that only a semantic map has are added, one region a class; crowds and ignored regions teach nothing.
    """
    objects, void = split(_with_regions(scene, taxonomy))
    masks, boxes = objects.masks, objects.boxes
    if boxes is None and masks is not None:
        boxes = masks.boxes()
    ignored = None
    if void is not None and len(void):
        covered = torch.zeros(void.size, dtype=torch.bool)
        for i in range(len(void)):
            covered |= void[i : i + 1].dense()[0]
        ignored = functional.pad(covered, (0, padded[1] - void.size[1], 0, padded[0] - void.size[0])).to(device)
    if masks is not None:  # what disappeared in a crop cannot be found
        there = masks.area() > 0
        if not bool(there.all()):
            objects, masks = objects[there], masks[there]
            boxes = None if boxes is None else boxes[there.to(boxes.device)]
    return QueryTruth(objects.labels.to(device), masks, None if boxes is None else boxes.to(device), ignored)


def _with_regions(scene: Scene, taxonomy: Taxonomy) -> Scene:
    """The scene with a segment for each class that its semantic map alone knows."""
    segments, semantic = scene.segments, scene.semantic
    if segments is not None and segments.masks is None and scene.panoptic is not None and segments.ids is not None:
        runs = encode_map(scene.panoptic.cpu().numpy(), segments.ids.cpu().numpy())
        segments = Segments(
            size=scene.size, labels=segments.labels, masks=Masks.from_arrays(*runs, scene.size), crowd=segments.crowd
        )
    if semantic is not None and (segments is None or segments.masks is not None):
        known = set() if segments is None else set(segments.labels.tolist())
        things = segments is not None and any(taxonomy.thing[label] for label in known)
        new = [
            label for label in semantic.unique().tolist()
            if label >= 0 and label not in known and not (things and taxonomy.thing[label])
        ]  # fmt: skip
        runs = encode_map(semantic.cpu().numpy(), np.array(new, np.int64))
        added = Segments(
            size=scene.size, labels=torch.tensor(new, dtype=torch.int64), masks=Masks.from_arrays(*runs, scene.size)
        )
        segments = added if segments is None else _joined(segments, added)
    return Scene(size=scene.size, segments=segments, ignore=scene.ignore)


def _joined(segments: Segments, added: Segments) -> Segments:
    crowd = segments.crowd if segments.crowd is not None else torch.zeros(len(segments), dtype=torch.bool)
    plain = [
        Segments(size=part.size, labels=part.labels.cpu(), masks=part.masks, crowd=flags.cpu())
        for part, flags in ((segments, crowd), (added, torch.zeros(len(added), dtype=torch.bool)))
    ]
    return Segments.cat(plain)


def pad_masks(masks: Masks, padded: tuple[int, int], device: torch.device, without: Tensor | None = None) -> Tensor:
    """bool [N, H, W]: the masks on the padded picture, but not where ``without`` [H, W] is set."""
    dense = masks.dense(device)
    dense = functional.pad(dense, (0, padded[1] - dense.shape[2], 0, padded[0] - dense.shape[1]))
    return dense if without is None else dense & ~without


def focal_cost(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """[Q, G]: the mean focal loss over P pixels of each pair of mask logits [Q, P] and targets [G, P]."""
    prob = logits.sigmoid()
    positive = (1 - prob).pow(gamma) * functional.softplus(-logits) * alpha
    negative = prob.pow(gamma) * functional.softplus(logits) * (1 - alpha)
    return (positive @ targets.T + negative @ (1 - targets).T) / max(logits.shape[1], 1)


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """[Q, G]: 1 - Dice of each pair of mask logits [Q, P] and targets [G, P], with 1 added above and below."""
    prob = logits.sigmoid()
    both = prob.sum(1)[:, None] + targets.sum(1)[None]
    return 1 - (2 * (prob @ targets.T) + 1) / (both + 1)


@dataclass(frozen=True, slots=True)
class Matches:
    """Which query of which picture stands for which object, for N pairs of all pictures, one after the other.

    Attributes:
        picture, query, object: int64 [N]. labels: int64 [N] of the objects.
        silent: bool [B, Q], queries that stand for nothing but lie in ignored regions; they are not told off.
    """

    picture: Tensor
    query: Tensor
    object: Tensor
    labels: Tensor
    silent: Tensor | None = None

    @classmethod
    def of(
        cls, pairs: Sequence[tuple[Tensor, Tensor]], truth: Sequence[QueryTruth], silent: Tensor | None = None
    ) -> Matches:
        """From the (query, object) pairs of each picture."""
        picture = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(pairs)])
        labels = torch.cat([t.labels[chosen] for (_, chosen), t in zip(pairs, truth, strict=True)])
        return cls(picture, torch.cat([q for q, _ in pairs]), torch.cat([o for _, o in pairs]), labels, silent)

    def __len__(self) -> int:
        return len(self.picture)

    def weights(self, logits: Tensor, no_object: float) -> Tensor:
        """float32 [B, Q]: how much each query's class counts; ``no_object`` for one that stands for nothing."""
        weights = torch.full(logits.shape[:2], no_object, device=logits.device)
        if self.silent is not None:
            weights[self.silent] = 0.0
        weights[self.picture, self.query] = 1.0
        return weights

    def class_sum(self, logits: Tensor, no_object: float) -> tuple[Tensor, Tensor]:
        """The weighted sum of the cross-entropy of [B, Q, C + 1], and the sum of weights."""
        wanted = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
        wanted[self.picture, self.query] = self.labels
        weights = self.weights(logits, no_object)
        each = functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
        return (each * weights.flatten()).sum(), weights.sum()


def silent_masks(mask_logits: Tensor, truth: Sequence[QueryTruth]) -> Tensor | None:
    """bool [B, Q]: queries most of whose mask [B, Q, h, w] lies in ignored regions; ``None`` if nothing is ignored."""
    if all(t.ignored is None for t in truth):
        return None
    out = torch.zeros(mask_logits.shape[:2], dtype=torch.bool, device=mask_logits.device)
    for i, known in enumerate(truth):
        if known.ignored is not None:
            there = shrink(known.ignored[None], mask_logits)[0].bool()
            drawn = mask_logits[i].detach() > 0
            out[i] = 2 * (drawn & there).flatten(1).sum(1) > drawn.flatten(1).sum(1)
    return out


def shrink(dense: Tensor, like: Tensor) -> Tensor:
    """bool [N, H, W] at the cells of ``like`` [..., h, w], float32: the nearest pixel of each."""
    return functional.interpolate(dense[:, None].float(), size=like.shape[-2:], mode="nearest")[:, 0]


def enlarge(logits: Tensor, padded: tuple[int, int], ignored: Tensor | None) -> Tensor:
    """Mask logits [N, h, w] on the padded picture [N, H, W], float32; where ``ignored`` they are surely background."""
    out = functional.interpolate(logits[:, None].float(), size=padded, mode="bilinear", align_corners=False)[:, 0]
    return out if ignored is None else out.masked_fill(ignored, -20.0)
