# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels that match detections to truth as COCO does, all thresholds and size classes in one pass, and add up.

Equal to pycocotools' ``COCOeval.evaluateImg`` and ``accumulate`` for every (class, image, size class, threshold).
A *lane* is one pair (size class, threshold); the flag of a detection in a lane is 0 for a false positive, 1 for a true
positive and 2 where it does not count.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from maskwright.metrics._boundary_kernels import ABOUT, STATE, THICK, frame, outline, outline_iou
from maskwright.metrics._json_kernels import FLOAT_ROW, ROW
from maskwright.metrics._shape_kernels import FULL, box_iou, box_of, intervals, pixels_in, pixels_shared

NO_SHAPE, BAD_SIZE = -4, -5
_HAS_AREA, _HAS_BOX = 1 << 7, 1 << 8

helper = njit(nogil=True, error_model="numpy")


@helper
def shape_of(text, runs, rows, floats, r, f, height, width, need, boxed, arena, top, capacity, out, reals):
    """Decode the mask of a row where ``need`` says so; the new top of the arena, or a reason.

    Unless ``boxed``, the row gets the box of its mask.
    """
    if not need:
        return top
    if rows[r + 7] == 0:
        return NO_SHAPE
    if rows[r + 7] != 3 and (rows[r + 10] != height or rows[r + 11] != width):
        return BAD_SIZE
    if height <= 0 or width <= 0 or height > 2147483646 // width:
        return BAD_SIZE
    end = intervals(text, runs, rows, r, height, width, arena, top, capacity, out, reals)
    if end >= 0 and not boxed:
        box_of(arena, top, end, height, width, floats, f + 2)
    return end


@helper
def match(
    ious, detections, truths, limit, thresholds, count_a, count_t, areas, ignored, ignored_at, marks, scratch, flags, at
):
    """Match the detections of one class in one image, best score first, and set their flags from ``flags[at]`` on.

    ``ious`` is [detections, truths], then from ``limit * truths`` on the areas, then the best IoU of each detection.
    ``marks`` from ``scratch`` on: room for an order and for what is taken, then 1 for a crowd (it may be matched
    again), 2 for a truth whose matches pycocotools loses, 3 for both. ``ignored``: truths [., A] that do not count.
    """
    taken, dead = scratch + truths, scratch + 2 * truths
    sizes = limit * truths
    if truths == 0:
        for d in range(detections):
            for a in range(count_a):
                flag = 2 if ious[d] < areas[2 * a] or ious[d] > areas[2 * a + 1] else 0
                for t in range(count_t):
                    flags[at + (d * count_a + a) * count_t + t] = flag
        return
    for a in range(count_a):
        low, high = areas[2 * a], areas[2 * a + 1]
        placed = 0
        for wanted in range(2):
            for g in range(truths):
                if ignored[ignored_at + g * count_a + a] == wanted:
                    marks[scratch + placed] = g
                    placed += 1
        for t in range(count_t):
            lowest = min(thresholds[t], 1 - 1e-10)
            for g in range(truths):
                marks[taken + g] = 0
            for d in range(detections):
                best, best_iou, best_ignored = -1, lowest, 0
                if ious[sizes + limit + d] >= lowest:
                    for k in range(truths):
                        g = marks[scratch + k]
                        if marks[taken + g] == 1 and marks[dead + g] & 1 == 0:
                            continue
                        g_ignored = ignored[ignored_at + g * count_a + a]
                        if best >= 0 and best_ignored == 0 and g_ignored == 1:
                            break
                        if ious[d * truths + g] >= best_iou:
                            best, best_iou, best_ignored = g, ious[d * truths + g], g_ignored
                lost = best < 0
                if best >= 0:
                    marks[taken + best] = 1
                    lost = marks[dead + best] & 2 == 2
                flag = 0 if lost else 1
                if best_ignored == 1 or (lost and (ious[sizes + d] < low or ious[sizes + d] > high)):
                    flag = 2
                flags[at + (d * count_a + a) * count_t + t] = flag


