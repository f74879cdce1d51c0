"""How far annotators agree: objects matched between them, classes of pixels, outlines; for each pair and over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics._form import SIGNED, Key, PerImage, undefined
from maskwright.ops import rle
from maskwright.ops.consensus import cohen
from maskwright.ops.distance import distance_to, surface

if TYPE_CHECKING:
    from maskwright.structures import Scene

Runs = tuple[np.ndarray, np.ndarray]
_SUMS = 5  # matched, only the first, only the second, IoUs, distances


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one annotator says of one image.

    Attributes:
        labels: int64 [N], classes of the objects.
        runs: their masks.
        semantic: integers [H, W], the class of each pixel, C where none.
    """

    labels: np.ndarray
    runs: Runs
    semantic: np.ndarray


@dataclass(slots=True)
class Kept:
    """What is kept of an image; stacked along a first axis of all of them.

    Attributes:
        objects: float64 [pairs, C, 5], sums of matching.
        pixels: int64 [pairs, C + 1, C + 1], pixels by what the two said.
        said: int64 [C + 1], how often each class was said.
    """

    objects: np.ndarray
    pixels: np.ndarray
    said: np.ndarray


class Agreement(PerImage[Kept, Kept]):
    """Agreement of two or more annotators who looked at the same images.

    Objects of two annotators are matched where they are of one class and their IoU is above one half, which no two can
    be with the same one. Pixels are compared by class, "none" being one; where objects overlap the smaller lies on top.

    Kept of each image: sums of fixed size.

    Args:
        classes: names of the classes, C.
        annotators: their names, 2 or more, in the order in which opinions come.

    Raises:
        ValueError: fewer than two annotators, or names that repeat.
    """

    def __init__(self, classes: Sequence[str], annotators: Sequence[str]) -> None:
        super().__init__()
        if len(annotators) < 2 or len(set(annotators)) < len(annotators):
            raise ValueError(f"agreement needs two or more annotators of distinct names, got {list(annotators)}")
        self.classes, self.annotators = tuple(classes), tuple(annotators)
        self.pairs = tuple(combinations(range(len(annotators)), 2))

    def settings(self) -> Mapping[str, Any]:
        """Classes and annotators."""
        return {"classes": self.classes, "annotators": self.annotators}

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare two annotators' scenes of one image, on (H, W), with masks."""
        self.update_all([self._opinion(predicted), self._opinion(truth)], key)

    def update_all(self, opinions: Sequence[Opinion], key: Key | None = None) -> None:
        """Compare what all annotators say of one image.

        Raises:
            ValueError: not one opinion an annotator; sizes differ; a label is no class; ``key`` came before.
        """
        self._check_key(key)
        count = len(self.classes)
        sizes = {opinion.semantic.shape for opinion in opinions}
        if len(opinions) != len(self.annotators) or len(sizes) != 1:
            raise ValueError(f"expected {len(self.annotators)} opinions on one size, got {len(opinions)} on {sizes}")
        for opinion in opinions:
            for values, most in ((opinion.labels, count - 1), (opinion.semantic, count)):
                if values.size and not 0 <= int(values.min()) <= int(values.max()) <= most:
                    raise ValueError(f"labels must lie in 0..{most}, got {int(values.min())}..{int(values.max())}")
        objects = np.zeros((len(self.pairs), count, _SUMS))
        pixels = np.zeros((len(self.pairs), count + 1, count + 1), np.int64)
        for row, (a, b) in enumerate(self.pairs):
            objects[row] = _matched(opinions[a], opinions[b], count)
            code = opinions[a].semantic.astype(np.int64) * (count + 1) + opinions[b].semantic
            pixels[row] = np.bincount(code.ravel(), minlength=(count + 1) ** 2).reshape(count + 1, count + 1)
        said = np.stack([np.bincount(o.semantic.ravel(), minlength=count + 1) for o in opinions]).sum(0)
        self._keep(key, Kept(objects, pixels, said))

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"objects": {"PQ", .., "per_class": {}}, "pixels": {}, "pairs": {}, "annotators": {}, "images": I}``.

        ``objects``: over all pairs of annotators, PQ = SQ x RQ with SQ the mean IoU of matched objects and RQ = 2
        matched / (objects of both), whoever is taken for the truth; means over classes that anyone saw.
        ``IoU`` is that of all matched objects, ``distance`` the mean symmetric distance of their outlines in pixels.
        ``pixels``: ``agreement`` the share of pixels of one opinion, ``kappa`` Cohen's (mean over pairs), ``fleiss``
        Fleiss' kappa (J. L. Fleiss, "Measuring nominal scale agreement among many raters", 1971). ``pairs``: the same
        for each two, "a | b". ``annotators``: the mean over one's pairs, which tells who is apart from the others.
        -1.0 (``None`` for the kappas) where undefined.
        """
        times, kept = self._weights(weights), self._joined()
        objects, tables, said = (np.tensordot(times, part, 1) for part in (kept.objects, kept.pixels, kept.said))
        each = [self._figures(*row) for row in zip(objects, tables, strict=True)]
        # Fleiss' share of pairs of raters that agree, summed over pixels, is the sum of all tables' diagonals.
        total = int(tables.sum())
        agreed = float(np.trace(tables.sum(0)) / total) if total else -1.0
        pixels = {"agreement": agreed, "kappa": _mean(each, "kappa"), "fleiss": _fleiss(agreed, said)}
        names = [f"{self.annotators[a]} | {self.annotators[b]}" for a, b in self.pairs]
        own: dict[str, dict[str, float | None]] = {}
        for i, name in enumerate(self.annotators):
            mine = [figures for figures, pair in zip(each, self.pairs, strict=True) if i in pair]
            own[name] = {key: _mean(mine, key) for key in mine[0]}
        return {
            "objects": self._objects(objects.sum(0)),
            "pixels": pixels,
            "annotators": own,
            "pairs": dict(zip(names, each, strict=True)),
            "images": len(self),
        }

    def per_image(self) -> list[tuple[Key | None, dict[str, Any]]]:
        """PQ, IoU and pixel agreement of each image, the least agreed on first."""
        out: list[tuple[Key | None, dict[str, Any]]] = []
        for k, key in enumerate(self.keys):
            one = np.zeros(len(self), np.int64)
            one[k] = 1
            found = self.compute(one)
            out.append((key, {"PQ": found["objects"]["PQ"], "IoU": found["objects"]["IoU"], **found["pixels"]}))
        return sorted(out, key=lambda row: (row[1]["PQ"], row[1]["agreement"]))

    def _opinion(self, scene: Scene) -> Opinion:
        segments = scene.objects()
        if segments.masks is None or len(scene.size) != 2:
            raise ValueError("agreement needs scenes of (H, W) whose objects have masks")
        runs = segments.masks.counts.numpy(), segments.masks.offsets.numpy()
        return opinion(segments.labels.numpy(), runs, scene.size, len(self.classes))

    def _figures(self, sums: np.ndarray, table: np.ndarray) -> dict[str, float | None]:
        objects = self._objects(sums)
        total = table.sum()
        agreed = float(np.trace(table) / total) if total else -1.0
        figures = {name: objects[name] for name in ("PQ", "SQ", "RQ", "IoU", "distance")}
        return figures | {"agreement": agreed, "kappa": cohen(table)}

    def _objects(self, sums: np.ndarray) -> dict[str, Any]:
        per_class = {name: _quality(row) for name, row in zip(self.classes, sums, strict=True)}
        seen = [figures for figures in per_class.values() if figures["RQ"] >= 0]
        whole: dict[str, Any] = {name: _mean(seen, name) for name in ("PQ", "SQ", "RQ")}
        pooled = _quality(sums.sum(0))
        return whole | {"IoU": pooled["IoU"], "distance": pooled["distance"], "per_class": per_class}

    def _join(self, images: Sequence[Kept]) -> Kept:
        pairs, classes = len(self.pairs), len(self.classes)
        shapes = {
            "objects": (pairs, classes, _SUMS),
            "pixels": (pairs, classes + 1, classes + 1),
            "said": (classes + 1,),
        }
        stacked = {
            name: np.array([getattr(image, name) for image in images], np.float64 if name == "objects" else np.int64)
            for name in shapes
        }
        return Kept(**{name: stacked[name].reshape(-1, *shape) for name, shape in shapes.items()})


def opinion(labels: np.ndarray, runs: Runs, size: tuple[int, ...], classes: int) -> Opinion:
    """An opinion on an image of (H, W) made of objects; smaller ones lie on top."""
    from maskwright.ops.rle_maps import paint_map

    order = np.argsort(-rle.area(*runs), kind="stable")
    semantic = paint_map(*rle.take(*runs, order), size, labels[order], background=classes)
    return Opinion(labels, runs, semantic)


def _matched(a: Opinion, b: Opinion, classes: int) -> np.ndarray:
    """Sums of matching of two opinions, by class: float64 [C, 5]."""
    out = np.zeros((classes, _SUMS))
    height = a.semantic.shape[0]
    ious = rle.iou(*a.runs, *b.runs, height=height)
    ious[a.labels[:, None] != b.labels[None]] = 0
    rows, columns = np.nonzero(ious > 0.5)
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        label = int(a.labels[i])
        out[label, 0] += 1
        out[label, 3] += ious[i, j]
        out[label, 4] += _distance(a.runs, i, b.runs, j, a.semantic.shape)
    out[:, 1] = np.bincount(a.labels, minlength=classes) - out[:, 0]
    out[:, 2] = np.bincount(b.labels, minlength=classes) - out[:, 0]
    return out


def _distance(first: Runs, i: int, second: Runs, j: int, size: tuple[int, ...]) -> float:
    """Mean symmetric distance of two masks' outlines in pixels, computed where they lie."""
    whole: list[Runs] = [rle.take(*runs, np.array([k])) for runs, k in ((first, i), (second, j))]
    boxes = np.concatenate([rle.boxes(*runs, size[0]) for runs in whole])
    x1, y1 = np.maximum(np.floor(boxes[:, :2].min(0)).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(boxes[:, 2:].max(0)).astype(int) + 1, size[::-1])
    masks = [rle.decode(*rle.window(*runs, size, (y1, x1, y2 - y1, x2 - x1)), (y2 - y1, x2 - x1))[0] for runs in whole]
    edges = [surface(mask) for mask in masks]
    sums = [distance_to(edges[1])[edges[0]].sum(), distance_to(edges[0])[edges[1]].sum()]
    return float(sum(sums) / (edges[0].sum() + edges[1].sum()))


def _quality(sums: np.ndarray) -> dict[str, float]:
    matched, first, second, ious, distances = sums.tolist()
    objects = 2 * matched + first + second
    if not objects:
        return dict.fromkeys(("PQ", "SQ", "RQ", "IoU", "distance"), -1.0)
    quality = ious / matched if matched else 0.0
    known = {"IoU": ious / matched, "distance": distances / matched} if matched else {"IoU": -1.0, "distance": -1.0}
    return {"PQ": 2 * ious / objects, "SQ": quality, "RQ": 2 * matched / objects, **known}


def _fleiss(agreed: float, said: np.ndarray) -> float | None:
    """Fleiss' kappa of the share of pairs that agree and of how often each class was said."""
    total = said.sum()
    if not total:
        return None
    expected = float(((said / total) ** 2).sum())
    return 1.0 if expected == 1 else (agreed - expected) / (1 - expected)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean of one figure where it is defined."""
    known = [row[name] for row in rows if not undefined(name, row[name])]
    return float(np.mean(known)) if known else None if name in SIGNED else -1.0
