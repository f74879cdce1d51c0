"""The formats of annotation tools side by side: none takes the files of another for its own; what they share."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy
from tests.data.formats import draw

READERS = ("cvat", "cvat_video", "label_studio", "labelme", "labelme_xml", "supervisely", "via", "coco_dataset")
WRITERS = ("cvat", "cvat_video", "label_studio", "labelme", "supervisely", "via", "coco_dataset")


def module(name: str) -> Any:
    return import_module(f"maskwright.data.formats.{name}")


def place(name: str, root: Path, split: str, record: Record) -> Path:
    find = getattr(module(name), "picture", None)
    if find is None:
        return root / "images" / record.key if split == WHOLE else root / "images" / split / record.key
    return find(root, split, record)


def sample(video: bool = False) -> Dataset:
    """A ring with an island in its hole and a part elsewhere, two polygons, a crowd, a box; an empty picture."""
    build = Builder(Path("drawn"), "drawn", Taxonomy(names=("cat", "naïve <bär>", "unused")))
    mask = np.zeros((12, 14), bool)
    mask[1:9, 1:9], mask[2:8, 2:8], mask[4:6, 4:6] = True, False, True
    mask[10, 11:13] = mask[11, 13] = True
    square = np.array([[1, 1], [5, 1], [5, 5], [1, 5]], np.float64)
    for split in ("train", "val"):
        for frame in (1, 2):
            extra: dict[str, Any] = {"sequence": "s", "frame": frame} if video else {}
            key = f"frame_{frame:06d}.png"
            build.image(key, Path(key), (12, 14), split=split, **extra)
            if frame == 2:
                continue
            build.object("cat", draw.runs(mask), "a", track=1 if video else None)
            build.object("naïve <bär>", (square,), "b", crowd=True, track=2 if video else None)
            build.object("cat", (square, square + 6), "c", track=3 if video else None)
            build.object("cat", None, "d", box=(0.5, 1, 7, 9.25), track=4 if video else None)
    return build.done()


@pytest.mark.parametrize("writer", WRITERS)
def test_files_are_recognized_by_their_own_format_alone(tmp_path: Path, writer: str) -> None:
    dataset = sample(video=writer == "cvat_video")
    root = tmp_path / "out"
    for split, source in dataset.splits.items():
        records = {r.key: r for r in map(source.record, range(len(source)))}
        one = Dataset(format="x", taxonomy=dataset.taxonomy, splits={split: source})
        draw.write_pictures(one, lambda s, key, records=records: place(writer, root, s, records[key]))
    module(writer).write(root, dataset)
    assert [name for name in READERS if module(name).recognizes(root)] == [writer]
    made = module(writer).read(root)
    draw.same(dataset, made, what={"names", "splits", "sizes", "labels", "masks", "crowd"})


@pytest.mark.parametrize("name", READERS)
def test_recognizing_never_raises(tmp_path: Path, name: str) -> None:
    for file in ("a.json", "a.xml", "a.csv", "annotations.xml", "meta.json"):
        (tmp_path / file).write_bytes(b'\xff\x00[{"' * 50)
    (tmp_path / "b.json").mkdir()
    for path in (tmp_path, tmp_path / "none", *tmp_path.iterdir()):
        assert not module(name).recognizes(path)


def test_one_ring_has_the_same_pixels() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        mask = rng.random((9, 11)) < rng.uniform(0.1, 0.9)
        mask[4, 5] = True
        ring = figures.one_ring(draw.runs(mask), (9, 11))
        got = draw.dense((ring,), (9, 11))
        assert got is not None
        assert (got == mask).all()


def test_holes_are_cut_out() -> None:
    outer = figures.corners((0, 0, 6, 6))
    holed = figures.with_holes(outer, [figures.corners((1, 1, 3, 3)), figures.corners((2, 2, 4, 4))], (8, 8))
    got = draw.dense(holed, (8, 8))
    wanted = np.zeros((8, 8), bool)
    wanted[:6, :6], wanted[1:3, 1:3], wanted[2:4, 2:4] = True, False, False
    assert got is not None
    assert (got == wanted).all()


@pytest.mark.parametrize(("across", "down", "turn"), [(3, 3, 0), (40, 7, 30), (2000, 500, 77)])
def test_ellipses_have_the_area_of_ellipses(across: float, down: float, turn: float) -> None:
    x, y = figures.ellipse(9, 8, across, down, turn).T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))
    assert area == pytest.approx(np.pi * across * down, rel=0.05, abs=0.06 * 2 * np.pi * across)
    assert (np.mean(x), np.mean(y)) == pytest.approx((9, 8))


def test_ids_are_kept_and_made_distinct() -> None:
    idents = figures.Idents()
    wanted = [None, 1, 7, 7, "7", "12", "x", 0, -3, True, 1 << 70, 2.5]
    taken = [idents.take(value) for value in wanted]
    assert len(set(taken)) == len(taken)
    assert (taken[0], taken[2], taken[5]) == (1, 7, 12)


def test_sizes_are_sane() -> None:
    assert figures.size_of("3", 4.0, "x") == (3, 4)
    for wrong in ((0, 3), ("a", 3), (None, 3), (2.5, 3), (1 << 20, 1 << 20), (float("nan"), 3), (float("inf"), 3)):
        with pytest.raises(InputError, match="here: a picture must have a height"):
            figures.size_of(*wrong, "here")
