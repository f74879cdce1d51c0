"""Light through and from cells: fluorescence, stained sections, brightfield and phase contrast; float32 in 0..255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic import cells_nuclei as look
from maskwright.data.synthetic.cells_forms import Forms, dye, windows
from maskwright.data.synthetic.cells_windows import Windows, blur
from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.paint import smooth

Rng = np.random.Generator
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slide:
    """What is to be photographed.

    Attributes:
        nuclei: the labeled forms, dyed.
        at: their windows.
        radius: the usual longer half axis in pixels.
        lumina: float64 [K, 5], as in ``cells_layout.Layout``.
        grid: float32 noise, as ``cells_forms.dye`` takes it.
        knobs: what was asked for.
    """

    nuclei: Forms
    at: Windows
    radius: float
    lumina: np.ndarray
    grid: np.ndarray
    knobs: Knobs


def fluorescence(rng: Rng, s: Slide, sensor: Rng) -> np.ndarray:
    """Glowing nuclei on near black: haze, uneven light, photon noise, saturation; [H, W] or [H, W, 3]."""
    size, texture = s.at.size, s.knobs.texture
    light = dye(s.nuclei, s.at, s.grid, np.zeros(size, np.float32), texture)
    area = size[0] * size[1]
    if rng.random() < 0.3:
        many = int(min(rng.uniform(0, 0.3) * area / (9 * s.radius**2), 200)) + 1
        light = _add(look.ghosts(rng, size, s.radius, many, (0.03, 0.3)), s, light)
    if rng.random() < 0.35:
        light = _add(look.debris(rng, size, s.radius, int(rng.integers(1, 25)), (0.3, 2.5)), s, light)
    peak = float(np.exp(rng.uniform(np.log(22), np.log(200)))) * float(rng.uniform(*s.knobs.brightness))
    if rng.random() < 0.08:
        peak *= 2.0  # overexposed
    haze = look.pick(rng, [0.0, 0.08, 0.3, 0.6], [0.3, 0.35, 0.25, 0.1]) * float(rng.uniform(0.5, 1))
    if haze:
        spread = max(2.0, s.radius * float(rng.uniform(0.4, 2.5)))
        light = (1 - 0.3 * haze) * light + haze * blur(light, spread)
    if rng.random() < 0.35:  # light of the cell bodies and of fibers
        faint = np.clip(smooth(rng, size, 1.5 * s.radius) + smooth(rng, size, 4 * s.radius), 0, 3)
        light += np.float32(rng.uniform(0.005, 0.06) * texture) * faint
        if rng.random() < 0.4:
            light += np.float32(rng.uniform(0.01, 0.06) * texture) * fibers(rng, size, 0.15 * s.radius)
    black = float(np.exp(rng.uniform(np.log(0.7), np.log(18))))
    out = np.float32(black) + np.float32(peak) * light
    out *= _uneven(rng, size, look.pick(rng, [0.0, 0.1, 0.3]) * s.knobs.shadows)
    if rng.random() < 0.5:
        out = blur(out, float(rng.uniform(*s.knobs.blur)))
    quanta = float(np.exp(rng.uniform(np.log(0.005), np.log(0.35)))) * s.knobs.noise[1] / 4
    out += np.sqrt(np.clip(out, 0, None) * np.float32(quanta)) * sensor.standard_normal(size, np.float32)
    kind = rng.random()
    if kind < 0.06 * s.knobs.variety:  # the same shown in negative
        return 250 - out
    if kind < 0.14 * s.knobs.variety:  # shown in a color
        hues = np.array([[0.15, 0.3, 1.0], [0.2, 1.0, 0.3], [1.0, 0.25, 0.2], [0.75, 0.3, 1.0]], np.float32)
        return out[..., None] * hues[int(rng.integers(len(hues)))]
    return out


_STAINS = np.array(
    [
        # tissue, nucleus, bare slide, fiber and border
        [[190, 168, 214], [66, 28, 160], [200, 180, 222], [160, 128, 200]],
        [[186, 164, 208], [84, 46, 158], [196, 176, 214], [150, 120, 190]],
        [[232, 231, 226], [98, 26, 100], [238, 238, 233], [208, 200, 206]],
        [[224, 226, 224], [72, 30, 84], [236, 237, 234], [214, 196, 205]],
        [[222, 152, 192], [96, 58, 142], [243, 236, 242], [196, 104, 168]],
        [[208, 140, 184], [76, 46, 118], [238, 230, 238], [176, 92, 160]],
        [[232, 190, 206], [110, 84, 150], [246, 242, 244], [206, 140, 178]],
        [[214, 214, 226], [104, 116, 172], [240, 240, 244], [170, 164, 180]],
    ],
    np.float32,
)
"""RGB of common stains in transmitted light: hematoxylin on its own, Giemsa, hematoxylin and eosin, and the pale
counterstain of antibody markers."""

_BROWN = np.array([104, 58, 28], np.float32)
"""RGB of an antibody's marker (diaminobenzidine)."""


