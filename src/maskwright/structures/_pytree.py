"""The structures as pytrees, so that ``torch.export``, ``torch.compile`` and ``torch.func`` see through them.

Tensors and nested structures are children; sizes, geometry, names and keys are part of the tree's shape. Rebuilding
skips validation: tracers put stand-ins where tensors were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from torch.utils import _pytree

from maskwright.structures.inputs import Batch, Images
from maskwright.structures.masks import Masks
from maskwright.structures.prompts import Prompts
from maskwright.structures.scene import Scene
from maskwright.structures.segments import Segments

_STATIC = {"size", "geometry", "keys", "words"}


def register(cls: type[Any]) -> None:
    """Make ``cls``, one of the structures, a pytree node."""
    names = tuple(field.name for field in fields(cls))
    children = tuple(name for name in names if name not in _STATIC)
    static = tuple(name for name in names if name in _STATIC)

    def flatten(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in children], tuple(getattr(value, name) for name in static)

    def unflatten(values: Iterable[Any], context: tuple[Any, ...]) -> Any:
        out: Any = object.__new__(cls)
        for name, value in (*zip(children, values, strict=True), *zip(static, context, strict=True)):
            object.__setattr__(out, name, value)
        return out

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, context = flatten(value)
        return [(_pytree.GetAttrKey(n), v) for n, v in zip(children, values, strict=True)], context

    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )


for _structure in (Masks, Segments, Prompts, Scene, Images, Batch):
    register(_structure)
