"""Test-time augmentation: a model that looks at a picture more than once, mirrored, turned and in other sizes.

    augmented(model, "flip,scale")      mirrored and not, each in three sizes: six looks

What the looks say is merged by ``infer.merge``; exact ways back are ``data.augment.test_time``'s.
"""

from __future__ import annotations

from maskwright.data.augment.test_time import View, views
from maskwright.errors import InputError
from maskwright.infer.looks import Looks
from maskwright.infer.ready import Sizing
from maskwright.protocols import Model

KINDS = ("flip", "vflip", "rot90", "scale")
"""Mirrored left to right; upside down; turned by quarters; in ``SCALES``. Several are combined, each with each."""

SCALES = (1.0, 0.8, 1.25)
"""Factors of ``scale``, a quarter up and down of what the model's own resize gives."""


def parse_views(text: str) -> tuple[View, ...]:
    """The views that ``flip,vflip,rot90,scale`` or some of these name, the plain one first.

    ``scale=0.5/1/2`` names other factors.

    Raises:
        InputError: another name, one that comes twice, or factors that are not from 0.1 to 10.
    """
    scales, names = SCALES, list[str]()
    for part in text.split(","):
        name, given, factors = part.strip().partition("=")
        if name not in KINDS or (given and name != "scale"):
            raise InputError(
                f"augmentations at test time are {', '.join(KINDS)}, separated by commas, or scale=0.5/1/2; "
                f"got {part!r}."
            )
        if name in names:
            raise InputError(f"each augmentation must come once, but {name} comes twice in {text!r}.")
        names.append(name)
        if given:
            scales = _factors(factors)
    return views(
        scales=scales if "scale" in names else (1.0,),
        flips="flip" in names,
        upside_down="vflip" in names,
        turns="rot90" in names,
    )


def augmented(model: Model, kinds: str, *, resize: Sizing = "default", agree: float = 0.5) -> Looks:
    """A model in whose place stand its looks at the views that ``kinds`` names.

    Args:
        model: of any family and task.
        kinds: of ``KINDS``, separated by commas (``parse_views``).
        resize, agree: as ``Looks`` takes them.

    Raises:
        InputError: as ``parse_views`` and ``Looks``.
    """
    return Looks([model], views=parse_views(kinds), resize=resize, agree=agree)


def _factors(text: str) -> tuple[float, ...]:
    try:
        factors = tuple(float(part) for part in text.split("/"))
    except ValueError:
        factors = ()
    if not factors or len(set(factors)) < len(factors) or not all(0.1 <= factor <= 10 for factor in factors):
        raise InputError(f"scale must be distinct factors from 0.1 to 10, such as scale=0.8/1/1.25; got {text!r}.")
    return factors
