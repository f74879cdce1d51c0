"""Loading is strict, says what was not loaded, and changes nothing when it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskwright.errors import InputError
from maskwright.weights.report import LoadReport, load_state


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.box_head = nn.ModuleDict({"class_logits": nn.Linear(4, classes + 1), "hidden": nn.Linear(4, 4)})


def test_everything_fits() -> None:
    source, target = Net(3), Net(3)
    state = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    report = load_state(target, state)
    assert report.complete
    assert str(report) == f"{len(state)} loaded"
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_refusals_count_list_five_and_change_nothing() -> None:
    target = Net(3)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = {f"other.{i}": torch.ones(1) for i in range(7)} | {"body.0.weight": torch.ones(4, 3, 1, 1)}
    with pytest.raises(InputError) as refused:
        load_state(target, state, source="a.pth")
    text = str(refused.value)
    assert "the checkpoint a.pth must fit" in text
    assert "1 loaded" in text
    assert "7 unexpected: other.0, other.1, other.2, other.3, other.4, and 2 more" in text
    assert "9 missing: body.0.bias" in text
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_another_model_is_called_that() -> None:
    with pytest.raises(InputError, match="checkpoint of another model"):
        load_state(Net(3), {"conv.weight": torch.ones(2)})


def test_a_new_head_is_advised_and_allowed() -> None:
    source, target = Net(3), Net(5)
    fresh = target.box_head["class_logits"].weight.detach().clone()
    with pytest.raises(
        InputError, match=r"2 reshaped: box_head.class_logits.weight \[4, 4\] -> \[6, 4\].*allow_missing=\('head',\)"
    ):
        load_state(target, source.state_dict())
    report = load_state(target, source.state_dict(), allow_missing=("head",))
    assert [name for name, _, _ in report.reshaped] == ["box_head.class_logits.weight", "box_head.class_logits.bias"]
    assert torch.equal(target.box_head["class_logits"].weight, fresh)
    assert torch.equal(target.box_head["hidden"].weight, source.box_head["hidden"].weight)


def test_named_parts_may_be_missing_or_unexpected() -> None:
    state = Net(3).state_dict()
    body = {name: value for name, value in state.items() if name.startswith("body")}
    report = load_state(Net(3), body | {"extra.weight": torch.ones(1)}, allow_missing=("box_head", "extra."))
    assert len(report.missing) == 4
    assert report.unexpected == ("extra.weight",)
    assert not report.complete
    with pytest.raises(InputError, match="4 missing"):
        load_state(Net(3), body, allow_missing="body")


def test_a_name_in_allow_missing_must_name_something() -> None:
    with pytest.raises(InputError, match=r"got 'box'.*body\.0, body\.1, box_head\.class_logits"):
        load_state(Net(3), Net(3).state_dict(), allow_missing=("box",))


def test_the_report_of_nothing() -> None:
    assert LoadReport().complete
    assert str(LoadReport()) == "0 loaded"
