"""RoIAlign on one map and on a pyramid."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops.poolers import LevelMapper

from maskwright.ops.roi import assign_levels, multilevel_roi_align, roi_align
from tests.ops.test_boxes import recipe, recorded, some_boxes

STRIDES = (4, 8, 16, 32)


def pyramid(batch: int = 2, channels: int = 3, size: int = 256, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, size // s, size // s, generator=rng) for s in STRIDES]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_the_recorded(aligned: bool, sampling_ratio: int) -> None:
    features = torch.from_numpy(recipe().normal("ops.feat", (1, 8, 24, 32)))
    boxes = recorded("boxes")
    want = recorded(f"roi_align_aligned{int(aligned)}_sr{sampling_ratio}")
    torch.testing.assert_close(
        roi_align(features, [boxes], 7, 0.5, sampling_ratio, aligned), want, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_our_kernel_equals_torchvision(aligned: bool, sampling_ratio: int, memory: torch.memory_format) -> None:
    features = torch.randn(2, 5, 13, 17, generator=torch.Generator().manual_seed(2)).to(memory_format=memory)
    boxes = some_boxes(60, 8, 300.0) - 70  # many leave the map of 104 x 136 pixels
    boxes[0] = torch.tensor([20.0, 30, 20, 30])
    boxes[1] = torch.tensor([-1000.0, -1000, -900, -900])
    boxes[2] = torch.tensor([-1000.0, -1000, 3000, 3000])
    boxes[3] = torch.tensor([40.0, 50, 30, 20])
    boxes[4] = torch.tensor([4.0, 4, 132, 100])  # samples exactly on cells
    rois = torch.cat(((torch.arange(60) % 2).float()[:, None], boxes), 1)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    got = roi_align(ours, rois, (6, 7), 1 / 8, sampling_ratio, aligned)
    want = torchvision.ops.roi_align(theirs, rois, (6, 7), 1 / 8, sampling_ratio, aligned)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(3))
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


def test_impossible_boxes() -> None:
    features = torch.randn(1, 2, 8, 8)
    rois = torch.tensor([[0, float("nan"), 0, 4, 4], [0, 0, 0, float("inf"), 4], [0, 0, 0, 32, 32]])
    out = roi_align(features, rois, 2, 0.25)
    assert not out[:2].any()
    assert out[2].any()
    with pytest.raises(ValueError, match=r"images 0\.\.0"):
        roi_align(features, torch.tensor([[1.0, 0, 0, 4, 4]]), 2, 0.25)


def test_levels_equal_detectron2_and_torchvision() -> None:
    boxes = recorded("level_boxes")
    assert torch.equal(assign_levels(boxes, 2, 5), recorded("level_assign_2_5"))
    mapper = LevelMapper(2, 5)
    for seed in range(3):
        many = some_boxes(500, seed, 900.0)
        assert torch.equal(assign_levels(many, 2, 5, epsilon_inside=False), mapper([many]) + 2)


def test_levels_on_the_borders() -> None:
    sides = torch.tensor([0.0, 1, 55.9, 112, 223.9, 224, 448, 1e5])
    boxes = torch.stack((torch.zeros(8), torch.zeros(8), sides, sides), 1)
    assert assign_levels(boxes, 2, 5).tolist() == [2, 2, 2, 3, 3, 4, 5, 5]
    assert assign_levels(boxes, 2, 5, epsilon_inside=False).tolist() == [2, 2, 2, 3, 3, 4, 5, 5]
    assert assign_levels(boxes, 3, 5, 112.0).tolist() == [3, 3, 3, 4, 4, 5, 5, 5]


def max_by_hand(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """The maximum of samples, each found by pooling a RoI of one bin with one sample around it."""
    out = torch.zeros(len(rois), features.shape[1], *size)
    for k, roi in enumerate(rois.tolist()):
        shift = 0.5 if aligned else 0.0
        x1, y1, x2, y2 = (v * scale - shift for v in roi[1:])
        if not aligned:
            x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        bin_h, bin_w = (y2 - y1) / size[0], (x2 - x1) / size[1]
        rows = ratio or max(0, -int(-bin_h // 1))
        columns = ratio or max(0, -int(-bin_w // 1))
        for i in range(size[0]):
            for j in range(size[1]):
                points = [
                    (x1 + j * bin_w + (b + 0.5) * bin_w / columns, y1 + i * bin_h + (a + 0.5) * bin_h / rows)
                    for a in range(rows)
                    for b in range(columns)
                ]
                if points:
                    around = torch.tensor(
                        [[roi[0], x + 0.5 - 0.1, y + 0.5 - 0.1, x + 0.5 + 0.1, y + 0.5 + 0.1] for x, y in points]
                    )
                    samples = torchvision.ops.roi_align(features, around, 1, 1.0, 1, True)
                    out[k, :, i, j] = samples.amax(0).flatten()
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_maximum_over_the_samples(aligned: bool, ratio: int) -> None:
    features = pyramid()[2]
    boxes = some_boxes(10, 4, 250.0) - 30  # some reach outside the picture
    boxes[0, 2:] = boxes[0, :2] + 0.5
    rois = torch.cat(((torch.arange(10) % 2).float()[:, None], boxes), 1)
    got = roi_align(features, rois, (3, 4), 1 / 16, ratio, aligned, "max")
    torch.testing.assert_close(got, max_by_hand(features, rois, (3, 4), 1 / 16, ratio, aligned), rtol=1e-4, atol=1e-4)


def test_one_sample_makes_mean_and_maximum_equal() -> None:
    features, rois = pyramid()[1], [some_boxes(6), some_boxes(4, 1)]
    mean, most = (roi_align(features, rois, 7, 1 / 8, 1, True, reduce) for reduce in ("mean", "max"))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(mean, most, rtol=1e-4, atol=1e-5)
    assert (roi_align(features, rois, 7, 1 / 8, 2, True, "max") >= roi_align(features, rois, 7, 1 / 8, 2) - 1e-5).all()


def test_maximum_has_a_gradient() -> None:
    features = torch.randn(1, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rois = torch.tensor([[0.0, 2.1, 3.2, 20.7, 17.9], [0, -9, -9, -5, -5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: roi_align(f, rois, 2, 0.25, 2, True, "max"), (features,))


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_pyramid_keeps_the_order(reduce: str) -> None:
    features = pyramid()
    boxes = [some_boxes(30, 1), some_boxes(20, 2) / 4]
    got = multilevel_roi_align(features, boxes, STRIDES, 5, reduce=reduce, sampling_ratio=2, canonical=40.0)  # pyright: ignore[reportArgumentType]
    levels = assign_levels(torch.cat(boxes), 2, 5, 40.0).tolist()
    assert len(set(levels)) == 4
    for k, level in enumerate(levels):
        image, row = (0, k) if k < 30 else (1, k - 30)
        roi = torch.cat((torch.tensor([float(image)]), boxes[image][row]))[None]
        one = roi_align(features[level - 2], roi, 5, 1 / STRIDES[level - 2], 2, True, reduce)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(got[k : k + 1], one)


def test_equals_torchvision_pooler() -> None:
    features = pyramid()
    boxes = [some_boxes(40, 1), some_boxes(25, 2)]
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=40)
    want = pooler({str(i): f for i, f in enumerate(features)}, boxes, [(256, 256)] * 2)
    got = multilevel_roi_align(
        features, boxes, STRIDES, 7, sampling_ratio=2, aligned=False, canonical=40.0, epsilon_inside=False
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_no_boxes_still_connect(reduce: str) -> None:
    features = [f.requires_grad_() for f in pyramid()]
    out = multilevel_roi_align(features, [torch.zeros(0, 4)] * 2, STRIDES, 7, reduce=reduce)  # pyright: ignore[reportArgumentType]
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in features)


def test_gradient_flows_back_to_the_right_box() -> None:
    features = [f.requires_grad_() for f in pyramid()]
    boxes = [some_boxes(12, 1), some_boxes(9, 2)]
    weight = torch.randn(21, 3, 7, 7, generator=torch.Generator().manual_seed(5))
    (multilevel_roi_align(features, boxes, STRIDES, 7, sampling_ratio=2, canonical=40.0) * weight).sum().backward()
    levels = assign_levels(torch.cat(boxes), 2, 5, 40.0)
    for i, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        copy = feature.detach().clone().requires_grad_()
        rois = torch.cat([torch.cat((torch.full((len(b), 1), float(n)), b), 1) for n, b in enumerate(boxes)])
        (
            torchvision.ops.roi_align(copy, rois[levels == i + 2], 7, 1 / stride, 2, True) * weight[levels == i + 2]
        ).sum().backward()
        torch.testing.assert_close(feature.grad, copy.grad)


def test_bfloat16_is_computed_in_float32() -> None:
    features = [f.bfloat16() for f in pyramid()]
    boxes = [some_boxes(12, 1), some_boxes(9, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        got = multilevel_roi_align(features, boxes, STRIDES, 7)
    assert got.dtype == torch.bfloat16
    want = multilevel_roi_align([f.float() for f in features], boxes, STRIDES, 7)
    torch.testing.assert_close(got.float(), want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_can_be_exported(reduce: str) -> None:
    class Pool(nn.Module):
        def forward(self, features: list[Tensor], boxes: Tensor) -> Tensor:
            return multilevel_roi_align(features, [boxes], (4, 8), 3, sampling_ratio=1, canonical=60.0, reduce=reduce)  # pyright: ignore[reportArgumentType]

    program = torch.export.export(Pool(), (pyramid(1)[:2], some_boxes(20)), strict=False)
    other = (pyramid(1, seed=3)[:2], some_boxes(20, 7))
    torch.testing.assert_close(program.module()(*other), Pool()(*other))
