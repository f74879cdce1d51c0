"""Semantic FPN and DeepLabv3+: losses, maps, thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.deeplabv3plus import deeplabv3plus_r50
from maskwright.models.semantic_fpn import semantic_fpn_r50
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy

CLASSES = Taxonomy(names=("sky", "disc", "grass"), thing=(False, True, False))
BUILDERS = (
    lambda **o: semantic_fpn_r50(CLASSES, **{"body": "resnet18", "channels": 16, "width": 16, **o}),
    lambda **o: deeplabv3plus_r50(CLASSES, **{"body": "resnet18", "width": 16, "fine_width": 8, "dropout": 0.0, **o}),
)
Builder = Callable[..., Any]


def batch(count: int = 2, void: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, 70, 96), dtype=torch.uint8, generator=rng) for _ in range(count)]
    semantic = (torch.arange(96) // 32).expand(70, 96).clone()
    semantic[:5] = -1
    scenes = tuple(Scene(size=(70, 96), semantic=torch.full_like(semantic, -1) if void else semantic) for _ in pictures)
    return Batch(inputs=Images.pad(pictures), scenes=scenes, keys=tuple(map(str, range(count))))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("data", [batch(), batch(1), batch(2, void=True)])
def test_losses(builder: Builder, data: Batch) -> None:
    torch.manual_seed(0)
    model = builder().train()
    raw = model(data.inputs, data.truth())
    found, counts = model.loss(raw, data)["semantic"], model.loss_counts(raw, data)["semantic"]
    found.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    target = torch.full((len(data), 96, 96), -1)
    for i, scene in enumerate(data.truth()):
        assert scene.semantic is not None
        target[i, :70] = scene.semantic
    assert int(counts) == int((target >= 0).sum())
    full = functional.interpolate(raw.semantic_logits, size=(96, 96), mode="bilinear", align_corners=False)
    if int(counts):
        want = functional.cross_entropy(full, target, ignore_index=-1)
        assert float(found) == pytest.approx(float(want), rel=1e-5)
    else:
        assert float(found) == 0


@pytest.mark.parametrize("builder", BUILDERS)
def test_maps_in_file_pixels(builder: Builder) -> None:
    torch.manual_seed(0)
    model = builder()
    data = batch()
    model.train()(data.inputs)  # statistics of norms
    model.eval()
    geometry = (Geometry.resized((140, 192), (70, 96)), Geometry.identity((70, 96)))
    raw = model(data.inputs)
    one, two = model.predict(raw, geometry)
    assert (one.size, two.size) == ((140, 192), (70, 96))
    assert one.segments is None
    assert one.panoptic is None
    full = functional.interpolate(raw.semantic_logits, size=(96, 96), mode="bilinear", align_corners=False)[..., :70, :]
    assert (two.semantic != full[1].argmax(0)).float().mean() < 1e-3
    prob: Tensor = full[1].softmax(0).amax(0)
    model.score_threshold = float(prob.median())
    sure = model.predict(raw, geometry)[1].semantic
    assert ((sure < 0) != (prob < model.score_threshold)).float().mean() < 1e-3


def test_deeplab_without_a_decoder_and_strides() -> None:
    data = batch(1)
    builder = BUILDERS[1]
    assert builder().eval()(data.inputs).semantic_logits.shape == (1, 3, 24, 24)
    plain: Any = builder(decoder=False, output_stride=8).eval()
    assert plain(data.inputs).semantic_logits.shape == (1, 3, 12, 12)
    assert [m.dilation[0] for m in plain.head.aspp.modules() if getattr(m, "kernel_size", 0) == (3, 3)] == [12, 24, 36]
