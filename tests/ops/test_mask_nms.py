"""Overlaps of dense masks as bits against plain sums, and matrix NMS against its equations and AdelaiDet's outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskwright.ops import nms
from maskwright.ops.mask_nms import mask_iou, matrix_nms
from tests.shared import shared


def drawn(seed: int, count: int, height: int, width: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, height, width, generator=rng) > torch.rand(count, 1, 1, generator=rng)
    masks[:, : int(torch.randint(0, height + 1, (1,), generator=rng))] = False
    return masks


def plain(a: Tensor, b: Tensor) -> Tensor:
    common = (a[:, None] & b[None]).flatten(2).sum(2)
    union = (a[:, None] | b[None]).flatten(2).sum(2)
    return common / union.clamp(min=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5), st.integers(1, 20), st.integers(1, 40))
def test_iou_is_that_of_the_pixels(seed: int, n: int, m: int, height: int, width: int) -> None:
    a, b = drawn(seed, n, height, width), drawn(seed + 1, m, height, width)
    torch.testing.assert_close(mask_iou(a, b), plain(a, b))
    torch.testing.assert_close(mask_iou(a), plain(a, a))


def test_iou_of_views_and_in_graphs() -> None:
    masks = drawn(3, 6, 20, 33)
    part = masks.transpose(1, 2)[::2, 3:, 1:]
    torch.testing.assert_close(mask_iou(part), plain(part, part))
    compiled = torch.compile(mask_iou, backend="eager")
    torch.testing.assert_close(compiled(masks, masks[:2]), plain(masks, masks[:2]))


def slow(masks: Tensor, scores: Tensor, labels: Tensor, kernel: str, sigma: float) -> Tensor:
    """Equations 4 and 5, one mask after the other."""
    iou = plain(masks, masks)
    order = scores.argsort(descending=True, stable=True).tolist()
    out = scores.clone()
    for rank, j in enumerate(order):
        decays = [1.0]
        for k, i in enumerate(order[:rank]):
            if labels[i] != labels[j]:
                continue
            above = [float(iou[h, i]) for h in order[:k] if labels[h] == labels[i]]
            own = max(above, default=0.0)
            mine = float(iou[i, j])
            if kernel == "gaussian":
                decays.append(float(np.exp(-sigma * (mine**2 - own**2))))
            else:
                decays.append((1 - mine) / max(1 - own, 1e-6))
        out[j] = scores[j] * min(decays)
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 9), st.sampled_from(["gaussian", "linear"]))
def test_matrix_nms_is_its_equations(seed: int, count: int, kernel: str) -> None:
    rng = torch.Generator().manual_seed(seed)
    masks = drawn(seed, count, 6, 7)
    scores, labels = torch.rand(count, generator=rng), torch.randint(0, 2, (count,), generator=rng)
    got = matrix_nms(masks, scores, labels, kernel=kernel, sigma=1.5)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(got, slow(masks, scores, labels, kernel, 1.5), atol=1e-5, rtol=1e-5)


def test_duplicates_fall_and_others_stay() -> None:
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:2, :4], masks[2, 5:] = True, True
    scores = torch.tensor([0.8, 0.9, 0.5])
    same = torch.zeros(3, dtype=torch.int64)
    got = nms.matrix_nms(masks, scores, same)
    torch.testing.assert_close(got, torch.tensor([0.8 * float(np.exp(-2.0)), 0.9, 0.5]))
    torch.testing.assert_close(nms.matrix_nms(masks, scores, torch.tensor([0, 1, 0])), scores)
    assert nms.matrix_nms(masks, scores, same, kernel="linear")[0] == 0


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel must be 'gaussian' or 'linear'"):
        matrix_nms(torch.zeros(1, 2, 2, dtype=torch.bool), torch.ones(1), torch.ones(1), kernel="cubic")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_matrix_nms_equals_adelaidet(kernel: str) -> None:
    about = json.loads(shared("parity/ops.json").read_bytes())["arrays"]
    with np.load(shared("parity/ops.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files if name.startswith("mnms")}
    masks = np.unpackbits(arrays["mnms_masks"])[: np.prod(about["mnms_masks"]["shape"])]
    masks = torch.from_numpy(masks.reshape(about["mnms_masks"]["shape"]).astype(bool))
    scores, labels = torch.from_numpy(arrays["mnms_scores"]), torch.from_numpy(arrays["mnms_labels"])
    got = matrix_nms(masks, scores, labels, kernel=kernel)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(got, arrays[f"mnms_out_{kernel}"], atol=1e-5)
