"""Anchors in detectron2's and in torchvision's way."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from maskwright.ops.anchors import cell_anchors, grid_anchors
from tests.shared import shared

SIZES, RATIOS, STRIDES = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0), (4, 8, 16, 32, 64)


def test_equals_detectron2() -> None:
    reference = np.load(shared("parity/ops.npz"))
    maps = [(6, 8), (3, 4), (2, 2), (1, 1), (1, 1)]
    levels = grid_anchors(maps, STRIDES, [cell_anchors((size,), RATIOS) for size in SIZES])
    for i, level in enumerate(levels):
        torch.testing.assert_close(level, torch.from_numpy(reference[f"d2_anchors_{i}"]), rtol=0, atol=1e-5)


def test_equals_torchvision() -> None:
    sizes = ((32, 40), (64,), (100,))
    generator = AnchorGenerator(sizes, (RATIOS,) * 3)
    maps = [torch.zeros(1, 8, *size) for size in ((25, 38), (13, 19), (7, 10))]
    padded = (203, 301)
    reference = generator(ImageList(torch.zeros(1, 3, *padded), [padded]), maps)[0]
    feature_sizes = [(m.shape[2], m.shape[3]) for m in maps]
    strides = [(padded[0] // h, padded[1] // w) for h, w in feature_sizes]
    levels = grid_anchors(feature_sizes, strides, [cell_anchors(size, RATIOS, rounded=True) for size in sizes])
    assert torch.equal(torch.cat(levels), reference)


def test_order_and_area() -> None:
    cell = cell_anchors((10, 20), (0.5, 2.0))
    width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
    torch.testing.assert_close(height / width, torch.tensor([0.5, 2, 0.5, 2]))
    torch.testing.assert_close(width * height, torch.tensor([100.0, 100, 400, 400]))
    rounded = cell_anchors((10, 20), (0.5, 2.0), rounded=True)
    assert (rounded[:, 3] > rounded[:, 2]).tolist() == [False, False, True, True]
    grid = grid_anchors([(2, 3)], [(10, 7)], [cell], offset=0.5)[0]
    centers = (grid[:, :2] + grid[:, 2:]).view(2, 3, 4, 2) / 2
    torch.testing.assert_close(centers[1, 2, 3], torch.tensor([17.5, 15.0]))
    assert grid_anchors([(0, 3)], [4], [cell])[0].shape == (0, 4)
