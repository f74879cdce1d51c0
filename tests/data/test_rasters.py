"""Pictures read by windows: TIFF of many kinds against what is read whole; bombs, broken files, and places on Earth."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from maskwright.data.georeference import Georeference, read_georeference
from maskwright.data.io import read_image
from maskwright.data.rasters import InMemory, open_raster, overview
from maskwright.data.tiff import TiffWindows
from maskwright.errors import InputError

WINDOWS = [(0, 0, 1, 1), (0, 0, 61, 93), (7, 11, 20, 30), (60, 92, 1, 1), (15, 0, 33, 93), (0, 70, 61, 23)]


def noise(shape: tuple[int, ...], dtype: Any = np.uint8, high: int = 256) -> np.ndarray:
    """Smooth enough to compress, rough enough to tell places apart."""
    rng = np.random.default_rng(0)
    base = np.add.outer(np.arange(shape[0]), 2 * np.arange(shape[1])) % high
    base = base[..., None] + np.arange(shape[2]) * 17 if len(shape) == 3 else base
    return ((base + rng.integers(0, 3, shape)) % high).astype(dtype)


def tags_written(path: Path, tags: dict[int, tuple[int, Any]], parts: list[bytes], big: bool = False) -> Path:
    """A TIFF by hand: tag -> (type, values); the segments' offsets are put into tag 273 or 324 as they fall."""
    where = 324 if 325 in tags else 273
    offsets, at = [], 16
    for part in parts:
        offsets.append(at)
        at += len(part)
    tags = {**tags, where: (16 if big else 4, offsets)}
    forms = {2: "s", 3: "H", 4: "I", 7: "s", 12: "d", 16: "Q"}
    rows, extra, after = b"", b"", at + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    for tag in sorted(tags):
        kind, values = tags[tag]
        many = values if isinstance(values, (list, tuple, bytes)) else [values]
        form = f"<{len(many)}s" if isinstance(many, bytes) else f"<{len(many)}{forms[kind]}"
        data = struct.pack(form, many) if isinstance(many, bytes) else struct.pack(form, *many)
        room = 8 if big else 4
        if len(data) > room:
            place = struct.pack("<Q" if big else "<I", after + len(extra))
            extra += data
            data = place
        rows += struct.pack("<HHQ" if big else "<HHI", tag, kind, len(many)) + data.ljust(room, b"\0")
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", at) if big else b"II*\0" + struct.pack("<I", at) + b"\0" * 8
    count = struct.pack("<Q" if big else "<H", len(tags))
    path.write_bytes(head + b"".join(parts) + count + rows + b"\0" * (8 if big else 4) + extra)
    return path


