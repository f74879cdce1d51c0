"""The structures are pytrees: tracers see their tensors and nothing else."""

from __future__ import annotations

import torch
from torch.utils import _pytree

from maskwright.structures import Batch, Geometry, Images, Scene, Segments


def _batch() -> Batch:
    images = Images(pixels=torch.zeros(1, 3, 8, 8), geometry=(Geometry.identity((8, 8)),))
    segments = Segments.empty((8, 8), scored=True)
    return Batch(inputs=images, scenes=(Scene(size=(8, 8), segments=segments),), keys=("a",))


def test_round_trip() -> None:
    batch = _batch()
    leaves, spec = _pytree.tree_flatten(batch)
    again = _pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, Batch)
    assert again.keys == ("a",)
    assert again.inputs.geometry == batch.inputs.geometry
    assert again.truth()[0].objects().masks is not None


def test_map_reaches_every_tensor() -> None:
    count = 0

    def visit(value: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return value

    _pytree.tree_map_only(torch.Tensor, visit, _batch())
    assert count == 1 + 1 + 2 + 1 + 1  # pixels, labels, masks' counts and offsets, boxes, scores


def test_export_takes_images() -> None:
    class Mean(torch.nn.Module):
        def forward(self, inputs: Images) -> torch.Tensor:
            return inputs.pixels.mean((1, 2, 3))

    images = Images(pixels=torch.rand(2, 3, 8, 8), geometry=(Geometry.identity((8, 8)),) * 2)
    program = torch.export.export(Mean(), (images,))
    assert torch.equal(program.module()(images), images.pixels.mean((1, 2, 3)))
