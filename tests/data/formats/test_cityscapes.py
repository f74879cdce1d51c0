"""Cityscapes: the table, the samples, what polygons draw to, and there and back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats import cityscapes
from maskwright.data.formats.build import Builder
from maskwright.data.formats.cityscapes_labels import BY_ID, LABELS, labels_of, taxonomy_of
from maskwright.data.formats.cityscapes_polygons import draw_polygons, polygons_of
from maskwright.data.source import FileSource
from maskwright.data.tasks import to_panoptic
from maskwright.errors import InputError
from maskwright.storage import write_json
from maskwright.structures import Record, Taxonomy
from tests.data.formats.draw import ODD_KEYS, data_sets, same, write_pictures
from tests.data.formats.pixels import SIZE, counted, objects, photo, records, save, semantic
from tests.data.formats.small_sets import make_cityscapes
from tests.shared import shared

THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
IDS = st.sampled_from([0, 3, 7, 23, 24, 26, 24000, 24001, 26000, 26007, 29001, 33002])


def test_the_table() -> None:
    assert len(LABELS) == 34
    assert [row.ident for row in LABELS] == list(range(34))
    kept = labels_of("evaluated")
    assert [row.train for row in kept] == list(range(19))
    assert tuple(row.name for row in kept if row.instances) == THINGS
    assert sum(taxonomy_of("evaluated").thing) == 8
    assert [row.ident for row in LABELS if row.instances] == list(range(24, 34))
    with pytest.raises(ValueError, match="evaluated"):
        labels_of("19")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["dataset", "train_dataset"])
def test_the_samples(name: str) -> None:
    root = shared("data/formats/cityscapes") / name
    assert cityscapes.recognizes(root)
    made = cityscapes.read(root, classes="all")
    assert {split: len(source) for split, source in made.splits.items()} == {"test": 2, "train": 1, "val": 1}
    for key, record in records(made).items():
        folder, _, rest = key.partition("/")
        file = root / "gtFine" / folder / rest.replace(".png", "_gtFine_instanceIds.png")
        ids = np.asarray(Image.open(file)).astype(int)
        labels = np.where(ids >= 1000, ids // 1000, ids)
        values = [v for v in np.unique(ids).tolist() if BY_ID[v // 1000 if v >= 1000 else v].instances]
        assert [(made.taxonomy.source_ids[i], c) for i, c in zip(record.labels, record.crowd, strict=True)] == [
            (v // 1000 if v >= 1000 else v, v < 1000) for v in values
        ]
        trains = Path(str(file).replace("instanceIds", "labelTrainIds"))
        if not trains.exists():
            assert np.array_equal(semantic(record), labels)  # all 34: a label's number is its id
    assert sum(len(r) for r in records(cityscapes.read(root)).values()) == sum(len(r) for r in records(made).values())


def test_only_what_is_evaluated(tmp_path: Path) -> None:
    file = make_cityscapes(tmp_path)
    ids = np.full(SIZE, 29001)
    ids[0], ids[1], ids[2, :3] = 26004, 4, 24
    save(file, ids, np.uint16)
    save(Path(str(file).replace("instanceIds", "labelIds")), np.where(ids >= 1000, ids // 1000, ids))
    (found,) = records(cityscapes.read(tmp_path)).values()
    assert [BY_ID[taxonomy_of("evaluated").source_ids[i]].name for i in found.labels] == ["person", "car"]
    assert found.crowd.tolist() == [True, False]
    assert set(np.unique(semantic(found))) == {-1, 11, 13}
    (whole,) = records(cityscapes.read(tmp_path, classes="all")).values()
    assert len(whole) == 3
    assert np.array_equal(semantic(whole), np.where(ids >= 1000, ids // 1000, ids))


def test_every_source_of_classes_says_the_same(tmp_path: Path) -> None:
    file = make_cityscapes(tmp_path)
    base = str(file).removesuffix("instanceIds.png")
    (want,) = records(cityscapes.read(tmp_path)).values()
    ids = np.asarray(Image.open(f"{base}labelIds.png"))
    trains = np.array([row.train for row in LABELS])[ids]
    colors = np.array([row.color for row in LABELS], np.uint8)[ids]
    Path(f"{base}labelIds.png").unlink()
    (from_instances,) = records(cityscapes.read(tmp_path)).values()
    save(Path(f"{base}labelTrainIds.png"), trains)
    (from_trains,) = records(cityscapes.read(tmp_path)).values()
    file.unlink()
    Path(f"{base}labelTrainIds.png").unlink()
    save(Path(f"{base}color.png"), colors)
    (from_colors,) = records(cityscapes.read(tmp_path)).values()
    for found in (from_instances, from_trains, from_colors):
        assert np.array_equal(semantic(found), semantic(want))
    assert len(from_colors) == 0


@settings(max_examples=30, deadline=None)
@given(ids=hnp.arrays(np.int64, SIZE, elements=IDS))
def test_panoptic_is_that_of_the_official_tool(ids: np.ndarray) -> None:
    """createPanopticImgs: a segment a value, crowd where it is below 1000 and the class has instances; no void."""
    with tempfile.TemporaryDirectory() as folder:
        save(make_cityscapes(Path(folder)), ids, np.uint16)
        save(next(Path(folder).rglob("*labelIds.png")), np.where(ids >= 1000, ids // 1000, ids))
        made = cityscapes.read(Path(folder))
        (record,) = records(made).values()
        found = to_panoptic(record, made.taxonomy)
    rows = {v: BY_ID[v // 1000 if v >= 1000 else v] for v in np.unique(ids).tolist()}
    want = {(row.ident, row.instances and v < 1000, (ids == v).tobytes()) for v, row in rows.items() if not row.ignored}
    assert isinstance(found.panoptic, np.ndarray)
    assert want == {
        (made.taxonomy.source_ids[label], bool(crowd), (found.panoptic == ident).tobytes())
        for label, crowd, ident in zip(found.labels, found.crowd, found.ids, strict=True)
    }


# ---- polygons -------------------------------------------------------------------------------------------------------


def box(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    """The ring whose border pixels are these, both ends included."""
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def polygon_file(root: Path, items: list) -> Path:
    """A picture with only a polygon file."""
    photo(root / "leftImg8bit" / "val" / "a" / "a_leftImg8bit.png")
    path = root / "gtFine" / "val" / "a" / "a_gtFine_polygons.json"
    write_json(path, {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": items})
    return path


def test_polygons_are_drawn_in_order(tmp_path: Path) -> None:
    polygon_file(
        tmp_path,
        [
            {"label": "road", "polygon": box(0, 0, 7, 5)},
            {"label": "car", "polygon": box(1, 1, 4, 3)},
            {"label": "car", "polygon": box(3, 2, 6, 4), "id": 7, "user": "x"},
            {"label": "car", "polygon": box(0, 0, 7, 5), "deleted": 1},
            {"label": "license plate", "polygon": box(1, 1, 4, 3)},
            {"label": "persongroup", "polygon": box(0, 5, 2, 5)},
        ],
    )
    assert cityscapes.recognizes(tmp_path / "gtFine")
    made = cityscapes.read(tmp_path / "gtFine")
    (found,) = records(made).values()
    want = np.full(SIZE, 0)
    want[1:4, 1:5] = 13
    want[2:5, 3:7] = 13
    want[5, :3] = 11
    assert np.array_equal(semantic(found), want)
    assert [(n, c, np.sum(m)) for n, c, m in objects(found, made)] == [
        ("person", True, 3),
        ("car", False, 8),
        ("car", False, 12),
    ]


@settings(max_examples=80, deadline=None)
@given(ids=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=IDS))
def test_polygons_that_are_written_draw_to_the_same_pixels(ids: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        write_json(path, polygons_of(ids))
        build = Builder(path, "cityscapes", taxonomy_of("all"))
        drawn = draw_polygons(build, path, (ids.shape[0], ids.shape[1]))
    assert build.problems == {}
    assert np.array_equal(np.where(drawn >= 1000, drawn // 1000, drawn), np.where(ids >= 1000, ids // 1000, ids))
    assert np.array_equal(drawn >= 1000, ids >= 1000)


CAR = {"label": "car", "polygon": box(1, 1, 4, 3)}
BAD = [
    ({"label": "dragon", "polygon": box(0, 0, 1, 1)}, "not known .'dragon'"),
    ({"label": "roadgroup", "polygon": box(0, 0, 1, 1)}, "not known .'roadgroup'"),
    ({"polygon": box(0, 0, 1, 1)}, "no label"),
    (7, "no label"),
    ({"label": "car", "polygon": [[0, 0], [1, 1]]}, "three points"),
    ({"label": "car", "polygon": [[0, "x"], [1, 1], [2, 2]]}, "three points"),
    ({"label": "car", "polygon": [[0, 1e9], [1, 1], [2, 2]]}, "far outside"),
    ({"label": "car", "polygon": [[0, 1]] * 100_001}, "more than 100000 points"),
    ({"label": "car", "polygon": {"a": 1}}, "three points"),
    ({"label": "car", "polygon": [[0, None], [1, 1], [2, 2]]}, "not finite"),
]


@pytest.mark.parametrize(("item", "words"), BAD, ids=[words for _, words in BAD])
def test_broken_polygons(tmp_path: Path, item: object, words: str) -> None:
    polygon_file(tmp_path, [CAR, item])
    with pytest.raises(InputError, match=rf"1 with .*{words}.*: .*a_gtFine_polygons\.json object 1"):
        cityscapes.read(tmp_path)
    made = cityscapes.read(tmp_path, strict=False)
    assert counted(made) == {"val/a/a.png": {"car": 1}}
    assert len(made.dropped) == 1


def test_broken_polygon_files(tmp_path: Path) -> None:
    path = polygon_file(tmp_path, [])
    for text in (
        "[" * 100_000 + "]" * 100_000,
        "{}",
        "[]",
        '{"objects": 3}',
        "not json",
        '{"imgHeight": 1e9, "objects": []}',
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a_gtFine_polygons\.json"):
            cityscapes.read(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a_gtFine_polygons\.json"):
        cityscapes.read(tmp_path)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_coarse_where_there_is_no_fine_and_tests_without_labels(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    for split, name in (("train_extra", "x"), ("test", "t")):
        photo(tmp_path / "leftImg8bit" / split / "b" / f"{name}_leftImg8bit.png")
    save(tmp_path / "gtCoarse" / "train_extra" / "b" / "x_gtCoarse_instanceIds.png", np.full(SIZE, 26001), np.uint16)
    made = cityscapes.read(tmp_path)
    assert counted(made) == {
        "train/ulm/ulm_000000_000019.png": {"person": 1, "car": 1},
        "train_extra/b/x.png": {"car": 1},
        "test/b/t.png": {},
    }
    assert records(made)["test/b/t.png"].semantic is None


# ---- there and back -------------------------------------------------------------------------------------------------


def through(dataset: Dataset, folder: Path) -> Dataset:
    """Written, with pictures, and read."""
    cityscapes.write(folder, dataset)
    write_pictures(dataset, lambda split, key: cityscapes.picture(folder, split, at(dataset, split, key)))
    return cityscapes.read(folder, classes="all")


def at(dataset: Dataset, split: str, key: str) -> Record:
    """The record of a key."""
    source = dataset.splits[split]
    return next(r for r in map(source.record, range(len(source))) if r.key == key)


@settings(max_examples=20, deadline=None)
@given(data_sets(names=THINGS, keys=ODD_KEYS, disjoint=True, kinds=("runs",), splits=("train", "val", "all")))
def test_there_and_back(dataset: Dataset) -> None:
    """Objects come back by class, crowd regions of a class as one; what comes back once comes back the same again."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first = through(dataset, Path(one))
        again = through(first, Path(two))
        same(
            first,
            again,
            what=("names", "splits", "keys", "sizes", "labels", "masks", "boxes", "crowd", "areas", "semantic"),
        )
        got = records(first)
        for key, record in records(dataset).items():
            want = [(n, m) for n, crowd, m in objects(record, dataset) if not crowd]
            assert sorted(want) == sorted((n, m) for n, crowd, m in objects(got[key], first) if not crowd)
            groups: dict[str, np.ndarray] = {}
            for n, crowd, m in objects(record, dataset):
                if crowd:
                    groups[n] = groups.get(n, 0) + np.array(m)
            assert {n: np.array(m).tolist() for n, crowd, m in objects(got[key], first) if crowd} == {
                n: m.tolist() for n, m in groups.items()
            }
        assert set(first.splits) == set(dataset.splits)


