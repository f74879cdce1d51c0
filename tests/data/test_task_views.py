"""What a model of each task is given: maps, segments and classes that agree, whatever changes they went through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.augment.compose import with_partners
from maskwright.data.augment.test_time import views
from maskwright.data.augment.transforms import Augment, ToSize
from maskwright.data.collate import collate
from maskwright.data.label_maps import file_values, read_map, write_map
from maskwright.data.opening import open_split
from maskwright.data.source import FileSource, image_labels
from maskwright.data.task_views import for_task
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Record, Resize, Scene, Taxonomy
from tests.data.make import ANIMALS, record, runs

LAND = Taxonomy(names=("cat", "dog", "sky", "grass"), thing=(True, True, False, False))
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco128" / "panoptic.json"


def consistent(scene: Scene, things: tuple[bool, ...], crop_leaves_slivers: bool = False) -> None:
    """Segments, their masks and boxes, the map of ids and the map of classes all say the same."""
    segments, panoptic, semantic = scene.objects(), scene.panoptic, scene.semantic
    assert panoptic is not None
    assert semantic is not None
    assert segments.ids is not None
    assert segments.masks is not None
    assert len(set(segments.ids.tolist())) == len(segments)
    assert set(panoptic.unique().tolist()) - {0} == set(segments.ids.tolist())
    for ident, label, mask in zip(segments.ids, segments.labels, segments.masks.dense(), strict=True):
        assert torch.equal(mask, panoptic == ident)
        assert bool((semantic[mask] == label).all())
    lost = (panoptic == 0) & (semantic >= 0)
    if crop_leaves_slivers and scene.ignore is not None:
        lost &= ~scene.ignore.dense().any(0)
    assert not bool(lost.any())
    assert bool((semantic < len(things)).all())


@st.composite
def sources(draw: st.DrawFn, count: int = 3) -> FileSource:
    """Panoptic records of random patches, one-pixel segments, crowd, void; pixels are not read."""
    made: list[Record] = []
    for number in range(count):
        size = (draw(st.integers(6, 24)), draw(st.integers(6, 24)))
        coarse = draw(hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 5)))
        ids = np.kron(coarse, np.ones((8, 8), np.int64))[: size[0], : size[1]]
        ids[draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))] = 70_001
        own = np.unique(ids[ids > 0])
        labels = [int(v % 4) for v in own]
        boxes = []
        for ident in own:
            rows, columns = np.nonzero(ids == ident)
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        one = record(size, [None] * len(own), boxes=boxes, labels=labels, key=f"{number}.png", image_id=number,
                     crowd=[LAND.thing[label] and draw(st.booleans()) for label in labels])  # fmt: skip
        made.append(replace(one, ids=own, panoptic=ids))
    return FileSource.from_records(made, LAND)


class Drawn:
    """A source with gray pixels."""

    def __init__(self, source: object) -> None:
        self.source, self.taxonomy = source, source.taxonomy

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        return self.source.record(index)

    def load(self, index: int) -> tuple[Record, torch.Tensor]:
        one = self.record(index)
        return one, torch.full((3, *one.size), 90, dtype=torch.uint8)


AUGMENTS = {
    "jitter": Augment(fit=True, scale=(0.5, 2.0), crop=(16, 12), vflip=0.5, quarter_turns=True),
    "turn": Augment(rotate=(-40, 40), shear=(-10, 10), elastic=2.0, elastic_spacing=16.0),
    "mirror": Augment(rotate=(-40, 40), outside="reflect"),
    "whole": Augment(crop=(9, 9), keep_whole=True, crop_on_object=0.5, min_visible=0.4),
    "partners": Augment(crop=(16, 16), copy_paste=0.7, mosaic=0.5, min_visible=0.3),
    "resize": Augment(short=(7, 20), long=40),
}


@settings(max_examples=25, deadline=None)
@given(sources(), st.sampled_from(sorted(AUGMENTS)), st.integers(0, 1000))
def test_panoptic_scenes_stay_consistent(source: FileSource, name: str, seed: int) -> None:
    view = for_task(Drawn(source), "panoptic")
    augment = with_partners(AUGMENTS[name], view)
    rng = np.random.default_rng(seed)
    samples = [augment(*view.load(index), rng) for index in range(len(view))]
    samples.append(ToSize(resize=Resize(short=11, long=30))(*view.load(0)))
    for sample in samples:
        assert sample.scene is not None
        consistent(sample.scene, LAND.thing, crop_leaves_slivers=AUGMENTS[name].min_visible > 0)
    batch = collate(samples, 8)
    assert batch.to("cpu").truth()[0].panoptic is not None


def test_joined_pictures_without_segments_keep_an_empty_map() -> None:
    from maskwright.data.augment.layers import Placed, join
    from maskwright.structures import Segments

    nothing = torch.zeros(4, 4, dtype=torch.int64)
    empty = Scene(size=(4, 4), segments=Segments.empty((4, 4)), semantic=nothing - 1, panoptic=nothing)
    joined = join([Placed(empty, 0, 0), Placed(empty, 0, 4)], (4, 8))
    assert joined.panoptic is not None
    assert joined.panoptic.shape == (4, 8)
    assert not joined.panoptic.any()


@settings(max_examples=15, deadline=None)
@given(sources(1), st.data())
def test_views_for_test_time_keep_the_maps(source: FileSource, data: st.DataObject) -> None:
    view = for_task(Drawn(source), "panoptic")
    from maskwright.data.rasterize import scene_of

    scene = scene_of(view.record(0))
    look = data.draw(st.sampled_from(views(turns=True)))
    seen = look.scene(scene)
    consistent(seen, LAND.thing)
    back = look.back(seen, (scene.size[0], scene.size[1]))
    assert torch.equal(back.panoptic, scene.panoptic)
    assert torch.equal(back.semantic, scene.semantic)


@settings(max_examples=25, deadline=None)
@given(sources(), st.sampled_from(sorted(AUGMENTS)), st.integers(0, 1000))
def test_semantic_scenes_are_the_panoptic_ones_classes(source: FileSource, name: str, seed: int) -> None:
    if AUGMENTS[name].needs_partners:  # objects are pasted, and a semantic view has none
        return
    both = [for_task(Drawn(source), task) for task in ("semantic", "panoptic")]
    plain = replace(AUGMENTS[name], keep_whole=False, crop_on_object=0.0)
    for index in range(len(source)):
        scenes = [plain(*view.load(index), np.random.default_rng(seed)).scene for view in both]
        assert scenes[0].panoptic is None
        assert len(scenes[0].objects()) == 0
        assert torch.equal(scenes[0].semantic, scenes[1].semantic)


def test_instances_of_panoptic_data_are_the_things(tmp_path: Path) -> None:
    ids = np.repeat(np.array([[1, 2, 3, 0]]), 4, axis=0)
    path = tmp_path / "map.png"
    write_map(path, ids, "rgb")
    one = record((4, 4), [None] * 3, boxes=[(0, 0, 1, 4), (1, 0, 2, 4), (2, 0, 3, 4)], labels=[3, 1, 0])
    one = replace(one, panoptic=LabelMap(path=path, form="rgb"), shapes=tuple(runs(ids == k) for k in (1, 2, 3)))
    source = FileSource.from_records([one], LAND)
    things = for_task(source, "instance")
    assert things.taxonomy.names == ("cat", "dog")
    assert things.record(0).labels.tolist() == [1, 0]
    assert things.record(0).panoptic is None
    semantic = for_task(source, "semantic")
    path.rename(tmp_path / "away.png")
    lazy = semantic.record(0)  # nothing is read yet
    assert isinstance(lazy.semantic, LabelMap)
    assert lazy.semantic.classes == {1: 3, 2: 1, 3: 0}
    assert for_task(semantic, "semantic") is semantic
    assert image_labels(semantic)[1].tolist() == [3, 1, 0]


def test_maps_only_say_which_classes_are_shown() -> None:
    one = replace(record((2, 2), []), semantic=np.array([[0, 2], [2, -1]], np.int16))
    first, labels = image_labels(for_task(FileSource.from_records([one], LAND), "semantic"))
    assert (first.tolist(), labels.tolist()) == ([0, 2], [0, 2])


def test_an_image_of_which_nothing_is_known_is_void() -> None:
    known = replace(record((2, 2), [None], boxes=[(0, 0, 1, 1)], labels=[2]), panoptic=np.ones((2, 2), np.int64))
    source = FileSource.from_records([known, record((2, 2), [], key="b.png", image_id=2)], LAND)
    for task in ("semantic", "panoptic"):
        scene = for_task(Drawn(source), task)
        made = ToSize()(*scene.load(1)).scene
        assert made is not None
        assert (made.semantic == -1).all()
        assert len(made.objects()) == 0


def test_what_annotations_cannot_tell_is_refused() -> None:
    mask = np.eye(4, dtype=bool)
    objects = FileSource.from_records([record((4, 4), [runs(mask)])], LAND)
    with pytest.raises(InputError, match="2 of its classes are stuff, which no object shows: sky, grass"):
        for_task(objects, "panoptic")
    maps = FileSource.from_records([replace(record((4, 4), []), semantic=np.zeros((4, 4), np.int16))], LAND)
    with pytest.raises(InputError, match="semantic maps only, and 2 of its classes are things: cat, dog"):
        for_task(maps, "panoptic")
    with pytest.raises(InputError, match="semantic maps only, which do not say"):
        for_task(maps, "instance")
    alone = FileSource.from_records([record((4, 4), [runs(mask)])], Taxonomy(names=("cat",)))
    with pytest.raises(InputError, match="objects of one class"):
        for_task(alone, "semantic")
    with pytest.raises(ValueError, match="must be one of"):
        for_task(maps, "depth")
    animals = FileSource.from_records([record((4, 4), [runs(mask)])], ANIMALS)
    made = ToSize()(*for_task(Drawn(animals), "panoptic").load(0)).scene
    assert made is not None
    consistent(made, ANIMALS.thing)


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.int64, (3, 5), elements=st.integers(0, 65_535)), st.booleans())
def test_maps_are_read_as_written(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, small: bool) -> None:
    path = tmp_path_factory.mktemp("map") / "a.png"
    values = values % 256 if small else values
    write_map(path, values, colors={0: (1, 2, 3)} if small else None)
    assert np.array_equal(read_map(path), values)
    write_map(path, values * 250, "rgb")
    assert np.array_equal(read_map(path, "rgb"), values * 250)
    assert Image.open(path).mode == "RGB"


def test_values_in_files() -> None:
    assert file_values(ANIMALS)[0].tolist() == [3, 7, 90]
    assert file_values(ANIMALS)[1] == 255
    assert file_values(Taxonomy(names=("a", "b"), source_ids=(255, 900)))[1] == 901
    assert file_values(Taxonomy(names=("a", "b"), source_ids=(1, 1 << 20)))[0].tolist() == [0, 1]


@pytest.mark.skipif(not REAL.exists(), reason=f"needs {REAL}")
def test_real_photographs() -> None:
    source = for_task(open_split(REAL, "train"), "panoptic")
    augment = with_partners(Augment(short=(160, 240), crop=(160, 160), copy_paste=0.5, mosaic=0.3), source)
    for index in range(0, len(source), 9):
        sample = augment(*source.load(index), np.random.default_rng(index))
        assert sample.scene is not None
        consistent(sample.scene, source.taxonomy.thing)
