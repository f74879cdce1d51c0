"""Sets of masks that learn at points: the criterion of Mask2Former (section 3.3) and of what follows it.

Predictions and objects are matched by their classes and by their masks at random points that all of a picture share;
each matched mask then learns at points of its own, mostly where it is unsure (PointRend's sampling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.parts.queries import Matches, QueryTruth, dice_cost, query_truth, silent_masks
from maskwright.nn.losses import Dice, Weighted, mask_bce
from maskwright.ops.assign_sets import match_sets
from maskwright.ops.point_sample import point_sample, sample_uncertain
from maskwright.protocols import MaskLoss
from maskwright.structures import Scene, Taxonomy

POINT_LOSS = Weighted(((5.0, mask_bce), (5.0, Dice(smooth=1.0, epsilon=0.0, squares=False))))
"""Binary cross-entropy and Dice, five times each (section 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointCriterion:
    """Numbers of the matching and of the sampling; the defaults are the paper's.

    Attributes:
        points: of each mask. oversample, importance: see ``ops.point_sample.sample_uncertain``.
        class_cost, mask_cost, dice_cost: factors of what a pair costs.
        no_object: weight of a query that stands for nothing, in the loss of classes.
    """

    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    class_cost: float = 2.0
    mask_cost: float = 5.0
    dice_cost: float = 5.0
    no_object: float = 0.1

    @torch.no_grad()
    def match(
        self, layers: Sequence[tuple[Tensor, Tensor]], targets: Sequence[PointTargets]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """The (query, object) pairs of each picture, for each layer's [B, Q, C + 1] and [B, Q, h, w]."""
        with torch.autocast(layers[0][1].device.type, enabled=False):
            costs = [
                self.cost(classes[i], masks[i], target) for classes, masks in layers for i, target in enumerate(targets)
            ]
        pairs, count = match_sets(costs), len(targets)
        return [pairs[start : start + count] for start in range(0, len(pairs), count)]

    def cost(self, classes: Tensor, masks: Tensor, target: PointTargets) -> Tensor:
        """[Q, G]: what each pair of a query and an object of one picture costs."""
        points = torch.rand(1, self.points, 2, device=masks.device)
        logits = point_sample(masks[None].float(), points)[0]
        wanted = target.at(torch.arange(len(target), device=masks.device), points.expand(len(target), -1, -1))
        void = target.void_at(points)
        if void is not None:
            logits, wanted = logits[:, ~void[0]], wanted[:, ~void[0]]
        prob = classes.float().softmax(-1)[:, target.labels]
        # cross-entropy of x against t is softplus(x) - x t
        mask = (functional.softplus(logits).sum(1)[:, None] - logits @ wanted.T) / max(logits.shape[1], 1)
        return self.mask_cost * mask + self.dice_cost * dice_cost(logits, wanted) - self.class_cost * prob

    def mask_loss(self, masks: Tensor, targets: Sequence[PointTargets], matches: Matches, loss: MaskLoss) -> Tensor:
        """``loss`` of the matched ones of [B, Q, h, w] at their points, a mean over the objects there are."""
        logits = masks[matches.picture, matches.query][:, None].float()
        if not len(logits):
            return logits.sum() * 0.0
        points = sample_uncertain(logits, self.points, oversample=self.oversample, importance=self.importance)
        values = point_sample(logits, points)[:, 0]
        wanted = torch.empty_like(values)
        for i, target in enumerate(targets):
            here = matches.picture == i
            wanted[here] = target.at(matches.object[here], points[here])
            void = target.void_at(points[here])
            if void is not None:  # surely background there, and right
                hidden = torch.zeros_like(values, dtype=torch.bool)
                hidden[here] = void
                values, wanted = values.masked_fill(hidden, -20.0), wanted.masked_fill(hidden, 0.0)
        objects = sum(len(target) for target in targets)
        return loss(values[:, None], wanted[:, None]) * (len(values) / objects)


@dataclass(frozen=True, slots=True)
class PointTargets:
    """One picture's objects, on the padded picture.

    Attributes:
        labels: int64 [G]. masks: bool [G, H, W]. ignored: bool [H, W], or ``None`` for nowhere.
    """

    labels: Tensor
    masks: Tensor
    ignored: Tensor | None

    @classmethod
    def of(cls, truth: QueryTruth, padded: tuple[int, int]) -> PointTargets:
        """The masks of ``truth``, drawn."""
        index = torch.arange(len(truth.labels))
        return cls(truth.labels, truth.dense(index, padded), truth.ignored)

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, which: Tensor, points: Tensor) -> Tensor:
        """float32 [N, P]: masks ``which`` [N], bilinear at ``points`` [N, P, 2] in [0, 1], zero beyond the picture."""
        height, width = self.masks.shape[1:]
        x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
        left, top = x.floor(), y.floor()
        across, down = x - left, y - top
        flat, start = self.masks.reshape(-1), which[:, None] * (height * width)
        out = torch.zeros_like(x)
        for column, east in ((left, 1 - across), (left + 1, across)):
            for row, south in ((top, 1 - down), (top + 1, down)):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                cell = row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
                out += (flat[start + cell] & inside) * (east * south)
        return out

    def void_at(self, points: Tensor) -> Tensor | None:
        """bool [N, P]: which points [N, P, 2] lie in ignored regions; ``None`` if there are none."""
        if self.ignored is None:
            return None
        height, width = self.ignored.shape
        x = (points[..., 0] * width).long().clamp(0, width - 1)
        y = (points[..., 1] * height).long().clamp(0, height - 1)
        return self.ignored[y, x]


@dataclass(frozen=True, slots=True)
class Learned:
    """What the queries of B pictures learn: each picture's objects, and for each layer who stands for what."""

    targets: list[PointTargets]
    matches: list[Matches]

    @classmethod
    def of(
        cls,
        layers: Sequence[tuple[Tensor, Tensor]],
        scenes: Sequence[Scene],
        taxonomy: Taxonomy,
        padded: tuple[int, int],
        criterion: PointCriterion,
    ) -> Learned:
        """Match each layer's classes [B, Q, C + 1] and masks [B, Q, h, w] of the ``padded`` pictures for itself."""
        known = [query_truth(scene, taxonomy, padded, layers[0][1].device) for scene in scenes]
        targets = [PointTargets.of(truth, padded) for truth in known]
        pairs = criterion.match(layers, targets)
        silent = [silent_masks(masks, known) for _, masks in layers]
        return cls(targets, [Matches.of(found, known, calm) for found, calm in zip(pairs, silent, strict=True)])

    @property
    def objects(self) -> int:
        """How many there are to learn, in all pictures."""
        return sum(len(target) for target in self.targets)

    def losses(
        self, layers: Sequence[tuple[Tensor, Tensor]], criterion: PointCriterion, loss: MaskLoss
    ) -> dict[str, Tensor]:
        """``class`` and ``mask`` of the last layer, ``class_0``, ``mask_0`` and so on of those before."""
        out: dict[str, Tensor] = {}
        for name, (classes, masks), matches in zip(self.names, layers, self.matches, strict=True):
            total, weight = matches.class_sum(classes, criterion.no_object)
            out[f"class{name}"] = total / weight.clamp(min=1e-6)
            out[f"mask{name}"] = criterion.mask_loss(masks, self.targets, matches, loss)
        return out

    def counts(self, layers: Sequence[tuple[Tensor, Tensor]], criterion: PointCriterion) -> dict[str, Tensor]:
        """What each of the losses is a mean over."""
        out: dict[str, Tensor] = {}
        for name, (classes, _), matches in zip(self.names, layers, self.matches, strict=True):
            out[f"class{name}"] = matches.weights(classes, criterion.no_object).sum()
            out[f"mask{name}"] = out[f"class{name}"].new_tensor(float(self.objects))
        return out

    @property
    def names(self) -> list[str]:
        """What the layers' losses end with."""
        return [*(f"_{i}" for i in range(len(self.matches) - 1)), ""]


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Each loss times the weight of its kind, ``class`` or ``mask``; 1 where none is given."""
    return {name: value * weights.get(name.partition("_")[0], 1.0) for name, value in losses.items()}
