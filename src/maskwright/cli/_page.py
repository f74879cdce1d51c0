"""The HTML pages of ``score`` and ``evaluate``: figures, curves, costs of errors, confusions, worst images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.cli import _figures
from maskwright.cli._measures import Measured
from maskwright.draw import report

_SCORE = 0.5
"""Detections from here up are counted one by one: in confusions, and in an image's errors."""
_WORST = 12
_LARGEST = 40
"""A matrix of more classes than this is left out: nobody could read it."""


def write(path: Path, measured: Measured, args: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        InputError: ``path`` cannot be written.
    """
    blocks = [*_numbers(measured), *_curves(measured), *_confusion(measured)]
    if measured.errors is not None:
        blocks += [*_errors(measured.errors), *_calibration(measured.errors), *_worst(measured.errors, args)]
    report.save(path, report.page(f"maskwright score - {measured.title}", *blocks))


def write_evaluation(
    path: Path, measured: Measured, worst: Sequence[tuple[str, float, np.ndarray, np.ndarray]]
) -> None:
    """Write the page of ``maskwright evaluate``.

    Args:
        path: the HTML file. measured: what was found out.
        worst: name, main figure, what is annotated and what was found (uint8 [H, W, 3]) of images.

    Raises:
        InputError: ``path`` cannot be written.
    """
    blocks = [*_numbers(measured), *_curves(measured), *_confusion(measured)]
    if worst:
        blocks.append(report.heading("Worst images", "By the main figure, of the image alone."))
        pictures = [
            (f"{name}: {what}, {value:.3f}", picture)
            for name, value, *both in worst
            for what, picture in zip(("annotated", "found"), both, strict=True)
        ]
        blocks.append(report.pictures(pictures))
    report.save(path, report.page(f"maskwright evaluate - {measured.title}", *blocks))


def _numbers(measured: Measured) -> Iterator[str]:
    yield from (f"<p><b>{report.escaped(line)}</b></p>" for line in measured.sentences)
    for name, own in _figures.groups({k: v for k, v in measured.figures.items() if k not in ("against", "errors")}):
        yield report.heading(
            name or "Settings", "" if not name else "Fractions; an interval holds the figure with 95 %."
        )
        yield report.table(["figure", "value"], [[key, _figures.number(value, key)] for key, value in own.items()])
    for name, columns, rows in _figures.classes(measured.figures):
        yield report.heading(f"{name} by class".strip())
        yield report.table(["class", *columns], [[row[0], *map(_figures.number, row[1:])] for row in rows])


def _curves(measured: Measured) -> Iterator[str]:
    if not hasattr(measured.metric, "curves"):
        return
    for kind, found in measured.metric.curves().items():
        if not isinstance(found, dict) or "precision" not in next(iter(found.get("per_class", {}).values()), {}):
            continue
        recalls, thresholds, each = found["recalls"], found["thresholds"], found["per_class"]
        known = np.array([own["precision"][0] for own in each.values() if own["recall"][0, 0] >= 0])
        if not len(known):
            continue
        mean = {f"IoU {t:.2f}": (recalls, known[:, i].mean(0)) for i, t in enumerate(thresholds)}
        yield report.heading(f"Precision over recall: {kind}", "The mean over classes, at each IoU threshold.")
        yield report.curves(mean, x="recall", y="precision")
        if len(each) > 1:
            first = {name: (recalls, own["precision"][0, 0]) for name, own in each.items() if own["recall"][0, 0] >= 0}
            yield report.heading(f"Precision over recall by class: {kind}, IoU {thresholds[0]:.2f}")
            yield report.curves(first, x="recall", y="precision")


def _confusion(measured: Measured) -> Iterator[str]:
    found = measured.plain.get("semantic", {})
    names = list(found.get("per_class", {}))
    if "confusion" in found and len(names) <= _LARGEST:
        values = np.array(found["confusion"])[: len(names), : len(names)]
        yield report.heading("Confusions", "Pixels by class of the truth and of the prediction.")
        yield report.matrix(names, names, values, side="truth", top="found")


def _errors(errors: Any) -> Iterator[str]:
    own = errors.compute()[errors.kind]
    yield report.heading(
        "What errors cost",
        f"The AP at IoU {errors.iou} that mending all errors of a type would bring (Bolya et al., 2020).",
    )
    counts = own["counts"]
    rows = [[name.replace("_", " "), gain, counts.get(name)] for name, gain in own["dAP"].items()]
    yield report.table(["type", "AP lost", "count"], rows)
    if len(errors.names) <= _LARGEST:
        yield report.heading(
            "Confusions", f"Objects by class, detections of score {_SCORE} and more; last: nothing there."
        )
        names = list(errors.names)
        yield report.matrix(
            [*names, "nothing"], [*names, "missed"], errors.confusion(_SCORE), side="truth", top="found"
        )


def _calibration(errors: Any) -> Iterator[str]:
    from maskwright.metrics.calibration import Calibration

    found = Calibration(errors)
    error = _figures.number(found.compute()[errors.kind]["ECE"])
    yield report.heading(
        "Calibration", f"How often detections of a score are true. Expected calibration error: {error}."
    )
    curve = found.curves()
    series = {"precision": (curve["score"], curve["precision"]), "mean IoU": (curve["score"], curve["iou"])}
    yield report.curves(series, x="score", y="share that is true", diagonal=True)


def _worst(errors: Any, args: argparse.Namespace) -> Iterator[str]:
    rows = errors.worst(_WORST, _SCORE)
    names = {image["id"]: str(image.get("file_name", image["id"])) for image in _read(args.truth)["images"]}
    yield report.heading("Worst images", f"By F1 times mean IoU, detections of score {_SCORE} and more.")
    columns = ["image", "quality", "found", "false", "missed", "why"]
    counts = ("true_positives", "false_positives", "false_negatives")
    yield report.table(
        columns,
        [[names.get(r["key"], str(r["key"])), r["quality"], *(r[c] for c in counts), r["why"]] for r in rows],
    )
    if args.images is not None:
        yield report.pictures(list(_pictures(rows, args)))


def _read(path: str) -> Any:
    """A JSON file that was read, and so checked, before."""
    with open(path, "rb") as file:
        return json.load(file)


def _pictures(rows: list[dict[str, Any]], args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Each image twice: what is annotated, and what was found."""
    from maskwright.data.formats.coco import read_coco
    from maskwright.data.rasterize import scene_of
    from maskwright.draw.image import overlay

    source = read_coco(args.truth, args.images, strict=False)
    place = {source.record(i).image_id: i for i in range(len(source))}
    shown = {row["key"] for row in rows} & place.keys()
    found: dict[Any, list[dict[str, Any]]] = {key: [] for key in shown}
    for entry in _read(args.results):
        if entry.get("image_id") in shown and entry.get("score", 0) >= _SCORE:
            found[entry["image_id"]].append(entry)
    for key in (row["key"] for row in rows if row["key"] in shown):
        record, pixels = source.load(place[key])
        name = record.path.name
        yield f"{name}: annotated", overlay(pixels, scene_of(record), source.taxonomy, labels=False)
        predicted = _scene(found[key], record.size, source.taxonomy)
        yield f"{name}: found", overlay(pixels, predicted, source.taxonomy, labels=False)


def _scene(entries: list[dict[str, Any]], size: tuple[int, int], taxonomy: Any) -> Any:
    """Result entries of one image as a scene."""
    import torch

    from maskwright.structures import Masks, Scene, Segments

    label_of = taxonomy.label_of
    labels = torch.tensor([label_of[entry["category_id"]] for entry in entries], dtype=torch.int64)
    scores = torch.tensor([entry["score"] for entry in entries], dtype=torch.float32)
    if entries and all("segmentation" in entry for entry in entries):
        masks = Masks.from_coco([{**entry["segmentation"]} for entry in entries], size)
        return Scene(size=size, segments=Segments(size=size, labels=labels, scores=scores, masks=masks))
    corners = [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in entries)]
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    return Scene(size=size, segments=Segments(size=size, labels=labels, scores=scores, boxes=boxes))
