"""What of a scene trains a model: its objects, their boxes, and where nothing is known."""

from __future__ import annotations

import torch
from torch import Tensor

from maskwright.structures import Masks, Scene, Segments


def split(scene: Scene) -> tuple[Segments, Masks | None]:
    """Objects to learn, and the regions of crowds and of what is to be ignored, which make no negative."""
    objects = scene.objects()
    crowd = objects.crowd if objects.crowd is not None else torch.zeros(len(objects), dtype=torch.bool)
    parts = [] if scene.ignore is None else [scene.ignore]
    if bool(crowd.any()) and objects.masks is not None:
        parts.append(objects.masks[crowd.cpu()])
    return objects[~crowd], Masks.cat(parts) if parts else None


def boxes_of(objects: Segments) -> Tensor:
    """The objects' boxes [N, 4]; those of their masks where they have none."""
    if objects.boxes is not None:
        return objects.boxes
    if objects.masks is None:
        raise ValueError("a scene to learn from needs boxes or masks, and this one has neither")
    return objects.masks.boxes()


def masks_of(objects: Segments) -> Masks:
    """The objects' masks, or an error that says that they are what is learned."""
    if objects.masks is None:
        raise ValueError("this model learns from masks, but a scene has none; give masks or another objective")
    return objects.masks


def covered_at(regions: Masks | None, points: Tensor) -> Tensor | None:
    """bool [L]: whether points [L, 2] (x, y) lie in one of ``regions``; ``None`` where there are none."""
    if regions is None or len(regions) == 0:
        return None
    covered = torch.zeros(regions.size, dtype=torch.bool)
    for i in range(len(regions)):
        covered |= regions[i : i + 1].dense()[0]
    x, y = points.cpu().long().unbind(1)
    inside = (x < regions.size[1]) & (y < regions.size[0])
    hit = covered[y.clamp(max=regions.size[0] - 1), x.clamp(max=regions.size[1] - 1)]
    return (hit & inside).to(points.device)
