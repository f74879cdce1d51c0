"""What a pupil's maps can learn from a teacher's: the values in them, and how places relate to each other.

Sums and what they are means over are given apart, a picture being independent of the others in its batch, so that
micro-batches can be joined exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.errors import InputError

Maps = Mapping[str, Tensor]
Pairs = tuple[tuple[str, str], ...]


def pair_levels(own: Maps, theirs: Maps) -> Pairs:
    """The levels of two pyramids that have the same size, as (own, theirs); levels without a partner are left out.

    Raises:
        InputError: there are none.
    """
    by_size = {tuple(value.shape[-2:]): name for name, value in reversed(list(theirs.items()))}
    pairs = tuple((n, by_size[size]) for n, v in own.items() if (size := tuple(v.shape[-2:])) in by_size)
    if not pairs:
        raise InputError(
            "teacher and pupil must have levels of one size in their pyramids, but for one picture the teacher's are "
            f"{_sizes(theirs)} and the pupil's {_sizes(own)}. Distill the response only, or name another layer."
        )
    return pairs


def paired(own: Maps, theirs: Maps, pairs: Pairs) -> list[tuple[Tensor, Tensor]]:
    """The maps of each pair, float.

    Raises:
        InputError: the sizes of a pair differ.
    """
    out: list[tuple[Tensor, Tensor]] = []
    for mine, other in pairs:
        a, b = own[mine], theirs[other]
        if a.shape[-2:] != b.shape[-2:]:
            raise InputError(
                f"the paired levels of teacher and pupil must have one size, got {_sizes({other: b})} for the teacher "
                f"and {_sizes({mine: a})} for the pupil. Distill the response only."
            )
        out.append((a.float(), b.detach().float()))
    return out


class Imitation(nn.Module):
    """A teacher's maps, imitated apart on objects and beside them (Yang et al. 2022, FGD, arXiv:2111.11837, 3.1).

    The pupil's maps go through a 1x1 convolution to the teacher's channels, as hints do (Romero et al. 2015, FitNets,
    arXiv:1412.6550). Errors weigh by the teacher's attention, a softmax over places and one over channels of its mean
    magnitudes. Each object weighs the same, whatever its size, and the smaller one where two meet.

    Differences from FGD: errors and magnitudes are relative to the root mean square of the teacher's map, so that no
    factor depends on the teacher; channels are converted also where their numbers agree; there are no attention loss
    and no global part.

    Args:
        channels: (own, theirs) of each pair of levels.
        temperature: of the attention (0.5 in the paper).
    """

    def __init__(self, channels: Sequence[tuple[int, int]], *, temperature: float = 0.5) -> None:
        super().__init__()
        self.adapters = nn.ModuleList([nn.Conv2d(own, theirs, 1) for own, theirs in channels])
        self.temperature = temperature

    def forward(
        self,
        maps: Sequence[tuple[Tensor, Tensor]],
        boxes: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        canvas: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Sums over objects and over pictures of the relative squared error, each a mean over levels.

        Args:
            maps: (own, theirs) [B, C, h, w] of each level.
            boxes: of each picture's objects, [N, 4] in pixels.
            sizes: (H, W) of each picture without padding. canvas: (H, W) with it.
        """
        inside, outside = [maps[0][0].sum() * 0.0], [maps[0][0].sum() * 0.0]
        for adapter, (own, theirs) in zip(self.adapters, maps, strict=True):
            adapted = adapter(own).float()
            for one, other, known, size in zip(adapted, theirs, boxes, sizes, strict=True):
                (height, width), cells = valid_cells(other, size, canvas)
                one, other = one[:, :height, :width], other[:, :height, :width]
                error = attended_error(one, other, self.temperature)
                weight, covered = object_weights(known.to(other) * cells, (height, width))
                inside.append((error * weight).sum())
                outside.append((error * ~covered).sum() / (~covered).sum().clamp(min=1))
        return torch.stack(inside).sum() / len(maps), torch.stack(outside).sum() / len(maps)


def valid_cells(maps: Tensor, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[tuple[int, int], Tensor]:
    """How many rows and columns of [C, h, w] see a picture (H, W), and cells a pixel as (x, y, x, y)."""
    per_pixel = [maps.shape[-1] / canvas[1], maps.shape[-2] / canvas[0]]
    height = -(-size[0] * maps.shape[-2] // canvas[0])
    width = -(-size[1] * maps.shape[-1] // canvas[1])
    return (height, width), maps.new_tensor(per_pixel * 2)


def attended_error(own: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """The relative squared error [h, w] of [C, h, w], a mean over channels, both axes weighted by attention."""
    scale = theirs.square().mean().clamp(min=1e-8)
    magnitude = theirs.abs() / scale.sqrt()
    channel = torch.softmax(magnitude.mean((1, 2)) / temperature, 0) * len(theirs)
    place = torch.softmax(magnitude.mean(0).flatten() / temperature, 0).reshape(theirs.shape[1:])
    error = ((own - theirs).square() * channel[:, None, None]).mean(0) / scale
    return error * place * place.numel()


def object_weights(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One over the cells of each object's box [N, 4], the largest where they meet, and where they are: [h, w] each."""
    rows = torch.arange(size[0], device=boxes.device)
    columns = torch.arange(size[1], device=boxes.device)
    weight = boxes.new_zeros(size)
    for part in boxes.split(64) if len(boxes) else ():
        x1, x2 = part[:, 0].floor().clamp(0, size[1] - 1), part[:, 2].ceil()
        y1, y2 = part[:, 1].floor().clamp(0, size[0] - 1), part[:, 3].ceil()
        x2, y2 = torch.maximum(x2, x1 + 1).clamp(max=size[1]), torch.maximum(y2, y1 + 1).clamp(max=size[0])
        across = (columns >= x1[:, None]) & (columns < x2[:, None])
        down = (rows >= y1[:, None]) & (rows < y2[:, None])
        share = 1 / ((x2 - x1) * (y2 - y1))
        here = (down[:, :, None] & across[:, None, :]) * share[:, None, None]
        weight = torch.maximum(weight, here.amax(0))
    return weight, weight > 0


def relation_sum(
    maps: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[tuple[int, int]], canvas: tuple[int, int], side: int
) -> Tensor:
    """Sum over pictures of how much the likeness of places differs (Liu et al. 2019, arXiv:1903.04197, equation 2).

    A map is averaged to at most ``side`` x ``side`` places; the likeness of two is the cosine between their vectors,
    and the loss the mean squared difference over all pairs, and over levels. Channels need not agree.
    """
    parts = [maps[0][0].sum() * 0.0]
    for own, theirs in maps:
        for one, other, size in zip(own, theirs, sizes, strict=True):
            (height, width), _ = valid_cells(other, size, canvas)
            places = (min(side, height), min(side, width))
            likeness = [
                _likeness(functional.adaptive_avg_pool2d(each[:, :height, :width], places)) for each in (one, other)
            ]
            parts.append((likeness[0] - likeness[1]).square().mean())
    return torch.stack(parts).sum() / len(maps)


def _likeness(places: Tensor) -> Tensor:
    vectors = functional.normalize(places.flatten(1), dim=0, eps=1e-6)
    return vectors.T @ vectors


def _sizes(maps: Maps) -> str:
    return ", ".join(f"{value.shape[-2]}x{value.shape[-1]}" for value in maps.values()) or "no maps at all"
