"""``Segments``: the objects of a scene, annotated or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maskwright.structures._check import check_size, check_tensor, require
from maskwright.structures.masks import Masks

_PER_OBJECT = ("labels", "boxes", "scores", "ids", "crowd")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """N objects on one canvas; annotation and prediction are the same type.

    Attributes:
        size: ``(H, W)``, ``(T, H, W)``, ``(D, H, W)`` or ``(P,)``.
        labels: int64 [N], dense 0..C-1; never background, never void.
        masks: N masks on ``size``, or ``None`` where they are unknown.
        boxes: float32 [N, 2 * D], near corner then far corner, absolute pixels: (x1, y1, x2, y2) on an image.
        scores: float32 [N] in [0, 1]; ``None`` means annotated.
        ids: int64 [N], identity over time, or the segment (annotation) id.
        crowd: bool [N], regions of many objects that no prediction is punished for.

    Raises:
        TypeError, ValueError: a field has another type, dtype, length or range than stated here.
    """

    size: tuple[int, ...]
    labels: Tensor
    masks: Masks | None = None
    boxes: Tensor | None = None
    scores: Tensor | None = None
    ids: Tensor | None = None
    crowd: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        check_tensor("labels", self.labels, ("N",), torch.int64, "Labels are one integer per object.")
        count, dims = len(self.labels), max(len(self.size), 2)
        if self.masks is not None:
            require(
                self.masks.size == self.size,
                f"masks must have shape {(count, *self.size)} (N, *size), got {(len(self.masks), *self.masks.size)}."
                + (" Did you pass (W, H)?" if self.masks.size == self.size[::-1] else ""),
            )
            require(len(self.masks) == count, f"masks must be one per label ({count}), got {len(self.masks)}")
        if self.boxes is not None:
            boxes_dims = self.boxes.shape[-1] // 2 if self.boxes.ndim == 2 and len(self.size) != 2 else dims
            check_tensor("boxes", self.boxes, (count, 2 * boxes_dims), torch.float32, "Boxes are (x1, y1, x2, y2).")
        for name, dtype in (("scores", torch.float32), ("ids", torch.int64), ("crowd", torch.bool)):
            value = getattr(self, name)
            if value is not None:
                check_tensor(name, value, (count,), dtype)

    def validate(self, classes: int | None = None) -> Segments:
        """Check values too (they cost a device sync, so construction checks only forms); returns itself.

        Raises:
            ValueError: a label outside [0, classes), a score outside [0, 1] or NaN, a box that is not finite or whose
                far corner lies before its near corner.
        """
        if len(self) == 0:
            return self
        low, high = int(self.labels.min()), int(self.labels.max())
        require(
            low >= 0 and (classes is None or high < classes),
            f"labels must be dense in [0, {classes if classes is not None else 'C'}), got {low}..{high}. "
            "Map file ids with Taxonomy.label_of.",
        )
        if self.scores is not None:
            bad = ~((self.scores >= 0) & (self.scores <= 1))
            require(not bool(bad.any()), f"scores must lie in [0, 1], got {_numbers(self.scores[bad][:5])}")
        if self.boxes is not None:
            half = self.boxes.shape[1] // 2
            bad = ~(torch.isfinite(self.boxes).all(1) & (self.boxes[:, half:] >= self.boxes[:, :half]).all(1))
            require(
                not bool(bad.any()),
                f"boxes must be finite with x2 >= x1 and y2 >= y1, got {_numbers(self.boxes[bad][:3])}. "
                "Did you pass (x, y, w, h)?",
            )
        return self

    @classmethod
    def empty(cls, size: Sequence[int], *, scored: bool = False) -> Segments:
        """No objects, with empty masks and boxes; ``scored`` for an empty prediction."""
        return cls(
            size=tuple(size),
            labels=torch.zeros(0, dtype=torch.int64),
            masks=Masks.empty(size),
            boxes=torch.zeros(0, 2 * max(len(size), 2)),
            scores=torch.zeros(0) if scored else None,
        )

    @classmethod
    def cat(cls, parts: Sequence[Segments]) -> Segments:
        """The objects of all ``parts`` in order.

        Raises:
            ValueError: sizes differ, or a field is known in some parts and unknown in others.
        """
        require(len(parts) > 0, "cat needs at least one Segments; use Segments.empty(size) for none")
        sizes = {part.size for part in parts}
        require(len(sizes) == 1, f"segments to concatenate must share one size, got {sorted(sizes)}")
        fields: dict[str, Tensor | None] = {}
        for name in _PER_OBJECT:
            values = [getattr(part, name) for part in parts]
            known = [value for value in values if value is not None]
            _all_or_none(name, len(known), len(parts))
            fields[name] = torch.cat(known) if known else None
        masks = [part.masks for part in parts if part.masks is not None]
        _all_or_none("masks", len(masks), len(parts))
        labels = fields.pop("labels")
        assert labels is not None
        return cls(size=parts[0].size, labels=labels, masks=Masks.cat(masks) if masks else None, **fields)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Segments:
        """Select objects by slice, integer indices or a bool mask [N]; always returns ``Segments``."""
        chosen = index if isinstance(index, (slice, Tensor)) else torch.as_tensor(index, dtype=torch.int64)
        if isinstance(chosen, Tensor):
            flat = chosen.ndim <= 1
            require(flat, f"an index must be a slice, integers or a bool mask [N], got shape {tuple(chosen.shape)}")
            chosen = chosen.reshape(-1)
        taken: dict[str, Any] = {}
        for name in (*_PER_OBJECT, "masks"):
            value = getattr(self, name)
            if value is not None:
                device = value.device if isinstance(value, Tensor) else "cpu"
                taken[name] = value[chosen.to(device) if isinstance(chosen, Tensor) else chosen]
        return replace(self, **taken)

    def to(self, device: torch.device | str) -> Segments:
        """The same objects with their tensors on ``device`` (run-lengths stay on the host)."""
        return replace(self, **{n: v.to(device) for n in _PER_OBJECT if (v := getattr(self, n)) is not None})


def _all_or_none(name: str, known: int, parts: int) -> None:
    require(known in (0, parts), f"{name} must be known in all parts or in none, got {known} of {parts}")


def _numbers(values: Tensor) -> str:
    return str(values.cpu().numpy().tolist())
