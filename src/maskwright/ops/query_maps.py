"""Many small maps enlarged to a picture tile by tile: 100 maps at 1024x2048 are 800 MB, a tile of them 4.

Bilinear enlargement is a matrix for the rows and one for the columns; so are two enlargements with a cut between them
(``Resampling.chained``). A tile needs only the few cells under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskwright.ops import rle
from maskwright.ops.rle_core import Runs

_VALUES = 1 << 20
"""How many values a tile has at most."""
_COLUMNS = 256


@dataclass(frozen=True, slots=True)
class Resampling:
    """How maps [h, w] become a picture (H, W).

    Attributes:
        rows: float32 [H, h], what each row of the picture takes of each row of a map. columns: float32 [W, w].
    """

    rows: Tensor
    columns: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return len(self.rows), len(self.columns)

    @classmethod
    def chained(
        cls,
        cells: tuple[int, int],
        padded: tuple[int, int],
        valid: tuple[int, int],
        size: tuple[int, int],
        last: Literal["bilinear", "nearest"] = "bilinear",
    ) -> Resampling:
        """Maps of ``cells`` enlarged to the ``padded`` picture, cut to its ``valid`` part, that resized to ``size``.

        The first step is bilinear, corners not aligned; the last one too, or it takes the nearest pixel.
        """
        rows, columns = (
            _then(_bilinear(c, p)[:v], s, last) for c, p, v, s in zip(cells, padded, valid, size, strict=True)
        )
        return cls(rows, columns)

    @classmethod
    def direct(
        cls, cells: tuple[int, int], padded: tuple[int, int], valid: tuple[int, int], size: tuple[int, int]
    ) -> Resampling:
        """What of the maps shows the ``valid`` part of the ``padded`` picture, enlarged to ``size`` at once."""
        rows, columns = (
            _bilinear(c, s, c * v / p) for c, p, v, s in zip(cells, padded, valid, size, strict=True)
        )  # fmt: skip
        return cls(rows, columns)

    def tiles(
        self, maps: Tensor, index: Tensor | None = None, squash: bool = False
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and the values float32 [N, S, T] there of N enlarged maps [N, h, w].

        Args:
            index: int64 [N], which of the maps; all by default. No more than the cells under a tile are copied.
            squash: maps are logits that become probabilities before they are enlarged, a tile's cells at a time.
        """
        height, width = self.size
        count = len(maps) if index is None else len(index)
        step = max(1, min(height, _VALUES // (max(count, 1) * min(_COLUMNS, width))))
        down = [(slice(y, min(y + step, height)), *_used(self.rows[y : y + step])) for y in range(0, height, step)]
        across = [
            (slice(x, min(x + _COLUMNS, width)), *_used(self.columns[x : x + _COLUMNS]))
            for x in range(0, width, _COLUMNS)
        ]
        maps = maps.detach()
        for rows, top, row_weights in down:
            band = maps[:, top : top + row_weights.shape[1]]
            band = (band if index is None else band[index]).float()
            lines = torch.matmul(row_weights.to(maps.device), band.sigmoid() if squash else band)
            for columns, left, weights in across:
                yield rows, columns, torch.matmul(lines[..., left : left + weights.shape[1]], weights.T.to(maps.device))


def _bilinear(cells: int, out: int, used: float | None = None) -> Tensor:
    """Weights [out, cells] of torch's bilinear ``interpolate``; the first ``used`` cells are what is stretched."""
    extent = cells if used is None else used
    place = ((torch.arange(out, dtype=torch.float64) + 0.5) * (extent / out) - 0.5).clamp(min=0)
    low = place.floor().long().clamp(max=cells - 1)
    share = place - low
    weights = torch.zeros(out, cells, dtype=torch.float64)
    weights.scatter_add_(1, low[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, (low + 1).clamp(max=cells - 1)[:, None], share[:, None])
    return weights.float()


def _then(weights: Tensor, out: int, how: str) -> Tensor:
    """The rows of ``weights`` [n, cells] resized to ``out``."""
    if len(weights) == out:
        return weights
    if how == "nearest":
        return weights[torch.div(torch.arange(out) * len(weights), out, rounding_mode="floor")]
    place = ((torch.arange(out, dtype=torch.float64) + 0.5) * (len(weights) / out) - 0.5).clamp(min=0)
    low = place.floor().long().clamp(max=len(weights) - 1)
    share = (place - low).float()[:, None]
    return weights[low] * (1 - share) + weights[(low + 1).clamp(max=len(weights) - 1)] * share


def _used(weights: Tensor) -> tuple[int, Tensor]:
    """The first cell that any row uses, and the weights from there to the last one."""
    cells = torch.nonzero(weights.any(0)).flatten()
    first, last = int(cells[0]), int(cells[-1])
    return first, weights[:, first : last + 1]


@dataclass(frozen=True, slots=True)
class Contest:
    """Whose each pixel is.

    Attributes:
        owner: int16 [H, W], the map with the largest value. sure: bool [H, W], whether that map alone claims the pixel.
        won: int64 [N], pixels that each map owns. claimed: int64 [N], pixels that each map claims.
    """

    owner: Tensor
    sure: Tensor
    won: Tensor
    claimed: Tensor


def contest(
    maps: Tensor,
    resampling: Resampling,
    weights: Tensor,
    *,
    logits: bool,
    threshold: float = 0.5,
    weighted: bool = False,
    index: Tensor | None = None,
    squash: bool = False,
) -> Contest:
    """Maps [N, h, w], N > 0, compete for each pixel with their probability times ``weights`` [N].

    Args:
        logits: maps become probabilities after they were enlarged; else they are probabilities.
        threshold: a map claims the pixels where its probability reaches this (times its weight if ``weighted``).
        index, squash: see ``Resampling.tiles``.
    """
    device, count = maps.device, len(weights)
    owner = torch.zeros(resampling.size, dtype=torch.int16, device=device)
    sure = torch.zeros(resampling.size, dtype=torch.bool, device=device)
    won, claimed = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
    factor = weights.float().to(device)[:, None, None]
    for rows, columns, values in resampling.tiles(maps, index, squash):
        prob = values.sigmoid_() if logits else values
        claim = (prob * factor if weighted else prob) >= threshold
        best = prob.mul_(factor).argmax(0)
        owner[rows, columns] = best.to(torch.int16)
        sure[rows, columns] = claim.gather(0, best[None])[0]
        won += torch.bincount(best.flatten(), minlength=count)
        claimed += claim.flatten(1).sum(1)
    return Contest(owner, sure, won, claimed)


def largest(maps: Tensor, resampling: Resampling) -> tuple[Tensor, Tensor]:
    """The map with the largest value at each pixel, int16 [H, W], and how many pixels each has, int64 [N]; N > 0."""
    owner = torch.zeros(resampling.size, dtype=torch.int16, device=maps.device)
    won = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
    for rows, columns, values in resampling.tiles(maps):
        best = values.argmax(0)
        owner[rows, columns] = best.to(torch.int16)
        won += torch.bincount(best.flatten(), minlength=len(maps))
    return owner, won


def likeliest(classes: Tensor, maps: Tensor, resampling: Resampling, *, logits: bool, squash: bool = False) -> Tensor:
    """int64 [H, W]: the class with the largest sum over maps of its probability [N, C] times theirs [N, h, w].

    Args:
        logits: maps become probabilities after they were enlarged; else they are probabilities.
        squash: see ``Resampling.tiles``.
    """
    out = torch.zeros(resampling.size, dtype=torch.int64, device=maps.device)
    votes = classes.float().T.contiguous()
    if not logits and classes.shape[1] < classes.shape[0]:
        # enlarging is linear: fewer maps if the classes are summed before
        prob = maps.float().sigmoid() if squash else maps.float()
        maps, votes, squash = torch.einsum("qc,qhw->chw", classes.float(), prob), None, False
        del prob
    for rows, columns, values in resampling.tiles(maps, squash=squash):
        prob = values.sigmoid_() if logits else values
        if votes is not None:
            prob = (votes @ prob.flatten(1)).unflatten(1, prob.shape[1:])
        out[rows, columns] = prob.argmax(0)
    return out


def above(maps: Tensor, resampling: Resampling, threshold: float = 0.5, *, logits: bool) -> tuple[Runs, Tensor]:
    """Run-lengths of N maps [N, h, w] where their probability exceeds ``threshold``, and its mean there.

    Args:
        logits: maps become probabilities after they were enlarged; else they are probabilities.

    Returns:
        Runs as ``ops.rle`` has them, and float32 [N], 0 for an empty mask.
    """
    height, width = resampling.size
    step = max(1, (1 << 21) // (height * width))
    counts, lengths, means = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)], [torch.zeros(0)]
    for start in range(0, len(maps), step):
        part = maps[start : start + step]
        dense = torch.zeros(len(part), height, width, dtype=torch.bool, device=maps.device)
        total = torch.zeros(len(part), device=maps.device)
        for rows, columns, values in resampling.tiles(part):
            prob = values.sigmoid_() if logits else values
            inside = prob > threshold
            dense[:, rows, columns] = inside
            total += (prob * inside).flatten(1).sum(1)
        means.append((total / (dense.flatten(1).sum(1) + 1e-6)).cpu())
        runs, cuts = rle.encode(dense.cpu().numpy())
        counts.append(runs)
        lengths.append(np.diff(cuts))
    return (np.concatenate(counts), np.cumsum(np.concatenate(lengths)).astype(np.int64)), torch.cat(means)
