"""SegFormer in the names of its authors and of mmsegmentation, whose networks are written out here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.data.formats import tables
from maskwright.data.formats.cityscapes_labels import taxonomy_of
from maskwright.errors import InputError
from maskwright.models.segformer import segformer_b0
from maskwright.nn.backbones import mit
from maskwright.structures import Geometry, Images, Resize
from maskwright.structures.taxonomy import numbered
from maskwright.weights.importers import recognize
from maskwright.weights.report import load_state
from maskwright.weights.scene_names import scene_classes
from maskwright.weights.segformer_official import (
    MMSegmentationSegFormer,
    OfficialSegFormer,
    coarse_first,
    segformer_resize,
    segformer_row,
)
from maskwright.weights.transformers_segformer import TransformersSegFormer

IMPORTERS = (TransformersSegFormer(), OfficialSegFormer(), MMSegmentationSegFormer())
CLASSES = 7


def transformers_state() -> dict[str, Tensor]:
    """A SegFormer-B0 in transformers' names, from ours."""
    torch.manual_seed(0)
    renames = (
        (r"backbone\.stages\.(\d)\.embed\.conv\.", r"segformer.encoder.patch_embeddings.\1.proj."),
        (r"backbone\.stages\.(\d)\.embed\.norm\.", r"segformer.encoder.patch_embeddings.\1.layer_norm."),
        (r"backbone\.stages\.(\d)\.norm\.", r"segformer.encoder.layer_norm.\1."),
        (r"backbone\.stages\.(\d)\.blocks\.(\d+)\.", r"segformer.encoder.block.\1.\2."),
        (r"\.norm(\d)\.", r".layer_norm_\1."),
        (r"attention\.attention\.output\.", r"attention.output.dense."),
        (r"attention\.attention\.", r"attention.self."),
        (r"attention\.reduce\.", r"attention.self.sr."),
        (r"attention\.norm\.", r"attention.self.layer_norm."),
        (r"feed\.widen\.", "mlp.dense1."),
        (r"feed\.narrow\.", "mlp.dense2."),
        (r"feed\.mix\.", "mlp.dwconv.dwconv."),
        (r"head\.levels\.(\d)\.", r"decode_head.linear_c.\1.proj."),
        (r"head\.join\.", "decode_head.linear_fuse."),
        (r"head\.norm\.", "decode_head.batch_norm."),
        (r"head\.predictor\.", "decode_head.classifier."),
    )
    out: dict[str, Tensor] = {}
    for name, value in segformer_b0(numbered(CLASSES)).state_dict().items():
        if name.startswith("pixel"):
            continue
        for pattern, new in renames:
            name = re.sub(pattern, new, name)
        tensor = torch.randn_like(value) if value.is_floating_point() else value
        out[name] = tensor[..., 0, 0] if "linear_c." in name and tensor.ndim == 4 else tensor
    return out


