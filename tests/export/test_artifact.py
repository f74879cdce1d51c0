"""An artifact from end to end: written, checked, loaded, asked; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.export import artifact, onnx
from maskwright.export.exported import ExportedModel
from maskwright.export.golden import drawn
from maskwright.infer.predictor import predict
from maskwright.metrics.alike import TOLERANCES, compare
from maskwright.nn.modes import evaluating
from maskwright.structures import Geometry, Images, Scene
from tests.export.conftest import CLASSES, network

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> ExportedModel:
    return artifact.load(folder, zoo.build)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def same(found: Scene | list[Scene], wanted: Scene | list[Scene], threshold: float = 0.05, limit: int = 30) -> bool:
    pair = [scenes if isinstance(scenes, list) else [scenes] for scenes in (found, wanted)]
    agreement = compare(pair[0], pair[1], TOLERANCES["fp32"], threshold=threshold, limit=limit)
    assert agreement.objects > 0
    return agreement.holds(TOLERANCES["fp32"])


# ---- what it can ----------------------------------------------------------------------------------------------------


def test_it_says_everything_that_is_needed(folder: Path, model: Any) -> None:
    document = json.loads((folder / artifact.NAME).read_text())
    assert document["format"] == artifact.FORMAT
    assert document["classes"] == ["disc", "square", "bar"]
    assert document["described"]["model"] == "mask-rcnn-r18-light"
    assert document["described"]["card"] == {"license": "CC0-1.0"}
    assert document["limits"] == {"score_threshold": 0.05, "max_per_image": 30}
    assert document["sizes"] == {"divisor": 32, "least": 160, "most": 512}
    assert document["preprocessing"]["resize"]["scale"] == 2.0
    assert document["preprocessing"]["inside_the_program"]["mean"] == pytest.approx(model.pixel_mean.tolist())
    assert document["outputs"] == [
        "mask_logits", "detections.0.boxes", "detections.0.scores", "detections.0.labels"
    ]  # fmt: skip
    assert {"maskwright", "torch", "onnx", "onnxruntime"} <= document["versions"].keys()
    assert document["check"]["objects"] > 0
    assert document["check"]["objects_shared"] >= 0.98
    assert sorted(document["files"]) == ["golden.npz", "model.onnx"]
    assert sorted(path.name for path in folder.iterdir()) == ["artifact.json", "golden.npz", "model.onnx"]


@pytest.mark.parametrize("size", [(97, 131), (150, 81), (240, 255)])
def test_any_size_is_what_the_model_finds(model: Any, loaded: ExportedModel, size: tuple[int, int]) -> None:
    picture = drawn(size, 3)
    found, wanted = predict(cast(Any, loaded), picture), predict(model, picture, precision="32")
    assert isinstance(found, Scene)
    assert found.size == size
    assert found.objects().masks is not None
    assert same(found, wanted)


def test_smaller_pictures_are_padded(model: Any, loaded: ExportedModel) -> None:
    picture = drawn((33, 40), 3)
    found = cast(Scene, predict(cast(Any, loaded), picture))
    inputs = Images.pad([interpolate(picture[None], scale_factor=2, mode="bilinear", antialias=True)[0]], multiple=160)
    view = Geometry.resized((33, 40), (66, 80))
    with torch.no_grad():
        raw = model(Images(pixels=inputs.pixels, geometry=(view,)))
    assert found.size == (33, 40)
    assert same(found, model.predict(raw, [view]))


def test_a_batch_is_its_pictures_one_by_one(loaded: ExportedModel) -> None:
    pictures = [drawn(size, i) for i, size in enumerate([(97, 131), (120, 100), (60, 140)])]
    together = predict(cast(Any, loaded), pictures, batch_size=3, resize=None)
    alone = [predict(cast(Any, loaded), picture, resize=None) for picture in pictures]
    assert [scene.size for scene in cast(Any, together)] == [(97, 131), (120, 100), (60, 140)]
    for one, other in zip(cast(Any, together), cast(Any, alone), strict=True):
        assert torch.equal(one.objects().scores, other.objects().scores)
        assert torch.equal(one.objects().boxes, other.objects().boxes)


def test_nothing_found_is_an_empty_scene(model: Any, loaded: ExportedModel) -> None:
    black = torch.zeros(3, 64, 64, dtype=torch.uint8)
    with evaluating(network(model), {"score_threshold": 1.0}):
        traced = artifact.trace(model, artifact.batches([drawn((150, 187), 0)], 1, 32), most=512)
    inputs = artifact.batches([drawn((150, 187), 0)], 1, 32)[0]
    raw = traced.layout.build(traced.program.module()(inputs.pixels, torch.tensor(inputs.sizes)))
    assert len(raw.detections[0].boxes) == 0
    assert raw.mask_logits.shape == (0, 3, 28, 28)
    assert len(model.predict(raw, inputs.geometry)[0].objects()) == 0
    found = predict(cast(Any, loaded), black, score_threshold=1.0)
    assert len(cast(Scene, found).objects()) == 0


def test_limits_can_be_tightened_only(model: Any, loaded: ExportedModel) -> None:
    picture = drawn((97, 131), 3)
    every = cast(Scene, predict(cast(Any, loaded), picture)).objects()
    assert every.scores is not None
    least = float(every.scores.median())
    some = cast(Scene, predict(cast(Any, loaded), picture, score_threshold=least, max_per_image=4)).objects()
    assert 0 < len(some) <= 4
    assert some.scores is not None
    assert bool((some.scores >= least).all())
    for options in ({"score_threshold": 0.01}, {"max_per_image": 31}):
        with pytest.raises(InputError, match="Export it again"):
            predict(cast(Any, loaded), picture, **cast(Any, options))


def test_the_check_travels(folder: Path) -> None:
    agreement = artifact.check(folder, zoo.build)
    assert agreement.objects > 0
    assert agreement.holds(TOLERANCES["fp32"])


def test_the_reader_has_no_weights(loaded: ExportedModel, model: Any) -> None:
    assert list(loaded.parameters()) == []
    assert all(parameter.is_meta for parameter in loaded._reader[0].parameters())
    assert loaded.taxonomy == CLASSES
    assert loaded.resize == model.resize
    assert loaded.card == {"license": "CC0-1.0", "exported": "onnx fp32"}
    with pytest.raises(ValueError, match="cannot learn"):
        loaded.loss(None, cast(Any, None))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_picture_above_the_ceiling(loaded: ExportedModel) -> None:
    with pytest.raises(InputError, match=r"up to 512 pixels a side.*got 320 x 544"):
        predict(cast(Any, loaded), drawn((310, 530), 0), resize=None)


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / artifact.NAME).read_text())
        change(document)
        (folder / artifact.NAME).write_text(json.dumps(document))

    return apply


def truncate(folder: Path) -> None:
    program = folder / "model.onnx"
    program.write_bytes(program.read_bytes()[:-1000])


def alter(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(bytes(data))


def unknown_operator(folder: Path) -> None:
    import onnx as library

    program = library.load(folder / "model.onnx")
    program.graph.node[0].op_type = "Sorcery"
    library.save(program, folder / "model.onnx")
    facts = artifact._facts(folder / "model.onnx")
    edit(lambda document: document["files"].update({"model.onnx": facts}))(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(lambda d: d.update(format=99)), "must have format 1, got 99: another version"),
        (edit(lambda d: d.pop("layout")), "it lacks layout"),
        (edit(lambda d: d.update(target="abacus")), "known target"),
        (edit(lambda d: d["described"].update(model="mask-rcnn-r19")), "mask-rcnn-r18"),
        (edit(lambda d: d["described"]["options"].update(wings=2)), "another version"),
        (edit(lambda d: d["files"].update({"../model.onnx": {"bytes": 1, "sha256": ""}})), "plain file name"),
        (lambda f: (f / "model.onnx").unlink(), "lost model.onnx"),
        (lambda f: (f / artifact.NAME).write_text("{"), "not JSON"),
        (truncate, "truncated"),
        (alter, "SHA-256 differs"),
        (unknown_operator, "ONNX Runtime .* cannot load"),
    ],
)
def test_damaged_artifacts(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(InputError, match=message):
        artifact.load(copy, zoo.build)


def test_a_provider_that_is_not_there(folder: Path, loaded: ExportedModel) -> None:
    with pytest.raises(InputError, match="CPUExecutionProvider"):
        onnx.OnnxRuntime(folder / "model.onnx", "AbacusExecutionProvider")
    with pytest.raises(InputError, match="cpu or cuda"):
        artifact.load(folder, zoo.build, device="meta")


def test_a_library_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="onnxruntime, not installed here"):
        artifact.load(folder, zoo.build)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "abacus"}, "one of onnx"),
        ({"precision": "int8"}, "maskwright compress"),
        ({"precision": "fp7"}, "one of fp32"),
        ({"most": 64}, "at least 160"),
        ({"batch": None}, "batch 1"),
    ],
)
def test_options_that_cannot_be(model: Any, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    asked = {"to": "onnx", "out": tmp_path / "out", **options}
    with pytest.raises(InputError, match=message):
        artifact.export(model, zoo.describe(model), pictures=[drawn((150, 187), 0)], **asked)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(model: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="something else"):
        artifact.export(model, zoo.describe(model), "onnx", tmp_path)


def test_pictures_without_objects_check_nothing(model: Any, tmp_path: Path) -> None:
    with (
        evaluating(network(model), {"score_threshold": 1.0}),
        pytest.raises(InputError, match="finds none"),
    ):
        artifact.export(model, zoo.describe(model), "onnx", tmp_path / "out")


class Wrong:
    """A runtime that is a little off."""

    def __init__(self, known: Any) -> None:
        self.known = known

    def __call__(self, pixels: torch.Tensor, sizes: torch.Tensor) -> list[torch.Tensor]:
        logits, boxes, scores, labels = self.known(pixels, sizes)
        return [logits, boxes, (scores - 0.02).clamp(min=0), labels]


def test_other_answers_are_not_written(model: Any, tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = onnx.start
    monkeypatch.setattr(onnx, "start", lambda *args: Wrong(start(*args)))
    with pytest.raises(InputError, match=r"must be what the model finds, but only 0\.0%"):
        artifact.export(model, zoo.describe(model), "onnx", tmp_path / "out", pictures=[drawn((150, 187), 0)], most=512)
    assert list(tmp_path.iterdir()) == []


def test_an_older_artifact_is_replaced(model: Any, copy: Path, fake: None) -> None:
    (copy / "note.txt").write_text("old")
    artifact.export(model, zoo.describe(model), "onnx", copy, pictures=[drawn((150, 187), 0)], most=512)
    assert sorted(path.name for path in copy.iterdir()) == ["artifact.json", "golden.npz", "model.onnx"]
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    with np.load(copy / "golden.npz", allow_pickle=False) as arrays:
        assert arrays["0.pixels"].shape == (1, 3, 160, 192)
        assert arrays["0.pixels"].dtype == np.uint8
    assert artifact.check(copy, zoo.build).holds(TOLERANCES["fp32"])
