"""``Recipe``: a published training with every number that it states, and what is done otherwise here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.augment.transforms import Augment
    from maskwright.train import TrainOptions

COCO = 118_287
"""Images of COCO train2017."""

COCO_ANNOTATED = 117_266
"""Those with at least one object that is not a crowd, which is what most trainings leave: 1021 have none."""

ADE = 20_210
"""Images of ADE20K's training set."""

CITYSCAPES = 2_975
"""Images of Cityscapes' training set with fine labels."""

SHORT_640_800: Mapping[str, Any] = {"hflip": 0.5, "short": (640, 672, 704, 736, 768, 800), "long": 1333}
"""Detectron2's and mmdetection's multi-scale training."""

SHORT_480_800: Mapping[str, Any] = {"hflip": 0.5, "short": tuple(range(480, 801, 32)), "long": 1333}
"""DETR's multi-scale training, without its crop."""

SSD_COLORS: Mapping[str, Any] = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}
"""The colors of detectron2's ``COLOR_AUG_SSD`` and mmsegmentation's ``PhotoMetricDistortion``: 32 of 255, halves, and
18 of OpenCV's 180 units of hue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A published training. ``maskwright train --recipe NAME`` runs it; any flag given beside goes first.

    Attributes:
        name: what it is called.
        model: of the zoo's table.
        source: where the numbers are published: paper and section, or configuration file.
        train: fields of ``TrainOptions``. ``batch_size`` is what one device of the publication saw, ``accumulate``
            the number of its devices: their product is the published batch, whatever it is spread over here.
        augment: fields of ``Augment``.
        options: keyword arguments of the model's builder.
        resize: (short, long) in pixels at test time; ``None`` keeps the model's.
        max_per_image: objects an image that are evaluated.
        images: how many images an epoch of the publication has; epochs: how many of them it trains.
        published: the figures it reached, on COCO val2017 unless the recipe's file says otherwise.
        search: field of ``TrainOptions`` or ``Augment`` -> where ``maskwright tune`` looks, see ``recipes.search``.
        otherwise: what is done otherwise here, and may cost figures.
    """

    name: str
    model: str
    source: str
    train: Mapping[str, Any]
    augment: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resize: tuple[int, int] | None = None
    max_per_image: int = 100
    images: int = COCO_ANNOTATED
    epochs: float
    published: Mapping[str, float]
    search: Mapping[str, str] = field(default_factory=dict[str, str])
    otherwise: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Images in an optimizer step."""
        return int(self.train["batch_size"]) * int(self.train.get("accumulate", 1))

    def train_options(self, changes: Mapping[str, Any] | None = None, *, processes: int = 1) -> TrainOptions:
        """The options of a run.

        Args:
            changes: fields that the user gave. Epochs or minutes without steps take the place of the published steps.
            processes: what the batch is spread over; each accumulates so much less.

        Raises:
            InputError: the batch cannot be spread so, or an option is out of range.
        """
        from maskwright.train import TrainOptions

        given = dict(changes or {})
        merged = {**self.train, **given}
        if "steps" not in given and ("epochs" in given or "minutes" in given):
            merged["steps"] = 0
        if "accumulate" not in given:
            merged["accumulate"] = self._spread(int(merged["batch_size"]), processes)
        return TrainOptions(**merged)

    def augmentation(self, changes: Mapping[str, Any] | None = None) -> Augment:
        """How pictures are changed, with the fields that the user gave."""
        from maskwright.data.augment.transforms import Augment

        return Augment(**{**self.augment, **(changes or {})})

    def model_options(self) -> dict[str, Any]:
        """Keyword arguments for ``zoo.build``."""
        from maskwright.structures import Resize

        sizes = {} if self.resize is None else {"resize": Resize(short=self.resize[0], long=self.resize[1])}
        return {**self.options, **sizes}

    def _spread(self, micro: int, processes: int) -> int:
        if self.batch % (micro * processes):
            raise InputError(
                f"the batch of {self.name} has {self.batch} images, which {processes} processes with --batch-size "
                f"{micro} cannot share. Take a batch size whose product with the processes divides {self.batch}, or "
                "give --accumulate too, for another batch."
            )
        return self.batch // (micro * processes)


def steps_of(epochs: float, images: int, batch: int) -> int:
    """Optimizer steps of so many epochs, the last batch of an epoch being smaller."""
    return round(epochs * -(-images // batch))


def falling(steps: int, *at: int, warmup: int, rate: float) -> dict[str, Any]:
    """A step schedule as publications write it: the rate falls tenfold at each of ``at``; all in steps."""
    return {
        "steps": steps,
        "learning_rate": rate,
        "schedule": "step",
        "milestones": tuple(place / steps for place in at),
        "decay": 0.1,
        "warmup": warmup / steps,
    }


def detectron(steps: int, *at: int, rate: float = 0.02, warmup: int = 1000) -> dict[str, Any]:
    """What detectron2's configurations share: SGD, 8 GPUs with 2 images each (``detectron2/config/defaults.py``)."""
    sgd = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 2, "accumulate": 8}
    return {**falling(steps, *at, warmup=warmup, rate=rate), **sgd, "precision": "32"}


MSRA = "ImageNet weights of the backbone are timm's, not MSRA's; so the stride lies in the 3x3 convolution."
NO_DECAY = "Biases and norms do not decay; in the original biases do."
NONE_DECAYS = "Biases, norms and embeddings do not decay; in the original all do."
TWICE = "Biases have the rate of all others; in the original twice that, and no decay as here."
FIXED = "Scales and shifts of the backbone's batch norms are fixed; in the original they learn behind the first stage."
CROP = (
    "Pictures are only resized; in the original half of them are first resized to short sides of 400, 500 or 600 and "
    "cropped to sides of 384 to 600."
)
COLORS = (
    "Colors change in every picture, brightness by a factor; in the original each change has a chance of one half, "
    "and brightness is a shift."
)
POLY = "The polynomial begins behind the warm-up; in the original it runs below it from the first step."
ONE_CLASS = "Crops may show one class only; in the original they are drawn again where one fills more than 3/4."
RATES: Mapping[str, str] = {
    "learning_rate": "5e-4..2e-1:log",
    "weight_decay": "1e-5..1e-3:log",
    "warmup": "5e-4..0.1:log",
}
"""The marks of SGD recipes."""
ADAM_RATES: Mapping[str, str] = {"learning_rate": "1e-5..1e-2:log", "weight_decay": "1e-4..1e-1:log", "ema": "0,0.999"}
"""The marks of AdamW recipes."""
