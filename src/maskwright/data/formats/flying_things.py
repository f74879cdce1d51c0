"""FlyingThings3D (and Monkaa, Driving in the same form): the object of every pixel.

``frames_cleanpass`` or ``frames_finalpass`` hold ``[TRAIN|TEST/A|B|C/]SCENE/left|right/NNNN.png`` (or ``.webp``),
``object_index`` the same tree of ``.pfm`` files (or 16-bit PNGs) with an object's number in every pixel. There are no
classes: all are ``object``. Number 0 is background. A sequence is one scene seen by one camera; the object's number is
its track, the file's number the frame; ``TRAIN`` and ``TEST`` are the splits ``train`` and ``test``. Disparity and flow
have no place in a record: they lie at the same relative path below ``disparity`` and ``optical_flow``.

Source: Mayer et al., "A Large Dataset to Train Convolutional Networks for Disparity, Optical Flow, and Scene Flow
Estimation" (CVPR 2016), "Data Format" at https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import Taxonomy

_PASSES = ("frames_cleanpass", "frames_finalpass")
_TRUTH = "object_index"
_CLASS = "object"
_MOST = 1 << 28  # pixels


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``object_index`` and one of the passes."""
    return (path / _TRUTH).is_dir() and any((path / name).is_dir() for name in _PASSES)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all scenes of the clean pass, or of the final one where there is no other.

    Args:
        path: the folder that holds ``object_index``.
        images: the folder of a pass.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, object numbers are not whole.
    """
    pictures_at = maps.first_existing(path / name for name in _PASSES) if images is None else images
    if pictures_at is None or not (path / _TRUTH).is_dir():
        raise InputError(f"{path} must hold {_TRUTH} and {' or '.join(_PASSES)}.")
    build = Builder(path, "flying_things", Taxonomy(names=(_CLASS,)), strict=strict)
    labels = maps.files(path / _TRUTH, (".pfm", *maps.MAPS))
    for name, file, found in maps.paired(build, maps.files(pictures_at), labels, WHOLE):
        size = image_size(file)
        sequence = name.rpartition("/")[0] or None
        split = {"TRAIN": "train", "TEST": "test"}.get(name.partition("/")[0], WHOLE)
        build.image(f"{name}{file.suffix}", file, size, split=split, sequence=sequence, frame=maps.number_of(file.stem))
        if found is not None:
            numbers = read_indices(found, size) if found.suffix.lower() == ".pfm" else maps.read_flat(found, size)
            maps.add_objects(
                build, numbers, lambda value: maps.Meaning(_CLASS, track=value) if value > 0 else None, str(found)
            )
    made = build.done()
    kept = {name: source for name, source in made.splits.items() if len(source) or name != WHOLE}
    return Dataset(format=made.format, taxonomy=made.taxonomy, splits=kept or made.splits, dropped=made.dropped)


def read_indices(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The whole numbers of a one-channel PFM, int64 [H, W], the upper row first.

    Portable float map: ``Pf``, width and height, a scale whose sign gives the byte order (negative: little endian),
    then float32 rows from the bottom up (https://www.pauldebevec.com/Research/HDR/PFM).

    Raises:
        InputError: the file is missing, of another form or size, truncated, or its values are not whole numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    head = data[:200].split(b"\n", 3)
    try:
        if head[0].strip() != b"Pf":
            raise ValueError("it must begin with Pf: one channel")
        width, height = (int(word) for word in head[1].split())
        scale = float(head[2])
        if not 0 < width * height <= _MOST or width < 0 or scale == 0 or not np.isfinite(scale):
            raise ValueError(f"it declares {width} x {height} pixels, scale {scale}")
        at = sum(len(line) + 1 for line in head[:3])
        if len(data) - at < 4 * width * height:
            raise ValueError("it ends too early")
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"cannot read the map {path}: {error}. Is the file complete?") from error
    if size is not None and size != (height, width):
        raise InputError(
            f"{path}: the map must be as large as its picture, {size[0]}x{size[1]} (height x width), "
            f"got {height}x{width}"
        )
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", width * height, at).reshape(height, width)[::-1]
    if not np.isfinite(values).all() or (np.abs(values) > 1 << 24).any() or (values != np.round(values)).any():
        raise InputError(f"{path}: object numbers must be whole and below 2^24.")
    return values.astype(np.int64)
