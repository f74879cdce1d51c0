"""What is wrong with a data set, found before it costs a training run: ``audit``, and ``fix`` for what is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from maskwright.data.audit.findings import CHECKS, Finding
from maskwright.data.audit.objects import check_objects, repaired
from maskwright.data.audit.pictures import check_pictures
from maskwright.data.dataset import Dataset
from maskwright.data.source import Loads
from maskwright.data.tasks import Mapped
from maskwright.structures import LabelMap, Record

Severity = Literal["error", "warning", "note"]

_RARE = 10  # objects of a class that are too few to learn from
_UNEVEN = 100.0  # the most frequent class over the least


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What ``audit`` found.

    Attributes:
        findings: worst first, then in the order of the data set.
        images, objects: how many were looked at.
    """

    findings: tuple[Finding, ...]
    images: int
    objects: int

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that has any, in the order of ``CHECKS``."""
        found = Counter(f.check for f in self.findings)
        return {name: found[name] for name in CHECKS if name in found}

    def severity(self) -> Severity | None:
        """The worst there is, ``None`` where nothing was found."""
        return next((level for level in LEVELS if any(f.severity == level for f in self.findings)), None)


LEVELS: tuple[Severity, ...] = ("error", "warning", "note")


def audit(
    dataset: Dataset,
    *,
    pictures: bool = True,
    skip: Iterable[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look for what is wrong.

    Args:
        dataset: read with ``strict=False``, so that objects that cannot be used are among the findings.
        pictures: open every picture too: broken ones, exact and near duplicates, leakage between splits.
        skip: names of ``CHECKS`` to leave out.
        progress: called with how many images are done, and how many there are.

    Raises:
        ValueError: there is no such check.
    """
    left_out = set(skip)
    unknown = sorted(left_out - set(CHECKS))
    if unknown:
        raise ValueError(f"there are no checks {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    found: list[Finding] = []
    for kind, where in dataset.dropped.items():
        found += [Finding(check="unusable", text=f"{kind}: {place}") for place in where]
    total, done = len(dataset), 0
    areas: list[list[tuple[str, str, int, float]]] = [[] for _ in dataset.taxonomy.names]
    for split, source in dataset.splits.items():
        for index in range(len(source)):
            record = source.record(index)
            found += check_objects(record, split, dataset.taxonomy)
            for label, ident, area in zip(
                record.labels.tolist(), record.ids.tolist(), record.areas.tolist(), strict=True
            ):
                areas[label].append((split, record.key, ident, area))
            done += 1
            if progress is not None and not pictures:
                progress(done, total)
    found += _odd_sizes(areas, dataset.taxonomy.names)
    found += _check_classes(dataset)
    if pictures:
        found += check_pictures(dataset, progress)
    kept = [f for f in found if f.check not in left_out]
    order = sorted(range(len(kept)), key=lambda i: (LEVELS.index(kept[i].severity), i))
    objects = sum(len(rows) for rows in areas)
    return Report(findings=tuple(kept[i] for i in order), images=total, objects=objects)


def fix(dataset: Dataset, report: Report) -> Dataset:
    """The data set with what is safe put right; pictures and classes are left alone.

    Outlines are clipped to the picture, boxes that disagree are taken from their masks, objects outside, without pixels
    or annotated twice are removed. Everything else that was found stays.
    """
    wrong: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        if finding.fixable and finding.key is not None and finding.split is not None:
            wrong.setdefault((finding.split, finding.key), []).append(finding)

    def mended(split: str, source: Loads) -> Loads:
        def change(record: Record) -> Record:
            its = wrong.get((split, record.key))
            return record if its is None else repaired(record, its)

        return Mapped(source, change, source.taxonomy)

    return replace(dataset, splits={name: mended(name, source) for name, source in dataset.splits.items()})


def _check_classes(dataset: Dataset) -> list[Finding]:
    """Classes that nothing shows, that only some splits show, that are rare, or outweighed."""
    names = dataset.taxonomy.names
    per_split: dict[str, np.ndarray] = {}
    mapped = False
    for split, source in dataset.splits.items():
        counts = np.zeros(len(names), np.int64)
        for index in range(len(source)):
            record = source.record(index)
            counts += np.bincount(record.labels, minlength=len(names))
            mapped |= isinstance(record.semantic, LabelMap)
        per_split[split] = counts
    total = np.sum(list(per_split.values()), axis=0) if per_split else np.zeros(len(names), np.int64)
    if mapped and not total.any():
        return []  # a map in a file says what it shows only when it is read
    out = [Finding(check="unused class", text=f"{names[i]}: no object") for i in np.flatnonzero(total == 0)]
    training = next((split for split in per_split if "train" in split), None)
    if training is not None:
        for split, counts in per_split.items():
            for i in np.flatnonzero((counts > 0) & (per_split[training] == 0)).tolist():
                text = f"{names[i]}: {counts[i]} objects in {split}, none in {training}, so it cannot be learned"
                out.append(Finding(check="unlearnable class", split=split, text=text))
    used = np.flatnonzero(total > 0)
    for i in used[total[used] < _RARE].tolist():
        out.append(Finding(check="rare class", text=f"{names[i]}: only {total[i]} objects"))
    if len(used) > 1 and total[used].max() >= _UNEVEN * total[used].min():
        most, least = used[np.argmax(total[used])], used[np.argmin(total[used])]
        text = f"{names[most]} {total[most]} objects, {names[least]} {total[least]}: consider repeat factors"
        out.append(Finding(check="imbalance", text=text))
    return out


def _odd_sizes(areas: Sequence[Sequence[tuple[str, str, int, float]]], names: Sequence[str]) -> list[Finding]:
    """Objects whose area is far from that of their class: beyond 6 robust standard deviations of its logarithm."""
    out: list[Finding] = []
    for name, rows in zip(names, areas, strict=True):
        if len(rows) < 20:
            continue
        logs = np.log(np.maximum([area for *_, area in rows], 0.5))
        middle = np.median(logs)
        spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.25)
        for i in np.flatnonzero(np.abs(logs - middle) > 6 * spread).tolist():
            split, key, ident, area = rows[i]
            text = f"a {name} of {area:.0f} pixels, where half of them have more than {np.exp(middle):.0f}"
            if logs[i] > middle:
                text = f"a {name} of {area:.0f} pixels, where half of them have less than {np.exp(middle):.0f}"
            out.append(Finding(check="odd size", split=split, key=key, ident=ident, text=text))
    return out
