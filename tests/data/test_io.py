"""Pixels in: every kind of file and object, and clear refusals."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data.io import find_images, image_size, read_image, to_picture
from maskwright.errors import InputError

RAMP = (np.arange(6 * 9 * 3) % 251).astype(np.uint8).reshape(6, 9, 3)


def pixels(picture: torch.Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy()


def test_png_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 6, 9)
    assert np.array_equal(pixels(picture), RAMP)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_stands_the_picture_up(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        want = np.array(ImageOps.exif_transpose(image))
    got = pixels(read_image(tmp_path / "a.png"))
    assert np.array_equal(got, want)
    assert image_size(tmp_path / "a.png") == want.shape[:2]


@pytest.mark.parametrize(
    ("top", "scale"), [(200, 255), (255, 255), (900, 1023), (4095, 4095), (5000, 16383), (65535, 65535)]
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_the_depth_in_use(tmp_path: Path, top: int, scale: int, suffix: str) -> None:
    deep = np.linspace(0, top, 40).astype(np.uint16).reshape(5, 8)
    deep[-1, -1] = top
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    got = pixels(read_image(tmp_path / f"a.{suffix}"))
    assert np.abs(got[..., 0] - deep * 255.0 / scale).max() <= 0.51
    assert (got[..., 0] == got[..., 2]).all()


def test_palette_gray_and_bilevel(tmp_path: Path) -> None:
    paletted = Image.fromarray(RAMP).quantize(16)
    paletted.save(tmp_path / "p.png")
    assert np.array_equal(pixels(read_image(tmp_path / "p.png")), np.array(paletted.convert("RGB")))
    Image.fromarray(RAMP[..., 0]).save(tmp_path / "g.png")
    assert np.array_equal(pixels(read_image(tmp_path / "g.png")), np.repeat(RAMP[..., :1], 3, axis=2))
    Image.fromarray(RAMP[..., 0] > 99).save(tmp_path / "b.png")
    assert np.array_equal(pixels(read_image(tmp_path / "b.png"))[..., 1], (RAMP[..., 0] > 99) * np.uint8(255))
    Image.fromarray(RAMP).convert("CMYK").save(tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif").shape == (3, 6, 9)


def test_alpha_shows_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    got = pixels(read_image(tmp_path / "a.png"))
    assert got[0, 0].tolist() == [10, 20, 30]
    assert abs(int(got[0, 1, 0]) - 127) <= 1
    assert got[1, 1].tolist() == [255, 255, 255]
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")
    assert pixels(read_image(tmp_path / "la.png"))[1, 1].tolist() == [255, 255, 255]
    assert np.abs(pixels(to_picture(rgba)).astype(int) - got).max() <= 1


def test_float_tiff_is_stretched_only_without_a_convention(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "unit.tif")
    assert pixels(read_image(tmp_path / "unit.tif")).max() == 255
    Image.fromarray(np.linspace(-5, 1000, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "free.tif")
    got = pixels(read_image(tmp_path / "free.tif"))
    assert (got.min(), got.max()) == (0, 255)


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"this is no picture", "not a picture"),
        ("a.jpg", b"", "not a picture"),
        ("a.png", _png_header(60000, 60000), "too many pixels"),
    ],
)
def test_hostile_files_are_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(whole)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        read_image(cut)


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such picture"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a directory"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="is a directory"):
        image_size(tmp_path)


def test_objects_become_pictures() -> None:
    want = torch.from_numpy(RAMP.copy()).permute(2, 0, 1)
    for source in (
        RAMP,
        Image.fromarray(RAMP),
        want,
        want.float(),
        RAMP.astype(np.float32) / 255,
        RAMP.astype(np.int64),
    ):
        assert torch.equal(to_picture(source), want)
    assert torch.equal(to_picture(RAMP.transpose(2, 0, 1)), want)
    assert to_picture(RAMP[..., 0]).shape == (3, 6, 9)
    assert to_picture(RAMP[..., :1]).shape == (3, 6, 9)
    assert to_picture(torch.zeros(1, 4, 5, dtype=torch.bool)).shape == (3, 4, 5)
    assert to_picture(RAMP[::-1, :, ::-1]).shape == (3, 6, 9)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((5, 6, 7)), "must have shape"),
        (torch.zeros(2, 3, 4, 5), "batch as a list"),
        (np.full((4, 5, 3), -1.0), "before normalization"),
        (np.full((4, 5, 3), np.nan), "0..1 or 0..255"),
        (np.full((4, 5, 3), -1), "negative"),
        (np.zeros((0, 5, 3), np.uint8), "must have pixels"),
        (7, "must be a path"),
    ],
)
def test_wrong_objects_are_refused(source: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        to_picture(source)


def test_find_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.tif", "odd[1].png"):
        (tmp_path / name).write_bytes(b"")
    found = find_images([tmp_path, tmp_path / "b.png"])
    assert [p.name for p in found] == ["a.JPG", "b.png", "odd[1].png"]
    assert [p.name for p in find_images(f"{tmp_path}/**/*.tif")] == ["c.tif"]
    assert [p.name for p in find_images([str(tmp_path / "odd[1].png")])] == ["odd[1].png"]
    (tmp_path / "empty").mkdir()
    for item, words in (
        (tmp_path / "empty", "no pictures"),
        (tmp_path / "x.png", "no such file"),
        (tmp_path / "*.bmp", "matches"),
    ):
        with pytest.raises(InputError, match=words):
            find_images([item])
    with pytest.raises(InputError, match="at least one"):
        find_images([])


def test_sizes_come_from_headers(tmp_path: Path) -> None:
    """Also of a PNG whose pixels are broken, and of one whose EXIF block comes after them."""
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert image_size(path) == (40, 20)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    tail = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[end:tail] + data[start:end] + data[tail:])
    assert image_size(path) == (40, 20)
    assert read_image(path).shape == (3, 40, 20)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert image_size(path) == (20, 40)
