"""Details in which the two public implementations of two-stage detectors differ, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """One implementation's choices where the papers leave room. The defaults are detectron2's.

    Attributes:
        rounded_anchors: anchors on integer coordinates, cell steps from image and map size (torchvision).
        aligned: RoIAlign's pixel centers at +0.5 (detectron2's second version).
        sampling_ratio: RoIAlign's samples a bin side; 0 adapts to the box.
        min_proposal, min_detection: boxes must be larger than this, in pixels.
        level_epsilon_inside: where the small constant stands in the level assignment's logarithm.
        beta: of the smooth L1 losses; 0 is plain L1.
        hard_mask_targets: mask targets thresholded at 0.5.
        sampled_denominator: RPN losses are divided by the anchors sampled, not by those asked for.
        expanded_paste: masks are padded by a pixel and pasted into integer boxes.
    """

    rounded_anchors: bool = False
    aligned: bool = True
    sampling_ratio: int = 0
    min_proposal: float = 0.0
    min_detection: float = 0.0
    level_epsilon_inside: bool = True
    beta: float = 0.0
    hard_mask_targets: bool = True
    sampled_denominator: bool = False
    expanded_paste: bool = False


CONVENTIONS: Mapping[str, Convention] = {
    "detectron2": Convention(),
    "torchvision": Convention(
        rounded_anchors=True,
        aligned=False,
        sampling_ratio=2,
        min_proposal=1e-3,
        min_detection=1e-2,
        level_epsilon_inside=False,
        beta=1 / 9,
        hard_mask_targets=False,
        sampled_denominator=True,
        expanded_paste=True,
    ),
}
