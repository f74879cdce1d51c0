"""Data sets put together and taken apart: split, merge, remap, subset. Views: nothing is copied but numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np

from maskwright.data.dataset import Dataset, join_classes
from maskwright.data.source import Loads, MixedSource, Subset
from maskwright.data.tasks import Mapped
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy


def split(
    dataset: Dataset,
    shares: Mapping[str, float],
    *,
    group: Callable[[Record], str] | None = None,
    together: Sequence[Sequence[int]] = (),
    stratify: bool = True,
    seed: int = 0,
) -> Dataset:
    """Divide all images anew.

    Groups (all images of a patient, a clip, a site) stay together, so that nothing of what is tested was seen in
    training. Classes are spread in proportion, the rarest first: iterative stratification (Sechidis, Tsoumakas,
    Vlahavas 2011, Algorithm 1), with objects for labels and groups for examples.

    Args:
        dataset: its present splits are joined first.
        shares: split -> share of the images; positive, adding up to 1.
        group: the name of an image's group; by default its sequence where it has one, else the image itself.
        together: numbers of images, counted through ``joined(dataset)``, whose groups become one; nearly equal pictures
            (``audit.pictures.alike``).
        stratify: spread the classes; otherwise only the number of images is looked at.
        seed: equal seeds give equal splits.

    Raises:
        InputError: shares that are not positive or do not add up to 1; more splits than groups.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"the shares of splits must be positive and add up to 1, got {dict(shares)}")
    whole = joined(dataset)
    members: dict[str, list[int]] = {}
    counts = np.zeros((len(whole), len(dataset.taxonomy)), np.int64)
    for index in range(len(whole)):
        record = whole.record(index)
        name = group(record) if group is not None else record.sequence or f"\0{index}"
        members.setdefault(name, []).append(index)
        counts[index] = _class_counts(record, len(dataset.taxonomy))
    members = _united(members, together)
    if len(members) < len(shares):
        raise InputError(f"{len(shares)} splits need at least as many groups of images, got {len(members)}")
    groups = list(members.values())
    sizes = np.array([len(g) for g in groups])
    labels = np.array([counts[g].sum(axis=0) for g in groups]) if stratify else np.zeros((len(groups), 0), np.int64)
    fractions = np.array(list(shares.values()))
    placed = _stratified(sizes, labels, fractions / fractions.sum(), np.random.default_rng(seed))
    chosen = {name: sorted(i for g in np.flatnonzero(placed == k) for i in groups[g]) for k, name in enumerate(shares)}
    return replace(dataset, splits={name: Subset(whole, index) for name, index in chosen.items()})


def merge(datasets: Sequence[Dataset], names: Sequence[str] | None = None) -> Dataset:
    """Several data sets as one: splits of one name are joined, classes are joined by name.

    Where two images of a split have one key, all keys of it get the name of their data set before them; object ids
    that repeat within a split are numbered anew.

    Args:
        datasets: at least one.
        names: one for each data set, distinct; by default 1, 2, ...

    Raises:
        InputError: nothing to merge; names that are not distinct; a class that is a thing here and stuff there.
    """
    tags = list(names) if names is not None else [str(i + 1) for i in range(len(datasets))]
    if not datasets or len(set(tags)) != len(datasets):
        raise InputError(f"merging needs data sets with distinct names, got {tags}")
    taxonomy = join_classes([d.taxonomy for d in datasets])
    splits: dict[str, Loads] = {}
    for name in dict.fromkeys(name for d in datasets for name in d.splits):
        parts = [(tag, d.splits[name]) for tag, d in zip(tags, datasets, strict=True) if name in d.splits]
        parts = [(tag, source) for tag, source in parts if len(source)] or parts[:1]
        records = [source.record(i) for _, source in parts for i in range(len(source))]
        clash = _repeats(record.key for record in records)
        step = _step(int(v) for record in records if record.panoptic is None for v in record.ids)
        image_step = _step(record.image_id for record in records)
        sources = [
            _retold(source, taxonomy, tag if clash else None, k * step, k * image_step)
            for k, (tag, source) in enumerate(parts)
        ]
        splits[name] = sources[0] if len(sources) == 1 else MixedSource(sources)
    dropped: dict[str, list[str]] = {}
    for d in datasets:
        for kind, where in d.dropped.items():
            dropped.setdefault(kind, []).extend(where)
    return Dataset(format=datasets[0].format, taxonomy=taxonomy, splits=splits, dropped=dropped)


