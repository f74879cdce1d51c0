"""``maskwright train`` and ``evaluate`` as typed."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.cli import _options
from maskwright.cli.main import main
from maskwright.cli.train import AUGMENT, CONDITIONS, OPTIONS, _augment, configure, sizing
from maskwright.data.augment.conditions import Conditions
from maskwright.data.augment.transforms import Augment
from maskwright.structures import Resize
from maskwright.train import TrainOptions


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with two bright rectangles each."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for i in range(6):
        pixels = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": 64, "width": 80})
        for k in range(2):
            x, y = 5 + 35 * k, 6 + 4 * i
            pixels[y : y + 20, x : x + 24] = 200
            outline = [[x, y, x + 24, y, x + 24, y + 20, x, y + 20]]
            box = {"bbox": [x, y, 24, 20], "area": 480, "iscrowd": 0, "segmentation": outline}
            objects.append({"id": len(objects) + 1, "image_id": 10 + i, "category_id": 7, **box})
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    whole = {"images": images, "annotations": objects, "categories": [{"id": 7, "name": "box"}]}
    (folder / "train.json").write_text(json.dumps(whole))
    (folder / "other.json").write_text(json.dumps({**whole, "categories": [{"id": 7, "name": "cat"}]}))
    return folder


def words(data: Path, out: Path, *more: str) -> list[str]:
    flags = {
        "train": str(data / "train.json"), "out": str(out), "steps": "6", "batch-size": "2", "device": "cpu",
        "precision": "32", "threads": "1", "checkpoint-every": "2", "workers": "0",
    }  # fmt: skip
    return ["train", "mask-rcnn-r18-light", *(w for name, value in flags.items() for w in (f"--{name}", value)),
            "--crop", "64", "64", *more]  # fmt: skip


def losses(out: Path) -> list[tuple[str, ...]]:
    with open(out / "log.csv", encoding="utf-8") as file:
        return [tuple(v for k, v in row.items() if k != "seconds") for row in csv.DictReader(file)]


def test_train_kill_resume_evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run killed with -9 in its middle and resumed has the losses and figures of an unbroken one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("--val", str(data / "train.json"), "--evaluations", "1")
    command = [sys.executable, "-m", "maskwright", *words(data, broken, *more, "--workers", "1")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert main([*words(data, whole, *more), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline and not ((broken / "log.csv").exists() and len(losses(broken)) >= 3):
        assert process.poll() in (None, 0), process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main([*words(data, broken, *more), "--resume"]) == 0
    said = capsys.readouterr()
    assert "resuming after step" in said.err
    assert "AP50" in said.out
    assert len(losses(whole)) == 6
    assert losses(broken) == losses(whole)

    assert summary["step"] == 6
    assert summary["metrics"]["images"] == 6
    assert main(["evaluate", str(whole), "--data", str(data / "train.json"), "--device", "cpu", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured == summary["metrics"]
    assert set(measured) == {"mask", "box", "images", "max_per_image"}

    assert main(words(data, whole)) == 2
    assert "--resume" in capsys.readouterr().err
    start = ("--steps", "1", "--learning-rate", "1e-12", "--weights", str(whole))
    assert main(words(data, tmp_path / "more", *start)) == 0


def test_evaluate_limits_the_model_and_the_metric(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maskwright import zoo
    from maskwright.data.formats.coco import read_coco
    from maskwright.evaluate import evaluate

    torch.manual_seed(0)
    source = read_coco(data / "train.json")
    model: Any = zoo.build("mask-rcnn-r18-light", source.taxonomy, channels=8, mask_width=8, box_hidden=16).train()
    seen: list[int] = []
    predict = model.predict

    def spy(raw: Any, geometry: Any) -> Any:
        scenes = predict(raw, geometry)
        seen.extend(len(scene.objects()) for scene in scenes)
        assert model.max_per_image == 3
        assert not model.training
        return scenes

    model.predict = spy
    told: list[tuple[int, int]] = []
    options = {"max_per_image": 3, "score_threshold": 0.0, "kinds": ("box",), "batch_size": 4}
    figures = evaluate(model, source, device="cpu", progress=lambda *pair: told.append(pair), **options)
    assert max(seen) == 3
    assert len(seen) == figures["images"] == 6
    assert figures["max_per_image"] == 3
    assert "AR_3" in figures["box"]
    assert "mask" not in figures
    assert told == [(4, 6), (6, 6)]
    assert model.max_per_image == 100
    assert model.training


def test_results_of_an_evaluation_score_the_same(data: Path, tmp_path: Path) -> None:
    """What ``evaluate`` writes carries the annotation file's ids, so ``score`` gives its figures from files alone."""
    from maskwright import zoo
    from maskwright.data.formats.coco import read_coco, result_file
    from maskwright.evaluate import evaluate
    from maskwright.metrics.average_precision import CocoAP
    from maskwright.metrics.files import score

    torch.manual_seed(0)
    source = read_coco(data / "train.json")
    model: Any = zoo.build("mask-rcnn-r18-light", source.taxonomy, channels=8, mask_width=8, box_hidden=16)
    boxes = CocoAP(source.taxonomy, ("box",))
    with result_file(tmp_path / "found.json", source.taxonomy) as keep:
        figures = evaluate(model, source, device="cpu", score_threshold=0.0, found=keep, also={"again": boxes})
    assert figures["again"] == boxes.compute()
    assert figures["again"]["box"]["AP"] == figures["box"]["AP"]
    with pytest.raises(ValueError, match="names of their own, got mask"):
        evaluate(model, source, also={"mask": boxes})
    scored = score(data / "train.json", tmp_path / "found.json", ("mask", "box"), official=False)
    assert len(json.loads((tmp_path / "found.json").read_text())) > 100
    for kind in ("mask", "box"):
        for name in ("AP", "AP50", "AR_100"):
            assert scored[kind][name] == pytest.approx(figures[kind][name], abs=1e-6)
    with pytest.raises(RuntimeError), result_file(tmp_path / "found.json", source.taxonomy):
        raise RuntimeError("half way")
    assert len(json.loads((tmp_path / "found.json").read_text())) > 100, "a failed run leaves the old file"


