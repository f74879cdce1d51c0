"""LVIS: average precision where not every class was looked for in every image (``LvisAP``, ``read_lvis``).

A. Gupta, P. Dollár, R. Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics import _coco_core as core
from maskwright.metrics import files
from maskwright.metrics._coco_core import Curves, Matches, Table
from maskwright.metrics._coco_read import read_members
from maskwright.metrics._form import Key
from maskwright.metrics.average_precision import CocoAP, Kept, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from maskwright.structures import Scene, Taxonomy

GROUPS = ("r", "c", "f")
"""Rare, common and frequent classes: in fewer than 10, fewer than 100, or more training images."""


class LvisAP(CocoAP):
    """LVIS's figures, equal to the authors' ``LVISEval``: those of ``CocoAP`` and ``APr``, ``APc``, ``APf``.

    In an image, detections count only of classes that have truth there or are known to be absent (``negative``); those
    of classes whose truth is incomplete (``not_exhaustive``) are not punished. The best ``max_detections`` of an image
    count, over all classes (COCO: of each class). There are no crowds. Objects without pixels are left out.

    Args:
        taxonomy: the classes, or their names.
        frequency: "r", "c" or "f" for each class: rare, common or frequent in the training images.
        kinds, thresholds, boundary_ratio: as in ``CocoAP``.
        max_detections: best-scored detections of an image that count.

    Raises:
        ValueError: a frequency is none of these, or not one for each class.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        frequency: Sequence[str],
        kinds: Sequence[str] = ("mask",),
        max_detections: int = 300,
        *,
        thresholds: Sequence[float] | None = None,
        boundary_ratio: float = core.BOUNDARY_RATIO,
    ) -> None:
        super().__init__(taxonomy, kinds, max_detections, thresholds=thresholds, boundary_ratio=boundary_ratio)
        if len(frequency) != len(self.names) or set(frequency) - set(GROUPS):
            raise ValueError(f"frequency must be 'r', 'c' or 'f' for each of {len(self.names)} classes")
        self.frequency = tuple(frequency)
        self.rules = replace(self.rules, limits=(max_detections,))

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "frequency": self.frequency}

    def update(
        self,
        predicted: Scene,
        truth: Scene,
        key: Key | None = None,
        areas: np.ndarray | Tensor | None = None,
        *,
        negative: Sequence[int] = (),
        not_exhaustive: Sequence[int] = (),
    ) -> None:
        """Compare one image.

        Args:
            predicted, truth, key, areas: as in ``CocoAP``; ``crowd`` is not looked at.
            negative: labels of classes that are known to be absent.
            not_exhaustive: labels of classes of which not every object is annotated.
        """
        tables = self._from_scenes(predicted, truth, key, areas)
        self._federated(*tables, (truth.size[0], truth.size[1]), key, negative, not_exhaustive)

    def update_arrays(
        self,
        predicted: Objects,
        truth: Objects,
        size: tuple[int, int],
        key: Key | None = None,
        *,
        negative: Sequence[int] = (),
        not_exhaustive: Sequence[int] = (),
    ) -> None:
        """Compare one image of ``size`` (H, W), given as arrays; see ``update``."""
        tables = self._from_arrays(predicted, truth, size, key)
        self._federated(*tables, size, key, negative, not_exhaustive)

    def _federated(
        self,
        truth: Table,
        found: Table,
        size: tuple[int, int],
        key: Key | None,
        negative: Sequence[int],
        not_exhaustive: Sequence[int],
    ) -> None:
        pairs = [np.array([(0, k) for k in labels], np.int64).reshape(-1, 2) for labels in (negative, not_exhaustive)]
        _measure(truth)
        truth, found = _present(truth, found, pairs[0], len(self.names), self.max_detections, boxed=False)
        kept = self._compare(truth, found, size, key)
        self._keep(key, Kept({kind: _unpunished(matches, pairs[1]) for kind, matches in kept.items()}))

    def _figures(self, curves: Curves) -> dict[str, Any]:
        own = np.array(self.frequency)
        return super()._figures(curves) | {
            f"AP{group}": core.mean(curves.precision[own == group, 0]) for group in GROUPS
        }


