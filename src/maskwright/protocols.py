"""Every contract of the system on one page.

file -> ``Record`` -> ``Sample`` -> ``Batch`` -> ``Model`` -> ``Raw`` -> ``loss`` | ``predict`` -> ``Scene`` -> metric,
picture or file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor, nn

from maskwright.structures import Batch, Geometry, Images, Record, Resize, Sample, Scene, Taxonomy


@runtime_checkable
class Model(Protocol):
    """A family's network: an ``nn.Module`` whose ``Raw`` output is the family's own private dataclass.

    ``forward`` never computes a loss and never branches on ``self.training`` for what it returns. ``scenes`` may only
    choose *what is computed* (Mask R-CNN samples proposals against the truth). Without ``scenes`` it is the exportable
    graph, detections included.

    ``task`` says what its scenes hold: instance (``segments``), semantic (``semantic``) or panoptic (``panoptic``, and
    ``segments`` with its ids, things and stuff). ``zoo.build`` sets it from the table.
    """

    taxonomy: Taxonomy
    task: str
    size_divisor: int
    resize: Resize
    score_threshold: float
    max_per_image: int

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Any:
        """Pixels in, the family's raw tensors out."""
        ...

    def loss(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, already weighted: the objective is their sum. ``raw`` is made with scenes."""
        ...

    def loss_counts(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over, 0 where nothing counts; so micro-batches can equal one large batch exactly."""
        ...

    def predict(self, raw: Any, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, objects sorted by falling score. ``raw`` is made without scenes."""
        ...


def task_of(model: object) -> str:
    """The task of a model, instance where it does not say."""
    return str(getattr(model, "task", "instance"))


class MaskLoss(Protocol):
    """A loss between mask logits and targets in [0, 1], both [N, h, w]; a scalar, zero (with a gradient) for N = 0."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...


class LearnsMasks(Model, Protocol):
    """A family whose mask loss an objective may exchange."""

    mask_loss: MaskLoss


@runtime_checkable
class Anneals(Protocol):
    """A model that computes something else as its training goes on, such as EoMT, which gives up its masks."""

    def anneal(self, share: float) -> None:
        """Told before each step which share of the training is over, from 0 to below 1."""
        ...


Proposer = Callable[[Images, tuple[int, int]], list[Tensor]]
"""Boxes [P, 4] of each image by falling score; (before NMS per level, after NMS) say how many."""


@runtime_checkable
class TwoStages(Model, Protocol):
    """A family whose first stage proposes the boxes that its second looks at, so that one can learn without the other.

    ``first_losses`` are the names of the first stage's losses, ``first_parts`` the modules that they reach,
    ``first_only`` those of them that nothing else uses. ``proposer``, if set, stands for the first stage's proposals.
    """

    first_losses: tuple[str, ...]
    first_parts: tuple[str, ...]
    first_only: tuple[str, ...]
    proposals_test: tuple[int, int]
    proposer: Proposer | None

    def first_stage(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The first stage's losses, and what each is a mean over."""
        ...

    def proposals(self, inputs: Images, numbers: tuple[int, int]) -> list[Tensor]:
        """What the first stage proposes."""
        ...


class Source(Protocol):
    """A data set: records without pixels, samples with them."""

    taxonomy: Taxonomy

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """What the annotation file says of image ``index``; reads no pixels."""
        ...

    def load(self, index: int) -> tuple[Record, Tensor]:
        """Image ``index`` as a record and its pixels, uint8 [3, H, W]: what an augmentation is given."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with its pixels and its scene, unresized."""
        ...


class Metric(Protocol):
    """A measure that is fed image by image and can be merged across shards in any order.

    ``weights`` says how often each image counts, in the order of ``keys``: what a bootstrap draws. See
    ``metrics._form.PerImage``, which measures inherit.
    """

    @property
    def keys(self) -> list[int | str | None]: ...

    def update(self, predicted: Scene, truth: Scene, key: int | str | None = None) -> None: ...

    def merge(self, other: Self) -> Self: ...

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]: ...


class Objective(Protocol):
    """What one training step minimizes. It is THE module that is compiled and distributed: it owns the model.

    An objective may also offer ``counted(batch) -> (losses, counts)``, the losses with what each is a mean over;
    without it, accumulated micro-batches weigh the same.
    """

    model: nn.Module

    def forward(self, batch: Batch) -> dict[str, Tensor]: ...

    def after_step(self, step: int) -> None: ...


class Sampler(Protocol):
    """The order of a training run as batches of (index, seed); ``state_dict`` makes it resume exactly."""

    def __iter__(self) -> Iterator[Sequence[tuple[int, int]]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Labeler(Protocol):
    """Someone who makes scenes without a full annotation: a teacher, a prompted model, activation maps."""

    def __call__(self, inputs: Images) -> list[Scene]: ...


class Importer(Protocol):
    """Reads checkpoints of one origin into a family's own parameter names."""

    origin: str

    def recognizes(self, state: Mapping[str, Any]) -> bool: ...

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]: ...
