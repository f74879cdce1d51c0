"""Every check finds what was planted, and nothing in what is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from maskwright.data.audit.findings import CHECKS
from maskwright.data.audit.pictures import alike
from maskwright.data.audit.run import audit, fix
from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.source import FileSource
from maskwright.ops.polygon_checks import crosses_itself, rings_inside
from maskwright.structures import LabelMap, Record, Region, Shape, Taxonomy
from tests.data.make import record, runs

PETS = Taxonomy(names=("cat", "dog"))
SIZE = (60, 80)


def square(x: float, y: float, side: float = 20.0) -> Shape:
    return (np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]]),)


def photograph(path: Path, seed: int) -> Path:
    """A picture with structure: smooth patches of light and dark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC).save(path)
    return path


def dataset(records: dict[str, list[Record]], taxonomy: Taxonomy = PETS) -> Dataset:
    splits = {name: FileSource.from_records(its, taxonomy) for name, its in records.items()}
    return Dataset(format="coco", taxonomy=taxonomy, splits=splits)


def one(*shapes: Shape, **rest: object) -> Dataset:
    return dataset({WHOLE: [record(SIZE, list(shapes), **rest)]})  # pyright: ignore[reportArgumentType]


def found(data: Dataset, *, pictures: bool = False) -> dict[str, int]:
    """Without notes on classes, which small data sets all deserve."""
    return audit(data, pictures=pictures, skip=("rare class", "unused class", "imbalance")).counts()


# ---- objects --------------------------------------------------------------------------------------------------------

GOOD: tuple[Shape, ...] = (square(5, 5), square(40, 30))
BOW = (np.array([[10.0, 10], [30, 30], [30, 10], [10, 30]]),)
DOT = np.zeros(SIZE, bool)
DOT[3, 4] = True
FULL = runs(np.ones(SIZE, bool))


@pytest.mark.parametrize(
    ("check", "data"),
    [
        ("outside", one(*GOOD, square(90, 5))),
        ("no pixels", one(*GOOD, (np.array([[50.1, 5.1], [50.3, 5.1], [50.3, 5.3]]),))),
        ("duplicate object", one(*GOOD, square(5, 5.5))),
        ("two classes", one(*GOOD, square(5, 5), labels=[0, 0, 1])),
        ("beyond the edge", one(*GOOD, square(65, 5))),
        ("self-crossing", one(*GOOD, BOW)),
        ("lost hole", one(*GOOD, (*(square(40, 2) or ()), *(square(45, 7, 5) or ())))),
        ("box disagrees", one(*GOOD, boxes=[(5, 5, 25, 25), (40, 30, 60, 58)])),
        ("tiny", one(*GOOD, runs(DOT))),
        ("box only", one(*GOOD, None, boxes=[(5, 5, 25, 25), (40, 30, 60, 50), (50, 2, 60, 12)])),
        ("whole picture", one(FULL)),
    ],
)
def test_what_is_planted_is_found(check: str, data: Dataset) -> None:
    assert found(data) == {check: 1}


def test_what_is_right_is_left_alone() -> None:
    crowd = record(SIZE, [*GOOD, FULL], crowd=[False, False, True])
    assert found(dataset({WHOLE: [crowd, record(SIZE, list(GOOD), key="b.png", labels=[1, 0], first_id=9)]})) == {}
    boxes = record(SIZE, [None, None], boxes=[(5, 5, 25, 25), (40, 30, 60, 50)])
    assert found(dataset({WHOLE: [boxes]})) == {}
    twice = record(SIZE, [None, None], boxes=[(5, 5, 25, 25), (5, 5, 25, 25)])
    assert found(dataset({WHOLE: [twice]})) == {"duplicate object": 1}


def test_what_no_reader_could_use() -> None:
    data = replace(one(*GOOD), dropped={"a polygon with fewer than three points": ["a.json:7", "a.json:9"]})
    report = audit(data, pictures=False)
    assert [f.text for f in report.findings if f.check == "unusable"] == [
        "a polygon with fewer than three points: a.json:7",
        "a polygon with fewer than three points: a.json:9",
    ]
    assert report.severity() == "error"


