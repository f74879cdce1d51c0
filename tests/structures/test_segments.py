"""``Segments``: fields stay together through selection and concatenation; wrong ones are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.structures import Masks, Segments

SIZE = (4, 6)


def segments(count: int, seed: int = 0, **changes: Any) -> Segments:
    """``count`` random objects with every field known, except for ``changes``."""
    g = torch.Generator().manual_seed(seed)
    near = torch.rand(count, 2, generator=g) * 3
    fields: dict[str, Any] = {
        "labels": torch.randint(0, 5, (count,), generator=g),
        "masks": Masks.from_dense(torch.rand(count, *SIZE, generator=g) < 0.5),
        "boxes": torch.cat([near, near + torch.rand(count, 2, generator=g)], dim=1),
        "scores": torch.rand(count, generator=g),
        "ids": torch.randint(1, 99, (count,), generator=g),
        "crowd": torch.rand(count, generator=g) < 0.5,
    }
    return Segments(size=SIZE, **{**fields, **changes})


def equal(a: Segments, b: Segments) -> bool:
    """Whether two sets of objects are the same in every field."""
    for name in ("labels", "boxes", "scores", "ids", "crowd"):
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (x is not None and not torch.equal(x, y)):
            return False
    known = a.masks is not None and b.masks is not None
    return a.size == b.size and (torch.equal(a.masks.dense(), b.masks.dense()) if known else a.masks is b.masks)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.data())
def test_a_selection_takes_the_same_objects_from_every_field(count: int, data: st.DataObject) -> None:
    whole = segments(count)
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
    part, places = whole[keep], keep.nonzero().flatten()
    assert equal(part, whole[places])
    assert equal(part, whole[places.tolist()])
    assert torch.equal(part.labels, whole.labels[keep])
    assert part.masks is not None
    assert whole.masks is not None
    assert torch.equal(part.masks.dense(), whole.masks.dense()[keep])
    assert equal(Segments.cat([whole[: count // 2], whole[count // 2 :]]), whole)


def test_unknown_fields_stay_unknown() -> None:
    part = segments(3, masks=None, scores=None)[[0, 2]]
    assert part.masks is None
    assert part.scores is None
    assert len(part) == 2


def test_one_index_gives_one_object() -> None:
    assert len(segments(3)[torch.tensor(1)]) == 1


def test_empty_and_moved() -> None:
    none = Segments.empty(SIZE, scored=True)
    assert len(none) == 0
    assert none.scores is not None
    assert Segments.empty(SIZE).scores is None
    assert equal(Segments.cat([segments(2).to("cpu")]), segments(2))
    meta = segments(2).to("meta")
    assert meta.labels.device.type == "meta"
    assert meta.masks is not None
    assert meta.masks.counts.device.type == "cpu"


def test_a_cloud_may_have_boxes_in_space() -> None:
    cloud = Segments(size=(50,), labels=torch.zeros(2, dtype=torch.int64), boxes=torch.zeros(2, 6))
    assert cloud.boxes is not None
    assert Segments(size=(2, 4, 6), labels=torch.zeros(1, dtype=torch.int64), boxes=torch.zeros(1, 6)).size == (2, 4, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(2)}, r"labels must be torch.int64, got torch.float32"),
        ({"labels": torch.zeros(2, 1, dtype=torch.int64)}, r"labels must have shape \(N,\), got \(2, 1\)"),
        ({"labels": [1, 2]}, "labels must be a torch.Tensor .* got list"),
        ({"boxes": torch.zeros(3, 4)}, r"boxes must have shape \(2, 4\), got \(3, 4\)"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes must have shape \(2, 4\), got \(2, 5\)"),
        ({"boxes": torch.zeros(2, 4).double()}, "boxes must be torch.float32"),
        ({"scores": torch.zeros(3)}, r"scores must have shape \(2,\), got \(3,\)"),
        ({"scores": torch.zeros(2).double()}, "scores must be torch.float32"),
        ({"ids": torch.zeros(2)}, "ids must be torch.int64"),
        ({"crowd": torch.zeros(2)}, "crowd must be torch.bool"),
        ({"masks": Masks.empty(SIZE)}, r"one per label \(2\), got 0"),
        ({"masks": Masks.empty((6, 4))}, r"\(N, \*size\), got \(0, 6, 4\). Did you pass \(W, H\)"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        segments(2, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 5])}, r"dense in \[0, 5\), got 0..5"),
        ({"labels": torch.tensor([-1, 2])}, "got -1..2"),
        ({"scores": torch.tensor([0.5, 1.5])}, r"scores must lie in \[0, 1\], got \[1.5\]"),
        ({"scores": torch.tensor([0.5, float("nan")])}, "nan"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [3, 3, 1, 5]])}, r"\[\[3.0, 3.0, 1.0, 5.0\]\].*\(x, y, w, h\)"),
        ({"boxes": torch.tensor([[0.0, 0, 1, float("inf")]] * 2)}, "finite"),
    ],
)
def test_validate_looks_at_values(changes: dict[str, Any], message: str) -> None:
    wrong = segments(2, **changes)
    with pytest.raises(ValueError, match=message):
        wrong.validate(classes=5)


def test_validate_returns_itself() -> None:
    good = segments(3)
    assert good.validate(5) is good
    assert len(Segments.empty(SIZE).validate(1)) == 0


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="scores must be known in all parts or in none, got 1 of 2"):
        Segments.cat([segments(1), segments(1, scores=None)])
    with pytest.raises(ValueError, match="masks must be known in all parts or in none"):
        Segments.cat([segments(1), segments(1, masks=None)])
    with pytest.raises(ValueError, match="share one size"):
        Segments.cat([segments(1), Segments.empty((6, 4))])
    with pytest.raises(ValueError, match="at least one"):
        Segments.cat([])
    with pytest.raises(ValueError, match=r"got shape \(1, 2\)"):
        _ = segments(2)[torch.tensor([[0, 1]])]