def authors_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in the authors' names, the other way round than transformers' converter goes."""
    renames = (
        (r"segformer\.encoder\.", "backbone."),
        (r"mlp\.dense(\d)", r"mlp.fc\1"),
        (r"patch_embeddings\.(\d)", lambda m: f"patch_embed{int(m[1]) + 1}"),
        (r"block\.(\d)", lambda m: f"block{int(m[1]) + 1}"),
        (r"backbone\.layer_norm\.(\d)", lambda m: f"backbone.norm{int(m[1]) + 1}"),
        (r"layer_norm_(\d)", r"norm\1"),
        (r"layer_norm", "norm"),
        (r"attention\.self\.query", "attn.q"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"attention\.self", "attn"),
        (r"linear_c\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}"),
        (r"linear_fuse", "linear_fuse.conv"),
        (r"batch_norm", "linear_fuse.bn"),
        (r"classifier", "linear_pred"),
    )
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".value." in name:
            continue
        tensor = torch.cat((value, state[name.replace(".key.", ".value.")])) if ".key." in name else value
        for pattern, new in renames:
            name = re.sub(pattern, new, name)
        out[name.replace("attn.key", "attn.kv")] = tensor
    unused = {"decode_head.conv_seg.weight": torch.zeros(CLASSES, 128, 1, 1)}
    return {**out, **unused, "decode_head.conv_seg.bias": torch.zeros(CLASSES)}


def test_the_authors_names_hold_what_transformers_do() -> None:
    state = transformers_state()
    theirs = authors_state(state)
    for name in ("backbone.block3.1.attn.kv.weight", "backbone.norm4.bias", "decode_head.linear_fuse.bn.running_var"):
        assert name in theirs
    importer = OfficialSegFormer()
    assert [known.recognizes(theirs) for known in IMPORTERS] == [False, True, False]
    assert importer.model(theirs) == "segformer-b0"
    assert len(importer.taxonomy(theirs)) == CLASSES
    got, want = importer.convert(theirs), TransformersSegFormer().convert(state)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    model = segformer_b0(importer.taxonomy(theirs), **importer.options(theirs))
    assert load_state(model, got, source="theirs").complete
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6, 1e-5}


# ---- mmsegmentation -------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """mmsegmentation's SegFormer as its names and its settings say, in the simplest words."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.reductions = (8, 4, 2, 1)
        stages: list[nn.Module] = []
        for i, count in enumerate(widths):
            embed = nn.Module()
            embed.projection = nn.Conv2d(
                widths[i - 1] if i else 3, count, 3 if i else 7, 2 if i else 4, 1 if i else 3
            )  # fmt: skip
            embed.norm = nn.LayerNorm(count, 1e-6)
            blocks = nn.ModuleList(self._block(count, heads[i], self.reductions[i]) for _ in range(depths[i]))
            stages.append(nn.ModuleList([embed, blocks, nn.LayerNorm(count, 1e-6)]))
        self.backbone, self.decode_head = nn.Module(), nn.Module()
        self.backbone.layers = nn.ModuleList(stages)
        self.decode_head.convs = nn.ModuleList(self._conv(count, width) for count in widths)
        self.decode_head.fusion_conv = self._conv(4 * width, width)
        self.decode_head.conv_seg = nn.Conv2d(width, CLASSES, 1)

    @staticmethod
    def _conv(channels: int, width: int) -> nn.Module:
        module = nn.Sequential()
        module.add_module("conv", nn.Conv2d(channels, width, 1, bias=False))
        module.add_module("bn", nn.BatchNorm2d(width))
        module.add_module("activate", nn.ReLU())
        return module

    @staticmethod
    def _block(count: int, heads: int, reduction: int) -> nn.Module:
        block, attn, feed = nn.Module(), nn.Module(), nn.Module()
        block.norm1, block.norm2 = nn.LayerNorm(count, 1e-6), nn.LayerNorm(count, 1e-6)
        attn.attn = nn.MultiheadAttention(count, heads, batch_first=True)
        if reduction > 1:
            attn.sr, attn.norm = nn.Conv2d(count, count, reduction, reduction), nn.LayerNorm(count, 1e-6)
        mix = nn.Conv2d(4 * count, 4 * count, 3, padding=1, groups=4 * count)
        feed.layers = nn.Sequential(
            nn.Conv2d(count, 4 * count, 1), mix, nn.GELU(), nn.Dropout(0.0), nn.Conv2d(4 * count, count, 1)
        )
        block.attn, block.ffn = attn, feed
        return block

    def forward(self, pixels: Tensor) -> Tensor:
        maps: list[Tensor] = []
        hidden: Any = pixels
        body: Any = self.backbone
        for (embed, blocks, norm), reduction in zip(body.layers, self.reductions, strict=True):
            hidden = embed.projection(hidden)
            size = hidden.shape[-2:]
            tokens = embed.norm(hidden.flatten(2).transpose(1, 2))
            for block in blocks:
                query = seen = block.norm1(tokens)
                if reduction > 1:
                    seen = block.attn.sr(query.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
                    seen = block.attn.norm(seen)
                tokens = tokens + block.attn.attn(query, seen, seen)[0]
                fed = block.ffn.layers(block.norm2(tokens).transpose(1, 2).unflatten(2, size))
                tokens = tokens + fed.flatten(2).transpose(1, 2)
            hidden = norm(tokens).transpose(1, 2).unflatten(2, size)
            maps.append(hidden)
        head: Any = self.decode_head
        levels = [
            functional.interpolate(conv(level), size=maps[0].shape[-2:], mode="bilinear", align_corners=False)
            for conv, level in zip(head.convs, maps, strict=True)
        ]
        return head.conv_seg(head.fusion_conv(torch.cat(levels, 1)))


@torch.no_grad()
def test_mmsegmentation_computes_the_same() -> None:
    torch.manual_seed(0)
    size = mit.MITS["mit_b0"]
    theirs = Plain(size.widths, size.depths, size.heads, 24).eval()
    for name, value in theirs.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value += torch.rand_like(value) * (0.5 if name.endswith("var") else 0.2)
    state = theirs.state_dict()
    importer = MMSegmentationSegFormer()
    assert [known.recognizes(state) for known in IMPORTERS] == [False, False, True]
    assert importer.model(state) == "segformer-b0"
    options = importer.options(state)
    model = segformer_b0(importer.taxonomy(state), **options)
    assert load_state(model, importer.convert(state), source="theirs").complete
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    got = model.eval()(Images(pixels=pixels, geometry=(Geometry.identity((64, 96)),))).semantic_logits
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    want = theirs((pixels - mean) / std)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


# ---- which variant --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in mit.MITS if name != "mit_nano"])
def test_rows_by_width_and_depths(name: str) -> None:
    with torch.device("meta"):
        body = mit.MiT(name)
    state = {f"backbone.{key}": value for key, value in body.state_dict().items()}
    assert segformer_row(state) == name.replace("mit_", "segformer-")
    shorter = {key: value for key, value in state.items() if ".stages.2.blocks.1." not in key}
    if name in ("mit_b0", "mit_b1"):
        with pytest.raises(InputError, match="B0 to -B5"):
            segformer_row(shorter)


def test_sizes_and_order() -> None:
    assert segformer_resize("segformer-b0", 150) == Resize(short=512, long=2048)
    assert segformer_resize("segformer-b5", 150) == Resize(short=640, long=2048)
    assert segformer_resize("segformer-b5", 19) == Resize(short=1024, long=2048)
    weight = torch.arange(8.0).view(1, 8, 1, 1)
    assert coarse_first(weight).flatten().tolist() == [6, 7, 4, 5, 2, 3, 0, 1]


def test_other_checkpoints_are_not_taken_for_it() -> None:
    encoder = {"backbone.patch_embed1.proj.weight": torch.zeros(1), "segformer.encoder.norm": torch.zeros(1)}
    assert not any(importer.recognizes(encoder) for importer in IMPORTERS)
    for state in (transformers_state(), authors_state(transformers_state())):
        found = recognize(state)
        assert found is None or type(found) in {type(known) for known in IMPORTERS}


def test_classes_are_those_of_the_data() -> None:
    """By name and in order, so that published weights are measured on data read here."""
    for ours, theirs in ((scene_classes(150), tables.ade20k()), (scene_classes(19), taxonomy_of("evaluated"))):
        assert (ours.names, ours.thing, ours.source_ids) == (theirs.names, theirs.thing, theirs.source_ids)
    assert scene_classes(80).names[0] == "person"
    assert scene_classes(5).names[4] == "class 5"
    state = {**transformers_state(), "decode_head.classifier.weight": torch.zeros(19, 256, 1, 1)}
    assert TransformersSegFormer().taxonomy(state).names[:2] == ("road", "sidewalk")
    assert TransformersSegFormer().options(state)["resize"] == Resize(short=1024, long=2048)
