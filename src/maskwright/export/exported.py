"""An exported program as a model: what ``predict`` and ``evaluate`` use in place of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from maskwright.errors import InputError
from maskwright.export.layout import Layout
from maskwright.nn.modes import evaluating
from maskwright.protocols import Model, task_of
from maskwright.structures import Batch, Geometry, Images, Scene


class Runtime(Protocol):
    """Runs a program on the host's tensors."""

    def __call__(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Pixels float32 [B, 3, H, W] in 0..255 and sizes int64 [B, 2] to the program's outputs."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """What a program takes: pictures at once (``None``: any number), and the padded sides in pixels."""

    batch: int | None
    least: int
    most: int


class ExportedModel(nn.Module):
    """A model whose ``forward`` is a program of some runtime; ``predict`` is the family's own.

    It has no parameters and cannot learn. ``score_threshold`` may be raised and ``max_per_image`` lowered; the
    program's own limits stay in force.

    Args:
        reader: the model's family, built without weights; its ``predict`` reads what the program returns.
        start: makes the runtime for a device.
        layout, form: of the program. card: what is known about the weights.
    """

    report = None

    def __init__(
        self,
        reader: Model,
        start: Callable[[torch.device], Runtime],
        layout: Layout,
        form: Form,
        card: dict[str, Any],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.taxonomy, self.task = reader.taxonomy, task_of(reader)
        self.size_divisor, self.resize = reader.size_divisor, reader.resize
        self.score_threshold, self.max_per_image = reader.score_threshold, reader.max_per_image
        self.layout, self.form, self.card = layout, form, card
        self._reader = (reader,)  # not a part: it has nothing that could be moved or saved
        self._limits = (reader.score_threshold, reader.max_per_image)
        self._start, self._device = start, device
        self.runtime = start(self._device)
        self.eval()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move to another device: the runtime is started anew there."""
        wanted = kwargs.get("device", args[0] if args else None)
        if isinstance(wanted, (str, torch.device)) and torch.device(wanted) != self._device:
            self._device = torch.device(wanted)
            self.runtime = self._start(self._device)
        return self

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> list[Any]:
        """The family's ``Raw`` for each run of the program.

        Raises:
            InputError: the pictures are larger than the program takes.
        """
        if scenes is not None:
            raise ValueError("an exported model cannot learn: forward takes no scenes")
        height, width = inputs.pixels.shape[-2:]
        if max(height, width) > self.form.most:
            raise InputError(
                f"this artifact takes pictures up to {self.form.most} pixels a side once resized and padded, got "
                f"{height} x {width}. Give a smaller --resize, or export with a larger --most."
            )
        step = len(inputs) if self.form.batch is None else self.form.batch
        pixels, sizes = inputs.pixels.cpu().float(), torch.tensor(inputs.sizes, dtype=torch.int64)
        parts = [self._fitted(pixels[i : i + step], sizes[i : i + step]) for i in range(0, len(pixels), step)]
        return [self.layout.build(self.runtime(*_filled(*part, step))) for part in parts]

    def _fitted(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Some of the pictures, with no more padding than they need among themselves."""
        divisor, (height, width) = self.size_divisor, pixels.shape[-2:]
        need_y, need_x = (-(-int(side) // divisor) * divisor for side in sizes.amax(0))
        need_y, need_x = max(need_y, self.form.least), max(need_x, self.form.least)
        pixels = pixels[:, :, :need_y, :need_x]
        return pad(pixels, (0, max(0, need_x - width), 0, max(0, need_y - height))), sizes

    def predict(self, raw: list[Any], geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, objects by falling score.

        Raises:
            InputError: a ``score_threshold`` below the program's.
        """
        least, most = self._limits
        if self.score_threshold < least or self.max_per_image > most:
            raise InputError(
                f"this artifact was exported with score_threshold {least:g} and max_per_image {most}; it can be asked "
                f"for less, not for more, got {self.score_threshold:g} and {self.max_per_image}. Export it again."
            )
        reader: Any = self._reader[0]
        step = len(geometry) if self.form.batch is None else self.form.batch
        settings = {"score_threshold": self.score_threshold, "max_per_image": self.max_per_image}
        scenes: list[Scene] = []
        with torch.no_grad(), evaluating(cast(nn.Module, reader), settings):
            for i, part in enumerate(raw):
                views = list(geometry[i * step : (i + 1) * step])
                filled = [*views, *[views[-1]] * (step - len(views))]
                scenes += reader.predict(part, filled)[: len(views)]
        return [self._limited(scene) for scene in scenes]

    def _limited(self, scene: Scene) -> Scene:
        """Without what the asked limits leave out: the program's own, which it was made with, may be wider."""
        segments = scene.segments
        if self.task != "instance" or segments is None or segments.scores is None:
            return scene
        kept = torch.nonzero(segments.scores >= self.score_threshold).flatten()[: self.max_per_image]
        return scene if len(kept) == len(segments) else replace(scene, segments=segments[kept])

    def loss(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Raises: an exported model has nothing to learn with."""
        raise ValueError("an exported model cannot learn; train the model that it was made of")

    loss_counts = loss


def _filled(pixels: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A last batch that is too small, filled with its last picture."""
    missing = count - len(pixels)
    if missing == 0:
        return pixels, sizes
    return torch.cat((pixels, pixels[-1:].expand(missing, -1, -1, -1))), torch.cat(
        (sizes, sizes[-1:].expand(missing, -1))
    )
