"""Large pictures in overlapping tiles: where tiles lie, and the models and pictures that go through them.

    scene = predict_raster(model, open_raster("field.tif"), Tiles(size=1024, overlap=256))      # infer.predictor

Every tile is a picture of its own to the model, resized as the model resizes pictures; ``infer.stitch`` puts together
what they say. Objects smaller than the overlap are seen whole by some tile. Wrapped models (``infer.looks``) go through
tiles as any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskwright.data.rasters import InMemory, Raster
from maskwright.errors import InputError
from maskwright.infer.ready import Sizing, prepare, sizing
from maskwright.infer.stitch import Stitcher, Tile
from maskwright.nn.modes import evaluating
from maskwright.protocols import Model, task_of
from maskwright.structures import Batch, Geometry, Images, Resize, Scene

USUAL = 1024
"""Side in pixels of an automatic tile where the model does not resize to a side of its own."""

_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a picture is cut.

    Attributes:
        size: side of a tile in pixels; smaller pictures are one tile.
        overlap: pixels that neighbors share at least, below half of ``size``.

    Raises:
        InputError: a number out of range.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 1 << 16 or not 0 <= 2 * self.overlap < self.size:
            raise InputError(
                "tiles must have 16 to 65536 pixels a side and overlap by 0 to less than half of it, got "
                f"{self.size},{self.overlap}."
            )

    @classmethod
    def parse(cls, text: str, resize: Resize) -> Tiles:
        """``auto``, ``SIZE`` or ``SIZE,OVERLAP``; the overlap is a quarter where it is not said.

        ``auto`` is the side that ``resize``, the model's, brings pictures to, so that a pixel stays a pixel; where it
        has a fixed scale, what becomes ``USUAL`` pixels.

        Raises:
            InputError: anything else.
        """
        if text == "auto":
            side = resize.short if resize.short is not None else round(USUAL / resize.scale)
            side = min(max(side, 64), 1 << 14)
            return cls(side, side // 4)
        try:
            size, *rest = (int(part) for part in text.split(","))
        except ValueError:
            size, rest = 0, [0, 0]
        if len(rest) > 1 or size < 1:
            raise InputError(f"tiles are auto, SIZE or SIZE,OVERLAP in pixels, got {text!r}.")
        return cls(size, rest[0] if rest else size // 4)

    def over(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of a picture of ``size`` (H, W), row by row; all of one size, cores that fill the picture."""
        down, across = (_axis(side, self.size, self.overlap) for side in size)
        return [
            Tile((top, left, high, wide), (y, x, below - y, right - x))
            for top, high, y, below in down
            for left, wide, x, right in across
        ]


def _axis(length: int, tile: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Along one axis each tile's start and length, and its core's start and end; starts are spread evenly."""
    if length <= tile:
        return [(0, length, 0, length)]
    number = -(-(length - overlap) // (tile - overlap))
    starts = [k * (length - tile) // (number - 1) for k in range(number)]
    middles = [(a + tile + b) // 2 for a, b in pairwise(starts)]
    return [
        (start, tile, begin, end) for start, begin, end in zip(starts, [0, *middles], [*middles, length], strict=True)
    ]


def tile_by_tile(
    raster: Raster,
    tiles: Tiles,
    look: Callable[[list[Tensor]], list[Scene]],
    stitcher: Stitcher,
    *,
    batch_size: int = 1,
    workers: int = 2,
) -> Stitcher:
    """Read every tile, look at it, stitch it in; threads read ahead, at most ``batch_size + workers`` tiles wait.

    Args:
        look: pictures uint8 [3, h, w] to their scenes, in their pixels.
    """
    order = iter(tiles.over(raster.size))
    waiting: deque[tuple[Tile, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="windows") as pool:
        try:
            while True:
                for tile in islice(order, batch_size + max(1, workers) - len(waiting)):
                    waiting.append((tile, pool.submit(raster.read, *tile.window)))
                if not waiting:
                    return stitcher
                ready = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
                scenes = look([picture.result() for _, picture in ready])
                for (tile, _), scene in zip(ready, scenes, strict=True):
                    stitcher.add(tile, scene)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Tiled(nn.Module):
    """A model that sees pictures in tiles, in a model's place (``evaluate`` uses it as any other).

    ``max_per_image`` holds for a tile and for the picture where it is set; as it is, the model's own limit holds for
    each tile, and pictures have as many objects as there are.

    Args:
        model: any; it sees one tile at a time.
        tiles: how pictures are cut.
        resize: how the model's tiles are resized; ``"default"`` is its own way.
    """

    size_divisor = 1

    def __init__(self, model: Model, tiles: Tiles, *, resize: Sizing = "default", batch_size: int = 1) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)
        self.tiles, self.batch_size = tiles, batch_size
        self.sizing = sizing(model.resize, resize)
        self.taxonomy, self.task, self.resize = model.taxonomy, task_of(model), Resize()
        self.score_threshold, self.max_per_image = float(model.score_threshold), _UNLIMITED

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> list[Scene]:
        """The scenes of pictures, in file pixels; ``scenes`` change nothing."""
        where = inputs.pixels.device
        out: list[Scene] = []
        for pixels, view in zip(inputs.pixels, inputs.geometry, strict=True):
            if view.valid != view.original:
                raise InputError("pictures that are seen in tiles must come in the size of their file.")
            picture = pixels[:, : view.valid[0], : view.valid[1]].cpu()
            out.append(self._scene(InMemory(picture), where))
        return out

    def _scene(self, raster: Raster, where: torch.device) -> Scene:
        model = cast(Model, self.model)
        limited = self.max_per_image < _UNLIMITED
        settings: dict[str, float] = {"score_threshold": self.score_threshold}
        if limited:
            settings["max_per_image"] = self.max_per_image

        def look(pictures: list[Tensor]) -> list[Scene]:
            ready = [prepare(picture, self.sizing) for picture in pictures]
            images = Images.pad([r.pixels for r in ready], [r.geometry for r in ready], multiple=model.size_divisor)
            with torch.no_grad(), evaluating(self.model, settings):
                raw = self.model(images.to(where))
                with torch.autocast(where.type, enabled=False):
                    return [scene.to("cpu") for scene in model.predict(raw, images.geometry)]

        stitcher = Stitcher(raster.size, self.task, self.taxonomy)
        tile_by_tile(raster, self.tiles, look, stitcher, batch_size=self.batch_size)
        return stitcher.scene(self.max_per_image if limited else None)

    def loss(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Tiles are not trained; always an ``InputError``."""
        raise InputError("a model that sees tiles cannot be trained. Train it on crops.")

    def loss_counts(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """As ``loss``."""
        return self.loss(raw, batch)

    def predict(self, raw: list[Scene], geometry: Sequence[Geometry]) -> list[Scene]:
        """What ``forward`` found."""
        return raw
