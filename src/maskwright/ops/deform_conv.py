"""Deformable convolution: Dai et al., "Deformable Convolutional Networks", ICCV 2017 (arXiv:1703.06211)."""

from __future__ import annotations

import torchvision
from torch import Tensor


def deform_conv2d(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 1) -> Tensor:
    """A convolution whose k x k taps are each moved by an offset of their own: [B, C, H, W] to [B, K, H', W'].

    Args:
        features: [B, C, H, W].
        offsets: [B, 2 k^2, H', W'] in pixels, (y, x) of one tap after the other.
        weight: [K, C, k, k]. bias: [K]. padding: as a convolution's.
    """
    return torchvision.ops.deform_conv2d(features, offsets, weight, bias, padding=(padding, padding))
