"""Types of errors and what they cost, on arrays (see ``errors.ErrorAnalysis``): numpy only.

What is kept of an image holds for any score threshold: matching goes by falling score, so leaving out low scores
changes nothing for those that stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

TYPES = ("class", "localization", "both", "duplicate", "background", "missed")
COUNTS = ("true_positives", "false_positives", "false_negatives", *TYPES)
CLASS, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(TYPES))
FALSE, TRUE, IGNORED = range(3)
_NONE, _IN_CROWD = -1, -2
_RECALLS = np.arange(101) / 100
_CURVES = MISSED + 1
"""As found, and with one of the first five types mended; the other figures follow from these."""


@dataclass(slots=True)
class Kept:
    """One image: D detections by falling score, G truths that are no crowds.

    Attributes:
        label: int32 [D]; score: float64 [D]; state: uint8 [D], FALSE, TRUE or IGNORED (in a crowd).
        type: uint8 [D], which error it would be if it is not TRUE; iou: float64 [D], with the truth it has.
        points: int32 [D], label of the truth that a class or localization error points to, else -1.
        mends: bool [D], whether it becomes true there when its type is mended.
        partner: int32 [D], label of the truth it has when classes do not matter, -1 none, -2 in a crowd.
        true_label: int32 [G]. found, near, taken: float64 [G], the score of the detection that has it, of the best
            error that points to it, of the one that has it when classes do not matter; -1 for none.
    """

    label: np.ndarray
    score: np.ndarray
    state: np.ndarray
    type: np.ndarray
    iou: np.ndarray
    points: np.ndarray
    mends: np.ndarray
    partner: np.ndarray
    true_label: np.ndarray
    found: np.ndarray
    near: np.ndarray
    taken: np.ndarray


_OF_DETECTIONS = ("label", "score", "state", "type", "iou", "points", "mends", "partner")
_OF_TRUTHS = ("true_label", "found", "near", "taken")


def compare(
    label: np.ndarray,
    score: np.ndarray,
    true_label: np.ndarray,
    overlaps: np.ndarray,
    crowd: np.ndarray,
    iou: float,
    background: float,
) -> Kept:
    """Match one image; detections by falling score, overlaps float64 [D, all truths], crowds among the truths."""
    crowd_label, crowded = true_label[crowd], overlaps[:, crowd]
    true_label, overlaps = true_label[~crowd], overlaps[:, ~crowd]
    count_d, count_g = overlaps.shape
    same = label[:, None] == true_label[None, :]
    own, other = np.where(same, overlaps, 0.0), np.where(same, 0.0, overlaps)
    owner = _match(own, iou)
    anyone = _match(overlaps, iou)
    inside = crowded > iou
    state = np.where(owner >= 0, TRUE, FALSE).astype(np.uint8)
    state[(state == FALSE) & (inside & (label[:, None] == crowd_label[None, :])).any(1)] = IGNORED
    partner = np.full(count_d, _NONE, np.int32)
    partner[inside.any(1)] = _IN_CROWD
    partner[anyone >= 0] = true_label[anyone[anyone >= 0]]

    found, near, taken = np.full(count_g, -1.0), np.full(count_g, -1.0), np.full(count_g, -1.0)
    found[owner[owner >= 0]] = score[owner >= 0]
    taken[anyone[anyone >= 0]] = score[anyone >= 0]
    type_ = np.full(count_d, BACKGROUND, np.uint8)
    points, mends = np.full(count_d, _NONE, np.int32), np.zeros(count_d, bool)
    matched_iou = np.zeros(count_d)
    if count_g:
        near_own, near_other = own.argmax(1), other.argmax(1)
        best_own, best_other = own.max(1), other.max(1)
        has = np.where(found[None, :] >= 0, own, 0.0).max(1)
        type_[:] = np.select(
            [(best_own >= background) & (best_own <= iou), best_other >= iou, has >= iou],
            [LOCALIZATION, CLASS, DUPLICATE],
            np.where(overlaps.max(1) <= background, BACKGROUND, BOTH),
        )
        matched_iou[owner >= 0] = own[owner >= 0, owner[owner >= 0]]
        for d in np.flatnonzero((state != TRUE) & (type_ <= LOCALIZATION)):
            g = near_own[d] if type_[d] == LOCALIZATION else near_other[d]
            points[d] = true_label[g]
            if near[g] < 0:  # by falling score, so only the first that points there mends
                mends[d], near[g] = found[g] < 0, score[d]
    return Kept(
        label.astype(np.int32), score.astype(np.float64), state, type_, matched_iou, points, mends, partner,
        true_label.astype(np.int32), found, near, taken,
    )  # fmt: skip


def _match(overlaps: np.ndarray, iou: float) -> np.ndarray:
    """The truth int64 [D] that each detection takes, best score first: the free one it overlaps most; -1 for none."""
    out = np.full(len(overlaps), _NONE, np.int64)
    free = overlaps.copy()
    for d in np.flatnonzero(overlaps.max(1, initial=0.0) >= iou):
        g = int(free[d].argmax())
        if free[d, g] >= iou:
            out[d] = g
            free[:, g] = 0.0
    return out


def box_overlaps(found: np.ndarray, there: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU float64 [D, G] of boxes (x, y, width, height); for a crowd the share of the detection inside, as in COCO."""
    a, b = found[:, None, :], there[None, :, :]
    near = np.maximum(a[..., :2], b[..., :2])
    far = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    common = np.clip(far - near, 0.0, None).prod(-1)
    own, other = a[..., 2] * a[..., 3], b[..., 2] * b[..., 3]
    whole = np.where(crowd[None, :], own, own + other - common)
    return common / np.where(common == 0, 1.0, whole)


