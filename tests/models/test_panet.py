"""PANet: what its three parts promise, and every option of its ablations, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskwright.models.panet import PANet, panet_r50
from maskwright.nn.heads.roi_box import FusedBoxHead
from maskwright.nn.heads.roi_mask import FusedMaskHead, MaskHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.necks.path_aggregation import PathAggregation
from maskwright.ops.roi import every_level_roi_align, roi_align
from maskwright.structures import Batch, Taxonomy
from tests.models.test_mask_rcnn import batch

LOSSES = {"rpn_class", "rpn_box", "class", "box", "mask"}
NUMBERS = {"channels": 8, "mask_width": 8, "box_hidden": 16, "roi_batch": 16, "rpn_batch": 32}


def tiny(**options: Any) -> PANet:
    torch.manual_seed(0)
    return panet_r50(Taxonomy(names=("disc", "square")), **{**NUMBERS, **options})


def losses(model: PANet, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


# ---- bottom-up path -------------------------------------------------------------------------------------------------


def maps(channels: int = 3) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(1, channels, side, side, generator=rng) for side in (16, 8, 4)]


def test_the_new_path_is_a_chain_from_the_finest_level() -> None:
    neck = PathAggregation(FPN([3, 3, 3], 4, extra=0), 4, extra=1)
    levels = neck.fpn(maps())
    out = neck(maps())
    wanted = [levels[0]]
    for i in range(2):
        wanted.append(neck.fuse[i].conv(levels[i + 1] + neck.down[i].conv(wanted[-1]).relu()).relu())
    assert [tuple(o.shape[-2:]) for o in out] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(out, wanted, strict=False))
    assert torch.equal(out[3], out[2][..., ::2, ::2])


def test_mmdetections_path_passes_by_the_fusing_convolutions() -> None:
    neck = PathAggregation(FPN([3, 3, 3], 4, extra=0), 4, extra=0, relu=False, chained=False)
    levels = neck.fpn(maps())
    first = levels[1] + neck.down[0].conv(levels[0])
    second = levels[2] + neck.down[1].conv(first)
    out = neck(maps())
    assert torch.allclose(out[1], neck.fuse[0].conv(first), atol=1e-6)
    assert torch.allclose(out[2], neck.fuse[1].conv(second), atol=1e-6)


# ---- adaptive feature pooling ---------------------------------------------------------------------------------------


def test_every_box_is_cut_out_of_every_level() -> None:
    boxes = [torch.tensor([[2.0, 3.0, 40.0, 50.0], [0.0, 0.0, 9.0, 9.0]]), torch.zeros(0, 4)]
    features = [torch.cat([m, m]) for m in maps()]
    out = every_level_roi_align(features, boxes, (4, 8, 16), 7)
    assert out.shape == (2, 3, 3, 7, 7)
    for level, (feature, stride) in enumerate(zip(features, (4, 8, 16), strict=True)):
        assert torch.equal(out[:, level], roi_align(feature, boxes, 7, 1 / stride))


@pytest.mark.parametrize("fuse", ["max", "sum"])
def test_levels_meet_behind_their_own_first_layers(fuse: Any) -> None:
    head = FusedBoxHead(3, 4, 2, 5, hidden=6, fuse=fuse)
    features = torch.randn(7, 3, 4, 2, 2)
    firsts = [layers[0].linear for layers in head.each]
    assert len({id(layer) for layer in firsts}) == 3
    parts = torch.stack([layer(features[:, i].flatten(1)).relu() for i, layer in enumerate(firsts)])
    fused = parts.amax(0) if fuse == "max" else parts.sum(0)
    logits, deltas = head(features)
    hidden = head.rest[0].linear(fused).relu()
    assert torch.allclose(logits, head.class_logits(hidden), atol=1e-6)
    assert deltas.shape == (7, 20)


def test_fusing_before_every_layer_is_pooling_the_maximum() -> None:
    head = FusedBoxHead(3, 4, 2, 5, hidden=6, fuse_after=0)
    features = torch.randn(7, 3, 4, 2, 2)
    same = features.amax(1, keepdim=True).expand_as(features)
    assert torch.allclose(head(features)[0], head(same)[0])
    with pytest.raises(ValueError, match="fuse_after must be 0 to 2"):
        FusedBoxHead(3, 4, 2, 5, fuse_after=3)


# ---- fully-connected fusion -----------------------------------------------------------------------------------------


def test_without_the_second_path_and_levels_the_mask_head_is_mask_rcnns() -> None:
    plain, head = MaskHead(4, 3, width=8), FusedMaskHead(0, 4, 6, 3, width=8, fully_connected=False)
    head.load_state_dict({name.replace("convs.", "rest."): value for name, value in plain.state_dict().items()})
    features = torch.randn(2, 4, 6, 6)
    assert torch.allclose(head(features), plain(features), atol=1e-6)


def test_the_second_path_adds_one_mask_to_all_classes() -> None:
    head = FusedMaskHead(2, 4, 6, 3, width=8)
    features = torch.randn(5, 2, 4, 6, 6)
    full = head.full
    assert isinstance(full, nn.Linear)
    assert full.weight.shape == (12 * 12, 4 * 6 * 6)
    both = head(features)
    head.full = None
    added = both - head(features)
    assert added.std(0).max() > 0
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-5)


@pytest.mark.parametrize("start", [1, 2, 3, 4])
@pytest.mark.parametrize("combine", ["sum", "max", "product"])
def test_where_and_how_the_second_path_joins(start: int, combine: Any) -> None:
    head = FusedMaskHead(2, 4, 6, 3, width=8, start=start, combine=combine)
    seen: list[Tensor] = []
    head.full_convs[0].register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    features = torch.randn(5, 2, 4, 6, 6)
    out = head(features)
    hidden = torch.stack([layers[0](features[:, i]) for i, layers in enumerate(head.each)]).amax(0)
    for conv in head.rest[: start - 1]:
        hidden = conv(hidden)
    assert torch.allclose(seen[0], hidden, atol=1e-6)
    full, head.full = head.full, None
    logits = head(features)
    branch = head.full_convs[1](head.full_convs[0](hidden)).flatten(1)
    one = full(branch).view(5, 1, 12, 12)
    wanted = {
        "sum": logits + one,
        "max": torch.maximum(logits, one),
        "product": (logits.sigmoid() * one.sigmoid()).logit(),
    }
    assert torch.allclose(out, wanted[combine], atol=1e-4)


# ---- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objects", [0, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model = tiny().train()
    found = losses(model, batch(objects))
    assert set(found) == LOSSES
    sum(found.values()).backward()
    assert all(torch.isfinite(v) for v in found.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    "options",
    [
        {"bottom_up": None},
        {"bottom_up": "mmdetection", "neck_norm": "batch"},
        {"adaptive": None},
        {"adaptive": "sum", "fuse_after": 2},
        {"fully_connected": False},
        {"full_start": 2, "full_combine": "product"},
        {"box_head": "conv4_fc1", "head_norm": "group"},
        {"agnostic_mask": True, "agnostic_box": True},
    ],
)
def test_options_learn_and_predict(options: dict[str, Any]) -> None:
    model, data = tiny(**options).train(), batch()
    sum(losses(model, data).values()).backward()
    model.eval().score_threshold = 0.0
    with torch.no_grad():
        scenes = model.predict(model(data.inputs), data.inputs.geometry)
    assert [s.size for s in scenes] == [(96, 96)] * 2
    assert all(0 < len(s.objects()) <= 100 for s in scenes)


def test_detections_of_other_classes_are_suppressed_on_demand() -> None:
    data = batch()
    apart, together = tiny().eval(), tiny(agnostic_nms=True).eval()
    together.load_state_dict(apart.state_dict())
    counts = []
    for model in (apart, together):
        model.score_threshold, model.max_per_image = 0.0, 10_000
        with torch.no_grad():
            counts.append(len(model(data.inputs).detections[0].boxes))
    assert counts[1] < counts[0]


def test_a_loss_without_scenes_is_refused() -> None:
    model, data = tiny().eval(), batch()
    with pytest.raises(ValueError, match="forward\\(inputs, scenes\\)"):
        model.loss(model(data.inputs), data)
    with pytest.raises(ValueError, match="forward\\(inputs\\)"):
        model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
