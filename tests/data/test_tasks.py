"""Between tasks: what is kept, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.data import tasks
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Record, Taxonomy
from tests.data.make import record, runs

CITY = Taxonomy(names=("car", "person", "road", "sky"), thing=(True, True, False, False))
SMALL = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)


def dense(found: Record) -> np.ndarray:
    masks = [rle.decode(*rle.from_coco([s], found.size), found.size)[0] for s in found.shapes if isinstance(s, dict)]
    return np.stack(masks) if masks else np.zeros((0, *found.size), bool)


def panoptic_record(ids: np.ndarray, labels: dict[int, int]) -> Record:
    """A record of the segments of a map; an id's class is given by ``labels``."""
    present = np.array([i for i in labels if (ids == i).any()], np.int64)
    counts, offsets = encode_map(ids, present)
    shapes = rle.to_coco(counts, offsets, ids.shape)
    one = record(
        (ids.shape[0], ids.shape[1]),
        [{"size": s["size"], "counts": s["counts"].encode()} for s in shapes],
        labels=[labels[i] for i in present.tolist()] or None,
    )
    return replace(one, ids=present, panoptic=np.where(np.isin(ids, present), ids, 0).astype(np.int64))


PANOPTIC = hnp.arrays(np.int64, SMALL, elements=st.integers(0, 5)).map(
    lambda ids: panoptic_record(ids, {1: 0, 2: 0, 3: 1, 4: 2, 5: 3})
)


@given(hnp.arrays(np.int16, SMALL, elements=st.integers(-1, 40)), st.integers(7, 2000), st.data())
def test_radix_both_ways(semantic: np.ndarray, radix: int, data: st.DataObject) -> None:
    instance = data.draw(hnp.arrays(np.int32, semantic.shape, elements=st.integers(0, min(radix, 500) - 1)))
    instance[semantic < 0] = 0
    s, i = tasks.decode_panoptic(tasks.encode_panoptic(semantic, instance, radix), radix)
    assert np.array_equal(s, semantic)
    assert np.array_equal(i, instance)


def test_radix_too_small() -> None:
    with pytest.raises(ValueError, match=r"0\.\.9, got 0\.\.10"):
        tasks.encode_panoptic(np.zeros((1, 2)), np.array([[0, 10]]), 10)
    with pytest.raises(ValueError, match="one size"):
        tasks.encode_panoptic(np.zeros((1, 2)), np.zeros((2, 1)))


@given(hnp.arrays(np.int64, SMALL, elements=st.integers(0, (1 << 24) - 1)))
def test_colors_both_ways(ids: np.ndarray) -> None:
    assert np.array_equal(tasks.rgb_to_ids(tasks.ids_to_rgb(ids)), ids)


def test_colors_of_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="16777216"):
        tasks.ids_to_rgb(np.array([[1 << 24]]))


@given(PANOPTIC)
def test_panoptic_to_parts_and_back(one: Record) -> None:
    """Things and classes say all that a panoptic map says, but which stuff segment had which number."""
    semantic, instances = tasks.to_semantic(one), tasks.to_instances(one, CITY)
    assert isinstance(semantic.semantic, np.ndarray)
    assert isinstance(one.panoptic, np.ndarray)
    for ident, label in zip(one.ids.tolist(), one.labels.tolist(), strict=True):
        assert (semantic.semantic[one.panoptic == ident] == label).all()
    assert (semantic.semantic[one.panoptic == 0] == -1).all()
    assert set(instances.labels.tolist()) <= {0, 1}
    again = tasks.to_panoptic(replace(instances, semantic=semantic.semantic), CITY)
    assert isinstance(again.panoptic, np.ndarray)
    assert np.array_equal(tasks.to_semantic(again).semantic, semantic.semantic)
    things = np.isin(one.panoptic, instances.ids)
    assert np.array_equal(again.panoptic[things], one.panoptic[things])
    assert np.array_equal(dense(again), again.panoptic == again.ids[:, None, None])


def test_small_objects_lie_on_large_ones() -> None:
    large, small = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    small[1:3, 1:3] = True
    one = record((4, 4), [runs(small), runs(large)], labels=[1, 0], first_id=8)
    semantic = tasks.to_semantic(one).semantic
    assert np.array_equal(semantic, np.where(small, 1, 0))
    whole = tasks.to_panoptic(one, Taxonomy(names=("car", "person")))
    assert np.array_equal(whole.panoptic, np.where(small, 8, 9))
    assert whole.areas.tolist() == [4, 12]
    hidden = record((4, 4), [runs(small), runs(small)], labels=[1, 0], first_id=8)
    assert len(tasks.to_panoptic(hidden, Taxonomy(names=("car", "person")))) == 1


def test_crowd_lies_below() -> None:
    large, small = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    one = record((2, 2), [runs(large), runs(small)], labels=[0, 1], crowd=[False, True])
    assert np.array_equal(tasks.to_semantic(one).semantic, np.zeros((2, 2)))


def test_a_thing_without_object_stays_void() -> None:
    one = replace(record((1, 3), []), semantic=np.array([[0, 2, -1]], np.int16))
    whole = tasks.to_panoptic(one, CITY)
    assert isinstance(whole.panoptic, np.ndarray)
    assert whole.panoptic.tolist() == [[0, 1, 0]]
    assert whole.labels.tolist() == [2]


def test_what_cannot_be_known_is_refused() -> None:
    semantic = replace(record((1, 3), []), semantic=np.array([[0, 2, -1]], np.int16))
    with pytest.raises(InputError, match="where one object of a class ends"):
        tasks.to_instances(semantic, CITY)
    objects = record((4, 4), [runs(np.ones((4, 4)))])
    with pytest.raises(InputError, match="only with a semantic map"):
        tasks.to_panoptic(objects, CITY)
    boxes = record((4, 4), [None], boxes=[(0, 0, 2, 2)])
    with pytest.raises(InputError, match="1 objects have a box only"):
        tasks.to_semantic(boxes)


def test_a_source_for_another_task() -> None:
    ids = np.array([[1, 4], [3, 0]])
    source = FileSource.from_records([panoptic_record(ids, {1: 0, 3: 1, 4: 2})], CITY)
    found = tasks.convert(source, "instances")
    assert (len(found), found.taxonomy, found.record(0).labels.tolist()) == (1, CITY, [0, 1])
    with pytest.raises(ValueError, match="must be one of"):
        tasks.convert(source, "boxes")  # pyright: ignore[reportArgumentType]
