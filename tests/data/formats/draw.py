"""Data sets drawn by hypothesis, their pictures written, and their comparison: what the tests of formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import measured
from maskwright.data.label_maps import resolve
from maskwright.data.source import FileSource
from maskwright.data.table import Table
from maskwright.ops import polygons, rle
from maskwright.structures import Record, Shape, Taxonomy

ODD_NAMES = (
    "cat",
    "owl",
    "Katze & Hund",
    "wild 'boar'",
    'big "dog"',
    "猫",
    "naïve <bär>",
    "no",
    "1.5",
    "a: b",
    "# c",
    "ß",
)
ODD_KEYS = ("a", "b 1", "über", "картинка", "c.d", "sub/e", "sub/deep/f", "日本", "g'h", "i&j")

WHAT = ("names", "splits", "keys", "sizes", "labels", "masks", "boxes", "crowd", "areas", "ids", "image_ids")
"""All that ``same`` compares by default; it also knows polygons, tracks, frames, colors, things, semantic, panoptic."""


def runs(mask: np.ndarray) -> Shape:
    """A dense mask [H, W] as a COCO run-length dictionary."""
    counts, _ = rle.encode(np.ascontiguousarray(mask)[None].astype(bool))
    return {"size": mask.shape, "counts": rle.compress(counts)}


def dense(shape: Shape, size: tuple[int, int]) -> np.ndarray | None:
    """bool [H, W] of a resolved outline; ``None`` where only a box is known."""
    if shape is None:
        return None
    if isinstance(shape, dict):
        counts, offsets = rle.from_coco([shape], size)
    else:
        assert isinstance(shape, tuple)
        counts = polygons.rasterize(list(shape), size)
        offsets = np.array([0, len(counts)], np.int64)
    return rle.decode(counts, offsets, size)[0].astype(bool)


def data_record(
    *,
    key: str = "a.png",
    path: Path | None = None,
    size: tuple[int, int] = (5, 6),
    shapes: Sequence[Shape] = (),
    boxes: Sequence[tuple[float, ...]] | None = None,
    labels: Sequence[int] | None = None,
    crowd: Sequence[bool] | None = None,
    first_id: int = 1,
    image_id: int = 1,
    **more: Any,
) -> Record:
    """A record by hand; without ``shapes`` its objects are boxes. Boxes and areas are the outlines' by default."""
    outlines = list(shapes) or [None] * len(boxes or ())
    found = [measured(shape, size, boxes[i] if boxes else None) for i, shape in enumerate(outlines)]
    assert not any(wrong for wrong, *_ in found), found
    return Record(
        key=key,
        path=path or Path(key),
        size=size,
        labels=np.array(labels or [0] * len(found), np.int64),
        shapes=tuple(shape for _, shape, _, _ in found),
        boxes=np.array([box for _, _, box, _ in found], np.float32).reshape(-1, 4),
        crowd=np.array(crowd or [False] * len(found), bool),
        ids=np.arange(first_id, first_id + len(found)),
        areas=np.array([area for *_, area in found], np.float64),
        image_id=image_id,
        **more,
    )


@st.composite
def polygon_shapes(draw: st.DrawFn, size: tuple[int, int], *, parts: int = 2) -> Shape:
    """One to ``parts`` polygons within the picture, corners on quarters of pixels; they may cross and overlap."""
    corner = st.tuples(st.integers(0, 4 * size[1]), st.integers(0, 4 * size[0]))
    count = draw(st.integers(1, parts))
    return tuple(np.array(draw(st.lists(corner, min_size=3, max_size=7)), np.float64) / 4 for _ in range(count))


