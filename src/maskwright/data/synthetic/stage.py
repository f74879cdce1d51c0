"""``Stage``: the parts of one frame, collected object by object, then painted with everything known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.camera import Camera, Light, expose
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Taxonomy

Point = Sequence[float] | np.ndarray

_WIDTH = 42
"""Numbers of a part: object, shape, material, mode, first corner, corners, hidden when seen from behind (0-6);
point and two directions (7-15); shape (16-21); colors (22-27); material (28-35); bulge, share of sun (36-37);
extent (38-41)."""

_NOBODY = 31
"""The bit of parts that belong to no segment."""


@dataclass(slots=True)
class _Object:
    label: int
    track: int
    layer: int
    distance: float


@dataclass(slots=True)
class Stage:
    """A world of flat parts; parts that are added belong to the object that was begun last.

    Objects are painted layer by layer and, within one, the farthest first; the parts of an object in the order in
    which they came. Every frame of a clip must add the same parts in the same order, moved.

    Attributes:
        camera, light: of this frame.
        taxonomy: its stuff classes must be fewer than 31.
        grain: factor on the strength of all textures.
        home: where the camera is in the clip's first frame, float64 [3]; cards that face the camera look there, for
            they must not turn with it.
    """

    camera: Camera
    light: Light
    taxonomy: Taxonomy
    grain: float = 1.0
    home: np.ndarray = field(default_factory=lambda: np.zeros(3))
    objects: list[_Object] = field(default_factory=list)
    rows: list[tuple[float, ...] | np.ndarray] = field(default_factory=list)
    corners: list[Point] = field(default_factory=list)
    things: int = 0

    def begin(self, name: str | None, layer: int, distance: float = 0.0) -> None:
        """The next parts belong to a new object of class ``name`` (``None``: to nobody, as shadows do)."""
        label = -1 if name is None else self.taxonomy.index(name)
        track = label + 1
        if name is not None and self.taxonomy.thing[label]:
            self.things += 1
            track = len(self.taxonomy) + self.things
        self.objects.append(_Object(label, track, layer, distance))

    def add(
        self,
        place: Point,
        along: Point,
        across: Point,
        shape: int,
        form: Sequence[float],
        material: int,
        color: Point,
        second: Point = (0, 0, 0),
        surface: Sequence[float] = (),
        *,
        seed: float = 0,
        bulge: float = 0.0,
        sunlit: float = 1.0,
        mode: int = 0,
        extent: tuple[float, float, float, float] | None = None,
        corners: tuple[int, int] = (0, 0),
        back: bool = True,
    ) -> None:
        """One part: a shape on the plane of a point and two unit directions (meters); colors in sRGB, 0..1.

        Args:
            shape, form: see ``raster``; material, surface: see ``textures`` (the seed is put last).
            extent: (u1, v1, u2, v2) around the shape where its numbers do not tell.
            corners: first and number, of polygons.
            back: seen from behind too.
        """
        s = (*form, *([0.0] * (6 - len(form))))
        m = (*surface, *([0.0] * (7 - len(surface))), seed)
        box = extent or _extent(shape, s)
        head = (len(self.objects) - 1, shape, material, mode, *corners, 0.0 if back else 1.0)
        self.rows.append((*head, *place, *along, *across, *s, *color, *second, *m, bulge, sunlit, *box))

    def add_many(self, rows: np.ndarray) -> None:
        """Parts as rows of ``Stage.block``."""
        rows[:, 0] = len(self.objects) - 1
        self.rows.append(rows)

    @staticmethod
    def block(count: int, shape: int, material: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Rows for ``add_many`` and named views of them to fill in; extents are to be filled in too."""
        rows = np.zeros((count, _WIDTH))
        rows[:, 1], rows[:, 2], rows[:, 37] = shape, material, 1
        cuts = {"place": (7, 10), "along": (10, 13), "across": (13, 16), "form": (16, 22), "color": (22, 25)}
        cuts |= {"second": (25, 28), "surface": (28, 36), "bulge": (36, 37), "sunlit": (37, 38), "extent": (38, 42)}
        return rows, {name: rows[:, a:b] for name, (a, b) in cuts.items()}

    def face(
        self, points: np.ndarray, inner: np.ndarray | None, material: int, color: Point, second: Point = (0, 0, 0),
        surface: Sequence[float] = (), *, seed: float = 0, round_: float = 0.0, bulge: float = 0.0, sunlit: float = 1.0,
    ) -> None:  # fmt: skip
        """A flat polygon through points float64 [k, 3]; u runs along its first edge from its first point, v inward.

        Args:
            points: in one plane.
            inner: a point behind the face; the face is hidden when seen from there. ``None``: seen from both sides.
            round_: radius by which the corners are rounded, outward.
        """
        # Plain floats: for a handful of corners numpy would take ten times as long.
        rows: list[list[float]] = points.tolist()
        origin = rows[0]
        along = _unit([p - o for p, o in zip(rows[1], origin, strict=True)])
        inward = [sum(p[k] for p in rows[2:]) / (len(rows) - 2) - origin[k] for k in range(3)]
        share = _dot(inward, along)
        across = _unit([i - share * a for i, a in zip(inward, along, strict=True)])
        offsets = [[p - o for p, o in zip(row, origin, strict=True)] for row in rows]
        flat = [(_dot(offset, along), _dot(offset, across)) for offset in offsets]
        back = True
        if inner is not None:
            # Turned so that u x v points outward, which the painter takes for the front.
            back = False
            if _dot(_cross(along, across), [o - i for o, i in zip(origin, inner.tolist(), strict=True)]) < 0:
                origin, long = rows[1], flat[1][0]
                along, flat = [-a for a in along], [(long - u, v) for u, v in flat]
        low_u, high_u = min(u for u, _ in flat), max(u for u, _ in flat)
        low_v, high_v = min(v for _, v in flat), max(v for _, v in flat)
        middle = (0.0, 0.0)
        if material in (textures.PACK, textures.TEXT):  # prints are laid out around their middle
            middle = ((low_u + high_u) / 2, (low_v + high_v) / 2)
        elif bulge > 0:  # round about its middle
            middle = ((low_u + high_u) / 2, 0.0)
        origin = [o + middle[0] * a + middle[1] * c for o, a, c in zip(origin, along, across, strict=True)]
        first = len(self.corners)
        self.corners.extend((u - middle[0], v - middle[1]) for u, v in flat)
        low = (low_u - middle[0] - round_, low_v - middle[1] - round_)
        high = (high_u - middle[0] + round_, high_v - middle[1] + round_)
        wide = max(high[0] - low[0], 1e-6)
        self.add(
            origin,
            along,
            across,
            raster.POLYGON,
            (round_, wide / 2),
            material,
            color,
            second,
            surface,
            seed=seed,
            bulge=bulge,
            sunlit=sunlit,
            extent=(*low, *high),
            corners=(first, len(rows)),
            back=back,
        )

    def shadow(
        self, place: Point, along: Point, across: Point, shape: int, form: Sequence[float], strength: float, soft: float
    ) -> None:
        """A soft-edged darkening, ``soft`` meters wide at its edge."""
        box = _extent(shape, (*form, *([0.0] * (6 - len(form)))))
        grown = (box[0] - soft, box[1] - soft, box[2] + soft, box[3] + soft)
        dark = strength * self.light.shadows
        self.add(place, along, across, shape, form, 0, (0, 0, 0), surface=(dark, soft), mode=1, extent=grown)

    def picture(self, rng: np.random.Generator, size: tuple[int, int], knobs: Knobs, after: Stage | None) -> Drawn:
        """Paint the frame on (H, W); ``after`` is the next frame's stage."""
        return _Painting(self, size).drawn(rng, knobs, after)

    def table(self) -> np.ndarray:
        """All parts, float64 [n, 42]."""
        if not self.rows:
            return np.zeros((0, _WIDTH))
        blocks: list[np.ndarray] = []
        singles: list[tuple[float, ...]] = []
        for row in self.rows:
            if isinstance(row, np.ndarray):
                blocks += [np.array(singles, np.float64).reshape(-1, _WIDTH), row]
                singles = []
            else:
                singles.append(row)
        return np.concatenate([*blocks, np.array(singles, np.float64).reshape(-1, _WIDTH)])

    def matrices(self, rows: np.ndarray) -> np.ndarray:
        """float64 [n, 3, 3] from places on the parts to pixels times depth."""
        return self.camera.matrices(rows[:, 7:10], rows[:, 10:13], rows[:, 13:16])


