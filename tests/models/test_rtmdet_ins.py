"""RTMDet-Ins: what its parts promise, on a tiny model."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.rtmdet_ins import RTMDetIns, rtmdet_ins_s, rtmdet_ins_tiny
from maskwright.nn.backbones.csp_next import CSPNeXt, PooledPyramid
from maskwright.nn.heads.rtmdet import MaskFeatures, RTMDetHead, quality_focal_sum
from maskwright.nn.losses import mask_bce
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy
from maskwright.weights.mmdetection_rtmdet import MMDetectionRTMDetIns

LOSSES = {"class", "box", "mask"}
SIDE = 96


def tiny(classes: int = 2, **options: Any) -> RTMDetIns:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {"width": 0.125, "channels": 16, "prior": 0.3}
    return rtmdet_ins_tiny(Taxonomy(names=tuple("abcdefgh"[:classes])), **{**numbers, **options})


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


def losses(model: RTMDetIns, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model = tiny(box_tower=True).train()
    found = losses(model, batch(scene(blocks(objects)), scene(blocks(objects))))
    assert set(found) == LOSSES
    sum(found.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in found.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize(
    "options",
    [
        {"box_tower": True, "share_convs": False},
        {"mask_stride": 8},
        {"mask_stride": 2},
        {"dynamic_depth": 1, "mask_features": 4},
        {"attention": False},
        {"max_masks": 2},
        {"body": "resnet18"},
        {"body": "mobilenetv3_small_100", "norm": "frozen"},
        {"norm": "frozen", "frozen_stages": 2, "head_width": 32, "head_depth": 1},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    model = tiny(**options)
    data = batch(scene(blocks(2)))
    assert all(torch.isfinite(v) for v in losses(model, data).values())
    with torch.no_grad():
        assert model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().masks is not None
    frozen = options.get("frozen_stages", 0)
    assert isinstance(model.backbone, nn.Module)
    assert any(not p.requires_grad for p in model.backbone.parameters()) == bool(frozen)


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

    def total(loss: dict[str, Tensor], count: dict[str, Tensor], name: str) -> Tensor:
        return loss[name] * count[name].clamp(min=1)

    for name in LOSSES:
        apart = total(*parts[0], name) + total(*parts[1], name)
        torch.testing.assert_close(total(*parts[2], name), apart, rtol=1e-4, atol=1e-4)


def test_crowds_and_ignored_regions_make_no_negatives() -> None:
    model = tiny().eval()
    dense = blocks(2)
    crowd = scene(dense, crowd=torch.tensor([False, True]))
    ignoring = scene(dense[:1], ignore=Masks.from_dense(dense[1:]))
    plain = scene(dense[:1])
    with torch.no_grad():
        raws = [model(batch(s).inputs, (s,)) for s in (crowd, ignoring, plain)]
    labels = [r.targets[0].labels for r in raws if r.targets]
    assert torch.equal(labels[0], labels[1])
    assert not (labels[2] == -1).any()
    assert (labels[0] == -1).sum() > 5
    assert ((labels[0] != labels[2]) == (labels[0] == -1)).all()


def test_masks_are_learned_at_the_middle_of_their_cells() -> None:
    model, dense = tiny(), blocks(3)
    data = batch(scene(dense))
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append((logits, targets))
        return mask_bce(logits, targets)

    model.mask_loss = spy
    raw = model(data.inputs, data.truth())
    model.loss(raw, data)
    assert raw.targets
    which = raw.targets[0].matched[raw.cells[0]]
    assert len(which)
    assert seen[0][0].shape == seen[0][1].shape == (len(which), SIDE // 4, SIDE // 4)
    assert torch.equal(seen[0][1], dense[which, 2::4, 2::4].float())


def test_boxes_and_masks_come_back_in_file_pixels() -> None:
    model, data = tiny().eval(), batch(scene(blocks(1)))
    with torch.no_grad():
        raw = model(data.inputs)
        here = model.predict(raw, [Geometry.identity((SIDE, SIDE))])[0].objects()
        there = model.predict(raw, [Geometry.resized((2 * SIDE, 3 * SIDE), (SIDE, SIDE))])[0].objects()
    assert here.boxes is not None
    assert there.boxes is not None
    assert here.masks is not None
    assert there.masks is not None
    assert torch.allclose(there.boxes, here.boxes * torch.tensor([3.0, 2, 3, 2]), atol=1e-3)
    assert torch.allclose(there.masks.area() / 6, here.masks.area().float(), rtol=0.05, atol=8)


# ---- parts ----------------------------------------------------------------------------------------------------------


def spread(module: nn.Module) -> None:
    """Norms that are not the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.001, 0.01)
            nn.init.normal_(part.bias, std=0.3)


