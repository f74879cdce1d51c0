"""Loading tensors into a module, and saying exactly what was and what was not loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskwright.errors import InputError

HEAD = "head"
"""In ``allow_missing``: the layers whose size depends on the classes (a model's ``class_layers``)."""

_SHOWN = 5
_CLASS_LAYERS = ("box_head.class_logits", "box_head.box_deltas", "mask_head.predictor")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each tensor.

    Attributes:
        loaded: names that were loaded.
        missing: names of the module that the checkpoint lacks.
        unexpected: names of the checkpoint that the module lacks.
        reshaped: (name, shape in the checkpoint, shape in the module) where they differ; not loaded.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of both sides was used."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded"]
        shapes = [f"{name} {list(theirs)} -> {list(ours)}" for name, theirs, ours in self.reshaped]
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected), ("reshaped", shapes)):
            if names:
                rest = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:_SHOWN])}{rest}")
        return "; ".join(lines)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], allow_missing: Sequence[str] | str = (), *, source: str = ""
) -> LoadReport:
    """Copy ``state`` into ``module``; everything must fit except what ``allow_missing`` names.

    Args:
        module: its parameters and buffers are overwritten in place; untouched when this raises.
        state: names to tensors, in the module's own names.
        allow_missing: leading parts of names that may be missing, unexpected or of another shape (they keep what
            they have); ``"head"`` stands for the layers whose size depends on the classes.
        source: where the tensors came from, for the error.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape and was not allowed to be; or a name in
            ``allow_missing`` names nothing.
    """
    own = module.state_dict()
    prefixes = _prefixes(module, allow_missing, [*own, *state])
    # A count of training batches changes no output, and frozen norms are saved without it.
    missing = tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked"))
    unexpected = tuple(name for name in state if name not in own)
    both = [name for name in state if name in own]
    reshaped = tuple(
        (name, tuple(state[name].shape), tuple(own[name].shape))
        for name in both
        if state[name].shape != own[name].shape
    )
    other = {name for name, _, _ in reshaped}
    report = LoadReport(tuple(name for name in both if name not in other), missing, unexpected, reshaped)
    refused = LoadReport(
        report.loaded,
        tuple(name for name in missing if not _under(name, prefixes)),
        tuple(name for name in unexpected if not _under(name, prefixes)),
        tuple(entry for entry in reshaped if not _under(entry[0], prefixes)),
    )
    if not refused.complete:
        raise InputError(_refusal(refused, source, module))
    with torch.no_grad():
        module.load_state_dict({name: state[name] for name in report.loaded}, strict=False)
    return report


def _prefixes(module: nn.Module, allow_missing: Sequence[str] | str, names: Iterable[str]) -> tuple[str, ...]:
    wanted = (allow_missing,) if isinstance(allow_missing, str) else tuple(allow_missing)
    known = list(names)
    out: list[str] = []
    for name in wanted:
        if name == HEAD:
            out += _class_layers(module)
        elif any(_under(other, (name,)) for other in known):
            out.append(name)
        else:
            parts = sorted({".".join(other.split(".")[:2]) for other in known})
            raise InputError(
                f"allow_missing must name a part of the model or {HEAD!r}, got {name!r}. "
                f"There are: {', '.join(parts[:12])}."
            )
    return tuple(out)


def _class_layers(module: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(module, "class_layers", _CLASS_LAYERS))


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(prefix.rstrip(".") + ".") for prefix in prefixes)


def _refusal(refused: LoadReport, source: str, module: nn.Module) -> str:
    changed = [name for name, _, _ in refused.reshaped]
    layers = _class_layers(module)
    if changed and not refused.missing and not refused.unexpected and all(_under(name, layers) for name in changed):
        advice = f"It has other classes: pass allow_missing=({HEAD!r},) to keep the rest and train a new head."
    elif not refused.loaded:
        advice = "None of its names fit: it is a checkpoint of another model."
    else:
        advice = "Name the model it was made for, or pass in allow_missing the parts that may differ."
    return f"the checkpoint{f' {source}' if source else ''} must fit the model: {refused}. {advice}"