@dataclass(slots=True)
class Joined(Kept):
    """All images: their arrays one after the other, and what AP is summed from.

    Attributes:
        count: images; image, true_image: int64 [D], [G], where each lies.
        row_image, row_label: int [R], image and class of each point of a curve, by class and falling score.
        present, true: bool [curves, R], whether a point counts, and as true.
    """

    count: int
    image: np.ndarray
    true_image: np.ndarray
    row_image: np.ndarray
    row_label: np.ndarray
    present: np.ndarray
    true: np.ndarray


def join(images: Sequence[Kept]) -> Joined:
    """All images as one."""
    no = np.zeros(0, np.int64)
    none = compare(no, no, no, np.zeros((0, 0)), np.zeros(0, bool), 0.5, 0.1)
    parts = [none, *images]
    flat = {name: np.concatenate([getattr(p, name) for p in parts]) for name in (*_OF_DETECTIONS, *_OF_TRUTHS)}
    image = np.repeat(np.arange(-1, len(images)), [len(p.label) for p in parts])
    true_image = np.repeat(np.arange(-1, len(images)), [len(p.true_label) for p in parts])
    counts, mends = flat["state"] != IGNORED, flat["mends"]
    # A detection that mending makes true is a second point, which only the curve of its type has.
    source = np.concatenate([np.flatnonzero(counts), np.flatnonzero(mends)])
    second = np.arange(len(source)) >= counts.sum()
    label = np.where(second, flat["points"][source], flat["label"][source])
    order = np.lexsort((source, -flat["score"][source], label))
    source, second, label = source[order], second[order], label[order]
    type_, true = flat["type"][source], flat["state"][source] == TRUE
    curve: np.ndarray = np.arange(_CURVES)[:, None]
    mended: np.ndarray = (type_ == curve - 1) & ~true
    present = np.where(second, mended, ~mended)
    return Joined(
        **flat, count=len(images), image=image, true_image=true_image, row_image=image[source], row_label=label,
        present=present, true=np.where(second, mended, true & present),
    )  # fmt: skip


