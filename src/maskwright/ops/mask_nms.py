"""Overlaps of dense masks as bits, and suppression by them (SOLOv2: Wang et al. 2020, section 3.3).

A mask's pixels are packed 64 to a word; a pair costs a popcount of its words in the rows that both reach. Traced graphs
and devices multiply matrices instead, which gives the same numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor
from torch.jit._trace import is_tracing

Kernel = Literal["gaussian", "linear"]


def mask_iou(a: Tensor, b: Tensor | None = None) -> Tensor:
    """IoU float32 [N, M] of dense masks bool [N, H, W] and [M, H, W] (``a`` if left out); 0 where both are empty."""
    if a.device.type != "cpu" or torch.compiler.is_compiling() or is_tracing():
        first = a.flatten(1).float()
        second = first if b is None else b.flatten(1).float()
        common, own, other = first @ second.T, first.sum(1), second.sum(1)
    else:
        packed = _Packed(a)
        against = packed if b is None else _Packed(b)
        common = torch.from_numpy(_common(packed.words, packed.rows, against.words, against.rows, b is None))
        own, other = torch.from_numpy(packed.areas), torch.from_numpy(against.areas)
    return common / (own[:, None] + other[None] - common).clamp(min=1)


def matrix_nms(
    masks: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    kernel: Kernel = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """New scores [N] of masks: each decays by the most that a better one of its class asks for (equations 4 and 5).

    The decay asked for by a mask is ``f(IoU) / f(c)`` with ``c`` its own largest IoU with a better one, which says how
    likely it was suppressed itself; ``f`` is ``exp(-sigma IoU^2)`` (gaussian) or ``1 - IoU`` (linear).

    Args:
        masks: bool [N, H, W]. scores: float [N]. labels: integer [N].

    Returns:
        Float [N] in the order given; of equal scores the first comes first.
    """
    if kernel not in ("gaussian", "linear"):
        raise ValueError(f"kernel must be 'gaussian' or 'linear', got {kernel!r}")
    order = scores.argsort(descending=True, stable=True)
    masks, labels = masks[order], labels[order]
    iou = (mask_iou(masks) * (labels[:, None] == labels[None])).triu(1)
    # a row of zeros, because there may be no masks, and a maximum needs one
    own = torch.cat((iou, iou.new_zeros((1, iou.shape[1])))).amax(0)[:, None]
    if kernel == "gaussian":
        decay = torch.exp(sigma * (own.square() - iou.square()))
    else:
        decay = (1 - iou) / (1 - own).clamp(min=1e-6)
    decay = torch.cat((decay, decay.new_ones((1, decay.shape[1])))).amin(0)
    # no scatter by an inverse permutation: where ``order`` puts it, it goes
    return torch.zeros_like(scores).index_copy(0, order, scores[order] * decay.to(scores.dtype))


class _Packed:
    """Masks as words uint64 [N, L], the words from the first to past the last used [N, 2], and areas [N]."""

    def __init__(self, masks: Tensor) -> None:
        flat = masks.detach().flatten(1).contiguous().numpy().view(np.uint8)
        count, pixels = flat.shape
        whole = -(-pixels // 64) * 64
        if whole != pixels:
            flat = np.concatenate((flat, np.zeros((count, whole - pixels), np.uint8)), 1)
        self.words, self.rows, self.areas = _pack(np.ascontiguousarray(flat).view(np.uint64))


def _count_ones(context: Any, value: types.Type) -> Any:  # pyright: ignore[reportUnusedParameter]
    """The number of bits set in a word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return value(value), generate


_ones: Any = intrinsic(_count_ones)


@njit(cache=True, nogil=True)
def _pack(eights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes of 0 and 1, eight to a word uint64 [N, 8 L], to bits; their order within a word is nobody's business."""
    count, length = eights.shape[0], eights.shape[1] // 8
    words = np.zeros((count, length), np.uint64)
    rows = np.zeros((count, 2), np.int64)
    areas = np.zeros(count, np.float32)
    for i in range(count):
        first, last, area = -1, -1, np.uint64(0)
        for k in range(length):
            word = np.uint64(0)
            for part in range(8):
                word |= eights[i, 8 * k + part] << np.uint64(part)
            if word:
                words[i, k] = word
                area += _ones(word)
                if first < 0:
                    first = k
                last = k
        rows[i, 0], rows[i, 1], areas[i] = max(first, 0), last + 1, area
    return words, rows, areas


@njit(cache=True, nogil=True)
def _common(a: np.ndarray, used_a: np.ndarray, b: np.ndarray, used_b: np.ndarray, same: bool) -> np.ndarray:
    """Common bits float32 [N, M] (pixels of a mask stay far below 2^24)."""
    out = np.zeros((len(a), len(b)), np.float32)
    for i in range(len(a)):
        for j in range(i if same else 0, len(b)):
            start, stop = max(used_a[i, 0], used_b[j, 0]), min(used_a[i, 1], used_b[j, 1])
            if stop <= start:
                continue
            first, second = a[i, start:stop], b[j, start:stop]  # counted from 0: then the sum takes vectors
            total = np.uint64(0)
            for k in range(len(first)):
                total += _ones(first[k] & second[k])
            out[i, j] = total
            if same:
                out[j, i] = total
    return out
