"""``Synthetic``: drawn scenes as a data set, with perfect labels, nothing on disk."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskwright.data.source import Base
from maskwright.data.synthetic.drawn import Drawn, Kind, Knobs
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Taxonomy

KINDS: Mapping[str, str] = {
    "street": "maskwright.data.synthetic.street:Street",
    "cells": "maskwright.data.synthetic.cells:Cells",
    "parts": "maskwright.data.synthetic.parts:Parts",
    "shelf": "maskwright.data.synthetic.shelf:Shelf",
    "orchard": "maskwright.data.synthetic.orchard:Orchard",
}
"""Name -> module:class; a module is imported when its kind is asked for."""

LEAST_SIDE = 32
"""Pixels; smaller pictures show nothing."""


def kind_of(name: str) -> Kind:
    """The kind called ``name``; ``InputError`` names those there are."""
    if name not in KINDS:
        raise InputError(f"no kind of scene {name!r}; there are: {', '.join(KINDS)}")
    module, _, attribute = KINDS[name].partition(":")
    return getattr(import_module(module), attribute)()


class Synthetic(Base):
    """Drawn scenes; a ``protocols.Source``.

    ``Synthetic("street", 1000)`` trains an instance model as any other source does. Picture ``i`` depends on the seed,
    the knobs, the size and ``i`` only, however many there are and whoever draws it.

    Args:
        kind: a name in ``KINDS`` or a ``Kind`` of your own.
        count: how many pictures, or clips where ``frames`` is more than 1.
        size: (H, W), at least ``LEAST_SIDE``.
        seed: another seed, another set.
        knobs: what the pictures are like.
        frames: pictures of a clip; clip ``c`` has the indices from ``c * frames``, and they are cheapest in order.
        instances: records have the things only, and so has ``taxonomy``; otherwise records have all segments, stuff
            too, with semantic and panoptic maps, and ``taxonomy`` is the kind's.
        least: with ``instances``, objects of which fewer pixels are seen are left out of the records.

    Raises:
        InputError: an unknown kind, or numbers out of range.
    """

    def __init__(
        self,
        kind: str | Kind,
        count: int,
        size: tuple[int, int] = (480, 640),
        seed: int = 0,
        knobs: Knobs | None = None,
        frames: int = 1,
        *,
        instances: bool = True,
        least: int = 12,
    ) -> None:
        if count < 0 or frames < 1 or min(size) < LEAST_SIDE or seed < 0:
            raise InputError(
                f"drawing needs count >= 0, frames >= 1, sides >= {LEAST_SIDE} and seed >= 0, "
                f"got {count}, {frames}, {size}, {seed}"
            )
        self.kind = kind_of(kind) if isinstance(kind, str) else kind
        self.name = kind if isinstance(kind, str) else type(kind).__name__.lower()
        self.size = (int(size[0]), int(size[1]))
        self.count, self.seed, self.frames = count, seed, frames
        self.knobs = knobs or Knobs()
        self.instances, self.least = instances, least
        full = self.kind.taxonomy
        self._dense = np.cumsum(full.thing) - 1 if instances else np.arange(len(full))
        self.taxonomy = _things(full) if instances else full
        self._last: tuple[int, list[Drawn]] | None = None

    def __len__(self) -> int:
        return self.count * self.frames

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every picture, int64 [n, 2]."""
        return np.tile(np.array(self.size, np.int64), (len(self), 1))

    def key(self, index: int) -> str:
        """The name of picture ``index``: kind, seed, clip and frame."""
        clip, frame = divmod(range(len(self))[index], self.frames)
        return f"{self.name}-{self.seed}-{clip:06d}" + (f"-{frame:03d}" if self.frames > 1 else "")

    def drawn(self, index: int) -> Drawn:
        """Picture ``index`` with everything known about it."""
        clip, frame = divmod(range(len(self))[index], self.frames)
        last = self._last
        if last is None or last[0] != clip:
            rng = np.random.Generator(np.random.PCG64([self.seed, clip]))
            last = clip, self.kind.draw(rng, self.size, self.knobs, self.frames)
            self._last = last
        return last[1][frame]

    def record(self, index: int) -> Record:
        """What is seen in picture ``index``, masks as run-lengths; the picture is drawn for it."""
        index = range(len(self))[index]
        drawn, key = self.drawn(index), self.key(index)
        labels, areas = drawn.labels, rle.area(*drawn.visible)
        chosen = np.arange(len(labels))
        if self.instances:
            chosen = np.flatnonzero(np.array(self.kind.taxonomy.thing)[labels] & (areas >= self.least))
        counts, offsets = rle.take(*drawn.visible, chosen)
        shapes = tuple(
            {"size": self.size, "counts": rle.compress(counts[a:b])}
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        )
        tracks = drawn.tracks[chosen]
        clip, frame = divmod(index, self.frames)
        moving = self.frames > 1
        return Record(
            key=key,
            path=Path(key),
            size=self.size,
            labels=self._dense[labels[chosen]].astype(np.int64),
            shapes=shapes,
            boxes=rle.boxes(counts, offsets, self.size[0]),
            crowd=np.zeros(len(chosen), bool),
            # The panoptic map holds the ids; without one they are distinct over the whole set.
            ids=(index << 20) + tracks if self.instances else tracks,
            areas=areas[chosen].astype(np.float64),
            image_id=index + 1,
            tracks=tracks if moving else None,
            sequence=f"{self.name}-{self.seed}-{clip:06d}" if moving else None,
            frame=frame if moving else None,
            semantic=None if self.instances else drawn.semantic,
            panoptic=None if self.instances else drawn.panoptic,
        )

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of picture ``index`` and its pixels, uint8 [3, H, W]."""
        return self.record(index), torch.from_numpy(self.drawn(index).image)


def _things(full: Taxonomy) -> Taxonomy:
    kept = [i for i, thing in enumerate(full.thing) if thing]
    return Taxonomy(
        names=tuple(full.names[i] for i in kept),
        colors=tuple(full.colors[i] for i in kept),
        source_ids=tuple(full.source_ids[i] for i in kept),
    )
