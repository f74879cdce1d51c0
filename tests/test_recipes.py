"""Every recipe resolves: its model takes its options, and it ends where it was published to."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.cli._options import fields
from maskwright.cli.main import COMMANDS, main
from maskwright.errors import InputError
from maskwright.recipes import TABLE, find, sentence
from maskwright.recipes.recipe import ADE, CITYSCAPES, COCO, COCO_ANNOTATED
from maskwright.recipes.search import Choice, Range, parse, parse_all
from maskwright.train import TrainOptions
from maskwright.train.optimizer import make_optimizer
from maskwright.train.schedule import rate

NAMES = list(TABLE)

NUMBERS: dict[str, tuple[int, int, str, float, float, int, tuple[int, ...], str]] = {
    "mask-rcnn-1x": (90_000, 16, "sgd", 0.02, 1e-4, 1000, (60_000, 80_000), "R_50_FPN_1x.yaml"),
    "mask-rcnn-3x": (270_000, 16, "sgd", 0.02, 1e-4, 1000, (210_000, 250_000), "R_50_FPN_3x.yaml"),
    "mask-rcnn-lsj-100": (184_375, 64, "sgd", 0.1, 4e-5, 500, (163_889, 177_546), "100ep_LSJ.py"),
    "mask-rcnn-lsj-200": (368_750, 64, "sgd", 0.1, 4e-5, 500, (327_778, 355_092), "200ep_LSJ.py"),
    "mask-rcnn-lsj-400": (737_500, 64, "sgd", 0.1, 4e-5, 500, (655_556, 710_184), "400ep_LSJ.py"),
    "cascade-mask-rcnn-3x": (270_000, 16, "sgd", 0.02, 1e-4, 1000, (210_000, 250_000), "cascade_mask_rcnn_R_50"),
    "mask-scoring-rcnn-1x": (90_000, 16, "sgd", 0.02, 1e-4, 500, (60_000, 80_000), "e2e_ms_rcnn_R_50_FPN_1x.yaml"),
    "panet-2x": (180_000, 16, "sgd", 0.02, 1e-4, 500, (120_000, 160_000), "e2e_panet_R-50-FPN_2x_mask.yaml"),
    "pointrend-3x": (270_000, 16, "sgd", 0.02, 1e-4, 1000, (210_000, 250_000), "pointrend_rcnn_R_50_FPN_3x"),
    "solo-3x": (263_880, 16, "sgd", 0.01, 1e-4, 500, (197_910, 241_890), "solo_r50_fpn_3x_coco.py"),
    "solov2-3x": (263_880, 16, "sgd", 0.01, 1e-4, 500, (197_910, 241_890), "solov2_r50_fpn_ms-3x_coco.py"),
    "condinst-1x": (90_000, 16, "sgd", 0.01, 1e-4, 1000, (60_000, 80_000), "MS_R_50_1x.yaml"),
    "condinst-3x": (270_000, 16, "sgd", 0.01, 1e-4, 1000, (210_000, 250_000), "MS_R_50_3x.yaml"),
    "centermask-3x": (270_000, 16, "sgd", 0.01, 1e-4, 1000, (210_000, 250_000), "V_39_eSE_FPN_ms_3x.yaml"),
    "yolact-800k": (800_000, 8, "sgd", 1e-3, 5e-4, 500, (280_000, 600_000, 700_000, 750_000), "data/config.py"),
    "rtmdet-ins-300": (137_700, 256, "adamw", 4e-3, 0.05, 1000, (), "rtmdet-ins_m_8xb32-300e_coco.py"),
    "queryinst-3x": (263_880, 16, "adamw", 1e-4, 1e-4, 1000, (197_910, 241_890), "queryinst_r50_fpn_mstrain_480-800"),
    "panoptic-fpn-1x": (90_000, 16, "sgd", 0.02, 1e-4, 1000, (60_000, 80_000), "panoptic_fpn_R_50_1x.yaml"),
    "panoptic-fpn-3x": (270_000, 16, "sgd", 0.02, 1e-4, 1000, (210_000, 250_000), "panoptic_fpn_R_50_3x.yaml"),
    "upsnet-1x": (90_000, 16, "sgd", 0.02, 1e-4, 1500, (60_000, 80_000), "upsnet_resnet50_coco_16gpu.yaml"),
    "panoptic-deeplab-90k": (90_000, 32, "adamw", 1e-3, 0.0, 1000, (), "90k_bs32_crop_512_1024_dsconv.yaml"),
    "panoptic-deeplab-200k": (200_000, 64, "adamw", 5e-4, 0.0, 1000, (), "200k_bs64_crop_640_640_coco_dsconv.yaml"),
    "deeplabv3plus-90k": (90_000, 16, "sgd", 0.01, 1e-4, 1000, (), "deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16"),
    "semantic-fpn-80k": (80_000, 8, "sgd", 0.01, 5e-4, 0, (), "fpn_r50_4xb2-80k_cityscapes-512x1024.py"),
    "segformer-b0-160k": (160_000, 16, "adamw", 6e-4, 0.01, 1500, (), "segformer.b0.512x512.ade.160k.py"),
    "detr-500": (924_000, 64, "adamw", 1e-4, 1e-4, 0, (739_200,), "facebookresearch/detr"),
    "maskformer-300": (554_400, 64, "adamw", 1e-4, 1e-4, 0, (369_600,), "maskformer_panoptic_R50_bs64_554k.yaml"),
    "mask2former-instance-50": (368_750, 16, "adamw", 1e-4, 0.05, 0, (327_778, 355_092), "coco/instance-segmentation"),
    "mask2former-panoptic-50": (368_750, 16, "adamw", 1e-4, 0.05, 0, (327_778, 355_092), "coco/panoptic-segmentation"),
    "mask2former-semantic-160k": (160_000, 16, "adamw", 1e-4, 0.05, 0, (), "ade20k/semantic-segmentation"),
    "eomt-12": (88_692, 16, "adamw", 1e-4, 0.05, 1500, (), "dinov2/coco/panoptic/eomt_large_640.yaml"),
}
"""Steps, batch, optimizer, rate, decay, steps of warm-up and where the rate falls, as the source states them."""

FREE = ("mask-rcnn-lsj", "yolact", "panoptic-deeplab", "deeplabv3plus", "semantic-fpn")
"""Recipes whose backbone's batch norms learn; timm draws these backbones' depths and so cannot build them on meta."""


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_resolves(name: str) -> None:
    recipe = find(name)
    assert recipe.name == name
    assert sentence(name)
    assert recipe.images in (COCO, COCO_ANNOTATED, ADE, CITYSCAPES)
    options = recipe.train_options()
    recipe.augmentation()
    assert options.steps * recipe.batch / recipe.images == pytest.approx(recipe.epochs, rel=0.005)
    assert set(recipe.published) <= {"mask.AP", "box.AP", "panoptic.PQ", "semantic.mIoU"}
    assert all(0 < value < 1 for value in recipe.published.values())


def test_every_number_is_the_source_s() -> None:
    assert list(NUMBERS) == NAMES
    for name, (steps, batch, optimizer, learning_rate, decay, warmup, falls, source) in NUMBERS.items():
        recipe = find(name)
        options = recipe.train_options()
        got = (options.steps, recipe.batch, options.optimizer, options.learning_rate, options.weight_decay)
        assert got == (steps, batch, optimizer, learning_rate, decay), name
        assert options.warmup * steps == pytest.approx(warmup), name
        milestones = options.milestones if options.schedule == "step" else ()
        assert tuple(round(m * steps) for m in milestones) == falls, name
        assert source in recipe.source, name
        assert recipe.source.startswith("https://github.com/") or "arXiv:" in recipe.source, name
        assert recipe.otherwise, name


@pytest.mark.parametrize(
    ("name", "fields_there"),
    [
        ("eomt-12", {"layer_decay": 0.8, "backbone_rate": 1.25, "schedule": "poly", "power": 0.9, "clip_norm": 0.01}),
        ("segformer-b0-160k", {"backbone_rate": 0.1, "schedule": "poly", "power": 1.0}),
        ("semantic-fpn-80k", {"schedule": "poly", "power": 0.9, "final_rate": 0.01, "sync_norm": True}),
        ("mask2former-semantic-160k", {"schedule": "poly", "power": 0.9, "clip_norm": 0.01, "backbone_rate": 0.1}),
        ("rtmdet-ins-300", {"schedule": "cosine", "final_rate": 0.05, "ema": 0.9998}),
        ("detr-500", {"clip_norm": 0.1, "backbone_rate": 0.1}),
        ("maskformer-300", {"clip_norm": 0.01, "backbone_rate": 0.1}),
        ("queryinst-3x", {"clip_norm": 0.1, "backbone_rate": 0.1}),
        ("solov2-3x", {"clip_norm": 35.0}),
        ("mask-rcnn-lsj-100", {"sync_norm": True}),
    ],
)
def test_what_else_the_source_states(name: str, fields_there: dict[str, Any]) -> None:
    options = find(name).train_options()
    assert {field: getattr(options, field) for field in fields_there} == fields_there


def test_the_rates_of_layers_are_the_source_s() -> None:
    """EoMT: the last block learns at the full rate, each below at 0.8 of the next; SegFormer: heads at tenfold."""
    from maskwright.weights.coco_panoptic_names import coco_panoptic

    rates: dict[str, dict[str, float]] = {}
    for name in ("eomt-12", "segformer-b0-160k"):
        recipe = find(name)
        with torch.device("meta"):
            model: Any = zoo.build(recipe.model, coco_panoptic())
        names = {id(parameter): key for key, parameter in model.named_parameters()}
        groups = make_optimizer(model, recipe.train_options()).param_groups
        rates[name] = {names[id(p)]: group["rate"] * group["lr"] for group in groups for p in group["params"]}
    blocks = {key: rate for key, rate in rates["eomt-12"].items() if key.startswith("backbone.blocks.")}
    assert {int(key.split(".")[2]) for key in blocks} == set(range(24))
    for key, got in blocks.items():
        assert got == pytest.approx(1e-4 * 0.8 ** (23 - int(key.split(".")[2])))
    assert rates["eomt-12"]["class_logits.weight"] == pytest.approx(1e-4)
    for key, got in rates["segformer-b0-160k"].items():
        assert got == pytest.approx(6e-5 if key.startswith("backbone.") else 6e-4)


def test_the_crops_and_sides_are_the_source_s() -> None:
    sides = find("mask2former-semantic-160k").augment["short"]
    assert (sides[0], sides[1], sides[-1], len(sides)) == (256, 307, 1024, 16)
    assert find("panoptic-deeplab-200k").augment["short"] == (320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960)
    assert find("panet-2x").augment["short"] == (1200, 1200, 1000, 800, 600, 400)
    assert find("eomt-12").augment == {"hflip": 0.5, "fit": True, "scale": (0.1, 2.0), "crop": (640, 640)}
    assert find("centermask-3x").options["frozen_stages"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_model_takes_its_options(name: str) -> None:
    from maskwright.weights.coco_names import coco_things
    from maskwright.weights.coco_panoptic_names import coco_panoptic

    recipe = find(name)
    options = recipe.model_options()
    options.pop("pretrained", None)  # which would download; that it is taken is seen below
    taxonomy = coco_things() if zoo.entry(recipe.model).task == "instance" else coco_panoptic()
    with torch.device("cpu" if name.startswith(FREE) else "meta"):
        model: Any = zoo.build(recipe.model, taxonomy, **options)
    assert model.task == zoo.entry(recipe.model).task
    if recipe.resize is not None:
        assert (model.resize.short, model.resize.long) == recipe.resize


@pytest.mark.parametrize("name", NAMES)
def test_the_marks_are_fields(name: str) -> None:
    recipe = find(name)
    kinds = {field.name: field.type for field in fields("train/options.py", "TrainOptions")}
    space = parse_all(recipe.search, kinds)
    assert space
    for field, dimension in space.items():
        if field in recipe.train and isinstance(dimension, Range):
            assert dimension.low <= recipe.train[field] <= dimension.high, f"the published {field} lies in the space"


@pytest.mark.parametrize("name", [name for name, numbers in NUMBERS.items() if numbers[6]])
def test_the_rate_falls_where_published(name: str) -> None:
    options = find(name).train_options()
    for k, step in enumerate(NUMBERS[name][6]):
        assert rate(options, (step - 1) / options.steps) == pytest.approx(0.1**k)
        assert rate(options, step / options.steps) == pytest.approx(0.1 ** (k + 1))


def test_what_the_user_gives_goes_first() -> None:
    recipe = find("mask-rcnn-1x")
    assert recipe.train_options({"epochs": 2.0}).steps == 0
    assert recipe.train_options({"epochs": 2.0, "steps": 7}).steps == 7
    assert recipe.train_options({"batch_size": 4}).accumulate == 4
    assert recipe.train_options({"batch_size": 4, "accumulate": 1}).accumulate == 1
    assert recipe.train_options(processes=4).accumulate == 2
    assert recipe.augmentation({"hflip": 0.0}).hflip == 0.0
    with pytest.raises(InputError, match="cannot share"):
        recipe.train_options({"batch_size": 3})
    defaults = TrainOptions()
    assert recipe.train_options().keep == defaults.keep


def test_unknown_recipes_are_suggested() -> None:
    with pytest.raises(InputError, match="mask-rcnn-1x"):
        find("mask-rcn-1x")


def test_the_table_is_the_folder() -> None:
    """Each file has its recipes in the table, under their own names."""
    import maskwright.recipes as package

    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    assert files - {"__init__", "recipe", "search", "embedded"} == set(TABLE.values())


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("1e-5..1e-2:log", "float", Range(low=1e-5, high=1e-2, log=True, whole=False)),
        ("1..4", "int", Range(low=1, high=4, log=False, whole=True)),
        ("adamw,sgd", "Literal['adamw', 'sgd']", Choice(values=("adamw", "sgd"))),
        ("0,0.999", "float", Choice(values=(0.0, 0.999))),
        ("yes,no", "bool", Choice(values=(True, False))),
    ],
)
def test_spaces_are_read(text: str, kind: str, expected: Range | Choice) -> None:
    assert parse("field", text, kind) == expected


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("1e-2..1e-5", "float", "must rise"),
        ("0..1:log", "float", "above 0"),
        ("1..2:lin", "float", "must be log"),
        ("a..b", "float", "takes numbers"),
        ("1.5..3", "int", "whole numbers"),
        ("1..2", "str", "has no range"),
        ("adamw", "str", "LOW..HIGH"),
        ("maybe,no", "bool", "yes,no"),
    ],
)
def test_what_is_no_space(text: str, kind: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse("field", text, kind)


def test_an_unknown_field_is_suggested() -> None:
    with pytest.raises(InputError, match="learning_rate"):
        parse_all({"learning-rat": "1..2"}, {"learning_rate": "float"})


def test_the_command_lists_without_torch() -> None:
    code = (
        "import sys; from maskwright.cli.main import COMMANDS, main; COMMANDS['recipes'] = 'x'; "
        "main(['recipes']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in NAMES)


def test_the_command_says_every_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "recipes", "list the published trainings")
    assert main(["recipes", "solov2-3x"]) == 0
    text = capsys.readouterr().out
    assert "263880" in text
    assert "clip_norm" in text
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["name"] for row in rows] == NAMES
    assert {field.name for field in dataclasses.fields(find(NAMES[0]))} <= rows[0].keys()
    assert main(["recipes", "nothing"]) == 2
