"""Where average precision is lost: ``ErrorAnalysis``, fed scene by scene; files are read by ``read_errors``.

After D. Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020: each false
detection and each missed truth gets one type, and a type's cost is the AP that mending all errors of it would bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics import _error_core as core
from maskwright.metrics._error_core import TYPES, Joined, Kept
from maskwright.metrics._form import Key, PerImage

if TYPE_CHECKING:
    from maskwright.structures import Scene, Segments, Taxonomy


class ErrorAnalysis(PerImage[Kept, Joined]):
    """AP at one IoU, what each type of error costs of it, which classes are confused, and which images are worst.

    Types of false detections, the first that fits (TIDE, section 2.2), with IoU to truths that are not ``crowd``:

    - ``localization``: a truth of its class between ``background`` and ``iou``; its mask (or box) is wrong;
    - ``class``: a truth of another class at ``iou`` or above;
    - ``duplicate``: a truth of its class at ``iou`` or above, which a better-scored detection has;
    - ``background``: no truth above ``background``;
    - ``both``: the rest, of wrong class and badly placed;
    - ``missed``: truths that no detection has, nor would have if its class or its mask were mended.

    Mending (section 2.3): a class or localization error becomes true where it is the best-scored one that points to a
    truth nobody has, else it is removed; duplicate, background and both errors are removed; a missed truth no longer
    counts. Two figures more: ``false_positives``, all false detections put behind the true ones, and
    ``false_negatives``, all truths that were not found no longer counted.

    Equal to the authors' tool (tidecv 1.0) where scores differ. Its habits are kept: AP is the mean over classes that
    have truth or detections, so a detected class without truth counts as 0 (COCO leaves it out); the best
    ``max_detections`` of an image count, over all classes (COCO: of each class); a detection inside a crowd, which
    counts for nothing, may still become true by mending. Where scores are equal, the tool puts errors first in mended
    runs only; here their order stays, so that mending never lowers AP by order alone. The tool's counts include
    detections inside crowds; here they do not.

    Args:
        classes: the taxonomy, or the names of the classes; labels lie in it.
        kind: ``"mask"`` or ``"box"``.
        iou: from which a detection is true; background: up to which it has nothing to do with a truth.
        max_detections: best-scored detections of an image that count.
    """

    def __init__(
        self,
        classes: Taxonomy | Sequence[str],
        kind: str = "mask",
        *,
        iou: float = 0.5,
        background: float = 0.1,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if kind not in ("mask", "box"):
            raise ValueError(f"kind must be 'mask' or 'box', got {kind!r}")
        if not 0 < background < iou <= 1:
            raise ValueError(f"0 < background < iou <= 1 must hold, got background {background} and iou {iou}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.names: tuple[str, ...] = tuple(getattr(classes, "names", classes))  # pyright: ignore[reportArgumentType]
        self.kind = kind
        self.iou = iou
        self.background = background
        self.max_detections = max_detections

    def settings(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("names", "kind", "iou", "background", "max_detections")}

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one image.

        Args:
            predicted: with scores, and masks (or boxes where boxes are compared).
            truth: on the same size; ``crowd`` marks regions of many objects, which neither count nor punish.
            key: the image's id.

        Raises:
            ValueError: sizes differ, scores are missing or outside [0, 1], labels outside of the classes, masks or
                boxes to compare are unknown, or ``key`` came before.
        """
        self._check_key(key)
        if predicted.size != truth.size or len(truth.size) != 2:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        found, there = predicted.objects(), truth.objects()
        if len(found) and found.scores is None:
            raise ValueError("predicted objects must have scores in [0, 1], got none")
        crowd = np.zeros(len(there), bool) if there.crowd is None else there.crowd.cpu().numpy()
        if self.kind == "box":
            overlaps = core.box_overlaps(_boxes(found), _boxes(there), crowd)
        else:
            overlaps = _mask_overlaps(found, there, crowd)
        scores = np.zeros(0) if found.scores is None else found.scores.detach().cpu().double().numpy()
        labels = [objects.labels.cpu().numpy() for objects in (found, there)]
        self.update_overlaps(labels[0], scores, labels[1], overlaps, crowd, key)

    def update_overlaps(
        self,
        labels: np.ndarray,
        scores: np.ndarray,
        true_labels: np.ndarray,
        overlaps: np.ndarray,
        crowd: np.ndarray | None = None,
        key: Key | None = None,
    ) -> None:
        """Compare one image by what overlaps.

        Args:
            labels: int [D], dense; scores: float [D] in [0, 1], of the detections.
            true_labels: int [G], dense.
            overlaps: float64 [D, G], IoU; for a crowd the share of the detection that lies in it.
            crowd: bool [G].
            key: the image's id.

        Raises:
            ValueError: shapes do not fit, values are out of range, or ``key`` came before.
        """
        self._check_key(key)
        crowd = np.zeros(len(true_labels), bool) if crowd is None else crowd.astype(bool)
        shapes = (scores.shape, overlaps.shape, crowd.shape)
        if shapes != (labels.shape, (len(labels), len(true_labels)), true_labels.shape):
            raise ValueError(f"scores [D], overlaps [D, G] and crowd [G] must fit labels, got shapes {shapes}")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"scores must lie in [0, 1], got {scores[~((scores >= 0) & (scores <= 1))][:5].tolist()}")
        for values in (labels, true_labels):
            if values.size and not (values.min() >= 0 and values.max() < len(self.names)):
                raise ValueError(f"labels must lie in [0, {len(self.names)}), got {values.min()}..{values.max()}")
        best = np.argsort(-scores, kind="stable")[: self.max_detections]
        limits = (self.iou, self.background)
        self._keep(key, core.compare(labels[best], scores[best], true_labels, overlaps[best], crowd, *limits))

    def _join(self, images: Sequence[Kept]) -> Joined:
        return core.join(images)

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"AP", "dAP": {type: ...}, "counts", "pearson", "spearman", "per_class"}, "images": I, ...}``.

        AP and dAP are fractions, -1.0 where there is nothing; dAP of the six types is at least 0. ``counts`` are
        integers: true positives, false positives, false negatives and each type. ``pearson`` and ``spearman`` relate
        score and IoU of the true positives; ``None`` where fewer than two or one of them does not vary.
        """
        joined, by_image = self._joined(), self._weights(weights)
        ap = core.mended(joined, by_image, len(self.names))
        counts = core.counts(joined, by_image, len(self.names))
        out = self._figures(core.over_classes(ap), counts.sum(0), clip=True)
        out |= core.correlations(joined, by_image)
        out["per_class"] = {name: self._figures(ap[k], counts[k]) for k, name in enumerate(self.names)}
        return {self.kind: out, "images": len(self), "max_per_image": self.max_detections}

    @staticmethod
    def _figures(ap: np.ndarray, counts: np.ndarray, clip: bool = False) -> dict[str, Any]:
        """Figures of one row of APs (see ``core.mended``) and of counts."""
        gains: dict[str, float] = {}
        for name, value in zip((*TYPES, "false_positives", "false_negatives"), ap[1:], strict=True):
            gain = float(value - ap[0]) if ap[0] >= 0 and value >= 0 else -1.0
            # A class that mending empties leaves the mean, which can lower it: the tool states 0 then.
            gains[name] = max(gain, 0.0) if clip and name in TYPES and ap[0] >= 0 and value >= 0 else gain
        numbers = {name: int(value) for name, value in zip(core.COUNTS, counts, strict=True)}
        return {"AP": float(ap[0]), "dAP": gains, "counts": numbers}

    def confusion(self, score: float = 0.5, weights: np.ndarray | None = None) -> np.ndarray:
        """Which class was taken for which: int64 [C + 1, C + 1], truth by row, detections by column, background last.

        Detections of at least ``score`` take, best first, the free truth of any class that they overlap most, at
        ``iou`` or above. Those left over count in the last row unless they lie in a crowd, truths left over in the
        last column.
        """
        return core.confusion(self._joined(), self._weights(weights), len(self.names), score)

    def per_image(self, score: float = 0.5) -> list[dict[str, Any]]:
        """Each image by itself, in the order of ``keys``, counting detections of at least ``score``.

        ``{"key", "true_positives", "false_positives", "false_negatives", type: n ..., "f1", "quality", "why"}``; f1
        and quality (F1 times the mean IoU of the true positives: panoptic quality) are -1.0 where there is nothing.
        ``why`` says in words what is wrong, by class.
        """
        counts, quality = core.by_image(self._joined(), score)
        texts = core.reasons(self._joined(), score, self.names)
        out: list[dict[str, Any]] = []
        for key, row, value, text in zip(self.keys, counts, quality, texts, strict=True):
            numbers = {name: int(n) for name, n in zip(core.COUNTS, row, strict=True)}
            out.append({"key": key, **numbers, "f1": float(value[0]), "quality": float(value[1]), "why": text})
        return out

    def worst(self, count: int = 10, score: float = 0.5) -> list[dict[str, Any]]:
        """The images of the lowest quality as in ``per_image``, worst first; of equal ones that with more errors."""
        rows = [row for row in self.per_image(score) if row["quality"] >= 0]
        wrong = "false_positives", "false_negatives"
        return sorted(rows, key=lambda row: (row["quality"], -sum(row[name] for name in wrong)))[:count]

    def detections(self) -> dict[str, np.ndarray]:
        """What is kept of detections that count, for curves: image int64 (place in ``keys``), label, score float64,
        true bool, iou float64 (with the truth it has; 0 where it is false), each [D]."""
        joined = self._joined()
        counts = joined.state != core.IGNORED
        true = joined.state[counts] == core.TRUE
        iou = np.where(true, joined.iou[counts], 0.0)
        out = {"image": joined.image[counts], "label": joined.label[counts], "score": joined.score[counts]}
        return out | {"true": true, "iou": iou}


def read_errors(
    truth: str | Path,
    results: str | Path,
    kind: str = "mask",
    *,
    iou: float = 0.5,
    background: float = 0.1,
    max_detections: int = 100,
    lenient: bool = False,
) -> ErrorAnalysis:
    """The error analysis of a COCO result file.

    Args:
        truth: COCO instances JSON; masks may be polygons or either run-length form.
        results: a JSON list of ``{image_id, category_id, score, segmentation and/or bbox}``.
        kind, iou, background, max_detections: as in ``ErrorAnalysis``.
        lenient: drop and count (``dropped``) entries that cannot be used instead of raising.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used; names the first five.
    """
    from maskwright.metrics._error_files import read

    names, images, dropped = read(Path(truth), Path(results), kind, lenient)
    limits: dict[str, Any] = {"iou": iou, "background": background, "max_detections": max_detections}
    out = ErrorAnalysis(names, kind, **limits)
    for image in images:
        out.update_overlaps(*image)
    out.dropped = dropped
    return out


def _boxes(objects: Segments) -> np.ndarray:
    """Boxes float64 [N, 4] as (x, y, width, height), of masks where there are none."""
    if objects.boxes is not None:
        corners = objects.boxes.detach().cpu().double().numpy()
    elif objects.masks is not None:
        corners = objects.masks.boxes().double().numpy()
    elif len(objects):
        raise ValueError("objects to compare as boxes must have boxes or masks, got neither")
    else:
        corners = np.zeros((0, 4))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _mask_overlaps(found: Segments, there: Segments, crowd: np.ndarray) -> np.ndarray:
    if not len(found) or not len(there):
        return np.zeros((len(found), len(there)))
    if found.masks is None or there.masks is None:
        raise ValueError("objects to compare as masks must have masks, got none. Compare boxes instead.")
    from maskwright.ops import rle

    runs = [(m.counts.numpy(), m.offsets.numpy()) for m in (found.masks, there.masks)]
    return rle.iou(*runs[0], *runs[1], crowd, height=found.size[0])
