"""Pictures get the sizes that the origins' own resize rules give them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from maskwright.structures import Resize

EDGES = ((800, 1333), (320, 400), (160, 256))
# Sizes where a rule that rounds elsewhere differs are among the drawn ones; these are known to.
KNOWN = ((149, 30), (41, 149), (480, 640), (427, 640), (1178, 437), (1248, 624), (121, 800), (415, 800), (30, 30))


def sizes() -> list[tuple[int, int]]:
    rng = np.random.default_rng(1)
    return [*KNOWN, *((int(h), int(w)) for h, w in rng.integers(20, 900, (60, 2)))]


@pytest.mark.parametrize(("short", "long"), EDGES[1:])
def test_torchvision(short: int, long: int) -> None:
    transform = GeneralizedRCNNTransform(short, long, [0.0] * 3, [1.0] * 3).eval()
    rule = Resize(short=short, long=long, antialias=False)
    for size in sizes():
        resized, _ = transform.resize(torch.zeros(1, *size), None)
        assert rule.target(size) == tuple(resized.shape[1:]), size


@pytest.mark.parametrize(("short", "long"), EDGES)
def test_detectron2(short: int, long: int) -> None:
    """ResizeShortestEdge: the shorter side first, then the longer one's ceiling, halves rounded up."""
    rule = Resize(short=short, long=long)
    for height, width in sizes():
        scale = short / min(height, width)
        new = (short, scale * width) if height < width else (scale * height, short)
        if max(new) > long:
            again = long / max(new)
            new = new[0] * again, new[1] * again
        assert rule.target((height, width)) == (int(new[0] + 0.5), int(new[1] + 0.5)), (height, width)
