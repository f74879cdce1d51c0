"""The PNG decoder: what was encoded, whatever the filters, depth and interlacing; never a crash on damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.metrics import _png, _png_kernels
from maskwright.metrics._png import Decoder

FORMS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8)]
"""Color type and depth."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def paeth(left: int, above: int, corner: int) -> int:
    start = left + above - corner
    return min((left, above, corner), key=lambda v: abs(start - v))  # the first of equals


def filtered(rows: np.ndarray, pixel: int, kinds: list[int]) -> bytes:
    """Rows of bytes after the filters of the specification."""
    out = bytearray()
    for r, kind in enumerate(kinds):
        out.append(kind)
        for i, value in enumerate(rows[r].tolist()):
            left = int(rows[r, i - pixel]) if i >= pixel else 0
            above = int(rows[r - 1, i]) if r else 0
            corner = int(rows[r - 1, i - pixel]) if r and i >= pixel else 0
            out.append((value - (0, left, above, (left + above) // 2, paeth(left, above, corner))[kind]) % 256)
    return bytes(out)


def encode(
    samples: np.ndarray, color: int, depth: int, rng: np.random.Generator, *, interlaced: bool = False, level: int = 6
) -> bytes:
    """A PNG of ``samples`` [H, W, channels] with filters drawn for each row."""
    height, width, channels = samples.shape
    raw = b""
    for y, x, dy, dx in PASSES if interlaced else [(0, 0, 1, 1)]:
        part = samples[y::dy, x::dx]
        if not part.size:
            continue
        if depth == 16:
            rows = part.astype(">u2").reshape(len(part), -1).view(np.uint8)
        elif depth == 8:
            rows = part.astype(np.uint8).reshape(len(part), -1)
        else:
            bits = (part.reshape(len(part), -1, 1) >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8)
            rows = np.packbits(bits.reshape(len(part), -1), axis=1)
        raw += filtered(rows, max(depth * channels // 8, 1), rng.integers(0, 5, len(rows)).tolist())
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, int(rng.integers(0, 5)))
    packed = packer.compress(raw) + packer.flush()
    cut = int(rng.integers(0, len(packed)))
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, np.uint8).tobytes()) if color == 3 else b""
    body = chunk(b"IDAT", packed[:cut]) + chunk(b"IDAT", packed[cut:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tEXt", b"a\0b") + palette + body + chunk(b"IEND", b"")


def ids_of(colors: np.ndarray) -> np.ndarray:
    return colors[..., :3].astype(np.int64) @ np.array([1, 256, 65536])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), form=st.sampled_from(FORMS), interlaced=st.booleans(), level=st.integers(0, 9))
def test_what_was_encoded(seed: int, form: tuple[int, int], interlaced: bool, level: int) -> None:
    rng = np.random.default_rng(seed)
    (color, depth), cell = form, int(rng.integers(1, 40))
    shape = (int(rng.integers(1, 20)), int(rng.integers(1, 45)))
    coarse = rng.integers(0, 1 << depth, (*shape, CHANNELS[color]))
    samples = np.repeat(coarse, cell, 1)[:, : shape[1]]
    data = encode(samples, color, depth, rng, interlaced=interlaced, level=level)
    decoder = Decoder()
    if seed % 2:
        decoder.read(encode(rng.integers(0, 256, (20, 60, 3)), 2, 8, rng))  # memory used before
    got = decoder.read(data, shape)
    if color in (2, 6):
        want = ids_of(samples)
    elif color == 3:
        want = ids_of(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert (decoder.read(data, indexed=True) == samples[..., 0]).all()
        got = decoder.read(data)
    else:
        want = samples[..., 0]
    assert got.dtype == np.int32
    assert (got == want).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.integers(0, 9), strategy=st.integers(0, 4))
def test_any_deflate_stream(seed: int, level: int, strategy: int) -> None:
    """Long ones: many blocks, stored, fixed and dynamic, matches of all lengths and distances."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, rng.integers(1, 257), 30000) * (rng.random(30000) < rng.random())
    plain = np.repeat(values, rng.integers(1, 1 + rng.integers(1, 30), 30000)).astype(np.uint8)[:200_000]
    rows = np.concatenate(
        [np.zeros((len(plain) // 1000, 1), np.uint8), plain[: len(plain) // 1000 * 1000].reshape(-1, 1000)], 1
    )
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    packed = packer.compress(rows.tobytes()) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, len(rows), 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert (Decoder().read(data) == rows[:, 1:]).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16", "1"])
def test_what_pillow_writes(mode: str) -> None:
    rng = np.random.default_rng(3)
    values = np.kron(rng.integers(0, 256, (9, 12)), np.ones((30, 21), np.int64))
    if mode in ("RGB", "RGBA"):
        image = Image.fromarray(
            np.stack([values, values[::-1], values[:, ::-1], values], -1).astype(np.uint8)[..., : len(mode)]
        )
    elif mode == "I;16":
        image = Image.fromarray((values * 200).astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG")
    read = np.asarray(Image.open(io.BytesIO(out.getvalue())))
    want = ids_of(read) if read.ndim == 3 else read
    assert (Decoder().read(out.getvalue(), indexed=True) == want).all()


def test_constants_are_those_of_the_kernels() -> None:
    for name in ("MALFORMED", "TOO_LONG", "CUT_OFF", "SLACK", "WORK"):
        assert getattr(_png, name) == getattr(_png_kernels, name)


def test_damage_is_named() -> None:
    rng = np.random.default_rng(0)
    samples = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((8, 8, 1), np.int64))
    data, decoder = encode(samples, 2, 8, rng), Decoder()

    def fails(match: str, data: bytes, size: tuple[int, int] | None = None) -> None:
        with pytest.raises(ValueError, match=match):
            decoder.read(data, size)

    head = struct.pack(">IIBBBBB", 48, 40, 8, 2, 0, 0, 0)

    def headed(new: bytes) -> bytes:
        return data.replace(chunk(b"IHDR", head), chunk(b"IHDR", new))

    fails("not a PNG", b"")
    fails("not a PNG", b"\xff\xd8\xff\xe0 a JPEG")
    fails("must be 40 x 47 .height x width., but it is 40 x 48", data, (40, 47))
    fails("damaged", data.replace(b"a\0b", b"a\0c"))
    fails("its header is malformed", headed(head[:-1]))
    fails("its header is malformed", headed(head[:9] + b"\5\0\0\0"))
    fails("its header is malformed", headed(head[:10] + b"\1\0\0"))
    fails("at most 8 bits a color", headed(head[:8] + b"\x10\2\0\0\0"))
    fails("is not one of a map", headed(struct.pack(">IIBBBBB", 0, 40, 8, 2, 0, 0, 0)))
    fails("is not one of a map", headed(struct.pack(">IIBBBBB", 1 << 31, 1 << 31, 8, 2, 0, 0, 0)))
    fails("cut off", headed(struct.pack(">IIBBBBB", 1 << 14, 1 << 14, 8, 2, 0, 0, 0)))  # takes no memory for it
    fails("more data than its size", headed(struct.pack(">IIBBBBB", 48, 39, 8, 2, 0, 0, 0)))
    fails("cut off", headed(struct.pack(">IIBBBBB", 48, 41, 8, 2, 0, 0, 0)))
    fails("its palette is missing", headed(head[:9] + b"\3\0\0\0"))
    for end in range(8, len(data) - 12, 7):
        fails("cut off|header", data[:end])
    assert (decoder.read(data) == ids_of(samples)).all()


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_hostile_streams_end(seed: int) -> None:
    """Damage with a correct CRC, or plain noise: a map or an error."""
    rng = np.random.default_rng(seed)
    raw = (rng.integers(0, 256, 40 * 145) * (rng.random(40 * 145) < rng.random())).astype(np.uint8)
    raw[::145] = rng.integers(0, 5, 40)
    packed = bytearray(zlib.compress(raw.tobytes(), int(rng.integers(0, 10))))
    for _ in range(int(rng.integers(1, 6))):
        packed[int(rng.integers(2, len(packed)))] ^= 1 << int(rng.integers(8))
    if seed % 3 == 0:
        packed = bytearray(packed[:2] + rng.integers(0, 256, int(rng.integers(0, 300)), np.uint8).tobytes())
    elif seed % 3 == 1:
        del packed[int(rng.integers(2, len(packed))) :]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 40, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")
    said = ""
    try:
        assert Decoder().read(data).shape == (40, 48)
    except ValueError as error:
        said = str(error)
    assert not said or any(part in said for part in ("malformed", "cut off", "filter", "more data"))
