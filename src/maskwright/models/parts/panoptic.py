"""What panoptic and semantic families share: from fused maps to scenes, and from scenes to a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskwright.ops import rle
from maskwright.ops.panoptic import Fused
from maskwright.ops.rle_maps import encode_map, paint_map, renumber
from maskwright.structures import Batch, Masks, Scene, Segments, Taxonomy

# ---- from maps to scenes --------------------------------------------------------------------------------------------


def fused_scene(fused: Fused, scores: Tensor, semantic: Tensor | None = None) -> Scene:
    """The scene of a panoptic map: objects by falling score, of things and stuff alike, with their ids in the map.

    Args:
        fused: S segments.
        scores: floating [S] in [0, 1], in the order of ``fused``.
        semantic: int64 [H, W], -1 where void; by default each segment's class, and void where the map is.
    """
    size = (fused.ids.shape[0], fused.ids.shape[1])
    points = scores.detach().float().cpu().clamp(0, 1)
    order = torch.argsort(points, descending=True, stable=True)
    names = np.arange(1, len(fused) + 1)
    masks = Masks.from_arrays(*encode_map(fused.ids, names), size)[order]
    if semantic is None:
        semantic = torch.from_numpy(renumber(fused.ids, names, fused.labels, -1))
    segments = Segments(
        size=size,
        labels=torch.from_numpy(fused.labels)[order],
        masks=masks,
        boxes=masks.boxes(),
        scores=points[order],
        ids=torch.from_numpy(names)[order],
    )
    return Scene(size=size, segments=segments, panoptic=torch.from_numpy(fused.ids), semantic=semantic.cpu())


# ---- from scenes to maps --------------------------------------------------------------------------------------------


def semantic_of(scene: Scene) -> Tensor:
    """The class of each pixel, int64 [H, W] on the host, -1 where void or to be ignored.

    The semantic map as it is; else the classes of the panoptic map; else objects are painted, crowds first, then from
    large to small, and what none covers is void.

    Raises:
        ValueError: nothing in the scene says it.
    """
    objects = scene.segments
    if scene.semantic is not None or (objects is not None and scene.panoptic is not None):
        out = scene.classes().cpu().clone()
    elif objects is not None and objects.masks is not None:
        runs = objects.masks.counts.numpy(), objects.masks.offsets.numpy()
        crowd = np.zeros(len(objects), bool) if objects.crowd is None else objects.crowd.cpu().numpy()
        order = np.lexsort((-rle.area(*runs), ~crowd))
        labels = objects.labels.cpu().numpy()[order]
        out = torch.from_numpy(paint_map(*rle.take(*runs, order), scene.size, labels, background=-1))
    else:
        raise ValueError("a scene to learn classes of pixels from needs a semantic map, a panoptic map or masks")
    return out.masked_fill_(ignored_at(scene), -1) if scene.ignore is not None and len(scene.ignore) else out


def ignored_at(scene: Scene) -> Tensor:
    """bool [H, W], where ``scene.ignore`` is."""
    if scene.ignore is None:
        return torch.zeros(scene.size, dtype=torch.bool)
    regions = scene.ignore
    ones = np.ones(len(regions), np.int64)
    return torch.from_numpy(paint_map(regions.counts.numpy(), regions.offsets.numpy(), scene.size, ones) > 0)


def semantic_target(
    scenes: Batch | Sequence[Scene], padded: Sequence[int], device: torch.device | str, mapping: Sequence[int] = ()
) -> Tensor:
    """What every pixel of a batch should be, int64 [B, H, W], -1 where void, ignored, or padded.

    Args:
        scenes: of a batch, on the valid sizes of its pictures.
        padded: (H, W) of the batch's pixels. device: where the result goes.
        mapping: the value each class becomes; by default itself. -1 is void.

    Raises:
        ValueError: a scene does not say the classes of its pixels.
    """
    truth = scenes.truth() if isinstance(scenes, Batch) else scenes
    out = torch.full((len(truth), int(padded[0]), int(padded[1])), -1, dtype=torch.int64)
    for i, scene in enumerate(truth):
        out[i, : scene.size[0], : scene.size[1]] = semantic_of(scene)
    if len(mapping):
        table = torch.tensor([*mapping, -1], dtype=torch.int64)  # the last one is what -1 finds
        out = table[out]
    return out.to(device)


# ---- things and stuff -----------------------------------------------------------------------------------------------


def things_only(scene: Scene, taxonomy: Taxonomy) -> Scene:
    """The countable objects of a scene, their labels counted among things alone; ignored regions stay."""
    objects = scene.with_masks().objects()
    dense = torch.tensor(thing_index(taxonomy), device=objects.labels.device)[objects.labels]
    chosen = objects[dense >= 0]
    segments = Segments(
        size=chosen.size, labels=dense[dense >= 0], masks=chosen.masks, boxes=chosen.boxes, crowd=chosen.crowd
    )
    return Scene(size=scene.size, segments=segments, ignore=scene.ignore)


def thing_index(taxonomy: Taxonomy) -> list[int]:
    """For each class its place among things, -1 for stuff."""
    places = np.cumsum(taxonomy.thing) - 1
    return np.where(taxonomy.thing, places, -1).tolist()


def thing_labels(taxonomy: Taxonomy) -> list[int]:
    """The classes that are things, rising: ``thing_index`` undone."""
    return [label for label, thing in enumerate(taxonomy.thing) if thing]


def thing_taxonomy(taxonomy: Taxonomy) -> Taxonomy:
    """The classes that are things, in their order."""
    kept = thing_labels(taxonomy)
    return Taxonomy(
        names=tuple(taxonomy.names[i] for i in kept),
        colors=tuple(taxonomy.colors[i] for i in kept),
        source_ids=tuple(taxonomy.source_ids[i] for i in kept),
    )