def test_classes_are_paired_by_name(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(data, tmp_path / "run"), "--val", str(data / "other.json")]) == 2
    said = capsys.readouterr().err
    assert "box" in said
    assert "cat" in said
    from maskwright.evaluate import pair, relabel
    from maskwright.structures import Scene, Segments, Taxonomy

    pairing = pair(Taxonomy(names=("cat", "box", "dog")), Taxonomy(names=("dog", "cat")))
    assert pairing.tolist() == [1, -1, 0]
    labels = torch.tensor([0, 1, 2, 0])
    scene = Scene(size=(4, 4), segments=Segments(size=(4, 4), labels=labels, scores=torch.rand(4)))
    assert relabel(scene, pairing).objects().labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--batch-size", "0"), "--batch-size"),
        (("--hflip", "2"), "hflip"),
        (("--max-per-image", "0"), "--max-per-image"),
        (("--train", "nothing.json"), "nothing.json"),
        (("--device", "cuda:77"), "cuda:77"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--weights", "nowhere.pth", "--pretrained"), "Give one of them"),
        (("--out", "/proc/run"), "Choose another --out"),
    ],
)
def test_what_cannot_be_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    assert main(words(data, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not list((tmp_path / "run").glob("*.*"))


def test_stages_one_after_the_other(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    more = ("--val", str(data / "train.json"), "--evaluations", "1", "--stages", "alternating")
    assert main(words(data, out, *more, "--stage-shares", "1,1,1", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], len(told["recall"])) == (2, 4)
    assert json.loads((out / "options.json").read_text())["stages"] == "alternating"
    assert main(words(data, tmp_path / "other", "--stage-shares", "1,1,1")) == 2
    assert "--stages, which is not given" in capsys.readouterr().err
    plain = ["train", "solov2-light-r18", "--train", str(data / "train.json"), "--out", str(tmp_path / "no")]
    assert main([*plain, "--steps", "3", "--stages", "alternating"]) == 2
    assert "SOLOv2 is not of them" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(words(data, out, "--stages", "alternating", "--stage-shares", "1,2"))


def test_a_misspelled_model_is_suggested(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = words(data, tmp_path / "run")
    assert main(["train", "mask-rcn-r18", *command[2:]]) == 2
    assert "mask-rcnn-r18" in capsys.readouterr().err


def test_flags_are_the_fields() -> None:
    """The dataclass's source, parsed, says what the dataclass itself says."""
    for place, kind in ((OPTIONS, TrainOptions), (AUGMENT, Augment), (CONDITIONS, Conditions)):
        parsed = {field.name: field for field in _options.fields(*place)}
        assert {name: field.default for name, field in parsed.items()} == {f.name: f.default for f in fields(kind)}
        assert all(field.help for field in parsed.values())


def test_flags_are_read_with_their_types() -> None:
    parser = argparse.ArgumentParser()
    configure(parser)
    typed = "x --train a --out b --steps 5 --learning-rate 1e-3 --milestones 0.5 0.9 --no-channels-last --optimizer sgd"
    args = parser.parse_args([*typed.split(), "--crop", "64", "32", "--short", "600", "700", "800", "--fit"])
    assert _options.given(args, *OPTIONS) == {
        "steps": 5, "learning_rate": 1e-3, "milestones": (0.5, 0.9), "channels_last": False, "optimizer": "sgd",
    }  # fmt: skip
    assert _options.given(args, *AUGMENT) == {"crop": (64, 32), "short": (600, 700, 800), "fit": True}
    with pytest.raises(SystemExit):
        parser.parse_args([*typed.split(), "--optimizer", "adagrad"])


def test_changes_fit_the_models_size() -> None:
    detectron = _augment(Resize(short=800, long=1333), {})
    assert (min(detectron.short), max(detectron.short), detectron.long) == (640, 800, 1333)
    cells = _augment(Resize(scale=2.0), {"hflip": 0.0})
    assert (cells.scale, cells.crop, cells.hflip) == ((1.6, 2.5), (512, 512), 0.0)
    jitter = _augment(Resize(short=800, long=1333), {"fit": True, "crop": (1024, 1024), "scale": (0.1, 2.0)})
    assert (jitter.short, jitter.scale) == ((), (0.1, 2.0))
    assert sizing("640,1000") == Resize(short=640, long=1000)
    assert sizing("2x") == Resize(scale=2.0)
    with pytest.raises(argparse.ArgumentTypeError):
        sizing("large")


def test_help_needs_no_torch() -> None:
    code = "import sys; from maskwright.cli.main import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run([sys.executable, "-c", f"{code}assert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"--learning-rate" in done.stdout
