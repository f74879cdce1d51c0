"""``Scene``: what a file says, a network predicts, a person clicks and a metric compares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.ops.rle_maps import encode_map, renumber
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

    def classes(self) -> Tensor:
        """The class of each pixel, int64 [*size], -1 where void: ``semantic``, or what the panoptic segments say.

        Raises:
            ValueError: neither is known.
        """
        if self.semantic is not None:
            return self.semantic
        ids, segments = self._numbered()
        labels = segments.labels.cpu().numpy()
        return torch.tensor(renumber(ids, self._ids(segments), labels, -1), device=segments.labels.device)

    def with_masks(self) -> Scene:
        """The same scene; segments of a panoptic map whose masks are unknown get them, and boxes, cut out of it."""
        if self.panoptic is None or self.segments is None or self.segments.masks is not None:
            return self
        ids, segments = self._numbered()
        masks = Masks.from_arrays(*encode_map(ids, self._ids(segments)), self.size)
        boxes = masks.boxes().to(segments.labels.device) if segments.boxes is None else segments.boxes
        return replace(self, segments=replace(segments, masks=masks, boxes=boxes))

    def _numbered(self) -> tuple[np.ndarray, Segments]:
        known = self.panoptic is not None and self.segments is not None
        require(known, "this scene has no map of classes or segments (unknown); annotate or predict it first")
        assert self.panoptic is not None
        assert self.segments is not None
        return self.panoptic.cpu().numpy(), self.segments

    @staticmethod
    def _ids(segments: Segments) -> np.ndarray:
        require(segments.ids is not None, "the segments of a panoptic map must have ids, got none")
        assert segments.ids is not None
        return segments.ids.cpu().numpy()