def remap(dataset: Dataset, classes: Mapping[str, str | None], *, others: bool = True) -> Dataset:
    """Rename, join and remove classes.

    Args:
        dataset: what to change.
        classes: class -> its new name, several to one name joins them, ``None`` removes its objects; pixels of removed
            classes become void.
        others: keep the classes that are not named; otherwise they are removed too.

    Raises:
        InputError: a class that there is not; things and stuff joined; nothing left.
    """
    old = dataset.taxonomy
    unknown = [name for name in classes if name not in old.names]
    if unknown:
        raise InputError(
            f"there are no classes {', '.join(unknown[:5])}; there are {len(old)}: {', '.join(old.names[:20])}"
        )
    target = {name: classes.get(name, name if others else None) for name in old.names}
    names = list(dict.fromkeys(new for new in target.values() if new))
    if not names:
        raise InputError("remapping must leave a class")
    first = {new: next(i for i, name in enumerate(old.names) if target[name] == new) for new in names}
    for i, name in enumerate(old.names):
        new = target[name]
        if new and old.thing[i] != old.thing[first[new]]:
            raise InputError(
                f"{name} and {old.names[first[new]]} cannot both become {new}: one is a thing, one is stuff"
            )
    taxonomy = Taxonomy(
        names=tuple(names),
        thing=tuple(old.thing[first[n]] for n in names),
        colors=tuple(old.colors[first[n]] for n in names),
        source_ids=tuple(old.source_ids[first[n]] for n in names),
    )
    move = np.array([names.index(new) if (new := target[name]) else -1 for name in old.names], np.int64)
    splits: dict[str, Loads] = {name: relabeled(source, move, taxonomy) for name, source in dataset.splits.items()}
    return replace(dataset, taxonomy=taxonomy, splits=splits)


def subset(
    dataset: Dataset,
    *,
    count: int | None = None,
    classes: Sequence[str] = (),
    keys: Sequence[str] = (),
    splits: Sequence[str] = (),
    with_objects: bool = False,
    seed: int | None = None,
) -> Dataset:
    """Some of the images.

    Args:
        dataset: what to choose from.
        count: at most this many images a split: the first ones, or with ``seed`` drawn ones.
        classes: only images that show one of them (all their objects are kept; ``remap`` removes classes).
        keys: only images whose key matches one of these patterns (``street/*``).
        splits: only these splits.
        with_objects: only images with objects.
        seed: draws ``count`` images at random, in the order they have.

    Raises:
        InputError: a class or split that there is not, a negative count, or no image left.
    """
    for what, given, known in (("classes", classes, dataset.taxonomy.names), ("splits", splits, tuple(dataset.splits))):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InputError(f"there are no {what} {', '.join(unknown[:5])}; there are: {', '.join(known[:20])}")
    if count is not None and count < 0:
        raise InputError(f"the number of images must not be negative, got {count}")
    wanted = [dataset.taxonomy.index(name) for name in classes]
    out: dict[str, Loads] = {}
    for name, source in dataset.splits.items():
        if splits and name not in splits:
            continue
        index = [i for i in range(len(source)) if _is_wanted(source.record(i), wanted, keys, with_objects)]
        if count is not None and seed is not None and len(index) > count:
            index = sorted(np.random.default_rng(seed).choice(index, count, replace=False).tolist())
        out[name] = Subset(source, index[:count])
    if not any(len(source) for source in out.values()):
        raise InputError("no image is left: loosen what is asked for")
    return replace(dataset, splits=out)


def joined(dataset: Dataset) -> Loads:
    """All splits one after the other."""
    parts = [source for source in dataset.splits.values() if len(source)]
    if not parts:
        raise InputError("the data set must have images, got none")
    return parts[0] if len(parts) == 1 else MixedSource(parts)