@torch.no_grad()
def test_kernels_of_a_few_cells_are_those_of_the_whole_map() -> None:
    torch.manual_seed(0)
    head = RTMDetHead(8, 2, (8, 16, 32), 11).eval()
    spread(head)
    features = [torch.randn(2, 8, side, side + 1) for side in (12, 6, 3)]
    dense = torch.cat([k.flatten(2) for k in head.kernels(features)], 2).transpose(1, 2)
    cells = [torch.tensor([0, 12, 155, 156, 160, 197, 198, 209, 70]), torch.tensor([3, 143, 206])]
    assert dense.shape[1] == 210
    for image, found in enumerate(head.kernels_at(features, cells)):
        torch.testing.assert_close(found, dense[image, cells[image]], rtol=1e-4, atol=1e-5)
    assert head.kernels_at(features, [cells[0][:0], cells[1]])[0].shape == (0, 11)


@torch.no_grad()
def test_levels_are_mixed_before_they_are_enlarged() -> None:
    torch.manual_seed(0)
    part = MaskFeatures(6, 3, depth=1, out_channels=4).eval()
    features = [torch.randn(1, 6, side, side) for side in (16, 8, 4)]
    whole = [features[0], *(functional.interpolate(f, (16, 16), mode="bilinear") for f in features[1:])]
    want = part.output(part.tower(part.fuse(torch.cat(whole, 1))))
    torch.testing.assert_close(part(features), want, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pooling_in_steps_is_pooling_over_the_windows() -> None:
    torch.manual_seed(0)
    part = PooledPyramid(8).eval()
    features = torch.randn(1, 8, 15, 11)
    first = part.reduce(features)
    pooled = [functional.max_pool2d(first, window, 1, window // 2) for window in (5, 9, 13)]
    assert torch.equal(part(features), part.mix(torch.cat((first, *pooled), 1)))


@pytest.mark.parametrize(("depth", "want"), [(0.167, [1, 1, 1, 1]), (0.33, [1, 2, 2, 1]), (0.67, [2, 4, 4, 2])])
def test_sizes_of_the_body(depth: float, want: list[int]) -> None:
    body = CSPNeXt(depth=depth, width=0.25)
    found = [
        sum(name.endswith("point.conv.weight") for name, _ in stage.named_parameters())
        for stage in body.stages.children()
    ]
    assert found[1:] == want
    maps = body(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 8, 12), (128, 4, 6), (256, 2, 3)]


def test_the_quality_is_what_the_class_shall_say() -> None:
    labels, quality = torch.tensor([1, 2, 0]), torch.tensor([0.7, 0.0, 0.2])
    exact = torch.full((3, 2), -30.0)
    exact[0, 1], exact[2, 0] = torch.logit(torch.tensor(0.7)), torch.logit(torch.tensor(0.2))
    assert float(quality_focal_sum(exact, labels, quality)) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(3, 2)
    prob = logits.sigmoid()
    want = 0.0
    for i in range(3):
        for c in range(2):
            y = float(quality[i]) if int(labels[i]) == c else 0.0
            p = float(prob[i, c])
            want -= abs(y - p) ** 2 * float(y * torch.log(prob[i, c]) + (1 - y) * torch.log(1 - prob[i, c]))
    assert float(quality_focal_sum(logits, labels, quality)) == pytest.approx(want, rel=1e-4)


def test_published_sizes() -> None:
    numbers = {"tiny": 5.6e6, "s": 10.2e6}
    for name, builder in (("tiny", rtmdet_ins_tiny), ("s", rtmdet_ins_s)):
        count = sum(p.numel() for p in builder(Taxonomy(names=tuple(f"c{i}" for i in range(80)))).parameters())
        assert count == pytest.approx(numbers[name], rel=0.02)


def test_pretrained_needs_a_timm_body() -> None:
    with pytest.raises(ValueError, match="timm body"):
        tiny(pretrained=True)


@pytest.mark.parametrize("options", [{}, {"box_tower": True}, {"share_convs": False}, {"neck_blocks": 2}])
def test_the_importer_reads_what_mmdetection_writes(options: dict[str, Any]) -> None:
    """A checkpoint with mmdetection's names, which hold shared tensors several times, becomes the model it was."""
    model = rtmdet_ins_s(Taxonomy(names=("a", "b", "c")), channels=16, **options)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("pixel_")}
    written = {
        _theirs(name): value.flip(1) if name == "backbone.stages.0.0.conv.weight" else value
        for name, value in state.items()
    }
    if options.get("share_convs", True):
        shared = re.compile(r"(bbox_head\.(?:cls|reg)_convs\.)0(\..*conv\.weight)")
        found = [(shared.fullmatch(name), value) for name, value in written.items()]
        written.update({f"{m[1]}{level}{m[2]}": value for m, value in found if m for level in (1, 2)})
    if not options.get("box_tower"):
        written.update({k.replace("cls_convs", "reg_convs"): v for k, v in written.items() if "cls_convs" in k})
    importer = MMDetectionRTMDetIns()
    assert importer.recognizes(written)
    assert importer.model(written) == "rtmdet-ins-s"
    again = rtmdet_ins_s(importer.taxonomy(written), **importer.options(written))
    found = again.load_state_dict(importer.convert(written), strict=False)
    assert not found.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in found.missing_keys)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in state.items())


