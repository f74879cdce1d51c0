"""What ``maskwright score`` can measure: one row a kind, naming the reader that makes its measure from two files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from maskwright.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of measurement.

    Attributes:
        help: what it compares, and what the two files or folders are.
        reader: ``module:function`` in ``maskwright.metrics``; called with truth, results and ``lenient``.
        main: the figure that two systems are compared by, ``group/name``.
        given: arguments that the reader always gets.
        takes: option of the command -> argument of the reader.
    """

    help: str
    reader: str
    main: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    takes: Mapping[str, str] = field(default_factory=dict[str, str])


def _coco(name: str, what: str) -> Kind:
    takes = {"max_per_image": "max_detections", "thresholds": "thresholds", "official": "official"}
    return Kind(
        help=f"average precision of {what}: COCO annotations, COCO results",
        reader="files:read_coco",
        main=f"{name}/AP",
        given={"kinds": (name,)},
        takes=takes,
    )


def _panoptic(main: str, what: str, *, boundary: bool) -> Kind:
    return Kind(
        help=f"panoptic quality{what}: COCO panoptic JSON, each with its folder of PNGs",
        reader="panoptic_files:read_panoptic",
        main=main,
        given={"boundary": boundary},
    )


_LENGTHS = {"classes": "classes", "tolerance": "tolerance", "spacing": "spacing"}

KINDS: Mapping[str, Kind] = {
    "mask": _coco("mask", "masks"),
    "box": _coco("box", "boxes"),
    "boundary": _coco("boundary", "masks by their boundaries too"),
    "lvis": Kind(
        help="average precision by LVIS's rules: LVIS annotations, COCO results",
        reader="lvis:read_lvis",
        main="mask/AP",
        takes={"max_per_image": "max_detections", "thresholds": "thresholds"},
    ),
    "cityscapes": Kind(
        help="average precision by Cityscapes' rules: its folders of instance maps, and of texts with masks",
        reader="cityscapes_files:read_cityscapes",
        main="mask/AP",
    ),
    "panoptic": _panoptic("panoptic/PQ", "", boundary=False),
    "panoptic-boundary": _panoptic("boundary/PQ", ", of boundaries too", boundary=True),
    "video-panoptic": Kind(
        help="VPQ: COCO panoptic JSON whose images have a video_id, each with its folder of PNGs",
        reader="video_panoptic_files:read_vpq",
        main="video_panoptic/VPQ",
    ),
    "step": Kind(
        help="STQ: folders of KITTI-STEP maps, a folder a clip, --classes and --things",
        reader="video_panoptic_files:read_step",
        main="stq/STQ",
        takes={"classes": "classes", "things": "things"},
    ),
    "semantic": Kind(
        help="mean IoU and accuracies: two folders of label images, and --classes",
        reader="semantic_files:read_semantic",
        main="semantic/mIoU",
        takes={"classes": "classes"},
    ),
    "contour": Kind(
        help="precision, recall and F of boundaries at a tolerance: two folders of label images, and --classes",
        reader="boundary:read_boundary",
        main="semantic/F",
        takes=_LENGTHS,
    ),
    "surface": Kind(
        help="Hausdorff and mean surface distance: two folders of label images or volumes, and --classes",
        reader="surface:read_surface",
        main="surface/HD95",
        takes=_LENGTHS,
    ),
    "cells": Kind(
        help="precision at IoUs, aggregated Jaccard, panoptic quality, counts: COCO files, or folders of label images",
        reader="cell_files:read_cells",
        main="per_image/AP",
        takes={"thresholds": "thresholds", "score_threshold": "min_score"},
    ),
    "video": Kind(
        help="average precision of tubes: YouTube-VIS annotations and results",
        reader="video_files:read_ytvis",
        main="mask/AP",
        takes={"max_per_image": "max_detections"},
    ),
    "tracks": Kind(
        help="HOTA, IDF1, MOTSA: folders of MOTS texts or maps",
        reader="tracks_files:read_mots",
        main="mask/HOTA",
    ),
}

LOWER_IS_BETTER = ("surface",)
"""Kinds whose main figure is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One comparison of files, computed.

    Attributes:
        title: what was compared.
        metric: the measure, fed.
        plain: its figures; figures: the same, with intervals where they were asked for.
        sentences: what else is to be said of them.
        errors: the analysis of errors, where asked for.
    """

    title: str
    metric: Any
    plain: dict[str, Any]
    figures: dict[str, Any]
    sentences: list[str] = field(default_factory=list[str])
    errors: Any = None


def read(kind: str, truth: str, results: str, args: argparse.Namespace) -> Any:
    """The measure of two files.

    Raises:
        InputError: the files cannot be compared, or an option does not go with ``kind``.
    """
    entry = KINDS[kind]
    given = dict(entry.given)
    for option in (
        "max_per_image",
        "thresholds",
        "score_threshold",
        "classes",
        "things",
        "tolerance",
        "spacing",
        "official",
    ):
        value = getattr(args, option)
        if value is None:
            if option == "classes" and option in entry.takes:
                raise InputError(f"label images name no classes: say by --classes what the values of {kind} mean.")
            if option == "things" and option in entry.takes:
                raise InputError(f"{kind} must know which classes are told apart: name them by --things.")
        elif option in entry.takes:
            given[entry.takes[option]] = _classes(value) if option == "classes" else value
        elif option != "official":
            fitting = ", ".join(name for name, other in KINDS.items() if option in other.takes)
            raise InputError(f"--{option.replace('_', '-')} goes with the kinds {fitting}, not with {kind}.")
    if entry.reader.startswith("lvis:") and "max_detections" in given:
        given["max_detections"] = max(given["max_detections"])
    module, _, function = entry.reader.partition(":")
    reader = getattr(import_module(f"maskwright.metrics.{module}"), function)
    try:
        return reader(truth, results, lenient=args.lenient, **given)
    except ValueError as error:
        raise InputError(str(error)) from error


def _classes(text: str) -> Any:
    """``cityscapes``, or a JSON file: a list of names for the values from 0 on, or an object of name to value."""
    if text == "cityscapes":
        from maskwright.metrics.semantic_files import CITYSCAPES

        return CITYSCAPES
    from maskwright.storage import read_json

    found = read_json(text)
    names = isinstance(found, list) and all(isinstance(name, str) for name in cast("list[object]", found))
    values = isinstance(found, dict) and all(type(v) is int for v in cast("dict[str, object]", found).values())
    if not found or not (names or values):
        raise InputError(f'{text} must hold a list of names, or an object such as {{"road": 7}}, got {str(found)[:60]}')
    return found
