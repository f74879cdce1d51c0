"""Samples made of several pictures: copy-paste, mosaic, mixup; and weather over the whole of them.

``with_partners(augment, source)`` stands where ``Augment`` does. Which pictures join is drawn from the sample's own
generator, so samples are the same for any number of workers and after a resumption. Each picture goes through the
augmentation by itself; what is put together here is finished samples, whose pixels are not resampled again.

Ids are counted anew from 1 in a sample of several pictures: they name nothing outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.data.augment.conditions import Conditions
from maskwright.data.augment.layers import Placed, cover, join
from maskwright.data.augment.transforms import Augment
from maskwright.data.augment.warp import FILL
from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.structures import Record, Sample, Scene

_CENTER = (0.25, 0.75)
_BLEND = 1.5


def with_partners(augment: Augment, source: Loads, conditions: Conditions | None = None) -> Augment | Composed:
    """The transform that a loader of ``source`` is given.

    ``augment`` itself where one picture makes a sample and there are no ``conditions``; else one that draws partners
    from ``source``, and weather, optics and compression last.
    """
    if conditions is None and not augment.needs_partners:
        return augment
    return Composed(augment=augment, source=source, conditions=conditions or Conditions())


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """An augmentation that joins pictures of ``source``; partners are drawn uniformly, itself among them.

    In this order, each with its probability: a mosaic, objects pasted from one more picture, a blend with one more,
    then the conditions, one weather for the whole sample.

    Attributes:
        augment: what happens to each picture, and the probabilities.
        source: where partners come from.
        conditions: changes of the colors of the whole sample.
    """

    augment: Augment
    source: Loads
    conditions: Conditions = field(default_factory=Conditions)
    _plain: Augment = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plain", replace(self.augment, copy_paste=0.0, mosaic=0.0, mixup=0.0))

    def __call__(self, record: Record, image: Tensor, rng: np.random.Generator) -> Sample:
        """Draw and apply, as ``Augment`` does.

        Raises:
            InputError: a partner cannot be read, or mixup met a label map.
        """
        tiled, pasted, blended = (
            rng.random() < p for p in (self.augment.mosaic, self.augment.copy_paste, self.augment.mixup)
        )
        sample = self._mosaic(record, image, rng) if tiled else self._plain(record, image, rng)
        if pasted:
            sample = copy_paste(
                sample, self._partner(rng), rng, things=self.source.taxonomy.thing, min_visible=self.augment.min_visible
            )
        if blended:
            sample = mixup(sample, self._partner(rng), float(rng.beta(_BLEND, _BLEND)))
        drawn = self.conditions.draw(rng)
        return replace(sample, image=drawn(sample.image)) if drawn.effects else sample

    def _partner(self, rng: np.random.Generator) -> Sample:
        return self._plain(*self.source.load(int(rng.integers(len(self.source)))), rng)

    def _mosaic(self, record: Record, image: Tensor, rng: np.random.Generator) -> Sample:
        crop = self.augment.crop
        assert crop is not None
        center = tuple(min(max(round(float(rng.uniform(*_CENTER)) * side), 1), max(side - 1, 1)) for side in crop)
        tiles: list[tuple[Sample, int, int]] = []
        for corner in range(4):
            pair = (record, image) if corner == 0 else self.source.load(int(rng.integers(len(self.source))))
            low, right = corner // 2 == 1, corner % 2 == 1
            tall = crop[0] - center[0] if low else center[0]
            wide = crop[1] - center[1] if right else center[1]
            if tall == 0 or wide == 0:
                continue
            sample = replace(self._plain, crop=(tall, wide))(*pair, rng)
            height, width = sample.image.shape[1:]
            tiles.append((sample, center[0] if low else center[0] - height, center[1] if right else center[1] - width))
        return mosaic(tiles, (crop[0], crop[1]))


def mosaic(tiles: list[tuple[Sample, int, int]], size: tuple[int, int]) -> Sample:
    """Samples side by side on a canvas (Bochkovskiy et al. 2020, section 3.4), gray between them.

    Key and geometry are the first one's.

    Args:
        tiles: samples with scenes and where their top left corners lie (y, x); they do not overlap.
        size: (H, W) of the canvas.
    """
    pixels = torch.full((3, *size), FILL, dtype=torch.uint8)
    for sample, top, left in tiles:
        height, width = sample.image.shape[1:]
        pixels[:, top : top + height, left : left + width] = sample.image
    first = tiles[0][0]
    scene = join([Placed(_scene(sample), top, left) for sample, top, left in tiles], size)
    return Sample(key=first.key, image=pixels, scene=scene, geometry=replace(first.geometry, valid=size))


def copy_paste(
    sample: Sample, other: Sample, rng: np.random.Generator, *, things: tuple[bool, ...], min_visible: float = 0.0
) -> Sample:
    """Objects of ``other`` in front of ``sample`` (Ghiasi et al. 2021), their pixels copied without blending.

    A random number of random objects, from one to all, is taken: things with a known mask that are no crowd. Where the
    sizes differ the other picture is shifted at random within the canvas, or against it. Objects behind keep what is
    visible of them; those of which nothing is left are dropped. Label maps show what the pixels show. A sample whose
    masks are unknown is returned as it is, since nobody could say what of its objects remains.

    Args:
        sample: what is pasted on; it keeps its size, key and geometry.
        other: where objects come from.
        rng: where randomness comes from.
        things: whether each class is countable.
        min_visible: objects of which less than this fraction remains become regions to ignore.
    """
    scene, front = _scene(sample), _scene(other)
    offset = tuple(
        int(rng.integers(min(here - there, 0), max(here - there, 0) + 1))
        for here, there in zip(sample.image.shape[1:], other.image.shape[1:], strict=True)
    )
    objects = front.segments
    if objects is None or objects.masks is None or scene.segments is None:
        return sample
    if scene.segments.masks is None and len(scene.segments):
        return sample
    countable = torch.tensor(things, dtype=torch.bool)[objects.labels]
    if objects.crowd is not None:
        countable &= ~objects.crowd
    able = torch.nonzero(countable).reshape(-1).numpy()
    if len(able) == 0:
        return sample
    chosen = np.sort(rng.permutation(able)[: int(rng.integers(1, len(able) + 1))])
    size = (int(sample.image.shape[1]), int(sample.image.shape[2]))
    pasted = replace(front, segments=objects[torch.from_numpy(chosen)], ignore=None)
    made, shown = cover(scene, Placed(pasted, offset[0], offset[1]), min_visible=min_visible)
    if not shown.any():
        return sample
    seen = torch.from_numpy(shown)
    moved = torch.zeros((3, *size), dtype=torch.uint8)
    _lay(moved, other.image, offset[0], offset[1])
    return replace(sample, image=torch.where(seen, moved, sample.image), scene=made)


def mixup(sample: Sample, other: Sample, share: float) -> Sample:
    """Two pictures blended, top left corners together, on a canvas that holds both (Zhang et al. 2019, section 3.1).

    The objects of both are kept as they are, each counting fully: a loss here has no weights for objects. Where only
    one picture lies it is shown as it is, which the paper darkens.

    Args:
        sample, other: what is blended; key and geometry are the first one's.
        share: of the first one's pixels, 0 to 1.

    Raises:
        InputError: a label map is among the labels: a blended pixel would have two classes.
    """
    scenes = (_scene(sample), _scene(other))
    for made, scene in zip((sample, other), scenes, strict=True):
        if scene.semantic is not None or scene.panoptic is not None:
            raise InputError(
                f"{made.key}: mixup cannot blend pictures with semantic or panoptic maps, since each pixel would have "
                "two classes. Use copy_paste or mosaic."
            )
    sizes = np.array([made.image.shape[1:] for made in (sample, other)])
    height, width = (int(side) for side in sizes.max(axis=0))
    layers = torch.full((2, 3, height, width), FILL, dtype=torch.uint8)
    weight = torch.zeros(2, 1, height, width)
    for k, (made, part) in enumerate(((sample, share), (other, 1 - share))):
        _lay(layers[k], made.image, 0, 0)
        weight[k, :, : made.image.shape[1], : made.image.shape[2]] = part
    total = weight.sum(0)
    weight = torch.where(total > 0, weight / total.clamp(min=1e-6), 0.5)
    pixels = (layers.float() * weight).sum(0).round().to(torch.uint8)
    scene = join([Placed(scene, 0, 0) for scene in scenes], (height, width))
    return Sample(key=sample.key, image=pixels, scene=scene, geometry=replace(sample.geometry, valid=(height, width)))


def _scene(sample: Sample) -> Scene:
    if sample.scene is None:
        raise ValueError(f"{sample.key}: only samples with scenes can be put together")
    return sample.scene


def _lay(canvas: Tensor, image: Tensor, top: int, left: int) -> None:
    """Write a picture on a canvas, both [3, H, W], at a place that may lie partly outside."""
    height, width = (int(side) for side in canvas.shape[1:])
    rows = slice(max(top, 0), min(top + int(image.shape[1]), height))
    columns = slice(max(left, 0), min(left + int(image.shape[2]), width))
    canvas[:, rows, columns] = image[
        :, rows.start - top : max(rows.stop - top, 0), columns.start - left : max(columns.stop - left, 0)
    ]
