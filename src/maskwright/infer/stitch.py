# pyright: basic
"""What was found in overlapping tiles as one scene of the whole picture, without seams.

Masks stay run-lengths from tile to picture; nothing dense is larger than a tile but the maps of semantic and panoptic
scenes themselves. Each tile has a *core*, its part of the picture up to the middle of every overlap; cores fill the
picture without overlap.

Objects. In the zone that two tiles share both see the same pixels, so their objects are compared there, as run-lengths:
objects of one class are one if in the zone their IoU is at least ``agree``, or if one of them is *cut* by the border of
its tile, so that its extent is not known, and at least ``agree`` of the smaller one's part of the zone is common. Links
chain: an object that crosses many tiles becomes one. A joined object that some tile shows whole (not cut, at least
``WHOLE`` of the union) is taken from that tile, from the surest of several; otherwise each tile that has a part of it
decides the pixels of its own core. Its score is the highest of its parts, as suppression of duplicates would leave.

An object that found no partner, lies mostly outside of the core of its tile, and is either cut, or covered by what the
tile saw to which the place belongs, is dropped: that tile saw the place with more around it.

Maps. Each pixel is what the tile says in whose core it lies. Panoptic: stuff like a semantic map, things like objects;
things claim their pixels by falling score (``infer.merge.compose``); stuff has the mean of the tiles' scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from maskwright.errors import InputError
from maskwright.infer.merge import compose, stuff_scores
from maskwright.ops import rle
from maskwright.ops.rle_core import Runs
from maskwright.structures import Masks, Scene, Segments, Taxonomy

Window = tuple[int, int, int, int]
"""(top, left, height, width) in pixels of the picture."""

WHOLE = 0.8
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's window, and its core, which lies inside of it."""

    window: Window
    core: Window


@dataclass(slots=True, eq=False)
class _Seen:
    """Objects of one tile: runs on the tile, numbered from ``first`` in the picture."""

    tile: Tile
    runs: Runs
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    cut: np.ndarray
    first: int
    covered: np.ndarray = field(init=False)
    """float64 [n], the largest share of each object that another tile's objects cover."""

    def __post_init__(self) -> None:
        self.covered = np.zeros(len(self.labels))

    def touching(self, zone: Window) -> np.ndarray:
        """Which objects' boxes reach into a window of the picture."""
        top, left, height, width = zone[0] - self.tile.window[0], zone[1] - self.tile.window[1], *zone[2:]
        x1, y1, x2, y2 = self.boxes.T
        return np.flatnonzero((x2 > left) & (x1 < left + width) & (y2 > top) & (y1 < top + height))

    def within(self, zone: Window, index: np.ndarray) -> Runs:
        """The runs of some objects on a window of the picture."""
        top, left, height, width = self.tile.window
        chosen = rle.take(*self.runs, index)
        return rle.window(*chosen, (height, width), (zone[0] - top, zone[1] - left, zone[2], zone[3]))