def evaluate(
    first, last, kind, by_box, limit, count_a, count_t, thresholds, areas, heights, widths, margins,
    t_text, t_runs, t_rows, t_floats, t_class, t_order, t_start, t_dead, t_ignored, t_status,
    d_text, d_runs, d_rows, d_floats, d_class, d_order, d_start, d_status, ranks, flags,
    arena, capacity, whole, reals, spans, ious, words, room, bounds,
):  # fmt: skip
    """Images ``first`` .. ``last``; returns ``last``, or the image to go on with once the arena is larger.

    ``x_order`` lists table rows by image, then class (detections then by falling score); image ``i`` owns
    ``x_start[i] : x_start[i + 1]`` of it. ``ranks``, ``flags``, ``t_ignored`` follow that order, the rest the table.
    ``kind`` 0 compares boxes, 1 masks, 2 masks and boundaries that are ``margins`` wide: the lesser of both IoUs
    (against a crowd the masks alone, as the authors' tool does). ``by_box``: 1 where a detection's area is that of its
    box. Beyond ``limit`` detections of a class in an image the flags are not written and the rank is -1; of the others,
    ``d_floats`` gets the area that was used. ``whole`` and ``reals`` are the same scratch, 8 numbers; ``spans`` holds 6
    int64 for each truth of an image, ``ious`` floats for the largest group and 2 for each detection, ``bounds``
    ``ABOUT`` int64 for each truth and one more. Where ``words``, of size ``room``, is what must be larger,
    ``whole[5]`` is 1.
    """
    lanes = count_a * count_t
    mask = 0 if kind == 0 else 1
    lowest = 1 - 1e-10
    for t in range(count_t):
        lowest = min(lowest, thresholds[t])
    whole[5] = 0
    for image in range(first, last):
        height, width = heights[image], widths[image]
        t0, t1 = t_start[image], t_start[image + 1]
        top = 0
        for pos in range(t0, t1):
            row = t_order[pos]
            r, f, k = row * ROW, row * FLOAT_ROW, 3 * (pos - t0)
            no_box, no_area = t_rows[r] & _HAS_BOX == 0, t_rows[r] & _HAS_AREA == 0
            need = mask == 1 or no_box or (no_area and t_rows[r + 7] != 0)
            bounds[ABOUT * (pos - t0) + STATE] = 0
            end = shape_of(
                t_text, t_runs, t_rows, t_floats, r, f, height, width, need, mask == 1 or not no_box,
                arena, top, capacity, whole, reals,
            )  # fmt: skip
            if end == FULL:
                return image
            if end < 0:
                t_status[row] = -end
                end = top
            spans[k], spans[k + 1] = top, end
            spans[k + 2] = pixels_in(arena, top, end) if need else 0
            top = end
            area = t_floats[f + 1]
            if no_area:
                area = spans[k + 2] if need else t_floats[f + 4] * t_floats[f + 5]
            for a in range(count_a):
                out = t_dead[row] & 1 == 1 or area < areas[2 * a] or area > areas[2 * a + 1]
                t_ignored[pos * count_a + a] = 1 if out else 0
        low = t0
        filled = 0
        group = d_start[image]
        while group < d_start[image + 1]:
            label = d_class[d_order[group]]
            while low < t1 and t_class[t_order[low]] < label:
                low += 1
            high = low
            while high < t1 and t_class[t_order[high]] == label:
                high += 1
            truths, pos = high - low, group
            sizes = truths * limit
            while pos < d_start[image + 1] and d_class[d_order[pos]] == label:
                row, d = d_order[pos], pos - group
                r, f = row * ROW, row * FLOAT_ROW
                no_box = d_rows[r] & _HAS_BOX == 0
                need = mask == 1 or no_box or (by_box == 0 and d_rows[r + 7] != 0)
                end = shape_of(
                    d_text, d_runs, d_rows, d_floats, r, f, height, width, need, mask == 1 or not no_box,
                    arena, top, capacity, whole, reals,
                )  # fmt: skip
                if end == FULL:
                    return image
                if end < 0:
                    d_status[row] = -end
                    end = top
                pixels = pixels_in(arena, top, end) if need else 0
                ranks[pos] = d if d < limit else -1
                if d < limit:
                    own, before = ABOUT * (t1 - t0), filled
                    bounds[own + STATE] = 0
                    boxed = not no_box and (by_box == 1 or not need)
                    ious[sizes + d] = d_floats[f + 4] * d_floats[f + 5] if boxed else np.float64(pixels)
                    d_floats[f + 1] = ious[sizes + d]
                    for g in range(truths):
                        t_row = t_order[low + g]
                        crowd = t_dead[t_row] & 1 == 1
                        if mask == 0:
                            value = box_iou(d_floats, f + 2, t_floats, t_row * FLOAT_ROW + 2, crowd)
                        else:
                            k = 3 * (low + g - t0)
                            shared = pixels_shared(arena, top, end, spans[k], spans[k + 1])
                            value = shared / max(1, pixels if crowd else pixels + spans[k + 2] - shared)
                            if kind == 2 and value >= lowest and not crowd:
                                its, margin, built = ABOUT * (low + g - t0), margins[image], filled
                                frame(arena, spans[k], spans[k + 1], height, margin, bounds, its)
                                frame(arena, top, end, height, margin, bounds, own)
                                # Where both are all boundary, their boundaries' IoU is the masks'.
                                if bounds[its + THICK] + bounds[own + THICK] > 0:
                                    filled = outline(
                                        arena, spans[k], spans[k + 1], height, margin, words, filled, room, bounds, its
                                    )
                                    if filled > built:
                                        before = filled  # the truth's stays; the detection's below it is lost room
                                    if filled >= 0:
                                        filled = outline(
                                            arena, top, end, height, margin, words, filled, room, bounds, own
                                        )
                                    if filled < 0:
                                        whole[5] = 1
                                        return image
                                    value = min(value, outline_iou(words, bounds, own, its))
                        ious[d * truths + g] = value
                    filled = before
                pos += 1
            found = min(pos - group, limit)
            for d in range(found):
                best = 0.0
                for g in range(truths):
                    best = max(best, ious[d * truths + g])
                ious[sizes + limit + d] = best
            scratch = 3 * (t1 - t0)
            for g in range(truths):
                spans[scratch + 2 * truths + g] = t_dead[t_order[low + g]]
            match(
                ious, found, truths, limit, thresholds, count_a, count_t, areas, t_ignored, low * count_a,
                spans, scratch, flags, group * lanes,
            )  # fmt: skip
            group = pos
            low = high
    return last


