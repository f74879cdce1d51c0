"""COCO files in, numbers out: neither torch nor Python objects for each detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics import _coco_core as core
from maskwright.metrics._coco_core import Matches, Table
from maskwright.metrics._coco_read import Pair, Problems, Truth, read_pair
from maskwright.metrics.average_precision import CocoAP

__all__ = ["Pair", "Problems", "Truth", "compare", "first_has_box", "read_coco", "read_pair", "score"]


def score(
    truth: str | Path,
    results: str | Path,
    kinds: Sequence[str] = ("mask",),
    *,
    max_detections: int | Sequence[int] = 100,
    lenient: bool = False,
    official: bool = True,
) -> dict[str, Any]:
    """COCO's twelve numbers of a result file, over all classes and for each, as ``COCOeval`` gives them.

    Args:
        truth, results, kinds, max_detections, lenient, official: see ``read_coco``.

    Returns:
        ``{kind: {"AP": ..., "per_class": {name: {...}}}, "images": I, "max_per_image": max_detections}``, fractions,
        -1.0 where there is no truth; when lenient also ``"dropped": {"truth": n, "results": n}``.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used; names the first five.
    """
    metric = read_coco(truth, results, kinds, max_detections=max_detections, lenient=lenient, official=official)
    return metric.compute() | ({"dropped": metric.dropped} if lenient else {})


def read_coco(
    truth: str | Path,
    results: str | Path,
    kinds: Sequence[str] = ("mask",),
    *,
    max_detections: int | Sequence[int] = 100,
    thresholds: Sequence[float] | None = None,
    areas: Mapping[str, tuple[float, float]] | None = None,
    boundary_ratio: float = core.BOUNDARY_RATIO,
    lenient: bool = False,
    official: bool = True,
) -> CocoAP:
    """A result file compared with its truth: figures, curves and resampling are those of ``CocoAP``.

    Args:
        truth: COCO instances JSON; masks may be polygons or either run-length form.
        results: a JSON list of ``{image_id, category_id, score, segmentation and/or bbox}``.
        kinds: what to compare, any of ``"mask"``, ``"box"`` and ``"boundary"``.
        max_detections, thresholds, areas, boundary_ratio: as in ``CocoAP``.
        lenient: drop and count (``dropped``) entries that cannot be used instead of raising.
        official: keep two habits of pycocotools: where the first result has a box, a detection's size class is that of
            its box even when masks are compared; and a detection matched to the annotation of id 0 counts as false.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used; names the first five.
    """
    pair = read_pair(truth, results, lenient=lenient)
    metric = CocoAP(
        pair.truth.names, kinds, max_detections,
        thresholds=thresholds, areas=areas, boundary_ratio=boundary_ratio,
    )  # fmt: skip
    matches: dict[str, Matches] = {}
    for kind in metric.kinds:
        matches[kind] = compare(pair, kind, metric.rules, official=official, boundary_ratio=boundary_ratio)
    metric.take(pair.truth.keys(), matches)
    if lenient:
        metric.dropped = {"truth": pair.of_truth.dropped, "results": pair.of_results.dropped}
    return metric


def first_has_box(pair: Pair) -> bool:
    """Whether the first result has a box: pycocotools then takes the areas of all from theirs."""
    return len(pair.found) > 0 and bool(pair.found.rows[0, 0] & 1 << 8)


def compare(
    pair: Pair,
    kind: str,
    rules: core.Rules = core.COCO,
    *,
    official: bool = True,
    by_box: bool | None = None,
    boundary_ratio: float = core.BOUNDARY_RATIO,
) -> Matches:
    """The matches of two files; entries whose shapes cannot be used are settled as ``pair`` says.

    ``by_box`` overrules ``official`` in what area a detection has: that of its box, else of its mask.
    """
    _check_kind(pair, kind)
    annotated, detected = pair.truth.table, pair.found
    if by_box is None:
        by_box = first_has_box(pair) if official else kind == "box"
    while True:
        lost = (annotated.rows[:, 1] == 0) & (annotated.rows[:, 0] & 1 == 1) if official else None
        matches, t_status, d_status = core.match(
            annotated, detected, pair.truth.sizes, len(pair.truth.names),
            kind=kind, rules=rules, by_box=by_box, lost=lost, boundary_ratio=boundary_ratio,
        )  # fmt: skip
        if not t_status.any() and not d_status.any():
            return matches
        annotated = _drop(annotated, t_status, pair.of_truth)
        detected = _drop(detected, d_status, pair.of_results)


def _drop(table: Table, status: np.ndarray, problems: Problems) -> Table:
    bad = np.flatnonzero(status)
    if not bad.size:
        return table
    source = table.source if table.source is not None else np.arange(len(table))
    reasons = {int(source[i]): core.REASONS[int(status[i])] for i in bad}
    problems.add(list(reasons), lambda i: reasons[i])
    problems.settle()
    return table.take(status == 0)


def _check_kind(pair: Pair, kind: str) -> None:
    """Fail early, and by one sentence, where a whole file is of the other kind."""
    if kind == "box":
        return
    truth, path = pair.truth, pair.of_truth.path
    for table, its in ((truth.table, path), (pair.found, pair.of_results.path)):
        if len(table) and not table.rows[:, 7].any():
            raise InputError(f"{its} has no masks (no entry has a segmentation). Did you mean --kind box?")
    if not (truth.sizes > 0).all():
        place = int(np.flatnonzero((truth.sizes <= 0).any(1))[0])
        raise InputError(f"{path}: image {truth.image_ids[place]} has no height and width; masks need them.")
