"""Reading the recordings of query families, some of which have a compressed JSON, and building what fits them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments
from maskwright.weights.importers import ModelImporter
from maskwright.weights.report import load_state
from tests.parity.harness import Case, Reference, recipe
from tests.shared import shared


def read(family: str) -> Reference:
    """``Reference.read`` that also knows ``.json.gz``."""
    plain = shared("parity") / f"{family}.json"
    if plain.exists():
        return Reference.read(family)
    meta = json.loads(gzip.decompress(shared(f"parity/{family}.json.gz").read_bytes()))
    with np.load(shared(f"parity/{family}.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files}
    filled = recipe().fill(meta["parameters"], meta["spec"])
    return Reference(family, meta, arrays, {name: torch.from_numpy(np.asarray(v)) for name, v in filled.items()})


def ready(family: str, importer: ModelImporter, builders: dict[str, Callable[..., Any]]) -> Case:
    """Our model with the recording's weights, in evaluation mode."""
    reference = read(family)
    assert importer.recognizes(reference.state)
    name = importer.model(reference.state)
    model = builders[name](importer.taxonomy(reference.state), **importer.options(reference.state))
    assert load_state(model, importer.convert(reference.state), source=family).complete
    return Case(reference, importer, model.eval())


def inputs(sizes: list[tuple[int, int]], originals: list[tuple[int, int]]) -> Images:
    """The recipe's pictures of ``sizes``, padded to the largest one."""
    pixels = [torch.from_numpy(recipe().image(*size)).permute(2, 0, 1).contiguous() for size in sizes]
    views = [Geometry.resized(original, size) for original, size in zip(originals, sizes, strict=True)]
    return Images.pad(pixels, views, multiple=1)


def batch(images: Images, first_label: int = 0) -> Batch:
    """The recipe's objects for each picture; labels begin with ``first_label``."""
    scenes: list[Scene] = []
    for size in images.sizes:
        boxes, labels, masks = recipe().targets(*size)
        segments = Segments(
            size=size,
            labels=torch.from_numpy(labels) + first_label,
            boxes=torch.from_numpy(boxes),
            masks=Masks.from_dense(torch.from_numpy(masks)),
        )
        scenes.append(Scene(size=size, segments=segments))
    return Batch(inputs=images, scenes=tuple(scenes), keys=tuple(f"picture {i}" for i in range(len(scenes))))
