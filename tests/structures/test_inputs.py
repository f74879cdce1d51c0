"""``Geometry``, ``Resize``, ``Images`` and ``Batch``: what goes into a model knows the way back to its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.structures import Batch, Geometry, Images, Record, Resize, Sample, Scene, Segments

PICTURES = [torch.full((3, 5, 40), 7, dtype=torch.uint8), torch.full((3, 33, 8), 9, dtype=torch.uint8)]


def test_geometry_holds_the_factor_from_file_to_model() -> None:
    geometry = Geometry.resized((100, 200), (50, 300))
    assert geometry.scale == (0.5, 1.5)
    assert Geometry.identity((3, 4)) == Geometry(valid=(3, 4), original=(3, 4), scale=(1.0, 1.0))


@pytest.mark.parametrize(
    ("resize", "size", "wanted"),
    [
        (Resize(short=800, long=1333), (480, 640), (800, 1067)),
        (Resize(short=800, long=1333), (427, 640), (800, 1199)),
        (Resize(short=800, long=1333), (300, 900), (444, 1333)),
        (Resize(short=800, long=1333, antialias=False), (480, 640), (800, 1066)),
        (Resize(scale=2.0), (33, 50), (66, 100)),
        (Resize(scale=2.0, long=64), (32, 64), (32, 64)),
        (Resize(), (33, 50), (33, 50)),
        (Resize(short=1), (5, 1000), (1, 200)),
        (Resize(long=10), (1, 1000), (1, 10)),
    ],
)
def test_target_sizes(resize: Resize, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert resize.target(size) == wanted


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 3000))
def test_a_target_keeps_to_its_limits(height: int, width: int, short: int, long: int) -> None:
    got = Resize(short=short, long=long).target((height, width))
    assert 1 <= min(got) <= max(short, 1)
    assert max(got) <= max(long, 1)
    assert max(got) == long or min(got) == short


def test_padding_is_at_the_bottom_and_right_and_zero() -> None:
    images = Images.pad(PICTURES)
    assert images.pixels.shape == (2, 3, 64, 64)
    assert images.pixels.dtype == torch.uint8
    assert images.sizes == ((5, 40), (33, 8))
    assert torch.equal(images.pixels[0, :, :5, :40], PICTURES[0])
    assert int(images.pixels[0].sum()) == 7 * 3 * 5 * 40
    assert Images.pad(PICTURES, multiple=1).pixels.shape == (2, 3, 33, 40)
    assert images.geometry[1] == Geometry.identity((33, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images.pad([]), "at least one picture"),
        (
            lambda: Images.pad([PICTURES[0], torch.zeros(1, 5, 5)]),
            r"picture 1 must have shape \(3, H, W\), got \(1, 5, 5\)",
        ),
        (lambda: Images.pad(PICTURES, [Geometry.identity((5, 40))]), r"one per picture \(2\), got 1"),
        (lambda: Images(pixels=torch.zeros(3, 5, 5), geometry=()), r"pixels must have shape \(B, 3, H, W\)"),
        (
            lambda: Images(pixels=torch.zeros(1, 3, 5, 5), geometry=(Geometry.identity((6, 5)),)),
            r"picture 0: valid \(6, 5\) must lie inside the padded \(5, 5\)",
        ),
    ],
)
def test_wrong_pictures_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def batch(**changes: Any) -> Batch:
    """Two pictures, one annotated."""
    scenes = (Scene(size=(5, 40), segments=Segments.empty((5, 40))), None)
    fields: dict[str, Any] = {"inputs": Images.pad(PICTURES), "scenes": scenes, "keys": ("a.png", "b.png")}
    return Batch(**{**fields, **changes})


def test_a_batch_moves_as_a_whole() -> None:
    moved = batch().to("meta")
    assert len(moved) == 2
    assert moved.inputs.pixels.device.type == "meta"
    assert moved.scenes[0] is not None
    assert moved.scenes[0].objects().labels.device.type == "meta"
    assert moved.scenes[1] is None


def test_truth_names_what_has_none() -> None:
    with pytest.raises(ValueError, match=r"these have none: b\.png"):
        batch().truth()
    scenes = (Scene(size=(5, 40)), Scene(size=(33, 8)))
    assert batch(scenes=scenes).truth() == scenes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": ("a.png",)}, r"keys must be one per input \(2\), got 1"),
        ({"scenes": (None,)}, r"scenes must be one per input \(2\), got 1"),
        (
            {"scenes": (None, Scene(size=(8, 33)))},
            r"b.png: the scene must lie on the picture's size \(33, 8\), got \(8, 33\)",
        ),
    ],
)
def test_a_batch_that_does_not_match_names_the_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch(**changes)


def test_a_record_has_one_of_everything_per_object() -> None:
    fields: dict[str, Any] = {
        "labels": np.zeros(2, np.int64),
        "shapes": (None, None),
        "boxes": np.zeros((2, 4), np.float32),
        "crowd": np.zeros(2, bool),
        "ids": np.arange(2),
        "areas": np.zeros(2),
    }
    common: dict[str, Any] = {"key": "a.png", "path": Path("a.png"), "size": (5, 6), "image_id": 3}
    assert len(Record(**common, **fields)) == 2
    for name in ("shapes", "boxes", "crowd", "ids", "areas"):
        with pytest.raises(ValueError, match=rf"a.png: {name} must be one per label \(2\), got 1"):
            Record(**common, **{**fields, name: fields[name][:1]})


def test_a_sample_has_its_scene_on_its_pixels() -> None:
    common: dict[str, Any] = {"key": "a.png", "image": PICTURES[0], "geometry": Geometry.identity((5, 40))}
    assert Sample(**common, scene=None).scene is None
    with pytest.raises(ValueError, match=r"a.png: the scene must lie on \(5, 40\), got \(40, 5\)"):
        Sample(**common, scene=Scene(size=(40, 5)))
    with pytest.raises(ValueError, match=r"a.png: image must have shape \(3, H, W\), got \(5, 40, 3\)"):
        Sample(**{**common, "image": PICTURES[0].permute(1, 2, 0)}, scene=None)
