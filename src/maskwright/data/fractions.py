"""A share of a source's images, drawn at random; smaller shares are parts of larger ones."""

from __future__ import annotations

import numpy as np

from maskwright.data.source import Loads, Subset
from maskwright.errors import InputError


def fraction_of(source: Loads, share: float, seed: int = 0) -> Loads:
    """The images that a run on less data learns from, in the order of ``source``.

    Args:
        source: all images.
        share: above 0, at most 1; 1 gives ``source`` itself. At least one image is taken.
        seed: another seed, another draw. With one seed, a smaller share is a part of a larger one.

    Raises:
        InputError: ``share`` is out of range.
    """
    if not 0 < share <= 1:
        raise InputError(f"a fraction of the data must be above 0 and at most 1, got {share}.")
    if share == 1:
        return source
    drawn = np.random.default_rng(seed).permutation(len(source))[: count_of(len(source), share)]
    return Subset(source, np.sort(drawn))


def count_of(images: int, share: float) -> int:
    """How many of ``images`` a share has."""
    return max(1, round(share * images))
