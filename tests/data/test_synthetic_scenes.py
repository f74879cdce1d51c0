"""Drawn scenes: labels that agree with each other, clips whose points are where the flow says, seeds that hold."""

from __future__ import annotations

import pickle
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from maskwright.data.source import Loads
from maskwright.data.synthetic.drawn import Drawn, Kind, Knobs
from maskwright.data.synthetic.scenes import KINDS, Synthetic, kind_of
from maskwright.errors import InputError
from maskwright.ops import rle

MINE = ("street", "shelf", "orchard")
SIZE = (120, 160)


@cache
def clip(kind: str) -> Synthetic:
    return Synthetic(kind, 2, SIZE, seed=5, frames=3, instances=False, knobs=Knobs(noise=(0, 0)))


def masks(runs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return rle.decode(*runs, SIZE).astype(bool)


@pytest.mark.parametrize("kind", MINE)
def test_labels_agree(kind: str) -> None:
    source = clip(kind)
    thing = np.array(source.taxonomy.thing)
    for index in range(len(source)):
        drawn = source.drawn(index)
        assert drawn.image.shape == (3, *SIZE)
        assert drawn.image.dtype == np.uint8
        assert drawn.image.std() > 15
        seen, whole = masks(drawn.visible), masks(drawn.amodal)
        assert len(seen) == len(whole) == len(drawn.labels) == len(drawn.tracks) == len(drawn.occluded)
        assert len(set(drawn.tracks.tolist())) == len(drawn)
        assert drawn.tracks.min() >= 1
        assert seen.sum(0).max() == 1, "no two segments are seen at one pixel"
        assert not (seen & ~whole).any(), "what is seen is part of the whole"
        for i in range(len(drawn)):
            assert (seen[i] == (drawn.panoptic == drawn.tracks[i])).all()
            assert (drawn.semantic[seen[i]] == drawn.labels[i]).all()
        assert ((drawn.panoptic == 0) == (drawn.semantic == -1)).all()
        assert (drawn.panoptic > 0).all(), "these scenes fill the picture"
        share = 1 - seen.sum((1, 2)) / whole.sum((1, 2))
        assert np.allclose(drawn.occluded, share, atol=1e-6)
        stuff = drawn.labels[~thing[drawn.labels]]
        assert len(set(stuff.tolist())) == len(stuff), "one segment for each class of stuff"
        assert thing[drawn.labels].sum() >= 3
        assert (drawn.depth > 0).all()
        endless = np.isinf(drawn.depth)
        names = [source.taxonomy.names[k] for k in set(drawn.semantic[endless].tolist())]
        assert set(names) <= {"sky"}


def landing(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that stay in the picture, and where they land."""
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    to_x, to_y = xs + 0.5 + flow[0], ys + 0.5 + flow[1]
    kept = np.isfinite(to_x) & (to_x >= 0) & (to_x < SIZE[1]) & (to_y >= 0) & (to_y < SIZE[0])
    return kept, np.floor(to_y[kept]).astype(int), np.floor(to_x[kept]).astype(int)


def widened(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    out = np.zeros_like(mask)
    for dy in range(3):
        for dx in range(3):
            out |= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return out


@pytest.mark.parametrize("kind", MINE)
def test_points_stay_on_their_object(kind: str) -> None:
    source = clip(kind)
    for start in range(source.count):
        frames = [source.drawn(3 * start + k) for k in range(3)]
        assert frames[-1].flow is None
        for now, then in pairwise(frames):
            assert now.flow is not None
            kept, ys, xs = landing(now.flow)
            assert kept.mean() > 0.6
            track = now.panoptic[kept]
            visible = then.panoptic[ys, xs] == track
            assert visible.mean() > 0.8, "most points are seen again"
            whole = dict(zip(then.tracks.tolist(), masks(then.amodal), strict=True))
            right, count = 0, 0
            for number in np.unique(track).tolist():
                if number in whole:  # else it has left the picture or is hidden altogether
                    mine = track == number
                    on = widened(whole[number])[ys[mine], xs[mine]]
                    # A pole thinner than a pixel comes and goes, so small segments are judged together.
                    assert len(on) < 50 or on.mean() > 0.98, (number, on.mean(), len(on))
                    right, count = right + int(on.sum()), count + len(on)
            assert right > 0.997 * count


@pytest.mark.parametrize("kind", MINE)
def test_colors_move_with_the_flow(kind: str) -> None:
    source = clip(kind)
    moved, still = [], []
    for start in range(source.count):
        now, then = source.drawn(3 * start), source.drawn(3 * start + 1)
        assert now.flow is not None
        kept, ys, xs = landing(now.flow)
        same = then.panoptic[ys, xs] == now.panoptic[kept]
        here, there = now.image[:, kept].astype(float), then.image.astype(float)
        moved.append(np.abs(here - there[:, ys, xs])[:, same].mean())
        still.append(np.abs(here - there[:, kept])[:, same].mean())
    assert np.mean(moved) < 0.7 * np.mean(still), (moved, still)


@pytest.mark.parametrize("kind", MINE)
def test_a_picture_depends_on_seed_and_index_only(kind: str) -> None:
    few, many = Synthetic(kind, 3, (64, 96), seed=2), Synthetic(kind, 90, (64, 96), seed=2)
    first, pixels = few.load(2)
    many.load(40)
    again, same = many.load(2)
    assert torch.equal(pixels, same)
    assert first.shapes == again.shapes
    assert first.labels.tolist() == again.labels.tolist()
    assert not torch.equal(pixels, few.load(1)[1])
    assert not torch.equal(pixels, Synthetic(kind, 3, (64, 96), seed=3).load(2)[1])


@pytest.mark.parametrize("kind", MINE)
def test_records_say_what_is_drawn(kind: str) -> None:
    whole, things = Synthetic(kind, 2, SIZE, 7, instances=False), Synthetic(kind, 2, SIZE, 7, least=20)
    assert isinstance(things, Loads)
    assert isinstance(things.kind, Kind)
    assert all(things.taxonomy.thing)
    full, record, drawn = whole.record(1), things.record(1), whole.drawn(1)
    assert full.ids.tolist() == drawn.tracks.tolist()
    assert np.array_equal(full.panoptic, drawn.panoptic)  # type: ignore[arg-type]
    assert np.array_equal(full.semantic, drawn.semantic)  # type: ignore[arg-type]
    assert record.panoptic is None
    areas = rle.area(*drawn.visible)
    is_thing = np.array(whole.taxonomy.thing)[drawn.labels]
    assert record.areas.tolist() == areas[is_thing & (areas >= 20)].tolist()
    names = [things.taxonomy.names[k] for k in record.labels]
    assert names == [whole.taxonomy.names[k] for k in drawn.labels[is_thing & (areas >= 20)]]
    sample = things[1]
    assert sample.scene is not None
    assert sample.scene.size == SIZE
    assert set(record.ids.tolist()).isdisjoint(things.record(0).ids.tolist())


def test_clips_are_sequences() -> None:
    source = Synthetic("orchard", 2, (64, 64), 1, frames=2)
    assert len(source) == 4
    records = [source.record(k) for k in range(4)]
    assert [r.frame for r in records] == [0, 1, 0, 1]
    assert records[0].sequence == records[1].sequence != records[2].sequence
    assert len({r.key for r in records}) == len({r.image_id for r in records}) == 4
    tracks = [set(r.tracks.tolist()) for r in records if r.tracks is not None]
    assert len(tracks[0] & tracks[1]) > 0.5 * len(tracks[0])
    assert source.sizes.tolist() == [[64, 64]] * 4
    copied = pickle.loads(pickle.dumps(source))
    assert torch.equal(copied.load(3)[1], source.load(3)[1])


def test_your_own_kind() -> None:
    class Blank:
        taxonomy = kind_of("shelf").taxonomy

        def draw(self, rng: np.random.Generator, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
            none = np.zeros(0, np.int64)
            runs = (np.zeros(0, np.int32), np.zeros(1, np.int64))
            picture = Drawn(
                image=rng.integers(0, 255, (3, *size), dtype=np.uint8),
                labels=none,
                visible=runs,
                amodal=runs,
                tracks=none,
                semantic=np.full(size, -1, np.int16),
                panoptic=np.zeros(size, np.int64),
                depth=np.ones(size, np.float32),
                occluded=np.zeros(0, np.float32),
            )
            return [picture] * frames

    record, image = Synthetic(Blank(), 1, (40, 40)).load(0)
    assert len(record) == 0
    assert image.shape == (3, 40, 40)
    assert record.key == "blank-0-000000"


def test_refusals() -> None:
    assert set(MINE) < set(KINDS)
    with pytest.raises(InputError, match="no kind of scene 'stret'; there are: street"):
        Synthetic("stret", 1)
    for bad in ({"count": -1}, {"size": (8, 640)}, {"frames": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="drawing needs"):
            Synthetic("shelf", **{"count": 1, **bad})  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        Synthetic("shelf", 2, (64, 64)).load(2)
