"""Tar shards: everything comes back, in webdataset's layout, read mostly in order."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.augment.transforms import ToSize
from maskwright.data.label_maps import resolve
from maskwright.data.loader import Loader, make_loader
from maskwright.data.order import Stream
from maskwright.data.rare_classes import repeat_factors
from maskwright.data.samplers import Shuffled
from maskwright.data.shard_writer import write_shards
from maskwright.data.shards import ShardSource
from maskwright.data.source import FileSource, MixedSource, Subset
from maskwright.structures import LabelMap, Record, Region, Taxonomy
from tests.data.make import ANIMALS, assert_same, record, records, runs

SQUARE = np.array([[0.25, 0], [4, 0], [4, 4.5]], np.float64)


def pictures(folder: Path, count: int, *, size: tuple[int, int] = (5, 9)) -> FileSource:
    made = []
    for i in range(count):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((*size, 3), i, np.uint8)).save(path)
        made.append(
            record(size, [(SQUARE,)], labels=[i % 3], key=f"sub/{i}.png", path=path, image_id=i * 5, first_id=i)
        )
    return FileSource.from_records(made, ANIMALS)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 5).flatmap(records), st.integers(1, 3))
    def check(made: list[Record], each: int) -> None:
        folder = Path(*tmp_path.parts, str(len(list(tmp_path.iterdir()))))
        folder.mkdir()
        for one in made:
            Image.fromarray(np.full((*one.size, 3), one.image_id, np.uint8)).save(folder / one.key)
        data = FileSource.from_records([_at(one, folder / one.key) for one in made], ANIMALS)
        paths = write_shards(data, folder / "shards", samples_per_shard=each, name="val")
        assert [p.name for p in paths] == [f"val-{k:06d}.tar" for k in range(-(-len(made) // each))]
        for again in (ShardSource(folder / "shards"), _scanned(folder / "shards")):
            assert len(again) == len(made)
            assert again.taxonomy == ANIMALS
            for i, one in enumerate(made):
                got, image = again.load(i)
                assert_same(got, one)
                assert_same(again.record(i - len(made)), one)
                assert torch.equal(image, data.load(i)[1])
            with pytest.raises(IndexError):
                again.record(len(made))

    check()


def _at(one: Record, path: Path, **more: Any) -> Record:
    return Record(**{**{n: getattr(one, n) for n in one.__dataclass_fields__}, "path": path, **more})


def _scanned(folder: Path) -> ShardSource:
    (folder / "index.json").unlink()
    return ShardSource(folder, taxonomy=ANIMALS)


@pytest.mark.parametrize("classes", [3, 300])
def test_maps_tracks_and_frames_come_back(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    taxonomy = Taxonomy(names=tuple(f"class {i}" for i in range(classes)), thing=(False,) + (True,) * (classes - 1))
    ids = np.array([7, 1 << 40, 3], np.int64)
    panoptic = rng.choice(np.array([0, *ids]), (6, 8))
    Image.fromarray(rng.integers(0, 3, (6, 8), np.uint8)).save(tmp_path / "map.png")
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    base = record((6, 8), [runs(panoptic == i) for i in ids], key="a.png", path=tmp_path / "a.png", labels=[0, 1, 2])
    base = _at(
        base, base.path, ids=ids, panoptic=panoptic, semantic=LabelMap(path=tmp_path / "map.png", classes={2: 1})
    )
    tracked = _at(base, base.path, tracks=np.array([4, -1, 2]), sequence="clip", frame=0, key="b", panoptic=None)
    region = Region(tmp_path / "map.png", value=1)
    cut = _at(tracked, base.path, shapes=(region, None, ()), key="c", semantic=rng.integers(-1, classes, (6, 8)))
    cut = _at(cut, base.path, semantic=np.asarray(cut.semantic).astype(np.int16))
    bare = _at(record((6, 8), [], key="d"), base.path, tracks=np.zeros(0, np.int64))
    made = [base, tracked, cut, bare]

    class Source:
        def __init__(self) -> None:
            self.taxonomy = taxonomy

        def __len__(self) -> int:
            return len(made)

        def record(self, index: int) -> Record:
            return made[index]

        def load(self, index: int) -> tuple[Record, torch.Tensor]:
            raise AssertionError("the files are copied, not decoded")

    write_shards(Source(), tmp_path / "out")
    again = ShardSource(tmp_path / "out")
    assert again.taxonomy == taxonomy
    for i, one in enumerate(map(resolve, made)):
        got = again.record(i)
        assert_same(got, one)
        assert (got.sequence, got.frame) == (one.sequence, one.frame)
        for name in ("tracks", "semantic", "panoptic"):
            a, b = getattr(got, name), getattr(one, name)
            assert (a is None) == (b is None), name
            assert a is None or (np.array_equal(a, b) and a.dtype == b.dtype), name


def test_members_lie_as_webdataset_has_them(tmp_path: Path) -> None:
    write_shards(pictures(tmp_path, 3), tmp_path / "a")
    (path,) = write_shards(pictures(tmp_path, 3), tmp_path / "b")
    assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert names == [f"{i:09d}.{ending}" for i in range(3) for ending in ("png", "json")]
        member = archive.extractfile(names[0])
        assert member is not None
        assert member.read() == (tmp_path / "0.png").read_bytes()
        text = archive.extractfile(names[3])
        assert text is not None
        assert json.loads(text.read()) == {
            "key": "sub/1.png",
            "image_id": 5,
            "height": 5,
            "width": 9,
            "objects": [
                {
                    "id": 1,
                    "class": "dog",
                    "box": [0.25, 0.0, 4.0, 4.5],
                    "area": 3.75 * 4.5,
                    "crowd": False,
                    "polygons": [[0.25, 0.0, 4.0, 0.0, 4.0, 4.5]],
                }
            ],
        }
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    assert index["shards"] == [{"name": "train-000000.tar", "samples": 3, "bytes": path.stat().st_size}]


def test_archives_of_others_are_read(tmp_path: Path) -> None:
    """Pax headers (a time with fractions), long names, folders, no index, classes found by reading."""
    write_shards(pictures(tmp_path, 4), tmp_path / "ours")
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        folder = tmp_path / str(form)
        folder.mkdir()
        with (
            tarfile.open(tmp_path / "ours/train-000000.tar") as old,
            tarfile.open(folder / "x.tar", "w", format=form, pax_headers={"comment": "ours"}) as new,
        ):
            new.addfile(tarfile.TarInfo("__index__"))
            for member in old:
                stem, ending = member.name.split(".")
                top = tarfile.TarInfo(f"{'long' * 40}{stem}")
                top.type = tarfile.DIRTYPE
                new.addfile(top)
                member.name, member.mtime = f"{'long' * 40}{stem}/x.{ending}", 1.5
                new.addfile(member, old.extractfile(member))
        again = ShardSource(folder)
        assert again.taxonomy.names == ("cat", "dog", "owl")
        assert [again.record(i).key for i in range(4)] == [f"sub/{i}.png" for i in range(4)]
        assert int(again.load(3)[1].max()) == 3
        again.write_index()
        assert (folder / "index.json").exists()
        assert ShardSource(folder).taxonomy == again.taxonomy


def test_drawn_pictures_become_png(tmp_path: Path) -> None:
    from maskwright.data.synthetic.discs import Discs

    drawn = Discs(3, seed=1)
    write_shards(drawn, tmp_path)
    again = ShardSource(tmp_path)
    for i in range(3):
        want, image = drawn.load(i)
        got, pixels = again.load(i)
        assert torch.equal(pixels, image)
        assert_same(got, resolve(want))


def loader(source: Any, batch: int = 4, workers: int = 0, **more: Any) -> Loader:
    return make_loader(source, ToSize(), Shuffled(source, batch, seed=3, **more), workers=workers, prefetch=2)


def keys(batches: Loader, count: int) -> list[tuple[str, ...]]:
    return [batch.keys for batch in islice(batches, count)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_shards(pictures(folder, 60), folder / "shards", samples_per_shard=7)
    return folder / "shards"


def test_every_image_once_the_same_for_any_number_of_workers_resumed(shards: Path) -> None:
    source = ShardSource(shards)
    stream = Stream(open=2, window=5)
    want = keys(loader(source, stream=stream), 30)
    for half in (want[:15], want[15:]):
        assert sorted(key for batch in half for key in batch) == sorted(f"sub/{i}.png" for i in range(60))
    assert want[:15] != want[15:]
    assert keys(loader(ShardSource(shards), workers=2, stream=stream), 30) == want
    first = loader(source, workers=1, stream=stream)
    assert keys(first, 11) == want[:11]
    state = json.loads(json.dumps(first.state_dict()))
    again = loader(ShardSource(shards), stream=stream)
    again.load_state_dict(state)
    assert keys(again, 19) == want[11:]
    ranks = [keys(loader(ShardSource(shards), 2, stream=stream, rank=r, world=2), 15) for r in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == want[:15]


def test_shards_are_read_from_their_beginning_to_their_end(shards: Path) -> None:
    source = ShardSource(shards)
    assert source.mix.blocks is not None
    order = Shuffled(source, 5, stream=Stream(open=2, window=4))
    drawn = [d.index for batch in islice(order, 12) for d in batch]
    blocks = source.mix.blocks[drawn]
    for block in range(9):
        mine = np.array(drawn)[blocks == block]
        assert np.abs(np.argsort(np.argsort(mine)) - np.arange(len(mine))).max() < 4
    live = [len(set(blocks[:k]) & set(blocks[k:])) for k in range(1, 60)]
    assert max(live) <= 4  # two at a time; two more where one pair follows another
    assert len(source._offsets) == 0  # nothing was read for the order


def test_shards_go_with_weights_mixes_and_views(shards: Path, tmp_path: Path) -> None:
    source = ShardSource(shards)
    weights = np.ones(60)
    weights[13] = 5.5
    seen = Counter(d.index for batch in islice(Shuffled(source, 4, weights=weights), 16 * 20) for d in batch)
    assert seen[13] == pytest.approx(110, abs=10)
    assert repeat_factors(source, 0.9) == pytest.approx(np.full(60, (0.9 * 3) ** 0.5))
    mixed = MixedSource([pictures(tmp_path, 20), source, Subset(source, [59, 0, 30])], [1, 2, 1])
    found = mixed.mix
    assert found.blocks is not None
    assert found.blocks[[0, 20, 79, 80, 81, 82]].tolist() == [-1, 0, 8, 17, 9, 13]
    got = Counter(d.index for batch in islice(Shuffled(mixed, 8), 30) for d in batch)
    assert [sum(got[i] for i in r) for r in (range(20), range(20, 80), range(80, 83))] == [60, 120, 60]
    grouped = Shuffled(source, 4, group=True)
    assert len({d.index for batch in islice(grouped, 15) for d in batch}) == 60
