"""An objective from options: the model's losses, a teacher's, balance and weights, in this order."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from maskwright.errors import InputError
from maskwright.nn.losses import MASK_LOSSES
from maskwright.objectives.balance import DynamicAverage, Uncertainty
from maskwright.objectives.distilled import Distilled
from maskwright.objectives.gradnorm import GradNorm
from maskwright.objectives.options import ObjectiveOptions
from maskwright.objectives.supervised import Supervised
from maskwright.objectives.teacher import Response
from maskwright.objectives.weights import WeightedTerms, parse
from maskwright.protocols import Model, Objective


def make(model: Model, options: ObjectiveOptions | None = None, *, teacher: Model | None = None) -> Objective:
    """The objective that ``options`` describe; the model's mask loss and sampling are set on the model itself.

    Args:
        model: what learns.
        options: see ``ObjectiveOptions``.
        teacher: the model that ``options.teacher`` names, loaded by whoever can; it is frozen.

    Raises:
        InputError: an option does not fit the model, or the teacher does not.
    """
    options = options or ObjectiveOptions()
    if (teacher is None) != (options.teacher is None):
        raise InputError("a teacher must be both named in the options and given as a model, got one without the other.")
    if options.mask_loss is not None:
        exchange_mask_loss(model, options.mask_loss)
    set_sampling(model, options.roi_sampling, options.roi_positive)
    objective: nn.Module = Supervised(model)
    if teacher is not None:
        objective = _distilled(objective, teacher, options)
    if options.balance == "uncertainty":
        objective = Uncertainty(objective)
    elif options.balance == "gradnorm":
        objective = GradNorm(objective, alpha=options.balance_alpha)
    elif options.balance == "dwa":
        objective = DynamicAverage(objective, every=options.balance_every)
    if options.loss_weights:
        objective = WeightedTerms(objective, parse(options.loss_weights))
    return cast(Objective, objective)


def exchange_mask_loss(model: Model, name: str) -> None:
    """Let a model learn masks by the loss called ``name`` in ``nn.losses.MASK_LOSSES``.

    It takes the place of all that the model's own mask loss was, factors inside it included (Mask2Former's 5 + 5).

    Raises:
        InputError: there is no such loss, or the model learns no masks.
    """
    if name not in MASK_LOSSES:
        raise InputError(f"a mask loss must be one of {', '.join(MASK_LOSSES)}, got {name!r}.")
    if not hasattr(model, "mask_loss"):
        raise InputError(
            f"a mask loss can be chosen for models that learn objects' masks, and {type(model).__name__} does not. "
            "Leave out --mask-loss."
        )
    cast(Any, model).mask_loss = MASK_LOSSES[name]


def set_sampling(model: Model, sampling: str | None, positive: float | None) -> None:
    """Set how a two-stage model draws the regions of its second stage; ``None`` leaves a number as it is.

    Raises:
        InputError: the model draws none.
    """
    if sampling is None and positive is None:
        return
    drawing = [module for module in cast(nn.Module, model).modules() if hasattr(module, "roi_sampling")]
    if not drawing:
        raise InputError(
            f"regions are drawn by models with two stages, and {type(model).__name__} has one. "
            "Leave out --roi-sampling and --roi-positive."
        )
    for module in cast(list[Any], drawing):
        module.roi_sampling = module.roi_sampling if sampling is None else sampling
        module.roi_positive = module.roi_positive if positive is None else positive


def _distilled(objective: nn.Module, teacher: Model, options: ObjectiveOptions) -> Distilled:
    kinds = options.kinds
    response = Response(
        threshold=options.teacher_threshold,
        doubt=min(0.1, options.teacher_threshold),
        soft=options.teacher_soft,
        share=options.teacher_share,
        fill=options.teacher_fill,
    )
    return Distilled(
        objective,
        cast(nn.Module, teacher),
        response=response if "response" in kinds else None,
        features="features" in kinds,
        relations="relations" in kinds,
        layer=options.distill_layer,
    )
