"""Losses weighed by name, on top of the weights that the model itself has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import isfinite

from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.objectives.wrapper import Losses, Wrapper
from maskwright.protocols import Objective
from maskwright.structures import Batch


class WeightedTerms(Wrapper):
    """Each loss times the factor that its name has.

    Args:
        inner: the objective whose losses are weighed.
        weights: factors by name; names may have ``*`` and ``?``, and of several that fit the last one given counts.
            Losses that none fits keep their weight. 0 takes a loss out of the sum; it is still computed.

    Raises:
        InputError: a name fits no loss, or a factor is negative or not finite.
    """

    def __init__(self, inner: Objective | nn.Module, weights: Mapping[str, float]) -> None:
        super().__init__(inner)
        self.factors = resolve(weights, self.terms())

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The weighted losses, and the counts of the objective inside."""
        losses, counts = super().counted(batch)
        return {name: self._weighed(name, loss) for name, loss in losses.items()}, counts

    def _weighed(self, name: str, loss: Tensor) -> Tensor:
        return loss * self.factors[name] if name in self.factors else loss


def resolve(weights: Mapping[str, float], terms: Sequence[str]) -> dict[str, float]:
    """The factor of each of ``terms`` that a name or pattern in ``weights`` fits; see ``WeightedTerms``."""
    factors: dict[str, float] = {}
    for pattern, factor in weights.items():
        fitting = [term for term in terms if fnmatchcase(term, pattern)]
        if not fitting:
            raise InputError(
                f"loss weights must name losses of the model, which are {', '.join(terms)}; got {pattern!r}. "
                "A name may hold * for any letters."
            )
        if not (isfinite(factor) and factor >= 0):
            raise InputError(f"the weight of the loss {pattern!r} must be a finite number, 0 or more, got {factor}.")
        factors.update(dict.fromkeys(fitting, float(factor)))
    return factors


def parse(text: str) -> dict[str, float]:
    """``"mask=2,rpn_*=0.5"`` as a mapping.

    Raises:
        InputError: it is not written like that.
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equal, factor = part.partition("=")
        try:
            weights[name.strip()] = float(factor)
        except ValueError:
            equal = ""
        if not equal or not name.strip():
            raise InputError(f"loss weights must be NAME=FACTOR, with commas between them, got {part!r}.")
    return weights
