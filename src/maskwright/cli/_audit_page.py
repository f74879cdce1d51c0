"""An audit as one HTML page: what was found, how often, where, and pictures of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskwright.data.audit.findings import CHECKS, Finding
from maskwright.data.audit.run import Report
from maskwright.data.dataset import Dataset
from maskwright.data.rasterize import scene_of
from maskwright.data.source import Loads
from maskwright.draw import report as html
from maskwright.draw.image import overlay
from maskwright.errors import InputError
from maskwright.structures import Scene

_PICTURES, _ROWS = 4, 50  # of each check
_AROUND = 0.6  # of an object's longer side, shown around it
_LEAST = 160  # pixels shown at least


def write(path: Path, dataset: Dataset, report: Report, *, title: str) -> None:
    """Write the page.

    Raises:
        InputError: ``path`` cannot be written.
    """
    html.save(path, html.page(f"Audit of {title}", *_blocks(dataset, report)))


def _blocks(dataset: Dataset, report: Report) -> Iterator[str]:
    counts = report.counts()
    yield html.heading("Found", f"{report.images} images, {report.objects} objects, {len(report.findings)} findings.")
    rows = [[CHECKS[c].severity, c, n, CHECKS[c].help, "yes" if CHECKS[c].fixable else ""] for c, n in counts.items()]
    yield html.table(["severity", "check", "found", "what it is", "put right by --fix"], rows)
    places: dict[tuple[str, str], tuple[Loads, int]] = {}
    for split, source in dataset.splits.items():
        places.update({(split, source.record(i).key): (source, i) for i in range(len(source))})
    for check in counts:
        its = [f for f in report.findings if f.check == check]
        more = f"The first {_ROWS} of {len(its)}." if len(its) > _ROWS else ""
        yield html.heading(check, f"{CHECKS[check].help}. {more}".strip())
        yield html.table(["where", "what"], [[f.where(), f.text] for f in its[:_ROWS]])
        drawn: list[tuple[str, np.ndarray]] = []
        for finding in its:
            place = places.get((finding.split or "", finding.key or ""))
            picture = None if place is None or len(drawn) >= _PICTURES else _picture(*place, finding)
            if picture is not None:
                drawn.append((f"{finding.where()}: {finding.text}", picture))
        if drawn:
            yield html.pictures(drawn)


def _picture(source: Loads, index: int, finding: Finding) -> np.ndarray | None:
    """The object that a finding is about, and those it names, cut out with their surroundings; or the whole picture."""
    try:
        record, image = source.load(index)
    except InputError:
        return None
    shown = {finding.ident, *finding.others}
    keep = np.flatnonzero([int(ident) in shown for ident in record.ids])
    if finding.ident is not None and len(keep):
        record = replace(
            record,
            labels=record.labels[keep],
            shapes=tuple(record.shapes[i] for i in keep.tolist()),
            boxes=record.boxes[keep],
            crowd=record.crowd[keep],
            ids=record.ids[keep],
            areas=record.areas[keep],
            tracks=None,
            semantic=None,
            panoptic=None,
        )
    scene: Scene = scene_of(record)
    drawn = overlay(image, scene, source.taxonomy)
    return drawn if finding.ident is None else _around(drawn, record.boxes)


def _around(drawn: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(float((high - low).max()) * (0.5 + _AROUND), _LEAST / 2)
    size = np.array(drawn.shape[1::-1])
    center = np.clip((low + high) / 2, 0, size)
    x1, y1 = np.maximum(center - half, 0).astype(int)
    x2, y2 = np.minimum(np.ceil(center + half), size).astype(int)
    return drawn[y1:y2, x1:x2]
