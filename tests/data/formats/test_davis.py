"""DAVIS: clips of the samples, palettes, lists of splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats import davis
from maskwright.errors import InputError
from tests.data.formats.pixels import counted, photo, records, save
from tests.data.formats.small_sets import TWO, make_davis
from tests.shared import shared


def test_the_samples() -> None:
    """Two clips of 2016: one object in every frame, as many pixels as are not 0."""
    root = shared("data/video/davis")
    made = davis.read(root)
    (source,) = made.splits.values()
    found = [source.record(i) for i in range(len(source))]
    clips = {clip: [r for r in found if r.sequence == clip] for clip in ("blackswan", "car-shadow")}
    for clip, frames in clips.items():
        files = sorted((root / "Annotations" / clip).glob("*.png"))
        assert [r.frame for r in frames] == [int(file.stem) for file in files]
        for record, file in list(zip(frames, files, strict=True))[::10]:
            assert record.areas.tolist() == [np.count_nonzero(np.asarray(Image.open(file)))]
            assert record.tracks is not None
            assert record.tracks.tolist() == [1]
    assert len(found) == sum(map(len, clips.values())) == len(list((root / "Annotations").glob("*/*.png")))
    assert all(len(record) == 1 for record in found)


def test_palettes_and_void(tmp_path: Path) -> None:
    path = make_davis(tmp_path)
    picture = Image.fromarray(np.where(TWO == 0, 255, np.where(TWO == 2, 0, 5)).astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 236, 95, 103, *[9] * (3 * 254)])
    picture.putdata(list(np.where(TWO == 0, 255, np.where(TWO == 2, 0, 5)).reshape(-1)))
    picture.save(path)
    made = davis.read(tmp_path)
    assert made.taxonomy.colors == ((236, 95, 103),)
    (found,) = records(made).values()
    assert found.tracks is not None
    assert (found.tracks.tolist(), found.areas.tolist()) == ([5], [(TWO == 1).sum()])


def clip(root: Path, name: str, frames: int, labeled: int) -> None:
    for frame in range(frames):
        photo(root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg")
        if frame < labeled:
            save(root / "Annotations" / "480p" / name / f"{frame:05d}.png", TWO)


def test_lists_of_two_years(tmp_path: Path) -> None:
    make_davis(tmp_path)
    clip(tmp_path, "dog", 2, 2)
    clip(tmp_path, "cat", 2, 1)
    sets = tmp_path / "ImageSets"
    (sets / "2017" / "val.txt").write_text("dog\n")
    (sets / "2017" / "test-dev.txt").write_text("cat\n")
    (sets / "2016").mkdir()
    (sets / "2016" / "train.txt").write_text("/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n")
    (sets / "2016" / "trainval.txt").write_text("/JPEGImages/480p/bear/00000.jpg x\n/JPEGImages/480p/dog/00000.jpg x\n")
    assert counted(davis.read(tmp_path)) == {
        "train/bear/00000.jpg": {"object": 2},
        "val/dog/00000.jpg": {"object": 2},
        "val/dog/00001.jpg": {"object": 2},
        "test-dev/cat/00000.jpg": {"object": 2},
        "test-dev/cat/00001.jpg": {},
    }
    (sets / "2017" / "val.txt").write_text("dog\nwolf\n")
    with pytest.raises(InputError, match="1 with a clip that is listed but not there: val: wolf"):
        davis.read(tmp_path)
    (sets / "2017" / "val.txt").write_text("../../etc\n")
    with pytest.raises(InputError, match="inside its folder"):
        davis.read(tmp_path)
