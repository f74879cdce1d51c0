"""``Masks``: N binary masks as run-lengths; pixels only when asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.ops import rle
from maskwright.structures._check import check_size, check_tensor, require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """N binary masks on one canvas, stored as run-lengths.

    The runs alternate background, foreground, background …, starting with background (possibly 0 long). The last two
    axes are walked column by column as in COCO; leading axes (time, depth) are the slowest. A cloud ``(P,)`` is walked
    in order. Run-lengths always live on the host: they are what files, metrics and results are made of.

    Attributes:
        size: ``(H, W)``, ``(T, H, W)``, ``(D, H, W)`` or ``(P,)``.
        counts: int32 [R], the runs of all masks one after the other.
        offsets: int64 [N + 1]; mask ``i`` owns ``counts[offsets[i] : offsets[i + 1]]``.

    Raises:
        ValueError: the runs of a mask do not add up to the canvas, or are negative.
    """

    size: tuple[int, ...]
    counts: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        check_tensor("counts", self.counts, ("R",), torch.int32)
        check_tensor("offsets", self.offsets, ("N + 1",), torch.int64)
        host = self.counts.device.type == "cpu" and self.offsets.device.type == "cpu"
        require(host, f"run-lengths live on the host, got them on {self.counts.device}. Use .cpu().")
        bad = rle.first_invalid(self.counts.numpy(), self.offsets.numpy(), prod(self.size))
        require(
            bad < 0,
            f"run-lengths must be non-negative and add up to {prod(self.size)} = {'x'.join(map(str, self.size))} "
            f"pixels; mask {bad} does not. Was it made for another size?",
        )

    # ---- construction -------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, size: Sequence[int]) -> Masks:
        """No masks on a canvas of ``size``."""
        counts = torch.zeros(0, dtype=torch.int32)
        return cls(size=tuple(size), counts=counts, offsets=torch.zeros(1, dtype=torch.int64))

    @classmethod
    def from_dense(cls, masks: Tensor) -> Masks:
        """Encode bool or integer masks [N, *size] (non-zero is foreground)."""
        require(masks.ndim >= 2, f"masks must have shape (N, *size), got {tuple(masks.shape)}. Add a leading axis.")
        counts, offsets = rle.encode((masks != 0).cpu().numpy())
        return cls(size=tuple(masks.shape[1:]), counts=_tensor(counts), offsets=_tensor(offsets))

    @classmethod
    def from_arrays(cls, counts: np.ndarray, offsets: np.ndarray, size: Sequence[int]) -> Masks:
        """Wrap what ``ops.rle`` returns: counts int32 [R], offsets int64 [N + 1]."""
        return cls(size=tuple(size), counts=_tensor(counts), offsets=_tensor(offsets))

    @classmethod
    def from_coco(cls, objects: Iterable[dict[str, Any]], size: Sequence[int]) -> Masks:
        """Read COCO run-length dictionaries (``counts`` a string, bytes or a list of integers)."""
        counts, offsets = rle.from_coco(list(objects), check_size(size))
        return cls.from_arrays(counts, offsets, size)

    @classmethod
    def cat(cls, parts: Sequence[Masks]) -> Masks:
        """All masks of ``parts``, which share one size, in order."""
        require(len(parts) > 0, "cat needs at least one Masks; use Masks.empty(size) for none")
        sizes = {part.size for part in parts}
        require(len(sizes) == 1, f"masks to concatenate must share one size, got {sorted(sizes)}")
        starts = np.cumsum([0] + [len(part.counts) for part in parts])
        offsets = [part.offsets[:-1] + int(start) for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(
            size=parts[0].size,
            counts=torch.cat([part.counts for part in parts]),
            offsets=torch.cat([*offsets, torch.tensor([int(starts[-1])])]),
        )

    # ---- access -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Masks:
        """Select masks by slice, integer indices or a bool mask [N]; always returns ``Masks``."""
        plain = index if isinstance(index, (slice, Tensor)) else torch.as_tensor(index, dtype=torch.int64)
        chosen = torch.arange(len(self))[plain]
        counts, offsets = rle.take(self.counts.numpy(), self.offsets.numpy(), chosen.reshape(-1).numpy())
        return Masks.from_arrays(counts, offsets, self.size)

    def dense(self, device: torch.device | str | None = None) -> Tensor:
        """Decode to bool [N, *size]."""
        return _tensor(rle.decode(self.counts.numpy(), self.offsets.numpy(), self.size)).to(device)

    def rle(self) -> list[dict[str, Any]]:
        """COCO dictionaries ``{"size": [H, W], "counts": str}``, the compressed string form, for a 2-D size."""
        require(len(self.size) == 2, f"the COCO form needs size (H, W), got {self.size}; take one frame first")
        return rle.to_coco(self.counts.numpy(), self.offsets.numpy(), self.size)

    def area(self) -> Tensor:
        """Foreground pixels of each mask, int64 [N]."""
        return _tensor(rle.area(self.counts.numpy(), self.offsets.numpy()))

    def boxes(self) -> Tensor:
        """Tight boxes float32 [N, 4] as (x1, y1, x2, y2), right and bottom edges exclusive; zeros for an empty mask."""
        require(len(self.size) == 2, f"boxes need size (H, W), got {self.size}")
        return _tensor(rle.boxes(self.counts.numpy(), self.offsets.numpy(), self.size[0]))

    def iou(self, other: Masks, crowd: Tensor | None = None) -> Tensor:
        """Mask IoU float64 [N, M]; where ``crowd`` [M] is set, intersection over *own* area, as COCO does.

        Raises:
            ValueError: the sizes differ.
        """
        require(self.size == other.size, f"masks to compare must share one size, got {self.size} and {other.size}")
        flags = None if crowd is None else crowd.cpu().numpy().astype(bool)
        mine, others = (self.counts.numpy(), self.offsets.numpy()), (other.counts.numpy(), other.offsets.numpy())
        height = self.size[0] if len(self.size) == 2 else None
        return _tensor(rle.iou(*mine, *others, flags, height=height))

    def crop(self, boxes: Tensor, size: int | tuple[int, int], *, aligned: bool = True) -> Tensor:
        """Mask ``i`` seen through ``boxes[i]``: float32 [N, h, w], the mean of each bin as RoIAlign takes it.

        Equal to RoIAlign with adaptive sampling on the dense mask (Mask R-CNN, section 3), without building it.

        Args:
            boxes: float32 [N, 4], one for each mask.
            size: output height and width.
            aligned: pixel centers at +0.5 (detectron2) or at 0 (torchvision's detection models).
        """
        check_tensor("boxes", boxes, (len(self), 4))
        out_size = (size, size) if isinstance(size, int) else size
        where = boxes.detach().cpu().double().numpy()
        values = rle.crop(self.counts.numpy(), self.offsets.numpy(), self.size, where, out_size, aligned)
        return _tensor(values).to(boxes.device)


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """The array's memory as a tensor."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
