# pyright: basic
"""Weighted votes: of masks on where an object is, as run-lengths, and of maps on what each pixel is."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Runs, arrays, checked

_STEPS = 1 << 24  # weights are added as integers: sums of fractions would depend on their order


def vote_masks(
    counts: NDArray[np.integer], offsets: NDArray[np.integer], groups: ArrayLike, weights: ArrayLike, pixels: int
) -> Runs:
    """For each group the pixels that more than half of its weight sees; nothing is decoded.

    The mask voting of J. Dai, K. He, J. Sun, CVPR 2016 (multi-task network cascades, section 5): the mean of a group's
    masks, weighted, made binary at one half. Half of the weight exactly is not enough.

    Args:
        counts, offsets: N masks on one canvas.
        groups: [N], which of the groups 0 .. G-1 each mask is of; every group has one mask at least.
        weights: [N], above 0.
        pixels: of the canvas.

    Returns:
        Runs of G masks.

    Raises:
        InputError: not one group and one positive, finite weight for each mask, a group without masks, or runs that do
            not fit.
    """
    flat, cuts = checked(counts, offsets, pixels)
    member = np.ascontiguousarray(groups, np.int64).reshape(-1)
    share = np.ascontiguousarray(weights, np.float64).reshape(-1)
    number = len(cuts) - 1
    if len(member) != number or len(share) != number or not (np.isfinite(share) & (share > 0)).all():
        raise InputError(f"a vote needs one group and one weight above 0 for each of the {number} masks.")
    if number == 0:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    sizes = np.bincount(member) if member.min() >= 0 else np.zeros(1, np.int64)
    if (sizes == 0).any():
        raise InputError("groups to vote in must be numbered from 0 without gaps.")
    order = np.argsort(member, kind="stable")
    votes = np.maximum(np.rint(share / share.max() * _STEPS), 1).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return _vote_masks(*arrays(flat, cuts), order, votes, bounds, pixels)


@njit(cache=True, nogil=True)
def _vote_masks(counts, offsets, order, votes, bounds, pixels):
    out = np.empty(max(len(counts), 64), np.int32)
    cuts = np.zeros(len(bounds), np.int64)
    used = 0
    for g in range(len(bounds) - 1):
        room, total = 0, np.int64(0)
        for k in range(bounds[g], bounds[g + 1]):
            room += offsets[order[k] + 1] - offsets[order[k]] + 1
            total += votes[order[k]]
        places = np.empty(room, np.int64)
        change = np.empty(room, np.int64)
        events = 0
        for k in range(bounds[g], bounds[g + 1]):
            i = order[k]
            position = np.int64(0)
            for r in range(offsets[i], offsets[i + 1]):
                length = np.int64(counts[r])
                if (r - offsets[i]) % 2 == 1 and length > 0:
                    places[events], change[events] = position, votes[i]
                    places[events + 1], change[events + 1] = position + length, -votes[i]
                    events += 2
                position += length
        rank = np.argsort(places[:events])
        if used + events + 2 > len(out):
            grown = np.empty(max(2 * len(out), used + events + 2), np.int32)
            grown[:used] = out[:used]
            out = grown
        depth, inside, written, k = np.int64(0), False, np.int64(0), 0
        begin = used
        while k < events:
            here = places[rank[k]]
            while k < events and places[rank[k]] == here:
                depth += change[rank[k]]
                k += 1
            if (2 * depth > total) != inside:
                out[used] = here - written
                used += 1
                written, inside = here, not inside
        if written < pixels or used == begin:
            out[used] = pixels - written
            used += 1
        cuts[g + 1] = used
    return out[:used].copy(), cuts


def vote_labels(maps: NDArray[np.integer], weights: ArrayLike) -> NDArray[np.int64]:
    """The label of most weight at each pixel, int64 [H, W]; of equal ones that of the first map. -1 has no vote.

    Args:
        maps: integers [K, H, W], -1 where a map says nothing.
        weights: [K], above 0.

    Raises:
        InputError: no maps, or not one positive weight for each.
    """
    share = np.asarray(weights, np.float64).reshape(-1)
    if maps.ndim != 3 or len(maps) == 0 or len(share) != len(maps) or not (np.isfinite(share) & (share > 0)).all():
        raise InputError(f"a vote needs maps [K, H, W] and K weights above 0, got {maps.shape} and {share.shape}.")
    votes = np.maximum(np.rint(share / share.max() * _STEPS), 1).astype(np.int64)
    flat = np.ascontiguousarray(maps.reshape(len(maps), -1), np.int32)
    return _vote_labels(flat, votes).reshape(maps.shape[1:])


@njit(cache=True, nogil=True)
def _vote_labels(maps, votes):
    number, pixels = maps.shape
    out = np.full(pixels, -1, np.int64)
    for p in range(pixels):
        most = np.int64(0)
        for k in range(number):
            label = maps[k, p]
            if label < 0:
                continue
            total = np.int64(0)
            for j in range(number):
                if maps[j, p] == label:
                    total += votes[j]
            if total > most:
                most = total
                out[p] = label
    return out
