"""What a step minimizes, as options; the command line's flags and help are made from these fields."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from maskwright.errors import InputError

KINDS = ("response", "features", "relations")
"""What of a teacher can be learned."""

Balance = Literal["none", "uncertainty", "gradnorm", "dwa"]
MaskLossName = Literal["bce", "dice", "focal", "iou", "lovasz", "bce+dice", "bce+boundary", "bce+lovasz"]
Sampling = Literal["random", "hard", "focal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveOptions:
    """Losses, their weights and balance, which regions are learned from, and a teacher."""

    loss_weights: str = ""
    """Factors of losses by name, NAME=FACTOR with commas between them, such as mask=2,rpn_*=0.5; on top of the model's
    own, and of balance. A name that fits no loss is refused with a list of those there are."""
    balance: Balance = "none"
    """Factors found while training: by each loss's learned noise (Kendall 2018), by equal pull on the last shared layer
    (Chen 2018; a partial backward pass a loss more), or by how slowly each loss falls (Liu 2019)."""
    balance_every: int = 100
    """Balance dwa: steps over which losses are averaged before they are compared; the paper takes an epoch."""
    balance_alpha: float = 1.5
    """Balance gradnorm: how much harder slow losses pull; 0 is all alike."""
    mask_loss: MaskLossName | None = None
    """The loss between masks, in models that learn masks; absent, the model's own."""
    roi_sampling: Sampling | None = None
    """Regions that a second stage learns from: by chance, those with the largest losses (online hard example mining),
    or by chance in proportion to how wrong they are; absent, the model's own way, by chance."""
    roi_positive: float | None = None
    """The largest share of positives among those regions, such as 0.25 for 1:3; absent, the model's own."""
    teacher: str | None = None
    """A checkpoint or published weights of a larger model to learn from, of any family."""
    distill: str = "features"
    """What to learn from the teacher, with commas between them: response, its scenes, of any family; features, its
    pyramid's maps; relations, how places on those maps relate."""
    distill_layer: str = "neck"
    """Features and relations: the part that gives the pyramid, in both models."""
    teacher_threshold: float = 0.5
    """Response: the teacher's objects of a lower score are not learned."""
    teacher_share: float = 0.5
    """Response: the chance that an annotated picture is learned from the teacher's scene and not from its own; pictures
    that are not annotated always are."""
    teacher_fill: bool = False
    """Response: add the teacher's objects to annotated pictures where nothing is annotated."""
    teacher_soft: bool = False
    """Response: the teacher's objects weigh as much as their scores."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(c for c in choices if c)}", repr(value))
        _require(self.balance_every >= 1, "balance_every", "1 or more", self.balance_every)
        alpha = self.balance_alpha
        _require(isfinite(alpha) and alpha >= 0, "balance_alpha", "0 or more", alpha)
        if self.roi_positive is not None:
            _require(0 < self.roi_positive <= 1, "roi_positive", "above 0, at most 1", self.roi_positive)
        for name in ("teacher_threshold", "teacher_share"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        kinds = self.kinds
        known = bool(kinds) and set(kinds) <= set(KINDS) and len(set(kinds)) == len(kinds)
        _require(known, "distill", f"one or more of {', '.join(KINDS)}, each once", repr(self.distill))

    @property
    def kinds(self) -> tuple[str, ...]:
        """``distill``, taken apart."""
        return tuple(part.strip() for part in self.distill.split(",") if part.strip())


_CHOICES = {
    "balance": get_args(Balance),
    "mask_loss": (None, *get_args(MaskLossName)),
    "roi_sampling": (None, *get_args(Sampling)),
}


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise InputError(f"the option {name} (--{name.replace('_', '-')}) must be {what}, got {got}.")
