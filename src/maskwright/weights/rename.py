"""Rules that turn one project's parameter names and layouts into another's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from maskwright.errors import InputError


@dataclass(frozen=True, slots=True)
class Rule:
    """One renaming.

    Attributes:
        pattern: a regular expression that a whole name must match.
        name: the new name, with ``\\1`` or ``\\g<k>`` for groups; ``None`` drops the tensor.
        change: applied to the tensor, such as reversing its input channels.
    """

    pattern: str
    name: str | None
    change: Callable[[Tensor], Tensor] | None = None


def rename(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Apply to each tensor the first rule whose pattern matches its name.

    Names that no rule knows are kept as they are: a strict load then reports them as unexpected.

    Raises:
        InputError: two tensors would get one name.
    """
    known = [(re.compile(rule.pattern), rule) for rule in rules]
    out: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        target, tensor = name, value
        for pattern, rule in known:
            match = pattern.fullmatch(name)
            if match:
                target = "" if rule.name is None else match.expand(rule.name)
                tensor = rule.change(value) if rule.change is not None and target else value
                break
        if not target:
            continue
        if target in out:
            raise InputError(
                f"two parameters of the checkpoint became {target!r}: {origin[target]!r} and {name!r}. "
                "It mixes two layouts of names; save it again from one model."
            )
        out[target], origin[target] = tensor, name
    return out
