"""Pixels for ``Discs``: grounds, metal, dye and light, with numpy alone. Values are float32 in 0..255 until the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What is where in a picture of (H, W) with N objects.

    Attributes:
        owner: int32 [H, W], the object that a pixel belongs to or lies beside.
        depth: float32 [H, W], pixels from that object's outline, positive inside.
        place: float32 [2, H, W], (y, x) from that object's center in its radii.
        inside: bool [H, W], ``depth > 0``.
        radii: float64 [N], pixels.
    """

    owner: np.ndarray
    depth: np.ndarray
    place: np.ndarray
    inside: np.ndarray
    radii: np.ndarray

    def each(self, values: np.ndarray) -> np.ndarray:
        """One value per object [N, ...], spread to its pixels as float32 [H, W, ...]."""
        return np.take(values.astype(np.float32), self.owner, axis=0)


def _pick(rng: Rng, values: Sequence[float]) -> float:
    """One of ``values`` as a plain float: a float64 scalar of numpy would widen the picture it meets."""
    return float(values[int(rng.integers(len(values)))])


def smooth(rng: Rng, size: tuple[int, int], cell: float, cell_x: float | None = None) -> np.ndarray:
    """Noise of unit spread that changes over about ``cell`` pixels (``cell_x`` along x), float32 [H, W]."""
    height, width = size
    down, right = _spread(height, cell), _spread(width, cell if cell_x is None else cell_x)
    grid = rng.standard_normal((down.shape[1], right.shape[1]), np.float32)
    return np.float32(2.1) * (down @ grid @ right.T)


_SPREADS: dict[tuple[int, float], np.ndarray] = {}


def _spread(length: int, cell: float) -> np.ndarray:
    """Matrix [length, knots] that blends knots ``cell`` apart with cubic B-splines; kept, for the same sizes recur."""
    cell = float(np.round(min(max(cell, 1.0), 2.0 * length), 1))
    known = _SPREADS.get((length, cell))
    if known is None:
        knots = int(length / cell) + 5
        away = np.abs((np.arange(length)[:, None] + 0.5) / cell + 1.5 - np.arange(knots)[None])
        known = (np.clip(2 - away, 0, None) ** 3 - 4 * np.clip(1 - away, 0, None) ** 3).astype(np.float32) / 6
        if len(_SPREADS) < 256:
            _SPREADS[length, cell] = known
    return known


def _ramp(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """A slope from -1 to 1 across the picture in a random direction, sometimes bent, float32 [H, W]."""
    turn = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None] * np.float32(np.sin(turn))
    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None] * np.float32(np.cos(turn))
    out = np.clip(y + x, -1, 1)
    return out * np.abs(out) if rng.random() < 0.3 else out


