"""``Cells``: microscopy with perfect labels: fluorescence, stained tissue, brightfield smears and phase contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from maskwright.data.synthetic import cells_nuclei as look
from maskwright.data.synthetic import cells_paint as paint
from maskwright.data.synthetic.cells_clips import Motion
from maskwright.data.synthetic.cells_forms import Forms, flow, grid, windows
from maskwright.data.synthetic.cells_layout import ARRANGEMENTS, lay_out
from maskwright.data.synthetic.cells_windows import Windows, joined_runs, seen_of, seen_values
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Taxonomy

Rng = np.random.Generator

MODALITIES: Mapping[str, float] = {"fluorescence": 0.55, "stained": 0.3, "brightfield": 0.1, "phase": 0.05}
"""What can be drawn, and its share."""

_LIVING = ("fluorescence", "phase")
"""What shows living cells, so that a clip of it makes sense."""

_HABITS: Mapping[str, Mapping[str, float]] = {
    "fluorescence": {"strewn": 0.3, "clumps": 0.25, "sheet": 0.3, "strands": 0.15},
    "stained": {"strewn": 0.25, "clumps": 0.15, "sheet": 0.1, "strands": 0.25, "glands": 0.25},
    "brightfield": {"strewn": 0.4, "clumps": 0.6},
    "phase": {"strewn": 0.5, "clumps": 0.3, "sheet": 0.2},
}
"""How often cells lie how."""

_RADII: Mapping[str, tuple[float, float]] = {
    "fluorescence": (10.5, 0.5),
    "stained": (11.0, 0.5),
    "brightfield": (8.5, 0.35),
    "phase": (10.0, 0.4),
}
"""Median of the longer half axis in pixels at scale 1, and the spread of its logarithm from picture to picture."""

NUCLEUS, TISSUE, BACKGROUND = 0, 1, 2
_FIRST = 3
"""Track of the first nucleus; the background has 1, tissue 2."""


class Cells:
    """Nuclei under the microscope; a ``drawn.Kind``.

    Things: ``nucleus``. Stuff: ``tissue`` (stroma, cytoplasm and cell bodies) and ``background`` (bare slide, lumina,
    the dark of fluorescence). Overlapping nuclei add their light or dye; the later one is what is seen there. Depth is
    in micrometers from the objective, a nucleus being 10 of them long. In clips nuclei drift, turn and divide; the two
    daughters are new tracks. A dividing nucleus's flow is that of its own drift.

    ``Knobs``: ``shadows`` is uneven light, ``height``, ``tilt``, ``focal`` and ``sun`` do nothing.

    Args:
        modalities: relative weight of each of ``MODALITIES``; those left out are not drawn. Clips of more than one
            frame show living cells (fluorescence or phase) where these have a weight.

    Raises:
        ValueError: an unknown modality, a negative weight, or none that is positive.
    """

    taxonomy = Taxonomy(
        names=("nucleus", "tissue", "background"),
        thing=(True, False, False),
        colors=((90, 200, 250), (240, 150, 190), (60, 60, 70)),
    )

    def __init__(self, modalities: Mapping[str, float] | None = None) -> None:
        weights = dict(MODALITIES if modalities is None else modalities)
        unknown = sorted(set(weights) - set(MODALITIES))
        if unknown or min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"modalities must give weights to some of {', '.join(MODALITIES)}, got {weights}")
        self.modalities = weights

    def draw(self, rng: Rng, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one clip on (H, W), in order; all randomness comes from ``rng``."""
        modality = self._modality(rng, frames)
        middle, spread = _RADII[modality]
        radius = float(middle * np.exp(np.clip(rng.normal(0, spread * np.sqrt(knobs.variety)), -1.0, 1.55)))
        radius = max(radius * float(np.exp(rng.uniform(*np.log(knobs.scale)))), 2.0)
        habits = _HABITS[modality]
        arrangement = str(rng.choice(np.array(ARRANGEMENTS), p=[habits.get(name, 0.0) for name in ARRANGEMENTS]))
        squeeze = look.squeeze_of(rng)
        bodied = modality in ("brightfield", "phase")
        room = {"brightfield": float(rng.uniform(2.8, 4.5)), "phase": float(rng.uniform(1.6, 2.4))}.get(modality, 1.0)
        lay = lay_out(
            rng,
            size,
            room * radius,
            arrangement,
            spread=float(rng.uniform(0.04, 0.3)) * knobs.variety,
            occlusion=float(np.clip(knobs.occlusion * rng.uniform(0.3, 1.2), 0, 1)) if knobs.occlusion else 0.0,
            squeeze=0.8 if bodied else squeeze,
            count=knobs.count,
        )
        lay = replace(lay, radii=lay.radii / room)
        forms = look.nuclei(rng, lay, squeeze, knobs.variety)
        dress = look.glowing if modality == "fluorescence" else look.stained
        forms = dress(rng, forms, knobs.variety)
        cells = None
        if bodied:
            cells = look.bodies(rng, forms, ratio=(0.95 * room, 1.5 * room), angular=0.05 * knobs.variety)
        motion = Motion(rng, forms, cells, frames, knobs.motion)
        noise = grid(rng)
        style, sensor = rng.integers(0, 2**62, 2).tolist()
        steps = [motion.frame(t) for t in range(frames)]
        out: list[Drawn] = []
        for t, step in enumerate(steps):
            style_rng = np.random.Generator(np.random.PCG64(style))
            sensor_rng = np.random.Generator(np.random.PCG64([sensor, t]))
            kept, at, owner = _seen(step.nuclei, size)
            slide = paint.Slide(
                nuclei=step.nuclei.take(kept), at=at, radius=radius, lumina=lay.lumina, grid=noise, knobs=knobs
            )
            around = None if step.cells is None else windows(step.cells, size)
            pixels, tissue = _paint(modality, style_rng, sensor_rng, slide, step.cells, around)
            moved = None
            if t + 1 < frames:
                moved = np.zeros((2, *size), np.float32)
                if around is not None:
                    flow(around.owner(), step.cell_poses, step.next_cell_poses, moved)
                flow(owner, step.poses[kept], step.next_poses[kept], moved)
            image = paint.finish(sensor_rng, pixels, knobs)
            out.append(_labeled(image, at, owner, step.tracks[kept] + _FIRST, tissue, moved))
        return out

    def _modality(self, rng: Rng, frames: int) -> str:
        names = [name for name, weight in self.modalities.items() if weight > 0]
        if frames > 1:
            names = [name for name in names if name in _LIVING] or names
        weights = np.array([self.modalities[name] for name in names])
        return str(rng.choice(np.array(names), p=weights / weights.sum()))


