"""Mask2Former's pixel decoder and decoder: what their parts promise."""

from __future__ import annotations

import pytest
import torch

from maskwright.nn.masked_attention import MaskedDecoder
from maskwright.nn.necks.deformable_encoder import DeformableAttention, DeformablePixelDecoder, whole_position
from maskwright.nn.position import sine_position


def test_position_of_a_whole_map_is_made_of_lines() -> None:
    whole = sine_position(torch.ones(1, 5, 7, dtype=torch.bool), 16)[0]
    torch.testing.assert_close(whole_position((5, 7), 16, torch.device("cpu")), whole)


def test_fresh_deformable_attention_looks_in_all_directions() -> None:
    module = DeformableAttention(16, heads=4, levels=1, points=2)
    offsets = module.offsets(torch.zeros(1, 16)).view(4, 1, 2, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(offsets[:, 0, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets[:, 0, 1], 2 * expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="multiple of heads"):
        DeformableAttention(10, heads=4)


def test_pixel_decoder_gives_four_scales_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    module = DeformablePixelDecoder((8, 16, 24, 32), 64, 16, depth=2, heads=2, points=2, hidden=32)
    for name, p in module.named_parameters():  # fresh offsets and weights do not depend on the query
        if name.endswith(("offsets.weight", "weights.weight")):
            torch.nn.init.normal_(p, std=0.1)
    features = [torch.randn(2, c, 32 // s, 48 // s) for c, s in zip((8, 16, 24, 32), (1, 2, 4, 8), strict=True)]
    fine, maps = module(features)
    assert fine.shape == (2, 16, 32, 48)
    assert [m.shape for m in maps] == [(2, 64, 4, 6), (2, 64, 8, 12), (2, 64, 16, 24)]
    (fine.square().sum() + sum(m.square().sum() for m in maps)).backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


def decoder(**options: int) -> MaskedDecoder:
    torch.manual_seed(0)
    numbers = {"queries": 5, "depth": 3, "heads": 2, "hidden": 32, **options}
    return MaskedDecoder(16, 3, 8, **numbers).eval()


@torch.no_grad()
def test_the_last_layer_does_not_depend_on_what_is_shown_of_the_others() -> None:
    module, features = decoder(), torch.randn(2, 8, 16, 24)
    maps = [torch.randn(2, 16, 16 // s, 24 // s) for s in (8, 4, 2)]
    every, last = module(features, maps, every=True), module(features, maps)
    assert len(every) == 4
    assert len(last) == 1
    torch.testing.assert_close(every[-1].class_logits, last[0].class_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(every[-1].mask_logits, last[0].mask_logits, rtol=1e-4, atol=1e-4)
    assert last[0].class_logits.shape == (2, 5, 4)


@torch.no_grad()
def test_queries_look_at_their_masks_only() -> None:
    """What lies outside of all masks changes nothing, unless a mask is empty: then its query sees all."""
    module, features = decoder(depth=1), torch.full((1, 8, 8, 8), -1.0)
    features[:, :, :, 4:] = 1.0
    embedding = module.mask_embedding[-1]
    embedding.weight.zero_()
    embedding.bias.fill_(1.0)  # all masks are the right half
    one = torch.randn(1, 16, 8, 8)
    other = one.clone()
    other[:, :, :, :4] = torch.randn(1, 16, 8, 4)
    states = [module(features, [maps])[0].states for maps in (one, other)]
    torch.testing.assert_close(states[0], states[1])
    states = [module(-features.abs(), [maps])[0].states for maps in (one, other)]
    assert torch.isfinite(states[0]).all()
    assert not torch.allclose(states[0], states[1])