def tiles_of(values: np.ndarray, side: int) -> list[np.ndarray]:
    height, width, bands = values.shape
    padded = np.zeros((-(-height // side) * side, -(-width // side) * side, bands), values.dtype)
    padded[:height, :width] = values
    return [
        padded[y : y + side, x : x + side]
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]


def agrees(path: Path, expected: np.ndarray) -> None:
    raster = open_raster(path)
    assert isinstance(raster, TiffWindows)
    assert raster.size == expected.shape[:2]
    for top, left, height, width in WINDOWS:
        got = raster.read(top, left, height, width).permute(1, 2, 0).numpy()
        assert np.array_equal(got, expected[top : top + height, left : left + width])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA"])
def test_strips_as_pil_writes_them(tmp_path: Path, mode: str, compression: str | None) -> None:
    picture = Image.fromarray(noise((61, 93, 4)), "RGBA").convert(mode)
    path = tmp_path / "a.tif"
    picture.save(path, compression=compression)
    whole = read_image(path).permute(1, 2, 0).numpy()
    raster = open_raster(path)
    assert isinstance(raster, TiffWindows)
    tolerance = 1 if "A" in mode else 0  # alpha is composited in fractions here, in PIL in integers
    for top, left, height, width in WINDOWS:
        got = raster.read(top, left, height, width).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(got - whole[top : top + height, left : left + width]).max() <= tolerance


def test_lzw_beyond_its_first_table(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (61, 93, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.tif", compression="tiff_lzw")
    agrees(tmp_path / "a.tif", picture)
    flat = np.zeros((61, 93, 3), np.uint8)
    Image.fromarray(flat).save(tmp_path / "b.tif", compression="tiff_lzw")
    agrees(tmp_path / "b.tif", flat)


@pytest.mark.parametrize("quality", [95, 60])
def test_jpeg_strips(tmp_path: Path, quality: int) -> None:
    Image.fromarray(noise((61, 93, 3))).save(tmp_path / "a.tif", compression="jpeg", quality=quality)
    whole = read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy().astype(int)
    raster = open_raster(tmp_path / "a.tif")
    assert isinstance(raster, TiffWindows)
    assert np.abs(raster.read(0, 0, 61, 93).permute(1, 2, 0).numpy() - whole).max() <= 2


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_tiles_and_bigtiff(tmp_path: Path, bands: int, predictor: int, packed: bool, big: bool) -> None:
    values = noise((61, 93, bands))
    parts = []
    for tile in tiles_of(values, 32):
        if predictor == 2:
            tile = np.concatenate([tile[:, :1], np.diff(tile, axis=1)], axis=1)
        parts.append(zlib.compress(tile.tobytes()) if packed else tile.tobytes())
    tags: dict[int, tuple[int, Any]] = {
        256: (3, 93), 257: (3, 61), 258: (3, [8] * bands), 259: (3, 8 if packed else 1),
        262: (3, 2 if bands == 3 else 1), 277: (3, bands), 317: (3, predictor),
        322: (3, 32), 323: (3, 32), 325: (4, [len(p) for p in parts]),
    }  # fmt: skip
    path = tags_written(tmp_path / "a.tif", tags, parts, big)
    agrees(path, np.repeat(values, 3, 2) if bands == 1 else values[..., :3])


def test_planes_and_one_long_strip(tmp_path: Path) -> None:
    values = noise((61, 93, 3))
    tags: dict[int, tuple[int, Any]] = {
        256: (3, 93), 257: (3, 61), 258: (3, [8] * 3), 259: (3, 1), 262: (3, 2), 277: (3, 3), 278: (3, 10), 284: (3, 2),
    }  # fmt: skip
    parts = [values[y : y + 10, :, k].tobytes() for k in range(3) for y in range(0, 61, 10)]
    agrees(tags_written(tmp_path / "a.tif", {**tags, 279: (4, [len(p) for p in parts])}, parts), values)
    tall = noise((200, 93, 3))
    parts = [tall.tobytes()]
    long = {**tags, 257: (3, 200), 278: (3, 200), 284: (3, 1), 279: (4, [len(parts[0])])}
    raster = open_raster(tags_written(tmp_path / "b.tif", long, parts))
    assert isinstance(raster, TiffWindows)
    assert raster.layout.grid == (4, 1)
    assert np.array_equal(raster.read(50, 5, 140, 60).permute(1, 2, 0).numpy(), tall[50:190, 5:65])


@pytest.mark.parametrize("high", [200, 1000, 4000, 60000])
def test_sixteen_bits_are_scaled_by_the_whole_file(tmp_path: Path, high: int) -> None:
    values = noise((61, 93), np.uint16, 100)
    values[-1, -1] = high
    Image.fromarray(values).save(tmp_path / "a.tif")
    agrees(tmp_path / "a.tif", read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy())


def test_what_is_not_read_by_windows_is_read_whole(tmp_path: Path) -> None:
    picture = noise((61, 93, 3))
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(picture).convert("1").save(tmp_path / "bits.tif")
    for name in ("a.png", "float.tif", "bits.tif"):
        raster = open_raster(tmp_path / name)
        assert isinstance(raster, InMemory)
        assert torch.equal(raster.read(3, 4, 20, 30), read_image(tmp_path / name)[:, 3:23, 4:34])


# ---- what is refused ------------------------------------------------------------------------------------------------


def bomb(path: Path, side: int, *, strips: bool = True) -> Path:
    """A deflate TIFF of side x side that has hardly any bytes."""
    part = zlib.compress(bytes(side * 64))
    count = -(-side // 64)
    tags: dict[int, tuple[int, Any]] = {
        256: (4, side), 257: (4, side), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1),
        278: (4, 64 if strips else side), 279: (4, [len(part)] * (count if strips else 1)),
    }  # fmt: skip
    tags_written(path, {**tags, 273: (4, [16] * count)}, [part] * (count if strips else 1))
    return path


def test_bombs_are_refused_at_the_header_unless_tiled(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.tif", 20_000)
    with pytest.raises(InputError, match="too many pixels"):
        read_image(path)
    raster = open_raster(path)
    assert raster.size == (20_000, 20_000)
    assert int(raster.read(19_000, 19_000, 500, 500).max()) == 0
    with pytest.raises(InputError, match=r"at most 2,147,483,647"):
        open_raster(bomb(tmp_path / "b.tif", 50_000))
    with pytest.raises(InputError, match="Write it with tiles"):
        open_raster(bomb(tmp_path / "c.tif", 20_000, strips=False))
    Image.fromarray(noise((61, 93, 3))).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"93 x 61 = 5,673 pixels; at most 5,000.*TIFF"):
        open_raster(tmp_path / "small.png", most_whole=5000)


def test_a_png_bomb_is_refused_in_tiles_too(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(InputError, match="too many pixels"):
        open_raster(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_files_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(noise((61, 93, 3))).save(path, compression="tiff_lzw")
    whole = path.read_bytes()
    cut = tmp_path / "cut.tif"
    for length in (6, 40, len(whole) // 2, len(whole) - 40):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.tif"):
            open_raster(cut).read(0, 0, 61, 93)
    with pytest.raises(InputError, match="no such picture"):
        open_raster(tmp_path / "absent.tif")
    (tmp_path / "text.tif").write_text("hello, this is not a picture")
    with pytest.raises(InputError, match="is not a picture"):
        open_raster(tmp_path / "text.tif")
    raster = open_raster(path)
    for window in ((-1, 0, 5, 5), (0, 0, 62, 5), (0, 90, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(InputError, match="inside"):
            raster.read(*window)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_never_do_worse_than_an_input_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.tif"
    compression = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"][seed % 5]
    Image.fromarray(noise((61, 93, 3))).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 12):
        data[place] = rng.integers(0, 256)
    path.write_bytes(data)
    with suppress(InputError):
        raster = open_raster(path)
        height, width = min(raster.size[0], 61), min(raster.size[1], 93)
        assert raster.read(0, 0, height, width).shape == (3, height, width)


def test_an_overview_is_the_mean_of_cells() -> None:
    picture = torch.from_numpy(noise((61, 93, 3))).permute(2, 0, 1)
    small = overview(InMemory(picture), 31)
    assert small.shape == (3, 21, 31)
    expected = picture[:, :60, :93].float().reshape(3, 20, 3, 31, 3).mean((2, 4)) + 0.5
    assert torch.equal(small[:, :20], expected.to(torch.uint8))
    assert torch.equal(overview(InMemory(picture), 93), picture)


# ---- places ---------------------------------------------------------------------------------------------------------


def located(path: Path, tags: dict[int, tuple[int, Any]], size: tuple[int, int] = (61, 93)) -> Path:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, values) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = values
    Image.fromarray(noise((*size, 3))).save(path, tiffinfo=info)
    return path


UTM = (3, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633))


def test_a_scale_and_a_tie_point(tmp_path: Path) -> None:
    tags = {33550: (12, (0.5, 0.25, 0.0)), 33922: (12, (0.0, 0.0, 0.0, 500000.0, 5400000.0, 0.0)), 34735: UTM}
    place = read_georeference(located(tmp_path / "a.tif", tags))
    assert place == Georeference(affine=(0.5, 0, 500000, 0, -0.25, 5400000), epsg=32633)
    assert place.points(np.array([[0, 0], [10, 4]])).tolist() == [[500000, 5400000], [500005, 5399999]]
    assert place.decimals == 4
    points = {**tags, 34735: (3, (1, 1, 0, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326)), 33922: (12, (2, 3, 0, 10.0, 50.0, 0))}
    place = read_georeference(located(tmp_path / "b.tif", points))
    assert place is not None
    assert place.epsg == 4326
    assert place.points(np.array([[2.5, 3.5]])).tolist() == [[10, 50]]  # the center of pixel (2, 3)


def test_a_transformation_and_none(tmp_path: Path) -> None:
    matrix = (0.0, 2.0, 0, 100.0, 3.0, 0.0, 0, 200.0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    tags = {34264: (12, matrix), 34735: (3, (1, 1, 0, 1, 3072, 0, 1, 32767))}
    place = read_georeference(located(tmp_path / "a.tif", tags))
    assert place == Georeference(affine=(0, 2, 100, 3, 0, 200), epsg=None)
    Image.fromarray(noise((5, 5, 3))).save(tmp_path / "b.tif")
    Image.fromarray(noise((5, 5, 3))).save(tmp_path / "c.png")
    assert read_georeference(tmp_path / "b.tif") is None
    assert read_georeference(tmp_path / "c.png") is None


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({34264: (12, (1.0,) * 9)}, "16 numbers"),
        ({34264: (12, (0.0,) * 16)}, "distinct places"),
        ({33550: (12, (1.0, 1.0, 0.0)), 33922: (12, (0.0,) * 5)}, "6 numbers"),
        ({34264: (12, (1.0, 0, 0, 0, 0, 1.0, *(0.0,) * 10)), 34735: (3, (1, 1, 0, 9, 3072))}, "cut off"),
    ],
)
def test_broken_places(tmp_path: Path, tags: dict[int, tuple[int, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_georeference(located(tmp_path / "a.tif", tags))
