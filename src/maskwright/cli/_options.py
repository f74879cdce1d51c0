"""Flags made of a dataclass: its fields, their types, defaults and docstrings, read from its source.

The source is parsed, not imported: help must not wait for torch.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a dataclass, as written."""

    name: str
    type: str
    default: Any
    help: str


def fields(module: str, name: str) -> Iterator[Field]:
    """The fields of dataclass ``name`` in ``module``, a path such as ``train/options.py``."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    aliases = _Aliases(tree)
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            yield Field(node.target.id, ast.unparse(aliases.visit(node.annotation)), ast.literal_eval(node.value), text)


class _Aliases(ast.NodeTransformer):
    """Puts a module's ``Name = Literal[...]`` in the name's place."""

    def __init__(self, module: ast.Module) -> None:
        self.known = {
            target.id: node.value
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known.get(node.id, node)


def add_flags(parser: argparse.ArgumentParser, title: str, module: str, name: str) -> None:
    """A group of flags, one a field; a flag that is not given leaves no trace in the namespace (see ``given``)."""
    group = parser.add_argument_group(title)
    for field in fields(module, name):
        flag = f"--{field.name.replace('_', '-')}"
        text = field.help.replace("%", "%%").replace("``", "")
        shown = _shown(field.default)
        common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        common["help"] = f"{text} (default: {shown})" if shown else text
        if field.type == "bool":
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            group.add_argument(flag, **_form(field.type), **common)


def given(args: argparse.Namespace, module: str, name: str) -> dict[str, Any]:
    """The fields whose flags were given, ready for the dataclass."""
    known = vars(args)
    return {
        field.name: tuple(known[field.name]) if isinstance(known[field.name], list) else known[field.name]
        for field in fields(module, name)
        if field.name in known
    }


def _form(written: str) -> dict[str, Any]:
    """What argparse needs to read a type: ``int``, ``tuple[float, float]``, ``Literal[...]`` ..., also ``| None``."""
    tree = ast.parse(written, mode="eval").body
    if isinstance(tree, ast.BinOp):
        tree = tree.left
    if isinstance(tree, ast.Name):
        return {"type": {"int": int, "float": float, "str": str}[tree.id], "metavar": _METAVARS[tree.id]}
    assert isinstance(tree, ast.Subscript)
    assert isinstance(tree.slice, ast.Tuple)
    parts = tree.slice.elts
    if ast.unparse(tree.value) == "Literal":
        return {"choices": [ast.literal_eval(part) for part in parts]}
    kind = ast.unparse(parts[0])
    endless = ast.unparse(parts[1]) == "..."
    metavar = _METAVARS[kind] if endless else (_METAVARS[kind],) * len(parts)
    return {"type": {"int": int, "float": float}[kind], "nargs": "+" if endless else len(parts), "metavar": metavar}


_METAVARS = {"int": "N", "float": "X", "str": "NAME"}


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
