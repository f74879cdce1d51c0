"""Hostile shards: what is wrong is named, with the archive and the member."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.shard_writer import write_shards
from maskwright.data.shards import ShardSource
from maskwright.data.source import Subset
from maskwright.errors import InputError
from tests.data.make import ANIMALS
from tests.data.test_shards import pictures


def rewritten(path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    """Change the members of a shard and forget the index."""
    with tarfile.open(path) as archive:
        found = []
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None
            found.append((member, data.read()))
    change(found)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in found:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    (path.parent / "index.json").unlink(missing_ok=True)


def _rename(name: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(found: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        found[2][0].name = name

    return change


def _link(found: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    found[2][0].type, found[2][0].linkname = tarfile.SYMTYPE, "/etc/passwd"


def _annotated(text: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(found: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        found[3] = (found[3][0], text)

    return change


def _with(**fields: Any) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(found: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        data = json.loads(found[3][1])
        for name, value in fields.items():
            holder = data["objects"][0] if name in ("box", "polygons", "counts", "class", "id", "area") else data
            holder[name] = value
        found[3] = (found[3][0], json.dumps(data).encode())

    return change


_BOMB = io.BytesIO()
Image.new("1", (20000, 20000)).save(_BOMB, "png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename("../1.png"), r"inside the archive, got '\.\./1\.png'"),
        (_rename("/1.png"), "inside the archive"),
        (_rename("a/../../1.png"), "inside the archive"),
        (_link, "'000000001.png' must be a plain file"),
        (_rename("000000000.png"), "000000000.png does not|there twice"),
        (lambda found: found.pop(3), r"sample 000000001 has no annotation \(000000001.json\)"),
        (lambda found: found.pop(2), "sample 000000001 must have one picture, it has no picture"),
        (lambda found: found.insert(0, found.pop(2)), "members of 000000001 must lie side by side"),
        (_annotated(b"{"), r"000000001\.json is not JSON"),
        (_annotated(b"[" * 100_000), r"000000001\.json is not JSON"),
        (_annotated(b"[]"), r"000000001\.json must hold an object"),
        (_annotated(b"{}"), r"000000001\.json: height must be a whole number"),
        (_with(height=-1), "must be those of a picture"),
        (_with(height=10**9, width=10**9), "must be those of a picture"),
        (_with(height=6), "must have 6x9 pixels"),
        (_with(key=3), "key must be a text"),
        (_with(objects=[3]), "objects must be a list of objects"),
        (_with(box=[1, 2, 3]), "box must be finite numbers"),
        (_with(box=[1, 2, None, 4]), "box must be finite"),
        (_with(box="abcd"), "box must be finite"),
        (_with(area=None), "area must be finite"),
        (_with(id=1 << 70), "id must be a whole number|not JSON"),
        (_with(**{"class": "cow"}), "no class 'cow'"),
        (_with(polygons=[[1, 2, 3, 4]]), "three points or more"),
        (_with(polygons=[[1, 2, 3, 4, 5, 1e9]]), "far outside"),
        (_with(polygons=[[1, 2, [3], 4, 5, 6]]), "polygons must be finite"),
        (_with(polygons="x"), "list of lists"),
        (_with(counts="52203"), "run-lengths"),
        (_with(counts=5), "counts must be"),
        (_with(tracks=[1, 2]), "tracks must be one for each"),
        (_with(frame="x"), "frame must be a whole number"),
        (lambda found: found.__setitem__(2, (found[2][0], b"none")), r"000000001\.png"),
        (lambda found: found.__setitem__(2, (found[2][0], _BOMB.getvalue())), r"000000001\.png"),
        (lambda found: found.__setitem__(2, (found[2][0], found[2][1][:40])), r"000000001\.png"),
    ],
)
def test_hostile_members_are_named(tmp_path: Path, change: Any, words: str) -> None:
    (path,) = write_shards(pictures(tmp_path, 3), tmp_path / "out")
    rewritten(path, change)
    with pytest.raises(InputError, match=f"(?s)train-000000.tar.*({words})"):
        _read_all(tmp_path / "out")


def _read_all(folder: Path) -> None:
    source = ShardSource(folder, taxonomy=ANIMALS)
    for i in range(len(source)):
        source.load(i)


@pytest.mark.parametrize("keep", [0, 1, 511, 513, 600, 1500, 3000, 4096])
def test_cut_archives_are_named(tmp_path: Path, keep: int) -> None:
    (path,) = write_shards(pictures(tmp_path, 3), tmp_path / "out")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"train-000000\.tar has .* bytes, its index says"):
        ShardSource(tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        _read_all(tmp_path / "out")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_do_more_than_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        folder.mkdir()
        write_shards(pictures(folder, 2), folder / "out")
        (folder / "out/index.json").unlink()
        (folder / "out/train-000000.tar").rename(folder / "whole")
    raw = bytearray((folder / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw), 5000) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    (folder / "out/train-000000.tar").write_bytes(raw)
    with suppress(InputError):
        _read_all(folder / "out")


@pytest.mark.parametrize("size", [10**10, 8**11 - 1, 1 << 62])
def test_huge_declared_sizes_are_named(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("1.png")
    member.size = size
    raw = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(raw)
    with pytest.raises(InputError, match=f"a.tar: '1.png' has {size} bytes by its header"):
        ShardSource(tmp_path)
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.XHDTYPE, 1 << 20
    (tmp_path / "a.tar").write_bytes(long.tobuf() + bytes((1 << 20) + 1024))
    with pytest.raises(InputError, match="declares a name of"):
        ShardSource(tmp_path)


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tar shards"):
        ShardSource(tmp_path)
    with pytest.raises(InputError, match="must be a directory"):
        ShardSource(tmp_path / "none")
    data = pictures(tmp_path, 5)
    out = tmp_path / "out"
    write_shards(data, out, samples_per_shard=2)
    with pytest.raises(InputError, match="has shards already"):
        write_shards(data, out)
    with pytest.raises(InputError, match="need images"):
        write_shards(Subset(data, []), tmp_path / "new")
    whole = json.loads((out / "index.json").read_text())
    for change, words in (
        ({"shards": [{"name": "../x.tar", "samples": 1, "bytes": 3}]}, "must have a name"),
        ({"shards": [{"name": "x.tar", "samples": 1, "bytes": 3}]}, "x.tar is not in"),
        ({"shards": []}, "names no shards"),
        ({"version": 2}, "not an index"),
        ({"classes": {"names": 3}}, "classes cannot be read"),
        ({"shards": [{**whole["shards"][0], "samples": 3}]}, "2 samples, its index says 3"),
        ({"shards": [{**whole["shards"][0], "samples": -3}]}, "a count of samples"),
    ):
        (out / "index.json").write_text(json.dumps({**whole, **change}))
        with pytest.raises(InputError, match=words):
            ShardSource(out).record(0)
