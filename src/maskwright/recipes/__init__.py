"""Published trainings by name. Naming and describing them imports no torch; recipes are built when they are found."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.recipes.recipe import Recipe

TABLE: Mapping[str, str] = {
    "mask-rcnn-1x": "mask_rcnn_1x",
    "mask-rcnn-3x": "mask_rcnn_3x",
    "mask-rcnn-lsj-100": "mask_rcnn_lsj",
    "mask-rcnn-lsj-200": "mask_rcnn_lsj",
    "mask-rcnn-lsj-400": "mask_rcnn_lsj",
    "cascade-mask-rcnn-3x": "cascade_mask_rcnn_3x",
    "mask-scoring-rcnn-1x": "mask_scoring_rcnn_1x",
    "panet-2x": "panet_2x",
    "pointrend-3x": "pointrend_3x",
    "solo-3x": "solo_3x",
    "solov2-3x": "solov2_3x",
    "condinst-1x": "condinst",
    "condinst-3x": "condinst",
    "centermask-3x": "centermask_3x",
    "yolact-800k": "yolact_800k",
    "rtmdet-ins-300": "rtmdet_ins_300",
    "queryinst-3x": "queryinst_3x",
    "panoptic-fpn-1x": "panoptic_fpn",
    "panoptic-fpn-3x": "panoptic_fpn",
    "upsnet-1x": "upsnet_1x",
    "panoptic-deeplab-90k": "panoptic_deeplab",
    "panoptic-deeplab-200k": "panoptic_deeplab",
    "deeplabv3plus-90k": "deeplabv3plus_90k",
    "semantic-fpn-80k": "semantic_fpn_80k",
    "segformer-b0-160k": "segformer_160k",
    "detr-500": "detr_500",
    "maskformer-300": "maskformer_300",
    "mask2former-instance-50": "mask2former_50",
    "mask2former-panoptic-50": "mask2former_50",
    "mask2former-semantic-160k": "mask2former_50",
    "eomt-12": "eomt_12",
}
"""Recipe -> its file here, which has it in ``RECIPES``."""


def find(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        InputError: there is none; the message suggests the closest names.
    """
    if name not in TABLE:
        close = get_close_matches(name, TABLE, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(TABLE)}."
        raise InputError(f"a recipe must have a name of the table, got {name!r}. {hint}")
    return import_module(f"maskwright.recipes.{TABLE[name]}").RECIPES[name]


def sentence(name: str) -> str:
    """The first line of a recipe's file, which says what it trains."""
    path = Path(__file__).parent / f"{TABLE[name]}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0] if text else ""
