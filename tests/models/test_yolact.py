"""YOLACT: what its parts promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.models.yolact import Yolact, yolact_mobilenetv3
from maskwright.nn.heads.prototypes import (
    BoxMaskLoss,
    anchor_sides,
    assemble,
    cells_within,
    hard_class_sum,
    match_anchors,
    share_covered,
    spread_anchors,
)
from maskwright.nn.losses import mask_bce
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

LOSSES = {"class", "box", "mask", "semantic"}
SIDE = 96


def tiny(classes: int = 2, **options: Any) -> Yolact:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {"body": "resnet18", "channels": 16, "width": 16, "prototype_width": 16, "prototypes": 8}
    return yolact_mobilenetv3(Taxonomy(names=tuple("abcdefgh"[:classes])), **{**numbers, **options})


def scene(dense: Tensor, **options: Any) -> Scene:
    masks = Masks.from_dense(dense)
    ignore = options.pop("ignore", None)
    labels = torch.arange(len(dense)) % 2
    segments = Segments(size=(SIDE, SIDE), labels=labels, masks=masks, boxes=masks.boxes(), **options)
    return Scene(size=(SIDE, SIDE), segments=segments, ignore=ignore)


def blocks(count: int) -> Tensor:
    dense = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for i in range(count):
        dense[i, 10 + 20 * i : 40 + 20 * i, 8 : 40 + i] = True
    return dense


def batch(*scenes: Scene) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (len(scenes), 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    images = Images(pixels=pixels, geometry=(Geometry.identity((SIDE, SIDE)),) * len(scenes))
    return Batch(inputs=images, scenes=scenes, keys=tuple("abcdefgh"[: len(scenes)]))


def losses(model: Yolact, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model = tiny().train()
    found = losses(model, batch(scene(blocks(objects)), scene(blocks(objects))))
    assert set(found) == LOSSES
    sum(found.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in found.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    "options",
    [
        {"square_anchors": False, "forced": "last", "extra_from": "input", "neck_relu": False, "pre_nms": 50},
        {"clip_first": False, "second_threshold": False},
        {"agnostic_nms": True},
        {"prototypes": 4, "anchor_ratios": (1.0,)},
        {"anchor_sizes": (32, 64, 128, 256, 512)},
        {"max_masks": 3},
        {"body": "mobilenetv3_small_100"},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    model = tiny(**options)
    data = batch(scene(blocks(2)))
    assert all(torch.isfinite(v) for v in losses(model, data).values())
    model.score_threshold = 0.2
    with torch.no_grad():
        assert model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().masks is not None


def test_losses_of_two_pictures_are_those_of_each_weighted_by_the_counts() -> None:
    model = tiny(max_masks=None).eval()
    one, two = batch(scene(blocks(3))), batch(scene(blocks(1)))
    both = Batch(
        inputs=Images(
            pixels=torch.cat((one.inputs.pixels, two.inputs.pixels)),
            geometry=one.inputs.geometry + two.inputs.geometry,
        ),
        scenes=one.scenes + two.scenes,
        keys=("a", "b"),
    )
    with torch.no_grad():
        raws = [model(d.inputs, d.truth()) for d in (one, two, both)]
        parts = [(model.loss(r, d), model.loss_counts(r, d)) for r, d in zip(raws, (one, two, both), strict=True)]
    for name in LOSSES:
        total = sum(loss[name] * count[name] for loss, count in parts[:2])
        torch.testing.assert_close(parts[2][0][name] * parts[2][1][name], total, rtol=1e-4, atol=1e-4)


def test_crowds_and_ignored_regions_make_no_negatives() -> None:
    model = tiny().eval()
    dense = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    dense[0, 4:30, 4:30] = True
    dense[1, 20:90, 40:95] = True
    crowd = scene(dense, crowd=torch.tensor([False, True]))
    ignoring = scene(dense[:1], ignore=Masks.from_dense(dense[1:]))
    plain = scene(dense[:1])
    with torch.no_grad():
        raws = [model(batch(s).inputs, (s,)) for s in (crowd, ignoring, plain)]
    labels = [r.targets[0].labels for r in raws if r.targets]
    assert torch.equal(labels[0], labels[1])
    assert ((labels[0] != labels[2]) == ((labels[0] == -1) & (labels[2] != -1))).all()
    assert (labels[0] == -1).sum() > (labels[2] == -1).sum() + 5
    assert not ((labels[0] == 2) & (share_covered(dense[1], raws[0].anchors) > 0.7)).any()
    semantic = [model.loss(r, batch(s))["semantic"] for r, s in zip(raws[1:], (ignoring, plain), strict=True)]
    assert float(semantic[0]) < float(semantic[1])


def test_another_mask_loss_sees_what_is_cut_off_as_background() -> None:
    model = tiny()
    data = batch(scene(blocks(2)))
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append((logits, targets))
        return mask_bce(logits, targets)

    model.mask_loss = spy
    losses(model, data)
    logits, targets = seen[0]
    assert (logits[:, -1, -1] < -1000).all()
    assert targets.any()
    assert logits.shape == targets.shape


def test_masks_stay_inside_their_boxes_but_for_a_cell() -> None:
    model = tiny().eval()
    model.score_threshold = 0.1
    data = batch(scene(blocks(1)))
    with torch.no_grad():
        found = model.predict(model(data.inputs), data.inputs.geometry)[0].objects()
    assert len(found) > 5
    assert found.masks is not None
    assert found.boxes is not None
    drawn = torch.nonzero(found.masks.area() > 0).flatten()
    assert len(drawn)
    inner, outer = found.masks.boxes()[drawn], found.boxes[drawn]
    assert (inner[:, :2] >= outer[:, :2] - 10).all()
    assert (inner[:, 2:] <= outer[:, 2:] + 10).all()


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_anchors_lie_in_the_middle_of_their_cells() -> None:
    sides = anchor_sides((24, 48), (1.0, 2.0), square=False)
    anchors = spread_anchors([(4, 6), (2, 3)], (44, 66), sides)
    assert anchors.shape == ((24 + 6) * 2, 4)
    assert torch.allclose((anchors[0, :2] + anchors[0, 2:]) / 2, torch.tensor([5.5, 5.5]))
    width, height = (anchors[1, 2:] - anchors[1, :2]).tolist()
    assert height / width == pytest.approx(2)
    assert height * width == pytest.approx(24**2, rel=1e-5)
    squares = anchor_sides((24,), (1.0, 2.0), square=True)[0]
    assert all(w == h for w, h in squares)


@pytest.mark.parametrize(("forced", "want"), [("greedy", [1, 0]), ("last", [1, 2])])
def test_every_object_gets_an_anchor(forced: Any, want: list[int]) -> None:
    """Both objects like the first anchor best, the second one most; the originals' ways differ in the first one's."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 0, 40, 20]])
    boxes = torch.tensor([[0.0, 0, 10, 8], [1.0, 0, 10, 10]])
    labels = torch.tensor([0, 1])
    found = match_anchors(anchors, boxes, labels, None, background=2, forced=forced)
    assert found.labels.tolist() == want


