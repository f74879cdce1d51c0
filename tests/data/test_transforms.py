"""Augmentation: what is drawn is applied to everything alike; equal generators give equal samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from maskwright.data.augment.photometric import Photometric
from maskwright.data.augment.transforms import Augment, ToSize
from maskwright.data.formats.coco import read_coco
from maskwright.errors import InputError
from maskwright.structures import Resize
from tests.data.make import record, runs
from tests.shared import shared

GRAY = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
COLOR = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8))

EVERYTHING = Augment(
    vflip=0.5,
    quarter_turns=True,
    scale=(0.7, 2.7),
    crop=(64, 48),
    keep_whole=True,
    crop_on_object=0.5,
    min_visible=0.1,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    gamma=(0.7, 1.4),
    invert=0.3,
    grayscale=0.2,
    blur=0.3,
    noise=0.3,
)


def picture() -> tuple[torch.Tensor, np.ndarray]:
    """A picture that is white exactly where one of two objects is."""
    mask = np.zeros((2, 90, 110), bool)
    mask[0, 10:50, 20:60] = True
    mask[0, 20:30, 30:40] = False
    mask[1, 60:85, 70:105] = True
    return torch.from_numpy(np.repeat(mask.any(axis=0)[None] * np.uint8(255), 3, axis=0)), mask


def test_masks_follow_the_pixels() -> None:
    image, mask = picture()
    made = record((90, 110), [runs(m) for m in mask])
    geometric = Augment(vflip=0.5, quarter_turns=True, scale=(0.7, 2.7), crop=(64, 48), keep_whole=True)
    sizes = set()
    for seed in range(60):
        sample = geometric(made, image, np.random.default_rng(seed))
        assert sample.scene is not None
        segments = sample.scene.objects()
        assert segments.masks is not None
        assert segments.boxes is not None
        seen = segments.masks.dense().any(0) if len(segments) else torch.zeros(sample.scene.size, dtype=torch.bool)
        assert (seen != (sample.image[0] >= 128)).float().mean() < 0.02
        assert torch.equal(segments.boxes, segments.masks.boxes())
        assert (segments.masks.area() > 0).all()
        assert sample.geometry.original == (90, 110)
        assert sample.geometry.valid == sample.scene.size
        sizes.add(sample.scene.size)
    assert (64, 48) in sizes


def test_equal_generators_give_equal_samples() -> None:
    image, mask = picture()
    made = record((90, 110), [runs(m) for m in mask])
    before = image.clone()
    different = set()
    for seed in range(12):
        one, other = (EVERYTHING(made, image, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one.image, other.image)
        assert one.scene is not None
        assert other.scene is not None
        assert one.scene.objects().labels.tolist() == other.scene.objects().labels.tolist()
        different.add(one.image.numpy().tobytes())
    assert len(different) == 12
    assert torch.equal(image, before)


def test_nothing_changes_by_default_but_the_mirror() -> None:
    image, mask = picture()
    made = record((90, 110), [runs(m) for m in mask])
    sample = Augment(hflip=0.0)(made, image, np.random.default_rng(0))
    assert torch.equal(sample.image, image)
    mirrored = Augment(hflip=1.0)(made, image, np.random.default_rng(0))
    assert torch.equal(mirrored.image, image.flip(2))
    assert mirrored.scene is not None
    assert torch.equal(mirrored.scene.objects().masks.dense(), torch.from_numpy(mask).flip(2))  # type: ignore[union-attr]


def test_sizes_drawn() -> None:
    image, mask = picture()
    made = record((90, 110), [runs(m) for m in mask])

    def drawn(augment: Augment) -> list[tuple[int, ...]]:
        return [tuple(augment(made, image, np.random.default_rng(s)).image.shape[1:]) for s in range(30)]

    assert set(drawn(Augment(short=(45, 180), long=200))) == {(45, 55), (164, 200)}
    assert set(drawn(Augment(scale=(2.0, 2.0)))) == {(180, 220)}
    jitter = drawn(Augment(fit=True, scale=(0.1, 2.0), crop=(50, 50)))
    assert max(max(size) for size in jitter) == 50
    assert min(min(size) for size in jitter) < 25
    assert set(drawn(Augment(crop=(30, 40), quarter_turns=True))) == {(30, 40)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hflip": 1.5}, "hflip must be a fraction"),
        ({"scale": (2.0, 1.0)}, "scale must be a rising range"),
        ({"keep_whole": True}, "keep_whole must be used with crop"),
        ({"fit": True, "crop": (9, 9), "short": (8,)}, "fit must be used without short"),
        ({"crop": (0, 9)}, "crop must be a positive"),
        ({"hue": 0.7}, "hue must be from 0 to 0.5"),
        ({"contrast": 1.0}, "contrast must be at least 0 and below 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Augment(**options)  # type: ignore[arg-type]


def test_every_option_is_documented() -> None:
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Augment)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), ast.unparse(field)
            assert isinstance(text.value, ast.Constant)


def test_color() -> None:
    assert torch.equal(Photometric()(COLOR), COLOR)
    assert torch.equal(Photometric(invert=True)(COLOR), 255 - COLOR)
    assert torch.equal(Photometric(brightness=0.5)(GRAY), ((GRAY.float() * 0.5) + 0.5).to(torch.uint8))
    assert torch.equal(Photometric(brightness=9.0)(GRAY)[0, 4:], torch.full((12, 16), 255, dtype=torch.uint8))
    darker = Photometric(gamma=2.0)(GRAY)
    assert (darker.float() - 255 * (GRAY.float() / 255) ** 2).abs().max() <= 0.51
    for change in (Photometric(saturation=0.0), Photometric(hue=0.3), Photometric(saturation=1.5)):
        assert (change(GRAY).int() - GRAY.int()).abs().max() <= 1  # gray has no color to change
    gray = Photometric(saturation=0.0)(COLOR)
    assert torch.equal(gray[0], gray[2])
    assert (
        gray[0].float() - (COLOR.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    ).abs().max() <= 1
    assert (Photometric(hue=1.0)(COLOR).int() - COLOR.int()).abs().max() <= 1
    assert (Photometric(hue=0.5)(COLOR).int() - COLOR.int()).abs().float().mean() > 20


def test_contrast_turns_about_the_mean() -> None:
    flat = torch.full((3, 8, 8), 90, dtype=torch.uint8)
    assert (Photometric(contrast=1.9)(flat) == 90).all()
    low = Photometric(contrast=0.1)(GRAY).float()
    assert low.std() < 0.11 * GRAY.float().std()


def test_blur_and_noise() -> None:
    spot = torch.zeros(3, 21, 21, dtype=torch.uint8)
    spot[:, 10, 10] = 255
    blurred = Photometric(blur=1.5)(spot).float()
    assert torch.equal(blurred, blurred.flip(1))
    assert torch.equal(blurred, blurred.transpose(1, 2))
    want = 255 / (2 * np.pi * 1.5**2)
    assert abs(float(blurred[0, 10, 10]) - want) < 1.5
    flat = torch.full((3, 5, 1), 77, dtype=torch.uint8)
    assert torch.equal(Photometric(blur=2.0)(flat), flat)
    noisy = Photometric(noise=6.0, seed=1)(torch.full((3, 64, 64), 128, dtype=torch.uint8)).float()
    assert abs(float(noisy.std()) - 6) < 0.3
    assert abs(float(noisy.mean()) - 128) < 0.3


def test_to_size() -> None:
    image, mask = picture()
    made = record((90, 110), [runs(m) for m in mask])
    sample = ToSize(resize=Resize(short=180, long=1000))(made, image)
    assert sample.image.shape == (3, 180, 220)
    assert sample.geometry.scale == (2.0, 2.0)
    assert sample.scene is not None
    assert sample.scene.objects().boxes.tolist() == [[40, 20, 120, 100], [140, 120, 210, 170]]  # type: ignore[union-attr]
    assert ToSize(scenes=False)(made, image).scene is None
    plain, smooth = (ToSize(resize=Resize(scale=0.3, antialias=a))(made, image).image for a in (False, True))
    assert not torch.equal(plain, smooth)


def test_real_data_everything_at_once() -> None:
    augment = dataclasses.replace(EVERYTHING, crop=(256, 192))
    for name in ("data/nuclei/val.json", "data/coco128/instances.json"):
        source = read_coco(shared(name))
        objects = 0
        for i in range(24):
            sample = augment(*source.load(i), np.random.default_rng(i))
            assert sample.scene is not None
            objects += len(sample.scene.objects())
            sample.scene.objects().validate(len(source.taxonomy))
        assert objects > 24
