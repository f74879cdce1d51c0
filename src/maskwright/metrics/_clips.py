"""How the measures of video are fed: clips of two maps, or scenes of (T, H, W), counted frame by frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from maskwright.metrics import _panoptic_core as core
from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._panoptic_core import Classes, MapSegments

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

Kept = TypeVar("Kept")
Joined = TypeVar("Joined")
Maps = tuple[np.ndarray, np.ndarray]
"""Classes and instances of a clip: integers [T, H, W] each."""

_INSTANCE_BITS = 32


@dataclass(slots=True)
class Clip:
    """A clip of which the pairs are counted.

    Attributes:
        frames: for each frame int64 [M, 3]: place + 1 of the truth's and of the prediction's segment (0 for void),
            and pixels.
        truth, predicted: the segments of the whole clip.
    """

    frames: list[np.ndarray]
    truth: MapSegments
    predicted: MapSegments


class OfClips(PerImage[Kept, Joined]):
    """A measure that is fed clip by clip; a clip is what its ``keys`` and ``weights`` call an image.

    Args:
        taxonomy: the classes, or their names.
        thing: which are things, where ``taxonomy`` does not say so; ``None``: all.
        void: the class of void pixels in ``update_maps``; negative classes are void as well.
    """

    def __init__(
        self, taxonomy: Taxonomy | Sequence[str], *, thing: Sequence[bool] | None = None, void: int = 255
    ) -> None:
        super().__init__()
        self.classes = Classes.of(taxonomy, thing)
        if 0 <= void < len(self.classes):
            raise ValueError(f"void must be no class, outside of 0..{len(self.classes) - 1}, got {void}")
        self.void = void

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one clip.

        Args:
            predicted, truth: of size (T, H, W), with ``panoptic`` and ``segments``; a segment has one id in all frames.
                What the truth ignores is void.
            key: the clip's name.

        Raises:
            ValueError: something needed is unknown, sizes differ, an id of a map is not listed or a listed one not in
                it, labels are outside of the taxonomy, or ``key`` came before.
        """
        self.update_ids(core.panoptic_of(predicted, "predicted"), core.panoptic_of(truth, "truth", ignore=True), key)

    def update_ids(
        self,
        predicted: tuple[np.ndarray, MapSegments],
        truth: tuple[np.ndarray, MapSegments],
        key: Key | None = None,
    ) -> None:
        """Compare one clip given as ids int64 [T, H, W] (0 void) and what the segments are; as ``update``."""
        self._check_key(key)
        (found, its), (there, listed) = predicted, truth
        _check_shapes(found, there)
        frames = [core.count_pairs(t, p) for t, p in zip(there, found, strict=True)]
        together = np.concatenate([np.zeros((0, 3), np.int64), *frames])
        for side, (segments, what) in enumerate(((listed, "truth"), (its, "predicted"))):
            segments.check(together, side, len(self.classes), what)
        self._keep(key, self._compare(_placed(frames, listed, its)))

    def update_maps(self, predicted: Maps, truth: Maps, key: Key | None = None) -> None:
        """Compare one clip given as (classes, instances) of each pixel.

        Pixels of one class and instance are one segment. In the truth, instance 0 of a thing is a crowd; instances of
        stuff are left out of account.

        Args:
            predicted, truth: integers [T, H, W] each: classes 0..C-1 or void, and instances in 0..2^31 - 1.
            key: the clip's name.

        Raises:
            ValueError: shapes differ, a class is neither in the taxonomy nor void, an instance is out of range, or
                ``key`` came before.
        """
        self._check_key(key)
        found, there = self._ids(predicted, "predicted"), self._ids(truth, "truth")
        _check_shapes(found, there)
        frames = [core.count_pairs(t, p) for t, p in zip(there, found, strict=True)]
        together = np.concatenate([np.zeros((0, 3), np.int64), *frames])
        truths, predictions = (self._segments(together[:, side], crowds=side == 0) for side in (0, 1))
        self._keep(key, self._compare(_placed(frames, truths, predictions)))

    @abstractmethod
    def _compare(self, clip: Clip) -> Kept:
        """What is kept of a clip."""

    def _ids(self, maps: Maps, what: str) -> np.ndarray:
        """One int64 id of each pixel's class and instance, 0 where void."""
        labels, instances = np.asarray(maps[0]), np.asarray(maps[1])
        if labels.shape != instances.shape or labels.dtype.kind not in "iu" or instances.dtype.kind not in "iu":
            raise ValueError(
                f"{what} classes and instances must be integers of one shape, got {labels.dtype} {labels.shape} and "
                f"{instances.dtype} {instances.shape}"
            )
        void = labels == self.void
        if labels.dtype.kind == "i":
            void |= labels < 0
        wrong = labels[~void & (labels >= len(self.classes))]
        if wrong.size:
            few = np.unique(wrong)[:5].tolist()
            raise ValueError(
                f"{what} classes must lie in 0..{len(self.classes) - 1} or be {self.void} (void), got {few}"
            )
        if instances.size and not 0 <= int(instances.min()) <= int(instances.max()) < 1 << 31:
            raise ValueError(f"{what} instances must lie in 0..2^31 - 1, got {instances.min()}..{instances.max()}")
        thing = np.array([*self.classes.thing, False], bool)
        known = np.where(void, -1, labels.astype(np.int64))
        return (known + 1) << _INSTANCE_BITS | np.where(thing[known], instances, 0)

    def _segments(self, ids: np.ndarray, *, crowds: bool) -> MapSegments:
        known = np.unique(ids)
        known = known[known > 0]
        labels = (known >> _INSTANCE_BITS) - 1
        crowd = np.array(self.classes.thing, bool)[labels] & (known & (1 << _INSTANCE_BITS) - 1 == 0) & crowds
        return MapSegments(known, labels, crowd)


def _check_shapes(predicted: np.ndarray, truth: np.ndarray) -> None:
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"clips to compare must share one [T, H, W], got {predicted.shape} and {truth.shape}")


def _placed(frames: Sequence[np.ndarray], truth: MapSegments, predicted: MapSegments) -> Clip:
    """A clip of counted ids."""
    placed = [np.stack([truth.places(f[:, 0]), predicted.places(f[:, 1]), f[:, 2]], 1) for f in frames]
    return Clip(placed, truth, predicted)
