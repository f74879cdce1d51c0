"""Losses weighed by name."""

from __future__ import annotations

import pytest

from maskwright.errors import InputError
from maskwright.objectives.supervised import Supervised
from maskwright.objectives.weights import WeightedTerms, parse, resolve
from tests.objectives.toy import Pupil, Shared, assert_alike, step
from tests.train.toy import batch

TERMS = ("rpn_class", "rpn_box", "mask")


def test_patterns_and_the_last_word() -> None:
    assert resolve({"rpn_*": 0.5, "mask": 2.0}, TERMS) == {"rpn_class": 0.5, "rpn_box": 0.5, "mask": 2.0}
    assert resolve({"*": 3.0, "rpn_box": 0.0}, TERMS) == {"rpn_class": 3.0, "rpn_box": 0.0, "mask": 3.0}


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"which are rpn_class, rpn_box, mask; got 'masks'"):
        resolve({"masks": 1.0}, TERMS)
    with pytest.raises(InputError, match=r"which are area, hits; got 'mask'"):
        WeightedTerms(Supervised(Pupil()), {"mask": 2.0})


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_factors_are_numbers_from_zero(factor: float) -> None:
    with pytest.raises(InputError, match="0 or more"):
        resolve({"mask": factor}, TERMS)


def test_parse() -> None:
    assert parse(" mask=2, rpn_*=0.5,") == {"mask": 2.0, "rpn_*": 0.5}
    assert parse("") == {}
    for wrong in ("mask", "mask=", "=2", "mask=two"):
        with pytest.raises(InputError, match="NAME=FACTOR"):
            parse(wrong)


def test_losses_and_gradients_are_multiplied() -> None:
    objective = WeightedTerms(Shared(), {"line": 2.0, "c*": 0.5})
    losses, counts = objective.counted((1.0, 1.0, 3.0, 4.0))
    assert float(losses["line"]) == 14.0
    assert float(losses["curve"]) == 6.25
    assert float(counts["curve"]) == 4.0
    sum(losses.values()).backward()
    assert objective.model.weight.grad.tolist() == [[2 + 0.5 * 3, 2 + 0.5 * 4]]
    objective.after_step(7)
    assert objective.inner.stepped == 7


def test_accumulation_stays_exact() -> None:
    objective = WeightedTerms(Supervised(Pupil()), {"hits": 3.0}).double()
    one = step(objective, [batch([1, 2, 3, 4])])
    many = step(objective, [batch([1]), batch([2, 3, 4])])
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    assert_alike(many[1], one[1])
