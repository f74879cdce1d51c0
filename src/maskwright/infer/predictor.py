"""Pictures in, scenes out: ``predict`` for some pictures, ``stream`` for folders of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from maskwright.data.io import read_image, to_picture
from maskwright.data.rasters import Raster, open_raster
from maskwright.errors import InputError
from maskwright.infer.ready import Ready, Sizing, prepare, require, sizing
from maskwright.infer.stitch import Stitcher
from maskwright.infer.tiles import Tiles, tile_by_tile
from maskwright.nn.modes import autocast, evaluating
from maskwright.ops.hardware import choose_device, choose_precision
from maskwright.protocols import Model, task_of
from maskwright.structures import Images, Resize, Scene

Stage = Callable[[str], AbstractContextManager[Any]]
"""Opens one of ``STAGES``; what happens inside of it is that stage's work."""

STAGES = ("decode", "preprocess", "network", "postprocess")
"""File to pixels; resized, padded and on the device; through the network; from its tensors to a scene with masks."""


def _unwatched(_: str) -> AbstractContextManager[Any]:
    return nullcontext()


MOST_SHOWN = 25_000_000
"""Pixels of a picture that ``stream`` still gives beside its scene where it is computed in tiles."""


class Predicted(NamedTuple):
    """One answer of ``stream``: the file, its pixels (uint8 [3, H, W], RGB) and its scene, or the error instead."""

    path: Path
    picture: Tensor | None
    scene: Scene | InputError


def predict(
    model: Model,
    images: Any,
    *,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "auto",
) -> Scene | list[Scene]:
    """Find the objects of one picture or of many.

    Args:
        model: what ``load`` or ``build`` returned; its training mode and limits are as before after the call.
        images: a path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [3, H, W] or [H, W]; or an
            iterable (or a stack, one axis more) of these.
        resize: ``"default"`` as the model was trained, ``None`` for the picture's own size, or ``(short, long)``: the
            shorter side in pixels and the ceiling of the longer one.
        score_threshold: objects below it are left out, in [0, 1]; ``None`` keeps the model's.
        max_per_image: at most so many objects a picture; ``None`` keeps the model's.
        batch_size: pictures computed at once.
        device: where to compute; the model moves there. ``None`` is where it is.
        precision: ``"auto"`` (bf16 where the hardware has it), ``"32"`` or ``"bf16"``.

    Returns:
        For one picture its ``Scene``, for many a list, in order: on the host, in the pictures' own pixels, objects
        sorted by falling score.

    Raises:
        InputError: a file that cannot be read or another input that is no picture, or an option out of range.
    """
    options = _Options.of(model, resize, score_threshold, max_per_image, batch_size, device, precision)
    if not _is_many(images):
        return _infer(model, [prepare(to_picture(images), options.resize)], options)[0]
    waiting: Iterator[Any] = iter(images)
    scenes: list[Scene] = []
    while chunk := list(islice(waiting, batch_size)):
        scenes += _infer(model, [prepare(to_picture(image), options.resize) for image in chunk], options)
    return scenes


def stream(
    model: Model,
    paths: Iterable[str | Path],
    *,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "auto",
    workers: int = 2,
    tiles: Tiles | None = None,
) -> Iterator[Predicted]:
    """Find the objects of any number of files, one after the other, in order.

    Files are decoded and resized by ``workers`` threads while the model computes; at most ``batch_size + workers``
    pictures wait at any moment. A file that cannot be read, or does not fit into memory, gives an ``InputError`` in
    place of its scene and stops nothing. Options are those of ``predict``; they are checked at once, not on the first
    answer.

    With ``tiles`` pictures are read by windows and computed tile by tile (``predict_raster``), ``batch_size`` tiles at
    once; an answer then has the picture only if it has at most ``MOST_SHOWN`` pixels.

    Raises:
        InputError: an option is out of range.
    """
    options = _Options.of(model, resize, score_threshold, max_per_image, batch_size, device, precision)
    if tiles is not None:
        return (_tiled(model, Path(path), tiles, options, max(1, workers)) for path in paths)
    return _stream(model, (Path(path) for path in paths), options, max(1, workers))


def one_by_one(
    model: Model,
    *,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "auto",
) -> Callable[[Path, Stage], Scene]:
    """What ``stream`` does with a file, in this thread and stage by stage, for those who measure it.

    The options are those of ``predict``. What comes back takes a file and a ``Stage``, and raises ``InputError`` where
    the file cannot be read.

    Raises:
        InputError: an option is out of range.
    """
    options = _Options.of(model, resize, score_threshold, max_per_image, 1, device, precision)

    def step(path: Path, stage: Stage) -> Scene:
        file = _read(path, options.resize, stage)
        if file.error is not None:
            raise file.error
        return _infer(model, _pixels([file]), options, stage)[0]

    return step


def predict_raster(
    model: Model,
    raster: Raster,
    tiles: Tiles,
    *,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "auto",
    workers: int = 2,
) -> Scene:
    """Find the objects of a picture that is read by windows, tile by tile (``infer.tiles``, ``infer.stitch``).

    Options are those of ``predict`` for each tile; ``max_per_image``, if given, holds for the whole picture too.

    Raises:
        InputError: a window cannot be read, or an option is out of range.
    """
    options = _Options.of(model, resize, score_threshold, max_per_image, batch_size, device, precision)
    return _raster(model, raster, tiles, options, workers)