def mended(joined: Joined, weights: np.ndarray, classes: int) -> np.ndarray:
    """AP float64 [K, 9] of each class: as it is, with each of ``TYPES`` mended, without false positives, without false
    negatives; -1 where neither truths nor detections are left."""
    of_truth = weights[joined.true_image].astype(np.float64)

    def truths(which: np.ndarray) -> np.ndarray:
        return np.bincount(joined.true_label[which], of_truth[which], classes).astype(np.int64)

    had = joined.found >= 0
    found, missed, pointed = truths(had), truths(~had & (joined.near < 0)), truths(~had & (joined.near >= 0))
    positives = found + missed + pointed
    by_row = weights[joined.row_image]
    # Counts before each point and after the last, so that differences are counts of a class.
    shape = (_CURVES, len(by_row) + 1)
    n, tp = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.cumsum(joined.present * by_row, axis=1, out=n[:, 1:])
    np.cumsum(joined.true * by_row, axis=1, out=tp[:, 1:])
    begin = np.searchsorted(joined.row_label, np.arange(classes + 1))
    total = np.diff(n[:, begin], axis=1)
    # Precision has its peaks at points that are true, and recall rises there: the others need no look.
    peaks = np.flatnonzero(joined.true.any(0))
    label = joined.row_label[peaks]
    start = np.searchsorted(label, np.arange(classes + 1))
    tp, n = tp[:, peaks + 1] - tp[:, begin[label]], n[:, peaks + 1] - n[:, begin[label]]
    height = tp / np.maximum(n, 1)
    for a, b in pairwise(start.tolist()):
        height[:, a:b] = np.maximum.accumulate(height[:, a:b][:, ::-1], axis=1)[:, ::-1]
    out = np.full((classes, _CURVES + 3), -1.0)
    first = np.zeros(len(peaks), bool)
    first[start[:-1][np.diff(start) > 0]] = True
    lanes = [(curve, positives) for curve in range(_CURVES)]
    lanes += [(0, found + pointed), (0, positives), (0, found)]
    for lane, (curve, truth) in enumerate(lanes):
        # A recall of 101 is taken where it is first reached; each point counts for those that it is the first to reach.
        recall: np.ndarray = tp[curve] / np.maximum(truth, 1)[label]
        reached: np.ndarray = np.searchsorted(_RECALLS, recall, "right")
        ahead = np.where(first, 0, np.concatenate([[0], reached[:-1]]))
        area = np.bincount(label, height[curve] * (reached - ahead), classes) / len(_RECALLS)
        if lane == _CURVES + 1:  # true ones before all false ones: precision is 1 as far as recall goes
            share = np.searchsorted(_RECALLS, found / np.maximum(truth, 1), "right") / len(_RECALLS)
            area = np.where(found > 0, share, 0.0)
        out[:, lane] = np.where(truth > 0, area, np.where(total[curve] > 0, 0.0, -1.0))
    return out


def over_classes(ap: np.ndarray) -> np.ndarray:
    """The mean over classes that there are, float64 [9]; -1 for none."""
    known = ap >= 0
    number = known.sum(0)
    return np.where(number > 0, np.where(known, ap, 0.0).sum(0) / np.maximum(number, 1), -1.0)


def counts(joined: Joined, weights: np.ndarray, classes: int) -> np.ndarray:
    """``COUNTS`` of each class, int64 [K, 9]; a detection counts for its own class."""
    of_detection, of_truth = weights[joined.image], weights[joined.true_image]
    return _tally(joined, joined.label, joined.true_label, of_detection, of_truth, classes, 0.0)


def _tally(
    joined: Joined,
    group: np.ndarray,
    true_group: np.ndarray,
    of_detection: np.ndarray,
    of_truth: np.ndarray,
    size: int,
    score: float,
) -> np.ndarray:
    enough, false = joined.score >= score, joined.state == FALSE
    which = [enough & (joined.state == TRUE), enough & false]
    which += [enough & false & (joined.type == t) for t in range(MISSED)]
    lost = joined.found < score
    columns = [np.bincount(group[w], of_detection[w], size) for w in which]
    lanes = [np.bincount(true_group[w], of_truth[w], size) for w in (lost, lost & (joined.near < score))]
    return np.stack([*columns[:2], lanes[0], *columns[2:], lanes[1]], axis=1).astype(np.int64)