def masks(size: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    """Dense masks bool [H, W], with holes and parts."""
    return hnp.arrays(bool, size)


def boxes(size: tuple[int, int]) -> st.SearchStrategy[tuple[float, ...]]:
    """(x1, y1, x2, y2) with area within the picture, on eighths of pixels."""

    def side(end: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(0, 8 * end - 1), st.integers(1, 8 * end)).filter(lambda ab: ab[0] < ab[1])

    return st.tuples(side(size[1]), side(size[0])).map(lambda s: (s[0][0] / 8, s[1][0] / 8, s[0][1] / 8, s[1][1] / 8))


@st.composite
def data_sets(
    draw: st.DrawFn,
    *,
    kinds: Sequence[str] = ("polygons", "runs", "box"),
    splits: Sequence[str] = ("train", "val"),
    names: Sequence[str] = ODD_NAMES,
    keys: Sequence[str] = ODD_KEYS,
    suffix: str = ".png",
    crowd: bool = True,
    disjoint: bool = False,
    tracks: bool = False,
    one_folder: bool = False,
    fewest_splits: int = 1,
    most_images: int = 3,
    most_objects: int = 4,
) -> Dataset:
    """A data set of small pictures, some without objects, whose boxes and areas are those of the outlines.

    Args:
        kinds: what outlines are drawn from: polygons, runs (with holes and parts), box (no outline).
        splits, names, keys: are drawn from; keys get ``suffix``.
        crowd: draw it too, else all ``False``.
        disjoint: outlines do not overlap; they are run-lengths then, besides boxes where ``kinds`` has them.
        tracks: give every object one.
        one_folder: no key is in two splits.
    """
    classes = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    taxonomy = Taxonomy(names=tuple(classes))
    chosen = draw(st.lists(st.sampled_from(splits), min_size=fewest_splits, max_size=len(splits), unique=True))
    tables: dict[str, Table] = {split: Table() for split in chosen}
    ident = image_id = 0
    free = list(keys)
    for table in tables.values():
        for key in draw(st.lists(st.sampled_from(free), max_size=most_images, unique=True)):
            if one_folder:
                free.remove(key)
            size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
            image_id += 1
            table.add_image(key + suffix, Path(key + suffix), size, image_id)
            for shape, box in _outlines(draw, size, kinds, disjoint, most_objects):
                wrong, shape, box, area = measured(shape, size, box)
                if wrong:
                    continue
                ident += 1
                table.add_object(
                    label=draw(st.integers(0, len(classes) - 1)),
                    shape=shape,
                    box=box,
                    crowd=crowd and draw(st.booleans()),
                    ident=ident,
                    area=area,
                    track=draw(st.integers(1, 5)) * 10 + ident if tracks else None,
                )
    return Dataset(format="drawn", taxonomy=taxonomy, splits={s: FileSource(t, taxonomy) for s, t in tables.items()})


def _outlines(
    draw: st.DrawFn, size: tuple[int, int], kinds: Sequence[str], disjoint: bool, most: int
) -> Iterable[tuple[Shape, tuple[float, ...] | None]]:
    if disjoint:
        cut = draw(hnp.arrays(np.uint8, size, elements=st.integers(0, most)))
        for value in range(1, most + 1):
            if (cut == value).any():
                yield runs(cut == value), None
        if "box" in kinds and draw(st.booleans()):
            yield None, draw(boxes(size))
        return
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=most)):
        if kind == "polygons":
            yield draw(polygon_shapes(size)), None
        elif kind == "runs":
            mask = draw(masks(size))
            if mask.any():
                yield runs(mask), None
        else:
            yield None, draw(boxes(size))


def write_pictures(dataset: Dataset, place: Callable[[str, str], Path]) -> None:
    """A gray picture of the right size for every image, at ``place(split, key)``."""
    for split, source in dataset.splits.items():
        for i in range(len(source)):
            record = source.record(i)
            path = place(split, record.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", record.size[::-1]).save(path)


def same(
    first: Dataset, second: Dataset, *, what: Iterable[str] = WHAT, key: Callable[[str], str] = lambda key: key
) -> None:
    """Fail, naming what, where two data sets differ.

    Images are matched by ``key(record.key)`` within their split; objects by their order.
    """
    what = set(what)
    one, two = first.taxonomy, second.taxonomy
    for field, attribute in (("names", "names"), ("colors", "colors"), ("things", "thing")):
        if field in what:
            assert getattr(one, attribute) == getattr(two, attribute), field
    if "splits" in what:
        assert set(first.splits) == set(second.splits)
    for split in set(first.splits) & set(second.splits):
        left, right = (
            {key(r.key): r for r in map(d.splits[split].record, range(len(d.splits[split])))} for d in (first, second)
        )
        if "keys" in what:
            assert set(left) == set(right), split
        for name in set(left) & set(right):
            same_record(left[name], right[name], what, (one, two))


def same_record(a: Record, b: Record, what: Iterable[str], taxonomies: tuple[Taxonomy, Taxonomy]) -> None:
    """As ``same``, of one image; classes are compared by name."""
    what = set(what)
    a, b = resolve(a), resolve(b)
    where = a.key
    if "sizes" in what:
        assert a.size == b.size, where
    if "image_ids" in what:
        assert a.image_id == b.image_id, where
    assert len(a) == len(b), where
    one, two = taxonomies
    if "labels" in what:
        assert [one.names[i] for i in a.labels] == [two.names[i] for i in b.labels], where
    for field in ("boxes", "crowd", "areas", "ids"):
        if field in what:
            assert getattr(a, field).tolist() == getattr(b, field).tolist(), (where, field)
    for field in ("tracks", "sequence", "frame"):
        if field in what or (field != "tracks" and "frames" in what):
            assert np.array_equal(getattr(a, field), getattr(b, field)), (where, field)
    if "masks" in what:
        for i, (left, right) in enumerate(zip(a.shapes, b.shapes, strict=True)):
            left, right = dense(left, a.size), dense(right, b.size)
            assert (left is None) == (right is None), (where, i)
            assert left is None or np.array_equal(left, right), (where, i)
    if "polygons" in what:
        for i, (left, right) in enumerate(zip(a.shapes, b.shapes, strict=True)):
            if isinstance(left, tuple):
                assert isinstance(right, tuple), (where, i)
                assert [ring.tolist() for ring in left] == [ring.tolist() for ring in right], (where, i)
    for field in ("semantic", "panoptic"):
        if field in what:
            assert np.array_equal(getattr(a, field), getattr(b, field)), (where, field)