def match_groups(
    first, last, limit, thresholds, count_t, areas, count_a, d_start, t_start, iou_start, ious, sizes, dead, ignored,
    ranks, flags, best, marks,
):  # fmt: skip
    """Groups ``first`` .. ``last`` whose IoUs are known; returns ``last``.

    Group ``i`` owns detections ``d_start[i] : d_start[i + 1]`` (best score first, their areas in ``sizes``), truths
    ``t_start[i] : t_start[i + 1]`` and, from ``ious[iou_start[i]]`` on, [detections, truths]. ``dead`` and ``ignored``
    as in ``match``; ``best`` is scratch for the largest group as ``match`` wants it, ``marks`` has 3 for each truth.
    """
    for i in range(first, last):
        detections, truths = d_start[i + 1] - d_start[i], t_start[i + 1] - t_start[i]
        found = min(detections, limit)
        for d in range(detections):
            ranks[d_start[i] + d] = d if d < limit else -1
        for d in range(found):
            highest = 0.0
            for g in range(truths):
                value = ious[iou_start[i] + d * truths + g]
                best[d * truths + g] = value
                highest = max(highest, value)
            best[limit * truths + d] = sizes[d_start[i] + d]
            best[limit * truths + limit + d] = highest
        for g in range(truths):
            marks[2 * truths + g] = dead[t_start[i] + g]
        match(
            best, found, truths, limit, thresholds, count_a, count_t, areas, ignored, t_start[i] * count_a,
            marks, 0, flags, d_start[i] * count_a * count_t,
        )  # fmt: skip
    return last


