"""Class names and what is known about them: the end of class-index folklore."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskwright.structures._check import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Taxonomy:
    """The classes of a data set or a model, dense from 0 to C-1; never background, never void.

    Attributes:
        names: C distinct class names.
        thing: C flags; ``True`` where the class is countable. Defaults to all things.
        colors: C RGB triples in 0..255. Defaults to a fixed palette of well separated hues.
        source_ids: C category ids of the file the classes came from (COCO has gaps). Defaults to 1..C.

    Raises:
        ValueError: lengths differ, or names or source ids repeat.
    """

    names: tuple[str, ...]
    thing: tuple[bool, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    source_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        object.__setattr__(self, "thing", tuple(self.thing) or (True,) * count)
        object.__setattr__(self, "colors", tuple(tuple(c) for c in self.colors) or palette(count))
        object.__setattr__(self, "source_ids", tuple(self.source_ids) or tuple(range(1, count + 1)))
        for field in ("thing", "colors", "source_ids"):
            got = len(getattr(self, field))
            require(got == count, f"{field} must have one entry per class ({count}), got {got}")
        for field in ("names", "source_ids"):
            values = getattr(self, field)
            twice = sorted({str(v) for v in values if values.count(v) > 1}) if len(set(values)) < count else []
            require(not twice, f"{field} must be distinct, but these repeat: {', '.join(twice[:5])}")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the dense label of ``name``; ``KeyError`` names the classes there are."""
        if name not in self.names:
            raise KeyError(f"no class {name!r}; there are {len(self)}: {', '.join(self.names[:10])}")
        return self.names.index(name)

    @property
    def label_of(self) -> dict[int, int]:
        """Source category id -> dense label."""
        return {source: label for label, source in enumerate(self.source_ids)}

    def to_json(self) -> dict[str, object]:
        """Plain lists and strings, as stored beside a checkpoint; ``from_json`` reads them back."""
        return {
            "names": list(self.names),
            "thing": list(self.thing),
            "colors": [list(c) for c in self.colors],
            "source_ids": list(self.source_ids),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Taxonomy:
        """Read what ``to_json`` wrote."""
        return cls(
            names=tuple(str(v) for v in data["names"]),
            thing=tuple(bool(v) for v in data.get("thing", ())),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in data.get("colors", ())),
            source_ids=tuple(int(v) for v in data.get("source_ids", ())),
        )


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` RGB colors in 0..255 whose hues follow the golden angle, so that neighbors differ most."""
    out: list[tuple[int, int, int]] = []
    for i in range(count):
        saturation, value = (0.85, 0.6, 0.95)[i % 3], (0.95, 1.0, 0.8)[i // 3 % 3]
        r, g, b = colorsys.hsv_to_rgb((0.33 + i * 0.618034) % 1.0, saturation, value)
        out.append((round(255 * r), round(255 * g), round(255 * b)))
    return tuple(out)


def numbered(count: int, names: Sequence[str] = ()) -> Taxonomy:
    """A taxonomy for ``count`` classes without names of their own: ``class 1`` and so on."""
    return Taxonomy(names=tuple(names) or tuple(f"class {i + 1}" for i in range(count)))
