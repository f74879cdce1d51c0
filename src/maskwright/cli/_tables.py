"""Figures of an evaluation as text, as ``maskwright evaluate`` and ``train`` print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(figures: Mapping[str, Any]) -> str:
    """What ``evaluate`` gave, of whichever task, as text: figures side by side, then by class."""
    if "panoptic" in figures:
        return _panoptic(figures)
    return _semantic(figures) if "semantic" in figures else _instances(figures)


def robustness(figures: Mapping[str, Any]) -> str:
    """The main figures of each kind of damage by its strength as text, and the benchmark's two summaries."""
    from maskwright.evaluate import mean_ap

    rows: Mapping[str, Mapping[str, Any]] = figures["corrupted"]
    severities = list(next(iter(rows.values())))
    names = (f"{what} {main}" for what, main in figures["by"].items())
    width = max(map(len, ("clean", *rows, *names)))
    lines = [_counted(figures)]
    for what, main in figures["by"].items():
        clean = figures["clean"][what]
        head = "".join(f"{severity:>8}" for severity in (*severities, "mean"))
        lines += ["", f"{f'{what} {main}':<{width}}{head}"]
        lines.append(f"{'clean':<{width}}" + " " * 8 * len(severities) + _figure(clean[main]))
        for kind, row in rows.items():
            values = [row[severity][what][main] for severity in severities]
            lines.append(f"{kind:<{width}}" + "".join(map(_figure, (*values, mean_ap(values)))))
        for name in ("mPC", "rPC"):
            lines.append(f"{name:<{width}}" + " " * 8 * len(severities) + _figure(figures[name][what]))
    return "\n".join(lines)


def _instances(figures: Mapping[str, Any]) -> str:
    """A column for masks and one for boxes, then AP by class where there is more than one."""
    kinds = [kind for kind in ("mask", "box") if kind in figures]
    lines = [_counted(figures)]
    names = [name for name in figures[kinds[0]] if name != "per_class"]
    width = max(len(name) for name in names)
    lines.append(" " * width + "".join(f"{kind:>8}" for kind in kinds))
    lines += [f"{name:<{width}}" + "".join(_figure(figures[kind].get(name)) for kind in kinds) for name in names]
    classes = list(figures[kinds[0]].get("per_class", {}))
    if len(classes) > 1:
        width = max(len(name) for name in classes)
        lines += ["", "AP by class"]
        for name in classes:
            found = (figures[kind]["per_class"][name].get("AP") for kind in kinds)
            lines.append(f"{name:<{width}}" + "".join(_figure(value) for value in found))
    return "\n".join(lines)


def _semantic(figures: Mapping[str, Any]) -> str:
    """Means, then classes that occur."""
    own = figures["semantic"]
    names = [name for name, value in own.items() if isinstance(value, float)]
    width = max(map(len, names))
    lines = [_counted(figures), *(f"{name:<{width}}" + _figure(own[name]) for name in names)]
    return "\n".join([*lines, *_by_class(own["per_class"], ("IoU", "boundary_IoU", "accuracy", "precision"))])


def _panoptic(figures: Mapping[str, Any]) -> str:
    """PQ of all classes, things and stuff; the other measures under it; then classes that occur."""
    suffixes = {"all": "", "things": "_things", "stuff": "_stuff"}
    width = len("pixel accuracy")
    lines = [_counted(figures), " " * width + "".join(f"{name:>8}" for name in suffixes)]
    for group, lead in (("panoptic", ""), ("boundary", "boundary ")):
        for name in ("PQ", "SQ", "RQ"):
            values = (figures[group][f"{name}{suffix}"] for suffix in suffixes.values())
            lines.append(f"{lead + name:<{width}}" + "".join(map(_figure, values)))
    own, things = figures["semantic"], figures.get("mask")
    lines += [f"{'mIoU':<{width}}{_figure(own['mIoU'])}", f"{'fwIoU':<{width}}{_figure(own['fwIoU'])}"]
    lines.append(f"{'pixel accuracy':<{width}}{_figure(own['pixel_accuracy'])}")
    if things is not None:
        lines += [f"{name:<{width}}{'':>8}{_figure(things[name])}" for name in ("AP", "AP50", "AP75")]
    quality, areas = figures["panoptic"]["per_class"], own["per_class"]
    rows = {name: {**row, "IoU": areas[name]["IoU"]} for name, row in quality.items()}
    return "\n".join([*lines, *_by_class(rows, ("PQ", "SQ", "RQ", "IoU"))])


def _by_class(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> list[str]:
    """Lines for classes of which anything is known, where there is more than one class."""
    known = {name: row for name, row in rows.items() if any(row[column] >= 0 for column in columns)}
    if len(rows) < 2 or not known:
        return []
    width, wide = max(map(len, known)), [max(8, len(column) + 2) for column in columns]
    head = " " * width + "".join(f"{column:>{w}}" for column, w in zip(columns, wide, strict=True))
    lines = ["", "by class", head]
    for name, row in known.items():
        cells = (f"{_figure(row[column]).strip():>{w}}" for column, w in zip(columns, wide, strict=True))
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def _counted(figures: Mapping[str, Any]) -> str:
    limit = f", up to {figures['max_per_image']} objects each" if "max_per_image" in figures else ""
    return f"{figures['images']} images{limit}"


def _figure(value: float | None) -> str:
    """COCO writes -1, and JSON null, where nothing was there to be found."""
    return f"{'-':>8}" if value is None or value < 0 or value != value else f"{value:>8.4f}"
