"""``Prompts``: what a person (or a weak label) says about where objects are, short of a full mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskwright.structures._check import check_size, check_tensor, require
from maskwright.structures.masks import Masks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompts:
    """Clicks, boxes, scribbles, coarse masks and words; weak labels are the same type.

    Attributes:
        size: the canvas, as in ``Scene``.
        points: float32 [K, D] in pixels, pixel centers at +0.5, innermost axis first (x, y).
        point_labels: int64 [K]; the object index a click belongs to, -1 for a background click.
        boxes: float32 [N, 2 * D], near corner then far corner.
        scribbles: one mask per object, any thickness.
        coarse: one rough mask per object.
        words: free text, one phrase per object.
    """

    size: tuple[int, ...]
    points: Tensor | None = None
    point_labels: Tensor | None = None
    boxes: Tensor | None = None
    scribbles: Masks | None = None
    coarse: Masks | None = None
    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        dims = len(self.size) if len(self.size) > 1 else 3
        if self.points is not None:
            check_tensor("points", self.points, ("K", dims), torch.float32)
            known = self.point_labels is not None
            require(known, "points need point_labels [K]: the object of each click, -1 for background")
        if self.point_labels is not None:
            require(self.points is not None, "point_labels came without points; pass both")
            count = 0 if self.points is None else len(self.points)
            check_tensor("point_labels", self.point_labels, (count,), torch.int64)
        if self.boxes is not None:
            check_tensor("boxes", self.boxes, ("N", 2 * dims), torch.float32)
        for name in ("scribbles", "coarse"):
            masks = getattr(self, name)
            got = self.size if masks is None else masks.size
            require(got == self.size, f"{name} must lie on size {self.size}, got {got}")

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts with points and boxes on ``device`` (run-lengths stay on the host)."""
        moved = {name: getattr(self, name) for name in ("points", "point_labels", "boxes")}
        return replace(self, **{name: None if t is None else t.to(device) for name, t in moved.items()})
