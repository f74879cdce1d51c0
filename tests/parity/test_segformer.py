"""transformers' SegFormer through the importer that users run, stage by stage, and its names with other projects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from maskwright.models import segformer
from maskwright.models.segformer import Raw
from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Batch, Images, Scene
from maskwright.weights.transformers_segformer import TransformersSegFormer
from tests.parity.harness import Case
from tests.parity.queries import inputs, ready

SIZE = (256, 320)
KEYS = {*(f"stage_{i}" for i in range(4)), "logits", "semantic_seg", "loss"}


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    with torch.no_grad():
        yield ready("hf_segformer_b0", TransformersSegFormer(), {"segformer-b0": segformer.segformer_b0})


@pytest.fixture(scope="module")
def images() -> Images:
    return inputs([SIZE], [(384, 480)])


@pytest.fixture(scope="module")
def raw(case: Case, images: Images) -> Raw:
    return case.model(images)


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS


def test_stages(case: Case, images: Images, raw: Raw) -> None:
    model, reference = case.model, case.reference
    maps = model.backbone(normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes))
    for i, found in enumerate(maps):
        reference.near(f"stage_{i}", found, relative=1e-4)
    reference.near("logits", raw.semantic_logits, relative=1e-4)


def test_map(case: Case, images: Images, raw: Raw) -> None:
    semantic = case.model.predict(raw, images.geometry)[0].semantic.numpy()
    assert (semantic != case.reference.full("semantic_seg")).sum() <= 5


def test_loss(case: Case, images: Images, raw: Raw) -> None:
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in SIZE), indexing="ij")
    semantic = (columns // 16 + rows // 16) % 150
    semantic[:16] = -1
    batch = Batch(inputs=images, scenes=(Scene(size=SIZE, semantic=semantic),), keys=("recipe",))
    case.reference.near("loss", case.model.loss(raw, batch)["semantic"], relative=1e-4)
