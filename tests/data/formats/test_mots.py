"""MOTS: the samples, text and PNG alike, regions to be ignored, tracks there and back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats import mots
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Taxonomy
from tests.data.formats.draw import data_sets, runs
from tests.data.formats.pixels import objects, photo, records, save
from tests.data.formats.small_sets import TWO, make_mots
from tests.shared import shared


def counts_of(mask: np.ndarray) -> str:
    """COCO's compressed counts of one mask."""
    return rle.compress(rle.encode(np.ascontiguousarray(mask)[None])[0]).decode("ascii")


def text_set(root: Path, text: str, frames: tuple[int, ...] = (1, 2)) -> Path:
    """A KITTI-like data set of one sequence; returns the text file."""
    for frame in frames:
        photo(root / "training" / "image_02" / "0007" / f"{frame:06d}.png")
    path = root / "instances_txt" / "0007.txt"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_sample(tmp_path: Path) -> None:
    """Its pictures are transposed (1 wide, 5 high), which is refused; its maps beside pictures that fit are read."""
    root = shared("data/formats/mots")
    assert mots.recognizes(root)
    with pytest.raises(InputError, match=r"5x1 .*got 1x5"):
        mots.read(root)
    want: dict[str, list[tuple[int, int]]] = {}
    for split in ("train", "val"):
        for file in sorted((root / split / "instances").glob("*.png")):
            ids = np.asarray(Image.open(file))
            save(tmp_path / split / "instances" / file.name, ids, np.uint16)
            photo(tmp_path / split / "images" / f"{file.stem}.jpg", (ids.shape[0], ids.shape[1]))
            want[f"{split}/{file.stem}.jpg"] = [(v // 1000, v) for v in np.unique(ids).tolist() if v]
        names = (root / split / "instances" / "labels.txt").read_bytes()
        (tmp_path / split / "instances" / "labels.txt").write_bytes(names)
    made = mots.read(tmp_path)
    assert made.taxonomy.names == ("a", "b", "c", "d")
    assert want == {
        key: [(int(label) + 1, int(track)) for label, track in zip(r.labels, r.tracks, strict=True)]  # pyright: ignore
        for key, r in records(made).items()
    }
    assert sum(map(len, want.values())) == 5


def test_text_and_pngs_say_the_same(tmp_path: Path) -> None:
    make_mots(tmp_path / "png")
    (want,) = records(from_pngs := mots.read(tmp_path / "png")).values()
    lines = f"1 2005 2 6 8 {counts_of(TWO == 1)}\n1 10000 10 6 8 {counts_of(TWO == 2)}\n\n"
    text_set(tmp_path / "text", lines)
    made = mots.read(tmp_path / "text")
    assert mots.recognizes(tmp_path / "text")
    found = records(made)
    assert list(found) == ["all/0007/000001.png", "all/0007/000002.png"]
    first, second = found.values()
    assert objects(first, made) == objects(want, from_pngs)
    assert objects(first, made)[0][:2] == ("pedestrian", False)
    assert [o[:2] for o in objects(first, made)[1:]] == [("car", True), ("pedestrian", True)]
    assert first.tracks is not None
    assert first.tracks.tolist() == [2005, -1, -1]
    assert (first.sequence, first.frame, second.frame, len(second)) == ("0007", 1, 2, 0)


GOOD = f"1 2005 2 6 8 {counts_of(TWO == 1)}"
BAD = [
    ("1 2005 2 6 8", "a line that is not"),
    ("1 2005 2 6 8 abc def", "a line that is not"),
    ("1 -5 2 6 8 abc", "a line that is not"),
    ("1 2005 2 6 8 \x7fq", "run-lengths that do not fit"),
    ("1 2005 2 6 8 0", "run-lengths that do not fit"),
    (GOOD.replace("6 8", "8 6"), "run-lengths that do not fit"),
    (GOOD.replace("2 6", "3 6"), "not known .3."),
    (GOOD.replace("1 2005", "9 2005"), "a frame whose picture is missing"),
    (GOOD.replace("6 8", "999999999 999999999"), "run-lengths that do not fit"),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[f"{words} {i}" for i, (_, words) in enumerate(BAD)])
def test_broken_lines(tmp_path: Path, line: str, words: str) -> None:
    text_set(tmp_path, f"{GOOD}\n{line}\n")
    with pytest.raises(InputError, match=rf"1 with .*{words}.*: .*0007\.txt:2"):
        mots.read(tmp_path)
    made = mots.read(tmp_path, strict=False)
    assert sum(len(r) for r in records(made).values()) == 1
    assert len(made.dropped) == 1


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    path = text_set(tmp_path / "a", GOOD)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"0007\.txt is not UTF-8"):
        mots.read(tmp_path / "a")
    make_mots(tmp_path / "b")
    make_mots(tmp_path / "b" / "more")
    (tmp_path / "b" / "more" / "train").rename(tmp_path / "b" / "val")
    (tmp_path / "b" / "val" / "instances" / "labels.txt").write_text("x\ny\n")
    with pytest.raises(InputError, match="different classes"):
        mots.read(tmp_path / "b")
    with pytest.raises(InputError, match="several splits"):
        mots.read(tmp_path / "b", images=tmp_path)


# ---- there and back -------------------------------------------------------------------------------------------------


@st.composite
def clips(draw: st.DrawFn) -> Dataset:
    """Frames of sequences; tracks of one class each, distinct in a frame; regions to be ignored in every class."""
    drawn = draw(data_sets(kinds=("runs",), disjoint=True, crowd=False, most_images=4))
    count = len(drawn.taxonomy)
    splits = {}
    for split, source in drawn.splits.items():
        made: list[Record] = []
        for i in range(len(source)):
            record = source.record(i)
            tracks = draw(
                st.lists(
                    st.integers(0, 3) | st.integers(1000, 5003), min_size=len(record), max_size=len(record), unique=True
                )
            )
            lone = draw(st.lists(st.booleans(), min_size=len(record), max_size=len(record)))
            record = replace(
                record,
                sequence=draw(st.sampled_from(["0000", "0013", "über"])),
                frame=i,
                tracks=np.array([-1 if a else t for a, t in zip(lone, tracks, strict=True)], np.int64),
            )
            made.append(_ignored(record, count) if draw(st.booleans()) else record)
        splits[split] = FileSource.from_records(made, drawn.taxonomy)
    return replace(drawn, splits=splits)


def _ignored(record: Record, count: int) -> Record:
    """With the pixels of no object as a crowd of every class."""
    taken = np.zeros(record.size, int)
    for shape in record.shapes:
        assert isinstance(shape, dict)
        taken += rle.decode(*rle.from_coco([shape], record.size), record.size)[0]
    if taken.all():
        return record
    return replace(
        record,
        labels=np.append(record.labels, np.arange(count)),
        shapes=(*record.shapes, *([runs(taken == 0)] * count)),
        boxes=np.concatenate([record.boxes, np.tile(np.array([[0, 0, 1, 1]], np.float32), (count, 1))]),
        crowd=np.append(record.crowd, np.ones(count, bool)),
        ids=np.append(record.ids, np.arange(count) + 1000 * record.image_id),
        areas=np.append(record.areas, np.ones(count)),
        tracks=np.append(record.tracks, np.full(count, -1)),  # pyright: ignore
    )


@settings(max_examples=30, deadline=None)
@given(clips())
def test_there_and_back(dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mots.write(root, dataset)
        for key, record in records(dataset).items():
            photo(mots.picture(root, key.partition("/")[0], record), record.size)
        made = mots.read(root)
        assert mots.recognizes(root)
        again = {(k.partition("/")[0], r.sequence, r.frame): r for k, r in records(made).items()}
    assert made.taxonomy.names == dataset.taxonomy.names
    assert set(made.splits) == set(dataset.splits)
    assert len(again) == len(dataset)
    new: dict[tuple, int] = {}
    old: dict[tuple, int] = {}
    for key, record in records(dataset).items():
        split = key.partition("/")[0]
        found = again[split, record.sequence, record.frame]
        assert sorted(objects(record, dataset)) == sorted(objects(found, made))
        if record.tracks is None or found.tracks is None:
            assert len(record) == len(found) == 0  # no track is kept where there is no object in the whole split
            continue
        masks = dict(zip(objects(found, made), found.tracks.tolist(), strict=True))
        for thing, track, label in zip(objects(record, dataset), record.tracks.tolist(), record.labels, strict=True):
            if thing[1]:
                assert masks[thing] == -1
                continue
            assert masks[thing] // 1000 == label + 1
            if track >= 0:  # the same track keeps one number, which is another one's nowhere
                assert new.setdefault((split, record.sequence, label, track), masks[thing]) == masks[thing]
            back = (split, record.sequence, masks[thing])
            assert old.setdefault(back, track if track >= 0 else -2 - len(old)) == track or track < 0
            if track // 1000 == label + 1:
                assert masks[thing] == track


def test_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_mots(tmp_path / "in")
    made = mots.read(tmp_path / "in")
    record = made.splits["train"].record(0)
    out = tmp_path / "out"

    def of(*found: Record, names: tuple[str, ...] = ("car", "pedestrian")) -> Dataset:
        taxonomy = Taxonomy(names=names)
        return replace(made, taxonomy=taxonomy, splits={"train": FileSource.from_records(found, taxonomy)})

    with pytest.raises(InputError, match="1 crowd regions that are not there for every class"):
        mots.write(out, of(record, names=("car", "pedestrian", "bus")))
    with pytest.raises(InputError, match=r"2 objects that overlap others .*: 0002"):
        mots.write(out, of(replace(record, shapes=(record.shapes[1],) * 3)))
    with pytest.raises(InputError, match="1 pictures without a frame of their own"):
        mots.write(out, of(record, replace(record, key="b.png")))
    double = replace(record, crowd=np.zeros(3, bool), tracks=np.array([2005, 7, 2005]), labels=np.array([1, 0, 1]))
    with pytest.raises(InputError, match="1 objects of a track that is there already"):
        mots.write(out, of(double), overlap="cover")
    with pytest.raises(InputError, match="1 to 9 classes"):
        mots.write(out, of(record, names=tuple("abcdefghijk")))
    many = [replace(record, key=str(i), frame=i, shapes=record.shapes, tracks=np.array([-1] * 3)) for i in range(1001)]
    with pytest.raises(InputError, match="1 sequences with more than 1000 tracks of a class: train/0002"):
        mots.write(out, of(*many))
    assert not out.exists()
