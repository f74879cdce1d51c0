"""Every recipe resolves: its model takes its options, and it ends where it was published to."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskwright import zoo
from maskwright.cli._options import fields
from maskwright.cli.main import COMMANDS, main
from maskwright.errors import InputError
from maskwright.recipes import TABLE, find, sentence
from maskwright.recipes.recipe import COCO, COCO_ANNOTATED
from maskwright.recipes.search import Choice, Range, parse, parse_all
from maskwright.train import TrainOptions
from maskwright.train.schedule import rate

NAMES = list(TABLE)

PUBLISHED_STEPS = {
    "mask-rcnn-1x": 90_000, "mask-rcnn-3x": 270_000, "mask-rcnn-lsj-100": 184_375, "mask-rcnn-lsj-200": 368_750,
    "mask-rcnn-lsj-400": 737_500, "cascade-mask-rcnn-3x": 270_000, "pointrend-3x": 270_000, "solo-3x": 263_880,
    "solov2-3x": 263_880, "condinst-1x": 90_000, "condinst-3x": 270_000, "centermask-3x": 270_000,
    "yolact-800k": 800_000, "rtmdet-ins-300": 137_700, "queryinst-3x": 263_880, "panoptic-fpn-1x": 90_000,
    "panoptic-fpn-3x": 270_000, "upsnet-1x": 90_000, "detr-500": 924_000, "maskformer-300": 554_400,
    "mask2former-instance-50": 368_750, "mask2former-panoptic-50": 368_750, "eomt-12": 88_704,
}  # fmt: skip
"""As the papers and configuration files state them."""

FALLS = {
    "mask-rcnn-1x": (60_000, 80_000), "mask-rcnn-3x": (210_000, 250_000), "mask-rcnn-lsj-100": (163_889, 177_546),
    "yolact-800k": (280_000, 600_000, 700_000, 750_000), "maskformer-300": (369_600, 508_200),
    "mask2former-instance-50": (327_778, 355_092),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_resolves(name: str) -> None:
    recipe = find(name)
    assert recipe.name == name
    assert sentence(name)
    assert recipe.images in (COCO, COCO_ANNOTATED)
    options = recipe.train_options()
    recipe.augmentation()
    assert options.steps == PUBLISHED_STEPS[name]
    assert options.steps * recipe.batch / recipe.images == pytest.approx(recipe.epochs, rel=0.005)
    assert set(recipe.published) <= {"mask.AP", "box.AP", "panoptic.PQ", "semantic.mIoU"}
    if options.schedule == "step":
        assert [round(m * options.steps) for m in options.milestones] == sorted(
            round(m * options.steps) for m in options.milestones
        )
    assert all(0 < value < 1 for value in recipe.published.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_model_takes_its_options(name: str) -> None:
    from maskwright.weights.coco_names import coco_things
    from maskwright.weights.coco_panoptic_names import coco_panoptic

    recipe = find(name)
    options = recipe.model_options()
    options.pop("pretrained", None)  # which would download; that it is taken is seen below
    taxonomy = coco_things() if zoo.entry(recipe.model).task == "instance" else coco_panoptic()
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


@pytest.mark.parametrize("name", FALLS)
def test_the_rate_falls_where_published(name: str) -> None:
    options = find(name).train_options()
    for k, step in enumerate(FALLS[name]):
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
