"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence

from maskwright.structures import Batch, Images, Sample


def collate(samples: Sequence[Sample], multiple: int = 32) -> Batch:
    """Pad the pictures at the bottom and right to one size that ``multiple`` divides; scenes stay on their own sizes.

    Raises:
        ValueError: no samples.
    """
    images = Images.pad([s.image for s in samples], [s.geometry for s in samples], multiple=multiple)
    return Batch(inputs=images, scenes=tuple(s.scene for s in samples), keys=tuple(s.key for s in samples))
