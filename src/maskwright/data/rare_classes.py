"""How often to show each image when classes are rare: weights for ``Shuffled(..., weights=...)``.

They come from the annotated objects alone (``data.source.image_labels``); crowd is left out, as training leaves it out,
and so are label maps, which would have to be read.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from maskwright.data.source import Loads, image_labels
from maskwright.errors import InputError

Sampling = Literal["uniform", "repeat", "sqrt", "balanced"]
"""``uniform``: every image once a pass; ``repeat``: ``repeat_factors``; ``sqrt`` and ``balanced``: ``class_weights`` at
powers 0.5 and 0."""


def sampling_weights(source: Loads, sampling: Sampling, threshold: float = 0.001) -> np.ndarray | None:
    """The weights of a way of sampling, float64 [images]; ``None`` for uniform. ``InputError`` names a wrong one."""
    if sampling == "uniform":
        return None
    if sampling == "repeat":
        return repeat_factors(source, threshold)
    powers = {"sqrt": 0.5, "balanced": 0.0}
    if sampling not in powers:
        raise InputError(f"sampling must be one of uniform, repeat, sqrt, balanced, got {sampling!r}")
    return class_weights(source, powers[sampling])


def repeat_factors(source: Loads, threshold: float = 0.001) -> np.ndarray:
    """How often each image comes in a pass so that rare classes are seen more, float64 [images], at least 1.

    A class c that a fraction f(c) of the images shows has the factor max(1, sqrt(threshold / f(c))), an image the
    largest of its classes' (Gupta et al. 2019, LVIS, appendix; Mahajan et al. 2018).

    Args:
        source: the data set.
        threshold: classes on a larger fraction of the images are left as they are.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"the repeat threshold must be from 0 to 1, got {threshold}")
    count = len(source)
    images, labels = _shown(source)
    seen = np.bincount(labels, minlength=1)
    factors = np.maximum(1.0, np.sqrt(threshold * count / np.maximum(seen, 1)))
    out = np.ones(count)
    np.maximum.at(out, images, factors[labels])
    return out


def class_weights(source: Loads, power: float = 0.0) -> np.ndarray:
    """Weights that draw a class, then one of the images that show it; float64 [images], their mean is 1.

    A class that n images show is drawn at a rate proportional to n^power: 0 draws all classes alike, 0.5 is square-root
    sampling (Mahajan et al. 2018; Kang et al. 2020, section 3). Images without objects never come, so the model does
    not see pictures of nothing: prefer ``repeat_factors`` where that matters.

    Raises:
        InputError: no image has objects.
    """
    if not 0 <= power <= 1:
        raise InputError(f"the power must be from 0 to 1, got {power}")
    count = len(source)
    images, labels = _shown(source)
    if len(labels) == 0:
        raise InputError("sampling by class needs images with objects, got none")
    seen = np.maximum(np.bincount(labels), 1).astype(np.float64)
    rates = seen**power / seen  # of a class, shared among its images
    weights = np.bincount(images, weights=rates[labels], minlength=count)
    return weights * (count / weights.sum())


def _shown(source: Loads) -> tuple[np.ndarray, np.ndarray]:
    """Which image shows which class, each pair once: int64 [pairs] each, by image."""
    first, labels = image_labels(source)
    images = np.repeat(np.arange(len(first) - 1), np.diff(first))
    classes = int(labels.max(initial=-1)) + 1
    pairs = np.unique(images * max(classes, 1) + labels)
    return pairs // max(classes, 1), pairs % max(classes, 1)
