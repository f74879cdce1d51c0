"""Attention, positions and the Swin against torch's and timm's own."""

from __future__ import annotations

import timm
import torch
from torch import nn

from maskwright.nn.attention import Attention
from maskwright.nn.backbones.swin import SWINS, Swin
from maskwright.nn.position import LearnedPosition, inside_map, sine_position


@torch.no_grad()
def test_attention_is_torchs() -> None:
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    layers = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    hidden = torch.zeros(2, 7, dtype=torch.bool)
    hidden[1, 4:] = True
    want = theirs(query, key, value, key_padding_mask=hidden)[0]
    torch.testing.assert_close(ours(query, key, value, ~hidden[:, None, None]), want, rtol=1e-4, atol=1e-5)


def test_positions() -> None:
    inside = inside_map([(64, 96), (32, 50)], (64, 96), (2, 3), torch.device("cpu"))
    assert inside.tolist() == [[[True] * 3] * 2, [[True, True, False], [False] * 3]]
    place = sine_position(inside, 16)
    assert place.shape == (2, 16, 2, 3)
    assert torch.isfinite(place).all()
    assert torch.equal(place[0, 8:, 0], place[0, 8:, 1]), "the second half speaks of columns"
    assert torch.equal(place[0, :8, :, 0], place[0, :8, :, 2]), "the first half speaks of rows"
    assert LearnedPosition(16)(inside).shape == (2, 16, 2, 3)


@torch.no_grad()
def test_swin_is_timms_where_no_window_is_padded() -> None:
    name = "swin_tiny_patch4_window7_224"
    theirs = timm.create_model(name, features_only=True, dynamic_img_size=True, always_partition=True).eval()
    ours = Swin(name).eval()
    state = {key.replace("layers_", "layers."): value for key, value in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith("norms.") for key in missing)
    pixels = torch.randn(1, 3, 224, 224)
    for mine, other in zip(ours(pixels), theirs(pixels), strict=True):
        want = nn.functional.layer_norm(other, other.shape[-1:]).permute(0, 3, 1, 2)
        torch.testing.assert_close(mine, want, rtol=1e-3, atol=1e-4)


def test_swin_takes_any_size_and_freezes() -> None:
    swin = Swin("swin_nano", frozen_stages=1).eval()
    maps = swin(torch.randn(2, 3, 37, 50))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 10, 13), (2, 32, 5, 7), (2, 64, 3, 4), (2, 128, 2, 2)]
    frozen = {name.split(".")[0] + name.split(".")[1] for name, p in swin.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embedproj", "patch_embednorm", "layers0", "norms0"}
    assert "swin_large_patch4_window12_384" in SWINS