def panoptic(tmp_path: Path, ids: list[int]) -> Dataset:
    path = tmp_path / "ids.png"
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:20, :, 0], pixels[30:, :, 0] = 1, 2
    Image.fromarray(pixels).save(path)
    boxes = {1: (0, 0, 80, 20), 2: (0, 30, 80, 60), 3: (0, 0, 80, 20)}
    its = record(SIZE, [Region(path, "rgb", i) for i in ids], boxes=[boxes[i] for i in ids])
    its = replace(its, ids=np.array(ids), panoptic=LabelMap(path=path, form="rgb"))
    return dataset({WHOLE: [its]})


def test_maps_and_lists_agree(tmp_path: Path) -> None:
    assert found(panoptic(tmp_path, [1, 2])) == {}
    report = audit(panoptic(tmp_path, [1, 3]), pictures=False, skip=("unused class", "rare class"))
    assert [f.text for f in report.findings if f.check == "map disagrees"] == [
        "its map shows 1 segments that are not listed: 2",
        "1 listed segments are not in its map: 3",
    ]
    overlapping = replace(record(SIZE, [*GOOD, square(15, 5)]), panoptic=np.zeros(SIZE, np.int64))
    counts = found(dataset({WHOLE: [overlapping]}))
    assert counts["overlap"] == 1


# ---- classes --------------------------------------------------------------------------------------------------------


def test_classes() -> None:
    records = [record(SIZE, [square(5, 5)], key=f"{i}", first_id=i + 1, image_id=i + 1) for i in range(120)]
    dog = record(SIZE, [square(5, 5)], key="dog", labels=[1], first_id=999)
    three = Taxonomy(names=("cat", "dog", "owl"))
    report = audit(dataset({"train": records, "val": [dog]}, three), pictures=False)
    assert [(f.check, f.text) for f in report.findings] == [
        ("unlearnable class", "dog: 1 objects in val, none in train, so it cannot be learned"),
        ("unused class", "owl: no object"),
        ("rare class", "dog: only 1 objects"),
        ("imbalance", "cat 120 objects, dog 1: consider repeat factors"),
    ]


def test_odd_sizes() -> None:
    rng = np.random.default_rng(1)
    shapes = [square(2, 2, float(side)) for side in rng.uniform(9, 12, 40)]
    records = [record(SIZE, [s], key=f"{i}", first_id=i + 1, image_id=i + 1) for i, s in enumerate(shapes)]
    assert found(dataset({WHOLE: records})) == {}
    records.append(record(SIZE, [square(2, 2, 55)], key="large", first_id=77, image_id=77))
    (finding,) = [f for f in audit(dataset({WHOLE: records}), pictures=False).findings if f.check == "odd size"]
    assert (finding.key, finding.ident) == ("large", 77)


# ---- pictures -------------------------------------------------------------------------------------------------------


def with_pictures(root: Path, **splits: list[Path]) -> Dataset:
    records: dict[str, list[Record]] = {}
    number = 0
    for split, paths in splits.items():
        for path in paths:
            number += 1
            its = record(SIZE, list(GOOD), key=path.name, path=path, first_id=10 * number, image_id=number)
            records.setdefault(split, []).append(its)
    return dataset(records)


def test_broken_pictures(tmp_path: Path) -> None:
    paths = [photograph(tmp_path / f"{i}.png", i) for i in range(5)]
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    Image.new("RGB", (9, 9)).save(paths[2])
    paths[3].unlink()
    report = audit(with_pictures(tmp_path, train=paths))
    assert [f.key for f in report.findings if f.check == "broken picture"] == ["1.png", "2.png", "3.png"]


