"""Data sets taken apart and put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.data import edit
from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Record, Taxonomy
from tests.data.make import record

PETS = Taxonomy(names=("cat", "dog", "owl"), source_ids=(3, 7, 9))
SQUARE = (np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float64),)


def picture(key: str, labels: list[int], number: int, **rest: object) -> Record:
    one = record((5, 6), [SQUARE] * len(labels), key=key, labels=labels or None, image_id=number, first_id=100 * number)
    return replace(one, **rest)  # pyright: ignore[reportArgumentType]


def dataset(*labels: list[int], taxonomy: Taxonomy = PETS, name: str = WHOLE) -> Dataset:
    records = [picture(f"{i}.png", its, i + 1) for i, its in enumerate(labels)]
    return Dataset(format="coco", taxonomy=taxonomy, splits={name: FileSource.from_records(records, taxonomy)})


def keys(made: Dataset) -> dict[str, list[str]]:
    return {name: [source.record(i).key for i in range(len(source))] for name, source in made.splits.items()}


# ---- split ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=3, max_size=30), st.integers(0, 99))
def test_every_image_goes_to_one_split(labels: list[list[int]], seed: int) -> None:
    whole = dataset(*labels)
    made = edit.split(whole, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=seed)
    assert sorted(k for ks in keys(made).values() for k in ks) == sorted(keys(whole)[WHOLE])
    assert all(len(source) for source in made.splits.values())
    assert keys(made) == keys(edit.split(whole, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=seed))


def test_rare_classes_are_spread() -> None:
    """With 10 images of the rare class among 200, a half has 5 of them, not just on average."""
    labels = [[0, 0, 2] if i % 20 == 0 else [0, 1] for i in range(200)]
    for seed in range(5):
        made = edit.split(dataset(*labels), {"a": 0.5, "b": 0.3, "c": 0.2}, seed=seed)
        rare = [sum(2 in s.record(i).labels for i in range(len(s))) for s in made.splits.values()]
        assert rare == [5, 3, 2]
        assert [abs(len(s) - n) <= 1 for s, n in zip(made.splits.values(), (100, 60, 40), strict=True)] == [True] * 3


def test_groups_stay_together() -> None:
    records = [picture(f"p{i % 12}/{i}.png", [i % 3], i + 1) for i in range(120)]
    whole = Dataset(format="coco", taxonomy=PETS, splits={WHOLE: FileSource.from_records(records, PETS)})
    made = edit.split(whole, {"train": 0.5, "val": 0.5}, group=lambda r: r.key.split("/")[0])
    patients = [{k.split("/")[0] for k in ks} for ks in keys(made).values()]
    assert not patients[0] & patients[1]
    assert [len(p) for p in patients] == [6, 6]
    clips = [picture(f"{i}.png", [0], i + 1, sequence=f"clip {i // 10}", frame=i % 10) for i in range(40)]
    whole = Dataset(format="coco", taxonomy=PETS, splits={WHOLE: FileSource.from_records(clips, PETS)})
    for source in edit.split(whole, {"a": 0.5, "b": 0.5}).splits.values():
        assert len({source.record(i).sequence for i in range(len(source))}) == 2


def test_splits_that_cannot_be() -> None:
    with pytest.raises(InputError, match="add up to 1"):
        edit.split(dataset([0], [1]), {"a": 0.5, "b": 0.6})
    with pytest.raises(InputError, match="at least as many groups"):
        edit.split(dataset([0]), {"a": 0.5, "b": 0.5})
    with pytest.raises(InputError, match="must have images"):
        edit.split(dataset(), {"a": 1.0})


# ---- merge ----------------------------------------------------------------------------------------------------------


def test_merging_joins_classes_and_tells_keys_apart() -> None:
    other = dataset([0, 1], [1], taxonomy=Taxonomy(names=("owl", "fox")))
    made = edit.merge([dataset([0, 2]), other], ["mine", "yours"])
    assert made.taxonomy.names == ("cat", "dog", "owl", "fox")
    assert keys(made) == {WHOLE: ["mine/0.png", "yours/0.png", "yours/1.png"]}
    records = [made.splits[WHOLE].record(i) for i in range(3)]
    assert [r.labels.tolist() for r in records] == [[0, 2], [2, 3], [3]]
    ids = [int(v) for r in records for v in r.ids]
    assert len(set(ids)) == 5
    assert len({r.image_id for r in records}) == 3
    assert str(records[0].path) == "0.png"


def test_what_does_not_clash_is_left_alone() -> None:
    first, second = dataset([0]), dataset([1], name="val")
    made = edit.merge([first, second])
    assert keys(made) == {WHOLE: ["0.png"], "val": ["0.png"]}
    assert made.splits["val"].record(0).ids.tolist() == [100]


def test_merging_what_contradicts() -> None:
    stuff = dataset([0], taxonomy=Taxonomy(names=("cat",), thing=(False,)))
    with pytest.raises(InputError, match="cat is a thing in one data set and stuff in another"):
        edit.merge([dataset([0]), stuff])
    with pytest.raises(InputError, match="distinct names"):
        edit.merge([dataset([0]), dataset([0])], ["a", "a"])
    with pytest.raises(InputError, match="needs data sets"):
        edit.merge([])


# ---- remap ----------------------------------------------------------------------------------------------------------


def test_classes_are_joined_renamed_removed() -> None:
    made = edit.remap(dataset([0, 1, 2], [2]), {"cat": "pet", "dog": "pet", "owl": None})
    assert made.taxonomy.names == ("pet",)
    assert made.taxonomy.source_ids == (3,)
    assert [made.splits[WHOLE].record(i).labels.tolist() for i in range(2)] == [[0, 0], []]
    assert made.splits[WHOLE].record(0).ids.tolist() == [100, 101]
    assert edit.remap(dataset([0, 1]), {"dog": "wolf"}, others=False).taxonomy.names == ("wolf",)


def test_maps_follow_their_classes() -> None:
    semantic = np.array([[0, 1, 2, -1, 0, 1]] * 5, np.int16)
    file = LabelMap(path=PETS_MAP, classes={5: 0, 6: 2})
    records = [picture("a", [0, 2], 1, semantic=semantic), picture("b", [0], 2, semantic=file)]
    whole = Dataset(format="x", taxonomy=PETS, splits={WHOLE: FileSource.from_records(records, PETS)})
    source = edit.remap(whole, {"cat": None}).splits[WHOLE]
    first, second = source.record(0).semantic, source.record(1).semantic
    assert isinstance(first, np.ndarray)
    assert first[0].tolist() == [-1, 0, 1, -1, -1, 0]
    assert isinstance(second, LabelMap)
    assert second.classes == {6: 1}
    ids = np.array([[100, 101, 0, 0, 0, 0]] * 5)
    whole = Dataset(
        format="x",
        taxonomy=PETS,
        splits={WHOLE: FileSource.from_records([picture("a", [0, 2], 1, panoptic=ids)], PETS)},
    )
    found = edit.remap(whole, {"cat": None}).splits[WHOLE].record(0).panoptic
    assert isinstance(found, np.ndarray)
    assert found[0].tolist() == [0, 101, 0, 0, 0, 0]


PETS_MAP = record((1, 1), []).path


def test_remapping_what_there_is_not() -> None:
    with pytest.raises(InputError, match="no classes fox"):
        edit.remap(dataset([0]), {"fox": "dog"})
    with pytest.raises(InputError, match="leave a class"):
        edit.remap(dataset([0]), {}, others=False)
    mixed = dataset([0], taxonomy=Taxonomy(names=("cat", "sky"), thing=(True, False)))
    with pytest.raises(InputError, match="one is stuff"):
        edit.remap(mixed, {"cat": "sky"})


# ---- subset ---------------------------------------------------------------------------------------------------------


def test_some_images() -> None:
    whole = dataset([0], [], [1, 2], [2], [0, 1])
    assert keys(edit.subset(whole, count=2))[WHOLE] == ["0.png", "1.png"]
    assert keys(edit.subset(whole, classes=["owl"]))[WHOLE] == ["2.png", "3.png"]
    assert keys(edit.subset(whole, keys=["[34].png"], with_objects=True))[WHOLE] == ["3.png", "4.png"]
    assert keys(edit.subset(whole, with_objects=True, count=2))[WHOLE] == ["0.png", "2.png"]
    drawn = [keys(edit.subset(whole, count=3, seed=s))[WHOLE] for s in range(20)]
    assert len(set(map(tuple, drawn))) > 3
    assert all(d == sorted(d) for d in drawn)


def test_choosing_what_there_is_not() -> None:
    with pytest.raises(InputError, match="no classes fox"):
        edit.subset(dataset([0]), classes=["fox"])
    with pytest.raises(InputError, match="no splits val"):
        edit.subset(dataset([0]), splits=["val"])
    with pytest.raises(InputError, match="no image is left"):
        edit.subset(dataset([0]), count=0)
    with pytest.raises(InputError, match="must not be negative"):
        edit.subset(dataset([0]), count=-1)