def stained(rng: Rng, s: Slide) -> tuple[np.ndarray, np.ndarray]:
    """A stained section or smear, [H, W] or [H, W, 3], and where tissue is, bool [H, W]."""
    size, knobs = s.at.size, s.knobs
    which = int(rng.integers(len(_STAINS)))
    stray = (
        rng.normal(0, 7, (4, 1))
        + rng.normal(0, 5, (1, 3)) * np.array([[1], [1], [0.3], [1]])
        + rng.normal(0, 2.5, (4, 3))
    )
    colors = np.clip(_STAINS[which] + stray * knobs.variety, 4, 250).astype(np.float32)
    white = np.clip(colors[2] * np.float32(rng.uniform(*knobs.brightness) ** 0.3), 60, 253)
    flesh, deep, border = (np.log(np.maximum(white, c + 1) / c) for c in (colors[0], colors[1], colors[3]))
    deep = deep * np.float32(rng.uniform(0.75, 1.15))
    texture = np.float32(knobs.texture)
    bare = _lumen(s.lumina, size, rng) if len(s.lumina) else np.zeros(size, np.float32)
    if rng.random() < 0.35:  # a tear, fat or the edge of the section
        bare = np.maximum(
            bare, np.clip(3 * (smooth(rng, size, rng.uniform(4, 9) * s.radius) - rng.uniform(0.6, 1.8)), 0, 1)
        )
    solid = 1 - bare
    grain = smooth(rng, size, float(np.clip(0.16 * s.radius, 1.2, 4)))
    strands = fibers(rng, size, float(np.clip(rng.uniform(0.08, 0.25) * s.radius, 1.2, 5)))
    cloud = smooth(rng, size, 4 * s.radius)
    amount = 1 + texture * (
        rng.uniform(0.02, 0.16) * grain + rng.uniform(0.03, 0.28) * strands + rng.uniform(0, 0.3) * cloud
    )
    amount = np.clip(amount, 0.05, 3).astype(np.float32) * solid
    wall = np.clip(texture * rng.uniform(0.0, 0.25) * np.clip(strands - 0.6, 0, 2), 0, 1) * solid
    if len(s.lumina) or rng.random() < 0.3:
        wall += rng.uniform(0.1, 0.8) * 4 * bare * solid
    dyed = dye(s.nuclei, s.at, s.grid, np.zeros(size, np.float32), knobs.texture)
    many = int(min(rng.uniform(0, 0.25) * size[0] * size[1] / (9 * s.radius**2), 200))
    if rng.random() < 0.4 and many:
        dyed = _add(look.ghosts(rng, size, s.radius, many, (0.05, 0.25)), s, dyed)
    if rng.random() < 0.3:
        dyed = _add(look.debris(rng, size, s.radius, int(rng.integers(1, 12)), (0.3, 1.0)), s, dyed)
    dyed = blur(dyed, float(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.5:  # cytoplasm takes a little of the nuclear dye
        dyed += np.float32(rng.uniform(0.02, 0.2)) * blur(np.minimum(dyed, 1), s.radius * float(rng.uniform(0.4, 1.2)))
    density = amount[..., None] * flesh + wall[..., None].astype(np.float32) * border + dyed[..., None] * deep
    if which == len(_STAINS) - 1 and rng.random() < 0.75:
        density += _marked(rng, s, dyed, strands)[..., None] * np.log(white / _BROWN)
    out = white * np.exp(-density)
    out *= _uneven(rng, size, look.pick(rng, [0.0, 0.04, 0.12]) * knobs.shadows)[..., None]
    if rng.random() < 0.7:
        relief = (dyed + 0.15 * strands)[:, :, None]
        out[1:, 1:] += np.float32(rng.uniform(-14, 14)) * (relief[1:, 1:] - relief[:-1, :-1])  # slanting light
    if rng.random() < 0.12 * knobs.variety:
        out = out.mean(2)
    return out, bare < 0.5


def _marked(rng: Rng, s: Slide, dyed: np.ndarray, strands: np.ndarray) -> np.ndarray:
    """How much brown marker there is: in nuclei, on membranes, or in whole cells of a region."""
    size = s.at.size
    where = np.clip(3 * (smooth(rng, size, 6 * s.radius) + np.float32(rng.uniform(-0.5, 1.5))), 0, 1)
    style = rng.random()
    if style < 0.4:
        some = s.nuclei.changed(
            levels=rng.uniform(0.2, 1.6, len(s.nuclei)) * (rng.random(len(s.nuclei)) < rng.uniform(0.2, 1))
        )
        return dye(some, s.at, s.grid, np.zeros(size, np.float32), s.knobs.texture) * np.float32(rng.uniform(0.4, 1.0))
    near = np.clip(4 * blur(np.minimum(dyed, 1), 0.9 * s.radius), 0, 1)
    if style < 0.75:
        return np.float32(rng.uniform(0.25, 0.8)) * where * near * np.clip(1 + 0.35 * strands - 0.4 * dyed, 0, 2)
    rim = near * (1 - near) * 4
    return np.float32(rng.uniform(0.3, 1.0)) * where * rim * np.clip(1 + 0.5 * strands, 0, 2)


def brightfield(rng: Rng, s: Slide, cells: Forms, around: Windows) -> np.ndarray:
    """A smear in plain light: thin gray cells with folds, one dark nucleus each; [H, W] or [H, W, 3]."""
    size, count = s.at.size, len(cells)
    thick = np.clip(rng.normal(rng.uniform(0.08, 0.3), 0.07, count), 0.04, 0.5)
    own = cells.changed(
        levels=thick,
        rims=rng.uniform(0, 0.5) * rng.uniform(0.3, 1, count),
        coarse=rng.uniform(0.03, 0.25) * np.ones(count),
        fine=rng.uniform(0.03, 0.15) * np.ones(count),
        holes=-np.abs(rng.normal(0, 0.3, count)),
    )
    density = dye(own, around, s.grid, np.zeros(size, np.float32), s.knobs.texture)
    body = np.minimum(density * 4, 1)
    ridge = np.clip(1 - np.abs(smooth(rng, size, 2.5 * s.radius)) * 7, 0, 1)
    density += np.float32(rng.uniform(0, 0.25) * s.knobs.texture) * ridge * body
    density += np.float32(rng.uniform(0.35, 0.85)) * dye(
        s.nuclei, s.at, s.grid, np.zeros(size, np.float32), s.knobs.texture
    )
    if rng.random() < 0.7:
        density = _add(look.debris(rng, size, 2 * s.radius, int(rng.integers(2, 40)), (0.2, 1.0)), s, density)
    white = float(np.clip(rng.uniform(205, 240) * rng.uniform(*s.knobs.brightness) ** 0.3, 80, 250))
    out = np.float32(white) * np.exp(-density)
    out *= _uneven(rng, size, look.pick(rng, [0.0, 0.05, 0.15]) * s.knobs.shadows)
    if rng.random() < 0.25:
        return out[..., None] * rng.uniform(0.8, 1.05, 3).astype(np.float32) ** np.minimum(density * 3, 1)[..., None]
    return out


def phase(rng: Rng, s: Slide, cells: Forms, around: Windows) -> np.ndarray:
    """Living cells in phase contrast: gray on gray, a dark outline and a bright halo; [H, W]."""
    size, count = s.at.size, len(cells)
    gray = float(np.clip(rng.uniform(90, 165) * rng.uniform(*s.knobs.brightness), 40, 215))
    body = dye(
        cells.changed(coarse=np.full(count, rng.uniform(0.02, 0.15)), fine=np.full(count, rng.uniform(0.02, 0.2))),
        around,
        s.grid,
        np.zeros(size, np.float32),
        s.knobs.texture,
    )
    shape = np.minimum(body, 1.6)
    core = dye(s.nuclei, s.at, s.grid, np.zeros(size, np.float32), s.knobs.texture)
    wide = float(np.clip(0.35 * s.radius, 2, 12))
    sign = -1.0 if rng.random() < 0.75 else 1.0
    out = (
        gray
        + np.float32(sign * rng.uniform(10, 35)) * shape
        + np.float32(rng.uniform(40, 110)) * (blur(shape, wide) - shape)
    )
    out += np.float32(sign * rng.uniform(18, 60)) * (core - 0.6 * blur(core, wide))
    out += np.float32(rng.uniform(2, 10) * s.knobs.texture) * smooth(rng, size, 1.8) * np.minimum(shape, 1)
    edge = np.clip(1 - 4 * np.abs(core - 0.5), 0, 1)
    out -= np.float32(rng.uniform(0, 40)) * edge
    return (out * _uneven(rng, size, look.pick(rng, [0.0, 0.1, 0.25]) * s.knobs.shadows)).astype(np.float32)


def fibers(rng: Rng, size: Size, width: float) -> np.ndarray:
    """Wavy strands of about ``width`` pixels, of unit spread, float32 [H, W]."""
    turn = rng.uniform(0, np.pi)
    y, x = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]
    across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))
    across = across + np.float32(rng.uniform(1, 5) * width) * smooth(rng, size, rng.uniform(9, 20) * width)
    table = rng.standard_normal(1024, np.float32)
    place = across / np.float32(2 * width) + np.float32(rng.uniform(0.4, 0.9)) * smooth(rng, size, 6 * width, 3 * width)
    whole = np.floor(place)
    part = place - whole
    part *= part * (3 - 2 * part)
    first = whole.astype(np.int32) & 1023
    whole = table[first] + part * (table[(first + 1) & 1023] - table[first])
    return whole * np.clip(0.6 + smooth(rng, size, 12 * width), 0, 2)  # they come and go


