"""What every model of the table promises, checked on a tiny build of each row.

A family joins by its thinner numbers in ``TINY``; nothing else here knows a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from maskwright import zoo
from maskwright.nn.losses import MASK_LOSSES
from maskwright.objectives.supervised import Supervised
from maskwright.ops.boxes import iou
from maskwright.protocols import Model
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy
from maskwright.weights import store

TWO_STAGE: dict[str, Any] = {"channels": 16, "mask_width": 16, "box_hidden": 32, "rpn_batch": 64, "roi_batch": 32}
FUSED: dict[str, Any] = {**TWO_STAGE, "semantic_width": 16, "score_threshold": 0.05, "overlap": 0.9, "stuff_area": 16}
QUERIES: dict[str, Any] = {"channels": 32, "hidden": 32, "queries": 12, "task": "instance"}
GRID: dict[str, Any] = {"channels": 32, "width": 32, "depth": 1, "prior": 0.3}
TINY: dict[str, dict[str, Any]] = {
    "maskwright.models.mask_rcnn": TWO_STAGE,
    "maskwright.models.panet": TWO_STAGE,
    "maskwright.models.mask_scoring_rcnn": {**TWO_STAGE, "iou_width": 16, "iou_hidden": 32},
    "maskwright.models.cascade_mask_rcnn": TWO_STAGE,
    "maskwright.models.pointrend": {**TWO_STAGE, "mask_hidden": 32, "point_width": 16},
    "maskwright.models.queryinst": {
        "channels": 16,
        "queries": 12,
        "stages": 2,
        "heads": 2,
        "hidden": 32,
        "dynamic_width": 8,
        "mask_width": 16,
        "mask_depth": 1,
        "box_std": 0.01,
    },
    "maskwright.models.solo": {
        **GRID,
        "grids": (12, 10, 8, 6, 4),
        "rules": {"mask_threshold": 0.1, "update_threshold": 0.0},
    },
    "maskwright.models.solov2": {**GRID, "mask_width": 16, "kernels": 16, "grids": (12, 10, 8, 6, 4)},
    "maskwright.models.panoptic_fpn": {**FUSED, "merge_things": False},
    "maskwright.models.upsnet": FUSED,
    "maskwright.models.panoptic_deeplab": {
        "aspp_width": 16,
        "semantic_width": 16,
        "semantic_head_width": 16,
        "instance_width": 16,
        "projected": (8, 8),
        "stuff_area": 16,
        "score_threshold": -1.0,
    },
    "maskwright.models.segformer": {"body": "mit_nano", "width": 16},
    "maskwright.models.semantic_fpn": {"channels": 16, "width": 16},
    "maskwright.models.deeplabv3plus": {"width": 16, "fine_width": 8},
    # the classes here are things; what these do with stuff is in their own tests
    "maskwright.models.detr": {**QUERIES, "encoder_depth": 1, "decoder_depth": 2, "heads": 8},
    "maskwright.models.maskformer": {**QUERIES, "embedding": 16, "heads": 2, "encoder_depth": 0, "depth": 2},
    "maskwright.models.yolact": {"channels": 16, "width": 16, "prototype_width": 16, "prototypes": 8},
    "maskwright.models.rtmdet_ins": {"width": 0.125, "channels": 16, "prior": 0.3},
    "maskwright.models.mask2former": {
        "body": "swin_nano",
        "channels": 64,
        "mask_channels": 16,
        "encoder_depth": 1,
        "encoder_hidden": 32,
        "points": 2,
        "queries": 20,
        "depth": 2,
        "heads": 2,
        "hidden": 32,
        "mask_points": 200,
        "score_threshold": 0.0,
        "overlap": 0.0,
    },
    "maskwright.models.eomt": {
        "body": "vit_nano",
        "side": 64,
        "queries": 20,
        "masked_blocks": 2,
        "mask_points": 200,
        "score_threshold": 0.0,
        "overlap": 0.0,
    },
    # 64 channels: P7 of a small picture is one cell, and a group norm needs two values a group.
    "maskwright.models.condinst": {
        "channels": 64,
        "head_depth": 1,
        "prior": 0.3,
        "branch_width": 16,
        "branch_depth": 1,
    },
    "maskwright.models.centermask": {
        "channels": 64,
        "head_depth": 1,
        "prior": 0.3,
        "mask_width": 48,
        "mask_depth": 2,
        "iou_hidden": 32,
    },
}
"""Options that make the rows of a module small; their backbones stay what they are."""

ROWS = [entry.name for entry in zoo.models()]
ONE_ROW_A_FAMILY = list({entry.build.partition(":")[0]: entry.name for entry in zoo.models()[::-1]}.values())[::-1]
"""For what depends on a family's code and not on a row's numbers."""

OTHER_PARTS = (
    "mask-rcnn-mobilenetv3",
    "mask-rcnn-r18-light",
    "solo-decoupled-r50",
    "solov2-light-r18",
    "centermask-v39",
    "centermask-lite",
    "yolact-mobilenetv3",
    "maskformer-swin-t",
    "panoptic-deeplab-mobilenetv3",
)
"""Rows that differ from the first of their family by more than numbers."""
KINDS = [name for name in ROWS if name in ONE_ROW_A_FAMILY or name in OTHER_PARTS]
"""For what numbers alone cannot break; every row still learns and is built."""
WITH_OBJECTS = [name for name in KINDS if zoo.entry(name).task != "semantic"]
SEMANTIC = [name for name in ROWS if zoo.entry(name).task == "semantic"]
GROUP_PIXELS = ("panoptic-deeplab-r52",)
"""Rows that learn where pixels point, and no masks."""
LEARN_MASKS = [name for name in ONE_ROW_A_FAMILY if zoo.entry(name).task != "semantic" and name not in GROUP_PIXELS]

CLASSES = Taxonomy(names=("disc", "square", "bar"))
SIDE = 96


def build(name: str, taxonomy: Taxonomy = CLASSES, seed: int = 0, **options: Any) -> Model:
    torch.manual_seed(seed)
    model = zoo.build(name, taxonomy, **{**options, **TINY[zoo.entry(name).build.partition(":")[0]]})
    with torch.no_grad():  # fresh classifiers are all but constant; spread them, so that detections have an order
        for parameter in network(model).parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
    return model


@cache
def ready(name: str) -> Model:
    """One model a row in evaluation mode, for the tests that change nothing."""
    model = build(name)
    settle(network(model), pictures((SIDE, SIDE), (SIDE, SIDE)))
    return model


@cache
def shallow(name: str) -> Model:
    """``ready`` on ResNet-18 in place of ResNet-50: tracing costs by the block, and blocks are alike."""
    model = build(name, body="resnet18") if name.endswith("-r50") else build(name)
    settle(network(model), pictures((SIDE, SIDE), (SIDE, SIDE)))
    return model


@torch.no_grad()
def settle(net: nn.Module, inputs: Images) -> None:
    """Give batch norms the statistics of some pictures: random deep networks overflow all scales without."""
    norms = [(m, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for module, _ in norms:
        module.momentum = None
    net.train()
    net(inputs)
    net.eval()
    for module, momentum in norms:
        module.momentum = momentum


def network(model: Model) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


def pictures(*sizes: tuple[int, int], originals: Sequence[tuple[int, int]] | None = None) -> Images:
    rng = torch.Generator().manual_seed(len(sizes))
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=rng) for size in sizes]
    geometry = [Geometry.resized(o, s) for o, s in zip(originals or sizes, sizes, strict=True)]
    return Images.pad(pixels, geometry, multiple=32)


def scene(size: tuple[int, int], objects: int, classes: int) -> Scene:
    dense = torch.zeros(objects, *size, dtype=torch.bool)
    for i in range(objects):
        dense[i, 6 + 9 * i : 40 + 9 * i, 8 + 11 * i : 36 + 11 * i] = True
    masks = Masks.from_dense(dense)
    labels = torch.arange(objects) % classes
    return Scene(size=size, segments=Segments(size=size, labels=labels, masks=masks, boxes=masks.boxes()))


def batch(*objects: int, classes: int = len(CLASSES)) -> Batch:
    inputs = pictures(*[(SIDE, SIDE)] * len(objects))
    scenes = tuple(scene((SIDE, SIDE), count, classes) for count in objects)
    return Batch(inputs=inputs, scenes=scenes, keys=tuple(f"picture {i}" for i in range(len(objects))))


@torch.no_grad()
def predict(model: Model, inputs: Images) -> list[Scene]:
    return model.predict(network(model)(inputs), inputs.geometry)


def agree(a: Segments, b: Segments) -> float:
    """The share of objects in ``a`` that ``b`` has too, with the same label, box, mask and score."""
    if len(a) == 0:
        return float(len(b) == 0)
    assert a.boxes is not None
    assert b.boxes is not None
    assert a.masks is not None
    assert b.masks is not None
    assert a.scores is not None
    assert b.scores is not None
    same = (
        (iou(a.boxes, b.boxes) > 0.99) & (a.labels[:, None] == b.labels) & ((a.scores[:, None] - b.scores).abs() < 1e-3)
    )
    # of several with the same box and score, the one with the most alike mask
    partner = torch.where(same, a.masks.iou(b.masks).to(torch.float32) + 1, 0).argmax(1)
    pixels = a.masks.dense().flatten(1).int() - b.masks[partner].dense().flatten(1).int()
    return float((same.any(1) & (pixels.abs().sum(1) <= 4)).float().mean())


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_losses_are_finite_and_reach_every_parameter(name: str) -> None:
    model = build(name)
    net = network(model).train()
    trained = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    with torch.no_grad():  # residual branches may start closed, and what is behind a closed door learns nothing yet
        for n, p in trained:
            if p.ndim == 1 and n.endswith("weight") and not p.any():
                p.fill_(0.5)
    for objects in ((0, 0), (3, 1)):
        net.zero_grad()
        losses = Supervised(model)(batch(*objects))
        assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
        cast(Tensor, sum(losses.values())).backward()
        assert [n for n, p in trained if p.grad is None] == []
        assert [n for n, p in trained if not torch.isfinite(cast(Tensor, p.grad)).all()] == []
        assert [n for n, b in net.named_buffers() if not torch.isfinite(b).all()] == []
    # not merely connected: what the objects teach arrives everywhere
    still = [n for n, p in trained if not cast(Tensor, p.grad).any()]
    assert len(still) <= 0.1 * len(trained), still


@pytest.mark.parametrize("name", KINDS)
def test_what_forward_returns_does_not_depend_on_the_mode(name: str) -> None:
    model = ready(name)
    net = network(model)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    raw = net.train()(pictures((64, 64), (64, 64)))
    net.eval().load_state_dict(state)
    assert len(model.predict(raw, [Geometry.identity((64, 64))] * 2)) == 2


@pytest.mark.parametrize("name", KINDS)
def test_one_class(name: str) -> None:
    model = build(name, Taxonomy(names=("nucleus",)))
    losses = Supervised(model).train()(batch(2, 1, classes=1))
    assert all(torch.isfinite(loss) for loss in losses.values())
    network(model).eval()
    found = predict(model, pictures((64, 64)))[0]
    if name in SEMANTIC:
        assert found.semantic is not None
        assert not found.semantic.clamp(min=0).any()
    else:
        assert not found.objects().labels.any()


@pytest.mark.parametrize("name", LEARN_MASKS)
def test_any_mask_loss_serves(name: str) -> None:
    model: Any = build(name)
    assert callable(model.mask_loss)
    heads = [p for n, p in model.named_parameters() if p.requires_grad and "backbone" not in n.split(".")]
    for objects in ((2, 1), (0, 0)):
        learned = batch(*objects)
        raw = model(learned.inputs, learned.truth())
        own = model.loss(raw, learned)
        before = model.mask_loss
        for loss_name, loss in MASK_LOSSES.items():
            model.mask_loss = loss
            losses = model.loss(raw, learned)
            assert losses.keys() == own.keys(), loss_name
            assert all(torch.isfinite(value) for value in losses.values()), loss_name
            total = cast(Tensor, sum(losses.values()))
            found = torch.autograd.grad(total, heads, retain_graph=True, allow_unused=True)
            assert all(torch.isfinite(value).all() for value in found if value is not None), loss_name
        model.mask_loss = before


@pytest.mark.parametrize("name", ONE_ROW_A_FAMILY)
def test_many_and_tiny_objects(name: str) -> None:
    """500 objects of which many have a single pixel, beside a picture whose only object has one."""
    model = build(name)
    many = torch.zeros(500, SIDE, SIDE, dtype=torch.bool)
    for i in range(500):
        row, column = divmod(i, 25)
        side = 1 + i % 4
        many[i, 4 * row : 4 * row + side, 3 * column : 3 * column + side] = True
    one = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    one[0, 50, 17] = True
    scenes = []
    for dense in (many, one):
        masks = Masks.from_dense(dense)
        labels = torch.arange(len(dense)) % len(CLASSES)
        segments = Segments(size=(SIDE, SIDE), labels=labels, masks=masks, boxes=masks.boxes())
        scenes.append(Scene(size=(SIDE, SIDE), segments=segments))
    crowded = Batch(inputs=pictures((SIDE, SIDE), (SIDE, SIDE)), scenes=tuple(scenes), keys=("many", "one"))
    losses = Supervised(model)(crowded)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    cast(Tensor, sum(losses.values())).backward()
    for parameter in network(model).parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


# ---- prediction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_OBJECTS)
def test_predictions_are_valid_scenes_in_file_pixels(name: str) -> None:
    model = ready(name)
    originals = [(150, 211), (40, 30)]
    inputs = pictures((96, 128), (90, 64), originals=originals)
    scenes = predict(model, inputs)
    assert [s.size for s in scenes] == originals
    for found, (height, width) in zip(scenes, originals, strict=True):
        segments = found.objects().validate(len(CLASSES))
        assert 0 < len(segments) <= cast(Any, model).max_per_image
        assert segments.masks is not None
        assert segments.boxes is not None
        assert segments.scores is not None
        assert segments.masks.size == (height, width)
        assert (segments.scores.diff() <= 0).all()
        assert (segments.boxes >= 0).all()
        assert (segments.boxes <= torch.tensor([width, height, width, height])).all()


@pytest.mark.parametrize("name", WITH_OBJECTS)
def test_a_batch_equals_its_pictures_one_by_one(name: str) -> None:
    model = ready(name)
    inputs = pictures((96, 96), (70, 96))
    together = predict(model, inputs)
    for i, found in enumerate(together):
        alone = predict(model, Images(pixels=inputs.pixels[i : i + 1], geometry=inputs.geometry[i : i + 1]))[0]
        assert len(alone.objects()) == len(found.objects())
        assert agree(alone.objects(), found.objects()) >= 0.95


@pytest.mark.parametrize("name", WITH_OBJECTS)
def test_limits_are_plain_attributes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(name)
    inputs = pictures((64, 96))
    before = predict(model, inputs)[0].objects()
    monkeypatch.setattr(model, "max_per_image", 5)
    some = predict(model, inputs)[0].objects()
    assert len(before) > 5 == len(some)
    monkeypatch.setattr(model, "score_threshold", 1.0)
    assert len(predict(model, inputs)[0].objects()) == 0


@pytest.mark.parametrize("name", [name for name in KINDS if name in SEMANTIC])
def test_semantic_maps_lie_in_file_pixels(name: str) -> None:
    originals = [(150, 211), (40, 30)]
    inputs = pictures((96, 128), (90, 64), originals=originals)
    model = ready(name)
    together = predict(model, inputs)
    for i, (found, size) in enumerate(zip(together, originals, strict=True)):
        assert found.size == size
        assert found.semantic is not None
        assert found.semantic.shape == size
        assert found.semantic.min() >= -1
        assert found.semantic.max() < len(CLASSES)
        alone = predict(model, Images(pixels=inputs.pixels[i : i + 1], geometry=inputs.geometry[i : i + 1]))[0]
        assert alone.semantic is not None
        assert (alone.semantic == found.semantic).float().mean() > 0.99


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_written_to_the_input(name: str) -> None:
    inputs = pictures((64, 64))
    before = inputs.pixels.clone()
    predict(ready(name), inputs)
    assert torch.equal(inputs.pixels, before)


# ---- storage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    model = ready(name)
    path = tmp_path / "model.safetensors"
    store.save(path, network(model).state_dict(), zoo.describe(model))
    again = zoo.load(path)
    path.unlink()  # hundreds of megabytes for the largest rows
    assert again.taxonomy == CLASSES
    inputs = pictures((64, 96))
    first, second = predict(model, inputs)[0], predict(again, inputs)[0]
    if name in SEMANTIC:
        assert torch.equal(cast(Tensor, first.semantic), cast(Tensor, second.semantic))
        return
    one, two = first.objects(), second.objects()
    assert torch.equal(one.labels, two.labels)
    for field in ("boxes", "scores"):
        assert torch.equal(getattr(one, field), getattr(two, field))


# ---- graphs ---------------------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """From pixels to the tensors of ``Raw``: the no-scenes graph, with the pictures' sizes fixed."""

    def __init__(self, model: Model, geometry: tuple[Geometry, ...]) -> None:
        super().__init__()
        self.model = network(model)
        self.geometry = geometry

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return tensors(self.model(Images(pixels=pixels, geometry=self.geometry)))


def tensors(value: Any) -> list[Tensor]:
    """All tensors within a ``Raw``, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in tensors(part)]
    fields = getattr(value, "__dataclass_fields__", {})
    return [t for field in fields for t in tensors(getattr(value, field))]


def assert_same(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ONE_ROW_A_FAMILY)
def test_exported_equals_eager(name: str) -> None:
    graph = Graph(shallow(name), pictures((64, 64)).geometry)
    with torch.no_grad():
        program = torch.export.export(graph, (pictures((64, 64)).pixels,), strict=False).module()
        for seed in range(2):
            other = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
            assert_same(program(other), graph(other))


@pytest.mark.parametrize("name", ONE_ROW_A_FAMILY)
def test_compiled_equals_eager(name: str) -> None:
    graph = Graph(shallow(name), pictures((64, 64)).geometry)
    pixels = pictures((64, 64)).pixels
    with torch.no_grad():
        assert_same(torch.compile(graph, backend="eager")(pixels), graph(pixels))
    torch.compiler.reset()
