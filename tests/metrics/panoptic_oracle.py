"""Slow and obvious: panoptic quality segment by segment, with one boolean mask for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage


@dataclass
class Segment:
    """One listed segment."""

    id: int
    label: int
    crowd: bool = False
    area: int | None = None


class Tally:
    """Sums of IoU and counts by class."""

    def __init__(self) -> None:
        self.rows: dict[int, list[float]] = {}

    def add(self, label: int, column: int, value: float = 1) -> None:
        self.rows.setdefault(label, [0.0, 0, 0, 0])[column] += value

    def match(
        self, truth: np.ndarray, found: np.ndarray, there: list[Segment], its: list[Segment], reach: int = 0
    ) -> None:
        """Add one image (or tube): maps of ids of any shape; ``reach``: width of rims, 0 for none."""
        hit_t, hit_p = set[int](), set[int]()
        for t in there:
            for p in its:
                a, b = truth == t.id, found == p.id
                if t.crowd or t.label != p.label or not (a & b).any():
                    continue
                area = a.sum() if t.area is None else t.area
                iou = (a & b).sum() / (b.sum() + area - (a & b).sum() - (b & (truth == 0)).sum())
                if reach:
                    a, b = rim(a, reach), rim(b, reach)
                    iou = min(iou, (a & b).sum() / (b.sum() + a.sum() - (a & b).sum() - (b & (truth == 0)).sum()))
                if iou > 0.5:
                    self.add(t.label, 0, iou)
                    self.add(t.label, 1)
                    hit_t.add(t.id)
                    hit_p.add(p.id)
        crowd: dict[int, int] = {}
        for t in there:
            if t.crowd:
                crowd[t.label] = t.id
            elif t.id not in hit_t:
                self.add(t.label, 3)
        for p in its:
            b = found == p.id
            excused = (b & (truth == 0)).sum()
            if p.label in crowd:
                excused += (b & (truth == crowd[p.label])).sum()
            if p.id not in hit_p and not excused / b.sum() > 0.5:
                self.add(p.label, 2)

    def figures(self, names: list[str], thing: list[bool]) -> dict[str, Any]:
        """In the form of ours."""
        per_class = {name: {"PQ": -1.0, "SQ": -1.0, "RQ": -1.0} for name in names}
        for label, (iou, tp, fp, fn) in self.rows.items():
            total = tp + 0.5 * fp + 0.5 * fn
            per_class[names[label]] = {"PQ": iou / total, "SQ": iou / tp if tp else 0.0, "RQ": tp / total}
        out: dict[str, Any] = {}
        for suffix, wanted in (("", (True, False)), ("_things", (True,)), ("_stuff", (False,))):
            labels = [label for label in self.rows if thing[label] in wanted]
            for key in ("PQ", "SQ", "RQ"):
                values = [per_class[names[label]][key] for label in labels]
                out[key + suffix] = sum(values) / len(values) if values else -1.0
        return out | {"per_class": per_class}


def rim(mask: np.ndarray, reach: int) -> np.ndarray:
    """What erosion takes away, with nothing beyond the frame."""
    padded = np.pad(mask, 1)
    return mask & ~ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=reach)[1:-1, 1:-1]


def near(got: Mapping[str, Any], want: Mapping[str, Any], within: float = 1e-12) -> None:
    """Assert that all figures of ``want`` are in ``got``, and no others."""
    assert got.keys() == want.keys()
    for key, value in want.items():
        if isinstance(value, Mapping):
            near(got[key], value, within)
        else:
            assert abs(got[key] - value) <= within, (key, got[key], value)


def blobs(rng: np.random.Generator, shape: tuple[int, ...], ids: np.ndarray, cell: int) -> np.ndarray:
    """A map of coarse cells of ``ids``, with a few pixels changed."""
    coarse = rng.choice(ids, tuple(-(-side // cell) for side in shape))
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, cell, axis)
    out = coarse[tuple(slice(side) for side in shape)].copy()
    noise = rng.random(shape) < 0.05
    out[noise] = rng.choice(ids, int(noise.sum()))
    return out


def distinct(rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` ids, in no order."""
    steps = rng.integers(1, (1 << 24) // (count + 1), count)
    return rng.permutation(np.cumsum(steps))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], classes: int) -> tuple[Any, ...]:
    """Truth and prediction that resemble each other: two maps and their segments; all listed are in the maps."""
    count, cell = int(rng.integers(0, 8)), int(rng.integers(2, 12))
    ids = np.concatenate([[0], distinct(rng, count)])
    truth = blobs(rng, shape, ids, cell)
    # The prediction: the truth renamed, partly redrawn, shifted
    more = np.concatenate([[0], distinct(rng, count + 1)])
    found = more[:-1][np.searchsorted(np.sort(ids), truth)]
    part = blobs(rng, shape, np.array([0, 0, 0, 1]), cell) == 1
    found = np.where(part, blobs(rng, shape, more, cell), found)
    found = np.roll(found, int(rng.integers(0, 3)), axis=-1)
    renamed = dict(zip(more[:-1].tolist(), np.sort(ids).tolist(), strict=True))
    labels = {int(i): int(rng.integers(classes)) for i in ids}
    there = [Segment(int(i), labels[int(i)], bool(rng.random() < 0.3)) for i in ids[1:] if (truth == i).any()]
    its = []
    for i in more[1:]:
        label = labels[renamed[int(i)]] if int(i) in renamed and rng.random() < 0.8 else int(rng.integers(classes))
        if (found == i).any():
            its.append(Segment(int(i), label))
    return truth, found, there, its
