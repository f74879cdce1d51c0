"""Pasted masks pixel by pixel as detectron2 and torchvision paste them, and no picture-sized memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.paste import paste, paste_expanded
from tests.ops.peak import extra_megabytes
from tests.shared import shared

Way = Callable[[Tensor, Tensor, tuple[int, int]], rle.Runs]


def dense(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Values float32 [N, H, W] as detectron2 pastes on the CPU: by ``grid_sample`` in the window of each box."""
    height, width = size
    out = torch.zeros(len(probs), height, width, dtype=torch.float32)
    for i, box in enumerate(boxes):
        left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
        right, bottom = int((box[2].ceil() + 1).clamp(max=width)), int((box[3].ceil() + 1).clamp(max=height))
        if right <= left or bottom <= top:
            continue
        rows = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        columns = (torch.arange(left, right, dtype=torch.float32) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        grid = torch.stack([columns[None].expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], dim=2)
        out[i, top:bottom, left:right] = grid_sample(probs[i][None, None], grid[None], align_corners=False)[0, 0]
    return out.numpy()


def random_case(seed: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Maps of noise, of zeros and ones, and of quarters (ties); boxes of any place and size, some whole-numbered."""
    g = torch.Generator().manual_seed(seed)
    size = (int(torch.randint(1, 260, (), generator=g)), int(torch.randint(1, 260, (), generator=g)))
    side = int(torch.randint(1, 57, (), generator=g))
    probs = torch.rand(5, side, side, generator=g)
    probs = (probs, probs, probs.round(), (probs * 4).round() / 4)[seed % 4]
    wh = torch.tensor([size[1], size[0]], dtype=torch.float32)
    near = torch.rand(5, 2, generator=g) * wh * 1.2 - 0.1 * wh
    span = torch.rand(5, 2, generator=g) ** 2 * wh
    if seed % 3 == 0:
        near, span = near.round(), span.round().clamp(min=1)
    if seed % 7 == 0:  # exactly two pixels a cell: with maps of zeros and ones, values meet the threshold exactly
        near, span = near.round(), torch.full((5, 2), 2.0 * side)
    return probs, torch.cat([near, near + span], dim=1), size


def agree(runs: rle.Runs, values: np.ndarray, wanted: np.ndarray, threshold: float) -> bool:
    """Whether ``runs`` are ``wanted`` in canonical form; only ties may differ, as not all processors fuse alike."""
    got = rle.decode(*runs, values.shape[1:])
    again = rle.encode(got)
    canonical = np.array_equal(runs[0], again[0]) and np.array_equal(runs[1], again[1])
    return canonical and not ((got != wanted) & (np.abs(values - threshold) > 2e-7)).any()


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.9])
def test_paste_is_detectron2s(threshold: float) -> None:
    for seed in range(100):
        probs, boxes, size = random_case(seed)
        values = dense(probs, boxes, size)
        assert agree(paste(probs, boxes, size, threshold), values, values >= threshold, threshold), seed


def test_paste_expanded_is_torchvisions() -> None:
    for seed in range(150):
        probs, boxes, size = random_case(seed)
        boxes = torch.stack([boxes[:, k].clamp(0, size[1 - k % 2] - (k < 2)) for k in range(4)], dim=1)
        values = paste_masks_in_image(probs[:, None], boxes, size)[:, 0].numpy()
        assert agree(paste_expanded(probs, boxes, size), values, values > 0.5, 0.5), seed


def test_paste_is_the_recorded_detectron2s() -> None:
    stored = np.load(shared("parity/ops.npz"))
    spec = importlib.util.spec_from_file_location("recipe", shared("parity/recipe.py"))
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    b = torch.from_numpy(recipe.uniform("ops.boxes", (40, 4))).float()
    near = torch.stack([b[:, 0] * 60 - 4, b[:, 1] * 40 - 4], dim=1)
    boxes = torch.cat([near, torch.stack([near[:, 0] + 2 + b[:, 2] * 40, near[:, 1] + 2 + b[:, 3] * 30], dim=1)], dim=1)
    wanted = np.unpackbits(stored["paste_masks_48x64"])[: 40 * 48 * 64].reshape(40, 48, 64).astype(bool)
    probs = torch.from_numpy(stored["paste_input_28"].reshape(40, 28, 28))
    got = rle.decode(*paste(probs, boxes, (48, 64)), (48, 64))
    assert wanted.sum() == 6353
    assert (got != wanted).sum() == 0


@pytest.mark.parametrize("way", [paste, paste_expanded])
def test_a_mask_over_the_whole_picture_is_one_run(way: Way) -> None:
    counts, offsets = way(torch.ones(1, 4, 4), torch.tensor([[-40.0, -40.0, 60.0, 60.0]]), (10, 12))
    assert counts.tolist() == [0, 120]
    assert offsets.tolist() == [0, 2]


@pytest.mark.parametrize("way", [paste, paste_expanded])
def test_boxes_outside_and_no_boxes_give_empty_masks(way: Way) -> None:
    boxes = torch.tensor([[500.0, 500.0, 600.0, 600.0], [-90.0, -90.0, -50.0, -50.0], [-1e9, 0.0, -9e8, 5.0]])
    counts, _ = way(torch.ones(3, 4, 4), boxes, (10, 12))
    assert counts.tolist() == [120, 120, 120]
    counts, offsets = way(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 12))
    assert counts.shape == (0,)
    assert offsets.tolist() == [0]


def test_a_box_without_area_gives_an_empty_mask() -> None:
    boxes = torch.tensor([[3.0, 3.0, 3.0, 8.0], [3.0, 3.5, 8.0, 3.5], [5.0, 5.0, 2.0, 2.0]])
    assert paste(torch.ones(3, 4, 4), boxes, (10, 12))[0].tolist() == [120, 120, 120]


def test_half_precision_maps_are_taken_and_oblong_ones() -> None:
    boxes = torch.tensor([[1.0, 1.0, 9.0, 7.0]])
    probs = torch.linspace(0, 1, 24).reshape(1, 4, 6)
    exact = paste(probs.bfloat16().float(), boxes, (10, 12))
    np.testing.assert_array_equal(paste(probs.bfloat16(), boxes.double(), (10, 12))[0], exact[0])
    values = dense(probs.bfloat16().float(), boxes, (10, 12))
    assert agree(exact, values, values >= 0.5, 0.5)


def test_what_is_refused() -> None:
    maps, boxes = torch.ones(2, 4, 4), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    wild = boxes.clone()
    wild[1, 2] = float("nan")
    with pytest.raises(InputError, match="box 1 is"):
        paste(maps, wild, (5, 5))
    with pytest.raises(InputError, match=r"\(N, h, w\), got \(2, 1, 4, 4\)"):
        paste(maps[:, None], boxes, (5, 5))
    with pytest.raises(InputError, match=r"\(2, 4\), one for each map, got \(1, 4\)"):
        paste(maps, boxes[:1], (5, 5))
    with pytest.raises(InputError, match="threshold must be above 0"):
        paste(maps, boxes, (5, 5), 0.0)
    with pytest.raises(InputError, match="square"):
        paste_expanded(torch.ones(2, 4, 5), boxes, (5, 5))


@pytest.mark.parametrize("way", [paste, paste_expanded])
def test_a_hundred_megapixels_cost_only_the_runs(way: Way) -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    probs = torch.sigmoid(8 * (0.8 - x**2 - y**2)).expand(20, -1, -1)
    near = torch.arange(20.0)[:, None] * torch.tensor([300.0, 250.0])
    way(probs, torch.cat([near, near + 50], dim=1), (200, 200))
    boxes = torch.cat([near, near + 4000], dim=1)
    assert np.diff(way(probs, boxes, (10_000, 10_000))[1]).min() > 4000
    assert extra_megabytes(lambda: way(probs, boxes, (10_000, 10_000))) < 20
