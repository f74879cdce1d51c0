"""``Looks``: several models, or one model from several sides, in a model's place.

It is used as any model is (``predict``, ``stream``, ``evaluate``, tiles): ``forward`` takes pictures in the size of
their files, each model resizes them by its own rule, and what all say comes back as one scene (``infer.merge``).
``infer.augmented`` and ``infer.ensemble`` make it.

    model  ->  view (turn, mirror)  ->  its own resize times the view's scale  ->  forward, predict  ->  turned back

Turns and mirrors are undone exactly (``data.augment.test_time``); a view's scale goes into the resize, so objects come
in the file's own pixels and nothing is enlarged twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from maskwright.data.augment.test_time import View
from maskwright.errors import InputError
from maskwright.infer.merge import Merging, merge
from maskwright.infer.ready import Sizing, prepare, sizing
from maskwright.nn.modes import evaluating
from maskwright.ops.query_maps import Resampling
from maskwright.protocols import Model, task_of
from maskwright.structures import Batch, Geometry, Images, Resize, Scene


@runtime_checkable
class LogitMaps(Protocol):
    """Raw output of a semantic family that has a logit a class: [B, C, h, w], of pictures ``padded`` to (H, W)."""

    semantic_logits: Tensor
    padded: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said of each picture.

    Attributes:
        scenes: for each picture what each look says, in file pixels, classes numbered as the first model's.
        prob: for each picture the mean class probabilities float32 [C, H, W], where all models have logits a class.
    """

    scenes: list[list[Scene]]
    prob: list[Tensor] | None