def finish(rng: Rng, pixels: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Light's color, lens and sensor: uint8 [3, H, W] of [H, W] or [H, W, 3]."""
    sigma = float(rng.uniform(*knobs.blur))
    noise = float(rng.uniform(*knobs.noise)) * look.pick(rng, [0.3, 1.0])
    if pixels.ndim == 2:
        pixels = blur(pixels, sigma) + np.float32(noise) * rng.standard_normal(pixels.shape, np.float32)
        return np.repeat(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)[None], 3, 0)
    warm = float(rng.uniform(*knobs.warmth)) * 0.06
    planes = [blur(pixels[..., c] * np.float32(1 + warm * (1 - c)), sigma) for c in range(3)]
    out = np.stack(planes) + np.float32(noise) * rng.standard_normal(pixels.shape[:2], np.float32)
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _add(forms: Forms, s: Slide, out: np.ndarray) -> np.ndarray:
    return dye(forms, windows(forms, s.at.size), s.grid, out, 0.0)


def _uneven(rng: Rng, size: Size, strength: float) -> np.ndarray:
    """Illumination that falls off from somewhere in the picture, float32 [H, W] around 1."""
    cy, cx = rng.uniform(0.2, 0.8, 2)
    y = (np.arange(size[0], dtype=np.float32)[:, None] / size[0] - np.float32(cy)) ** 2
    x = (np.arange(size[1], dtype=np.float32)[None] / size[1] - np.float32(cx)) ** 2
    return 1 + np.float32(strength) * (np.float32(0.25) - 2 * (y + x))


def _lumen(lumina: np.ndarray, size: Size, rng: Rng) -> np.ndarray:
    """Where glands are empty, 0 to 1 with soft edges, float32 [H, W]."""
    out = np.zeros(size, np.float32)
    ripple = np.float32(0.12) * smooth(rng, size, float(np.clip(lumina[:, 2:4].min() * 0.8, 4, 200)))
    y, x = np.arange(size[0], dtype=np.float32)[:, None] + 0.5, np.arange(size[1], dtype=np.float32)[None] + 0.5
    for cy, cx, hy, hx, turn in lumina:
        c, n = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        v = ((y - np.float32(cy)) * c - (x - np.float32(cx)) * n) / np.float32(hy)
        u = ((x - np.float32(cx)) * c + (y - np.float32(cy)) * n) / np.float32(hx)
        away = np.sqrt(v * v + u * u)
        out = np.maximum(out, np.clip((0.9 - away + ripple) * np.float32(min(hy, hx) / 3), 0, 1))
    return out
