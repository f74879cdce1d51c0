"""SegFormer: sizes of the variants, the decoder written out, dropped paths, any picture size, losses, maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models import segformer
from maskwright.models.segformer import SegFormer, segformer_b0
from maskwright.nn.backbones.mit import MITS, MiT, MiTBlock
from maskwright.nn.heads.all_mlp import AllMLPHead
from maskwright.nn.norm import NormName
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

CLASSES = Taxonomy(names=("sky", "disc", "grass"), thing=(False, True, False))


def tiny(**options: Any) -> SegFormer:
    torch.manual_seed(0)
    return segformer_b0(CLASSES, **{"body": "mit_nano", "width": 16, **options})


def spread(module: nn.Module) -> None:
    """Parameters and statistics away from what they begin with, so that each of them shows."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.ndim == 1:
                value += torch.rand(value.shape, generator=rng) * (0.5 if name.endswith("var") else 0.2)


def batch(count: int = 2, void: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, 70, 96), dtype=torch.uint8, generator=rng) for _ in range(count)]
    semantic = (torch.arange(96) // 32).expand(70, 96).clone()
    semantic[:5] = -1
    scenes = tuple(Scene(size=(70, 96), semantic=torch.full_like(semantic, -1) if void else semantic) for _ in pictures)
    return Batch(inputs=Images.pad(pictures), scenes=scenes, keys=tuple(map(str, range(count))))


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [("b0", 3.4, 0.4), ("b1", 13.1, 0.6), ("b2", 24.2, 3.3), ("b3", 44.0, 3.3), ("b4", 60.8, 3.3), ("b5", 81.4, 3.3)],
)
def test_variants_are_as_large_as_published(name: str, encoder: float, decoder: float) -> None:
    """Table 1a, in millions; its decoders are for 150 classes and were rounded."""
    with torch.device("meta"):
        model = getattr(segformer, f"segformer_{name}")(Taxonomy(names=tuple(f"class {i}" for i in range(150))))
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.backbone, model.head)]
    assert sizes[0] == pytest.approx(encoder, rel=0.025)
    assert sizes[1] == pytest.approx(decoder, abs=0.15)


