"""The plain objective: a model learns from what is annotated."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from maskwright.objectives.probing import loss_terms
from maskwright.protocols import Model
from maskwright.structures import Batch


class Supervised(nn.Module):
    """The model's own losses against the batch's scenes.

    Args:
        model: a ``protocols.Model`` that is an ``nn.Module``.
    """

    model: nn.Module

    def __init__(self, model: Model) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses; the objective is their sum.

        Raises:
            ValueError: an input of the batch has no scene.
        """
        return self.counted(batch)[0]

    def counted(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses, and what each of them is a mean over, so that micro-batches can be joined exactly."""
        raw = self.model(batch.inputs, batch.truth())
        model = cast(Model, self.model)
        return model.loss(raw, batch), model.loss_counts(raw, batch)

    def terms(self) -> tuple[str, ...]:
        """The names of the losses; the model is run on one small picture to learn them."""
        return loss_terms(self.model)

    def after_step(self, step: int) -> None:
        """Nothing to do."""
