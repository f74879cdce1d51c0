"""The images that a model does worst on, with what is annotated and what was found, for a report."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from maskwright.data.source import Loads
    from maskwright.structures import Record, Scene

COUNT = 8
_LONGEST = 680


class Worst:
    """Takes the images of ``source`` in their order; the ``COUNT`` of the lowest main figure are kept, drawn.

    Args:
        source: what is evaluated; pictures are read again for those that are drawn.
        task, kinds, max_detections: as for ``metrics.by_task.judge``.
    """

    def __init__(self, source: Loads, task: str, kinds: Sequence[str], max_detections: int) -> None:
        from maskwright.metrics.by_task import MAIN_FIGURES

        self.source, self.task, self.kinds, self.limit = source, task, tuple(kinds), max_detections
        groups = [group for group in MAIN_FIGURES[task] if task != "instance" or group in self.kinds]
        self.group, self.figure = groups[0], MAIN_FIGURES[task][groups[0]]
        self.seen = 0
        self._heap: list[tuple[float, int, str, np.ndarray, np.ndarray]] = []

    def __call__(self, record: Record, scene: Scene) -> None:
        """The next image: what is annotated, and what was found there."""
        from maskwright.evaluate import truth_of
        from maskwright.metrics.by_task import judge

        index, self.seen = self.seen, self.seen + 1
        truth, areas = truth_of(record)
        if truth.semantic is not None and bool((truth.semantic < 0).all()):
            return
        own = judge(self.task, self.source.taxonomy, kinds=self.kinds, max_detections=self.limit)
        own.update(scene, truth, areas=areas)
        value: Any = own.compute()[self.group][self.figure]
        if value < 0 or (len(self._heap) == COUNT and -value <= self._heap[0][0]):
            return
        drawn = [self._drawn(index, each) for each in (truth, self._sure(scene))]
        entry = (-float(value), -index, record.key, drawn[0], drawn[1])
        heapq.heappush(self._heap, entry)
        if len(self._heap) > COUNT:
            heapq.heappop(self._heap)

    def rows(self) -> list[tuple[str, float, np.ndarray, np.ndarray]]:
        """(name, figure, annotated, found) of each kept image, the worst first; pictures are uint8 [H, W, 3]."""
        return [(name, -value, truth, found) for value, _, name, truth, found in sorted(self._heap, reverse=True)]

    def _sure(self, scene: Scene) -> Scene:
        """Instances of which the model is sure; maps are whole."""
        from dataclasses import replace

        segments = scene.segments
        if self.task != "instance" or segments is None or segments.scores is None:
            return scene
        return replace(scene, segments=segments[segments.scores >= 0.5])

    def _drawn(self, index: int, scene: Scene) -> np.ndarray:
        from maskwright.draw.image import overlay

        pixels = self.source.load(index)[1]
        drawn = overlay(pixels, scene, self.source.taxonomy)
        step = max(1, -(-max(drawn.shape[:2]) // (2 * _LONGEST)))
        return np.ascontiguousarray(drawn[::step, ::step])
