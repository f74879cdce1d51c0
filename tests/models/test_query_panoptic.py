"""Panoptic scenes of families of queries are valid whatever the network says: MaskFormer, Mask2Former, EoMT, DETR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from maskwright import zoo
from maskwright.models import detr, eomt, mask2former, maskformer
from maskwright.models.parts.queries import QUERY_RULES
from maskwright.nn.masked_attention import QueryMasks
from maskwright.structures import Geometry, Images, Scene, Taxonomy

SMALL: dict[str, Any] = {"channels": 32, "hidden": 32, "queries": 12, "body": "resnet18"}
POINTS: dict[str, Any] = {"queries": 12, "mask_points": 50}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "maskformer": ("maskformer-r50", {**SMALL, "embedding": 16, "heads": 2, "encoder_depth": 0, "depth": 1}),
    "mask2former": (
        "mask2former-panoptic-swin-t",
        {
            **SMALL,
            **POINTS,
            "body": "swin_nano",
            "channels": 64,
            "mask_channels": 16,
            "encoder_depth": 1,
            "encoder_hidden": 32,
            "points": 2,
            "depth": 1,
            "heads": 2,
        },
    ),
    "eomt": ("eomt-s", {**POINTS, "body": "vit_nano", "side": 64, "masked_blocks": 2}),
    "detr-panoptic": ("detr-panoptic-r50", {**SMALL, "encoder_depth": 1, "decoder_depth": 1}),
}
KINDS: dict[str, Taxonomy] = {
    "things and stuff": Taxonomy(names=("disc", "square", "sky", "grass"), thing=(True, True, False, False)),
    "only stuff": Taxonomy(names=("sky", "grass", "road"), thing=(False,) * 3),
    "only things": Taxonomy(names=("disc", "square")),
    "one thing": Taxonomy(names=("disc",)),
    "one stuff": Taxonomy(names=("sky",), thing=(False,)),
}
RULES = {
    "maskformer": ("maskformer", "transformers"),
    "mask2former": ("mask2former", "transformers"),
    "eomt": ("mask2former", "transformers"),
}
"""Ways of decoding; DETR has its own."""

Raws = Callable[[Tensor, Tensor, tuple[int, int]], Any]
RAWS: dict[str, Raws] = {
    "maskformer": lambda classes, masks, padded: maskformer.Raw([classes], [masks], padded),
    "mask2former": lambda classes, masks, padded: mask2former.Raw([QueryMasks(classes, masks, classes)], padded),
    "eomt": lambda classes, masks, padded: eomt.Raw([classes], [masks], padded),
    "detr-panoptic": lambda classes, masks, padded: detr.Raw([classes], [classes.new_zeros(1)], masks, padded),
}


@cache
def model(family: str, kinds: str) -> Any:
    torch.manual_seed(0)
    row, options = TINY[family]
    net: Any = zoo.build(row, KINDS[kinds], **options)
    return net.eval()


def check(scene: Scene, taxonomy: Taxonomy, size: tuple[int, int]) -> None:
    """No overlap, one id a pixel, each segment listed once under its id with its own area, stuff merged."""
    assert scene.size == size
    assert scene.panoptic is not None
    assert scene.semantic is not None
    found = scene.objects().validate(len(taxonomy))
    assert found.ids is not None
    assert found.masks is not None
    assert found.boxes is not None
    assert found.scores is not None
    ids = found.ids.tolist()
    assert len(set(ids)) == len(ids), "a segment is listed once"
    assert all(number > 0 for number in ids)
    assert set(scene.panoptic.unique().tolist()) - {0} == set(ids), "what is listed is there, and nothing else"
    assert bool((found.scores.diff() <= 0).all())
    stuff = [label for label in found.labels.tolist() if not taxonomy.thing[label]]
    assert len(stuff) == len(set(stuff)), "stuff is merged"
    dense = found.masks.dense()
    if len(found):
        assert int(dense.sum(0).max()) == 1, "no pixel has two segments"
    areas = found.masks.area().tolist()
    for number, label, mask, area, box in zip(ids, found.labels.tolist(), dense, areas, found.boxes, strict=True):
        assert torch.equal(mask, scene.panoptic == number)
        assert area == int((scene.panoptic == number).sum()) > 0
        assert bool((scene.semantic[mask] == label).all())
        rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    void = scene.panoptic == 0
    assert sum(areas) + int(void.sum()) == size[0] * size[1]
    assert bool((scene.semantic[void] == -1).all())


def logits(seed: int, queries: int, classes: int, sharp: float) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, queries, 3, 4, generator=rng) * sharp
    masks = functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    return torch.randn(1, queries, classes + 1, generator=rng) * sharp, masks


@pytest.mark.parametrize("family", sorted(TINY))
@settings(max_examples=25, deadline=None)
@given(
    kinds=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 12),
    sharp=st.sampled_from([0.0, 0.5, 3.0, 30.0]),
    valid=st.tuples(st.integers(33, 64), st.integers(33, 64)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    threshold=st.sampled_from([0.0, 0.3, 0.8]),
    overlap=st.sampled_from([0.0, 0.5, 0.9]),
    limit=st.sampled_from([1, 5, 100]),
    rule=st.integers(0, 1),
)
def test_panoptic_scenes_are_valid_by_construction(
    family: str,
    kinds: str,
    seed: int,
    queries: int,
    sharp: float,
    valid: tuple[int, int],
    size: tuple[int, int],
    threshold: float,
    overlap: float,
    limit: int,
    rule: int,
) -> None:
    net, taxonomy = model(family, kinds), KINDS[kinds]
    names = [name for name in ("score_threshold", "max_per_image", "overlap", "rule") if hasattr(net, name)]
    before = {name: getattr(net, name) for name in names}
    try:
        net.score_threshold, net.max_per_image = threshold, limit
        if family == "detr-panoptic":
            net.overlap, net.rule = overlap, ("detr", "transformers")[rule]
        else:
            net.rule = replace(QUERY_RULES[RULES[family][rule]], overlap=overlap)
        raw = RAWS[family](*logits(seed, queries, len(taxonomy), sharp), (64, 64))
        check(net.predict(raw, [Geometry.resized(size, valid)])[0], taxonomy, size)
    finally:
        for name, value in before.items():
            setattr(net, name, value)


@pytest.mark.parametrize("kinds", sorted(KINDS))
@pytest.mark.parametrize("family", sorted(TINY))
def test_no_object_no_segment(family: str, kinds: str) -> None:
    net, taxonomy = model(family, kinds), KINDS[kinds]
    classes, masks = logits(0, 12, len(taxonomy), 3.0)
    classes[..., -1] = 50.0
    scene = net.predict(RAWS[family](classes, masks, (64, 64)), [Geometry.resized((70, 50), (60, 44))])[0]
    check(scene, taxonomy, (70, 50))
    assert len(scene.objects()) == 0


@pytest.mark.parametrize("family", sorted(TINY))
def test_queries_of_one_class_of_stuff_become_one_segment(family: str) -> None:
    net, taxonomy = model(family, "only stuff"), KINDS["only stuff"]
    classes = torch.full((1, 4, 4), -20.0)
    classes[0, :, 1] = 20.0
    masks = torch.full((1, 4, 16, 16), -20.0)
    for query in range(4):  # a quarter of the picture each
        masks[0, query, :, 4 * query : 4 * query + 4] = 20.0
    scene = net.predict(RAWS[family](classes, masks, (64, 64)), [Geometry.identity((64, 64))])[0]
    check(scene, taxonomy, (64, 64))
    assert scene.objects().labels.tolist() == [1]
    assert scene.panoptic is not None
    assert float((scene.panoptic > 0).float().mean()) > 0.9


@pytest.mark.parametrize("family", sorted(TINY))
def test_queries_of_one_class_of_things_stay_apart(family: str) -> None:
    net, taxonomy = model(family, "one thing"), KINDS["one thing"]
    classes = torch.tensor([20.0, -20.0]).expand(1, 4, 2)
    masks = torch.full((1, 4, 16, 16), -20.0)
    for query in range(4):
        masks[0, query, :, 4 * query : 4 * query + 4] = 20.0
    scene = net.predict(RAWS[family](classes, masks, (64, 64)), [Geometry.identity((64, 64))])[0]
    check(scene, taxonomy, (64, 64))
    assert len(scene.objects()) == 4


@pytest.mark.parametrize("kinds", ["things and stuff", "only stuff", "one thing"])
@pytest.mark.parametrize("family", sorted(TINY))
@torch.no_grad()
def test_a_whole_network_gives_valid_scenes(family: str, kinds: str) -> None:
    net, taxonomy = model(family, kinds), KINDS[kinds]
    pixels = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = Images.pad([pixels], [Geometry.resized((75, 100), (48, 64))], multiple=32)
    before = net.score_threshold
    net.score_threshold = 0.0
    try:
        check(net.predict(net(inputs), inputs.geometry)[0], taxonomy, (75, 100))
    finally:
        net.score_threshold = before
