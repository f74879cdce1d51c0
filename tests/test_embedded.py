"""The weights that ship with the package do what the README says of them."""

from __future__ import annotations

import torch
from skimage import data

import maskwright as mw


def test_the_coins_are_counted_and_outlined() -> None:
    """The photograph shows 24 coins; their outlines are round, apart from each other and inside their boxes."""
    model = mw.load()
    scene = mw.predict(model, data.coins(), score_threshold=0.5)
    objects = scene.objects().validate(classes=len(model.taxonomy))
    assert scene.size == (303, 384)
    assert 21 <= len(objects) <= 27
    assert objects.masks is not None
    assert objects.boxes is not None
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    fill = objects.masks.area() / sides.prod(1)
    assert 0.7 < float(fill.median()) < 0.85  # a disc fills pi / 4 of its box
    overlap = objects.masks.iou(objects.masks) - torch.eye(len(objects))
    assert float(overlap.max()) < 0.3


def test_nothing_is_found_where_nothing_is() -> None:
    scene = mw.predict(mw.load(), torch.full((3, 200, 200), 120, dtype=torch.uint8), score_threshold=0.5)
    assert len(scene.objects()) == 0
