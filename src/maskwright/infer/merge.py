# pyright: basic
"""Several opinions on one picture made into one: THE merging core of test-time augmentation and of ensembles.

Opinions are scenes of the same size, whose classes are numbered alike, each with a weight.

Instances. Objects of different opinions that have one class and overlap are one object, as weighted boxes fusion
pairs boxes (R. Solovyev, W. Wang, T. Gabruseva, Image and Vision Computing 107, 2021, section 3), by mask IoU: by
falling score an object joins the group whose first object it covers best, if above ``agree``, and if no object of its
own opinion is there yet, since what one model keeps apart is two. The group's mask are the pixels that more than half
of its weight times score sees (mask voting: J. Dai, K. He, J. Sun, CVPR 2016, section 5). Its score is the weighted
mean over *all* opinions, those that did not see it with 0: the fusion's ``mean * min(T, N) / N``. Its box is the
weighted mean of the boxes where all opinions have boxes, else the mask's.

Semantic. The mean of the class probabilities where all models tell them (``infer.looks``), else each pixel's label of
most weight; of equal ones the first opinion's.

Panoptic. Things are merged as instances, and those that less than half of the weight sees are dropped, for a panoptic
map has no ranking that could do it; they claim their pixels by falling score (``ops.panoptic.fuse``). What is left is
the stuff of most weight, void where none sees any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.ops import panoptic
from maskwright.ops.rle_maps import encode_map, renumber
from maskwright.ops.votes import vote_labels, vote_masks
from maskwright.structures import Masks, Scene, Segments, Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging:
    """How opinions are merged.

    Attributes:
        agree: the mask IoU above which two objects of one class are one, in (0, 1).
        score_threshold: objects below it are left out after merging.
        max_per_image: so many objects are left at most.
    """

    agree: float = 0.5
    score_threshold: float = 0.0
    max_per_image: int = 100


def merge(
    scenes: Sequence[Scene], weights: Sequence[float], task: str, taxonomy: Taxonomy, how: Merging
) -> Scene:  # fmt: skip
    """One scene of several on one picture, as this file's head says.

    Raises:
        InputError: no opinions, sizes that differ, objects without masks, or weights that are not positive.
    """
    if not scenes or len(scenes) != len(weights) or any(not 0 < w < float("inf") for w in weights):
        raise InputError(f"merging needs opinions, each with a weight above 0, got {len(scenes)} and {list(weights)}.")
    sizes = {scene.size for scene in scenes}
    if len(sizes) > 1:
        raise InputError(f"opinions to merge must be on one picture, got sizes {sorted(sizes)}.")
    if task == "instance":
        objects, _ = merge_objects([scene.objects() for scene in scenes], weights, how)
        return Scene(size=scenes[0].size, segments=objects)
    if task == "semantic":
        maps = np.stack([scene.classes().numpy() for scene in scenes])
        return Scene(size=scenes[0].size, semantic=torch.from_numpy(vote_labels(maps, weights)))
    return _merge_panoptic(scenes, weights, taxonomy, how)


def merge_objects(
    opinions: Sequence[Segments], weights: Sequence[float], how: Merging
) -> tuple[Segments, Tensor]:  # fmt: skip
    """Objects of several opinions as one list by falling score, and the share of all weight that saw each, in (0, 1].

    Objects without scores count as sure.
    """
    size = opinions[0].size
    if any(each.masks is None for each in opinions):
        raise InputError("opinions are merged on masks, but a model gave objects without. Take one that gives masks.")
    masks = Masks.cat([each.masks for each in opinions if each.masks is not None])
    labels = torch.cat([each.labels for each in opinions]).numpy()
    scores = np.concatenate([_scores(each) for each in opinions])
    source = np.repeat(np.arange(len(opinions)), [len(each) for each in opinions])
    votes = np.asarray(weights, np.float64)[source]
    group, firsts = _groups(masks, labels, scores, source, how.agree)
    count, total = len(firsts), float(np.sum(weights))
    if count == 0:
        return Segments.empty(size, scored=True), torch.zeros(0)
    points = np.bincount(group, votes * scores, count) / total
    seen = np.bincount(group, votes, count) / total
    pixels = size[0] * size[1]
    power = np.maximum(votes * scores, 1e-9)
    counts, offsets = vote_masks(masks.counts.numpy(), masks.offsets.numpy(), group, power, pixels)
    merged = Masks.from_arrays(counts, offsets, size)
    lost = merged.area().numpy() == 0
    if lost.any():  # members that all overlap the first may have no majority anywhere
        order = np.where(lost, count + firsts, np.arange(count))
        merged = Masks.cat([merged, masks])[torch.from_numpy(order)]
    boxes = merged.boxes()
    if all(each.boxes is not None for each in opinions):
        given = torch.cat([each.boxes for each in opinions if each.boxes is not None]).double().numpy()
        sums = np.stack([np.bincount(group, power * given[:, k], count) for k in range(4)], 1)
        boxes = torch.from_numpy((sums / np.bincount(group, power, count)[:, None]).astype(np.float32))
    objects = Segments(
        size=size,
        labels=torch.from_numpy(labels[firsts]),
        masks=merged,
        boxes=boxes,
        scores=torch.from_numpy(np.clip(points, 0, 1).astype(np.float32)),
    )
    order = np.argsort(-points, kind="stable")
    order = torch.from_numpy(order[points[order] >= how.score_threshold][: how.max_per_image])
    return objects[order], torch.from_numpy(seen)[order]


def _scores(objects: Segments) -> np.ndarray:
    return np.ones(len(objects)) if objects.scores is None else objects.scores.double().numpy()


def _groups(
    masks: Masks, labels: np.ndarray, scores: np.ndarray, source: np.ndarray, agree: float
) -> tuple[np.ndarray, np.ndarray]:
    """The group of each object, int64 [N], and each group's first object, int64 [G]."""
    group, firsts = np.full(len(labels), -1, np.int64), list[int]()
    for label in np.unique(labels).tolist():
        mine = np.flatnonzero(labels == label)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        own = masks[torch.from_numpy(mine)]
        overlap = own.iou(own).numpy()
        begun, opened = list[int](), np.zeros(len(mine), bool)
        taken = np.zeros((len(mine), int(source.max(initial=0)) + 1), bool)
        for i in range(len(mine)):
            free = opened & ~taken[:, source[mine[i]]] & (overlap[i] > agree)
            best = int(np.argmax(np.where(free, overlap[i], -1.0)))
            if not free[best]:
                best, opened[i] = i, True
                begun.append(i)
                firsts.append(int(mine[i]))
                group[mine[i]] = len(firsts) - 1
            else:
                group[mine[i]] = group[mine[best]]
            taken[best, source[mine[i]]] = True
    return group, np.asarray(firsts, np.int64)