class Stitcher:
    """Takes the scenes of tiles one after the other, gives the scene of the picture.

    Args:
        size: (H, W) of the picture.
        task: instance, semantic or panoptic. taxonomy: the classes.
        agree: see the head of this file, in (0, 1].
    """

    def __init__(self, size: tuple[int, int], task: str, taxonomy: Taxonomy, agree: float = 0.5) -> None:
        rle.canvas(size)
        self.size, self.task, self.taxonomy, self.agree = size, task, taxonomy, agree
        self.seen: list[_Seen] = []
        self.count = 0
        self.links: list[tuple[int, int]] = []
        self.stuff: list[dict[int, float]] = []
        self.map = None if task == "instance" else np.full(size, -1, np.int16)

    def add(self, tile: Tile, scene: Scene) -> None:
        """What was found in a tile, in the tile's own pixels.

        Raises:
            InputError: the scene does not lie on the tile, or its objects have no masks.
        """
        if scene.size != tile.window[2:]:
            raise InputError(f"a tile's scene must have size {tile.window[2:]}, got {scene.size}.")
        if self.map is not None:
            classes = scene.classes().cpu().numpy()
            if self.task == "panoptic":
                thing = np.append(self.taxonomy.thing, True)  # -1, void, takes the last place
                classes = np.where(thing[classes], -1, classes)
            top, left, height, width = tile.core
            y, x = top - tile.window[0], left - tile.window[1]
            self.map[top : top + height, left : left + width] = classes[y : y + height, x : x + width]
        if self.task != "semantic":
            self._add_objects(tile, scene.with_masks().objects())

    def scene(self, max_per_image: int | None = None) -> Scene:
        """The whole picture's scene; objects by falling score, at most ``max_per_image`` of instances."""
        if self.task == "semantic":
            assert self.map is not None
            return Scene(size=self.size, semantic=torch.from_numpy(self.map.astype(np.int64)))
        things = self._joined()
        if self.map is not None:
            return compose(things, self.map, self.stuff, [1.0] * len(self.stuff))
        return Scene(size=self.size, segments=things if max_per_image is None else things[:max_per_image])

    # ---- objects ----------------------------------------------------------------------------------------------------

    def _add_objects(self, tile: Tile, objects: Segments) -> None:
        if self.task == "panoptic":
            thing = torch.tensor(self.taxonomy.thing)
            self.stuff.append(stuff_scores(objects, thing))
            objects = objects[thing[objects.labels]]
        if objects.masks is None:
            raise InputError("tiles are stitched on masks, but the model gave objects without. Take one that has them.")
        objects = objects[objects.masks.area() > 0]
        assert objects.masks is not None
        boxes = objects.masks.boxes().numpy()
        top, left, height, width = tile.window
        # A border of the tile that is one of the picture cuts nothing.
        near = np.array([left > 0, top > 0]) & (boxes[:, :2] <= _MARGIN)
        far = np.array([left + width < self.size[1], top + height < self.size[0]])
        far = far & (boxes[:, 2:] >= np.array([width, height]) - _MARGIN)
        scores = np.ones(len(objects)) if objects.scores is None else objects.scores.double().numpy()
        cut = np.asarray(np.concatenate([near, far], axis=1).any(1))
        runs = objects.masks.counts.numpy(), objects.masks.offsets.numpy()
        new = _Seen(tile, runs, objects.labels.numpy(), scores, boxes, rle.area(*runs), cut, self.count)
        if len(objects):
            for old in self.seen:
                self._compare(old, new)
            self.seen.append(new)
            self.count += len(objects)

    def _compare(self, old: _Seen, new: _Seen) -> None:
        zone = _common(old.tile.window, new.tile.window)
        if zone is None:
            return
        a, b = old.touching(zone), new.touching(zone)
        if not len(a) or not len(b):
            return
        first, second = old.within(zone, a), new.within(zone, b)
        common = rle.intersection(*first, *second, height=zone[2]).astype(np.float64)
        old.covered[a] = np.maximum(old.covered[a], common.sum(1) / old.areas[a])
        new.covered[b] = np.maximum(new.covered[b], common.sum(0) / new.areas[b])
        mine, theirs = rle.area(*first)[:, None], rle.area(*second)[None]
        same = old.labels[a][:, None] == new.labels[b][None]
        smaller = np.where(mine < theirs, mine, theirs)
        # Which is cut: the smaller part, for a whole object inside of a larger one says nothing about that one.
        cut = np.where(mine < theirs, old.cut[a][:, None], new.cut[b][None])
        cut |= (mine == theirs) & (old.cut[a][:, None] | new.cut[b][None])
        equal = common >= self.agree * (mine + theirs - common)
        part = cut & (common >= self.agree * smaller)
        for i, j in np.argwhere(same & (common > 0) & (equal | part)).tolist():
            self.links.append((old.first + int(a[i]), new.first + int(b[j])))

    def _joined(self) -> Segments:
        """The picture's objects, on the picture."""
        if self.count == 0:
            return Segments.empty(self.size, scored=True)
        group = _components(self.count, self.links)
        home = np.repeat(np.arange(len(self.seen)), [len(seen.labels) for seen in self.seen])
        members: dict[int, list[tuple[int, int]]] = {}
        for number, (root, place) in enumerate(zip(group.tolist(), home.tolist(), strict=True)):
            members.setdefault(root, []).append((place, number - self.seen[place].first))
        labels, scores, runs = list[int](), list[float](), list[np.ndarray]()
        for parts in members.values():
            if len(parts) == 1 and self._belongs_elsewhere(*parts[0]):
                continue
            labels.append(int(self.seen[parts[0][0]].labels[parts[0][1]]))
            scores.append(max(float(self.seen[k].scores[i]) for k, i in parts))
            runs.append(self._mask(parts))
        if not labels:
            return Segments.empty(self.size, scored=True)
        order = np.argsort(-np.asarray(scores), kind="stable")
        ordered = [runs[i] for i in order.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in ordered])]).astype(np.int64)
        masks = Masks.from_arrays(np.concatenate(ordered), offsets, self.size)
        return Segments(
            size=self.size,
            labels=torch.tensor(labels)[torch.from_numpy(order)],
            masks=masks,
            boxes=masks.boxes(),
            scores=torch.tensor(scores, dtype=torch.float32)[torch.from_numpy(order)],
        )

    def _belongs_elsewhere(self, place: int, index: int) -> bool:
        seen = self.seen[place]
        if not seen.cut[index] and seen.covered[index] < 0.5:
            return False
        inside = int(rle.area(*seen.within(seen.tile.core, np.array([index])))[0])
        return 2 * inside < int(seen.areas[index])

    def _mask(self, parts: Sequence[tuple[int, int]]) -> np.ndarray:
        """The runs of an object on the picture, of its parts: (place in ``seen``, index there)."""
        whole = [self._placed(*part) for part in parts]
        if len(parts) == 1:
            return whole[0]
        union = _union(whole)
        least = WHOLE * int(union[1::2].sum(dtype=np.int64))
        complete = [
            (-float(self.seen[k].scores[i]), -int(self.seen[k].areas[i]), n)
            for n, (k, i) in enumerate(parts)
            if not self.seen[k].cut[i] and self.seen[k].areas[i] >= least
        ]
        if complete:
            return whole[min(complete)[2]]
        pieces: list[np.ndarray] = []
        present = {k for k, _ in parts}
        cores = [self.seen[k].tile.core for k in sorted(present)]
        for (k, i), runs in zip(parts, whole, strict=True):
            others = [core for core in cores if core != self.seen[k].tile.core]
            others = [zone for core in others if (zone := _common(core, self.seen[k].tile.window)) is not None]
            pieces.append(self._without(k, i, others) if others else runs)
        return _union(pieces)

    def _without(self, place: int, index: int, zones: Sequence[Window]) -> np.ndarray:
        """An object on the picture, less what of it lies in windows that do not overlap."""
        seen = self.seen[place]
        one = np.array([index])
        lost = [self._on_picture(seen.within(zone, one), zone) for zone in zones]
        return _difference(self._placed(place, index), _union(lost))

    def _placed(self, place: int, index: int) -> np.ndarray:
        seen = self.seen[place]
        return self._on_picture(rle.take(*seen.runs, np.array([index])), seen.tile.window)

    def _on_picture(self, runs: Runs, window: Window) -> np.ndarray:
        top, left, height, width = window
        return rle.window(*runs, (height, width), (-top, -left, *self.size))[0]


# ---- small things ---------------------------------------------------------------------------------------------------


def _common(a: Window, b: Window) -> Window | None:
    top, left = max(a[0], b[0]), max(a[1], b[1])
    bottom, right = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def _together(masks: Sequence[np.ndarray]) -> Runs:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in masks])]).astype(np.int64)
    return np.concatenate(masks), offsets


def _union(masks: Sequence[np.ndarray]) -> np.ndarray:
    return masks[0] if len(masks) == 1 else rle.union(*_together(masks))


def _difference(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``mask`` where ``other`` is not: what it has in common with the complement, whose runs are shifted by one."""
    complement = other[1:] if len(other) and other[0] == 0 else np.concatenate([[0], other]).astype(np.int32)
    return rle.intersect(*_together([mask, complement]))


def _components(count: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """The smallest number of each object's chain of links, int64 [count]."""
    root = np.arange(count)

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for a, b in links:
        x, y = find(a), find(b)
        root[max(x, y)] = min(x, y)
    return np.array([find(i) for i in range(count)], np.int64)
