"""Distances between surfaces, in a plane or a volume, in millimeters: ``SurfaceDistance``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._label_images import compare_folders
from maskwright.metrics._label_maps import check_maps
from maskwright.metrics.mean_iou import named
from maskwright.ops.distance import nearest, spacing_of, surface

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

_VOID = -1
_FIGURES = ("HD", "HD95", "ASSD", "surface_dice", "Dice")


@dataclass(frozen=True, slots=True)
class Distances:
    """How far the surface of each of two masks is from the other's.

    Attributes:
        of_found: float64 [N], from each surface pixel of the prediction to the nearest of truth; infinite without one.
        of_truth: float64 [M], the other way.
    """

    of_found: np.ndarray
    of_truth: np.ndarray

    @property
    def both(self) -> bool:
        """Whether both masks have a surface; without, distances mean nothing."""
        return bool(self.of_found.size and self.of_truth.size)

    def hausdorff(self, percentile: float = 100.0) -> float:
        """The greater of the two directed distances, each a percentile (linear between ranks); -1.0 where undefined."""
        if not self.both:
            return -1.0
        return float(max(np.percentile(side, percentile) for side in (self.of_found, self.of_truth)))

    def mean(self) -> float:
        """The mean over all surface pixels of both; -1.0 where undefined."""
        return float(np.concatenate([self.of_found, self.of_truth]).mean()) if self.both else -1.0

    def dice(self, tolerance: float) -> float:
        """The share of all surface pixels of both within ``tolerance``; 0 where one is empty, -1.0 where both are."""
        total = self.of_found.size + self.of_truth.size
        near = (self.of_found <= tolerance).sum() + (self.of_truth <= tolerance).sum()
        return float(near / total) if total else -1.0


def distances(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> Distances:
    """The distances between the surfaces of two masks, bool [H, W] or [D, H, W] (see ``SurfaceDistance``).

    Raises:
        ValueError: shapes differ, or ``spacing`` is not one positive number for each axis.
    """
    if predicted.shape != truth.shape or truth.ndim not in (2, 3):
        raise ValueError(f"masks must share one shape [H, W] or [D, H, W], got {predicted.shape} and {truth.shape}")
    steps = spacing_of(spacing, truth.ndim)
    place = _box(predicted, truth)
    points = [np.argwhere(surface(side[place])) for side in (predicted, truth)]
    return Distances(nearest(points[0], points[1], steps), nearest(points[1], points[0], steps))


class SurfaceDistance(PerImage[np.ndarray, np.ndarray]):
    """Hausdorff distance, average surface distance and surface Dice of each class, a mean over images.

    A surface pixel is one of the mask with a neighbor outside of it along an axis (what erosion with a cross removes);
    what lies beyond the image is outside. Distances are Euclidean between the centers of surface pixels, times
    ``spacing``. Of the two directed sets, from prediction to truth and back,

    - ``HD`` is the greatest distance of both (D. Huttenlocher et al., 1993),
    - ``HD95`` the greater of their two 95th percentiles, linear between ranks,
    - ``ASSD`` the mean of both together (average symmetric surface distance; T. Heimann et al., 2009),
    - ``surface_dice`` the share of both together within the tolerance (normalized surface distance; S. Nikolov et al.,
      "Clinically applicable segmentation of head and neck anatomy", 2021), counted by surface pixels,
    - ``Dice`` the overlap of the masks themselves, of each image by itself.

    Equal to MONAI's ``compute_hausdorff_distance``, ``compute_average_surface_distance(symmetric=True)`` and
    ``compute_surface_dice``. Others differ: DeepMind's ``surface-distance`` puts surface elements between pixels and
    weighs each by its area, which moves figures by up to a voxel; MedPy takes the 95th percentile of both directions
    together, which is smaller where one of them is worse.

    Where a class is neither in truth nor predicted, an image says nothing of it. Where it is only one of them, surface
    Dice and Dice are 0, and there is no distance: such images are not in the means of distances but are counted as
    ``unmatched``. State that number beside them, since a system that finds nothing otherwise looks good. A figure
    without any image is -1.0.

    Args:
        taxonomy: the classes, or their names, maps then holding 0 .. K - 1; or ``{name: value}``, values of maps.
            Values of maps that are no class are background. Labels of scenes are dense in it.
        tolerance: of surface Dice, in the unit of ``spacing``, at least 0.
        spacing: the distance between neighbors along each axis in millimeters, (y, x) or (z, y, x); ``None``: pixels.
        ignore: value of maps that does not count where truth holds it, besides -1.

    Raises:
        ValueError: no classes, or numbers out of range.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str] | Mapping[str, int],
        tolerance: float = 1.0,
        spacing: Sequence[float] | None = None,
        *,
        ignore: int = 255,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.names, self.values = named(taxonomy)
        if not self.names or len(set(self.values)) < len(self.values) or {_VOID, ignore} & set(self.values):
            raise ValueError(f"classes must be distinct values, none of them void, got {self.values}, ignore {ignore}")
        if not tolerance >= 0 or not np.isfinite(tolerance):
            raise ValueError(f"tolerance must be finite and at least 0, got {tolerance}")
        self.tolerance, self.ignore = float(tolerance), int(ignore)
        self.spacing = None if spacing is None else spacing_of(spacing, len(spacing))

    def settings(self) -> Mapping[str, Any]:
        return {"taxonomy": self.names, "tolerance": self.tolerance, "spacing": self.spacing}

    def update(
        self, predicted: Scene, truth: Scene, key: Key | None = None, *, spacing: Sequence[float] | None = None
    ) -> None:
        """Compare one image or volume by the ``semantic`` maps, as ``update_maps`` does.

        Raises:
            ValueError: a map is unknown, or as ``update_maps``.
        """
        if predicted.semantic is None or truth.semantic is None:
            raise ValueError("scenes to compare must have semantic maps, got none")
        maps = predicted.semantic.cpu().numpy(), truth.semantic.cpu().numpy()
        self._compare(*maps, key, spacing, tuple(range(len(self.names))), (_VOID,))

    def update_maps(
        self,
        predicted: np.ndarray,
        truth: np.ndarray,
        key: Key | None = None,
        *,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Compare one image or volume given as maps of labels.

        Args:
            predicted, truth: integers [H, W] or [D, H, W].
            key: the image's id.
            spacing: of this image, instead of the measure's.

        Raises:
            ValueError: shapes differ, a map holds no integers, ``spacing`` does not fit, or ``key`` came before.
        """
        self._compare(predicted, truth, key, spacing, self.values, (_VOID, self.ignore))

    def update_masks(
        self,
        predicted: np.ndarray,
        truth: np.ndarray,
        key: Key | None = None,
        *,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Compare masks, bool [K, H, W] or [K, D, H, W], one for each class; they may overlap. Else as ``update_maps``.

        Raises:
            ValueError: as ``update_maps``.
        """
        self._check_key(key)
        if predicted.shape != truth.shape or len(truth) != len(self.names):
            raise ValueError(
                f"masks must be one for each of {len(self.names)} classes, got {predicted.shape} and {truth.shape}"
            )
        steps = self._spacing(spacing, truth.ndim - 1)
        pairs = zip(predicted != 0, truth != 0, strict=True)
        self._keep(key, np.array([self._figures(p, t, steps) for p, t in pairs]))

    def _compare(
        self,
        predicted: np.ndarray,
        truth: np.ndarray,
        key: Key | None,
        spacing: Sequence[float] | None,
        values: Sequence[int],
        void: Sequence[int],
    ) -> None:
        self._check_key(key)
        check_maps(predicted, truth, (2, 3))
        steps = self._spacing(spacing, truth.ndim)
        for place in {v for v in void if v != _VOID or truth.dtype.kind == "i"}:
            if (truth == place).any():
                predicted = np.where(truth == place, place, predicted)
        self._keep(key, np.array([self._figures(predicted == v, truth == v, steps) for v in values]))

    def _spacing(self, spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
        return spacing_of(spacing if spacing is not None else self.spacing, axes)

    def _figures(self, predicted: np.ndarray, truth: np.ndarray, steps: Sequence[float]) -> list[float]:
        """What is kept of one class in one image: the figures, NaN where undefined, and whether one side lacks it."""
        found, there = int(predicted.sum()), int(truth.sum())
        if not found or not there:
            one = bool(found or there)
            return [np.nan, np.nan, np.nan, *([0.0, 0.0] if one else [np.nan, np.nan]), float(one)]
        far = distances(predicted, truth, steps)
        dice = 2 * int((predicted & truth).sum()) / (found + there)
        return [far.hausdorff(), far.hausdorff(95), far.mean(), far.dice(self.tolerance), dice, 0.0]

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"surface": {"HD": .., "HD95": .., "ASSD": .., "surface_dice": .., "Dice": .., "unmatched": n,
        "per_class": {name: {...}}}, "images": I, "tolerance": ..}``.

        Distances in the unit of the spacing; means over images for each class, and over classes above them.
        """
        times, kept = self._weights(weights), self._joined()
        known = ~np.isnan(kept[:, :, :-1])
        counts = (times[:, None, None] * known).sum(0)
        sums = (times[:, None, None] * np.where(known, kept[:, :, :-1], 0.0)).sum(0)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)
        alone = (times[:, None] * kept[:, :, -1]).sum(0).astype(np.int64)
        out: dict[str, Any] = {}
        for column, figure in zip(means.T, _FIGURES, strict=True):
            out[figure] = float(column[column >= 0].mean()) if (column >= 0).any() else -1.0
        out["unmatched"] = int(alone.sum())
        rows = zip(self.names, means.tolist(), alone.tolist(), strict=True)
        out["per_class"] = {
            name: dict(zip(_FIGURES, row, strict=True)) | {"unmatched": missed} for name, row, missed in rows
        }
        return {"surface": out, "images": int(times.sum()), "tolerance": self.tolerance}

    def _join(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array(images, np.float64).reshape(len(images), len(self.names), len(_FIGURES) + 1)


def read_surface(
    truth: str | Path,
    results: str | Path,
    classes: Taxonomy | Sequence[str] | Mapping[str, int],
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] | None = None,
    ignore: int = 255,
    truth_suffix: str = "",
    results_suffix: str = "",
    lenient: bool = False,
) -> SurfaceDistance:
    """Two folders of label images or volumes compared (TIFF of several pages and NPY hold volumes).

    Args:
        truth, results, truth_suffix, results_suffix, lenient: as in ``semantic_files.read_semantic``.
        classes, tolerance, spacing, ignore: as in ``SurfaceDistance``; one spacing for all files.

    Raises:
        InputError: as ``read_semantic``. ValueError: arguments that ``SurfaceDistance`` refuses.
    """
    metric = SurfaceDistance(classes, tolerance, spacing, ignore=ignore)
    dropped = compare_folders(
        metric.update_maps, truth, results, truth_suffix=truth_suffix, results_suffix=results_suffix, lenient=lenient
    )
    if lenient:
        metric.dropped = dropped
    return metric


def _box(a: np.ndarray, b: np.ndarray) -> tuple[slice, ...]:
    """Where either of two masks is; all where none is."""
    both = a | b
    out: list[slice] = []
    for axis in range(both.ndim):
        there = np.flatnonzero(both.any(tuple(other for other in range(both.ndim) if other != axis)))
        out.append(slice(int(there[0]), int(there[-1]) + 1) if there.size else slice(None))
    return tuple(out)
