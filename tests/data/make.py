"""Records made by hand and by hypothesis, and their comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.ops import rle
from maskwright.structures import Record, Shape, Taxonomy

ANIMALS = Taxonomy(names=("cat", "dog", "owl"), source_ids=(3, 7, 90))


def runs(mask: np.ndarray) -> Shape:
    """A dense mask [H, W] as a COCO run-length dictionary."""
    counts, _ = rle.encode(mask[None].astype(bool))
    return {"size": mask.shape, "counts": rle.compress(counts)}


def record(
    size: tuple[int, int],
    shapes: list[Shape],
    *,
    boxes: list[tuple[float, ...]] | None = None,
    key: str = "a.png",
    path: Path | None = None,
    image_id: int = 1,
    labels: list[int] | None = None,
    crowd: list[bool] | None = None,
    first_id: int = 1,
) -> Record:
    """A record whose boxes and areas come from its shapes where they are not given."""
    count = len(shapes)
    known = [_box(shape, size) for shape in shapes] if boxes is None else boxes
    return Record(
        key=key,
        path=path or Path(key),
        size=size,
        labels=np.array(labels or [0] * count, np.int64),
        shapes=tuple(shapes),
        boxes=np.array(known, np.float32).reshape(-1, 4),
        crowd=np.array(crowd or [False] * count, bool),
        ids=np.arange(first_id, first_id + count),
        areas=np.array([float((b[2] - b[0]) * (b[3] - b[1])) for b in known], np.float64),
        image_id=image_id,
    )


def _box(shape: Shape, size: tuple[int, int]) -> tuple[float, ...]:
    if isinstance(shape, dict):
        counts, offsets = rle.from_coco([shape], size)
        return tuple(rle.boxes(counts, offsets, size[0])[0].tolist())
    assert shape is not None
    points = np.concatenate(shape)
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


@st.composite
def records(draw: st.DrawFn, count: int) -> list[Record]:
    """Records with polygons (several parts), run-lengths (holes, parts), bare boxes, crowd; some without objects."""
    out: list[Record] = []
    first = 1
    for number in range(count):
        size = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
        shapes: list[Shape] = []
        boxes: list[tuple[float, ...]] = []
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["runs", "polygons", "box"]))
            if kind == "runs":
                mask = draw(hnp.arrays(bool, size))
                mask[draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))] = True
                shapes.append(runs(mask))
                boxes.append(_box(shapes[-1], size))
            elif kind == "polygons":
                inside = st.tuples(st.floats(0, size[1]), st.floats(0, size[0]))
                rings = draw(st.lists(st.lists(inside, min_size=3, max_size=6), min_size=1, max_size=2))
                shapes.append(tuple(np.array(ring, np.float64) for ring in rings))
            else:
                shapes.append(None)
            if kind != "runs":
                x, y = draw(st.floats(0, 5, width=32)), draw(st.floats(0, 5, width=32))
                wide, tall = draw(st.floats(0.5, 5, width=32)), draw(st.floats(0.5, 5, width=32))
                boxes.append((x, y, x + wide, y + tall))
        made = record(
            size,
            shapes,
            boxes=boxes,
            key=f"{number}.png",
            image_id=number * 10,
            labels=draw(st.lists(st.integers(0, 2), min_size=len(shapes), max_size=len(shapes))),
            crowd=draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes))),
            first_id=first,
        )
        first += len(shapes)
        out.append(made)
    return out


def assert_same(one: Record, other: Record, *, paths: bool = False) -> None:
    """Every field equal, to the bit."""
    for name in ("key", "size", "image_id") + (("path",) if paths else ()):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("labels", "boxes", "crowd", "ids", "areas"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
    assert len(one.shapes) == len(other.shapes)
    for a, b in zip(one.shapes, other.shapes, strict=True):
        if isinstance(a, tuple):
            assert isinstance(b, tuple)
            assert len(a) == len(b)
            assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
        elif isinstance(a, dict):
            assert isinstance(b, dict)
            assert tuple(a["size"]) == tuple(b["size"])
            assert a["counts"] == b["counts"]
        else:
            assert b is None
