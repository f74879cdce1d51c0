"""``train``, ``evaluate`` and ``predict`` as typed, for semantic and panoptic models, on data of several kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import maskwright as mw
from maskwright import zoo
from maskwright.cli.main import main
from maskwright.data.formats import coco_panoptic
from maskwright.data.label_maps import read_map
from maskwright.data.opening import open_split
from maskwright.evaluate import evaluate, evaluate_corrupted, pair, relabel
from maskwright.metrics.panoptic_files import read_panoptic
from maskwright.structures import Scene, Segments, Taxonomy
from maskwright.weights import store
from tests.tasks.fakes import CLASSES, SIZE, Fake, perfect, street

MAIN = {"semantic": "semantic.mIoU", "panoptic": "panoptic.PQ"}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two rows more in the table."""
    rows = {
        f"fake-{task}": zoo.Entry(
            name=f"fake-{task}", build=f"tests.tasks.fakes:fake_{task}", task=task, domain="image", paper="-"
        )
        for task in ("semantic", "panoptic")
    }
    monkeypatch.setattr(zoo, "_BY_NAME", {**zoo._BY_NAME, **rows})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return street(tmp_path_factory.mktemp("street"))


def saved(folder: Path, task: str) -> Path:
    """A run directory with a model that makes no mistakes."""
    model = zoo.build(f"fake-{task}", CLASSES)
    model.load_state_dict(perfect(task).state_dict())
    folder.mkdir()
    store.save(folder / "best.safetensors", model.state_dict(), zoo.describe(model))
    return folder


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_training_learns_and_keeps_the_best(
    task: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", f"fake-{task}", "--train", str(data), "--val", str(data), "--out", str(tmp_path / "run"),
             "--steps", "60", "--batch-size", "2", "--learning-rate", "0.03", "--workers", "0", "--device", "cpu",
             "--precision", "32", "--threads", "1", "--evaluations", "2", "--crop", "32", "48", "--copy-paste", "0.3",
             "--mosaic", "0.2", "--json"]  # fmt: skip
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    group, name = MAIN[task].split(".")
    assert summary["best"] >= summary["metrics"][group][name] > (0.7 if task == "semantic" else 0.3)
    model = mw.load(tmp_path / "run")
    assert (model.task, model.taxonomy) == (task, CLASSES)


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_evaluate_prints_writes_and_reports(
    task: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, found, page = saved(tmp_path / "run", task), tmp_path / "found", tmp_path / "report.html"
    results = found.with_suffix(".json") if task == "panoptic" else found
    words = ["evaluate", str(run), "--data", str(data), "--workers", "0", "--device", "cpu"]
    assert main([*words, "--results", str(results), "--report", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("6 images")
    assert ("boundary PQ" if task == "panoptic" else "boundary_mIoU") in text
    assert "road" in text
    assert "annotated" in page.read_text()
    assert main([*words, "--json", "--intervals", "20"]) == 0
    figures = json.loads(capsys.readouterr().out)
    group, name = MAIN[task].split(".")
    value = figures[group][name]
    assert value["low"] <= value["value"] <= value["high"]
    assert value["value"] > 0.9
    if task == "panoptic":
        assert set(figures) == {"panoptic", "boundary", "semantic", "mask", "images", "max_per_image"}
        assert set(figures["mask"]["per_class"]) == {"disc", "box"}
        again = read_panoptic(data, results, boundary=True).compute()
        assert again["panoptic"]["PQ"] == value["value"]
        assert again["boundary"]["PQ"] == figures["boundary"]["PQ"]["value"]
    else:
        assert json.loads((found / "classes.json").read_text()) == {"disc": 3, "box": 7, "sky": 90, "road": 200}
        assert len(list(found.glob("*.png"))) == 6
    assert main([*words, "--kind", "mask"]) == 2
    assert f"is a {task} model" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_predict_writes_what_our_readers_read(
    task: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = saved(tmp_path / "run", task), tmp_path / "out"
    pictures = data.parent / "images"
    assert main(["predict", str(pictures), "--weights", str(run), "--out", str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "6 images" in said
    model = mw.load(run)
    scene = mw.predict(model, pictures / "0.png")
    assert isinstance(scene, Scene)
    classes = scene.classes().numpy()
    assert np.array_equal(read_map(out / "semantic" / "0.png"), np.array(CLASSES.source_ids)[classes])
    areas = (out / "areas.csv").read_text().splitlines()
    assert areas[0] == "file,class,pixels,share"
    assert len(areas) == 1 + 6 * 4
    assert len(list((out / "overlays").glob("*.png"))) == 6
    assert (out / "results.json").exists() == (task == "panoptic")
    if task == "panoptic":
        assert main(["score", "--kind", "panoptic", "--truth", str(data), "--results", str(out / "panoptic.json"),
                     "--lenient"]) == 0  # fmt: skip
        read = coco_panoptic.read(out / "panoptic.json", images=pictures)
        source = next(iter(read.splits.values()))
        assert (source.taxonomy.names, source.taxonomy.thing) == (CLASSES.names, CLASSES.thing)
        again = source[0].scene
        assert again is not None
        assert again.panoptic is not None
        assert scene.panoptic is not None
        assert torch.equal(again.panoptic, scene.panoptic)
        assert again.objects().ids.tolist() == scene.objects().ids.tolist()
        assert again.objects().labels.tolist() == scene.objects().labels.tolist()
        things = json.loads((out / "results.json").read_text())
        assert {category["name"] for category in things["categories"]} == {"disc", "box"}
        instances = next(iter(open_split(out / "results.json", "val", images=pictures) for _ in range(1)))
        first = instances[0].scene
        assert first is not None
        for label, mask in zip(first.objects().labels.tolist(), first.objects().masks.dense(), strict=True):
            assert np.array_equal(mask.numpy(), classes == CLASSES.index(instances.taxonomy.names[label]))


def test_a_perfect_model_has_perfect_figures(data: Path) -> None:
    """But for the crowd of discs, which nobody punishes, and the disc and crowd being one segment to it."""
    source = open_split(data, "val")
    figures = evaluate(perfect("semantic"), source, device="cpu")
    assert figures["semantic"]["mIoU"] == figures["semantic"]["boundary_mIoU"] == 1.0
    figures = evaluate(perfect("panoptic"), source, device="cpu")
    assert figures["panoptic"]["PQ_stuff"] == 1.0
    assert figures["semantic"]["mIoU"] == 1.0
    assert figures["panoptic"]["per_class"]["box"]["PQ"] == figures["mask"]["per_class"]["box"]["AP"] == 1.0


def test_classes_the_data_does_not_have_are_void(data: Path) -> None:
    pairing = pair(CLASSES, Taxonomy(names=("road", "disc"), thing=(False, True)))
    segments = Segments(size=(1, 4), labels=torch.arange(4), ids=torch.tensor([5, 6, 7, 8]))
    scene = Scene(
        size=(1, 4), segments=segments, panoptic=torch.tensor([[5, 6, 7, 8]]), semantic=torch.tensor([[0, 1, -1, 3]])
    )
    found = relabel(scene, pairing)
    assert found.panoptic.tolist() == [[5, 0, 0, 8]]
    assert found.semantic.tolist() == [[1, -1, -1, 0]]
    assert (found.objects().labels.tolist(), found.objects().ids.tolist()) == ([1, 0], [5, 8])


def test_damaged_pictures_count_by_the_main_figure(data: Path, tmp_path: Path) -> None:
    source = open_split(data, "val")
    figures = evaluate_corrupted(
        perfect("panoptic"), source, corruptions=("gaussian_noise",), severities=(1,), device="cpu"
    )  # fmt: skip
    assert figures["by"] == {"panoptic": "PQ"}
    assert figures["rPC"]["panoptic"] == figures["mPC"]["panoptic"] / figures["clean"]["panoptic"]["PQ"]
    from maskwright.cli.evaluate import robustness

    assert "panoptic PQ" in robustness(figures)


def test_what_the_data_cannot_teach_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(data.read_text())
    box = {"bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0, "segmentation": [[4, 4, 14, 4, 14, 14, 4, 14]]}
    objects = [{"id": 1 + i, "image_id": 10 + i, "category_id": 3, **box} for i in range(6)]
    kept = {**whole, "annotations": objects}
    (data.parent / "instances.json").write_text(json.dumps(kept))
    words = ["--out", str(tmp_path / "run"), "--steps", "1", "--workers", "0", "--device", "cpu"]
    assert main(["train", "fake-panoptic", "--train", str(data.parent / "instances.json"), *words]) == 2
    assert "2 of its classes are stuff, which no object shows: sky, road" in capsys.readouterr().err
    assert main(["train", "fake-panoptic", "--train", str(data), "--mixup", "0.5", *words]) == 2
    assert "--mixup gives pixels two classes" in capsys.readouterr().err
    things = {**kept, "categories": whole["categories"][:2]}
    (data.parent / "things.json").write_text(json.dumps(things))
    assert main(["train", "fake-panoptic", "--train", str(data.parent / "things.json"), *words]) == 0


def test_models_that_do_not_say_are_of_instances() -> None:
    from maskwright.protocols import Model, task_of

    assert task_of(object()) == "instance"
    assert isinstance(Fake(), Model)
    assert SIZE == (48, 64)
