"""Importers: names, layouts and options, on layouts that the recorded references do not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskwright.errors import InputError
from maskwright.weights.coco_names import COCO_THINGS, coco_slots, coco_things, taxonomy_for
from maskwright.weights.detectron2 import Detectron2MaskRCNN
from maskwright.weights.importers import IMPORTERS, recognize, require_importer
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model
from maskwright.weights.torchvision import TorchvisionMaskRCNN
from maskwright.zoo import build


def detectron2_state(**changes: Tensor) -> dict[str, Tensor]:
    """The few tensors that options are read from; empty but for their shapes."""
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.bottom_up.stem.conv1.weight": (4, 3, 7, 7),
        "backbone.bottom_up.res2.0.conv2.weight": (4, 4, 3, 3),
        "backbone.fpn_lateral2.weight": (8, 4, 1, 1),
        "roi_heads.box_predictor.cls_score.weight": (81, 8),
        "roi_heads.box_predictor.bbox_pred.weight": (320, 8),
        "roi_heads.mask_head.predictor.weight": (80, 8, 1, 1),
    }
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**state, **{name.replace("__", "."): value for name, value in changes.items()}}


def blocks(counts: tuple[int, ...], convolutions: int) -> list[str]:
    return [
        f"layer{stage + 1}.{block}.conv{k + 1}.weight"
        for stage, count in enumerate(counts)
        for block in range(count)
        for k in range(convolutions)
    ]


def test_detectron2_pixels_are_reversed_once() -> None:
    importer, state = Detectron2MaskRCNN(), detectron2_state()
    assert require_importer(state, "it").origin == "detectron2"
    out = importer.convert(state)
    first = state["backbone.bottom_up.stem.conv1.weight"]
    assert torch.equal(out["backbone.body.conv1.weight"], first.flip(1))
    assert out["pixel_mean"].tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert out["pixel_std"].tolist() == [1, 1, 1]
    options = importer.options(state)
    assert options["stride_in_1x1"] is True
    assert options["convention"] == "detectron2"


def test_detectron2_trained_on_rgb_is_left_as_it_is() -> None:
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    state = detectron2_state(pixel_mean=mean.view(3, 1, 1), pixel_std=std.view(3, 1, 1))
    importer = Detectron2MaskRCNN()
    out = importer.convert(state)
    assert torch.equal(out["backbone.body.conv1.weight"], state["backbone.bottom_up.stem.conv1.weight"])
    assert torch.allclose(out["pixel_mean"], mean)
    assert torch.allclose(out["pixel_std"], std)
    assert importer.options(state)["stride_in_1x1"] is False


def test_detectron2_resnext_has_its_own_statistics() -> None:
    state = detectron2_state(backbone__bottom_up__res2__0__conv2__weight=torch.zeros(256, 8, 3, 3))
    options = Detectron2MaskRCNN().options(state)
    assert options["stride_in_1x1"] is False
    assert options["pixel_std"] == pytest.approx((58.395, 57.12, 57.375))


def test_detectron2_heads_of_other_forms() -> None:
    extra = {
        "proposal_generator.rpn_head.conv.conv1.weight": torch.zeros(2),
        "roi_heads.box_head.conv4.weight": torch.zeros(2),
        "roi_heads.box_head.conv4.norm.weight": torch.zeros(2),
        "roi_heads.mask_head.mask_fcn1.norm.weight": torch.zeros(2),
        "roi_heads.mask_head.mask_fcn1.norm.running_mean": torch.zeros(2),
        "backbone.fpn_lateral2.norm.weight": torch.zeros(2),
        "roi_heads.box_predictor.bbox_pred.weight": torch.zeros(4, 8),
    }
    state = {**detectron2_state(), **extra}
    importer = Detectron2MaskRCNN()
    options = importer.options(state)
    assert (options["rpn_depth"], options["box_head"]) == (2, "conv4_fc1")
    assert (options["head_norm"], options["neck_norm"]) == ("batch", "group")
    assert (options["agnostic_box"], options["agnostic_mask"]) == (True, False)
    names = set(importer.convert(state))
    assert {"rpn.convs.1.weight", "box_head.convs.3.conv.weight", "box_head.convs.3.norm.weight"} <= names
    assert {"neck.lateral.0.conv.weight", "neck.lateral.0.norm.weight", "mask_head.convs.0.norm.running_mean"} <= names


def test_torchvision_background_moves_to_the_end() -> None:
    names = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    rows = (4, 16, 4)
    state = {f"roi_heads.{name}.bias": torch.arange(float(n)) for name, n in zip(names, rows, strict=True)}
    out = TorchvisionMaskRCNN().convert(state)
    assert out["box_head.class_logits.bias"].tolist() == [1, 2, 3, 0]
    assert out["box_head.box_deltas.bias"].tolist() == list(range(4, 16))
    assert out["mask_head.predictor.bias"].tolist() == [1, 2, 3]
    assert out["pixel_mean"].tolist() == pytest.approx([123.675, 116.28, 103.53])


@pytest.mark.parametrize(("kind", "name"), [("v2", "mask-rcnn-r50"), ("r18", "mask-rcnn-r18")])
def test_torchvision_models_fill_ours_completely(kind: str, name: str) -> None:
    if kind == "v2":
        theirs: Any = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=3)
    else:
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        theirs = MaskRCNN(backbone, num_classes=3)
    state = theirs.state_dict()
    importer = require_importer(state, "it")
    assert importer.model(state) == name
    assert importer.taxonomy(state).names == ("class 1", "class 2")
    ours: Any = build(name, importer.taxonomy(state), **importer.options(state))
    converted, wanted = importer.convert(state), ours.state_dict()
    assert converted.keys() == wanted.keys()
    assert all(value.shape == wanted[key].shape for key, value in converted.items())


@pytest.mark.parametrize(
    ("counts", "convolutions", "grouped", "name"),
    [
        ((2, 2, 2, 2), 2, False, "mask-rcnn-r18"),
        ((3, 4, 6, 3), 3, False, "mask-rcnn-r50"),
        ((3, 4, 23, 3), 3, False, "mask-rcnn-r101"),
        ((3, 4, 23, 3), 3, True, "mask-rcnn-x101"),
    ],
)
def test_bodies(counts: tuple[int, ...], convolutions: int, grouped: bool, name: str) -> None:
    assert resnet_model(blocks(counts, convolutions), grouped) == name


def test_unknown_bodies_are_named() -> None:
    with pytest.raises(InputError, match=r"got \(3, 8, 36, 3\) bottleneck blocks"):
        resnet_model(blocks((3, 8, 36, 3), 3), False)


def test_unknown_checkpoints_are_named() -> None:
    assert recognize({"conv.weight": torch.ones(1)}) is None
    with pytest.raises(InputError, match=r"a\.pth must be .*detectron2, torchvision.*conv\.weight"):
        require_importer({"conv.weight": torch.ones(1)}, "a.pth")
    assert len({importer.origin for importer in IMPORTERS}) == len(IMPORTERS)


def test_coco_classes() -> None:
    assert len(coco_things()) == 80
    assert coco_things().label_of[90] == 79
    assert len(coco_slots()) == 90
    assert coco_slots().names[11] == "unused 12"
    assert coco_slots().source_ids == tuple(range(1, 91))
    assert all(coco_slots().names[i - 1] == name for i, name in COCO_THINGS.items())
    assert len(taxonomy_for(7)) == 7


@given(st.dictionaries(st.text("ab.1", min_size=1, max_size=6), st.integers(), max_size=8))
def test_rename_loses_nothing_and_undoes_itself(values: dict[str, int]) -> None:
    state = {name: torch.tensor(value % 97) for name, value in values.items()}
    there = rename(state, [Rule(r"(.*)", r"x.\1")])
    back = rename(there, [Rule(r"x\.(.*)", r"\1")])
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_rename_rules_in_order_drop_and_change() -> None:
    state = {"a.w": torch.ones(2), "b.w": torch.ones(2), "c.w": torch.ones(2), "d": torch.ones(1)}
    rules = [Rule("a\\.w", "first"), Rule("b.*", None), Rule("(.)\\.w", "\\1.v", torch.neg)]
    out = rename(state, rules)
    assert list(out) == ["first", "c.v", "d"]
    assert out["c.v"].tolist() == [-1, -1]
    with pytest.raises(InputError, match=r"'x': 'a\.w' and 'b\.w'"):
        rename(state, [Rule("[ab].w", "x")])