def relabeled(source: Loads, move: np.ndarray, taxonomy: Taxonomy) -> Mapped:
    """A view in which label ``i`` is ``move[i]``; -1 removes objects, and voids pixels."""

    def change(record: Record) -> Record:
        labels = move[record.labels] if len(record) else record.labels
        index = np.flatnonzero(labels >= 0)
        semantic = record.semantic
        if isinstance(semantic, np.ndarray):
            semantic = np.where(semantic >= 0, move[semantic], -1).astype(np.int16)
        elif semantic is not None and semantic.classes is not None:
            moved = {value: int(move[label]) for value, label in semantic.classes.items()}
            semantic = replace(semantic, classes={value: label for value, label in moved.items() if label >= 0})
        panoptic = record.panoptic
        if isinstance(panoptic, np.ndarray) and len(index) < len(record):
            panoptic = np.where(np.isin(panoptic, record.ids[index]), panoptic, 0)
        return replace(
            record,
            labels=labels[index],
            shapes=tuple(record.shapes[i] for i in index.tolist()),
            boxes=record.boxes[index],
            crowd=record.crowd[index],
            ids=record.ids[index],
            areas=record.areas[index],
            tracks=None if record.tracks is None else record.tracks[index],
            semantic=semantic,
            panoptic=panoptic,
        )

    return Mapped(source, change, taxonomy)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _united(members: dict[str, list[int]], together: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """Groups of images, those joined that share one of ``together``."""
    home = {index: name for name, its in members.items() for index in its}
    out = dict(members)
    for indices in together:
        names = list(dict.fromkeys(home[index] for index in indices))
        for name in names[1:]:
            out[names[0]] = out[names[0]] + out.pop(name)
            home.update(dict.fromkeys(out[names[0]], names[0]))
    return out


def _class_counts(record: Record, classes: int) -> np.ndarray:
    counts = np.bincount(record.labels, minlength=classes)
    semantic = record.semantic
    if isinstance(semantic, np.ndarray):  # one for a class that is seen, as stuff has no number
        present = np.unique(semantic[semantic >= 0])
        counts[present] = np.maximum(counts[present], 1)
    return counts


def _stratified(sizes: np.ndarray, labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which split each group goes to, int64 [G].

    The rarest class that is left hands out its groups, each to the split that lacks most of that class, then most
    images; groups without objects fill up at the end. No split stays empty.
    """
    order = rng.permutation(len(sizes))
    want = shares[:, None] * labels.sum(axis=0)
    room = shares * sizes.sum()
    placed = np.full(len(sizes), -1, np.int64)

    def place(g: int, split: int) -> None:
        placed[g] = split
        want[split] -= labels[g]
        room[split] -= sizes[g]

    left = labels.copy()
    while (totals := left.sum(axis=0)).any():
        rarest = int(np.argmin(np.where(totals > 0, totals, np.iinfo(np.int64).max)))
        having = order[left[order, rarest] > 0]
        for g in having[np.argsort(-left[having, rarest], kind="stable")].tolist():
            place(g, int(np.lexsort((-room, -want[:, rarest]))[0]))
            left[g] = 0
    waiting = order[placed[order] < 0]
    for g in waiting[np.argsort(-sizes[waiting], kind="stable")].tolist():
        place(g, int(np.argmax(room)))
    for split in range(len(shares)):
        if not (placed == split).any():
            fullest = int(np.argmax(np.bincount(placed, minlength=len(shares))))
            inside = np.flatnonzero(placed == fullest)
            placed[inside[np.argmin(sizes[inside])]] = split
    return placed


def _repeats(values: Iterable[Hashable]) -> bool:
    return any(n > 1 for n in Counter(values).values())


def _step(numbers: Iterable[int]) -> int:
    """What to add per data set so that numbers are distinct: 0 where they are."""
    known = list(numbers)
    return max(known) + 1 if _repeats(known) else 0


def _retold(source: Loads, taxonomy: Taxonomy, tag: str | None, first_id: int, first_image: int) -> Loads:
    """A view with labels of ``taxonomy``, keys and ids that are distinct in the merged split."""
    move = np.array([taxonomy.index(name) for name in source.taxonomy.names], np.int64)
    moved = relabeled(source, move, taxonomy)

    def change(record: Record) -> Record:
        key = record.key if tag is None else f"{tag}/{record.key}"
        ids = record.ids if record.panoptic is not None else record.ids + first_id  # a panoptic map has them as values
        return replace(record, key=key, ids=ids, image_id=record.image_id + first_image)

    return moved if tag is None and first_id == 0 and first_image == 0 else Mapped(moved, change, taxonomy)


def _is_wanted(record: Record, classes: Sequence[int], keys: Sequence[str], with_objects: bool) -> bool:
    if keys and not any(fnmatch(record.key, pattern) for pattern in keys):
        return False
    if classes and not np.isin(record.labels, classes).any():
        return False
    return len(record) > 0 or not with_objects
