"""Some validation pictures, the same ones at each evaluation, with what is annotated beside what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskwright.data.rasterize import scene_of
from maskwright.data.source import Loads
from maskwright.draw.image import overlay
from maskwright.draw.sheet import sheet
from maskwright.errors import InputError
from maskwright.structures import Record, Scene


class Samples:
    """Takes the scenes of an evaluation (``evaluate(found=samples)``) and draws those of a few pictures.

    Args:
        source: what is evaluated, in the form of the task (``for_task``).
        count: pictures, spread evenly over the source; those with annotations first.
        least_score: objects of a lower score are not drawn.
    """

    def __init__(self, source: Loads, *, count: int = 4, least_score: float = 0.5) -> None:
        self.source, self.least_score = source, least_score
        self._places = {source.record(i).key: i for i in _spread(source, count)}
        self._drawn: dict[str, list[tuple[str, np.ndarray]]] = {}

    def __call__(self, record: Record, scene: Scene) -> None:
        """The next picture: what is annotated, and what was found there, classes numbered as in the source."""
        place = self._places.get(record.key)
        if place is None:
            return
        try:
            picture = self.source.load(place)[1]
        except InputError:
            return  # the evaluation has read it, so this is a passing fault; the figures are what counts
        truth = scene_of(record)
        taxonomy = self.source.taxonomy
        self._drawn[record.key] = [
            (f"{record.key}: annotated", overlay(picture, truth, taxonomy)),
            ("found", overlay(picture, self._sure(scene), taxonomy)),
        ]

    def take(self) -> np.ndarray | None:
        """The sheet of what came since the last call, uint8 [H, W, 3], a row a picture; ``None`` where none came."""
        rows = [self._drawn[key] for key in self._places if key in self._drawn]
        self._drawn = {}
        return sheet(rows) if rows else None

    def _sure(self, scene: Scene) -> Scene:
        segments = scene.segments
        if segments is None or segments.scores is None or scene.panoptic is not None:
            return scene
        return replace(scene, segments=segments[segments.scores >= self.least_score])


def _spread(source: Loads, count: int) -> list[int]:
    """Indices spread evenly over the source; where a picture has no annotation, the next one that has some."""
    total = len(source)
    chosen: list[int] = []
    for k in range(min(count, total)):
        first = k * total // min(count, total)
        window = range(first, min(total, first + 50))
        shown = (i for i in window if i not in chosen and _shows(source.record(i)))
        chosen.append(next(shown, first))
    return sorted(set(chosen))


def _shows(record: Record) -> bool:
    return len(record) > 0 or record.semantic is not None or record.panoptic is not None