def _theirs(name: str) -> str:
    """mmdetection's name for one of ours."""
    parts = [
        ("backbone.stages.0.", "backbone.stem."),
        ("backbone.stages.4.1.reduce.", "backbone.stage4.1.conv1."),
        ("backbone.stages.4.1.mix.", "backbone.stage4.1.conv2."),
        ("backbone.stages.", "backbone.stage"),
        ("neck.reduce.", "neck.reduce_layers."),
        ("neck.top_down.", "neck.top_down_blocks."),
        ("neck.downsample.", "neck.downsamples."),
        ("neck.bottom_up.", "neck.bottom_up_blocks."),
        ("neck.output.", "neck.out_convs."),
        ("mask_features.tower.", "bbox_head.mask_head.stacked_convs."),
        ("mask_features.fuse.", "bbox_head.mask_head.fusion_conv."),
        ("mask_features.output.", "bbox_head.mask_head.projection."),
        ("head.class_logits.", "bbox_head.rtm_cls."),
        ("head.distances.", "bbox_head.rtm_reg."),
        ("head.parameters_of.", "bbox_head.rtm_kernel."),
        ("head.class_tower.", "bbox_head.cls_convs."),
        ("head.box_tower.", "bbox_head.reg_convs."),
        ("head.kernel_tower.", "bbox_head.kernel_convs."),
        (".main.", ".main_conv."),
        (".short.", ".short_conv."),
        (".final.", ".final_conv."),
        (".first.", ".conv1."),
        (".depth.", ".conv2.depthwise_conv."),
        (".point.", ".conv2.pointwise_conv."),
        (".norm.", ".bn."),
    ]
    for ours, theirs in parts:
        name = name.replace(ours, theirs)
    for layer in ("reduce_layers", "top_down_blocks"):
        if f".{layer}." in name:
            head, level, rest = name.partition(f"{layer}.")[0], *name.partition(f"{layer}.")[2].split(".", 1)
            name = f"{head}{layer}.{1 - int(level)}.{rest}"
    for kind, new in (("convs", "conv"), ("norms", "bn")):
        head, mark, rest = name.partition(f"_convs.{kind}.")
        if mark:
            level, layer, last = rest.split(".", 2)
            name = f"{head}_convs.{level}.{layer}.{new}.{last}"
    return name
