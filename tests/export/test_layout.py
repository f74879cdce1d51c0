"""A ``Raw`` as a list of tensors and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from maskwright.errors import InputError
from maskwright.export.layout import Layout
from maskwright.models.eomt import Raw
from maskwright.nn.heads.roi_box import Detections


def raw(layers: int = 2) -> Raw:
    logits = [torch.full((1, 3), float(i)) for i in range(layers)]
    return Raw(logits, [part[:, :2, None].expand(1, 2, 2) for part in logits], (64, 96))


def test_only_what_is_read_is_kept_and_everything_finds_its_place() -> None:
    layout = Layout.of([raw()], lambda r: r.class_logits[-1] + 1)
    assert layout.names == ("class_logits.1", "padded.0", "padded.1")
    again = Layout(json.loads(json.dumps(layout.tree)), layout.names)
    built = again.build(layout.flatten(raw()))
    assert isinstance(built, Raw)
    assert built.padded == (64, 96)
    assert built.learned is None
    assert torch.equal(built.class_logits[1], raw().class_logits[1])
    assert built.class_logits[0] is None
    assert built.mask_logits[1] is None


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.shape,
        lambda t: len(t),
        lambda t: list(t),
        lambda t: t.numpy(),
        lambda t: torch.stack([t, t]),
        lambda t: torch.zeros(3)[t.long()],
        lambda t: list(zip(t, t, strict=True)),
        lambda t: torch.zeros(1, 3).copy_(t),
    ],
)
def test_every_way_of_reading_counts(read: Any) -> None:
    layout = Layout.of([raw(1)], lambda r: read(r.class_logits[0]))
    assert "class_logits.0" in layout.names
    assert "mask_logits.0" not in layout.names


def test_what_any_of_several_runs_reads_is_kept() -> None:
    asked = iter(["class_logits", "mask_logits"])
    layout = Layout.of([raw(1), raw(1)], lambda r: getattr(r, next(asked))[0].sum())
    assert {"class_logits.0", "mask_logits.0"} <= set(layout.names)


def test_frozen_and_slotted_structures() -> None:
    found = Detections(torch.zeros(2, 4), torch.ones(2), torch.ones(2, dtype=torch.int64))
    layout = Layout.of([found], lambda d: (d.boxes + 1, d.scores + 1, d.labels + 1))
    assert torch.equal(layout.build(layout.flatten(found)).labels, found.labels)


@pytest.mark.parametrize(
    "name", ["os:stat_result", "maskwright.zoo:build", "maskwright.nothing:Raw", "maskwright.models.mask2former:Rew"]
)
def test_a_file_makes_no_other_classes(name: str) -> None:
    tree = {"type": name, "fields": {}}
    with pytest.raises(InputError, match="does not have"):
        Layout(tree, ()).build([])


def test_fields_of_another_version() -> None:
    tree = {"type": "maskwright.nn.heads.roi_box:Detections", "fields": {"boxes": {"value": None}}}
    with pytest.raises(InputError, match="another version"):
        Layout(tree, ()).build([])


def test_what_a_raw_must_not_hold() -> None:
    with pytest.raises(TypeError, match="learned"):
        Layout.of([Raw([], [], (1, 1), learned=object())], lambda r: None)  # type: ignore[arg-type]
