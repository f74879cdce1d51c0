"""Augmentation: random numbers are drawn once, then applied to pixels and outlines alike.

``Augment`` draws a ``Placement`` or ``Warp`` (geometry) and a ``Photometric`` (color) for each sample. Outlines are
rasterized once, after the crop; pixels are resampled once. What needs other samples too (copy-paste, mosaic, mixup) is
drawn here and done in ``compose``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from maskwright.data.augment.photometric import Photometric
from maskwright.data.augment.placement import Placement
from maskwright.data.augment.warp import Warp, turn_and_shear
from maskwright.data.augment.window import draw_window
from maskwright.data.rasterize import Place, scene_of
from maskwright.errors import InputError
from maskwright.structures import Geometry, Record, Resize, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Random changes of a training picture. The defaults change nothing but mirror half of the pictures."""

    hflip: float = 0.5
    """Probability of mirroring left to right."""
    vflip: float = 0.0
    """Probability of mirroring upside down."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, equally often; for pictures without an up."""
    short: tuple[int, ...] = ()
    """Lengths of the shorter side to choose from (multi-scale resize); empty keeps the file's size."""
    long: int | None = None
    """Ceiling of the longer side, with ``short``."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of a factor on the size, drawn uniformly; applied after ``short`` or ``fit``."""
    fit: bool = False
    """First fit the picture into ``crop``; with ``scale`` 0.1 2.0 this is large-scale jitter (Ghiasi et al. 2021)."""
    crop: tuple[int, int] | None = None
    """Height and width of a random crop; a smaller picture is not cropped, and padded when the batch is made."""
    keep_whole: bool = False
    """Shift the crop to where it cuts the fewest objects whose centers it shows; larger ones than the crop aside."""
    crop_on_object: float = 0.0
    """Probability that the crop is drawn around an object chosen at random instead of anywhere."""
    min_visible: float = 0.0
    """An object of which the crop leaves less than this fraction becomes a region to ignore."""
    rotate: tuple[float, float] = (0.0, 0.0)
    """Range of an angle in degrees, clockwise, by which the crop is turned about its center."""
    shear: tuple[float, float] = (0.0, 0.0)
    """Range of an angle in degrees by which upright lines are slanted."""
    elastic: float = 0.0
    """Largest displacement, in pixels, of a smooth random deformation (cells); at most a quarter of elastic-spacing."""
    elastic_spacing: float = 64.0
    """Distance in pixels between independent displacements: the larger, the smoother."""
    outside: Literal["constant", "reflect"] = "constant"
    """What a turn brings in from outside the picture: gray, or the picture mirrored, which labels then ignore."""
    copy_paste: float = 0.0
    """Probability of pasting some objects of another picture (Ghiasi et al. 2021)."""
    mosaic: float = 0.0
    """Probability of a crop put together of four pictures (Bochkovskiy et al. 2020)."""
    mixup: float = 0.0
    """Probability of blending with another picture, the objects of both kept (Zhang et al. 2019)."""
    brightness: float = 0.0
    """Largest relative change of brightness."""
    contrast: float = 0.0
    """Largest relative change of contrast."""
    saturation: float = 0.0
    """Largest relative change of saturation."""
    hue: float = 0.0
    """Largest turn of the hue, in turns (0.5 reaches the opposite color)."""
    temperature: float = 0.0
    """Largest shift of the light's color temperature, in mireds (10^6 / kelvin)."""
    gamma: tuple[float, float] = (1.0, 1.0)
    """Range of the exponent on the values, drawn with a uniform logarithm."""
    invert: float = 0.0
    """Probability of the negative: bright objects on dark ground become dark on bright (microscopy)."""
    grayscale: float = 0.0
    """Probability of taking the color away."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.3, 1.5)
    """Range of the blur's standard deviation, in pixels."""
    noise: float = 0.0
    """Probability of Gaussian noise."""
    noise_sigma: tuple[float, float] = (2.0, 10.0)
    """Range of the noise's standard deviation, in 0..255."""

    def __post_init__(self) -> None:
        for name in (
            "hflip", "vflip", "crop_on_object", "min_visible", "invert", "grayscale", "blur", "noise",
            "copy_paste", "mosaic", "mixup",
        ):  # fmt: skip
            _require(0 <= getattr(self, name) <= 1, name, "a fraction from 0 to 1", getattr(self, name))
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1", getattr(self, name))
        _require(self.temperature >= 0, "temperature", "at least 0", self.temperature)
        _require(0 <= self.hue <= 0.5, "hue", "from 0 to 0.5", self.hue)
        for name in ("scale", "gamma", "blur_sigma", "noise_sigma"):
            value = getattr(self, name)
            _require(len(value) == 2 and 0 < value[0] <= value[1], name, "a rising range of positive numbers", value)
        _require(all(side > 0 for side in self.short), "short", "positive lengths", self.short)
        _require(self.long is None or self.long > 0, "long", "a positive length", self.long)
        _require(self.crop is None or min(self.crop) > 0, "crop", "a positive height and width", self.crop)
        for name, limit in (("rotate", 360), ("shear", 60)):
            low, high = getattr(self, name)
            _require(-limit <= low <= high <= limit, name, f"a rising range within +-{limit} degrees", (low, high))
        _require(self.elastic_spacing > 0, "elastic_spacing", "positive", self.elastic_spacing)
        _require(
            0 <= self.elastic <= self.elastic_spacing / 4, "elastic", "at most a quarter of elastic_spacing",
            self.elastic,
        )  # fmt: skip
        _require(self.outside in ("constant", "reflect"), "outside", "constant or reflect", self.outside)
        for name in ("fit", "keep_whole", "crop_on_object", "mosaic"):
            _require(not getattr(self, name) or self.crop is not None, name, "used with crop", getattr(self, name))
        _require(not (self.fit and self.short), "fit", "used without short", self.fit)

    def draw(self, record: Record, rng: np.random.Generator) -> tuple[Place, Photometric]:
        """Draw what will happen to one picture. ``rasterize.cut_ids(record, placement)`` says what a crop cuts."""
        return self._turned(self._draw_placement(record, rng), record, rng), self._draw_photometric(rng)

    def __call__(self, record: Record, image: Tensor, rng: np.random.Generator) -> Sample:
        """Draw and apply.

        Args:
            record: outlines in file pixels.
            image: uint8 [3, H, W] of the record's size; it is not changed.
            rng: where randomness comes from; equal generators give equal samples.

        Raises:
            ValueError: an option needs other samples, which only ``compose.with_partners`` can give.
        """
        if self.needs_partners:
            raise ValueError("copy_paste, mosaic and mixup need a source: call compose.with_partners(augment, source)")
        placement, photometric = self.draw(record, rng)
        return Sample(
            key=record.key,
            image=photometric(placement.pixels(image)),
            scene=scene_of(record, placement, min_visible=self.min_visible),
            geometry=Geometry(valid=placement.size, original=record.size, scale=placement.scale),
        )

    @property
    def needs_partners(self) -> bool:
        """Whether samples are made of several pictures (``compose.with_partners``)."""
        return max(self.copy_paste, self.mosaic, self.mixup) > 0

    def _turned(self, placement: Placement, record: Record, rng: np.random.Generator) -> Place:
        """The placement and what ``rotate``, ``shear`` and ``elastic`` add; draws nothing where they add nothing."""
        turned, slanted = any(self.rotate), any(self.shear)
        if not (turned or slanted or self.elastic):
            return placement
        degrees = float(rng.uniform(*self.rotate)) if turned else 0.0
        slant = float(rng.uniform(*self.shear)) if slanted else 0.0
        bend = None
        if self.elastic:
            bend = Warp.draw_bend(placement.size, float(rng.uniform(0, self.elastic)), self.elastic_spacing, rng)
        return Warp(
            placement=placement,
            full=record.size,
            matrix=turn_and_shear(degrees, slant),
            bend=bend,
            spacing=self.elastic_spacing,
            reflect=self.outside == "reflect",
        )

    def _draw_placement(self, record: Record, rng: np.random.Generator) -> Placement:
        flip_x, flip_y = bool(rng.random() < self.hflip), bool(rng.random() < self.vflip)
        transpose = False
        if self.quarter_turns:
            turn = int(rng.integers(4))  # a turn by 90 degrees is a transpose and a mirror, by 180 two mirrors
            transpose = turn % 2 == 1
            flip_x ^= turn in (1, 2)
            flip_y ^= turn in (2, 3)
        crop = self.crop
        if crop is not None and transpose:
            crop = (crop[1], crop[0])
        full = self._draw_size(record.size, crop, rng)
        window, canvas = (0, 0, *record.size), full
        if crop is not None:
            window, canvas = draw_window(
                record, full, crop, rng, keep_whole=self.keep_whole, on_object=rng.random() < self.crop_on_object
            )
        return Placement(window=window, canvas=canvas, transpose=transpose, flip_y=flip_y, flip_x=flip_x)

    def _draw_size(
        self, size: tuple[int, int], crop: tuple[int, int] | None, rng: np.random.Generator
    ) -> tuple[int, int]:
        """(H, W) that the whole picture would be resized to."""
        factor = float(rng.uniform(*self.scale))
        if self.short:
            height, width = Resize(short=int(rng.choice(self.short)), long=self.long).target(size)
        elif self.fit and crop is not None:
            fitted = min(crop[0] / size[0], crop[1] / size[1])
            height, width = fitted * size[0], fitted * size[1]
        else:
            height, width = size
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _draw_photometric(self, rng: np.random.Generator) -> Photometric:
        brightness, contrast, saturation = (
            float(rng.uniform(1 - change, 1 + change)) if change else 1.0
            for change in (self.brightness, self.contrast, self.saturation)
        )
        hue = float(rng.uniform(-self.hue, self.hue)) if self.hue else 0.0
        gamma = float(np.exp(rng.uniform(*np.log(self.gamma))))
        invert, gray, blur, noise = (rng.random() < p for p in (self.invert, self.grayscale, self.blur, self.noise))
        return Photometric(
            saturation=0.0 if gray else saturation,
            hue=hue,
            temperature=float(rng.uniform(-self.temperature, self.temperature)) if self.temperature else 0.0,
            gamma=gamma,
            brightness=brightness,
            contrast=contrast,
            invert=bool(invert),
            blur=float(rng.uniform(*self.blur_sigma)) if blur else 0.0,
            noise=float(rng.uniform(*self.noise_sigma)) if noise else 0.0,
            seed=int(rng.integers(2**63)) if noise else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSize:
    """The resize of evaluation: nothing random.

    Attributes:
        resize: how the picture is brought to the model's size.
        scenes: whether to rasterize what is annotated, on the resized picture; evaluation, which compares in file
            pixels, does without.
    """

    resize: Resize = field(default_factory=Resize)
    scenes: bool = True

    def __call__(self, record: Record, image: Tensor, rng: np.random.Generator | None = None) -> Sample:
        """Resize; ``rng`` is accepted so that it can stand where ``Augment`` does, and not used."""
        placement = Placement.whole(record.size, self.resize.target(record.size), antialias=self.resize.antialias)
        return Sample(
            key=record.key,
            image=placement.pixels(image),
            scene=scene_of(record, placement) if self.scenes else None,
            geometry=Geometry.resized(record.size, placement.size),
        )


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise InputError(f"the augmentation option {name} must be {what}, got {got}")
