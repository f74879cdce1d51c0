"""What a search may change: one dimension a field, as written in a recipe or after ``--over``.

``1e-5..1e-2:log`` is a range on a logarithmic scale, ``2..8`` one of whole numbers where the field holds such,
``adamw,sgd`` a choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from maskwright.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several values."""

    values: tuple[str | int | float | bool, ...]


Dimension = Range | Choice


def parse(name: str, text: str, kind: str) -> Dimension:
    """One dimension.

    Args:
        name: of the field, for messages.
        text: as written.
        kind: the field's type as written: ``int``, ``float``, ``bool``, ``str`` or ``Literal[...]``.

    Raises:
        InputError: ``text`` is no range and no choice, does not suit the field, or its ends do not rise.
    """
    if ".." in text:
        ends, _, scale = text.partition(":")
        low, _, high = ends.partition("..")
        if kind not in ("int", "float"):
            raise InputError(f"{name} holds {kind}, which has no range. Give choices: {name}=A,B.")
        if scale not in ("", "log"):
            raise InputError(f"the scale of {name} must be log or left out, got {scale!r}.")
        a, b = _number(name, low, kind), _number(name, high, kind)
        if a >= b:
            raise InputError(f"the range of {name} must rise, got {text}.")
        if scale and a <= 0:
            raise InputError(f"a logarithmic range must lie above 0, but that of {name} begins at {low}.")
        return Range(low=a, high=b, log=bool(scale), whole=kind == "int")
    values = tuple(_value(name, word, kind) for word in text.split(",") if word)
    if len(values) < 2:
        raise InputError(f"{name} must be given as LOW..HIGH, LOW..HIGH:log or A,B,..., got {text!r}.")
    return Choice(values=values)


def parse_all(written: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, Dimension]:
    """The dimensions of fields whose types are known.

    Raises:
        InputError: there is no such field, or as ``parse``.
    """
    from difflib import get_close_matches

    out: dict[str, Dimension] = {}
    for name, text in written.items():
        field = name.replace("-", "_")
        if field not in kinds:
            close = get_close_matches(field, kinds, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"a search is over options of maskwright train, but it has no {name}.{hint}")
        out[field] = parse(field, text, kinds[field])
    return out


def _number(name: str, text: str, kind: str) -> float:
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        what = "whole numbers" if kind == "int" else "numbers"
        raise InputError(f"{name} takes {what}, got {text!r}.") from None


def _value(name: str, word: str, kind: str) -> str | int | float | bool:
    if kind == "bool":
        if word not in ("yes", "no"):
            raise InputError(f"{name} takes yes,no, got {word!r}.")
        return word == "yes"
    return _number(name, word, kind) if kind in ("int", "float") else word