def test_duplicates_and_leakage(tmp_path: Path) -> None:
    paths = [photograph(tmp_path / f"{i}.png", i) for i in range(12)]
    original = Image.open(paths[0])
    copies = {name: tmp_path / name for name in ("same.bmp", "anew.jpg", "brighter.png", "other_split.png")}
    original.save(copies["same.bmp"])
    original.save(copies["anew.jpg"], quality=60)
    ImageEnhance.Brightness(original).enhance(1.08).save(copies["brighter.png"])
    original.save(copies["other_split.png"])
    data = with_pictures(
        tmp_path,
        train=[*paths, copies["same.bmp"], copies["anew.jpg"], copies["brighter.png"]],
        val=[copies["other_split.png"]],
    )
    told = {(f.check, f.key) for f in audit(data).findings if f.check in CHECKS and "class" not in f.check}
    assert told == {
        ("duplicate picture", "same.bmp"),
        ("near duplicate", "anew.jpg"),
        ("near duplicate", "brighter.png"),
        ("leakage", "other_split.png"),
    }
    assert [sorted(group) for group in alike(data.splits["train"])] == [[0, 12, 13, 14]]


def test_plain_pictures_are_not_alike(tmp_path: Path) -> None:
    """Blank frames of different shades have nothing to be told by; they are not the same picture."""
    paths: list[Path] = []
    for i in range(300):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (SIZE[1], SIZE[0]), (i % 256, i // 256, 7)).save(paths[-1])
    assert sum(found(with_pictures(tmp_path, train=paths), pictures=True).values()) == 0


def test_progress_and_unknown_checks() -> None:
    seen: list[tuple[int, int]] = []
    audit(one(*GOOD), pictures=False, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    with pytest.raises(ValueError, match="no checks odd"):
        audit(one(*GOOD), skip=("odd",))


# ---- putting right --------------------------------------------------------------------------------------------------


def test_what_is_safe_is_put_right() -> None:
    far, twice, edge = square(90, 5), square(5, 5), square(65, 30)
    its = record(SIZE, [*GOOD, far, twice, edge, BOW], boxes=None)
    boxes = its.boxes.copy()
    boxes[1] += (0, 0, 0, 9)
    data = dataset({WHOLE: [replace(its, boxes=boxes)]})
    report = audit(data, pictures=False)
    mended = fix(data, report).splits[WHOLE].record(0)
    assert mended.ids.tolist() == [1, 2, 5, 6]
    assert mended.boxes.tolist() == [[5, 5, 25, 25], [40, 30, 60, 50], [65, 30, 80, 50], [10, 10, 30, 30]]
    assert mended.areas[2] == 15 * 20
    assert found(fix(data, report)) == {"self-crossing": 1}  # which a person has to look at


# ---- polygons -------------------------------------------------------------------------------------------------------


def test_rings_that_cross_themselves() -> None:
    assert crosses_itself(BOW[0])
    for ring in (
        [[0, 0], [4, 0], [4, 4], [0, 4]],
        [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]],
        [[0, 0], [1, 0], [1, 0], [1, 1]],
    ):
        assert not crosses_itself(np.array(ring, float))
    seam = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 5], [3, 5], [3, 6], [6, 6], [6, 3], [3, 3], [3, 5], [0, 5]]
    assert not crosses_itself(np.array(seam, float))


@given(st.integers(3, 40), st.integers(0, 10**6))
def test_stars_do_not_cross_and_swaps_do(points: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    if np.diff(angle, append=angle[0] + 2 * np.pi).max() >= np.pi:
        return  # the center would lie outside
    ring = rng.uniform(1, 5, points)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert not crosses_itself(ring)


def test_a_ring_of_a_million_points_is_quick() -> None:
    angle = np.linspace(0, 2 * np.pi, 10**6, endpoint=False)
    assert not crosses_itself(np.stack([np.cos(angle), np.sin(angle)], 1))


def test_rings_within_rings() -> None:
    large, small, beside, across = (square(*a)[0] for a in ((0, 0, 20), (5, 5, 5), (30, 0, 5), (15, 5, 10)))  # pyright: ignore
    assert rings_inside([large, small, beside, across]) == [1]
    assert rings_inside([large, large]) == [1]