# ---- options --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Options:
    resize: Resize | None
    settings: dict[str, float | int]
    batch_size: int
    device: torch.device
    precision: str

    @classmethod
    def of(
        cls,
        model: Model,
        resize: Sizing,
        score_threshold: float | None,
        max_per_image: int | None,
        batch_size: int,
        device: torch.device | str | None,
        precision: str,
    ) -> _Options:
        settings: dict[str, float | int] = {}
        if score_threshold is not None:
            require(0 <= score_threshold <= 1, "score_threshold", "a number from 0 to 1", score_threshold)
            settings["score_threshold"] = float(score_threshold)
        if max_per_image is not None:
            require(max_per_image >= 1, "max_per_image", "at least 1", max_per_image)
            settings["max_per_image"] = int(max_per_image)
        require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        require(str(precision) in ("auto", "32", "bf16"), "precision", "auto, 32 or bf16", precision)
        chosen = _device(model, device)
        return cls(sizing(model.resize, resize), settings, batch_size, chosen, choose_precision(str(precision), chosen))


def _device(model: Model, wanted: torch.device | str | None) -> torch.device:
    if wanted is None:
        first = next(cast(nn.Module, model).parameters(), None)
        return torch.device("cpu") if first is None else first.device
    return choose_device(str(wanted))


# ---- one step -------------------------------------------------------------------------------------------------------


def _infer(model: Model, ready: Sequence[Ready], options: _Options, stage: Stage = _unwatched) -> list[Scene]:
    """One batch through the model; scenes on the host."""
    if not ready:
        return []
    network = cast(nn.Module, model)
    network.to(options.device)
    with stage("preprocess"):
        inputs = Images.pad([r.pixels for r in ready], [r.geometry for r in ready], multiple=model.size_divisor)
        there = inputs.to(options.device)
    with torch.no_grad(), evaluating(network, options.settings):
        with stage("network"), autocast(options.device, options.precision):
            raw = network(there)
        with stage("postprocess"):
            return [scene.to("cpu") for scene in model.predict(raw, inputs.geometry)]


# ---- many files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    picture: Tensor | None = None
    ready: Ready | None = None
    error: InputError | None = None


def _raster(model: Model, raster: Raster, tiles: Tiles, options: _Options, workers: int) -> Scene:
    def look(pictures: list[Tensor]) -> list[Scene]:
        return _infer(model, [prepare(picture, options.resize) for picture in pictures], options)

    stitcher = Stitcher(raster.size, task_of(model), model.taxonomy)
    tile_by_tile(raster, tiles, look, stitcher, batch_size=options.batch_size, workers=workers)
    limit = options.settings.get("max_per_image")
    return stitcher.scene(None if limit is None else int(limit))


def _tiled(model: Model, path: Path, tiles: Tiles, options: _Options, workers: int) -> Predicted:
    try:
        raster = open_raster(path)
        scene = _raster(model, raster, tiles, options, workers)
        shown = raster.size[0] * raster.size[1] <= MOST_SHOWN
        return Predicted(path, raster.read(0, 0, *raster.size) if shown else None, scene)
    except InputError as error:
        return Predicted(path, None, error)
    except OSError as error:
        return Predicted(path, None, InputError(f"cannot read {path}: {error.strerror or error}."))
    except (MemoryError, RuntimeError) as error:
        return Predicted(path, None, _too_large(path, error))


def _read(path: Path, resize: Resize | None, stage: Stage = _unwatched) -> _File:
    try:
        with stage("decode"):
            picture = read_image(path)
        with stage("preprocess"):
            return _File(path, picture, prepare(picture, resize))
    except InputError as error:
        return _File(path, error=error)
    except OSError as error:
        return _File(path, error=InputError(f"cannot read {path}: {error.strerror or error}."))
    except (MemoryError, RuntimeError) as error:
        return _File(path, error=_too_large(path, error))


def _stream(model: Model, paths: Iterator[Path], options: _Options, workers: int) -> Iterator[Predicted]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future[_File]] = deque()
    try:
        while True:
            for path in islice(paths, options.batch_size + workers - len(waiting)):
                waiting.append(pool.submit(_read, path, options.resize))
            if not waiting:
                return
            files = [waiting.popleft().result() for _ in range(min(options.batch_size, len(waiting)))]
            yield from _answer(model, files, options)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(model: Model, files: list[_File], options: _Options) -> Iterator[Predicted]:
    """Infer a batch of files; where memory is short, one by one, so that only the pictures at fault are lost."""
    good = [file for file in files if file.ready is not None]
    try:
        found = dict(zip((id(file) for file in good), _infer(model, _pixels(good), options), strict=True))
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        if len(files) > 1:
            for file in files:
                yield from _answer(model, [file], options)
            return
        files = [replace(file, error=_too_large(file.path, error)) for file in files]
        found = {}
    for file in files:
        answer = file.error if file.error is not None else found[id(file)]
        yield Predicted(file.path, None if isinstance(answer, InputError) else file.picture, answer)


def _pixels(files: list[_File]) -> list[Ready]:
    return [file.ready for file in files if file.ready is not None]


def _is_memory(error: BaseException) -> bool:
    # Host allocations fail with a plain RuntimeError; only its words tell it apart.
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in words or "out of memory" in words


def _too_large(path: Path, error: BaseException) -> InputError:
    if not _is_memory(error):
        raise error
    return InputError(f"{path}: not enough memory for this picture. Give a smaller resize, or a smaller batch_size.")


def _is_many(images: Any) -> bool:
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim == 4
    return isinstance(images, Iterable) and not isinstance(images, (str, os.PathLike))
