"""FCOS's points, targets, losses and decoding, and what CondInst and CenterMask add to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskwright.nn.backbones.vovnet import VOVNETS, VoVNet
from maskwright.nn.heads.dense_box import (
    DENSE_RULES,
    IGNORED,
    DenseBoxHead,
    DenseMaps,
    DenseTargets,
    TopLevels,
    assign_points,
    centerness_of,
    dense_losses,
    dense_points,
    detect_dense,
    giou_of_distances,
)
from maskwright.nn.heads.dynamic_masks import DynamicMasks, MaskBranch
from maskwright.nn.heads.spatial_attention_mask import levels_by_share, mask_iou_targets, pool_by_share
from maskwright.ops.aligned import aligned_bilinear, draw_aligned
from maskwright.ops.boxes import giou_matched
from maskwright.ops.roi import roi_align
from maskwright.structures import Masks

STRIDES = (8, 16, 32)
SIZES = [(16, 20), (8, 10), (4, 5)]
LIMITS = (32.0, 64.0)


def assign(boxes: list[list[float]], **options: object) -> DenseTargets:
    points, levels = dense_points(SIZES, STRIDES, torch.device("cpu"))
    box = torch.tensor(boxes).reshape(-1, 4)
    labels = torch.arange(len(box))
    numbers = {"background": 5, "limits": LIMITS, "radius": None, **options}
    return assign_points(points, levels, STRIDES, box, labels, **numbers)  # type: ignore[arg-type]


def test_points_are_row_by_row_with_the_center_of_each_cell() -> None:
    points, levels = dense_points([(2, 3), (1, 2)], (8, 16), torch.device("cpu"))
    assert points[:4].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12]]
    assert points[6:].tolist() == [[8, 8], [24, 8]]
    assert levels.tolist() == [0] * 6 + [1] * 2


# ---- targets --------------------------------------------------------------------------------------------------------


def test_targets_equal_a_loop_over_cells_and_objects() -> None:
    boxes = [[3.0, 5, 40, 44], [10, 10, 120, 100], [20, 20, 60, 33], [100, 50, 101, 51]]
    targets = assign(boxes, radius=1.5)
    points, levels = dense_points(SIZES, STRIDES, torch.device("cpu"))
    edges = (-1.0, *LIMITS, float("inf"))
    for (x, y), level, label, distances in zip(
        points.tolist(), levels.tolist(), targets.labels.tolist(), targets.distances, strict=True
    ):
        best, want, sides = float("inf"), 5, [0.0] * 4
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            reach, d = 1.5 * STRIDES[level], [x - x1, y - y1, x2 - x, y2 - y]
            near = abs(x - (x1 + x2) / 2) < reach and abs(y - (y1 + y2) / 2) < reach
            area = (x2 - x1) * (y2 - y1)
            if near and min(d) > 0 and edges[level] <= max(d) <= edges[level + 1] and area < best:
                best, want, sides = area, i, [v / STRIDES[level] for v in d]
        assert label == want
        assert distances.tolist() == pytest.approx(sides)


def test_targets_do_not_depend_on_the_size_of_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = (torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) * 60).tolist()
    boxes = [[a, b, a + c + 1, b + d + 1] for a, b, c, d in boxes]
    points, levels = dense_points(SIZES, STRIDES, torch.device("cpu"))
    labels = torch.zeros(30, dtype=torch.int64)
    one = assign_points(points, levels, STRIDES, torch.tensor(boxes), labels, background=1, limits=LIMITS)
    monkeypatch.setattr("maskwright.nn.heads.dense_box._CELLS", 100)
    two = assign_points(points, levels, STRIDES, torch.tensor(boxes), labels, background=1, limits=LIMITS)
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(one.matched, two.matched)
    assert torch.equal(one.distances, two.distances)


def test_no_objects_and_ignored_cells() -> None:
    ignored = torch.zeros(16 * 20 + 8 * 10 + 4 * 5, dtype=torch.bool)
    ignored[:30] = True
    none = assign([], ignored=ignored)
    assert (none.labels[:30] == IGNORED).all()
    assert (none.labels[30:] == 5).all()
    # An object counts also where others are ignored.
    some = assign([[0, 0, 30, 30]], ignored=ignored)
    assert (some.labels[:3] == 0).all()


def test_centers_move_the_region_that_learns() -> None:
    centered = assign([[0, 0, 60, 60]], radius=1.0)
    moved = assign([[0, 0, 60, 60]], radius=1.0, centers=torch.tensor([[12.0, 12.0]]))
    assert not torch.equal(centered.labels, moved.labels)
    points, _ = dense_points(SIZES, STRIDES, torch.device("cpu"))
    assert (points[moved.positive(5)] < 28).all()


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_giou_of_distances_is_that_of_the_boxes() -> None:
    a, b = torch.rand(40, 4) * 5 + 0.1, torch.rand(40, 4) * 5 + 0.1
    point = torch.rand(40, 2) * 20

    def box(d: Tensor) -> Tensor:
        return torch.cat((point - d[:, :2], point + d[:, 2:]), 1)

    torch.testing.assert_close(giou_of_distances(a, b, False), giou_matched(box(a), box(b)), atol=1e-4, rtol=1e-4)


def test_giou_of_empty_boxes_is_finite() -> None:
    zero, goal = torch.zeros(3, 4, requires_grad=True), torch.ones(3, 4)
    for smooth in (True, False):
        value = giou_of_distances(zero, goal, smooth).sum()
        value.backward()
        assert torch.isfinite(value)
        assert zero.grad is not None
        assert torch.isfinite(zero.grad).all()


def test_centerness() -> None:
    distances = torch.tensor([[1.0, 1, 1, 1], [1, 1, 4, 1], [2, 1, 8, 4], [0, 0, 0, 0]])
    assert centerness_of(distances).tolist() == pytest.approx([1, 0.5, 0.25, 0])


# ---- decoding -------------------------------------------------------------------------------------------------------


def perfect(boxes: list[list[float]], classes: int = 5) -> tuple[DenseMaps, DenseTargets]:
    """Maps that say what the targets ask for."""
    targets = assign(boxes)
    maps, start = DenseMaps([], [], [], []), 0
    for height, width in SIZES:
        part = slice(start, start + height * width)
        one_hot = torch.nn.functional.one_hot(targets.labels[part], classes + 1)[:, :classes]
        maps.classes.append((one_hot.float() * 24 - 12).T.reshape(1, classes, height, width))
        maps.distances.append(targets.distances[part].T.reshape(1, 4, height, width))
        center = centerness_of(targets.distances[part]).clamp(1e-4, 1 - 1e-4)
        maps.centerness.append(center.logit().reshape(1, 1, height, width))
        start += height * width
    return maps, targets


BOXES = [[3.0, 5, 40, 44], [50, 40, 140, 120], [60, 2, 100, 20]]


@pytest.mark.parametrize("rules", sorted(DENSE_RULES))
def test_what_the_targets_ask_for_is_detected(rules: str) -> None:
    maps, _ = perfect(BOXES)
    found = detect_dense(
        maps, STRIDES, [(128, 160)], rules=DENSE_RULES[rules], score_threshold=0.3, nms_threshold=0.6, pre_nms=100,
        limit=10,
    )[0]  # fmt: skip
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.boxes, torch.tensor(BOXES)[found.labels])
    assert (found.scores.diff() <= 0).all()


def test_losses_of_what_the_targets_ask_for_are_small() -> None:
    maps, targets = perfect(BOXES)
    sums, counts = dense_losses(maps, [targets], rules=DENSE_RULES["adelaidet"])
    assert sums["class"] < 1e-3
    assert sums["box"].abs() < 1e-3
    assert counts["class"] == len(targets.positive(5))


def test_limits_thresholds_and_the_picture() -> None:
    maps, _ = perfect(BOXES)
    options = {"rules": DENSE_RULES["adelaidet"], "nms_threshold": 0.6, "pre_nms": 100}
    assert len(detect_dense(maps, STRIDES, [(128, 160)], score_threshold=0.3, limit=2, **options)[0].boxes) == 2
    assert len(detect_dense(maps, STRIDES, [(128, 160)], score_threshold=1.0, limit=9, **options)[0].boxes) == 0
    # What lies in the padding takes no place among the best.
    inside = detect_dense(maps, STRIDES, [(38, 45)], score_threshold=0.3, limit=9, **options)[0]
    assert inside.labels.tolist() == [0]


def test_head_and_top_levels() -> None:
    features = TopLevels(64)([torch.rand(1, 64, s, s) for s in (16, 8, 4)])
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2, 1]
    maps = DenseBoxHead(64, 3, depth=2).eval()(features)
    assert [tuple(m.shape) for m in maps.classes] == [(1, 3, s, s) for s in (16, 8, 4, 2, 1)]
    assert all((m >= 0).all() for m in maps.distances)
    assert [m.sigmoid().mean().item() for m in maps.classes] == pytest.approx([0.01] * 5, abs=5e-3)


# ---- CondInst's part ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", ["relative", "absolute", None])
@pytest.mark.parametrize("depth", [2, 3])
def test_dynamic_masks_are_one_convolution_with_a_group_for_each_object(coordinates: str | None, depth: int) -> None:
    count, channels, width, h, w = 4, 5, 6, 7, 9
    networks = DynamicMasks(channels, width=width, depth=depth, coordinates=coordinates)
    features, weights = torch.randn(channels, h, w), torch.randn(count, networks.parameters_needed)
    points, extents = torch.rand(count, 2) * 70, torch.tensor([64.0, 64, 128, 256])
    got = networks(features, weights, points, extents, 8)

    x, y = (torch.arange(s) * 8.0 + 4 for s in (w, h))
    grid = torch.stack((x.expand(h, w), y[:, None].expand(h, w)))
    if coordinates == "relative":
        places = (points[:, :, None, None] - grid) / extents[:, None, None, None]
    else:
        places = (2 * grid / torch.tensor([w * 8.0, h * 8.0])[:, None, None] - 1).expand(count, 2, h, w)
    copies = features.expand(count, channels, h, w)
    hidden = copies if coordinates is None else torch.cat((places, copies), 1)
    hidden = hidden.reshape(1, -1, h, w)
    rest = weights
    biases = weights[:, sum(networks.weights) :]
    for layer, (a, b) in enumerate(zip(networks.ends[:-1], networks.ends[1:], strict=True)):
        kernel, rest = rest[:, : a * b].reshape(count * b, a, 1, 1), rest[:, a * b :]
        bias, biases = biases[:, :b].reshape(-1), biases[:, b:]
        hidden = torch.nn.functional.conv2d(hidden if layer == 0 else hidden.relu(), kernel, bias, groups=count)
    torch.testing.assert_close(got, hidden[0], atol=1e-4, rtol=1e-4)


def test_dynamic_masks_of_no_objects_keep_the_gradient() -> None:
    networks = DynamicMasks(8)
    assert networks.parameters_needed == 169
    features, weights = torch.randn(8, 4, 4, requires_grad=True), torch.zeros(0, 169, requires_grad=True)
    networks(features, weights, torch.zeros(0, 2), torch.zeros(0), 8).sum().backward()
    assert features.grad is not None
    assert weights.grad is not None
    with pytest.raises(ValueError, match="coordinates must be"):
        DynamicMasks(8, coordinates="polar")


def test_mask_branch() -> None:
    branch = MaskBranch(16, width=8, depth=1, out_channels=4, classes=3)
    shared, semantic = branch([torch.rand(2, 16, s, s) for s in (16, 8, 4)])
    assert tuple(shared.shape) == (2, 4, 16, 16)
    assert semantic is not None
    assert tuple(semantic.shape) == (2, 3, 16, 16)


def test_aligned_bilinear_keeps_the_points_of_the_cells() -> None:
    # Values that are linear in the position stay so, except in the repeated border.
    x = (torch.arange(9) * 8.0 + 4).expand(1, 1, 5, 9)
    large = aligned_bilinear(x, 4)
    assert tuple(large.shape) == (1, 1, 20, 36)
    # Cells of 8 pixels stand for their pixel 4; cells of 2 pixels would for their pixel 1, seen from pixel 0 on.
    torch.testing.assert_close(large[0, 0, 0, 2:-4], torch.arange(36)[2:-4] * 2.0)
    assert aligned_bilinear(x, 1) is x


@pytest.mark.parametrize(
    ("valid", "size"), [((50, 61), (50, 61)), ((50, 61), (75, 100)), ((56, 64), (20, 17)), ((30, 30), (200, 9))]
)
def test_drawing_equals_enlarging_the_whole_picture(valid: tuple[int, int], size: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 1, 4, 5, generator=rng) * torch.rand(12, 1, 1, 1, generator=rng) * 1.5
    probs = torch.nn.functional.interpolate(coarse, (14, 16), mode="bilinear")[:, 0]
    whole = aligned_bilinear(probs[:, None], 4)[..., : valid[0], : valid[1]]
    whole = torch.nn.functional.interpolate(whole, size, mode="bilinear", align_corners=False)[:, 0] > 0.5
    drawn = Masks.from_arrays(*draw_aligned(probs, 4, valid, size), size)
    assert 0 < int((whole.flatten(1).any(1)).sum()) < 12
    assert (drawn.dense() != whole).sum() <= 2
    assert len(Masks.from_arrays(*draw_aligned(probs[:0], 4, valid, size), size)) == 0


# ---- CenterMask's part ----------------------------------------------------------------------------------------------


def test_levels_by_share_of_the_picture() -> None:
    sides = torch.tensor([640.0, 450, 320, 226, 100, 10])
    boxes = torch.stack((sides * 0, sides * 0, sides, sides), 1)
    assert levels_by_share(boxes, 640.0 * 640, 3, 5).tolist() == [5, 4, 3, 3, 3, 3]
    assert levels_by_share(boxes[:1] * 2, 640.0 * 640, 3, 5).tolist() == [5]
    assert levels_by_share(torch.zeros(1, 4), 640.0, 3, 5).tolist() == [3]


def test_pooling_takes_each_box_from_its_level() -> None:
    features = [torch.rand(2, 4, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)]
    boxes = [torch.tensor([[0.0, 0, 64, 64], [3, 4, 20, 18]]), torch.tensor([[5.0, 5, 60, 40]])]
    out = pool_by_share(features, boxes, [(64, 64), (64, 64)], (8, 16, 32), 7)
    torch.testing.assert_close(out[:1], roi_align(features[2], [boxes[0][:1], boxes[1][:0]], 7, 1 / 32))
    torch.testing.assert_close(out[1:2], roi_align(features[0], [boxes[0][1:], boxes[1][:0]], 7, 1 / 8))
    none = pool_by_share(features, [boxes[0][:0]] * 2, [(64, 64)] * 2, (8, 16, 32), 7)
    none.sum().backward()
    assert all(f.grad is not None for f in features)


def test_mask_iou_counts_what_lies_outside_of_the_box() -> None:
    targets = torch.ones(1, 4, 4)
    boxes = torch.tensor([[0.0, 0, 8, 8]])
    whole, twice = torch.tensor([64]), torch.tensor([128])
    assert mask_iou_targets(targets, targets, whole, boxes).item() == 1
    assert mask_iou_targets(targets, targets, twice, boxes).item() == pytest.approx(0.5)
    assert mask_iou_targets(-targets, targets, whole, boxes).item() == 0


@pytest.mark.parametrize("name", sorted(VOVNETS))
def test_vovnet_levels(name: str) -> None:
    if name in ("v57", "v99"):
        with torch.device("meta"):
            body = VoVNet(name)
        assert body.channels == (512, 768, 1024)
        return
    body = VoVNet(name, norm="frozen", frozen_stages=2).eval()
    with torch.no_grad():
        maps = body(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(body.channels, body.strides, strict=True)
    ]
    trained = {n.split(".")[0] + n.split(".")[1] for n, p in body.named_parameters() if p.requires_grad}
    assert trained == {"stages1", "stages2", "stages3"}


def test_vovnet_names_are_checked() -> None:
    with pytest.raises(ValueError, match="VoVNet must be one of"):
        VoVNet("v40")
