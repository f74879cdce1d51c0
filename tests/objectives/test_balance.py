"""Automatic balance: factors and gradients as worked out by hand; exact over micro-batches; resumable."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch
from torch import nn

from maskwright.errors import InputError
from maskwright.objectives.balance import DynamicAverage, Uncertainty
from maskwright.objectives.gradnorm import GradNorm
from maskwright.objectives.supervised import Supervised
from maskwright.objectives.weights import WeightedTerms
from maskwright.train import TrainOptions, seed_all, train
from tests.objectives.toy import Pupil, Shared, assert_alike, step
from tests.train.toy import Toy, ToyBatches, batch

WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "uncertainty": Uncertainty,
    "gradnorm": lambda inner: GradNorm(inner, rate=0.1),
    "dwa": lambda inner: DynamicAverage(inner, every=2),
}


# ---- learned uncertainty --------------------------------------------------------------------------------------------


def test_uncertainty_by_hand() -> None:
    objective = Uncertainty(Shared())
    with torch.no_grad():
        objective.log_variance.copy_(torch.tensor([log(4.0), log(0.5)]))
    losses, _ = objective.counted((1.0, 1.0, 1.0, 1.0))
    assert float(losses["line"].detach()) == pytest.approx(7 / 4 + log(4) / 2)
    assert float(losses["curve"].detach()) == pytest.approx(12.5 * 2 - log(2) / 2)
    sum(losses.values()).backward()
    # d/ds (exp(-s) L + s / 2) = 1/2 - exp(-s) L
    assert objective.log_variance.grad.tolist() == pytest.approx([0.5 - 7 / 4, 0.5 - 25])
    assert objective.model.weight.grad.tolist()[0] == pytest.approx([1 / 4 + 2 * 3, 1 / 4 + 2 * 4])
    assert objective.named_factors() == pytest.approx({"line": 0.25, "curve": 2.0})


def test_uncertainty_rests_where_the_factor_is_half_the_inverse() -> None:
    objective = Uncertainty(Shared())
    with torch.no_grad():
        objective.log_variance.copy_(torch.tensor([2 * 7.0, 2 * 12.5]).log())
    sum(objective.counted((1.0, 1.0, 1.0, 1.0))[0].values()).backward()
    assert objective.log_variance.grad.abs().max() < 1e-6


def test_uncertainty_of_what_is_not_there_stays() -> None:
    objective = Uncertainty(Shared())
    losses, _ = objective.counted((0.0, 1.0, 0.0, 1.0))
    sum(losses.values()).backward()
    assert float(objective.log_variance.grad[0]) == 0.0


# ---- dynamic weight averaging ---------------------------------------------------------------------------------------


def test_dynamic_average_by_hand() -> None:
    objective = DynamicAverage(Shared(), every=2, temperature=2.0)
    seen = []
    for number, (slope, bend) in enumerate([(1, 1), (3, 1), (1, 0.5), (1, 0.5), (9, 9), (9, 9)], 1):
        losses, _ = objective.counted((slope, bend, 1.0, 1.0))
        seen.append(float(losses["line"].detach()) / (7 * slope))
        objective.after_step(number)
    # windows of two steps: line 14, then 7; curve 12.5, then 6.25 -> 0.5 and 0.5; last: 63 / 7 = 9, 112.5 / 6.25 = 18
    assert seen == pytest.approx([1, 1, 1, 1, 1, 1])
    total = exp(9 / 2) + exp(18 / 2)
    assert objective.named_factors() == pytest.approx({"line": 2 * exp(9 / 2) / total, "curve": 2 * exp(9) / total})


def test_dynamic_average_of_unlike_falls() -> None:
    objective = DynamicAverage(Shared(), every=1)
    for number, batch_ in enumerate([(1.0, 1.0, 1.0, 1.0), (0.25, 1.0, 1.0, 1.0)], 1):
        objective.counted(batch_)
        objective.after_step(number)
    total = exp(0.25 / 2) + exp(1 / 2)
    assert objective.factor.tolist() == pytest.approx([2 * exp(0.125) / total, 2 * exp(0.5) / total])
    assert float(objective.counted((1.0, 1.0, 1.0, 1.0))[0]["line"].detach()) == pytest.approx(
        7 * 2 * exp(0.125) / total
    )


def test_losses_that_are_nothing_keep_their_factor_finite() -> None:
    objective = DynamicAverage(Shared(), every=1)
    for number in range(4):
        objective.counted((0.0, 1.0, 0.0, 1.0))
        objective.after_step(number)
    assert torch.isfinite(objective.factor).all()
    assert objective.factor.tolist() == pytest.approx([1.0, 1.0])


# ---- GradNorm -------------------------------------------------------------------------------------------------------


def test_gradnorm_by_hand() -> None:
    alpha, rate = 1.5, 0.1
    objective = GradNorm(Shared(), alpha=alpha, rate=rate)
    objective.counted((1.0, 1.0, 1.0, 1.0))
    objective.after_step(1)
    assert objective.shared_layer() == "weight"  # the last weights that both losses' gradients reach
    assert objective.factor.tolist() == [1.0, 1.0]
    losses, _ = objective.counted((2.0, 1.0, 1.0, 1.0))
    assert float(losses["line"]) == 14.0
    objective.after_step(2)
    norms = [2 * sqrt(2), 5.0]
    mean = sum(norms) / 2
    fallen = [14 / 7, 12.5 / 12.5]
    pace = [f / (sum(fallen) / 2) for f in fallen]
    targets = [mean * p**alpha for p in pace]
    moved = [1 - rate * (1 if n > t else -1) * n / mean for n, t in zip(norms, targets, strict=True)]
    wanted = [2 * m / sum(moved) for m in moved]
    assert objective.factor.tolist() == pytest.approx(wanted, rel=1e-5)
    losses, _ = objective.counted((1.0, 1.0, 1.0, 1.0))
    sum(losses.values()).backward()
    assert objective.model.weight.grad[0].tolist() == pytest.approx(
        [wanted[0] + 3 * wanted[1], wanted[0] + 4 * wanted[1]]
    )


def test_gradnorm_brings_pulls_together() -> None:
    objective = GradNorm(Shared(), alpha=0.0, rate=0.001)
    for number in range(900):
        objective.counted((1.0, 3.0, 1.0, 1.0))
        objective.after_step(number)
    pulls = objective.factor * torch.tensor([sqrt(2), 15.0])  # norms of slope * (1, 1) and bend * (3, 4)
    assert float(objective.factor.sum()) == pytest.approx(2.0, rel=1e-5)
    assert float(pulls.max() / pulls.min()) == pytest.approx(1.0, abs=0.1)


def test_gradnorm_pulls_harder_where_losses_fall_slowly() -> None:
    objective = GradNorm(Shared(), alpha=1.0, rate=0.01)
    ratios = []
    for number in range(300):
        slope = 1.0 if number == 0 else 0.25  # "line" is down to a quarter, "curve" as high as ever
        objective.counted((slope, 1.0, 1.0, 1.0))
        objective.after_step(number)
        pulls = objective.factor * torch.tensor([sqrt(2) * slope, 5.0])
        ratios.append(float(pulls[1] / pulls[0]))
    assert ratios[-1] == pytest.approx(4.0, rel=0.15)  # (1 / mean) / (0.25 / mean)


def test_gradnorm_leaves_out_what_has_no_gradient() -> None:
    objective = GradNorm(Shared())
    objective.counted((1.0, 1.0, 1.0, 1.0))
    objective.after_step(1)
    before = objective.factor.clone()
    objective.counted((0.0, 1.0, 0.0, 1.0))
    objective.after_step(2)
    assert torch.allclose(objective.factor, before)


def test_gradnorm_needs_something_shared() -> None:
    class Apart(Shared):
        def counted(self, batch: tuple[float, ...]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            return {"line": self.model.weight.sum(), "curve": (self.model.own + 1).sum()}, {}

    with pytest.raises(InputError, match="every loss has a gradient on"):
        GradNorm(Apart()).counted((1.0, 1.0, 1.0, 1.0))


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parts", [[[1, 2], [3, 4]], [[1], [3, 4, 2]], [[3], [1], [2, 4]]])
def test_accumulation_equals_the_large_batch(way: str, parts: list[list[int]]) -> None:
    """Factors too, after four steps, with micro-batches that have no object (picture 3)."""

    def run(together: bool) -> tuple[dict[str, float], dict[str, torch.Tensor], torch.Tensor]:
        torch.manual_seed(0)
        objective = WAYS[way](Supervised(Pupil())).double()
        for number in range(1, 5):
            batches = [batch([i for part in parts for i in part])] if together else [batch(part) for part in parts]
            values, grads = step(objective, batches)
            with torch.no_grad():
                for parameter in objective.parameters():
                    parameter -= 0.05 * parameter.grad
            objective.after_step(number)
        return values, grads, objective.factors().detach()

    one, many = run(True), run(False)
    assert many[0] == pytest.approx(one[0], rel=1e-4)
    torch.testing.assert_close(many[2], one[2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one[2], torch.ones(2).double(), atol=1e-3)
    assert_alike(many[1], one[1])


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_equals_the_unbroken_one(way: str, tmp_path: Path) -> None:
    def run(name: str, steps: int, resume: bool = False) -> dict[str, torch.Tensor]:
        options = TrainOptions(
            steps=steps, schedule="constant", warmup=0.0, ema=0.9, precision="32", device="cpu", accumulate=2
        )
        seed_all(0)
        objective = WeightedTerms(WAYS[way](Supervised(Toy())), {"hits": 2.0})
        train(objective, ToyBatches(), options=options, out=tmp_path / name, resume=resume, quiet=True)
        return {key: value.clone() for key, value in objective.state_dict().items()}

    whole = run("whole", 9)
    run("broken", 4)
    resumed = run("broken", 9, resume=True)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


@pytest.mark.parametrize("way", WAYS)
def test_other_losses_than_before_are_refused(way: str) -> None:
    inner = Shared()
    objective = WAYS[way](inner)
    inner.counted = lambda batch: ({"line": inner.model.weight.sum()}, {})
    with pytest.raises(InputError, match="must stay the same"):
        objective.counted((1.0, 1.0, 1.0, 1.0))


def test_one_loss_cannot_be_balanced() -> None:
    with pytest.raises(InputError, match="two losses or more"):
        Uncertainty(Shared(), ["line"])


def test_a_step_done_anew_counts_once() -> None:
    """What the engine does after out-of-memory: the step's first attempt must not be remembered."""
    twice, once = (DynamicAverage(Shared(), every=1) for _ in range(2))
    twice.counted((100.0, 1.0, 1.0, 1.0))
    twice.discard()
    for objective in (twice, once):
        objective.counted((1.0, 1.0, 1.0, 1.0))
        objective.after_step(1)
    assert torch.equal(twice.recent, once.recent)