def test_every_number_is_an_option() -> None:
    model = tiny(drop_path=0.3, epsilon=(1e-3, 1e-4), dropout=0.2, frozen_stages=2, resize=Resize(short=64))
    assert model.resize == Resize(short=64)
    body: Any = model.backbone
    assert [all(p.requires_grad for p in stage.parameters()) for stage in body.stages] == [False, False, True, True]
    epsilons = {name: m.eps for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    assert {e for name, e in epsilons.items() if ".embed." in name or ".attention." in name} == {1e-4}
    assert {e for name, e in epsilons.items() if ".embed." not in name and ".attention." not in name} == {1e-3}
    with pytest.raises(ValueError, match="mit_b0"):
        MiT("mit_b9")
    with pytest.raises(ValueError, match="heads"):
        MiTBlock(10, 3, 1, 0.0, (1e-6, 1e-5))


def test_paths_are_dropped_in_training_only_and_the_first_never() -> None:
    model = tiny(drop_path=0.4)
    blocks = [m for m in model.modules() if isinstance(m, MiTBlock)]
    assert len(blocks) == sum(MITS["mit_nano"].depths)
    chances = [getattr(b.drop_path, "drop_prob", 0.0) for b in blocks]
    assert chances == pytest.approx([0.1 * i for i in range(5)])
    pixels = torch.randn(2, 3, 64, 64)
    body = model.backbone
    assert not torch.equal(body.train()(pixels)[3], body(pixels)[3])
    assert torch.equal(body.eval()(pixels)[3], body(pixels)[3])


@pytest.mark.parametrize("level_norm", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_the_decoder_written_out(level_norm: bool, norm: NormName) -> None:
    """Enlarge, join, classify, as equation 4 has it: the same outputs and gradients."""
    torch.manual_seed(0)
    head = AllMLPHead((4, 6, 8, 10), 5, width=16, norm=norm, level_norm=level_norm, dropout=0.0).double()
    spread(head)
    maps = [torch.randn(2, c, 24 >> i, 16 >> i).double().requires_grad_() for i, c in enumerate((4, 6, 8, 10))]

    def plain() -> Tensor:
        levels: list[Tensor] = []
        for i, level in enumerate(head.levels):
            hidden = level(maps[i])
            hidden = head.level_norms[i](hidden).relu() if level_norm else hidden
            levels.append(functional.interpolate(hidden, size=(24, 16), mode="bilinear", align_corners=False))
        return head.predictor(head.norm(head.join(torch.cat(levels, 1))).relu())

    for mode in (False, True):
        head.train(mode)
        torch.testing.assert_close(head(maps), plain())
        wanted: Tensor = torch.randn(2, 5, 24, 16).double()
        leaves = [*maps, *head.parameters()]
        for got, want in zip(
            torch.autograd.grad((head(maps) * wanted).sum(), leaves),
            torch.autograd.grad((plain() * wanted).sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [(32, 32), (70, 97), (33, 64)])
def test_maps_of_any_picture(size: tuple[int, int]) -> None:
    body = MiT("mit_nano").eval()
    maps = body(torch.randn(1, 3, *size))
    assert body.strides == (4, 8, 16, 32)
    for found, width, stride in zip(maps, body.channels, body.strides, strict=True):
        assert found.shape == (1, width, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("data", [batch(), batch(1), batch(2, void=True)])
def test_losses(data: Batch) -> None:
    model = tiny(dropout=0.0).train()
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
    want = functional.cross_entropy(full, target, ignore_index=-1) if int(counts) else torch.zeros(())
    assert float(found.detach()) == pytest.approx(float(want.detach()), rel=1e-5)


def test_learns_a_picture() -> None:
    data = batch(2)
    model = tiny(dropout=0.0, drop_path=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(model(data.inputs), data)["semantic"]
        loss.backward()
        optimizer.step()
    model.eval()
    geometry = [Geometry.identity((70, 96))] * 2
    for scene, truth in zip(model.predict(model(data.inputs), geometry), data.truth(), strict=True):
        assert scene.semantic is not None
        assert truth.semantic is not None
        known = truth.semantic >= 0
        assert (scene.semantic == truth.semantic)[known].float().mean() > 0.9


@pytest.mark.parametrize("at_once", [False, True])
def test_maps_in_file_pixels(at_once: bool) -> None:
    model = tiny(at_once=at_once)
    data = batch()
    model.train()(data.inputs)
    model.eval()
    geometry = (Geometry.resized((140, 192), (70, 96)), Geometry.identity((70, 96)))
    raw = model(data.inputs)
    one, two = model.predict(raw, geometry)
    assert (one.size, two.size) == ((140, 192), (70, 96))
    assert one.segments is None
    full = functional.interpolate(raw.semantic_logits, size=(96, 96), mode="bilinear", align_corners=False)[..., :70, :]
    if at_once:  # twice the padded picture, of which the file is the upper part
        full = full[1:]
        wide = functional.interpolate(raw.semantic_logits, size=(192, 192), mode="bilinear", align_corners=False)
        larger = wide[:1, :, :140]
    else:
        larger = functional.interpolate(full[:1], size=(140, 192), mode="bilinear", align_corners=False)
        full = full[1:]
    for scene, want in ((one, larger), (two, full)):
        assert scene.semantic is not None
        assert (scene.semantic != want[0].argmax(0)).float().mean() < 1e-3
    prob: Tensor = full[0].softmax(0).amax(0)
    model.score_threshold = float(prob.median())
    sure = model.predict(raw, geometry)[1].semantic
    assert sure is not None
    assert ((sure < 0) != (prob < model.score_threshold)).float().mean() < 1e-3


class Graph(nn.Module):
    """Pixels to logits."""

    def __init__(self, model: SegFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        size = (pixels.shape[-2], pixels.shape[-1])
        geometry = (Geometry(valid=size, original=size, scale=(1.0, 1.0)),) * 2
        return self.model(Images(pixels=pixels, geometry=geometry)).semantic_logits


def test_exported_with_sizes_left_open() -> None:
    model = tiny()
    spread(model)
    graph = Graph(model.eval())
    dims = {2: 32 * torch.export.Dim("rows", min=2, max=40), 3: 32 * torch.export.Dim("columns", min=2, max=40)}
    with torch.no_grad():
        program = torch.export.export(
            graph, (torch.rand(2, 3, 64, 96) * 255,), dynamic_shapes=(dims,), strict=False
        ).module()  # fmt: skip
        for size in ((64, 96), (128, 64), (96, 224)):
            pixels = torch.rand(2, 3, *size) * 255
            torch.testing.assert_close(program(pixels), graph(pixels), rtol=1e-4, atol=1e-5)