# ---- panoptic -------------------------------------------------------------------------------------------------------


def _merge_panoptic(scenes: Sequence[Scene], weights: Sequence[float], taxonomy: Taxonomy, how: Merging) -> Scene:
    thing = torch.tensor(taxonomy.thing)
    known = [scene.with_masks().objects() for scene in scenes]
    things, seen = merge_objects([each[thing[each.labels]] for each in known], weights, replace(how, score_threshold=0))
    keep = seen >= 0.5 - 1e-9
    things = things[keep]
    if things.scores is not None:  # of those that saw it: whether it is there has been decided
        things = replace(things, scores=(things.scores / seen[keep].float()).clamp(0, 1))
    return compose(things, stuff_of(scenes, weights, taxonomy), [stuff_scores(each, thing) for each in known], weights)


def stuff_of(scenes: Sequence[Scene], weights: Sequence[float], taxonomy: Taxonomy) -> np.ndarray:
    """The stuff that most weight sees at each pixel, int64 [H, W], -1 where none is seen."""
    thing = np.append(taxonomy.thing, True)  # -1, void, takes the last place
    maps = [scene.classes().numpy() for scene in scenes]
    return vote_labels(np.stack([np.where(thing[each], -1, each) for each in maps]), weights)


def stuff_scores(objects: Segments, thing: Tensor) -> dict[int, float]:
    """What the segments of stuff are scored, class -> score; ``thing`` are bool [C]."""
    return {
        int(label): float(score)
        for label, score, is_thing in zip(objects.labels, _scores(objects), thing[objects.labels], strict=True)
        if not is_thing
    }


def compose(
    things: Segments, stuff: np.ndarray, said: Sequence[dict[int, float]] = (), weights: Sequence[float] = ()
) -> Scene:
    """A panoptic scene of things, which claim their pixels by falling score, on a map of stuff, -1 where none is.

    Args:
        said: what each opinion scores the stuff it sees; 1 where none says it. weights: of the opinions.
    """
    size = (int(stuff.shape[0]), int(stuff.shape[1]))
    masks, scores = things.masks, things.scores
    assert masks is not None
    assert scores is not None
    fused = panoptic.fuse(
        (masks.counts.numpy(), masks.offsets.numpy()), things.labels.numpy(), scores.numpy(), stuff, stuff_area=1
    )
    points = np.ones(len(fused), np.float32)
    for i in range(len(fused)):
        if fused.source[i] >= 0:
            points[i] = float(scores[int(fused.source[i])])
            continue
        each = [(w, s[int(fused.labels[i])]) for w, s in zip(weights, said, strict=True) if int(fused.labels[i]) in s]
        if each:
            points[i] = sum(w * s for w, s in each) / sum(w for w, _ in each)
    order = torch.from_numpy(np.argsort(-points, kind="stable"))
    names = np.arange(1, len(fused) + 1)
    runs = Masks.from_arrays(*encode_map(fused.ids, names), size)[order]
    segments = Segments(
        size=size,
        labels=torch.from_numpy(fused.labels)[order],
        masks=runs,
        boxes=runs.boxes(),
        scores=torch.from_numpy(points)[order],
        ids=torch.from_numpy(names)[order],
    )
    semantic = torch.from_numpy(renumber(fused.ids, names, fused.labels, -1))
    return Scene(size=size, segments=segments, panoptic=torch.from_numpy(fused.ids), semantic=semantic)