def test_between_the_two_overlaps_nothing_is_learned() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5], [0, 0, 10, 3.9], [0, 0, 10, 5.1]])
    found = match_anchors(anchors, boxes, torch.tensor([1]), torch.tensor([True] * 4), background=3)
    assert found.labels.tolist() == [1, -1, -1, 1]
    assert match_anchors(anchors, boxes, torch.tensor([1]), None, background=3).labels.tolist() == [1, -1, 3, 1]


def test_the_share_of_a_box_that_is_covered() -> None:
    region = torch.zeros(10, 12, dtype=torch.bool)
    region[2:6, 3:9] = True
    boxes = torch.tensor([[3.0, 2, 9, 6], [0, 0, 12, 10], [-4, 2, 4, 4], [9, 6, 12, 10]])
    want = torch.tensor([1.0, 24 / 120, 2 / 16, 0.0])
    assert torch.allclose(share_covered(region, boxes), want)


def test_only_the_hardest_negatives_are_learned() -> None:
    logits = torch.zeros(1, 9, 3)
    logits[0, :, 2] = torch.arange(9.0)  # the first are the hardest
    labels = torch.tensor([0, 2, 2, 2, 2, 2, 2, 2, -1])
    target = match_anchors(torch.rand(9, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), None, background=2)
    assert (target.labels == 2).all()
    target.labels = labels
    total, count = hard_class_sum(logits, [target], ratio=3)
    each = torch.nn.functional.cross_entropy(logits[0, :8], labels[:8], reduction="none")
    assert float(count) == 1
    assert float(total) == pytest.approx(float(each[0] + each[1:4].sum()), rel=1e-6)
    target.labels = labels.clamp(min=2)
    total, count = hard_class_sum(logits, [target], ratio=3, least=2)
    assert float(count) == pytest.approx(2 / 3)
    assert float(total) > 0


def test_masks_are_sums_of_prototypes() -> None:
    maps, weights = torch.rand(3, 4, 5), torch.rand(2, 3)
    want = torch.einsum("nk,khw->nhw", weights, maps)
    assert torch.allclose(assemble(maps, weights), want)
    assert assemble(maps, weights[:0]).shape == (0, 4, 5)


def test_the_mask_loss_counts_the_box_alone() -> None:
    logits, targets = torch.randn(2, 8, 8), torch.rand(2, 8, 8).round()
    boxes = torch.tensor([[2.0, 2, 5, 6], [0, 0, 8, 8]])
    within = cells_within(boxes, (8, 8))
    assert within[0].sum() == 5 * 6
    loss = BoxMaskLoss()
    outside = logits.where(within, torch.randn(2, 8, 8))
    assert torch.equal(loss(logits, targets, boxes), loss(outside, targets, boxes))
    whole = loss(logits[1:], targets[1:], boxes[1:])
    assert float(whole) == pytest.approx(float(mask_bce(logits[1:], targets[1:])), rel=1e-6)
    assert float(loss(logits[:0], targets[:0], boxes[:0])) == 0


def test_as_many_objects_as_are_asked_for() -> None:
    """Pictures of hundreds of cells: Fast NMS must not stop at the originals' 200 boxes."""
    model = tiny(1)
    model.max_per_image = 300
    side = torch.arange(18.0) * 10
    corners = torch.cartesian_prod(side, side)
    anchors = torch.cat((corners, corners + 8), 1)
    inputs = batch(scene(blocks(1))).inputs
    logits = torch.tensor([4.0, 0.0]).expand(1, len(anchors), 2)
    found = model.detect(logits, torch.zeros(1, len(anchors), 4), anchors, inputs, [len(anchors)])[0]
    assert len(found.boxes) == 300