def read_lvis(
    truth: str | Path,
    results: str | Path,
    kinds: Sequence[str] = ("mask",),
    *,
    max_detections: int = 300,
    thresholds: Sequence[float] | None = None,
    boundary_ratio: float = core.BOUNDARY_RATIO,
    lenient: bool = False,
) -> LvisAP:
    """An LVIS result file compared with its truth, as ``LVISEval`` does.

    Args:
        truth: LVIS JSON: COCO's form, where images have ``neg_category_ids`` and ``not_exhaustive_category_ids`` and
            categories a ``frequency``.
        results: a JSON list of ``{image_id, category_id, score, segmentation and/or bbox}``. Where the first one has a
            box, detections' size classes are those of their boxes.
        kinds, max_detections, thresholds, boundary_ratio: as in ``LvisAP``.
        lenient: drop and count (``dropped``) entries that cannot be used instead of raising.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used; names the first five.
    """
    pair = files.read_pair(truth, results, lenient=lenient)
    images, categories = read_members(Path(truth), "images", "categories")
    label_of = {int(c): k for k, c in enumerate(pair.truth.class_ids)}
    place_of = {key: k for k, key in enumerate(pair.truth.keys())}
    frequency = [""] * len(label_of)
    for category in categories:
        frequency[label_of[category["id"]]] = category.get("frequency", "")
    lacking = [name for name, own in zip(pair.truth.names, frequency, strict=True) if own not in GROUPS]
    if lacking:
        raise InputError(
            f"{truth} is not LVIS: each category must have a frequency of 'r', 'c' or 'f', but {len(lacking)} have "
            f"none: {', '.join(lacking[:5])}. For COCO's rules use read_coco."
        )
    named = {name: _named(images, name, place_of, label_of, truth) for name in _LISTS}
    metric = LvisAP(
        pair.truth.names, frequency, kinds, max_detections, thresholds=thresholds, boundary_ratio=boundary_ratio
    )
    boxed = files.first_has_box(pair)
    pair.truth.table, pair.found = _present(
        pair.truth.table, pair.found, named[_LISTS[0]], len(frequency), max_detections, boxed=boxed
    )
    matches: dict[str, Matches] = {}
    for kind in metric.kinds:
        whole = files.compare(pair, kind, metric.rules, by_box=boxed, boundary_ratio=boundary_ratio)
        matches[kind] = _unpunished(whole, named[_LISTS[1]])
    metric.take(pair.truth.keys(), matches)
    if lenient:
        metric.dropped = {"truth": pair.of_truth.dropped, "results": pair.of_results.dropped}
    return metric


_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def _named(
    images: list[dict[str, Any]], name: str, place_of: dict[Any, int], label_of: dict[int, int], path: str | Path
) -> np.ndarray:
    """(image, label) of the classes that images name under ``name``, int64 [P, 2]."""
    pairs: list[tuple[int, int]] = []
    for image in images:
        listed = cast("list[Any] | None", image.get(name))
        if not isinstance(listed, list):
            raise InputError(f"{path} is not LVIS: image {image['id']} has no list {name}. For COCO use read_coco.")
        unknown = [c for c in listed if c not in label_of]
        if unknown:
            raise InputError(f"{path}: {name} of image {image['id']} has unknown categories: {unknown[:5]}.")
        pairs += [(place_of[image["id"]], label_of[c]) for c in listed]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _present(
    truth: Table, found: Table, negative: np.ndarray, classes: int, limit: int, *, boxed: bool
) -> tuple[Table, Table]:
    """What takes part: truth that has an area, and the best of each image among classes that were looked for."""
    if len(truth):
        truth = truth.take(~((truth.rows[:, 0] & 1 << 7 != 0) & (truth.floats[:, 1] <= 0)))
        truth.rows[:, 4] = 0
    if not len(found):
        return truth, found
    order = core.sort_by(found.image, np.argsort(-found.floats[:, 0], kind="stable"))
    start = np.concatenate([[0], np.cumsum(np.bincount(found.image))])
    rank = np.empty(len(found), np.int64)
    rank[order] = np.arange(len(found)) - start[found.image[order]]
    known = np.concatenate([truth.image * classes + truth.label, negative[:, 0] * classes + negative[:, 1]])
    keep = (rank < limit) & np.isin(found.image * classes + found.label, known)
    if boxed:
        keep &= (found.rows[:, 0] & 1 << 8 == 0) | (found.floats[:, 4] * found.floats[:, 5] > 0)
    return truth, found.take(keep)


def _measure(truth: Table) -> None:
    """Give rows without an area that of their mask or box."""
    for k in np.flatnonzero(truth.rows[:, 0] & 1 << 7 == 0):
        begin, end = truth.rows[k, 8:10]
        masked = truth.rows[k, 7] == core.RUNS
        truth.floats[k, 1] = truth.runs[begin + 1 : end : 2].sum() if masked else truth.floats[k, 4:6].prod()
    truth.rows[:, 0] |= 1 << 7


def _unpunished(matches: Matches, not_exhaustive: np.ndarray) -> Matches:
    """Without detections that have no area; false ones of classes whose truth is incomplete do not count."""
    assert matches.areas is not None
    keys = matches.image.astype(np.int64) * matches.classes + matches.label
    spared = np.isin(keys, not_exhaustive[:, 0] * matches.classes + not_exhaustive[:, 1])
    matches.flags[spared[:, None, None] & (matches.flags == 0)] = 2
    out = matches.found((matches.rank >= 0) & (matches.areas > 0))
    out.areas = None
    return out
