"""COCO average precision of scenes: ``CocoAP``. Files are scored by ``metrics.files``, without torch.

Both use one core (``_coco_core``), so that a training run, an evaluation and a result file give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from maskwright.metrics import _coco_core as core
from maskwright.metrics._coco_core import Matches, Table
from maskwright.structures import Scene, Segments, Taxonomy

Key = int | str


class CocoAP:
    """COCO's twelve numbers for masks and boxes, fed scene by scene (T.-Y. Lin et al., "Microsoft COCO", 2014).

    Equal to pycocotools' ``COCOeval``. Each ``update`` compares one image at once and keeps, for each detection, its
    score and a byte for each of 40 lanes (10 IoU thresholds, 4 size classes): about 60 bytes a detection and kind, no
    masks. ``merge`` joins what shards kept: any sharding, merged in any order, gives the same bits. Where
    detections of different images have equal scores their order matters (in COCO too); it is that of the ``key`` given
    to ``update`` (integers by value, then strings). Images without a key follow in the order of updates and merges, so
    for them that promise needs scores that differ.

    Truths marked ``crowd`` neither count nor punish. A truth's size class is that of its mask's pixels (of its box
    without a mask) unless ``areas`` says what the file annotates; a detection's is that of its mask, or of its box when
    boxes are compared.

    Args:
        taxonomy: the classes; labels of scenes lie in it.
        kinds: ``"mask"``, ``"box"`` or both.
        max_detections: best-scored detections of a class in an image that count (100 in COCO; 400 for cells).
    """

    def __init__(self, taxonomy: Taxonomy, kinds: Sequence[str] = ("mask", "box"), max_detections: int = 100) -> None:
        unknown = [kind for kind in kinds if kind not in ("mask", "box")]
        if unknown or not kinds:
            raise ValueError(f"kinds must be of 'mask' and 'box', got {list(kinds)}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.taxonomy = taxonomy
        self.kinds = tuple(kinds)
        self.max_detections = max_detections
        self._limits = core.limits_for(max_detections)
        self._images: dict[Key, dict[str, Matches]] = {}
        self._unnamed: list[dict[str, Matches]] = []

    def __len__(self) -> int:
        return len(self._images) + len(self._unnamed)

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
        if predicted.size != truth.size or len(truth.size) != 2:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        if key is not None and key in self._images:
            raise ValueError(f"image {key!r} was counted before; each image counts once")
        found, there = predicted.objects(), truth.objects()
        if len(found) and found.scores is None:
            raise ValueError("predicted objects must have scores in [0, 1], got none")
        for segments in (found, there):
            segments.validate(len(self.taxonomy))
        sizes = np.array([truth.size], np.int64)
        kept: dict[str, Matches] = {}
        for kind in self.kinds:
            mask = kind == "mask"
            tables = _table(there, mask, areas), _table(found, mask, None)
            matches, bad_truth, bad_found = core.match(
                *tables, sizes, len(self.taxonomy), mask=mask, max_detections=self.max_detections, by_box=not mask
            )
            bad = [int(code) for code in (*bad_truth, *bad_found) if code]
            if bad:
                raise ValueError(f"image {key!r}: objects cannot be compared as {kind}: {core.REASONS[bad[0]]}")
            counts = matches.rank >= 0
            kept[kind] = Matches(
                matches.image[counts].astype(np.int32),
                matches.label[counts].astype(np.int32),
                matches.score[counts],
                matches.rank[counts].astype(np.int32),
                matches.flags[counts],
                matches.positives,
            )
        if key is None:
            self._unnamed.append(kept)
        else:
            self._images[key] = kept

    def merge(self, other: CocoAP) -> CocoAP:
        """Take what ``other`` counted (another shard) and return itself; ``other`` is left as it is.

        Raises:
            ValueError: the two measure different things, or an image was counted in both.
        """
        for name in ("taxonomy", "kinds", "max_detections"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise ValueError(f"shards to merge must share {name}, got {mine} and {its}")
        twice = sorted(map(str, self._images.keys() & other._images.keys()))
        if twice:
            raise ValueError(f"images count once, but {len(twice)} are in both shards: {', '.join(twice[:5])}")
        self._images |= other._images
        self._unnamed += other._unnamed
        return self

    def compute(self) -> dict[str, Any]:
        """``{kind: {"AP": ..., "AR_100": ..., "per_class": {name: {...}}}, "images": I, "max_per_image": ...}``.

        Figures are fractions; -1.0 where there is no truth, as in COCO.
        """
        keys = sorted(self._images, key=lambda k: (isinstance(k, str), k))
        images = [*(self._images[k] for k in keys), *self._unnamed]
        out: dict[str, Any] = {}
        for kind in self.kinds:
            joined = _join([image[kind] for image in images], len(self.taxonomy))
            out[kind] = core.figures(core.accumulate(joined, self._limits), self.taxonomy.names)
        return out | {"images": len(images), "max_per_image": self.max_detections}


def _join(parts: Sequence[Matches], classes: int) -> Matches:
    lanes = (len(core.AREAS), len(core.THRESHOLDS))
    if not parts:
        none = np.zeros(0, np.int64)
        positives = np.zeros((classes, lanes[0]), np.int64)
        return Matches(none, none, np.zeros(0), none, np.zeros((0, *lanes), np.uint8), positives)
    return Matches(
        np.concatenate([np.full(len(part.label), i, np.int64) for i, part in enumerate(parts)]),
        np.concatenate([part.label for part in parts]).astype(np.int64),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.rank for part in parts]).astype(np.int64),
        np.concatenate([part.flags for part in parts]),
        np.sum([part.positives for part in parts], axis=0),
    )


def _table(segments: Segments, mask: bool, areas: np.ndarray | Tensor | None) -> Table:
    """Objects as a table of the core."""
    count = len(segments)
    rows, floats = np.zeros((count, 12), np.int64), np.zeros((count, 6))
    runs = np.zeros(1, np.int32)
    if segments.masks is not None:
        offsets = segments.masks.offsets.numpy()
        rows[:, 7], rows[:, 8], rows[:, 9] = core.RUNS, offsets[:-1], offsets[1:]
        rows[:, 10:12] = segments.size
        runs = segments.masks.counts.numpy()
    elif mask and count:
        raise ValueError("objects to compare as masks must have masks, got none. Compare boxes instead.")
    if segments.boxes is not None:
        rows[:, 0] |= 1 << 8
        corners = segments.boxes.detach().cpu().double().numpy()
        floats[:, 2:4], floats[:, 4:6] = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if segments.scores is not None:
        floats[:, 0] = segments.scores.detach().cpu().double().numpy()
    if segments.crowd is not None:
        rows[:, 4] = segments.crowd.cpu().numpy()
    if areas is not None:
        rows[:, 0] |= 1 << 7
        floats[:, 1] = np.asarray(areas, np.float64)
    table = Table(rows, floats, np.zeros(1, np.uint8), np.ascontiguousarray(runs))
    return replace(table, image=np.zeros(count, np.int64), label=segments.labels.cpu().numpy().astype(np.int64))
