"""A family's ``Raw`` as a flat list of tensors, and back: what a program returns and ``predict`` reads.

Which tensors ``predict`` reads is found by letting it read: it runs once on tensors that remember being touched. The
others stay inside of the program, where they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError

_PACKAGE = "maskwright."


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each tensor of a ``Raw`` belongs.

    Attributes:
        tree: JSON. ``{"tensor": i}`` and ``{"int": i}`` are output ``i``; ``{"value": v}`` is always the same;
            ``{"list": [...]}``, ``{"tuple": [...]}``; ``{"type": "module:class", "fields": {...}}`` is a dataclass.
            A tensor that ``predict`` does not read is ``{"value": null}``.
        names: of the outputs, as the path that leads to them (``detections.0.boxes``).
    """

    tree: dict[str, Any]
    names: tuple[str, ...]

    @classmethod
    def of(cls, raws: Sequence[Any], read: Callable[[Any], object]) -> Layout:
        """The layout of what ``read`` touches of any of ``raws``, which are of one form."""
        touched: set[str] = set()
        for raw in raws:
            read(_mapped(raw, "", lambda path, leaf: _Watched.of(leaf, path, touched)))
        names: list[str] = []
        tree = _tree(raws[0], "", touched, names)
        return cls(tree, tuple(names))

    def flatten(self, raw: Any) -> list[Tensor]:
        """The outputs [len(names)] of ``raw``; integers become int64 scalars."""
        found = dict(_leaves(raw, ""))
        return [_tensor(found[name]) for name in self.names]

    def build(self, outputs: Sequence[Tensor]) -> Any:
        """The ``Raw`` that ``outputs`` are of."""
        return _built(self.tree, outputs)


def _tensor(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else torch.scalar_tensor(leaf, dtype=torch.int64)


# ---- walking --------------------------------------------------------------------------------------------------------


def _parts(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Names and values within a container; ``None`` for anything else."""
    if isinstance(value, (list, tuple)):
        return ((str(i), part) for i, part in enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return ((each.name, getattr(value, each.name)) for each in fields(value))
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every tensor and integer with its path."""
    if isinstance(value, Tensor) or _is_int(value):
        yield path, value
        return
    for name, part in _parts(value) or ():
        yield from _leaves(part, _join(path, name))


def _mapped(value: Any, path: str, change: Callable[[str, Tensor], Any]) -> Any:
    """The same structure with every tensor changed."""
    if isinstance(value, Tensor):
        return change(path, value)
    parts = _parts(value)
    if parts is None:
        return value
    made = {name: _mapped(part, _join(path, name), change) for name, part in parts}
    if isinstance(value, (list, tuple)):
        return type(value)(made.values())
    return _instance(type(value), made)


def _tree(value: Any, path: str, touched: set[str], names: list[str]) -> dict[str, Any]:
    if isinstance(value, Tensor) or _is_int(value):
        if isinstance(value, Tensor) and path not in touched:
            return {"value": None}
        names.append(path)
        return {"tensor" if isinstance(value, Tensor) else "int": len(names) - 1}
    parts = _parts(value)
    if parts is None:
        if not isinstance(value, (str, float, bool, type(None))):
            raise TypeError(f"{path}: a Raw holds tensors, numbers, lists and dataclasses, got {type(value).__name__}")
        return {"value": value}
    made = {name: _tree(part, _join(path, name), touched, names) for name, part in parts}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": list(made.values())}
    kind = type(value)
    return {"type": f"{kind.__module__}:{kind.__qualname__}", "fields": made}


def _built(tree: dict[str, Any], outputs: Sequence[Tensor]) -> Any:
    if "value" in tree:
        return tree["value"]
    if "tensor" in tree:
        return outputs[tree["tensor"]]
    if "int" in tree:
        return int(outputs[tree["int"]])
    for kind in (list, tuple):
        if kind.__name__ in tree:
            return kind(_built(part, outputs) for part in tree[kind.__name__])
    return _instance(_class(str(tree["type"])), {name: _built(part, outputs) for name, part in tree["fields"].items()})


def _class(name: str) -> type[Any]:
    """The dataclass of ours called ``module:class``; nothing else is ever made from a file."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute) if module.startswith(_PACKAGE) else None
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, type) or not is_dataclass(found):
        raise InputError(f"the artifact speaks of {name!r}, which this maskwright does not have. Export it again.")
    return found


def _instance(kind: type[Any], values: dict[str, Any]) -> Any:
    wanted = {each.name for each in fields(kind)}
    if wanted != set(values):
        raise InputError(
            f"{kind.__name__} must have the fields {', '.join(sorted(wanted))}, got {', '.join(sorted(values))}. "
            "The artifact was written by another version of maskwright: export it again."
        )
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Watched(Tensor):
    """A tensor that notes its path when anything is done with it; results are plain tensors."""

    path: str
    touched: set[str]

    @staticmethod
    def of(tensor: Tensor, path: str, touched: set[str]) -> _Watched:
        made = tensor.detach().as_subclass(_Watched)
        object.__setattr__(made, "path", path)
        object.__setattr__(made, "touched", touched)
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*(_plain(a) for a in args), **{k: _plain(v) for k, v in (kwargs or {}).items()})


def _plain(value: Any) -> Any:
    """``value`` with watched tensors noted and taken out."""
    if isinstance(value, _Watched):
        with torch._C.DisableTorchFunctionSubclass():
            value.touched.add(value.path)
            return value.as_subclass(Tensor)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_plain(part) for part in value)
    return value
