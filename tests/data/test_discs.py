"""Drawn round objects: the same for every index, whole numbers of pixels, and outlines that fit what is painted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskwright.data.synthetic.discs import KINDS, Discs
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Taxonomy

BOTH = Taxonomy(names=("nucleus", "coin"))


def dense(record: Record) -> np.ndarray:
    return rle.decode(*rle.from_coco(list(record.shapes), record.size), record.size)  # type: ignore[arg-type]


def test_a_picture_depends_on_seed_and_index_only() -> None:
    one, other = Discs(12, (96, 128), seed=3), Discs(40, (96, 128), seed=3)
    first, pixels = one.load(7)
    for _ in range(2):  # whatever was drawn before
        other.load(2)
        second, again = other.load(7)
        assert torch.equal(pixels, again)
        assert first.shapes == second.shapes == one.record(7).shapes
    assert not torch.equal(pixels, one.load(8)[1])
    assert not torch.equal(pixels, Discs(12, (96, 128), seed=4).load(7)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_consistent(kind: str) -> None:
    source = Discs(12, (200, 256), seed=1, kinds={kind: 1}, taxonomy=BOTH)
    diameters: list[float] = []
    for index in range(len(source)):
        record, image = source.load(index)
        assert image.shape == (3, 200, 256)
        assert image.dtype == torch.uint8
        assert source.kind(index) == kind
        assert 1 <= len(record) <= (120 if kind == "glands" else 34)
        assert set(record.labels.tolist()) == {BOTH.index(KINDS[kind])}
        masks = dense(record)
        assert (masks.sum((1, 2)) == record.areas).all()
        assert record.areas.min() > 0
        assert masks.sum(0).max() == 1, "a pixel shows one object"
        for mask, box in zip(masks, record.boxes, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        diameters += np.sqrt(record.areas * 4 / np.pi).tolist()
    assert max(diameters) < 130


@pytest.mark.parametrize("kind", KINDS)
def test_objects_can_be_seen(kind: str) -> None:
    """Pixels just inside differ from pixels just outside, in most pictures by far more than their noise."""
    source = Discs(24, (160, 160), seed=5, kinds={kind: 1})
    seen = 0
    for index in range(len(source)):
        record, image = source.load(index)
        inside = dense(record).any(0)
        values = image.float().mean(0).numpy()
        if inside.all() or not inside.any():
            continue
        seen += abs(values[inside].mean() - values[~inside].mean()) > 4
    assert seen >= 18


def test_samples_carry_the_scene() -> None:
    sample = Discs(3, (96, 96), taxonomy=BOTH)[1]
    segments = sample.scene.objects() if sample.scene else None
    assert segments is not None
    assert segments.masks is not None
    segments.validate(len(BOTH))
    assert sample.image.shape == (3, 96, 96)
    assert len(segments.masks) == len(segments) > 0


def test_one_class_takes_everything() -> None:
    assert all(set(Discs(6, (64, 64)).record(i).labels.tolist()) <= {0} for i in range(6))


def test_length_and_bounds() -> None:
    source = Discs(4, (80, 64))
    assert len(source) == 4
    assert source.sizes.tolist() == [[80, 64]] * 4
    assert source.record(-1).key == source.record(3).key
    with pytest.raises(IndexError):
        source.record(4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": -1},
        {"count": 3, "size": (32, 256)},
        {"count": 3, "scale": 0.0},
        {"count": 3, "kinds": {"squares": 1.0}},
        {"count": 3, "kinds": {"coins": 0.0}},
        {"count": 3, "kinds": {}},
    ],
)
def test_impossible_wishes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Discs(**wrong)  # type: ignore[arg-type]
