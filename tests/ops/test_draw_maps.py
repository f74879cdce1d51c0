"""Maps drawn as run-lengths against torch's interpolation of whole maps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from maskwright.ops import rle
from maskwright.ops.draw_maps import draw_maps


def smooth(count: int, height: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(height)
    return functional.avg_pool2d(torch.rand(count, 1, height, width, generator=rng), 3, 1, 1)[:, 0] * 1.4


@pytest.mark.parametrize("enlarge", [1, 2, 8])
@pytest.mark.parametrize("size", [(40, 60), (61, 83), (300, 420)])
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_it_is_interpolation(enlarge: int, size: tuple[int, int], threshold: float) -> None:
    maps = smooth(5, 20, 30)
    dense = functional.interpolate(maps[:, None], scale_factor=enlarge, mode="bilinear", align_corners=False)
    dense = functional.interpolate(dense, size, mode="bilinear", align_corners=False)[:, 0]
    got = rle.decode(*draw_maps(maps, (size[0] / 20, size[1] / 30), size, threshold, enlarge), size)
    wrong = torch.from_numpy(got).bool() ^ (dense > threshold)
    assert not (wrong & ((dense - threshold).abs() > 1e-5)).any()
    assert (dense > threshold).any()


def test_maps_may_reach_beyond_the_picture_and_be_logits() -> None:
    maps = (smooth(3, 16, 16) - 0.6) * 20
    dense = functional.interpolate(maps[:, None], (128, 128), mode="bilinear", align_corners=False)[:, 0, :100, :90]
    got = rle.decode(*draw_maps(maps, (8.0, 8.0), (100, 90), 0.0), (100, 90))
    assert (torch.from_numpy(got).bool() ^ (dense > 0)).sum() <= 2


def test_nothing_above_the_threshold() -> None:
    counts, offsets = draw_maps(torch.zeros(2, 4, 4), (2.0, 2.0), (8, 8))
    assert rle.area(counts, offsets).tolist() == [0, 0]
    counts, offsets = draw_maps(torch.zeros(0, 4, 4), (2.0, 2.0), (8, 8))
    assert len(offsets) == 1
