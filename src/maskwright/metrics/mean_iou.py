"""Semantic segmentation: ``MeanIoU`` and relatives. ``metrics.semantic_files`` makes one of files, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._label_maps import borders, check_maps, inner, pair_runs, some, summed

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

BOUNDARY_RATIO = 0.02
"""The width of boundaries as a share of the image's diagonal (Boundary IoU, section 4)."""

_VOID = -1  # what scenes mark void with


@dataclass(slots=True)
class Kept:
    """One image: which counters are not zero (int64 [N], rising), and what they hold (int64 [N])."""

    places: np.ndarray
    counts: np.ndarray


@dataclass(slots=True)
class Joined:
    """The counters of all images: whose each is, which it is, what it holds; int64 [N] each."""

    image: np.ndarray
    places: np.ndarray
    counts: np.ndarray


class MeanIoU(PerImage[Kept, Joined]):
    """Mean IoU and the other figures of a confusion matrix over all pixels of all images.

    IoU of a class is TP / (TP + FP + FN) over the pixels of all images together (M. Everingham et al., "The Pascal
    Visual Object Classes Challenge", 2015, section 4.3; M. Cordts et al., "The Cityscapes Dataset", 2016, section 4.1,
    equal to ``evalPixelLevelSemanticLabeling`` of cityscapesScripts). The others are those of J. Long et al., "Fully
    Convolutional Networks", 2015, section 5. A class that neither truth nor prediction has is undefined (-1.0) and does
    not enter means; one that is only predicted has IoU 0 and does. Accuracy is undefined without truth, precision
    without predictions.

    Pixels void in truth do not count. Pixels predicted void count as missed: they belong to no class.

    Trimaps (P. Kraehenbuehl and V. Koltun, "Efficient Inference in Fully Connected CRFs", 2011, section 4) restrict all
    this to a band along the borders of truth, void's included. A band of width w holds the pixels less than w pixels
    (between centers) from one that touches another label by a side; so it reaches w pixels to either side of a
    straight border.

    Boundary IoU (B. Cheng et al., CVPR 2021) compares, for each class, what is left of its masks when they are eroded
    and subtracted, pooled over images as IoU is. Void pixels of truth are void in the prediction before boundaries are
    drawn, so that a prediction equal to truth wherever that is known scores 1.

    Args:
        taxonomy: the classes, or their names; maps then hold 0 .. K - 1. Or ``{name: value}``, the values of maps and
            files, which need not be dense (labels of scenes are always dense).
        ignore: value or values of maps that are void, besides -1, which always is.
        trimaps: widths of bands, in pixels, above 0.
        boundary: state Boundary IoU too.
        boundary_ratio: the width of its boundaries as a share of the image's diagonal.
        categories: groups of classes by name; their IoUs are stated too. A confusion within one is none.

    Raises:
        ValueError: no or repeated classes, an ignored value that is a class, or numbers out of range.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str] | Mapping[str, int],
        ignore: int | Iterable[int] = 255,
        *,
        trimaps: Sequence[float] = (),
        boundary: bool = False,
        boundary_ratio: float = BOUNDARY_RATIO,
        categories: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.names, self.values = named(taxonomy)
        if not self.names or len(set(self.names)) < len(self.names) or len(set(self.values)) < len(self.values):
            raise ValueError(f"classes must be distinct, at least one, got {self.names} with values {self.values}")
        self.ignore = (int(ignore),) if isinstance(ignore, (int, np.integer)) else tuple(map(int, ignore))
        both = sorted({_VOID, *self.ignore} & set(self.values))
        if both:
            raise ValueError(f"values to ignore must not be classes, but {both} are. Pass another ignore=.")
        if not 0 < boundary_ratio < 1 or any(not width > 0 for width in trimaps):
            raise ValueError(f"boundary_ratio must lie in (0, 1), widths above 0, got {boundary_ratio}, {trimaps}")
        self.trimaps = tuple(map(float, trimaps))
        self.boundary, self.boundary_ratio = bool(boundary), float(boundary_ratio)
        self.categories = {name: tuple(members) for name, members in (categories or {}).items()}
        lost = [c for members in self.categories.values() for c in members if c not in self.names]
        if lost:
            raise ValueError(f"categories must hold classes of the taxonomy, but {lost[:5]} are none")

    def settings(self) -> Mapping[str, Any]:
        out = {"taxonomy": self.names, "trimaps": self.trimaps, "boundary": self.boundary}
        return out | ({"boundary_ratio": self.boundary_ratio} if self.boundary else {})

    # ---- images -----------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare the ``semantic`` maps of one image; what ``truth.ignore`` covers is void.

        Raises:
            ValueError: a map is unknown, sizes differ, a label lies outside of the taxonomy, or ``key`` came before.
        """
        self._check_key(key)
        if predicted.size != truth.size:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        if predicted.semantic is None or truth.semantic is None:
            raise ValueError("scenes to compare must have semantic maps, got none")
        there = truth.semantic.cpu().numpy()
        if truth.ignore is not None and len(truth.ignore):
            from maskwright.ops import rle

            whole = rle.union(truth.ignore.counts.numpy(), truth.ignore.offsets.numpy())
            there = np.where(rle.decode(whole, np.array([0, len(whole)]), truth.size)[0], _VOID, there)
        dense = {value: value for value in range(len(self.names))}
        self._keep(key, self._compare(predicted.semantic.cpu().numpy(), there, dense, (_VOID,)))

    def update_maps(self, predicted: np.ndarray, truth: np.ndarray, key: Key | None = None) -> None:
        """Compare one image, given as maps: integers [H, W], values of classes or void.

        Raises:
            ValueError: as ``update`` does; names the values that are neither.
        """
        self._check_key(key)
        dense = {value: place for place, value in enumerate(self.values)}
        self._keep(key, self._compare(predicted, truth, dense, (_VOID, *self.ignore)))

    def _compare(
        self, predicted: np.ndarray, truth: np.ndarray, classes: Mapping[int, int], void: Sequence[int]
    ) -> Kept:
        check_maps(predicted, truth)
        k = len(self.names)
        t_values, p_values, lengths = pair_runs(truth, predicted)
        t = _places(t_values, classes, void, lengths, "truth")
        p = _places(p_values, classes, void, lengths, "the prediction")
        counts = t < k
        places, amounts = [t[counts] * (k + 1) + p[counts]], [lengths[counts]]
        if (self.boundary or self.trimaps) and truth.size:
            # Long maps again, but with places of classes in a byte or two, void being k.
            small = np.uint8 if k < 255 else np.uint16
            t_map, p_map = (np.repeat(side.astype(small), lengths).reshape(truth.shape) for side in (t, p))
            start = k * (k + 1)
            if self.boundary:
                found = self._boundaries(t_map, p_map)
                places.append(start + np.arange(3 * k))
                amounts.append(found.reshape(-1))
                start += 3 * k
            if self.trimaps:
                found = self._bands(t_map, p_map)
                places.append(start + np.arange(found.size))
                amounts.append(found.reshape(-1))
        return Kept(*summed(np.concatenate(places), np.concatenate(amounts)))

    def _boundaries(self, t_map: np.ndarray, p_map: np.ndarray) -> np.ndarray:
        """Boundary pixels of each class common to both, of truth and of the prediction: int64 [3, K]."""
        k = len(self.names)
        margin = max(1, round(self.boundary_ratio * hypot(*t_map.shape)))
        p_map = np.where(t_map == k, np.asarray(k, p_map.dtype), p_map)
        of_truth, of_found = ~inner(t_map, margin), ~inner(p_map, margin)
        both = of_truth & of_found & (t_map == p_map)
        sides = ((t_map, both), (t_map, of_truth), (p_map, of_found))
        return np.array([np.bincount(side[where], minlength=k + 1)[:k] for side, where in sides])

    def _bands(self, t_map: np.ndarray, p_map: np.ndarray) -> np.ndarray:
        """Pixels of each class in each band common to both, of truth and predicted: int64 [widths, 3, K]."""
        from maskwright.ops.distance import distance_to

        k = len(self.names)
        out = np.zeros((len(self.trimaps), 3, k), np.int64)
        away = distance_to(borders(t_map))
        away[t_map == k] = np.inf
        for i, width in enumerate(self.trimaps):
            band = away < width
            t, p = t_map[band], p_map[band]
            for row, side in enumerate((t[t == p], t, p)):
                out[i, row] = np.bincount(side, minlength=k + 1)[:k]
        return out

    # ---- figures ----------------------------------------------------------------------------------------------------

    def confusion(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Pixels by true class (rows) and predicted class (columns; the last is void): int64 [K, K + 1]."""
        k = len(self.names)
        return self._totals(self._weights(weights))[: k * (k + 1)].reshape(k, k + 1)

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"semantic": {"mIoU": .., "per_class": {name: {...}}, "confusion": .., ...}, "images": I}``.

        Fractions; -1.0 where undefined. ``"semantic"`` holds ``mIoU``, ``fwIoU`` (weighted by the pixels of truth),
        ``mDice``, ``pixel_accuracy``, ``mean_accuracy``, and where asked for ``boundary_mIoU``, ``trimap_mIoU`` (a
        dict by width) and ``category_mIoU`` with ``per_category``. ``confusion`` are lists [K][K], pixels by true
        (outer) and predicted class; ``missed`` [K] are those predicted void.
        """
        times, k = self._weights(weights), len(self.names)
        totals = self._totals(times)
        whole = totals[: k * (k + 1)].reshape(k, k + 1)
        common, there, found = np.diagonal(whole), whole.sum(1), whole[:, :k].sum(0)
        ious = _ratio(common, there + found - common)
        each = {
            "IoU": ious,
            "accuracy": _ratio(common, there),
            "precision": _ratio(common, found),
            "Dice": _ratio(2 * common, there + found),
        }
        share = there / max(int(there.sum()), 1)
        out: dict[str, Any] = {
            "mIoU": _mean(ious),
            "fwIoU": float((share * np.maximum(ious, 0)).sum()) if there.any() else -1.0,
            "mDice": _mean(each["Dice"]),
            "pixel_accuracy": float(common.sum() / there.sum()) if there.any() else -1.0,
            "mean_accuracy": _mean(each["accuracy"]),
        }
        rest = totals[k * (k + 1) :].reshape(-1, 3, k)
        if self.boundary:
            each["boundary_IoU"] = _ratio(rest[0, 0], rest[0, 1] + rest[0, 2] - rest[0, 0])
            out["boundary_mIoU"] = _mean(each["boundary_IoU"])
            rest = rest[1:]
        if self.trimaps:
            bands = (_ratio(band[0], band[1] + band[2] - band[0]) for band in rest)
            out["trimap_mIoU"] = {f"{w:g}": _mean(band) for w, band in zip(self.trimaps, bands, strict=True)}
        if self.categories:
            grouped = self._grouped(whole)
            out["category_mIoU"] = _mean(grouped)
            out["per_category"] = dict(zip(self.categories, grouped.tolist(), strict=True))
        lists = zip(self.names, *(values.tolist() for values in each.values()), strict=True)
        out["per_class"] = {name: dict(zip(each, row, strict=True)) for name, *row in lists}
        out |= {"confusion": whole[:, :k].tolist(), "missed": whole[:, k].tolist()}
        return {"semantic": out, "images": int(times.sum())}

    def _grouped(self, whole: np.ndarray) -> np.ndarray:
        """IoU of each category, float64 [G]."""
        out: list[np.ndarray] = []
        for members in self.categories.values():
            rows = [self.names.index(name) for name in members]
            common, there = whole[np.ix_(rows, rows)].sum(), whole[rows].sum()
            out.append(_ratio(np.array(common), np.array(there + whole[:, rows].sum() - common)))
        return np.array(out)

    def _totals(self, times: np.ndarray) -> np.ndarray:
        k, joined = len(self.names), self._joined()
        size = k * (k + 1) + 3 * k * (self.boundary + len(self.trimaps))
        # Sums of integers are exact in float64 below 2^53: nine thousand billion pixels of one kind.
        sums = np.bincount(joined.places, weights=joined.counts * times[joined.image], minlength=size)
        return sums.astype(np.int64)

    def _join(self, images: Sequence[Kept]) -> Joined:
        image = np.repeat(np.arange(len(images)), [len(kept.places) for kept in images])
        none = np.zeros(0, np.int64)
        places = np.concatenate([none, *(kept.places for kept in images)])
        return Joined(image, places, np.concatenate([none, *(kept.counts for kept in images)]))


def named(taxonomy: Taxonomy | Sequence[str] | Mapping[str, int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of classes, and the value of each in maps."""
    if isinstance(taxonomy, Mapping):
        return tuple(map(str, taxonomy)), tuple(map(int, taxonomy.values()))
    names = cast("Sequence[str]", getattr(taxonomy, "names", taxonomy))
    return tuple(names), tuple(range(len(names)))


def _places(
    values: np.ndarray, classes: Mapping[int, int], void: Sequence[int], lengths: np.ndarray, what: str
) -> np.ndarray:
    """The place of the class of each value, int64 [R]; K where void."""
    k = len(classes)
    low, high = min(*classes, *void), max(*classes, *void)
    table = np.full(high - low + 2, -1, np.int64)  # the last place is for values beyond
    for value, place in classes.items():
        table[value - low] = place
    table[[value - low for value in void]] = k
    plain = values.astype(np.int64)
    beyond = (plain < low) | (plain > high)
    out = table[np.where(beyond, high - low + 1, plain - low)]
    unknown = out < 0
    if unknown.any():
        which, pixels = np.unique(values[unknown], return_inverse=True)
        counts = np.bincount(pixels, weights=lengths[unknown]).astype(np.int64)
        raise ValueError(
            f"labels of {what} must be classes ({_span(classes)}) or void ({', '.join(map(str, void))}), got "
            f"{some(which, counts)}"
        )
    return out


def _span(classes: Mapping[int, int]) -> str:
    values = sorted(classes)
    dense = values == list(range(values[0], values[0] + len(values)))
    return f"{values[0]} .. {values[-1]}" if dense else some(np.array(values))


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """``parts / wholes``, -1.0 where there is no whole; float64."""
    return np.where(wholes > 0, parts / np.maximum(wholes, 1), -1.0)


def _mean(values: np.ndarray) -> float:
    known = values[values >= 0]
    return float(known.mean()) if known.size else -1.0
