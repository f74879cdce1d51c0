"""Objectives of two-stage models that learn one stage at a time (``train.stages``)."""

from __future__ import annotations

from torch import Tensor, nn

from maskwright.objectives.wrapper import Losses, Wrapper, counted_of
from maskwright.protocols import Objective, TwoStages
from maskwright.structures import Batch


class FirstStage(nn.Module):
    """The losses of a model's first stage alone; the second is not run.

    Args:
        model: a ``protocols.TwoStages`` that is an ``nn.Module``.
    """

    model: nn.Module

    def __init__(self, model: TwoStages) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
        self.model = model
        self.names = tuple(model.first_losses)

    def forward(self, batch: Batch) -> Losses:
        """Named scalar losses; the objective is their sum."""
        return self.counted(batch)[0]

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses, and what each is a mean over."""
        model: TwoStages = self.model  # type: ignore[assignment]
        return model.first_stage(batch)

    def terms(self) -> tuple[str, ...]:
        """The names of the losses."""
        return self.names

    def after_step(self, step: int) -> None:
        """Nothing to do."""


class SecondStage(Wrapper):
    """An objective without its model's first-stage losses.

    Args:
        inner: of a model that is a ``protocols.TwoStages``.
        names: the losses to leave out.
    """

    def __init__(self, inner: Objective | nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(inner)
        self.names = names

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses that are left, and what each is a mean over."""
        losses, counts = counted_of(self.inner, batch)
        return self._left(losses), self._left(counts)

    def terms(self) -> tuple[str, ...]:
        """The names of the losses that are left."""
        return tuple(name for name in super().terms() if name not in self.names)

    def _left(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in values.items() if name not in self.names}