def _slope(height: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    """How much a relief [H, W] leans towards the light (y, x), per pixel."""
    out = np.zeros_like(height)
    out[1:-1] -= (height[2:] - height[:-2]) * np.float32(light[0] / 2)
    out[:, 1:-1] -= (height[:, 2:] - height[:, :-2]) * np.float32(light[1] / 2)
    return out


def _soften(pixels: np.ndarray) -> np.ndarray:
    """A blur of one pixel over the first two axes."""
    out = pixels.copy()
    out[1:-1] = 0.25 * pixels[:-2] + 0.5 * pixels[1:-1] + 0.25 * pixels[2:]
    mid = out.copy()
    mid[:, 1:-1] = 0.25 * out[:, :-2] + 0.5 * out[:, 1:-1] + 0.25 * out[:, 2:]
    return mid


def _finish(rng: Rng, pixels: np.ndarray, noise: float) -> np.ndarray:
    """Sensor noise, rounding, channels first: uint8 [3, H, W] of gray [H, W] or RGB [H, W, 3]."""
    gray = rng.standard_normal(pixels.shape[:2], np.float32) * np.float32(noise)
    pixels = pixels + (gray if pixels.ndim == 2 else gray[..., None])
    out = np.clip(pixels, 0, 255).astype(np.uint8)
    return np.repeat(out[None], 3, 0) if out.ndim == 2 else np.ascontiguousarray(out.transpose(2, 0, 1))


def _ground(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """An unevenly lit table, cloth, board or plate, gray, float32 [H, W]."""
    base = rng.uniform(15, 110) if rng.random() < 0.72 else rng.uniform(110, 235)
    out = base + rng.uniform(0, 50) * _ramp(rng, size) + rng.uniform(0, 14) * smooth(rng, size, max(size) / 3)
    out += _pick(rng, [0.0, 3.0, 8.0]) * smooth(rng, size, float(rng.integers(2, 5)))
    style = rng.random()
    if style < 0.12:  # grain of wood
        out += rng.uniform(4, 18) * smooth(rng, size, *rng.permutation([3.0, 50.0]))
    elif style < 0.22:  # weave of cloth
        pitch = rng.uniform(0.6, 2.0)
        y, x = (np.sin(np.arange(n, dtype=np.float32) * np.float32(pitch)) for n in size)
        out += np.float32(rng.uniform(3, 14)) * y[:, None] * x[None]
    elif style < 0.4:  # blotches
        out += rng.uniform(5, 20) * np.clip(smooth(rng, size, float(rng.integers(8, 30))), 0, 2)
    for _ in range(rng.integers(0, 3)):  # scratches, edges of the plate, a ruler
        y, x = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]
        turn = _pick(rng, [0, np.pi / 2, rng.uniform(0, np.pi)]) + rng.normal(0, 0.03)
        line = (y - rng.uniform(0, size[0])) * np.cos(turn) - (x - rng.uniform(0, size[1])) * np.sin(turn)
        if rng.random() < 0.4:
            out += rng.uniform(-35, 20) * np.clip(line / 3, 0, 1)
        else:
            out += rng.uniform(-20, 30) * np.clip(1.5 - np.abs(line), 0, 1)
    return out


def _toned(rng: Rng, gray: np.ndarray, strength: float) -> np.ndarray:
    """Gray [H, W] with a faint cast of one hue, [H, W, 3]."""
    cast = 1 + rng.uniform(-strength, strength, 3)
    return gray[..., None] * (cast / cast.mean()).astype(np.float32)


def _relief(rng: Rng, s: Surface) -> np.ndarray:
    """The struck picture of every coin: rim, beads or letters, a figure and wear; heights in about 0..2, [H, W]."""
    count, size = len(s.radii), s.owner.shape
    on = np.flatnonzero(s.depth > -2)  # a relief costs most of the picture's time, so only where coins are
    owner, depth = s.owner.ravel()[on], s.depth.ravel()[on]
    v, u = s.place.reshape(2, -1)[:, on]
    coarse = smooth(rng, size, rng.uniform(5, 9)).ravel()[on]
    fine = smooth(rng, size, rng.uniform(2, 3.5)).ravel()[on]

    def each(values: np.ndarray) -> np.ndarray:
        return np.take(values.astype(np.float32), owner)

    rim = each(rng.uniform(1.5, 4.5, count) * np.clip(s.radii / 25, 0.6, 2.0))
    out = each(rng.uniform(0, 1.2, count) * (rng.random(count) < 0.75)) * _bump((depth - rim) / rim * 2)
    turn = rng.uniform(0, 2 * np.pi, count)
    c, n = each(np.cos(turn)), each(np.sin(turn))
    x, y = u * c + v * n, v * c - u * n
    figure = np.full(len(on), -4, np.float32)
    for _ in range(3):  # head, neck, helmet; body, limb, shield: three leaning ovals
        wide, high = rng.uniform(0.15, 0.55, count), rng.uniform(0.2, 0.6, count)
        dy, dx, lean = rng.normal(0, 0.25, count), rng.normal(0, 0.25, count), rng.normal(0, 0.5, count)
        across = (x + each(lean) * y - each(dx)) * each(1 / wide)
        along = (y - each(dy)) * each(1 / high)
        figure = np.maximum(figure, 1 - across * across - along * along)
    figure = np.clip(4 * (figure + 0.35 * coarse), 0, 1.0)
    # Hair, feathers and folds: stripes bent by noise, on the figure only.
    stripes = np.sin(each(s.radii * rng.uniform(0.5, 1.1, count)) * (x + 0.12 * coarse))
    out += figure * (each(rng.uniform(0.5, 1.8, count)) + each(rng.uniform(0, 0.5, count)) * stripes)
    out += each(rng.uniform(0.05, 0.35, count)) * coarse
    out += each(rng.uniform(0.05, 0.4, count)) * fine * (0.3 + figure)
    beads = rng.uniform(0, 0.6, count) * (rng.random(count) < 0.5)
    around = np.cos(each(rng.integers(14, 40, count)) * np.arctan2(y, x))
    out += each(beads) * around * _bump(depth / rim - 2.2)
    relief = np.zeros(size, np.float32)
    relief.ravel()[on] = out
    return relief


def _bump(t: np.ndarray) -> np.ndarray:
    """A smooth hill of height 1 at 0, gone at -2 and 2."""
    near = np.clip(1 - 0.25 * t * t, 0, 1)
    return near * near


def coins(rng: Rng, s: Surface) -> np.ndarray:
    """Struck metal under light from one side, with rims, wear and shadows, uint8 [3, H, W]."""
    size, count = s.owner.shape, len(s.radii)
    ground = _ground(rng, size)
    turn = rng.uniform(0, 2 * np.pi)
    light = (float(np.sin(turn)), float(np.cos(turn)))
    v, u = s.place
    facing = (v * np.float32(light[0]) + u * np.float32(light[1])) / np.sqrt(v * v + u * u + 1e-3)
    # A cast shadow and a dark seam where the coin meets the ground.
    shadow = np.clip(1 + s.depth / rng.uniform(2, 6.5), 0, 1) * np.clip(0.25 - facing, 0, 1)
    ground = ground * (1 - np.float32(rng.uniform(0, 0.9)) * shadow)
    level = float(np.median(ground[::4, ::4]))
    darker = rng.random() < (0.2 if level > 60 else 0)
    contrast = (-1 if darker else 1) * rng.uniform(25, 120)
    shared = np.clip(level + contrast, 20, 215)
    metal = s.each(shared * np.exp(rng.normal(0, 0.12, count)))
    metal = metal + rng.uniform(0, 0.5) * (ground - level)
    metal += s.each(rng.uniform(0, 28, count)) * facing * np.sqrt(v * v + u * u)
    metal += rng.uniform(2, 12) * smooth(rng, size, 12)
    metal *= 1 + rng.uniform(0.15, 0.55) * np.clip(_slope(_relief(rng, s), light) * rng.uniform(0.6, 1.6), -1.1, 1.6)
    rim = np.clip(1 - s.depth / s.each(np.clip(s.radii / 12, 1.2, 4)), 0, 1)
    metal *= 1 + rim * (s.each(rng.uniform(0, 0.4, count)) * facing + s.each(rng.normal(-0.02, 0.12, count)))
    out = _over(s, ground, metal, rng.uniform(0.7, 1.6))
    if rng.random() < 0.5:
        out = _soften(out)
    if rng.random() < 0.45:
        hue = rng.choice(
            np.array([[1.2, 1.0, 0.6], [1.25, 0.92, 0.7], [1, 1, 1], [1.1, 1.02, 0.85], [0.95, 1.0, 1.08]])
        )
        alpha = np.clip(s.depth + 0.5, 0, 1)[..., None]
        tint = 1 + alpha * (hue.astype(np.float32) - 1)
        cast = 1 + (1 - alpha) * rng.uniform(-0.35, 0.35, 3).astype(np.float32)
        out = out[..., None] * tint * cast
    return _finish(rng, out, _pick(rng, [0.5, 2.0, 6.0]))


def discs(rng: Rng, s: Surface) -> np.ndarray:
    """Buttons, pills, balls and fruit: plain or shaded, all alike or each of its own color, uint8 [3, H, W]."""
    size, count = s.owner.shape, len(s.radii)
    ground = _toned(rng, _ground(rng, size), _pick(rng, [0.0, 0.15, 0.5]))
    level = float(np.median(ground[::4, ::4]))
    away = [rng.uniform(0, 255, 3) for _ in range(12)]
    color = max(away[: rng.integers(2, 12)], key=lambda c: float(np.abs(c - level).mean()))
    own = np.clip(color + rng.normal(0, _pick(rng, [4, 12, 45]), (count, 3)), 0, 255)
    if rng.random() < 0.4:
        own = np.repeat(own.mean(1, keepdims=True), 3, 1)
    turn = rng.uniform(0, 2 * np.pi)
    light = (float(np.sin(turn)), float(np.cos(turn)))
    v, u = s.place
    facing = v * light[0] + u * light[1]
    body = s.each(own)
    style = rng.random()
    if style < 0.45:  # balls
        round_ = np.sqrt(np.clip(1 - v * v - u * u, 0, 1))
        shade = rng.uniform(0.3, 0.8) + 0.45 * round_ + rng.uniform(0, 0.45) * facing
        spot = np.clip(1 - 9 * ((v - 0.45 * light[0]) ** 2 + (u - 0.45 * light[1]) ** 2), 0, 1)
        body = body * shade[..., None] + (rng.uniform(0, 140) * spot)[..., None]
    elif style < 0.75:  # buttons and rings
        ring = np.abs(s.depth - s.each(rng.uniform(0.1, 0.6) * s.radii)) < s.each(0.06 * s.radii + 0.6)
        body = body + (rng.uniform(-50, 50) * ring + rng.uniform(-25, 25) * facing)[..., None]
    body = body + (rng.uniform(0, 14) * smooth(rng, size, float(rng.integers(2, 8))))[..., None]
    shadow = np.clip(1 + s.depth / 6, 0, 1) * np.clip(-facing, 0, 1)
    ground *= 1 - (rng.uniform(0, 0.6) * shadow)[..., None]
    out = _over(s, ground, body, rng.uniform(0.7, 2))
    return _finish(rng, _soften(out) if rng.random() < 0.4 else out, _pick(rng, [0.5, 2.0, 7.0]))


def fluorescence(rng: Rng, s: Surface) -> np.ndarray:
    """Glowing nuclei on near black, some dim, some blurred, uint8 [3, H, W]."""
    size, count = s.owner.shape, len(s.radii)
    peak = float(np.exp(rng.uniform(np.log(25), np.log(235))))
    glow = s.each(peak * np.clip(np.exp(rng.normal(0, _pick(rng, [0.1, 0.45]), count)), 0.2, 1.5))
    glow = glow * (1 + rng.uniform(0, 0.2) * smooth(rng, size, 4) - rng.uniform(0, 0.35) * (s.place**2).sum(0))
    spots = np.clip(smooth(rng, size, 3) - 1, 0, 1) * _pick(rng, [-0.5, 0, 0.5])
    black = rng.uniform(1, 18) + rng.uniform(0, 6) * smooth(rng, size, max(size) / 2)
    black = black + rng.uniform(0, 0.12) * peak * np.clip(1 + s.depth / 7, 0, 1)
    out = _over(s, black, glow * (1 + spots), rng.uniform(1, 4.5))
    noise = _pick(rng, [0.4, 2.0, 5.0])
    if rng.random() < 0.2:
        out = out[..., None] * rng.choice(np.array([[0.2, 0.35, 1], [0.25, 1, 0.3], [0.7, 0.3, 0.9]], np.float32))
    elif rng.random() < 0.12:
        out = 250 - out  # absorption seen in transmitted light
    return _finish(rng, out, noise)


def stained(rng: Rng, s: Surface) -> np.ndarray:
    """Dyed nuclei in textured tissue, purple on pink, blue among brown or dark on white, uint8 [3, H, W]."""
    size, count = s.owner.shape, len(s.radii)
    dyes = _DYES[rng.integers(len(_DYES))] + rng.normal(0, 9, (4, 3))
    tissue, gap, nucleus, membrane = dyes.astype(np.float32)
    along, across = rng.permutation([float(rng.uniform(3, 6)), float(rng.uniform(6, 26))])
    fiber = smooth(rng, size, along, across)
    grain = smooth(rng, size, rng.uniform(2, 3.5))
    open_ = np.clip(2 * smooth(rng, size, rng.uniform(40, 90)) - rng.uniform(-0.5, 2.5), 0, 1)
    pale = np.clip(0.5 + 0.5 * smooth(rng, size, rng.uniform(30, 80)), 0, 1) * rng.uniform(0, 0.8)
    bare = np.maximum(open_, pale)[..., None].astype(np.float32)
    ground = (tissue + (gap - tissue) * bare).astype(np.float32)
    ground += (rng.uniform(3, 14) * fiber + rng.uniform(2, 10) * grain)[..., None]
    if rng.random() < 0.5:  # cell borders, dyed more strongly
        wall = np.exp(-(((s.depth + rng.uniform(2, 5)) / rng.uniform(1, 2)) ** 2)) + np.clip(fiber - 1.1, 0, 1)
        ground += (membrane - ground) * (rng.uniform(0.2, 0.7) * np.clip(wall, 0, 1) * (1 - open_))[..., None].astype(
            np.float32
        )
    own = nucleus + rng.normal(0, _pick(rng, [4, 14]), (count, 1)) + rng.normal(0, 4, (count, 3))
    mixed = s.each(np.clip(rng.normal(_pick(rng, [0.0, 0.15, 0.3]), 0.08, count), 0, 0.5))[..., None]
    body = s.each(own) * (1 - mixed) + ground * mixed
    chromatin = smooth(rng, size, rng.uniform(2, 4))
    body += (rng.uniform(2, 16) * chromatin - rng.uniform(0, 25) * np.clip(1.5 - s.depth, 0, 1))[..., None]
    out = _over(s, ground, body, rng.uniform(0.8, 2.5))
    if rng.random() < 0.4:
        out = _soften(out)
    if rng.random() < 0.15:
        out = np.repeat(out.mean(2, keepdims=True), 3, 2)
    return _finish(rng, out, _pick(rng, [0.5, 2.0, 5.0]))


def glands(rng: Rng, s: Surface) -> np.ndarray:
    """An antibody's brown on cells with dark walls, their nuclei blue-gray beneath it; elsewhere blue on pale."""
    size, count = s.owner.shape, len(s.radii)
    brown, dark, pale, blue = ((_BROWN + rng.normal(0, 7, (4, 3))).astype(np.float32))[:, None, None]
    fiber = smooth(rng, size, *rng.permutation([float(rng.uniform(2, 4)), float(rng.uniform(5, 20))]))
    grain = smooth(rng, size, rng.uniform(1.5, 3))
    texture = (rng.uniform(2, 9) * fiber + rng.uniform(2, 8) * grain)[..., None]
    patch = np.clip(4 * (smooth(rng, size, rng.uniform(60, 140)) + np.float32(rng.uniform(0.2, 1.6))), 0, 1)
    filled = rng.random() < 0.6
    marked = (patch if filled else patch * np.clip((s.depth + rng.uniform(3.5, 6.5)) / 2, 0, 1))[..., None]
    # The marker sits on the membranes: darkest midway between nuclei, in places all through the cell.
    wall = rng.uniform(0.3, 1.0) * _bump((s.depth + rng.uniform(2.5, 5.0)) * rng.uniform(0.5, 1.2))
    wall = np.clip(wall + rng.uniform(0.1, 0.4) * fiber + 0.25 * smooth(rng, size, 25), 0, 1)[..., None]
    marker = brown + (dark - brown) * wall + 1.5 * texture
    ground = pale + texture
    ground = ground + (marker - ground) * marked
    own = s.each(blue.reshape(3) + rng.normal(0, 6, (count, 3)) + rng.normal(0, _pick(rng, [5, 14]), (count, 1)))
    veil = marked * s.each(np.clip(rng.normal(rng.uniform(0.15, 0.55), 0.1, count), 0, 0.75))[..., None]
    body = own + (brown + texture - own) * veil + (rng.uniform(3, 14) * smooth(rng, size, rng.uniform(2, 4)))[..., None]
    out = _over(s, ground, body, rng.uniform(1.0, 4.0))
    return _finish(rng, _soften(out) if rng.random() < 0.6 else out, _pick(rng, [0.5, 2.0, 5.0]))


_BROWN = np.array([[170, 120, 76], [96, 54, 28], [226, 226, 232], [116, 128, 170]], np.float64)
"""RGB of an antibody's marker (diaminobenzidine), of it where it is thick, of bare tissue and of nuclei beside it."""


def _over(s: Surface, ground: np.ndarray, body: np.ndarray, edge: float) -> np.ndarray:
    """Objects on the ground, their outline ``edge`` pixels wide; half covered where ``depth`` is zero."""
    alpha = np.clip(s.depth / np.float32(edge) + 0.5, 0, 1)
    if ground.ndim == 3:
        alpha = alpha[..., None]
    return ground + alpha * (body - ground)


_DYES = np.array(
    [
        # tissue, gap, nucleus, membrane
        [[222, 160, 198], [242, 232, 240], [112, 70, 148], [190, 110, 170]],
        [[205, 140, 185], [235, 225, 235], [86, 52, 120], [170, 95, 160]],
        [[172, 118, 70], [226, 224, 230], [118, 126, 160], [105, 62, 30]],
        [[216, 216, 228], [240, 240, 243], [112, 124, 176], [170, 160, 160]],
        [[226, 200, 205], [245, 240, 240], [96, 80, 140], [190, 150, 160]],
        [[196, 180, 205], [225, 215, 228], [90, 74, 125], [150, 130, 165]],
    ],
    np.float64,
)
"""RGB of tissue, empty places, nuclei and cell borders under common dyes."""

PAINTERS: Mapping[str, Callable[[Rng, Surface], np.ndarray]] = {
    "coins": coins,
    "discs": discs,
    "fluorescence": fluorescence,
    "stained": stained,
    "glands": glands,
}
