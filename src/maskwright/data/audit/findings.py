"""What an audit can find: the table of checks, and one finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table of checks: how bad it is, what it means, whether ``fix`` puts it right."""

    severity: Literal["error", "warning", "note"]
    help: str
    fixable: bool = False


CHECKS: Mapping[str, Check] = {
    "unusable": Check(
        "error", "objects that no reader can use: two points, not finite, broken run-lengths, unknown ids"
    ),
    "broken picture": Check("error", "a picture that cannot be read, or is of another size than annotated"),
    "leakage": Check("error", "one picture in two splits: what is tested was seen in training"),
    "unlearnable class": Check("error", "a class of another split that training has no object of"),
    "outside": Check("error", "an object wholly outside of its picture", True),
    "no pixels": Check("error", "an object that covers no pixel", True),
    "map disagrees": Check("error", "a segment that its map does not show, or pixels of a segment that is not listed"),
    "overlap": Check("error", "panoptic segments that share pixels"),
    "near leakage": Check("warning", "nearly the same picture in two splits"),
    "duplicate picture": Check("warning", "one picture twice in a split"),
    "duplicate object": Check("warning", "an object annotated twice with one class", True),
    "two classes": Check("warning", "one outline annotated as two classes"),
    "beyond the edge": Check("warning", "an outline or box that leaves its picture by more than a pixel", True),
    "self-crossing": Check("warning", "an outline that crosses itself, so that parts of it may count as outside"),
    "lost hole": Check("warning", "a ring inside another ring of its object: COCO's rule fills it, the hole is gone"),
    "box disagrees": Check("warning", "a box that is not around its mask", True),
    "tiny": Check("warning", "an object of a single pixel or two"),
    "near duplicate": Check("note", "nearly the same picture twice in a split"),
    "box only": Check("note", "an object without outline in a data set of outlines"),
    "whole picture": Check("note", "an object that covers all but the whole picture"),
    "odd size": Check("note", "an object far larger or smaller than others of its class"),
    "unused class": Check("note", "a class without objects"),
    "rare class": Check("note", "a class of fewer than 10 objects"),
    "imbalance": Check("note", "a class a hundred times as frequent as another"),
}
"""Check -> what it is. ``audit`` reports them worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: its row of ``CHECKS``.
        text: what was found, in words.
        split, key: the image, where it is of one.
        ident: the object's id, where it is of one.
        others: ids of objects that it is about too.
    """

    check: str
    text: str
    split: str | None = None
    key: str | None = None
    ident: int | None = None
    others: tuple[int, ...] = ()

    @property
    def severity(self) -> Literal["error", "warning", "note"]:
        """As in ``CHECKS``."""
        return CHECKS[self.check].severity

    @property
    def fixable(self) -> bool:
        """As in ``CHECKS``."""
        return CHECKS[self.check].fixable

    def where(self) -> str:
        """Split, image and object, as far as they are known."""
        parts = [part for part in (self.split, self.key) if part is not None]
        return ": ".join(["/".join(parts), f"object {self.ident}"] if self.ident is not None else ["/".join(parts)])
