"""FlyingThings3D: objects numbered in float maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.data.formats import flying_things
from maskwright.errors import InputError
from tests.data.formats.pixels import SIZE, counted, photo, records, save
from tests.data.formats.small_sets import TWO, make_flying_things, pfm


def test_tracks_splits_and_frames(tmp_path: Path) -> None:
    make_flying_things(tmp_path)
    for frame in (7, 8):
        photo(tmp_path / "frames_cleanpass" / "TEST" / "B" / "0001" / "right" / f"{frame:04d}.webp")
        pfm(tmp_path / "object_index" / "TEST" / "B" / "0001" / "right" / f"{frame:04d}.pfm", TWO * frame, order=">")
    made = flying_things.read(tmp_path)
    assert counted(made) == {
        "train/TRAIN/A/0000/left/0006.png": {"object": 2},
        "test/TEST/B/0001/right/0007.webp": {"object": 2},
        "test/TEST/B/0001/right/0008.webp": {"object": 2},
    }
    found = records(made)["test/TEST/B/0001/right/0008.webp"]
    assert (found.sequence, found.frame) == ("TEST/B/0001/right", 8)
    assert found.tracks is not None
    assert found.tracks.tolist() == [8, 16]
    assert found.areas.tolist() == [(TWO == 1).sum(), (TWO == 2).sum()]


def test_rows_run_from_the_bottom_up(tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4)
    for order in "<>":
        assert np.array_equal(flying_things.read_indices(pfm(tmp_path / "a.pfm", values, order=order)), values)


def test_pngs_and_the_final_pass_serve_too(tmp_path: Path) -> None:
    photo(tmp_path / "frames_finalpass" / "0000" / "left" / "0001.png")
    save(tmp_path / "object_index" / "0000" / "left" / "0001.png", TWO * 300, np.uint16)
    assert flying_things.recognizes(tmp_path)
    assert counted(flying_things.read(tmp_path)) == {"all/0000/left/0001.png": {"object": 2}}


BROKEN = {
    "three channels": b"PF\n8 6\n-1.0\n" + bytes(4 * 48 * 3),
    "no size": b"Pf\n8\n-1.0\n" + bytes(4 * 48),
    "words": b"Pf\na b\n-1.0\n",
    "no scale": b"Pf\n8 6\n0\n" + bytes(4 * 48),
    "not a scale": b"Pf\n8 6\nnan\n" + bytes(4 * 48),
    "a billion pixels": b"Pf\n40000 40000\n-1.0\n",
    "negative": b"Pf\n-8 -6\n-1.0\n" + bytes(4 * 48),
    "too short": b"Pf\n8 6\n-1.0\n" + bytes(4 * 47),
    "nothing": b"",
    "fractions": b"Pf\n8 6\n-1.0\n" + np.full(48, 0.5, "<f4").tobytes(),
    "not finite": b"Pf\n8 6\n-1.0\n" + np.full(48, np.nan, "<f4").tobytes(),
    "huge": b"Pf\n8 6\n-1.0\n" + np.full(48, 1e20, "<f4").tobytes(),
    "long lines": b"Pf\n" + b"8" * 10**6,
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_float_maps(tmp_path: Path, kind: str) -> None:
    make_flying_things(tmp_path).write_bytes(BROKEN[kind])
    with pytest.raises(InputError, match=r"0006\.pfm"):
        flying_things.read(tmp_path)


def test_another_size(tmp_path: Path) -> None:
    pfm(make_flying_things(tmp_path), np.zeros((2, 3)))
    with pytest.raises(InputError, match=f"{SIZE[0]}x{SIZE[1]} .* got 2x3"):
        flying_things.read(tmp_path)
    (tmp_path / "object_index").rename(tmp_path / "x")
    with pytest.raises(InputError, match="must hold object_index"):
        flying_things.read(tmp_path)
