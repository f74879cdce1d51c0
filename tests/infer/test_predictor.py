"""``predict`` and ``stream`` on a toy model: inputs, resizing, settings, batches, bad files, order and memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.errors import InputError
from maskwright.infer import predictor
from maskwright.infer.predictor import predict, stream
from maskwright.protocols import Model
from maskwright.structures import Resize, Scene
from tests.infer.toy import Toy, save, spot

BOX = [10.0, 20.0, 30.0, 35.0]


def test_toy_is_a_model() -> None:
    assert isinstance(Toy(), Model)


def _boxes(scene: Scene | list[Scene]) -> list[list[float]]:
    assert isinstance(scene, Scene)
    return scene.objects().boxes.tolist()  # type: ignore[union-attr]


def _forms() -> dict[str, Any]:
    picture = spot()
    return {
        "array [H, W, 3]": picture,
        "array [H, W]": picture[..., 0],
        "array [H, W, 4]": np.dstack([picture, np.full((40, 60), 255, np.uint8)]),
        "tensor [3, H, W]": torch.from_numpy(picture).permute(2, 0, 1),
        "tensor [H, W]": torch.from_numpy(picture[..., 0]),
        "PIL": Image.fromarray(picture),
        "PIL gray": Image.fromarray(picture[..., 0]),
    }


@pytest.mark.parametrize("form", _forms())
def test_one_picture_in_any_form_gives_one_scene_in_its_own_pixels(form: str) -> None:
    scene = predict(Toy(), _forms()[form])
    assert isinstance(scene, Scene)
    assert scene.size == (40, 60)
    assert _boxes(scene) == [BOX, BOX]


def test_paths_and_many(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    assert _boxes(predict(Toy(), str(path))) == [BOX, BOX]
    model = Toy()
    scenes = predict(model, iter([path, spot((90, 30), (2, 3, 20, 80)), Image.fromarray(spot())]), batch_size=2)
    assert isinstance(scenes, list)
    assert [scene.size for scene in scenes] == [(40, 60), (90, 30), (40, 60)]
    assert _boxes(scenes[1])[0] == [2, 3, 20, 80]
    assert [len(seen["pixels"]) for seen in model.seen] == [2, 1]


def test_no_pictures_and_stacks() -> None:
    assert predict(Toy(), []) == []
    scenes = predict(Toy(), np.stack([spot()] * 3))
    assert isinstance(scenes, list)
    assert len(scenes) == 3


@pytest.mark.parametrize(
    ("resize", "valid"),
    [
        ("default", (80, 120)),
        (None, (40, 60)),
        ((20, 100), (20, 30)),
        ((80, 90), (60, 90)),
        (Resize(short=10), (10, 15)),
    ],
)
def test_resize(resize: Any, valid: tuple[int, int]) -> None:
    model = Toy()
    scene = predict(model, spot(), resize=resize)
    assert model.seen[0]["sizes"] == (valid,)
    height, width = model.seen[0]["pixels"].shape[-2:]
    assert height % 32 == width % 32 == 0
    np.testing.assert_allclose(_boxes(scene)[0], BOX, atol=3)


def test_resizing_is_pillows_with_antialias_and_torchvisions_without() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    model = Toy()
    predict(model, picture, resize=Resize(short=24))
    got = model.seen[-1]["pixels"][0, :, :32, :24]
    want = np.array(Image.fromarray(picture).resize((24, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert got.dtype == torch.uint8
    assert np.abs(got.numpy().astype(int) - want).max() <= 1
    predict(model, picture, resize=Resize(short=24, antialias=False))
    got = model.seen[-1]["pixels"][0, :, :32, :24]
    whole = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    want = torch.nn.functional.interpolate(whole, size=(32, 24), mode="bilinear", align_corners=False)[0]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)


def test_settings_hold_for_the_call_only() -> None:
    model = Toy().train()
    model.frozen.eval()
    scene = predict(model, spot(), score_threshold=0.01, max_per_image=2)
    assert isinstance(scene, Scene)
    assert len(scene.objects()) == 2
    seen = model.seen[0]
    assert (seen["threshold"], seen["limit"], seen["training"], seen["grad"]) == (0.01, 2, False, False)
    assert (model.score_threshold, model.max_per_image) == (0.1, 100)
    assert model.training
    assert not model.frozen.training


def test_settings_are_restored_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy().train()

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(model, "predict", fail)
    with pytest.raises(RuntimeError, match="boom"):
        predict(model, spot(), score_threshold=0.7)
    assert model.score_threshold == 0.1
    assert model.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_threshold": 1.5}, "score_threshold must be a number from 0 to 1, got 1.5"),
        ({"max_per_image": 0}, "max_per_image must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"resize": (900, 800)}, "short <= long"),
        ({"resize": "own"}, "resize must be"),
        ({"precision": "fp8"}, "precision must be auto, 32 or bf16"),
        ({"device": "warp"}, "device 'warp' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        predict(Toy(), spot(), **options)
    with pytest.raises(InputError, match=words):
        stream(Toy(), [], **options)  # at once, before anything is asked of it


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy()
    predict(model, spot(), precision="bf16")
    predict(model, spot(), precision="32")
    for flags, half in (({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        predict(model, spot())
        assert model.seen[-1]["half"] is half
    assert [seen["half"] for seen in model.seen[:2]] == [True, False]


def test_bad_pictures_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png"):
        predict(Toy(), tmp_path / "text.png")


# ---- stream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path, batch_size: int) -> None:
    paths = [save(tmp_path / f"{i}.png", spot((40 + i, 60))) for i in range(7)]
    paths[3].write_bytes(paths[3].read_bytes()[:80])
    paths.append(tmp_path / "absent.png")
    answers = list(stream(Toy(), paths, batch_size=batch_size))
    assert [answer.path for answer in answers] == paths
    failed = [answer.path.name for answer in answers if isinstance(answer.scene, InputError)]
    assert failed == ["3.png", "absent.png"]
    for i, (path, picture, scene) in enumerate(answers[:3]):
        assert isinstance(scene, Scene)
        assert scene.size == (40 + i, 60)
        assert picture is not None
        assert picture.shape == (3, 40 + i, 60)
        assert path.name == f"{i}.png"


def test_streaming_equals_predicting(tmp_path: Path) -> None:
    boxes = [(2, 3, 20 + i, 30) for i in range(4)]
    paths = [save(tmp_path / f"{i}.png", spot(box=box)) for i, box in enumerate(boxes)]
    one = predict(Toy(), paths)
    assert isinstance(one, list)
    for scene, answer in zip(one, stream(Toy(), paths, batch_size=3), strict=True):
        assert isinstance(answer.scene, Scene)
        assert _boxes(scene) == _boxes(answer.scene)


def test_few_pictures_wait_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path / f"{i}.png") for i in range(30)]
    lock, read, most, taken = threading.Lock(), 0, 0, 0
    original = predictor.read_image

    def counting(path: Any) -> torch.Tensor:
        nonlocal read, most
        with lock:
            read += 1
            most = max(most, read - taken)
        return original(path)

    monkeypatch.setattr(predictor, "read_image", counting)
    for _ in stream(Toy(), paths, batch_size=2, workers=3):
        with lock:
            taken += 1
    assert read == 30
    assert most <= 2 + 3 + 2  # those waiting, and the batch that is being answered


def test_a_stream_that_is_left_early_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = Toy().train()
    answers = stream(model, [save(tmp_path / f"{i}.png") for i in range(5)], score_threshold=0.7)
    next(answers)
    assert model.training
    assert model.score_threshold == 0.1
    answers.close()  # type: ignore[attr-defined]


def test_a_picture_too_large_for_memory_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path / f"{i}.png", spot((40, 60 if i != 1 else 300))) for i in range(4)]
    model = Toy()
    original = model.forward

    def scarce(inputs: Any, scenes: Any = None) -> torch.Tensor:
        if inputs.pixels.numel() > 3 * 96 * 128 * 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return original(inputs, scenes)

    monkeypatch.setattr(model, "forward", scarce)
    answers = list(stream(model, paths, batch_size=4))
    assert [isinstance(answer.scene, InputError) for answer in answers] == [False, True, False, False]
    assert "not enough memory" in str(answers[1].scene)


def test_mistakes_of_a_model_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy()

    def wrong(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model, "predict", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(stream(model, [save(tmp_path / "a.png")]))
