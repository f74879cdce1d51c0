"""THE table, and the ways from a name, a checkpoint or a run directory to a model."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights import hub, pickles, store
from maskwright.weights.table import find, published

MINE = Taxonomy(names=("bolt", "nut"), source_ids=(4, 9))
SMALL: dict[str, Any] = {"channels": 16, "mask_width": 16, "mask_depth": 1, "box_hidden": 16}
LIGHT = "mask-rcnn-r18-light"


def _small(taxonomy: Taxonomy = MINE, **options: Any) -> Any:
    return zoo.build(LIGHT, taxonomy, **{**SMALL, **options})


def _checkpoint(path: Path, model: Any = None, **meta: Any) -> Path:
    """Write a checkpoint as a training does, with ``meta`` beside what ``describe`` says."""
    model = _small() if model is None else model
    store.save(path, model.state_dict(), {**zoo.describe(model), **meta})
    return path


@pytest.mark.parametrize("entry", zoo.models(), ids=lambda entry: entry.name)
def test_every_row_names_a_builder_and_published_weights(entry: zoo.Entry) -> None:
    module, _, function = entry.build.partition(":")
    assert callable(getattr(import_module(module), function))
    assert entry.task in ("instance", "semantic", "panoptic")
    assert entry.domain in ("image", "clip", "cloud", "volume")
    assert all(find(name).model == entry.name for name in entry.weights)


def test_all_published_weights_belong_to_a_row_and_names_are_distinct() -> None:
    rows = [name for entry in zoo.models() for name in entry.weights]
    assert sorted(rows) == sorted(row.name for row in published())
    names = [entry.name for entry in zoo.models()] + rows
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: zoo.entry("mask-rcnn-r5"), "Did you mean mask-rcnn-r50"),
        (lambda: zoo.build("zzz", MINE), "There are: mask-rcnn-r18"),
        (lambda: zoo.load("embeded"), "Did you mean embedded"),
        (lambda: zoo.load("mask-rcnn-r50", weights="mask-rcnn-r50-torchvison-v2"), "mask-rcnn-r50-torchvision-v2"),
        (lambda: zoo.load("mask-rcn-r50", weights="x.pth"), "name a model of the table.*mask-rcnn-r50"),
        (lambda: zoo.load("runs/absent"), "no file or folder 'runs/absent'"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_a_checkpoint_builds_its_model_again(tmp_path: Path) -> None:
    resize = Resize(short=123, long=456, antialias=False)
    model = _small(anchor_sizes=(8, 16, 32, 64), resize=resize)
    path = _checkpoint(tmp_path / "own.safetensors", model, card={"seed": 5})
    again: Any = zoo.load(path)
    assert again.taxonomy == MINE
    assert again.resize == resize
    assert again.card == {"seed": 5}
    assert again.report.complete
    assert not again.training
    assert [cell.tolist() for cell in again.cells] == [cell.tolist() for cell in model.cells]
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    meta = {key: value for key, value in zoo.describe(again).items() if key != "options"}
    assert meta == {key: value for key, value in zoo.describe(model).items() if key != "options"}
    _checkpoint(tmp_path / "twice.safetensors", again)  # and what was loaded can be saved and loaded again
    assert zoo.load(tmp_path / "twice.safetensors").resize == resize


def test_hub_weights_of_the_backbone_are_not_asked_for_again() -> None:
    model = _small()
    model.built = (LIGHT, {**SMALL, "pretrained": True})
    assert "pretrained" not in zoo.describe(model)["options"]


def test_only_built_models_can_be_described() -> None:
    with pytest.raises(InputError, match="made by build or load"):
        zoo.describe(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_a_run_directory_gives_its_best_else_its_last(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has neither"):
        zoo.load(tmp_path)
    _checkpoint(tmp_path / "last.safetensors", card={"which": "last"})
    assert zoo.load(tmp_path).card["which"] == "last"  # type: ignore[attr-defined]
    _checkpoint(tmp_path / "best.safetensors", card={"which": "best"})
    assert zoo.load(str(tmp_path)).card["which"] == "best"  # type: ignore[attr-defined]
    assert zoo.load(LIGHT, weights=tmp_path).card["which"] == "best"  # type: ignore[attr-defined]


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match=f"holds weights of {LIGHT}, not of mask-rcnn-r50"):
        zoo.load("mask-rcnn-r50", weights=path)


def test_damaged_meta_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    model = _small()
    for wrong, words in (({"model": "mask-rcnn-r999"}, "mask-rcnn-r999"), ({"options": {"no_such": 1}}, "no_such")):
        store.save(path, model.state_dict(), {**zoo.describe(model), **wrong})
        with pytest.raises(InputError, match=words):
            zoo.load(path)
    store.save(path, {"a": torch.zeros(1)}, {"card": {}})
    with pytest.raises(InputError, match=r"own\.safetensors does not say which model"):
        zoo.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"own\.safetensors"):
        zoo.load(path)


def test_other_classes_need_a_new_head(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "own.safetensors")
    five = Taxonomy(names=tuple("abcde"))
    with pytest.raises(InputError, match="allow_missing"):
        zoo.load(LIGHT, weights=path, taxonomy=five)
    model: Any = zoo.load(LIGHT, weights=path, taxonomy=five, allow_missing=("head",))
    assert model.taxonomy == five
    assert len(model.box_head.class_logits.weight) == 6
    names = {name for name, _, _ in model.report.reshaped}
    assert names
    assert all(
        name.startswith(("box_head.class_logits", "box_head.box_deltas", "mask_head.predictor")) for name in names
    )
    assert torch.equal(model.rpn.objectness.weight, store.read(path)[0]["rpn.objectness.weight"])


def test_random_weights_know_cocos_classes_or_those_given() -> None:
    model: Any = zoo.load(LIGHT, taxonomy=MINE, device="cpu")
    assert model.taxonomy == MINE
    assert model.report is None
    assert len(zoo.load(LIGHT).taxonomy) == 80


def test_a_bare_state_dict_of_ours(tmp_path: Path) -> None:
    model = zoo.build(LIGHT, MINE)
    torch.save(model.state_dict(), tmp_path / "bare.pth")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="without the name of their model"):
        zoo.load(tmp_path / "bare.pth")
    again = zoo.load(LIGHT, weights=tmp_path / "bare.pth")
    assert len(again.taxonomy) == 2
    assert zoo.load(LIGHT, weights=tmp_path / "bare.pth", taxonomy=MINE).taxonomy == MINE


def test_parameters_of_a_stranger(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="checkpoint of another model"):
        zoo.load("mask-rcnn-r50", weights=tmp_path / "other.pth")


def test_a_torchvision_checkpoint_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    theirs = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=4).state_dict()
    monkeypatch.setattr(pickles, "read_state", lambda path: theirs)  # 85 MB stay off the disk
    (tmp_path / "theirs.pth").touch()
    model: Any = zoo.load(tmp_path / "theirs.pth")
    assert zoo.describe(model)["model"] == "mask-rcnn-r18"
    assert len(model.taxonomy) == 3
    assert not model.resize.antialias
    assert model.report.complete
    with pytest.raises(InputError, match="holds weights of mask-rcnn-r18, not of mask-rcnn-r50"):
        zoo.load("mask-rcnn-r50", weights=tmp_path / "theirs.pth")


def test_published_names_are_downloaded_and_licenses_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(url: str, sha256: str | None = None, **_: Any) -> Path:
        asked.append((url, sha256))
        raise InputError("no network")

    monkeypatch.setattr(hub, "download", download)
    for name in ("mask-rcnn-r50-torchvision-v2", "mask-rcnn-r50"):
        weights = None if name.endswith("v2") else "mask-rcnn-r50-torchvision-v2"
        with pytest.raises(InputError, match="no network"):
            zoo.load(name, weights=weights)
    row = find("mask-rcnn-r50-torchvision-v2")
    assert asked == [(row.url, row.sha256)] * 2
    monkeypatch.setattr(zoo, "find", lambda name: _non_commercial(row))
    with pytest.raises(InputError, match="commercial"):
        zoo.load(row.name, commercial=True)
    assert len(asked) == 2


def _non_commercial(row: Any) -> Any:
    from dataclasses import replace

    return replace(row, commercial=False, license="CC BY-NC 4.0")
