"""The form of every measure: fed image by image, merged in any order, computed as often as wanted.

A measure keeps a little about each image, never its pixels, and turns all of it into figures in ``compute``. So shards
merge to the same bits however the images were dealt out, and figures can be computed again with other weights of the
images, which is what confidence intervals do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np

Key = int | str
SIGNED = frozenset({"MOTA", "MOTSA", "sMOTA", "sMOTSA", "fleiss", "kappa", "signed"})
"""Figures of which -1.0 is a value like any other; they are ``None`` where nothing defines them."""

Kept = TypeVar("Kept")
Joined = TypeVar("Joined")


def undefined(name: str, value: Any) -> bool:
    """Whether the figure of that name is none: ``None``, NaN, or -1.0 where it could not be less than 0."""
    return value is None or value != value or (value == -1.0 and name not in SIGNED)


class PerImage(ABC, Generic[Kept, Joined]):
    """What the measures share: the images seen, by key, and what was kept of each.

    Attributes:
        dropped: entries of files that could not be used and were left out, by kind; filled by lenient readers.
    """

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self._images: dict[Key, Kept] = {}
        self._unnamed: list[Kept] = []
        self._cached: Joined | None = None

    def __len__(self) -> int:
        return len(self._images) + len(self._unnamed)

    @property
    def keys(self) -> list[Key | None]:
        """The images in the order that ``compute`` uses: integers by value, then strings, then those without a key."""
        return [*self._sorted(), *([None] * len(self._unnamed))]

    def merge(self, other: Self) -> Self:
        """Take what ``other`` counted (another shard) and return itself; ``other`` is left as it is.

        Raises:
            ValueError: the two measure different things, or an image was counted in both.
        """
        its = other.settings()
        for name, mine in self.settings().items():
            if mine != its.get(name):
                raise ValueError(f"shards to merge must share {name}, got {mine} and {its.get(name)}")
        twice = sorted(map(str, self._images.keys() & other._images.keys()))
        if twice:
            raise ValueError(f"images count once, but {len(twice)} are in both shards: {', '.join(twice[:5])}")
        self._images |= other._images
        self._unnamed += other._unnamed
        for name, count in other.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        self._cached = None
        return self

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What two shards must share to be merged, by the name a user knows it by."""

    @abstractmethod
    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """The figures, nested by name, as fractions; -1.0 (``None`` for ``SIGNED``) where nothing defines one.

        Args:
            weights: int64 [len(self)], how often each image counts, in the order of ``keys``; ``None``: once.
        """

    @abstractmethod
    def _join(self, images: Sequence[Kept]) -> Joined:
        """What was kept of all images as one, in their order; kept until another image comes."""

    def _check_key(self, key: Key | None) -> None:
        """Refuse an image that was counted, before any work is done on it."""
        if key is not None and key in self._images:
            raise ValueError(f"image {key!r} was counted before; each image counts once")

    def _keep(self, key: Key | None, kept: Kept) -> None:
        self._check_key(key)
        if key is None:
            self._unnamed.append(kept)
        else:
            self._images[key] = kept
        self._cached = None

    def _joined(self) -> Joined:
        if self._cached is None:
            self._cached = self._join([*(self._images[key] for key in self._sorted()), *self._unnamed])
        return self._cached

    def _weights(self, weights: np.ndarray | None) -> np.ndarray:
        """``weights``, checked: int64 [len(self)]."""
        if weights is None:
            return np.ones(len(self), np.int64)
        if weights.shape != (len(self),) or weights.dtype.kind not in "iu" or (weights < 0).any():
            raise ValueError(f"weights must be counts (integers >= 0) of shape ({len(self)},), got {weights!r:.80}")
        return weights.astype(np.int64)

    def _sorted(self) -> list[Key]:
        return sorted(self._images, key=lambda key: (isinstance(key, str), key))
