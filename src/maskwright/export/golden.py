"""Pictures that every export is checked on: drawn, so that they are the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from maskwright.structures import Geometry, Images

SIZES = ((211, 283), (250, 187))
"""(H, W), of which no power of two divides any: there is padding on both sides."""


def drawn(size: tuple[int, int], seed: int, objects: int = 12) -> Tensor:
    """A picture uint8 [3, H, W]: bright ellipses and rectangles with soft shading on a darker, uneven ground."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ground = torch.rand(1, 3, 6, 8, generator=rng) * 60 + 10
    picture = interpolate(ground, size, mode="bilinear", align_corners=False)[0]
    for index in range(objects):
        middle_y, middle_x = uniform(0, height), uniform(0, width)
        long, ratio, turn = uniform(7, 34), uniform(0.5, 1.0), torch.tensor(uniform(0, 3.14))
        down, right = y - middle_y, x - middle_x
        along = (right * turn.cos() + down * turn.sin()) / long
        across = (down * turn.cos() - right * turn.sin()) / (long * ratio)
        inside = (
            torch.maximum(along.abs(), across.abs()) < 0.8 if index % 3 == 2 else along.square() + across.square() < 1
        )
        color = torch.rand(3, 1, 1, generator=rng) * 120 + 110
        picture = torch.where(inside, color * (1 - 0.25 * along), picture)
    noise = torch.randn(3, height, width, generator=rng) * 4
    return (picture + noise).round().clamp(0, 255).to(torch.uint8)


def batches(pictures: Sequence[Tensor], batch: int | None, divisor: int, least: int = 1) -> list[Images]:
    """Pictures as inputs of a program: one by one, or ``batch`` together (two for any number).

    Args:
        pictures: uint8 [3, H, W]. divisor: of the padded sides, which are ``least`` pixels or more.
    """
    count = 2 if batch is None else batch
    filled = [pictures[i % len(pictures)] for i in range(-(-len(pictures) // count) * count)]
    out: list[Images] = []
    for start in range(0, len(filled), count):
        some = [picture.float() for picture in filled[start : start + count]]
        views = [Geometry.identity((int(p.shape[1]), int(p.shape[2]))) for p in some]
        inputs = Images.pad(some, views, multiple=divisor)
        height, width = inputs.pixels.shape[-2:]
        pixels = pad(inputs.pixels, (0, max(0, least - width), 0, max(0, least - height)))
        out.append(Images(pixels=pixels, geometry=inputs.geometry))
    return out