class Looks(nn.Module):
    """Models times views, merged.

    Args:
        models: of one task and the same class names; the first one numbers the classes.
        views: every model looks at every view.
        weights: one a model, above 0; all 1 by default.
        resize: how each model's pictures are resized; ``"default"`` is each model's own way.
        agree: the mask IoU above which objects are one (``infer.merge``).

    Attributes:
        score_threshold: of merged objects; the models themselves keep their own. Panoptic and semantic models, whose
            decisions cannot be taken back, get it where it is changed.
        max_per_image: of the models, and of what is left after merging.

    Raises:
        InputError: no models, tasks or classes that differ, or weights that are not one a model and above 0.
    """

    size_divisor = 1

    def __init__(
        self,
        models: Sequence[Model],
        *,
        views: Sequence[View] = (View(),),
        weights: Sequence[float] | None = None,
        resize: Sizing = "default",
        agree: float = 0.5,
    ) -> None:
        super().__init__()
        shares = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
        if not models or not views:
            raise InputError("looking needs one model and one view at least.")
        if len(shares) != len(models) or any(not 0 < share < float("inf") for share in shares):
            raise InputError(f"there must be one weight above 0 for each of the {len(models)} models, got {shares}.")
        if not 0 < agree < 1:
            raise InputError(f"the IoU above which objects are one must lie in (0, 1), got {agree}.")
        self.models = nn.ModuleList([cast(nn.Module, model) for model in models])
        self.pairings = [_pairing(models[0], model) for model in models]
        self.views, self.shares, self.agree = tuple(views), shares, agree
        self.sizings = [sizing(model.resize, resize) for model in models]
        self.taxonomy, self.task, self.resize = models[0].taxonomy, task_of(models[0]), Resize()
        self.score_threshold = self._usual = min(float(model.score_threshold) for model in models)
        self.max_per_image = max(int(model.max_per_image) for model in models)

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Answers:
        """Every look at every picture; ``scenes`` change nothing."""
        pictures = [
            pixels[:, : view.valid[0], : view.valid[1]].cpu()
            for pixels, view in zip(inputs.pixels, inputs.geometry, strict=True)
        ]
        said: list[list[Scene]] = [[] for _ in pictures]
        sums: list[Tensor | None] = [None] * len(pictures)
        total, told = sum(self.shares) * len(self.views), self.task == "semantic"
        for index, share in enumerate(self.shares):
            for view in self.views:
                found, maps = self._look(index, view, pictures, inputs)
                told = told and maps is not None
                for i, scene in enumerate(found):
                    said[i].append(scene)
                    if maps is not None:
                        part = maps[i].mul_(share / total)
                        known = sums[i]
                        sums[i] = part if known is None else known.add_(part)
        return Answers(said, [each for each in sums if each is not None] if told else None)

    def _look(
        self, index: int, view: View, pictures: Sequence[Tensor], inputs: Images
    ) -> tuple[list[Scene], list[Tensor] | None]:
        """What one model says of one view of each picture, turned back; class probabilities where it has them."""
        model, turn = cast(Model, self.models[index]), replace(view, scale=1.0)
        sizes = [g.original for g in inputs.geometry]
        seen = [(size[1], size[0]) if view.transpose else size for size in sizes]
        how, where = self.sizings[index], inputs.pixels.device
        ready = [
            prepare(turn.pixels(picture), how, scale=view.scale, original=size)
            for picture, size in zip(pictures, seen, strict=True)
        ]
        images = Images.pad([r.pixels for r in ready], [r.geometry for r in ready], multiple=model.size_divisor)
        settings: dict[str, float] = {"max_per_image": self.max_per_image}
        if self.task != "instance" and self.score_threshold != self._usual:
            settings["score_threshold"] = self.score_threshold
        with torch.no_grad(), evaluating(self.models[index], settings):
            raw = self.models[index](images.to(where))
            with torch.autocast(where.type, enabled=False):
                if self.task == "semantic" and isinstance(raw, LogitMaps):
                    maps = [
                        self._in_order(turn.pixels_back(_probabilities(logits, raw.padded, g), size), index)
                        for logits, g, size in zip(raw.semantic_logits, images.geometry, sizes, strict=True)
                    ]
                    return [_likeliest(each, size, 0.0) for each, size in zip(maps, sizes, strict=True)], maps
                found = model.predict(raw, images.geometry)
        back = [turn.back(scene.to("cpu"), size) for scene, size in zip(found, sizes, strict=True)]
        return [_renumbered(scene, self.pairings[index]) for scene in back], None

    def _in_order(self, prob: Tensor, index: int) -> Tensor:
        """Class probabilities [C, H, W] of a model, in the order of the first model's classes."""
        return torch.empty_like(prob).index_copy_(0, self.pairings[index], prob)

    def loss(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Merged looks are not trained; always an ``InputError``."""
        raise InputError("merged looks cannot be trained. Train their models one by one.")

    def loss_counts(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """As ``loss``."""
        return self.loss(raw, batch)

    @torch.no_grad()
    def predict(self, raw: Answers, geometry: Sequence[Geometry]) -> list[Scene]:
        """One scene for each picture, in file pixels."""
        sizes = [view.original for view in geometry]
        if raw.prob is not None:
            return [_likeliest(each, size, self.score_threshold) for each, size in zip(raw.prob, sizes, strict=True)]
        weights = [share for share in self.shares for _ in self.views]
        how = Merging(agree=self.agree, score_threshold=self.score_threshold, max_per_image=self.max_per_image)
        return [merge(each, weights, self.task, self.taxonomy, how) for each in raw.scenes]


def _pairing(first: Model, other: Model) -> Tensor:
    """For each class of ``other`` its number in ``first``, int64 [C]."""
    if task_of(first) != task_of(other):
        raise InputError(f"models to merge must have one task, got {task_of(first)} and {task_of(other)}.")
    mine, theirs = first.taxonomy, other.taxonomy
    if set(mine.names) != set(theirs.names):
        odd = sorted(set(mine.names) ^ set(theirs.names))
        some = f"{', '.join(odd[:5])}{f' and {len(odd) - 5} more' if len(odd) > 5 else ''}"
        raise InputError(
            f"models to merge must know the same classes, but only some of them know {some}. Take models trained on "
            "the same data."
        )
    pairing = [mine.index(name) for name in theirs.names]
    odd = [
        name for i, name in zip(pairing, theirs.names, strict=True) if mine.thing[i] != theirs.thing[theirs.index(name)]
    ]
    if odd:
        raise InputError(f"models to merge must agree on what is a thing, but do not on {', '.join(odd[:5])}.")
    return torch.tensor(pairing, dtype=torch.int64)


def _renumbered(scene: Scene, pairing: Tensor) -> Scene:
    if scene.segments is not None:
        scene = replace(scene, segments=replace(scene.segments, labels=pairing[scene.segments.labels]))
    if scene.semantic is not None:  # -1, void, takes the last place
        scene = replace(scene, semantic=torch.cat([pairing, torch.tensor([-1])])[scene.semantic])
    return scene


def _probabilities(logits: Tensor, padded: tuple[int, int], view: Geometry) -> Tensor:
    """Class probabilities float32 [C, H, W], on the host, of logits [C, h, w], enlarged as the families do."""
    way = Resampling.chained((logits.shape[-2], logits.shape[-1]), padded, view.valid, view.original)
    out = torch.empty((len(logits), *way.size))
    for rows, columns, values in way.tiles(logits):
        out[:, rows, columns] = values.softmax(0).cpu()
    return out


def _likeliest(prob: Tensor, size: tuple[int, int], threshold: float) -> Scene:
    best, label = prob.max(0)
    return Scene(size=size, semantic=label.masked_fill(best < threshold, -1))
