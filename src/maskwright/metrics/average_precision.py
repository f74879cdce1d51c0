"""COCO average precision: ``CocoAP``. ``metrics.files`` makes one of files; neither imports torch.

Scenes and files go through one core (``_coco_core``), so that a training run, an evaluation and a result file give the
same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskwright.metrics import _coco_core as core
from maskwright.metrics._coco_core import Curves, Matches, Rules, Table
from maskwright.metrics._form import Key, PerImage

if TYPE_CHECKING:
    from torch import Tensor

    from maskwright.structures import Scene, Segments, Taxonomy


@dataclass(slots=True)
class Objects:
    """The objects of one image as arrays, found or annotated, for ``CocoAP.update_arrays``.

    Attributes:
        labels: int [N], dense, 0 .. C - 1.
        scores: float [N] in [0, 1]; needed of what was found.
        masks: bool [N, H, W]. boxes: float [N, 4], x1, y1, x2, y2 in pixels.
        crowd: bool [N], regions of many objects. areas: float [N], annotated areas in pixels.
    """

    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None
    boxes: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None


@dataclass(slots=True)
class Kept:
    """The matches of one image by kind; or, where ``place`` is one, of image ``place`` among those of ``matches``."""

    matches: dict[str, Matches]
    place: int | None = None

    def of(self, kind: str) -> Matches:
        """The matches of this image alone."""
        whole = self.matches[kind]
        if self.place is None:
            return whole
        ends = np.array([self.place, self.place + 1])
        d, g = (slice(*np.searchsorted(a, ends)) for a in (whole.image, whole.truth_image))
        there = whole.truth_image[g], whole.truth_label[g], whole.truth_counts[g]
        return Matches(
            whole.image[d], whole.label[d], whole.score[d], whole.rank[d], whole.flags[d], *there, whole.classes
        )


class CocoAP(PerImage[Kept, dict[str, Matches]]):
    """COCO's twelve numbers for masks, boxes and boundaries (T.-Y. Lin et al., "Microsoft COCO", 2014).

    Equal to pycocotools' ``COCOeval``. Each ``update`` compares one image at once and keeps, for each detection, its
    score and a byte for each of 40 lanes (10 IoU thresholds, 4 size classes): about 60 bytes a detection and kind, no
    masks. ``merge`` joins what shards kept: any sharding, merged in any order, gives the same bits. Where
    detections of different images have equal scores their order matters (in COCO too); it is that of the ``key`` given
    to ``update`` (integers by value, then strings). Images without a key follow in the order of updates and merges, so
    for them that promise needs scores that differ.

    Truths marked ``crowd`` neither count nor punish. A truth's size class is that of its mask's pixels (of its box
    without a mask) unless ``areas`` says what the file annotates; a detection's is that of its mask, or of its box when
    boxes are compared.

    Kind ``"boundary"`` compares by the lesser of the IoU of masks and that of their boundaries (B. Cheng et al.,
    "Boundary IoU", CVPR 2021, equal to the authors' ``boundary_iou_api``, which takes masks alone against a crowd).

    Args:
        taxonomy: the classes, or their names; labels of scenes lie in it.
        kinds: any of ``"mask"``, ``"box"`` and ``"boundary"``.
        max_detections: best-scored detections of a class in an image that count (100 in COCO; 400 for cells); or all
            the rising numbers at which recall is stated, the last of which is that one.
        thresholds: rising IoUs, COCO's ten by default. ``AP50`` and ``AP75`` are stated where they are among them.
        areas: size classes by name, (lowest, highest) in pixels, both ends included; COCO's three by default.
        boundary_ratio: the width of boundaries as a share of the image's diagonal.

    Raises:
        ValueError: an unknown kind, or numbers that do not rise.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        kinds: Sequence[str] = ("mask", "box"),
        max_detections: int | Sequence[int] = 100,
        *,
        thresholds: Sequence[float] | None = None,
        areas: Mapping[str, tuple[float, float]] | None = None,
        boundary_ratio: float = core.BOUNDARY_RATIO,
    ) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in core.KINDS]
        if unknown or not kinds:
            raise ValueError(f"kinds must be of 'mask', 'box' and 'boundary', got {list(kinds)}")
        limits = core.limits_for(max_detections) if isinstance(max_detections, int) else tuple(max_detections)
        if not limits or limits[0] < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        if not 0 < boundary_ratio < 1:
            raise ValueError(f"boundary_ratio must lie in (0, 1), got {boundary_ratio}")
        self.taxonomy = taxonomy
        self.names: tuple[str, ...] = tuple(cast("Iterable[str]", getattr(taxonomy, "names", taxonomy)))
        self.kinds = tuple(kinds)
        self.boundary_ratio = boundary_ratio
        self.rules = Rules(limits=limits)
        if thresholds is not None:
            self.rules = replace(self.rules, thresholds=tuple(map(float, thresholds)))
        if areas is not None:
            names, bounds = ("", *(f"_{name}" for name in areas)), ((0.0, 1e10), *areas.values())
            self.rules = replace(self.rules, areas=bounds, area_names=names)

    @property
    def max_detections(self) -> int:
        """Best-scored detections of a class in an image that count."""
        return self.rules.limits[-1]

    def settings(self) -> Mapping[str, Any]:
        out = {"taxonomy": self.names, "kinds": self.kinds, "max_detections": self.rules.limits, "rules": self.rules}
        return out | ({"boundary_ratio": self.boundary_ratio} if "boundary" in self.kinds else {})

    def update(
        self, predicted: Scene, truth: Scene, key: Key | None = None, areas: np.ndarray | Tensor | None = None
    ) -> None:
        """Compare one image.

        Args:
            predicted: with scores; masks where masks are compared, boxes (or masks) where boxes are.
            truth: on the same size; ``crowd`` marks regions of many objects.
            key: the image's id; decides between equal scores of different images.
            areas: [G], annotated areas in pixels (COCO's size classes use these).

        Raises:
            ValueError: sizes differ, scores are missing or outside [0, 1], labels outside of the taxonomy, masks to
                compare are unknown, or ``key`` came before.
        """
        truth_table, found = self._from_scenes(predicted, truth, key, areas)
        self._keep_compared(truth_table, found, (truth.size[0], truth.size[1]), key)

    def update_arrays(self, predicted: Objects, truth: Objects, size: tuple[int, int], key: Key | None = None) -> None:
        """Compare one image of ``size`` (H, W), given as arrays.

        Raises:
            ValueError: as ``update`` does; or arrays of one side differ in length.
        """
        self._keep_compared(*self._from_arrays(predicted, truth, size, key), size, key)

    def _keep_compared(self, truth: Table, found: Table, size: tuple[int, int], key: Key | None) -> None:
        kept = self._compare(truth, found, size, key)
        for matches in kept.values():
            matches.areas = None
        self._keep(key, Kept(kept))

    def _from_scenes(
        self, predicted: Scene, truth: Scene, key: Key | None, areas: np.ndarray | Tensor | None
    ) -> tuple[Table, Table]:
        """Truth and what was found as tables, checked."""
        if predicted.size != truth.size or len(truth.size) != 2:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        self._check_key(key)
        found, there = predicted.objects(), truth.objects()
        if len(found) and found.scores is None:
            raise ValueError("predicted objects must have scores in [0, 1], got none")
        for segments in (found, there):
            segments.validate(len(self.names))
        return _table(there, None if areas is None else np.asarray(areas, np.float64)), _table(found, None)

    def _from_arrays(
        self, predicted: Objects, truth: Objects, size: tuple[int, int], key: Key | None
    ) -> tuple[Table, Table]:
        """Truth and what was found as tables, checked."""
        self._check_key(key)
        scores = predicted.scores
        if len(predicted.labels) and (scores is None or not ((scores >= 0) & (scores <= 1)).all()):
            raise ValueError(f"predicted objects must have scores in [0, 1], got {scores!r:.80}")
        tables: list[Table] = []
        for side in (truth, predicted):
            labels = np.asarray(side.labels, np.int64)
            if labels.ndim != 1 or ((labels < 0) | (labels >= len(self.names))).any():
                raise ValueError(f"labels must be [N], dense in 0 .. {len(self.names) - 1}, got {labels!r:.80}")
            runs: tuple[np.ndarray, np.ndarray] | None = None
            if side.masks is not None:
                if side.masks.shape != (len(labels), *size):
                    raise ValueError(f"masks must be {(len(labels), *size)}, got {side.masks.shape}")
                runs = _run_lengths(side.masks)
            own = side.scores if side is predicted else None
            tables.append(_rows(labels, size, runs, side.boxes, own, side.crowd, side.areas))
        return tables[0], tables[1]

    def _compare(self, truth: Table, found: Table, size: tuple[int, int], key: Key | None) -> dict[str, Matches]:
        """What is kept of one image, by kind."""
        kept: dict[str, Matches] = {}
        for kind in self.kinds:
            if kind != "box" and any(len(side) and not side.rows[:, 7].all() for side in (truth, found)):
                raise ValueError(f"objects to compare as {kind} must have masks, got none. Compare boxes instead.")
            matches, *status = core.match(
                truth, found, np.array([size], np.int64), len(self.names),
                kind=kind, rules=self.rules, by_box=kind == "box", boundary_ratio=self.boundary_ratio,
            )  # fmt: skip
            bad = [int(code) for side in status for code in side if code]
            if bad:
                raise ValueError(f"image {key!r}: objects cannot be compared as {kind}: {core.REASONS[bad[0]]}")
            kept[kind] = matches.found(matches.rank >= 0)
            for name in ("image", "label", "rank", "truth_image", "truth_label"):
                setattr(kept[kind], name, getattr(kept[kind], name).astype(np.int32))
        return kept

    def take(self, keys: Iterable[Key], matches: dict[str, Matches]) -> None:
        """Take images compared elsewhere (``metrics.files``): ``keys`` in the order of ``PerImage.keys``, and the
        matches of all of them for each kind.

        Raises:
            ValueError: a key came before.
        """
        first = not len(self)
        for place, key in enumerate(keys):
            self._keep(key, Kept(matches, place))
        self._cached = matches if first else None

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"AP": ..., "AR_100": ..., "per_class": {name: {...}}}, "images": I, "max_per_image": ...}``.

        Figures are fractions; -1.0 where there is no truth, as in COCO. An image whose weight is 2 counts as though a
        second one like it followed; where its own scores tie, copies of one detection follow each other.
        """
        times = None if weights is None else self._weights(weights)
        joined = self._joined()
        out = {k: self._figures(core.accumulate(joined[k], self.rules, times)) for k in self.kinds}
        images = len(self) if times is None else int(times.sum())
        return out | {"images": images, "max_per_image": self.max_detections}

    def _figures(self, curves: Curves) -> dict[str, Any]:
        return core.figures(curves, self.names)

    def curves(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """What the figures are means of, and what is plotted.

        Returns:
            ``{kind: {"recalls": [R], "thresholds": [T], "areas": names, "per_class": {name: {...}}}}``; each class has
            ``precision`` float64 [A, T, R] (the highest at that recall or beyond), ``scores`` float64 [A, T, R] (from
            which score on that recall is reached, 0 where it is not) and ``recall`` float64 [A, T], the highest. -1
            where a class has no truth.
        """
        times = None if weights is None else self._weights(weights)
        out: dict[str, Any] = {}
        for kind, matches in self._joined().items():
            found = core.accumulate(matches, self.rules, times, scores=True)
            assert found.scores is not None
            each = zip(self.names, found.precision, found.recall[:, -1], found.scores, strict=True)
            out[kind] = {
                "recalls": np.array(self.rules.recalls),
                "thresholds": np.array(self.rules.thresholds),
                "areas": [name.strip("_") or "all" for name in self.rules.area_names],
                "per_class": {name: {"precision": p, "recall": r, "scores": s} for name, p, r, s in each},
            }
        return out

    def _join(self, images: Sequence[Kept]) -> dict[str, Matches]:
        classes = len(self.names)
        return {kind: core.join([image.of(kind) for image in images], classes, self.rules) for kind in self.kinds}


def _table(segments: Segments, areas: np.ndarray | None) -> Table:
    """Objects of a scene as a table of the core."""
    runs = boxes = scores = crowd = None
    if segments.masks is not None:
        runs = segments.masks.counts.numpy(), segments.masks.offsets.numpy()
    if segments.boxes is not None:
        boxes = segments.boxes.detach().cpu().double().numpy()
    if segments.scores is not None:
        scores = segments.scores.detach().cpu().double().numpy()
    if segments.crowd is not None:
        crowd = segments.crowd.cpu().numpy()
    size = segments.size[0], segments.size[1]
    return _rows(segments.labels.cpu().numpy().astype(np.int64), size, runs, boxes, scores, crowd, areas)


def _rows(
    labels: np.ndarray,
    size: tuple[int, int],
    runs: tuple[np.ndarray, np.ndarray] | None,
    boxes: np.ndarray | None,
    scores: np.ndarray | None,
    crowd: np.ndarray | None,
    areas: np.ndarray | None,
) -> Table:
    """A table of the core; ``runs``: all run-lengths, and where those of each object begin and end, [N + 1]."""
    count = len(labels)
    rows, floats = np.zeros((count, 12), np.int64), np.zeros((count, 6))
    counts = np.zeros(1, np.int32)
    for name, value in (("boxes", boxes), ("scores", scores), ("crowd", crowd), ("areas", areas)):
        if value is not None and len(value) != count:
            raise ValueError(f"{name} must be one for each of {count} objects, got {len(value)}")
    if runs is not None:
        counts, offsets = runs
        rows[:, 7], rows[:, 8], rows[:, 9] = core.RUNS, offsets[:-1], offsets[1:]
        rows[:, 10:12] = size
    if boxes is not None:
        rows[:, 0] |= 1 << 8
        floats[:, 2:4], floats[:, 4:6] = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if scores is not None:
        floats[:, 0] = scores
    if crowd is not None:
        rows[:, 4] = crowd
    if areas is not None:
        rows[:, 0] |= 1 << 7
        floats[:, 1] = areas
    counts = np.ascontiguousarray(counts) if len(counts) else np.zeros(1, np.int32)
    table = Table(rows, floats, np.zeros(1, np.uint8), counts)
    return replace(table, image=np.zeros(count, np.int64), label=labels)


def _run_lengths(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COCO's run-lengths (columns first, background first) of bool [N, H, W], int32, and offsets int64 [N + 1]."""
    parts: list[np.ndarray] = []
    for mask in masks:
        flat = np.asarray(mask, bool).ravel(order="F")
        borders = np.flatnonzero(np.diff(flat, prepend=False, append=False))
        borders = borders if not flat.size or not flat[-1] else borders[:-1]
        parts.append(np.diff(np.concatenate([[0], borders, [flat.size]])).astype(np.int32))
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.int32), *parts]), offsets
