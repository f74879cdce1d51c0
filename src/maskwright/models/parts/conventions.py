"""The conventions of two-stage detectors: those of ``nn.conventions``, mmdetection's and maskrcnn-benchmark's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from maskwright.nn import conventions


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention(conventions.Convention):
    """One implementation's choices; the details that detectron2 and torchvision agree in have their way as default.

    Attributes:
        level_epsilon: the constant of the level assignment's logarithm; ``None`` is detectron2's or torchvision's.
        inclusive: a box's far edge is its last pixel, so that sides are one longer (maskrcnn-benchmark). Boxes are kept
            with exclusive edges here, and only clipped, cut and scaled as there.
        claims: every object claims the candidates it overlaps most, if by at least the lower threshold, also from an
            object they overlap more (mmdetection). Else a claim holds at any overlap, and a candidate learns the
            object it overlaps most.
    """

    level_epsilon: float | None = None
    inclusive: bool = False
    claims: bool = False


CONVENTIONS: Mapping[str, Convention] = {
    **{name: Convention(**asdict(known)) for name, known in conventions.CONVENTIONS.items()},
    "mmdetection": Convention(level_epsilon=1e-6 / 4, sampled_denominator=True, claims=True),
    "maskrcnn-benchmark": Convention(
        aligned=False,
        sampling_ratio=2,
        level_epsilon=1e-6,
        beta=1 / 9,
        sampled_denominator=True,
        expanded_paste=True,
        inclusive=True,
    ),
}
