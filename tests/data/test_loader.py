"""Batches: the same for any number of workers, resumed exactly, with errors that name the file."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data.augment.transforms import Augment, ToSize
from maskwright.data.collate import collate
from maskwright.data.label_maps import resolve
from maskwright.data.loader import Loader, batches, make_loader
from maskwright.data.samplers import Sequential, Shuffled
from maskwright.data.source import CachedSource, FileSource
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.structures import Batch, LabelMap, Region
from tests.data.make import ANIMALS, assert_same, record, records, runs

AUGMENT = Augment(scale=(0.8, 2.0), crop=(40, 40), vflip=0.5, brightness=0.2, noise=0.5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    made = []
    for i in range(9):
        size = (30 + i, 50 - i)
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / f"{i}.png")
        mask = np.zeros(size, bool)
        mask[5:25, 5 + i : 30] = True
        made.append(record(size, [runs(mask)], key=f"{i}.png", path=folder / f"{i}.png", image_id=i, first_id=i))
    return FileSource.from_records(made, ANIMALS)


def loader(source: FileSource, workers: int = 0, seed: int = 5) -> Loader:
    return make_loader(source, AUGMENT, Shuffled(source, 3, seed=seed), workers=workers)


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys == b.keys
        assert a.inputs.geometry == b.inputs.geometry
        assert torch.equal(a.inputs.pixels, b.inputs.pixels)
        for s, t in zip(a.truth(), b.truth(), strict=True):
            s, t = s.objects(), t.objects()
            assert torch.equal(s.labels, t.labels)
            assert s.masks is not None
            assert t.masks is not None
            assert torch.equal(s.masks.counts, t.masks.counts)
            assert torch.equal(s.masks.offsets, t.masks.offsets)


def test_the_same_for_any_number_of_workers(source: FileSource) -> None:
    want = list(batches(loader(source), 7))
    assert want[0].inputs.pixels.shape[2] % 32 == 0
    assert want[0].inputs.pixels.dtype == torch.uint8
    assert_equal(list(batches(loader(source, workers=2), 7)), want)


@pytest.mark.parametrize("workers", [0, 1])
def test_resumes_after_what_was_handed_out(source: FileSource, workers: int) -> None:
    want = list(batches(loader(source), 9))
    first = loader(source, workers)
    got = list(islice(iter(first), 4))  # with workers, more than 4 were made by now
    state = first.state_dict()
    assert state["batches"] == 4
    again = loader(source, workers, seed=77)
    again.load_state_dict(state)
    assert_equal(got + list(batches(again, 5)), want)
    assert_equal(list(batches(first, 5)), want[4:])  # iterating the first one again goes on too
    assert first.state_dict()["batches"] == 9


def test_evaluation_order_ends(source: FileSource) -> None:
    made = make_loader(source, ToSize(), Sequential(source, 2), workers=1, multiple=1)
    got = list(made)
    assert [key for batch in got for key in batch.keys] == [f"{i}.png" for i in range(9)]
    assert got[0].inputs.geometry[0].original == (30, 50)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_is_named(source: FileSource, tmp_path: Path, workers: int) -> None:
    made = [source.record(i) for i in range(3)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(made[1].path.read_bytes()[:200])
    made.append(record((31, 49), [], key="bad.png", path=bad))
    broken = FileSource.from_records(made, ANIMALS)
    with pytest.raises(InputError, match=r"^cannot read the picture .*bad\.png"):
        list(make_loader(broken, AUGMENT, Sequential(broken, 1), workers=workers))


def test_cached_pixels_are_the_files(source: FileSource) -> None:
    cached = CachedSource(source)
    part = CachedSource(source, limit=3 * 30 * 50 + 1)
    for i in range(len(source)):
        want = source.load(i)[1]
        assert torch.equal(cached.load(i)[1], want)
        assert torch.equal(part.load(i)[1], want)
    assert cached.load(3)[1].data_ptr() == cached.load(3)[1].data_ptr()
    assert_equal(
        list(batches(make_loader(cached, AUGMENT, Shuffled(cached, 3, seed=5)), 4)), list(batches(loader(source), 4))
    )
    sample = cached[2]
    assert sample.scene is not None
    assert sample.scene.size == sample.geometry.valid == (32, 48)


def test_cached_records_are_resolved_once(source: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source.record(0)
    ids = np.array([5, 1 << 40, 9])
    numbers = np.random.default_rng(1).integers(0, 3, first.size, np.uint8)
    Image.fromarray(numbers).save(tmp_path / "map.png")
    panoptic = np.concatenate([[0], ids])[numbers]
    pixels = LabelMap(path=tmp_path / "map.png", classes={0: 1, 2: 0})
    regions = [Region(tmp_path / "map.png", value=v) for v in (1, 2)] + [None]
    whole = record(first.size, regions, boxes=[(0, 0, 5, 5)] * 3, key="r.png", path=first.path)
    whole = replace(whole, ids=ids, semantic=pixels, panoptic=panoptic, tracks=np.array([3, -1, 0]), frame=4)
    empty = replace(record(first.size, [], key="e.png", path=first.path), semantic=pixels)
    data = FileSource.from_records([source.record(3), whole, empty], ANIMALS)
    want = [resolve(data.record(i)) for i in range(3)]
    cached = CachedSource(data)
    beyond = CachedSource(data, limit=3 * 33 * 47)
    monkeypatch.setattr("maskwright.data.label_maps.read_map", None)  # nothing is decoded again
    for i in range(3):
        for got in (cached.record(i), cached.load(i)[0]):
            assert_same(got, want[i], paths=True)
            assert got.frame == want[i].frame
            for name in ("semantic", "panoptic", "tracks"):
                a, b = getattr(got, name), getattr(want[i], name)
                assert (a is None) == (b is None) or name == "tracks"
                assert a is None or b is None or (np.array_equal(a, b) and a.dtype == b.dtype), name
    assert isinstance(beyond.record(1).semantic, LabelMap)
    with pytest.raises(IndexError):
        cached.record(3)


def test_collate_pads_and_keeps_scenes(source: FileSource) -> None:
    batch = collate([source[0], source[8]], multiple=16)
    assert batch.inputs.pixels.shape == (2, 3, 48, 64)
    assert batch.inputs.sizes == ((30, 50), (38, 42))
    assert [scene.size for scene in batch.truth()] == [(30, 50), (38, 42)]
    assert batch.inputs.pixels[0, :, 30:].sum() == 0


def test_tables_keep_records() -> None:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 3).flatmap(records))
    def check(made: list) -> None:  # type: ignore[type-arg]
        table = Table()
        for one in made:
            table.add_record(one)
        assert table.objects == sum(map(len, made))
        for i, one in enumerate(made):
            assert_same(one, table.record(i), paths=True)
            assert_same(one, table.record(i - len(made)), paths=True)
        assert sum(table.class_counts.values()) == table.objects

    check()


def test_tables_are_small() -> None:
    """At most 1.2 kB an object of COCO's mean size beside the pixels (two polygons of 25 points)."""
    import tracemalloc

    ring = np.random.default_rng(0).random((25, 2)) * 20
    one = record((30, 30), [(ring, ring)] * 7)
    tracemalloc.start()
    table = Table()
    for _ in range(300):
        table.add_record(one)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / table.objects < 1200
