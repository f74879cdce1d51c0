"""Samples of several pictures: what is seen is what is labeled; equal generators give equal samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.augment.compose import Composed, copy_paste, mixup, mosaic, with_partners
from maskwright.data.augment.conditions import Conditions
from maskwright.data.augment.layers import Placed, cover, join
from maskwright.data.augment.transforms import Augment
from maskwright.data.augment.warp import FILL
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import Loader, batches, make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Geometry, Masks, Sample, Scene, Segments, Taxonomy
from tests.data.make import ANIMALS, record, runs
from tests.shared import shared

THINGS = (True, True, False)


def drawn(seed: int, size: tuple[int, int], *, panoptic: bool = False, semantic: bool = False) -> Sample:
    """A picture whose every pixel says what it is: red is the object's label, counted from 1 (later ones in front)."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 5))
    dense = np.zeros((count, *size), bool)
    labels = rng.integers(0, 3, count)
    image = np.full((3, *size), 10 * (seed % 20), np.uint8)
    for k in range(count):
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        dense[k, y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
        if panoptic:
            dense[:k] &= ~dense[k]
        image[0, dense[k]] = 200 + labels[k]
    kept = dense.any(axis=(1, 2))
    dense, labels = dense[kept], labels[kept]
    masks = Masks.from_dense(torch.from_numpy(dense))
    ids = torch.arange(len(dense)) + 7
    segments = Segments(
        size=size, labels=torch.from_numpy(labels), masks=masks, boxes=masks.boxes(), ids=ids,
        crowd=torch.from_numpy(rng.random(len(dense)) < 0.2),
    )  # fmt: skip
    ids_map, classes = torch.zeros(size, dtype=torch.int64), torch.full(size, -1)
    for k in range(len(dense)):
        ids_map[torch.from_numpy(dense[k])] = ids[k]
        classes[torch.from_numpy(dense[k])] = int(labels[k])
    scene = Scene(
        size=size, segments=segments, panoptic=ids_map if panoptic else None, semantic=classes if semantic else None
    )
    return Sample(key=f"{seed}", image=torch.from_numpy(image), scene=scene, geometry=Geometry.identity(size))


def parts(sample: Sample) -> tuple[Scene, Segments, np.ndarray]:
    assert sample.scene is not None
    segments = sample.scene.objects()
    assert segments.masks is not None
    return sample.scene, segments, segments.masks.dense().numpy()


def check(sample: Sample) -> None:
    """Scene and picture agree, and the scene with itself."""
    scene, segments, dense = parts(sample)
    red = sample.image[0].numpy()
    assert segments.boxes is not None
    assert segments.masks is not None
    assert segments.ids is not None
    assert torch.equal(segments.boxes, segments.masks.boxes())
    assert dense.any(axis=(1, 2)).all()
    assert len(set(segments.ids.tolist())) == len(segments)
    covered = dense.any(axis=0)
    if scene.ignore is not None:
        covered = covered | scene.ignore.dense().numpy().any(axis=0)
    assert np.array_equal(covered, red >= 200)
    if scene.semantic is not None:
        want = np.where(red >= 200, red.astype(int) - 200, -1)
        assert np.array_equal(scene.semantic.numpy(), want)
    if scene.panoptic is not None:
        for ident, mask in zip(segments.ids.tolist(), dense, strict=True):
            assert np.array_equal(scene.panoptic.numpy() == ident, mask)
        if scene.ignore is None:  # elsewhere objects may overlap, and one that is not pasted may be seen on one that is
            for label in range(3):
                assert np.array_equal(dense[segments.labels.numpy() == label].any(axis=0), red == 200 + label)


sides = st.tuples(st.integers(3, 24), st.integers(3, 24))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 500), st.integers(501, 999), sides, sides, st.booleans(), st.booleans(), st.sampled_from([0, 0.5])
)
def test_pasted_objects_hide_what_is_behind(
    one: int, other: int, size: tuple[int, int], second: tuple[int, int], panoptic: bool, semantic: bool, visible: float
) -> None:
    below, above = (
        drawn(s, h, panoptic=panoptic, semantic=semantic and not visible) for s, h in ((one, size), (other, second))
    )
    before = below.image.clone()
    made = copy_paste(below, above, np.random.default_rng(one), things=THINGS, min_visible=visible)
    assert torch.equal(below.image, before)
    assert made.image.shape == below.image.shape
    check(made)
    _, segments, dense = parts(made)
    _, was, _ = parts(below)
    if made is not below:
        changed = (made.image != below.image).any(0).numpy()
        things = dense[segments.labels.numpy() != 2]
        assert things[:, changed].any(axis=0).all()  # stuff is never pasted
        assert len(segments) <= len(was) + len(parts(above)[1])