def accumulate(
    flags, ranks, order, weighted, times, first, last, count_a, count_t, positives, limits, count_m, points, count_r,
    counts, curve, stride, precision, recall, placed, places, reaching,
):  # fmt: skip
    """Precision and recall of one class from its detections ``order[first:last]``, sorted by falling score.

    Args:
        weighted, times: where ``weighted`` is 1, int64 [D], how often each detection counts.
        positives: int64 [A], truths that count; ``limits``: int64 [M] rising; ``points``: float64 [R] rising.
        counts: scratch, int64 [(2 + M) * A * T]; ``curve``: scratch, float64 [A * T, stride], stride > any positives.
        precision: float64 [A, T, R] at the last limit; ``recall``: float64 [M, A, T]; -1 without truths that count.
        placed, places, reaching: where ``placed`` is 1, scratch, int64 [A * T, stride], and int64 [A, T, R]: the
            detection that reaches each recall, -1 for none.
    """
    lanes = count_a * count_t
    for i in range((2 + count_m) * lanes):
        counts[i] = 0
    leading = -1
    for i in range(first, last):
        rank = ranks[order[i]]
        weight = times[order[i]] if weighted == 1 else 1
        if rank < 0 or rank >= limits[count_m - 1] or weight == 0:
            continue
        if leading < 0:
            leading = order[i]
        base = order[i] * lanes
        for lane in range(lanes):
            flag = flags[base + lane]
            if flag == 0:
                counts[lanes + lane] += weight
            elif flag == 1:
                hits = counts[lane]
                counts[lane] = hits + weight
                for k in range(hits + 1, hits + 1 + weight):
                    curve[lane * stride + k] = k / (counts[lanes + lane] + k + 2.220446049250313e-16)
                    if placed == 1:
                        places[lane * stride + k] = order[i]
                for m in range(count_m):
                    if rank < limits[m]:
                        counts[(2 + m) * lanes + lane] += weight
    for lane in range(lanes):
        total = positives[lane // count_t]
        for m in range(count_m):
            recall[m * lanes + lane] = counts[(2 + m) * lanes + lane] / total if total > 0 else -1.0
        hits, base = counts[lane], lane * stride
        for i in range(hits - 1, 0, -1):
            curve[base + i] = max(curve[base + i], curve[base + i + 1])
        reached = 0
        for p in range(count_r):
            if total > 0 and leading >= 0:
                while reached <= hits and reached / total < points[p]:
                    reached += 1
            # Recall 0 is reached by the first detection, whose precision, made monotone, is that of the first hit.
            value = curve[base + max(reached, 1)] if reached <= hits and hits > 0 else 0.0
            precision[lane * count_r + p] = value if total > 0 else -1.0
            if placed == 1:
                place = leading
                if reached > 0:
                    place = places[base + reached] if reached <= hits else -1
                reaching[lane * count_r + p] = place
    return last - first


_int, _flags, _reals = types.int64, types.CPointer(types.uint8), types.CPointer(types.float64)
_ints, _runs = types.CPointer(types.int64), types.CPointer(types.int32)
_bits = types.CPointer(types.uint64)
KERNELS = {
    "evaluate": (
        evaluate,
        _int(
            *(_int, _int, _int, _int, _int, _int, _int, _reals, _reals, _ints, _ints, _ints),
            *(_flags, _runs, _ints, _reals, _ints, _ints, _ints, _flags, _flags, _flags),
            *(_flags, _runs, _ints, _reals, _ints, _ints, _ints, _flags, _ints, _flags),
            *(_runs, _int, _ints, _reals, _ints, _reals, _bits, _int, _ints),
        ),
    ),
    "accumulate": (
        accumulate,
        _int(
            *(_flags, _ints, _ints, _int, _ints, _int, _int, _int, _int, _ints, _ints, _int, _reals, _int),
            *(_ints, _reals, _int, _reals, _reals, _int, _ints, _ints),
        ),
    ),
    "match_groups": (
        match_groups,
        _int(
            *(_int, _int, _int, _reals, _int, _reals, _int, _ints, _ints, _ints, _reals, _reals, _flags, _flags),
            *(_ints, _flags, _reals, _ints),
        ),
    ),
}
