"""``Dataset``: the splits of one data set, which share their classes; what every format reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.structures import Taxonomy

WHOLE = "all"
"""The name of the only split of a data set without splits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """What a folder or file of annotations holds.

    Attributes:
        format: which of ``formats.FORMATS`` it was read as.
        taxonomy: the classes of all splits.
        splits: name -> images; one named ``WHOLE`` where there are no splits.
        dropped: what ``strict=False`` left out: what is wrong with it -> where (file and line, or id).
    """

    format: str
    taxonomy: Taxonomy
    splits: Mapping[str, Loads]
    dropped: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(source) for source in self.splits.values())


def join_classes(taxonomies: Sequence[Taxonomy]) -> Taxonomy:
    """All classes by name, in the order they come; source ids are kept where they stay distinct.

    Raises:
        InputError: a class is a thing in one and stuff in another.
    """
    rows: dict[str, tuple[bool, tuple[int, int, int], int]] = {}
    for t in taxonomies:
        for name, thing, color, ident in zip(t.names, t.thing, t.colors, t.source_ids, strict=True):
            if rows.setdefault(name, (thing, color, ident))[0] != thing:
                raise InputError(f"{name} is a thing in one data set and stuff in another. Rename one of them (remap).")
    idents = [ident for _, _, ident in rows.values()]
    return Taxonomy(
        names=tuple(rows),
        thing=tuple(thing for thing, _, _ in rows.values()),
        colors=tuple(color for _, color, _ in rows.values()),
        source_ids=tuple(idents) if len(set(idents)) == len(idents) else (),
    )
