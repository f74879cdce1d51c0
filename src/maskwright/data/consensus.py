"""Several annotators' data sets as one: objects that are one thing, outlined as most of them see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset, join_classes
from maskwright.data.edit import joined, relabeled
from maskwright.data.source import FileSource, Loads
from maskwright.data.tasks import outlines_of
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.consensus import majority, same_things, staple
from maskwright.structures import Record

Method = Literal["majority", "staple"]

_SAME = 0.5  # IoU from which objects of two annotators may be one thing
_MARGIN = 0.5  # of the box's longer side, looked at around a thing: what lies farther off says nothing of the raters


def shared_images(datasets: Sequence[Dataset]) -> tuple[list[Loads], list[str]]:
    """The annotators' sources with one taxonomy, and the keys of the images that at least two of them looked at.

    Raises:
        InputError: fewer than two data sets; no image in two of them; sizes of an image that differ.
    """
    if len(datasets) < 2:
        raise InputError(f"agreement needs two or more data sets, got {len(datasets)}")
    taxonomy = join_classes([d.taxonomy for d in datasets])
    sources: list[Loads] = []
    for d in datasets:
        move = np.array([taxonomy.index(name) for name in d.taxonomy.names], np.int64)
        sources.append(relabeled(joined(d), move, taxonomy))
    seen: dict[str, list[tuple[int, int]]] = {}
    for source in sources:
        for i in range(len(source)):
            record = source.record(i)
            seen.setdefault(record.key, []).append(record.size)
    keys = [key for key, sizes in seen.items() if len(sizes) > 1]
    if not keys:
        first = [source.record(0).key for source in sources if len(source)]
        raise InputError(f"no image is in two of the data sets; their first ones are {', '.join(first[:5])}")
    for key in keys:
        if len(set(seen[key])) > 1:
            raise InputError(f"{key} must have one size in all data sets, got {sorted(set(seen[key]))}")
    return sources, keys


def by_key(source: Loads) -> Mapping[str, int]:
    """Key -> number of the image."""
    return {source.record(i).key: i for i in range(len(source))}


def consensus(datasets: Sequence[Dataset], method: Method = "majority") -> Dataset:
    """What most annotators agree on, of all images that two or more looked at.

    Objects of one class whose masks overlap by half (the most alike first) are one thing; it is kept where more than
    half of those who looked at the image have it. Its mask is the majority's vote, or STAPLE's probability above one
    half (Warfield et al. 2004, within a window around it). Crowd regions are left out.

    Raises:
        InputError: as ``shared_images``; an object has no outline.
    """
    sources, keys = shared_images(datasets)
    places = [by_key(source) for source in sources]
    records: list[Record] = []
    number = 1
    for key in keys:
        opinions = [source.record(at[key]) for source, at in zip(sources, places, strict=True) if key in at]
        made = _agreed(opinions, method, number)
        number += len(made)
        records.append(replace(made, image_id=len(records) + 1))
    taxonomy = sources[0].taxonomy
    splits: dict[str, Loads] = {WHOLE: FileSource.from_records(records, taxonomy)}
    return Dataset(format=datasets[0].format, taxonomy=taxonomy, splits=splits)


def _agreed(opinions: Sequence[Record], method: Method, first_id: int) -> Record:
    """The record that the opinions on one image come to."""
    size = opinions[0].size
    counts: list[np.ndarray] = []
    labels: list[int] = []
    owners: list[int] = []
    for rater, record in enumerate(opinions):
        runs, offsets = outlines_of(record)
        for i in np.flatnonzero(~record.crowd).tolist():
            counts.append(runs[offsets[i] : offsets[i + 1]])
            labels.append(int(record.labels[i]))
            owners.append(rater)
    flat, cuts = _stacked(counts)
    ious = np.triu(rle.iou(flat, cuts, flat, cuts, height=size[0]), 1)
    own, kinds = np.array(owners), np.array(labels)
    ious[(own[:, None] == own[None]) | (kinds[:, None] != kinds[None])] = 0
    pairs = np.argwhere(ious >= _SAME)
    groups = same_things(own, pairs, ious[pairs[:, 0], pairs[:, 1]])
    kept = [group for group in groups if 2 * len(group) > len(opinions)]
    made = [_outline([counts[i] for i in group], len(opinions), size, method) for group in kept]
    filled = [(group, runs) for group, runs in zip(kept, made, strict=True) if runs[1::2].sum()]
    runs, offsets = _stacked([runs for _, runs in filled])
    return replace(
        opinions[0],
        labels=np.array([labels[group[0]] for group, _ in filled], np.int64),
        shapes=tuple({"size": size, "counts": o["counts"].encode("ascii")} for o in rle.to_coco(runs, offsets, size)),
        boxes=rle.boxes(runs, offsets, size[0]).astype(np.float32).reshape(-1, 4),
        crowd=np.zeros(len(filled), bool),
        ids=np.arange(first_id, first_id + len(filled)),
        areas=rle.area(runs, offsets).astype(np.float64),
        tracks=None,
        semantic=None,
        panoptic=None,
    )


def _outline(counts: Sequence[np.ndarray], raters: int, size: tuple[int, int], method: Method) -> np.ndarray:
    """Runs of one thing; raters without it vote for nothing."""
    flat, cuts = _stacked(counts)
    boxes = rle.boxes(flat, cuts, size[0])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = _MARGIN * float((high - low).max())
    x1, y1 = np.maximum(np.floor(low - margin).astype(int), 0).tolist()
    x2, y2 = np.minimum(np.ceil(high + margin).astype(int), size[::-1]).tolist()
    votes = np.zeros((raters, y2 - y1, x2 - x1), bool)
    votes[: len(counts)] = rle.decode(*rle.window(flat, cuts, size, (y1, x1, y2 - y1, x2 - x1)), votes.shape[1:])
    seen = majority(votes) if method == "majority" else staple(votes).probability > 0.5
    inside = rle.encode(seen[None])
    return rle.window(*inside, votes.shape[1:], (-y1, -x1, *size))[0]


def _stacked(pieces: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.int32), *pieces]).astype(np.int32), offsets