class _Painting:
    """One stage on its way to a picture."""

    def __init__(self, stage: Stage, size: tuple[int, int]) -> None:
        self.stage, self.size = stage, size
        self.rows = stage.table()
        self.forward = stage.matrices(self.rows)
        determinant = np.linalg.det(self.forward)
        flat = np.abs(determinant) < 1e-9 * np.maximum(np.abs(self.forward).max((1, 2)), 1) ** 2
        safe = np.where(flat[:, None, None], np.eye(3), self.forward)
        self.inverse = np.linalg.inv(safe)
        self.boxes = np.zeros((len(self.rows), 4), np.int32)
        raster.bounds(self.forward, self.rows[:, 38:42].copy(), size[0], size[1], self.boxes)
        self.boxes[self.rows[:, 1] == raster.ALL] = (0, 0, size[1], size[0])
        normal = np.cross(self.rows[:, 10:13], self.rows[:, 13:16])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        front = np.einsum("ij,ij->i", normal, stage.camera.place - self.rows[:, 7:10])
        self.boxes[flat | ((self.rows[:, 6] == 1) & (front <= 0))] = 0
        self.normal = normal * np.where(front < 0, -1, 1)[:, None]

    def drawn(self, rng: np.random.Generator, knobs: Knobs, after: Stage | None) -> Drawn:
        stage, rows, (height, width) = self.stage, self.rows, self.size
        objects = stage.objects
        owner, part = np.full(self.size, -1, np.int32), np.zeros(self.size, np.int32)
        depth, stuff = np.full(self.size, np.inf, np.float32), np.zeros(self.size, np.uint32)
        rgb = np.zeros((height, width, 3), np.float32)
        spans, order = self._order()
        runs, ends = raster.paint(
            spans,
            order,
            rows[:, [1, 2, 3, 4, 5]].astype(np.int32),
            self.inverse,
            self.boxes,
            np.ascontiguousarray(rows[:, 16:22]),
            np.clip(rows[:, 22:28], 0, 4) ** 2.2,
            self._surfaces(),
            self._lights(),
            np.array(stage.corners, np.float64).reshape(-1, 2),
            self._world(),
            rgb,
            owner,
            part,
            depth,
            stuff,
        )
        # The last entry answers for pixels that nobody owns (-1).
        label_of = np.array([*(o.label for o in objects), -1], np.int64)
        track_of = np.array([*(o.track for o in objects), 0], np.int64)
        panoptic = track_of[owner]
        tracks = np.flatnonzero(np.bincount(panoptic.ravel()))
        tracks = tracks[tracks > 0]
        by_track = {o.track: o.label for o in objects}
        labels = np.array([by_track[t] for t in tracks.tolist()], np.int64)
        visible = encode_map(panoptic, tracks)
        pieces = np.split(runs, ends[:-1])
        whole = {objects[k].track: pieces[i] for i, k in enumerate(spans[:, 0].tolist()) if spans[i, 3] < 0}
        chosen = [whole[t] if t in whole else _bit_runs(stuff, t - 1) for t in tracks.tolist()]
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum([len(c) for c in chosen], out=offsets[1:])
        amodal = (np.concatenate([*chosen, np.zeros(0, np.int32)]).astype(np.int32), offsets)
        flow = None
        if after is not None:
            later = after.table()
            assert len(later) == len(rows), "every frame must add the same parts"
            flow = raster.flow_of(part, self.inverse, after.matrices(later))
        share = rle.area(*visible) / np.maximum(rle.area(*amodal), 1)
        return Drawn(
            image=expose(rng, rgb, stage.light, knobs),
            labels=labels,
            visible=visible,
            amodal=amodal,
            tracks=tracks.astype(np.int64),
            semantic=label_of[owner].astype(np.int16),
            panoptic=panoptic,
            depth=depth,
            flow=flow,
            occluded=(1 - share).astype(np.float32),
        )

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Objects front to back with their stretch of ``order``, and the parts in that order."""
        objects, thing = self.stage.objects, self.stage.taxonomy.thing
        number = self.rows[:, 0].astype(np.int64)
        many = np.bincount(number, minlength=len(objects))
        turn = sorted(range(len(objects)), key=lambda k: (-objects[k].layer, objects[k].distance, -k))
        rank = np.empty(len(objects), np.int64)
        rank[turn] = np.arange(len(objects))
        order = np.lexsort((-np.arange(len(number)), rank[number]))
        ends = np.cumsum(many[turn])
        bits = [_NOBODY if objects[k].label < 0 else -1 if thing[objects[k].label] else objects[k].label for k in turn]
        return np.stack([np.array(turn, np.int64), ends - many[turn], ends, np.array(bits, np.int64)], 1), order

    def _lights(self) -> np.ndarray:
        """float64 [n, 8]: directions of sun and up on each part, its bulge, its share of the sun."""
        basis = []
        for cut in (slice(10, 13), slice(13, 16)):
            axis = self.rows[:, cut]
            basis.append(axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-12))
        basis.append(self.normal)
        sun = [axis @ self.stage.light.sun for axis in basis]
        return np.stack([*sun, *(axis[:, 1] for axis in basis), self.rows[:, 36], self.rows[:, 37]], 1)

    def _surfaces(self) -> np.ndarray:
        out = self.rows[:, 28:36].copy()
        grained = np.isin(self.rows[:, 2], list(_GRAINED)) & (self.rows[:, 3] != 1)
        for material, columns in _GRAINED.items():
            picked = grained & (self.rows[:, 2] == material)
            out[np.ix_(picked, columns)] *= self.stage.grain
        return out

    def _world(self) -> np.ndarray:
        light = self.stage.light
        return np.array([*light.beam, *light.sky, *light.haze, light.density])


_GRAINED = {0: [0], 1: [0, 2], 2: [4], 5: [1], 10: [2]}
"""Material -> the numbers that are strengths of texture (``textures``)."""


def _bit_runs(stuff: np.ndarray, bit: int) -> np.ndarray:
    height, width = stuff.shape
    runs = np.empty(height * width + 4, np.int32)
    used = raster.column_runs(((stuff >> np.uint32(bit)) & 1).astype(np.int32), 1, 0, 0, width, height, runs, 0)
    return runs[:used].copy()


def _cross(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(a: Sequence[float]) -> list[float]:
    size = max(_dot(a, a) ** 0.5, 1e-9)
    return [v / size for v in a]


def _extent(shape: int, s: Sequence[float]) -> tuple[float, float, float, float]:
    """(u1, v1, u2, v2) around a shape at its own numbers."""
    if shape == raster.CAPSULE:
        r = max(s[2], s[5])
        return min(s[0], s[3]) - r, min(s[1], s[4]) - r, max(s[0], s[3]) + r, max(s[1], s[4]) + r
    if shape == raster.RING:
        return -s[0] - s[1], -s[0] - s[1], s[0] + s[1], s[0] + s[1]
    if shape == raster.BLADE:
        return -s[1], -s[0], s[1], s[0]
    more = 1.7 * s[2] if shape == raster.BLOB else 0.0
    return -s[0] - more, -s[1] - more, s[0] + more, s[1] + more