def _seen(forms: Forms, size: tuple[int, int]) -> tuple[np.ndarray, Windows, np.ndarray]:
    """Which forms can be seen, their windows and the owner of every pixel; the hidden ones are left out for good."""
    kept = np.arange(len(forms))
    for _ in range(8):
        at = windows(forms.take(kept), size)
        owner = at.owner()
        seen = seen_of(owner, len(kept))
        whole = rle.area(*at.amodal()) if len(kept) else seen
        enough = (seen >= np.minimum(6, max(1, size[0] * size[1] // 64))) & (seen >= 0.12 * whole)
        if enough.all():
            break
        kept = kept[enough]
    else:
        # Whoever is left without a pixel goes; uncovering others cannot hide any.
        kept = kept[seen > 0]
        at = windows(forms.take(kept), size)
        owner = at.owner()
    return kept, at, owner


def _paint(
    modality: str, rng: Rng, sensor: Rng, slide: paint.Slide, cells: Forms | None, around: Windows | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and where tissue is."""
    if modality == "fluorescence":
        return paint.fluorescence(rng, slide, sensor), np.zeros(slide.at.size, bool)
    if modality == "stained":
        return paint.stained(rng, slide)
    assert cells is not None
    assert around is not None
    draw = paint.brightfield if modality == "brightfield" else paint.phase
    return draw(rng, slide, cells, around), around.owner() >= 0


def _labeled(
    image: np.ndarray, at: Windows, owner: np.ndarray, tracks: np.ndarray, tissue: np.ndarray, moved: np.ndarray | None
) -> Drawn:
    """Everything known about a frame, from the owner of its pixels."""
    free = owner < 0
    panoptic = np.where(tissue, 2, 1).astype(np.int64)
    panoptic[~free] = tracks[owner[~free]]
    semantic = np.where(tissue, TISSUE, BACKGROUND).astype(np.int16)
    semantic[~free] = NUCLEUS
    stuff = [(track, label) for track, label in ((2, TISSUE), (1, BACKGROUND)) if (panoptic == track).any()]
    tracks = np.concatenate([tracks, [track for track, _ in stuff]]).astype(np.int64)
    labels = np.array([NUCLEUS] * len(at) + [label for _, label in stuff], np.int64)
    grounds = np.stack([tissue if label == TISSUE else ~tissue for _, label in stuff] or [tissue])[: len(stuff)]
    visible = encode_map(panoptic, tracks)
    amodal = joined_runs(at.amodal(), rle.encode(grounds))
    shares = rle.area(*visible) / np.maximum(rle.area(*amodal), 1)
    dome = np.sqrt(np.clip(1 - (1 - np.clip(at.level, 0, 1)) ** 2, 0, 1))
    return Drawn(
        image=image,
        labels=labels,
        visible=visible,
        amodal=amodal,
        tracks=tracks,
        semantic=semantic,
        panoptic=panoptic,
        depth=np.float32(1000) - np.float32(3) * seen_values(dome, at, owner),
        flow=moved,
        occluded=(1 - shares).astype(np.float32),
    )
