"""What nuclei look like in each modality: forms, focus, chromatin, mitoses; and the debris that is not labeled."""

from __future__ import annotations

import numpy as np

from maskwright.data.synthetic.cells_forms import GRID, Forms, plain, waves
from maskwright.data.synthetic.cells_layout import Layout

Rng = np.random.Generator


def pick(rng: Rng, values: list[float], chances: list[float] | None = None) -> float:
    """One of ``values`` as a plain float."""
    return float(rng.choice(np.asarray(values, np.float64), p=chances))


def squeeze_of(rng: Rng) -> float:
    """The usual shorter over longer half axis of a picture's nuclei."""
    return float(rng.uniform(0.62, 0.95)) if rng.random() < 0.75 else float(rng.uniform(0.3, 0.62))


def nuclei(rng: Rng, lay: Layout, squeeze: float, variety: float) -> Forms:
    """Outlines at the places of ``lay``; sharp, undyed. ``variety`` is ``Knobs.variety``."""
    count = len(lay.radii)
    aspects = np.clip(squeeze + rng.normal(0, 0.1 * variety, count), 0.25, 1.0)
    bends = rng.normal(0, pick(rng, [0.04, 0.15]) * variety, count)
    bean = rng.random(count) < pick(rng, [0.02, 0.1, 0.25])
    bends = np.where(bean, rng.choice([-1, 1], count) * rng.uniform(0.25, 0.65, count), bends)
    strength = np.abs(rng.normal(0, 1, count)) * pick(rng, [0.015, 0.03, 0.05]) * variety
    lobed = rng.random(count) < pick(rng, [0.0, 0.03, 0.15])
    strength = np.where(lobed, rng.uniform(0.08, 0.16, count), strength)
    tapers = np.clip(
        rng.normal(pick(rng, [-0.1, 0.1, 0.4], [0.6, 0.3, 0.1]) + 0.3 * (0.7 - squeeze), 0.15, count), 0, 0.9
    )
    return plain(
        lay.centers,
        lay.radii,
        aspects=aspects,
        angles=lay.angles,
        bends=np.clip(bends, -0.7, 0.7) * np.clip(1.4 * aspects, 0, 1) ** 1.5,
        tapers=tapers,
        waves=waves(rng, count, strength, 1.7),
        places=rng.uniform(0, GRID, (count, 2)),
    )


def glowing(rng: Rng, forms: Forms, variety: float) -> Forms:
    """DNA dye in fluorescence: levels around 1, clumps and nucleoli, some out of focus, some in mitosis."""
    count = len(forms)
    wide = rng.uniform(0.08, 0.5) * variety
    levels = np.exp(np.clip(rng.normal(0, wide, count), -1.3, 1.3))
    sharp = rng.uniform(1.0, 3.0)
    edges = np.clip(sharp * np.exp(rng.normal(0, 0.25, count)), 0.8, 0.35 * forms.radii + 1)
    if rng.random() < 0.35:  # a thick specimen: some lie above or below the focus
        far = rng.random(count) < rng.uniform(0.1, 0.6)
        edges = np.where(far, np.clip(forms.radii * rng.uniform(0.25, 0.8, count), 1, None), edges)
        levels = np.where(far, levels * rng.uniform(0.5, 1.0, count), levels)
    rough = rng.uniform(0.03, 0.3)
    spotted = rng.random() < 0.2  # chromocenters, as in mouse cells
    out = forms.changed(
        levels=levels,
        edges=edges,
        domes=np.clip(rng.normal(rng.uniform(0.0, 0.7), 0.12, count), -0.2, 0.9),
        rims=np.clip(rng.normal(rng.uniform(-0.1, 0.25), 0.08, count), -0.2, 0.5),
        coarse=np.abs(rng.normal(rough, 0.04, count)) * (2.0 if spotted else 1.0),
        fine=np.abs(rng.normal(rough * 0.7, 0.03, count)),
        grains=np.minimum(rng.uniform(2.0, 6.0, count), forms.radii / 3.5),
        holes=np.clip(rng.normal(rng.uniform(0, 0.5), 0.15, count), 0, 0.8) * (-1.2 if spotted else 1.0),
    )
    return mitoses(rng, out, brighter=1.6, chance=pick(rng, [0.0, 0.02, 0.06]))


