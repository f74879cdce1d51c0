"""``Scene``: what a file says, a network predicts, a person clicks and a metric compares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskwright.structures._check import check_size, check_tensor, require
from maskwright.structures.masks import Masks
from maskwright.structures.prompts import Prompts
from maskwright.structures.segments import Segments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Everything known about one image, clip, volume or cloud. ``None`` means unknown, not empty.

    Attributes:
        size: ``(H, W)``, ``(T, H, W)``, ``(D, H, W)`` or ``(P,)``.
        segments: the objects.
        semantic: int64 [*size], a dense label per pixel, -1 where void.
        panoptic: int64 [*size], the segment id of each pixel (``segments.ids``), 0 where void.
        prompts: clicks, boxes, scribbles, words.
        ignore: regions that neither train nor count, as masks on ``size``.

    Raises:
        TypeError, ValueError: a field does not lie on ``size`` or has another dtype than stated.
    """

    size: tuple[int, ...]
    segments: Segments | None = None
    semantic: Tensor | None = None
    panoptic: Tensor | None = None
    prompts: Prompts | None = None
    ignore: Masks | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        for name in ("segments", "prompts", "ignore"):
            part = getattr(self, name)
            if part is not None:
                hint = " Did you pass (W, H)?" if part.size == self.size[::-1] else ""
                require(part.size == self.size, f"{name} must lie on size {self.size}, got {part.size}.{hint}")
        for name in ("semantic", "panoptic"):
            value = getattr(self, name)
            if value is not None:
                check_tensor(name, value, self.size, torch.int64)

    def to(self, device: torch.device | str) -> Scene:
        """The same scene with its tensors on ``device`` (run-lengths stay on the host)."""
        parts = {name: getattr(self, name) for name in ("segments", "semantic", "panoptic", "prompts")}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})

    def objects(self) -> Segments:
        """The segments, or an error that says they are unknown."""
        require(self.segments is not None, "this scene has no segments (unknown); annotate or predict it first")
        assert self.segments is not None
        return self.segments