def test_what_is_covered_is_cut_or_dropped() -> None:
    size = (20, 20)
    dense = np.zeros((3, *size), bool)
    dense[0, 2:6, 2:6] = True  # to be hidden
    dense[1, 2:12, 8:12] = True  # half hidden
    dense[2, 15:18, 15:18] = True
    front = np.zeros((1, *size), bool)
    front[0, 0:7, 0:14] = True

    def scene(masks: np.ndarray) -> Scene:
        found = Masks.from_dense(torch.from_numpy(masks))
        labels = torch.arange(len(masks))
        return Scene(size=size, segments=Segments(size=size, labels=labels, masks=found, boxes=found.boxes()))

    made, shown = cover(scene(dense), Placed(scene(front), 0, 0))
    assert np.array_equal(shown, front[0])
    objects = made.objects()
    assert objects.labels.tolist() == [1, 2, 0]
    assert objects.masks is not None
    want = np.stack([dense[1] & ~front[0], dense[2], front[0]])
    assert np.array_equal(objects.masks.dense().numpy(), want)
    strict, _ = cover(scene(dense), Placed(scene(front), 0, 0), min_visible=0.6)
    assert strict.objects().labels.tolist() == [2, 0]
    assert strict.ignore is not None
    assert np.array_equal(strict.ignore.dense().numpy()[0], want[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_mosaics_keep_every_tile(seeds: list[int], panoptic: bool, semantic: bool) -> None:
    tiles = [
        (drawn(seed, (h, w), panoptic=panoptic, semantic=semantic), y, x)
        for seed, (h, w, y, x) in zip(
            seeds, [(10, 12, 0, 0), (9, 8, 1, 12), (14, 12, 10, 0), (14, 18, 10, 12)], strict=True
        )
    ]
    made = mosaic(tiles, (24, 30))
    check(made)
    assert made.key == str(seeds[0])
    _, segments, dense = parts(made)
    assert len(segments) == sum(len(parts(tile)[1]) for tile, _, _ in tiles)
    assert (made.image[:, 0, 12:] == FILL).all()
    assert not dense[:, 0, 12:].any()
    assert segments.ids is not None
    assert segments.ids.tolist() == list(range(1, len(segments) + 1))


def test_mixup_keeps_both_and_refuses_maps() -> None:
    one, other = drawn(3, (10, 20)), drawn(4, (16, 12))
    made = mixup(one, other, 0.25)
    assert made.image.shape == (3, 16, 20)
    _, segments, _ = parts(made)
    assert len(segments) == len(parts(one)[1]) + len(parts(other)[1])
    both = 0.25 * one.image[:, :, :12].float() + 0.75 * other.image[:, :10].float()
    assert (made.image[:, :10, :12].float() - both).abs().max() <= 0.51
    assert torch.equal(made.image[:, :10, 12:], one.image[:, :, 12:])
    assert torch.equal(made.image[:, 10:, :12], other.image[:, 10:])
    assert (made.image[:, 10:, 12:] == FILL).all()
    with pytest.raises(InputError, match="two classes"):
        mixup(one, drawn(5, (8, 8), semantic=True), 0.5)


def test_what_is_unknown_is_ignored() -> None:
    known = drawn(3, (10, 10))
    boxes = Segments(size=(8, 8), labels=torch.tensor([1]), boxes=torch.tensor([[1.0, 2, 5, 6]]))
    scene = join(
        [Placed(parts(known)[0], 0, 0), Placed(Scene(size=(8, 8), segments=boxes), 0, 10),
         Placed(Scene(size=(8, 8), semantic=torch.zeros(8, 8, dtype=torch.int64)), 10, 10)],
        (18, 18),
    )  # fmt: skip
    objects = scene.objects()
    assert objects.crowd is not None
    assert objects.boxes is not None
    assert objects.crowd.tolist()[-1]
    assert objects.boxes[-1].tolist() == [11, 2, 15, 6]
    assert scene.ignore is not None
    assert scene.ignore.boxes().tolist() == [[10, 10, 18, 18]]
    assert scene.semantic is not None
    assert (scene.semantic[10:, 10:] == 0).all()
    assert (scene.semantic[:10] == -1).all()
    alone = join([Placed(Scene(size=(8, 8), segments=boxes), 0, 0)] * 2, (8, 8)).objects()
    assert alone.masks is None
    assert len(alone) == 2
    untouched = replace(known, scene=Scene(size=(10, 10), segments=replace(boxes, size=(10, 10))))
    assert copy_paste(untouched, known, np.random.default_rng(0), things=THINGS) is untouched


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    folder, made = tmp_path_factory.mktemp("pictures"), []
    for i in range(6):
        sample = drawn(i + 20, (40 + i, 50 - i), panoptic=True)
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        _, segments, dense = parts(sample)
        made.append(
            record(
                (40 + i, 50 - i), [runs(m) for m in dense], key=f"{i}.png", path=folder / f"{i}.png",
                labels=segments.labels.tolist(),
            )
        )  # fmt: skip
    return FileSource.from_records(made, replace(ANIMALS, thing=THINGS))


def test_partners_come_from_the_generator(source: FileSource) -> None:
    augment = Augment(crop=(32, 32), vflip=0.5, copy_paste=0.6, mosaic=0.5)
    made = with_partners(augment, source)
    assert isinstance(made, Composed)
    different = set()
    for seed in range(30):
        one, other = (made(*source.load(seed % 6), np.random.default_rng(seed)) for _ in range(2))
        check(one)
        assert torch.equal(one.image, other.image)
        assert one.image.shape == (3, 32, 32)
        different.add(one.image.numpy().tobytes())
    assert len(different) > 25
    plain = replace(augment, copy_paste=0.0, mosaic=0.0)
    assert with_partners(plain, source) is plain
    with pytest.raises(ValueError, match="with_partners"):
        augment(*source.load(0), np.random.default_rng(0))


def test_weather_comes_last(source: FileSource) -> None:
    augment = Augment(crop=(32, 32), mosaic=0.5)
    clear, foggy = with_partners(augment, source), with_partners(augment, source, Conditions(fog=1.0))
    for seed in range(4):
        one, other = (made(*source.load(seed), np.random.default_rng(seed)) for made in (clear, foggy))
        assert not torch.equal(one.image, other.image)
        first, second = parts(one)[2], parts(other)[2]
        assert np.array_equal(first, second)
    assert isinstance(with_partners(Augment(), source, Conditions(jpeg=1.0)), Composed)


def test_the_same_for_any_number_of_workers_and_resumed(source: FileSource) -> None:
    made = with_partners(Augment(crop=(32, 32), copy_paste=0.6, mosaic=0.5, mixup=0.3), source)

    def loader(workers: int) -> Loader:
        return make_loader(source, made, Shuffled(source, 2, seed=3), workers=workers)

    alone = loader(0)
    want = list(batches(alone, 3))
    state = alone.state_dict()
    want += batches(alone, 2)
    resumed = loader(2)
    resumed.load_state_dict(state)
    for a, b in zip(want, [*batches(loader(2), 3), *batches(resumed, 2)], strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.inputs.pixels, b.inputs.pixels)
        for s, t in zip(a.truth(), b.truth(), strict=True):
            first, second = s.objects().masks, t.objects().masks
            assert first is not None
            assert second is not None
            assert torch.equal(first.counts, second.counts)


def test_partners_that_cannot_be_read(source: FileSource) -> None:
    lost = FileSource.from_records(
        [replace(source.record(i), path=Path("gone.png")) for i in range(3)], Taxonomy(names=("a", "b", "c"))
    )
    made = with_partners(Augment(copy_paste=1.0), lost)
    with pytest.raises(InputError, match=r"gone\.png"):
        made(*source.load(0), np.random.default_rng(0))


def test_real_pictures_all_at_once() -> None:
    data = read_coco(shared("data/coco128/instances.json"))
    made = with_partners(
        Augment(
            fit=True, scale=(0.1, 2.0), crop=(192, 256), rotate=(-10, 10), copy_paste=0.7, mosaic=0.3, mixup=0.3,
            min_visible=0.1,
        ),
        data,
    )  # fmt: skip
    objects = 0
    for i in range(16):
        sample = made(*data.load(i), np.random.default_rng(i))
        _, segments, dense = parts(sample)
        segments.validate(len(data.taxonomy))
        assert dense.any(axis=(1, 2)).all()
        objects += len(segments)
    assert objects > 60