def mitoses(rng: Rng, forms: Forms, *, brighter: float, chance: float) -> Forms:
    """Some nuclei condensed: a plate seen from its side, or a rough, bright clump."""
    count = len(forms)
    now, plate = rng.random(count) < chance, rng.random(count) < 0.5
    bar, clump = now & plate, now & ~plate
    return forms.changed(
        aspects=np.where(bar, np.clip(rng.normal(0.36, 0.06, count), 0.25, 0.5), forms.aspects),
        bends=np.where(bar, forms.bends * 0.3, forms.bends),
        levels=np.where(now, brighter * forms.levels, forms.levels),
        waves=np.where(clump[:, None] | bar[:, None], waves(rng, count, np.where(clump, 0.09, 0.04), 0.6), forms.waves),
        coarse=np.where(bar, 0.08, np.where(clump, 0.3, forms.coarse)),
        holes=np.where(now, 0.0, forms.holes),
        domes=np.where(now, 0.4, forms.domes),
        edges=np.where(now, np.minimum(forms.edges, 3.0), forms.edges),
    )


def stained(rng: Rng, forms: Forms, variety: float) -> Forms:
    """Dye in transmitted light: dense dark ones, pale ones with a rim and clumps, blurred ones; optical density 1."""
    count = len(forms)
    pale = rng.random(count) < pick(rng, [0.05, 0.3, 0.7])
    levels = np.where(pale, rng.uniform(0.3, 0.65, count), rng.uniform(0.7, 1.3, count)) ** (0.5 + 0.5 * variety)
    blurred = rng.random(count) < rng.uniform(0, 0.25)
    sharp = rng.uniform(1.0, 2.5) * np.exp(rng.normal(0, 0.2, count))
    edges = np.where(blurred, forms.radii * rng.uniform(0.2, 0.6, count), sharp)
    rough = rng.uniform(0.04, 0.24)
    out = forms.changed(
        levels=np.where(blurred, 0.75 * levels, levels),
        edges=np.clip(edges, 0.8, 0.4 * forms.radii + 1.5),
        domes=np.clip(rng.normal(rng.uniform(-0.05, 0.3), 0.1, count), -0.2, 0.7),
        rims=np.where(pale, rng.uniform(0.1, 0.8, count), rng.uniform(0.0, 0.25, count)),
        coarse=np.where(pale, 1.3, 0.7) * np.abs(rng.normal(rough, 0.05, count)),
        fine=np.where(pale, 1.3, 0.6) * np.abs(rng.normal(rough, 0.08, count)),
        grains=np.minimum(rng.uniform(2.0, 5.0, count), forms.radii / 4.5),
        holes=np.where(rng.random(count) < 0.5, -1.0, 1.0) * np.abs(rng.normal(0, 0.3, count)),
    )
    return mitoses(rng, out, brighter=1.4, chance=pick(rng, [0.0, 0.03]))


def ghosts(rng: Rng, size: tuple[int, int], radius: float, count: int, level: tuple[float, float]) -> Forms:
    """Nuclei so far from the focus that nobody would outline them; not labeled."""
    radii = radius * rng.uniform(0.8, 1.8, count)
    return plain(
        rng.uniform(0, 1, (count, 2)) * size,
        radii,
        aspects=rng.uniform(0.5, 1, count),
        angles=rng.uniform(0, np.pi, count),
        edges=radii * rng.uniform(1.2, 2.0, count),
        levels=rng.uniform(*level, count),
        waves=waves(rng, count, 0.05),
    )


def debris(rng: Rng, size: tuple[int, int], radius: float, count: int, level: tuple[float, float]) -> Forms:
    """Specks and fragments much smaller than a nucleus of ``radius``, single or in heaps; not labeled."""
    homes = rng.uniform(0, 1, (max(1, count // 4), 2)) * size
    centers = homes[rng.integers(len(homes), size=count)] + rng.normal(0, 0.6 * radius, (count, 2))
    loose = rng.random(count) < 0.5
    centers = np.where(loose[:, None], rng.uniform(0, 1, (count, 2)) * size, centers)
    radii = np.clip(radius * rng.uniform(0.06, 0.22, count), 0.6, 5.0)
    return plain(
        centers,
        radii,
        aspects=rng.uniform(0.4, 1, count),
        angles=rng.uniform(0, np.pi, count),
        edges=np.clip(radii * 0.6, 0.8, 3),
        levels=rng.uniform(*level, count),
        waves=waves(rng, count, 0.1),
    )


def bodies(rng: Rng, nuclei: Forms, *, ratio: tuple[float, float], angular: float) -> Forms:
    """The cell around each nucleus: larger, off center, with an ``angular`` outline."""
    count = len(nuclei)
    scale = rng.uniform(*ratio, count)
    radii = nuclei.radii * scale
    off = rng.normal(0, 0.12, (count, 2)) * radii[:, None]
    return plain(
        nuclei.centers + off,
        radii,
        aspects=rng.uniform(0.6, 1, count),
        angles=rng.uniform(0, np.pi, count),
        bends=rng.normal(0, 0.1, count),
        waves=waves(rng, count, angular, 0.45),
        places=rng.uniform(0, GRID, (count, 2)),
        grains=rng.uniform(3, 7, count),
        edges=rng.uniform(1.2, 2.5),
    )