def test_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_cityscapes(tmp_path / "in")
    made = cityscapes.read(tmp_path / "in")
    record = made.splits["train"].record(0)

    def of(taxonomy: Taxonomy, **change: object) -> Dataset:
        source = FileSource.from_records([replace(record, **change)], taxonomy)  # pyright: ignore[reportArgumentType]
        return replace(made, taxonomy=taxonomy, splits={"train": source})

    cats = Taxonomy(names=("cat", *made.taxonomy.names[1:]))
    with pytest.raises(InputError, match="does not have 1 of the classes: cat"):
        cityscapes.write(tmp_path / "out", of(cats))
    twice = {"shapes": (record.shapes[0],) * 2}
    with pytest.raises(InputError, match="2 objects that overlap others: ulm"):
        cityscapes.write(tmp_path / "out", of(made.taxonomy, **twice))
    with pytest.raises(InputError, match="1 objects with a box only"):
        cityscapes.write(tmp_path / "out", of(made.taxonomy, shapes=(record.shapes[0], None)))
    with pytest.raises(ValueError, match="'refuse' or 'cover'"):
        cityscapes.write(tmp_path / "out", made, overlap="x")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out").exists()
    cityscapes.write(tmp_path / "out", of(made.taxonomy, **twice), overlap="cover")
    assert len(list((tmp_path / "out").rglob("*_gtFine_*"))) == 3
