"""How cells move from frame to frame: they drift, turn, and some divide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic.cells_forms import Forms, joined

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One frame's forms.

    Attributes:
        nuclei: N forms.
        tracks: int64 [N], from 0.
        poses, next_poses: float64 [N, 3], (y, x, angle) now and in the next frame.
        cells, cell_poses, next_cell_poses: the same of the bodies around them, where there are any.
    """

    nuclei: Forms
    tracks: np.ndarray
    poses: np.ndarray
    next_poses: np.ndarray
    cells: Forms | None
    cell_poses: np.ndarray
    next_cell_poses: np.ndarray


class Motion:
    """The forms of every frame of a clip.

    Args:
        rng: all randomness is drawn here, none later.
        nuclei: the forms of the first frame.
        cells: the body around each of them, or ``None``.
        frames: how many.
        strength: ``Knobs.motion``; at 1 a cell goes about a twelfth of its half axis from one frame to the next.
    """

    def __init__(self, rng: Rng, nuclei: Forms, cells: Forms | None, frames: int, strength: float) -> None:
        count = len(nuclei)
        self._born, self._gone = np.zeros(count, np.int64), np.full(count, frames + 1)
        self._apart = np.zeros((count, 2))
        self._nuclei, self._cells = nuclei, cells
        if frames == 1:
            self._moves = np.zeros((1, count, 3))
            return
        turn = rng.uniform(0, 2 * np.pi, count)
        drift = np.abs(rng.normal(0, 0.06, count)) * nuclei.radii * strength
        steady = np.stack([np.sin(turn) * drift, np.cos(turn) * drift, rng.normal(0, 0.03, count) * strength], 1)
        shaken = rng.normal(0, 1, (frames + 1, count, 3)) * strength
        shaken *= np.stack([0.03 * nuclei.radii, 0.03 * nuclei.radii, np.full(count, 0.02)], 1)
        steps = steady + shaken
        steps[0] = 0
        self._moves = np.cumsum(steps, 0)
        divide = np.flatnonzero(rng.random(count) < (0.12 if strength else 0.0))
        if len(divide):
            self._divide(rng, divide, frames)

    def _divide(self, rng: Rng, parents: np.ndarray, frames: int) -> None:
        """Two daughters for each parent, from a frame on in which the parent is no more."""
        when = rng.integers(1, frames, len(parents))
        self._gone[parents] = when
        mothers = self._nuclei.take(parents)
        off = np.stack([np.cos(mothers.angles), -np.sin(mothers.angles)], 1) * (0.5 * mothers.radii)[:, None]
        smaller = {
            "radii": 0.72 * mothers.radii,
            "aspects": np.clip(mothers.aspects, 0.5, 0.8),
            "levels": 1.1 * mothers.levels,
            "bends": 0 * mothers.bends,
        }
        for side in (-1, 1):
            daughters = mothers.changed(centers=mothers.centers + side * off, **smaller)
            self._nuclei = joined(self._nuclei, daughters)
            if self._cells is not None:
                own = self._cells.take(parents)
                self._cells = joined(self._cells, own.changed(centers=own.centers + side * off, radii=0.8 * own.radii))
            self._born = np.concatenate([self._born, when])
            self._gone = np.concatenate([self._gone, np.full(len(parents), frames + 1)])
            self._moves = np.concatenate([self._moves, self._moves[:, parents]], 1)
            self._apart = np.concatenate([self._apart, side * off * 0.12])

    def frame(self, index: int) -> Step:
        """The forms of frame ``index``."""
        alive = np.flatnonzero((self._born <= index) & (index < self._gone))
        now, then = self._moved(index), self._moved(min(index + 1, len(self._moves) - 1))
        poses, later = _poses(self._nuclei, now)[alive], _poses(self._nuclei, then)[alive]
        own, own_later, cells = np.zeros((0, 3)), np.zeros((0, 3)), None
        if self._cells is not None:
            own, own_later = _poses(self._cells, now)[alive], _poses(self._cells, then)[alive]
            cells = _placed(self._cells.take(alive), own)
        return Step(
            nuclei=_placed(self._nuclei.take(alive), poses),
            tracks=alive.astype(np.int64),
            poses=poses,
            next_poses=later,
            cells=cells,
            cell_poses=own,
            next_cell_poses=own_later,
        )

    def _moved(self, index: int) -> np.ndarray:
        out = self._moves[index].copy()
        age = np.clip(index - self._born, 0, 8) * (self._born > 0)
        out[:, :2] += self._apart * age[:, None]
        return out


def _poses(forms: Forms, moved: np.ndarray) -> np.ndarray:
    return np.concatenate([forms.centers, forms.angles[:, None]], 1).astype(np.float64) + moved


def _placed(forms: Forms, poses: np.ndarray) -> Forms:
    return forms.changed(centers=poses[:, :2], angles=poses[:, 2])
