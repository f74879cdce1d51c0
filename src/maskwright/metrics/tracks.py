"""Tracks of objects over time, compared frame by frame: ``Tracking``. ``metrics.tracks_files`` makes one of MOTS files.

HOTA (J. Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021), IDF1 (E. Ristani
et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV-W 2016) and the CLEAR
measures in their form for masks (P. Voigtlaender et al., "MOTS", CVPR 2019; for boxes K. Bernardin and R. Stiefelhagen,
2008), with TrackEval's numbers. TrackEval itself is not used although its measures take arrays: to install it brings
matplotlib, opencv, pycocotools and tabulate, its files must lie in its layout of folders, and it gives figures where
resampling sequences needs counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics import _track_core as core
from maskwright.metrics._form import SIGNED, Key, PerImage
from maskwright.metrics._track_core import ALPHAS, COUNTS, INTEGERS, Sums, Tracks, box_similarity
from maskwright.metrics._tubes import Frame, frames

if TYPE_CHECKING:
    from maskwright.structures import Scene, Segments, Taxonomy

__all__ = ["ALPHAS", "Tracking", "Tracks", "box_similarity"]


class Tracking(PerImage[Sums, Sums]):
    """HOTA, IDF1 and CLEAR of tracks; its "images" are sequences.

    Found objects without a match are left out when more than half of one lies in regions that do not count. Sequences
    are combined by their sums, so longer ones weigh more; figures over all classes are means over the classes that
    occur (TrackEval's ``cls_comb_cls_av`` without empty classes), and ``by_object`` are those of all objects pooled
    (``cls_comb_det_av``).

    Args:
        taxonomy: the classes, or their names; labels lie in it.
        kind: ``"mask"`` or ``"box"``: what ``update`` and its like compare; the CLEAR figures are MOTSA, sMOTSA, MOTSP
            for the one and MOTA, sMOTA, MOTP for the other.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, taxonomy: Taxonomy | Sequence[str], kind: str = "mask") -> None:
        super().__init__()
        if kind not in ("mask", "box"):
            raise ValueError(f"kind must be 'mask' or 'box', got {kind!r}")
        self.taxonomy = taxonomy
        self.names = tuple(taxonomy if isinstance(taxonomy, Sequence) else taxonomy.names)
        self.kind = kind

    def settings(self) -> Mapping[str, Any]:
        return {"taxonomy": self.names, "kind": self.kind}

    # ---- sequences --------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one sequence given as scenes of size (T, H, W): each segment is a track, its mask a tube.

        Args:
            predicted, truth: segments with masks; scores are not looked at. ``truth.ignore`` covers what does not
                count; annotated crowds do so too, and are no tracks.
            key: the sequence's id.

        Raises:
            ValueError: sizes differ, masks are unknown, labels lie outside of the taxonomy, boxes are to be compared,
                or ``key`` came before.
        """
        if self.kind != "mask":
            raise ValueError("scenes hold tracks as masks; give boxes to update_tracks")
        if predicted.size != truth.size or len(truth.size) != 3:
            raise ValueError(f"scenes to compare must share one (T, H, W), got {predicted.size} and {truth.size}")
        self._check_key(key)
        size = (truth.size[0], truth.size[1], truth.size[2])
        found, there = predicted.objects(), truth.objects()
        for segments in (found, there):
            segments.validate(len(self.names))
            if segments.masks is None:
                raise ValueError("tracks to compare must have masks, got none")
        covers = [] if truth.ignore is None else [truth.ignore]
        if there.crowd is not None and there.masks is not None:
            covers.append(there.masks[there.crowd.cpu()])
            there = there[~there.crowd]
        ignore = [frames(m.counts.numpy(), m.offsets.numpy(), size) for m in covers if len(m)]
        sides = [_split(segments, size) for segments in (there, found)]
        labels = [segments.labels.cpu().numpy() for segments in (there, found)]
        shown = [[labels[side][frame.owners] for frame in sides[side]] for side in range(2)]
        self.update_frames(sides[1], shown[1], sides[0], shown[0], ignore, size[1], key)

    def update_frames(
        self,
        found: Sequence[Frame],
        labels: Sequence[np.ndarray],
        truth: Sequence[Frame],
        truth_labels: Sequence[np.ndarray],
        ignore: Sequence[Sequence[Frame]],
        height: int,
        key: Key | None = None,
    ) -> None:
        """Compare one sequence given as the run-lengths of its T frames (``_tubes.Frame``, the owners being tracks).

        Args:
            labels, truth_labels: T arrays int [n], the class of each mask.
            ignore: any number of further sequences of T frames: what does not count.
            height: rows of a frame.
        """
        from maskwright.ops import rle

        ious: list[np.ndarray] = []
        shares: list[np.ndarray] = []
        for t, (there, here) in enumerate(zip(truth, found, strict=True)):
            runs = here.counts, here.offsets
            ious.append(rle.iou(there.counts, there.offsets, *runs, height=height))
            share = np.zeros(len(here.owners))
            regions = [part[t] for part in ignore if len(part[t].owners)]
            if regions and len(share):
                cuts = np.concatenate([[0], *(np.diff(part.offsets) for part in regions)]).cumsum()
                whole = rle.union(np.concatenate([part.counts for part in regions]), cuts)
                common = rle.intersection(*runs, whole, np.array([0, len(whole)]), height=height)[:, 0]
                share = common / np.maximum(rle.area(*runs), 1)
            shares.append(share)
        tracks: dict[int, Tracks] = {}
        for k in range(len(self.names)):
            picks = [(there == k, here == k) for there, here in zip(truth_labels, labels, strict=True)]
            tracks[k] = Tracks(
                [frame.owners[g] for frame, (g, _) in zip(truth, picks, strict=True)],
                [frame.owners[d] for frame, (_, d) in zip(found, picks, strict=True)],
                [iou[np.ix_(g, d)] for iou, (g, d) in zip(ious, picks, strict=True)],
                [share[d] for share, (_, d) in zip(shares, picks, strict=True)],
            )
        self.update_tracks(tracks, key)

    def update_tracks(self, tracks: Mapping[int, Tracks], key: Key | None = None) -> None:
        """Compare one sequence whose similarities are known (``box_similarity`` gives those of boxes).

        Args:
            tracks: by label; classes that it lacks do not occur in the sequence.
            key: the sequence's id.

        Raises:
            ValueError: an unknown label, arrays that are not as ``Tracks`` states, or ``key`` came before.
        """
        self._check_key(key)
        count = len(self.names)
        sums = Sums(
            np.zeros((count, len(INTEGERS)), np.int64), np.zeros((count, 3, len(ALPHAS)), np.int64),
            np.zeros((count, 4, len(ALPHAS))), np.zeros(count),
        )  # fmt: skip
        for label, part in tracks.items():
            if not 0 <= label < count:
                raise ValueError(f"labels must be dense in 0 .. {count - 1}, got {label}")
            part.check()
            core.count_sequence(part, sums, label)
        self._keep(key, sums)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"HOTA": .., "IDF1": .., "MOTSA": .., .., "per_class": {name: {..}}, "by_object": {..}}, ..}``.

        HOTA and its parts are means over ``ALPHAS``. -1.0 where a class has neither truth nor results; MOTSA, sMOTSA,
        which may lie below 0 and below -1, are ``None`` there. ``switches``, ``fragments`` and the tracks by how long
        they were followed are counts; over all classes their sums. ``"sequences"`` says how many there were.
        """
        sums = self._summed(weights)
        each = [self._figures(Sums(*(a[k] for a in sums))) for k in range(len(self.names))]
        seen = [figures for figures, there in zip(each, core.occurs(sums[0]), strict=True) if there]
        whole = {
            name: (float(np.mean([f[name] for f in seen])) if name not in COUNTS else sum(f[name] for f in seen))
            if seen
            else each[0][name]
            for name in each[0]
        }
        pooled = self._figures(Sums(*(a.sum(0) for a in sums)))
        count = len(self) if weights is None else int(self._weights(weights).sum())
        per_class = dict(zip(self.names, each, strict=True))
        return {self.kind: {**whole, "per_class": per_class, "by_object": pooled}, "images": count, "sequences": count}

    def curves(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """HOTA and its parts over ``ALPHAS``: ``{"alphas": [19], "per_class": {name: {"HOTA": [19], ..}}}``."""
        sums = self._summed(weights)
        per_class = {name: core.hota(sums[1][k], sums[2][k]) for k, name in enumerate(self.names)}
        return {"alphas": ALPHAS.copy(), "per_class": per_class}

    def _figures(self, sums: Sums) -> dict[str, Any]:
        names = ("MOTSA", "sMOTSA", "MOTSP") if self.kind == "mask" else ("MOTA", "sMOTA", "MOTP")
        count = dict(zip(INTEGERS, map(int, sums.counts), strict=True))
        if not core.occurs(sums.counts):
            keys = (*core.MEANS, "IDF1", "IDP", "IDR", *names, "recall", "precision", *COUNTS)
            return {name: None if name in SIGNED else -1.0 for name in keys}
        out = {name: float(values.mean()) for name, values in core.hota(sums.pairs, sums.shares).items()}
        true, switches = count["IDTP"], count["switches"]
        out["IDF1"] = true / max(1.0, true + 0.5 * count["IDFP"] + 0.5 * count["IDFN"])
        out["IDP"], out["IDR"] = true / max(1, true + count["IDFP"]), true / max(1, true + count["IDFN"])
        true, false, soft = count["TP"], count["FP"], float(sums.similarity)
        there = max(1, true + count["FN"])
        accuracies = (true - false - switches) / there, (soft - false - switches) / there, soft / max(1, true)
        out |= dict(zip(names, accuracies, strict=True))
        out |= {"recall": true / there, "precision": true / max(1, true + false)}
        return out | {name: float(count[name]) for name in COUNTS}

    def _summed(self, weights: np.ndarray | None) -> tuple[np.ndarray, ...]:
        times, joined = self._weights(weights), self._joined()
        parts = (joined.counts, joined.pairs, joined.shares, joined.similarity)
        return tuple((part * times.reshape(-1, *([1] * (part.ndim - 1)))).sum(0) for part in parts)

    def _join(self, images: Sequence[Sums]) -> Sums:
        count = len(self.names)
        shapes = (count, len(INTEGERS)), (count, 3, len(ALPHAS)), (count, 4, len(ALPHAS)), (count,)
        kinds = np.int64, np.int64, np.float64, np.float64
        names = "counts", "pairs", "shares", "similarity"
        return Sums(
            *(
                np.array([getattr(image, name) for image in images], kind).reshape(-1, *shape)
                for name, kind, shape in zip(names, kinds, shapes, strict=True)
            )
        )


def _split(segments: Segments, size: tuple[int, int, int]) -> list[Frame]:
    assert segments.masks is not None
    return frames(segments.masks.counts.numpy(), segments.masks.offsets.numpy(), size)
