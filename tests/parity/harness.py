"""Recorded outputs of official implementations, and our model loaded with the weights they were recorded with."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments
from maskwright.weights.importers import ModelImporter, require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.shared import shared

SIZE = (250, 310)


@cache
def recipe() -> ModuleType:
    """The module that regenerates weights and inputs."""
    spec = importlib.util.spec_from_file_location("parity_recipe", shared("parity/recipe.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Reference:
    """One family's recording: ``meta`` from its JSON, ``arrays`` from its npz, ``state`` as the origin names it."""

    family: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    state: dict[str, Tensor]

    @classmethod
    def read(cls, family: str) -> Reference:
        meta = json.loads(shared(f"parity/{family}.json").read_bytes())
        with np.load(shared(f"parity/{family}.npz")) as stored:
            arrays = {name: stored[name] for name in stored.files}
        filled = recipe().fill(meta["parameters"], meta["spec"])
        return cls(family, meta, arrays, {name: torch.from_numpy(np.asarray(v)) for name, v in filled.items()})

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.meta["arrays"][key]["shape"])

    def full(self, key: str) -> np.ndarray:
        """An array that was stored whole."""
        about = self.meta["arrays"][key]
        if about["kind"] == "packbits":
            return np.unpackbits(self.arrays[key])[: np.prod(about["shape"])].reshape(about["shape"]).astype(bool)
        assert about["flat_stride"] == 1, f"{key} was stored with gaps"
        return self.arrays[key].reshape(about["shape"])

    def pair(self, key: str, ours: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What was stored of ``key``, and the same elements of ours."""
        got = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        assert got.shape == self.shape(key), f"{key}: {got.shape}, recorded {self.shape(key)}"
        stride = self.meta["arrays"][key]["flat_stride"]
        return np.ascontiguousarray(got).reshape(-1)[::stride], self.arrays[key].reshape(-1)

    def near(self, key: str, ours: Tensor | np.ndarray, *, relative: float = 0.0, absolute: float = 0.0) -> None:
        """Assert that ours differs by at most ``relative`` of the map's largest value, or ``absolute``, NaN apart."""
        got, want = self.pair(key, ours)
        known = ~np.isnan(got)
        assert known.mean() > 0.9
        error = float(np.abs(got - want)[known].max())
        limit = relative * max(float(np.abs(want).max()), 1e-6) + absolute
        assert error <= limit, f"{self.family} {key}: differs by {error:.3g}, allowed {limit:.3g}"


@dataclass
class Case:
    """A reference, the importer that recognized it, and our model with its weights, in evaluation mode."""

    reference: Reference
    importer: ModelImporter
    model: Any

    @classmethod
    def make(cls, family: str) -> Case:
        reference = Reference.read(family)
        importer = require_importer(reference.state, family)
        state = reference.state
        model: Any = build(importer.model(state), importer.taxonomy(state), **importer.options(state))
        report = load_state(model, importer.convert(reference.state), source=family)
        assert report.complete or all(name.endswith("num_batches_tracked") for name in report.missing)
        thresholds = reference.meta["thresholds"]
        model.score_threshold, model.max_per_image = thresholds["score"], thresholds["topk"]
        model.nms_threshold = thresholds["nms"]
        return cls(reference, importer, model.eval())


def picture(size: tuple[int, int] = SIZE) -> Tensor:
    """The recipe's picture, uint8 [3, H, W]."""
    return torch.from_numpy(recipe().image(*size)).permute(2, 0, 1).contiguous()


def inputs(original: tuple[int, int] = SIZE) -> Images:
    """The recipe's picture as a padded input; results are asked for at ``original``."""
    return Images.pad([picture()], [Geometry.resized(original, SIZE)])


def batch() -> Batch:
    """The recipe's picture with its five objects."""
    boxes, labels, masks = recipe().targets(*SIZE)
    segments = Segments(
        size=SIZE,
        labels=torch.from_numpy(labels),
        boxes=torch.from_numpy(boxes),
        masks=Masks.from_dense(torch.from_numpy(masks)),
    )
    return Batch(inputs=inputs(), scenes=(Scene(size=SIZE, segments=segments),), keys=("recipe",))


def matched(
    boxes: np.ndarray, labels: np.ndarray, ours: np.ndarray, our_labels: np.ndarray, tolerance: float = 1e-2
) -> tuple[np.ndarray, np.ndarray]:
    """For each recorded box one of ours with its label: (index or -1, largest difference of a corner in pixels).

    Every one of ours is taken at most once, nearest pairs first; pairs further apart than ``tolerance`` are none, and
    what is nearest to them is only reported.
    """
    distance = np.abs(boxes[:, None] - ours[None]).max(-1)
    distance = np.where(labels[:, None] == our_labels[None], distance, np.inf)
    index, gap = np.full(len(boxes), -1), distance.min(1, initial=np.inf)
    taken = np.zeros(len(ours), bool)
    rows, columns = np.nonzero(distance <= tolerance)
    for k in np.argsort(distance[rows, columns], kind="stable"):
        row, column = rows[k], columns[k]
        if index[row] < 0 and not taken[column]:
            index[row], gap[row], taken[column] = column, distance[row, column], True
    gap[(index < 0) & (gap <= tolerance)] = np.inf
    return index, gap


def check_detections(case: Case, scene: Scene, prefix: str = "final", labels: np.ndarray | None = None) -> None:
    """Final boxes, scores, classes and masks against ``{prefix}_*``; at most two detections may differ (near ties)."""
    reference, found = case.reference, scene.objects()
    assert found.boxes is not None
    assert found.scores is not None
    assert found.masks is not None
    boxes, scores = reference.full(f"{prefix}_boxes"), reference.full(f"{prefix}_scores")
    wanted = labels if labels is not None else reference.full(f"{prefix}_classes")
    index, gap = matched(boxes, wanted, found.boxes.numpy(), found.labels.numpy())
    good = gap <= 1e-2
    assert abs(len(found) - len(boxes)) <= 2
    assert (~good).sum() <= 2, f"{(~good).sum()} of {len(boxes)} detections differ, by {np.sort(gap)[-5:]}"
    assert np.abs(found.scores.numpy()[index[good]] - scores[good]).max() <= 1e-3
    assert np.all(np.diff(found.scores.numpy()) <= 0)
    area, want = found.masks.area().numpy()[index[good]], reference.full(f"{prefix}_mask_area")[good]
    assert np.all(np.abs(area - want) <= np.maximum(5, 0.005 * want)), np.abs(area - want).max()
    masks = reference.full(f"{prefix}_masks_first20")
    first = np.flatnonzero(good[: len(masks)])
    dense = found.masks[torch.from_numpy(index[first])].dense().numpy()
    union, both = (dense | masks[first]).sum((1, 2)), (dense & masks[first]).sum((1, 2))
    assert np.all(both >= 0.995 * union - 3), (both / np.maximum(union, 1)).min()