def correlations(joined: Joined, weights: np.ndarray) -> dict[str, float | None]:
    """Pearson's and Spearman's (mean ranks) of score and IoU of true detections; ``None`` where undefined."""
    true = joined.state == TRUE
    by_row = weights[joined.image[true]].astype(np.float64)
    x, y = joined.score[true], joined.iou[true]
    ranks = _ranks(x, by_row), _ranks(y, by_row)
    return {"pearson": _pearson(x, y, by_row), "spearman": _pearson(*ranks, by_row)}


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean rank of each value among all, each repeated ``weights`` times."""
    _, group = np.unique(values, return_inverse=True)
    size = np.bincount(group, weights)
    return (np.cumsum(size) - (size - 1) / 2)[group]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float | None:
    total = weights.sum()
    if total < 2:
        return None
    a, b = x - weights @ x / total, y - weights @ y / total
    spread = float(np.sqrt((weights @ a**2) * (weights @ b**2)))
    if spread <= 1e-12 * total:
        return None
    return float(np.clip((weights @ (a * b)) / spread, -1, 1))


def confusion(joined: Joined, weights: np.ndarray, classes: int, score: float) -> np.ndarray:
    """int64 [C + 1, C + 1] (see ``ErrorAnalysis.confusion``)."""
    shown = (joined.score >= score) & (joined.partner != _IN_CROWD)
    left = joined.taken < score
    partner = joined.partner[shown]
    row = np.concatenate([np.where(partner == _NONE, classes, partner), joined.true_label[left]])
    column = np.concatenate([joined.label[shown], np.full(left.sum(), classes)])
    times = np.concatenate([weights[joined.image[shown]], weights[joined.true_image[left]]])
    size = classes + 1
    return np.bincount(row * size + column, times, size * size).astype(np.int64).reshape(size, size)


def by_image(joined: Joined, score: float) -> tuple[np.ndarray, np.ndarray]:
    """``COUNTS`` int64 [I, 9], and F1 and panoptic quality float64 [I, 2] of each image, -1 where there is nothing."""
    ones = np.ones(len(joined.image), np.int64), np.ones(len(joined.true_image), np.int64)
    table = _tally(joined, joined.image, joined.true_image, *ones, joined.count, score)
    true = (joined.state == TRUE) & (joined.score >= score)
    iou = np.bincount(joined.image[true], joined.iou[true], joined.count)
    tp, fp, fn = table[:, :3].T
    whole = tp + (fp + fn) / 2
    quality = np.stack([tp, iou], axis=1) / np.maximum(whole, 0.5)[:, None]
    return table, np.where(whole[:, None] > 0, quality, -1.0)


def reasons(joined: Joined, score: float, names: Sequence[str]) -> list[str]:
    """What is wrong with each image in words, the most frequent type first: ``2 missed (dog), 1 class (cat for dog)``.

    A truth is named under ``missed`` only where no error points to it.
    """
    out: list[dict[str, Counter[str]]] = [{} for _ in range(joined.count)]
    fields = (joined.label, joined.points, joined.image, joined.type)
    label, points, image, type_ = ([int(v) for v in array] for array in fields)
    for d in np.flatnonzero((joined.state == FALSE) & (joined.score >= score)):
        text = [names[label[d]], names[points[d]]][: 1 + (type_[d] == CLASS)]
        out[image[d]].setdefault(TYPES[type_[d]], Counter())[" for ".join(text)] += 1
    for g in np.flatnonzero((joined.found < score) & (joined.near < score)):
        out[int(joined.true_image[g])].setdefault("missed", Counter())[names[int(joined.true_label[g])]] += 1
    return ["; ".join(_sentences(types)) for types in out]


def _sentences(types: dict[str, Counter[str]]) -> list[str]:
    ranked = sorted(types.items(), key=lambda item: -item[1].total())
    return [
        f"{whats.total()} {name} ({', '.join(f'{n} {what}' if n > 1 else what for what, n in whats.most_common(3))}"
        + (", ...)" if len(whats) > 3 else ")")
        for name, whats in ranked
    ]
