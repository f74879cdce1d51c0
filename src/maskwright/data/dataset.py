"""``Dataset``: the splits of one data set, which share their classes; what every format reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maskwright.data.source import Loads
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
