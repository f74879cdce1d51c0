"""UPSNet's semantic head and its panoptic head, which has no parameters (Xiong et al. 2019, sections 3.2 to 3.4).

Boxes are (x1, y1, x2, y2) in pixels of the maps, their far edges the last pixels they hold. A mask's logits fill the
pixels from the near corner to the far one, both cut to integers; the semantic logits of its class count from the near
corner, cut, to the far one, rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import NormName, make_norm
from maskwright.ops.deform_conv import deform_conv2d

# ---- semantic head --------------------------------------------------------------------------------------------------


class DeformConv(nn.Module):
    """A 3x3 deformable convolution, norm, ReLU; its offsets come from a plain 3x3 convolution that begins at zero."""

    def __init__(self, channels: int, out_channels: int, *, norm: NormName) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 18, 3, padding=1)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm = make_norm(norm, out_channels)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # pyright: ignore[reportArgumentType]
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W]."""
        offsets = self.offsets(features)
        return self.norm(deform_conv2d(features, offsets, self.conv.weight, self.conv.bias)).relu()


class DeformableSemanticHead(nn.Module):
    """Deformable convolutions shared by L levels, enlarged to the finest and concatenated (section 3.2, figure 3).

    Args:
        channels: of the pyramid. classes: K. levels: L. width, depth: of the convolutions. norm: after each of them.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        levels: int = 4,
        width: int = 128,
        depth: int = 2,
        norm: NormName = "group",
    ) -> None:
        super().__init__()
        self.levels = levels
        self.convs = nn.Sequential(*(DeformConv(channels if k == 0 else width, width, norm=norm) for k in range(depth)))
        self.predictor = nn.Conv2d(levels * width, classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, H_i, W_i], finest first, to logits [B, K, H_0, W_0]."""
        size = features[0].shape[-2:]
        maps = [
            functional.interpolate(self.convs(feature), size=size, mode="bilinear", align_corners=False)
            for feature in features[: self.levels]
        ]
        return self.predictor(torch.cat(maps, 1))


# ---- panoptic head --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """N masks on a picture, axis by axis, so that any part of it can be drawn alone.

    Attributes:
        logits: [N, m, m], of the masks' classes. rows, columns: float32 [N, H, m] and [N, W, m], what each pixel takes
            of each cell; zero outside of the box. inside_rows, inside_columns: bool [N, H] and [N, W], where the
            semantic logits count.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor
    inside_rows: Tensor
    inside_columns: Tensor

    @classmethod
    def at(cls, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Placed:
        """Mask logits [N, m, m] in boxes [N, 4] on (H, W), bilinear, pixel centers at +0.5, edges repeated."""
        near, far = boxes[:, :2].long(), boxes[:, 2:].long()
        last = boxes[:, 2:].round().long()
        axes = [_axis(near[:, a], far[:, a], logits.shape[-1], size[1 - a]) for a in (1, 0)]
        inside = [
            (pixels >= near[:, a, None]) & (pixels <= last[:, a, None])
            for a, pixels in (
                (1, torch.arange(size[0], device=boxes.device)),
                (0, torch.arange(size[1], device=boxes.device)),
            )
        ]
        return cls(logits, axes[0].to(logits.dtype), axes[1].to(logits.dtype), inside[0], inside[1])

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: Tensor) -> Placed:
        """Those masks only."""
        return Placed(*(getattr(self, name)[index] for name in self.__slots__))

    def masks(self, rows: slice = slice(None)) -> Tensor:
        """Y_mask, [N, R, W]: mask logits at some rows, zero outside of the boxes."""
        return torch.matmul(torch.matmul(self.rows[:, rows], self.logits), self.columns.transpose(1, 2))

    def classes(self, semantic: Tensor, labels: Tensor, rows: slice = slice(None)) -> Tensor:
        """X_mask, [N, R, W]: of semantic logits [K, R, W] the masks' classes [N], zero outside of the boxes."""
        inside = self.inside_rows[:, rows, None] & self.inside_columns[:, None]
        return semantic[labels] * inside


def _axis(near: Tensor, far: Tensor, cells: int, length: int) -> Tensor:
    """Weights [N, length, cells] of maps of so many cells stretched over the pixels from ``near`` to ``far`` [N]."""
    extent = (far - near + 1).clamp(min=1)
    pixels = torch.arange(length, device=near.device)[None]
    place = ((pixels - near[:, None] + 0.5) * (cells / extent[:, None]) - 0.5).clamp(0, cells - 1)
    distance = (place[:, :, None] - torch.arange(cells, device=near.device)).abs()
    inside = (pixels >= near[:, None]) & (pixels < (near + extent)[:, None])
    return (1 - distance).clamp(min=0) * inside[:, :, None]


def panoptic_logits(
    semantic: Tensor, stuff: Tensor, things: Tensor, placed: Placed, labels: Tensor, rows: slice = slice(None)
) -> Tensor:
    """Equations 1 and 2 with the unknown class: logits [S + N + 1, R, W] of stuff, instances and what is neither.

    An instance has the sum of its mask's and its class's logits; unknown has what things have at most, less what those
    within the boxes have at most. Without instances nothing is unknown, and things are not told from stuff.

    Args:
        semantic: [K, R, W]. stuff, things: int64 [S] and [T], the classes that are stuff and things.
        placed: N masks. labels: int64 [N], their classes. rows: which of the picture ``semantic`` shows.
    """
    parts = [semantic[stuff]]
    if len(placed):
        cut = placed.classes(semantic, labels, rows)
        parts += [cut + placed.masks(rows), (semantic[things].amax(0) - cut.amax(0))[None]]
    elif len(things):
        parts += [semantic[things].amax(0)[None]]
    else:
        parts += [semantic.new_full((1, *semantic.shape[1:]), -torch.inf)]
    return torch.cat(parts)
