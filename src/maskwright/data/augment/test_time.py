"""Ways of looking at a picture more than once, and the ways back.

A ``View`` is a scale followed by one of the eight symmetries of the square. A model sees ``view.pixels(image)`` and
says what is there; ``view.back(scene, size)`` says it of the picture itself. Merging what several views say is not
done here.

Flips and quarter turns are undone exactly: pixels, run-lengths and maps bit for bit; boxes too wherever float32 holds
``side - x`` (coordinates that are multiples of 1/256 in pictures of up to 65,536 pixels a side), else to its last bit.
Scales are undone as far as a resize can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.data.augment.placement import Placement
from maskwright.data.augment.resample import place_runs
from maskwright.structures import Masks, Scene, Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of looking at a picture.

    Attributes:
        scale: factor on both sides, rounded to whole pixels; then
        transpose: swap the axes,
        flip_y: mirror upside down,
        flip_x: mirror left to right.
    """

    scale: float = 1.0
    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"a view's scale must be positive, got {self.scale}")

    def there(self, size: tuple[int, int]) -> Placement:
        """From a picture of ``size`` (H, W) to the view."""
        canvas = (max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale)))
        return replace(Placement.whole(size, canvas), transpose=self.transpose, flip_y=self.flip_y, flip_x=self.flip_x)

    def way_back(self, size: tuple[int, int]) -> Placement:
        """From the view to the picture of ``size`` (H, W) that it was made of."""
        seen = self.there(size).size
        # Mirrors done before the axes are swapped are the other ones after it.
        mirrors = (self.flip_x, self.flip_y) if self.transpose else (self.flip_y, self.flip_x)
        canvas = size[::-1] if self.transpose else size
        return replace(
            Placement.whole(seen, (canvas[0], canvas[1])), transpose=self.transpose, flip_y=mirrors[0],
            flip_x=mirrors[1],
        )  # fmt: skip

    def pixels(self, image: Tensor) -> Tensor:
        """The view of a picture uint8 or floating [C, H, W]."""
        return self.there(_size(image)).pixels(image)

    def pixels_back(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Values [C, h, w] on the view, a score a class for instance, on the picture of ``size`` (H, W)."""
        way = self._checked(_size(values), size)
        return way.pixels(values)

    def scene(self, scene: Scene) -> Scene:
        """What is known of a picture, on the view."""
        return placed(scene, self.there((scene.size[0], scene.size[1])))

    def back(self, scene: Scene, size: tuple[int, int]) -> Scene:
        """What is said of the view, on the picture of ``size`` (H, W); objects keep their order and number.

        Raises:
            ValueError: the scene does not lie on the view of such a picture.
        """
        return placed(scene, self._checked((scene.size[0], scene.size[1]), size))

    def _checked(self, got: tuple[int, int], size: tuple[int, int]) -> Placement:
        way = self.way_back(size)
        seen = self.there(size).size
        if got != seen:
            raise ValueError(f"the view of a picture of {size} (H, W) has size {seen}, got {got}")
        return way


def views(
    *, scales: Sequence[float] = (1.0,), flips: bool = True, upside_down: bool = False, turns: bool = False
) -> tuple[View, ...]:
    """Distinct views, the unturned ones first; every scale with every turn.

    Args:
        scales: factors on the sides.
        flips: also mirrored left to right.
        upside_down: also mirrored upside down (with ``flips`` both ways, too).
        turns: also by 90, 180 and 270 degrees; with ``flips`` all eight symmetries.
    """
    found: list[View] = []
    for scale in scales:
        for transpose in (False, True) if turns else (False,):
            for flip_y in (False, True) if turns or upside_down else (False,):
                for flip_x in (False, True) if turns or flips else (False,):
                    mirrored = (int(transpose) + int(flip_y) + int(flip_x)) % 2 == 1
                    wanted = not mirrored or flips or (upside_down and (turns or flip_y))
                    if wanted:
                        found.append(View(scale=scale, transpose=transpose, flip_y=flip_y, flip_x=flip_x))
    return tuple(found)


def placed(scene: Scene, placement: Placement) -> Scene:
    """A scene through a placement that covers the whole of it; no object is dropped.

    Boxes are carried as boxes, whether or not there are masks; scores, ids and crowd stay. Prompts are not carried.
    """
    size = (scene.size[0], scene.size[1])
    segments = scene.segments
    if segments is not None:
        masks = None if segments.masks is None else _masks(segments.masks, placement)
        boxes = None
        if segments.boxes is not None:
            moved = placement.boxes(segments.boxes.cpu().numpy()).astype(np.float32)
            boxes = torch.from_numpy(moved).to(segments.boxes.device)
        segments = Segments(
            size=placement.size, labels=segments.labels, masks=masks, boxes=boxes, scores=segments.scores,
            ids=segments.ids, crowd=segments.crowd,
        )  # fmt: skip
    assert placement.window == (0, 0, *size)
    return Scene(
        size=placement.size,
        segments=segments,
        semantic=None if scene.semantic is None else _map(scene.semantic, placement, -1),
        panoptic=None if scene.panoptic is None else _map(scene.panoptic, placement, 0),
        ignore=None if scene.ignore is None else _masks(scene.ignore, placement),
    )


def _masks(masks: Masks, placement: Placement) -> Masks:
    if placement.leaves((masks.size[0], masks.size[1])):
        return masks
    size = (masks.size[0], masks.size[1])
    return Masks.from_arrays(*place_runs(masks.counts.numpy(), masks.offsets.numpy(), size, placement), placement.size)


def _map(values: Tensor, placement: Placement, void: int) -> Tensor:
    return torch.from_numpy(placement.labels(values.cpu().numpy(), void)).to(values.device)


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[1]), int(image.shape[2])
