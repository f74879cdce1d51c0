"""Cityscapes' instance results in, average precision out: ``read_cityscapes``. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import local

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics._native import run_threads
from maskwright.metrics._png import Decoder
from maskwright.metrics.cityscapes_ap import IDS, VOID, CityscapesAP, IdMap, Overlaps

SUFFIXES = ("_gtFine_instanceIds", "_gtCoarse_instanceIds", "_instanceIds", "")
"""What stems of truth end with; what is left is the name of the image."""

_LABELS = range(-1, 34)  # all ids that Cityscapes has a name for


def read_cityscapes(
    truth: str | Path,
    results: str | Path,
    *,
    classes: Mapping[str, int] = IDS,
    void: Sequence[int] = VOID,
    min_region: int = 100,
    lenient: bool = False,
) -> CityscapesAP:
    """Compare results in Cityscapes' form with its truth.

    Args:
        truth: a folder that holds ``CITY_SEQUENCE_FRAME_gtFine_instanceIds.png`` (in any of its folders), or one such.
        results: a folder that holds, for each of them, ``CITY_SEQUENCE_FRAME*.txt`` (in any of its folders), or one
            such. A line of it is ``MASK.png LABEL_ID SCORE``; the path begins where the text lies, the mask is all
            that is not 0.
        classes, void, min_region: as in ``CityscapesAP``. Lines of other labels of Cityscapes are passed over.
        lenient: drop and count lines that cannot be used, texts that belong to no image, and truth that cannot be read;
            images without a text are compared as if nothing had been found, and counted under ``"missing"``.

    Returns:
        the measure, its keys the names of images; ``dropped`` counts "truth", "results" (lines and texts), "missing".

    Raises:
        InputError: files are missing, two texts belong to one image, or something in a file cannot be used (three
            fields, a known label, a score in [0, 1], a mask that is there, inside of ``results``, named once and of the
            image's size); names the first five.
    """
    truth, results = Path(truth), Path(results)
    images = _images(truth)
    texts, strays = _texts(results, images, single=truth.is_file() and results.is_file())
    missing = [name for name in images if name not in texts]
    problems: dict[str, list[str]] = {"truth": [], "results": [f"{path.name} has no truth" for path in strays]}
    problems["missing"] = [f"{images[name].name} has no results" for name in missing]
    if not lenient:
        _settle(problems, truth, results)
    out = CityscapesAP(classes, void=void, min_region=min_region)
    root = results if results.is_dir() else results.parent
    found: dict[str, Overlaps] = {}
    own = local()

    def work(name: str) -> None:
        if not hasattr(own, "decoder"):
            own.decoder = Decoder()
        try:
            ids = IdMap(own.decoder.read(images[name].read_bytes()))
        except (OSError, ValueError) as error:
            problems["truth"].append(f"{images[name].name}: {error}")
            return
        lines = _lines(texts[name], root, classes, problems["results"]) if name in texts else []
        found[name] = _overlaps(lines, ids, out, own.decoder, problems["results"])

    run_threads([lambda name=name: work(name) for name in images])
    if not lenient:
        _settle(problems, truth, results)
    for name in sorted(found):
        out.update_overlaps(found[name], name)
    if lenient:
        out.dropped = {side: len(its) for side, its in problems.items()}
    return out


def _images(truth: Path) -> dict[str, Path]:
    if truth.is_file():
        return {_name(truth): truth}
    if not truth.is_dir():
        raise InputError(f"cannot read {truth}: there is no such file or folder. Check its name.")
    paths = sorted(truth.rglob("*_instanceIds.png"))
    names = [_name(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{truth}: names of images must be distinct, but {len(twice)} repeat: {', '.join(twice[:5])}.")
    if not paths:
        raise InputError(f"{truth} holds no truth (*_instanceIds.png). Check the folder.")
    return dict(zip(names, paths, strict=True))


def _name(path: Path) -> str:
    return path.stem.removesuffix(next(suffix for suffix in SUFFIXES if path.stem.endswith(suffix)))


def _texts(results: Path, images: dict[str, Path], *, single: bool) -> tuple[dict[str, Path], list[Path]]:
    """The text of each image, and those that belong to none."""
    if single:  # two files need not share a name
        return dict.fromkeys(images, results), []
    if not results.exists():
        raise InputError(f"cannot read {results}: there is no such file or folder. Check its name.")
    out: dict[str, Path] = {}
    strays: list[Path] = []
    twice: list[str] = []
    for path in [results] if results.is_file() else sorted(results.rglob("*.txt")):
        stem = path.stem
        # The longest name that the stem begins with and that ends where a word does.
        ends = [len(stem), *(i for i in range(len(stem) - 1, 0, -1) if not stem[i].isalnum())]
        name = next((stem[:end] for end in ends if stem[:end] in images), None)
        if name is None:
            strays.append(path)
        elif name in out:
            twice.append(f"{out[name].name} and {path.name}")
        else:
            out[name] = path
    if twice:
        raise InputError(
            f"{results}: each image must have one text, but {len(twice)} have more: {'; '.join(twice[:5])}. Keep one."
        )
    return out, strays


Line = tuple[str, Path, int, float]
"""Where it is (text and line), mask, label id, score."""


def _lines(path: Path, root: Path, classes: Mapping[str, int], problems: list[str]) -> list[Line]:
    """The lines of a text that speak of ``classes``."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: {error}")
        return []
    whole = root.resolve()
    out: dict[Path, Line] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        fields = line.rsplit(None, 2)
        if len(fields) != 3:
            problems.append(f"{where}: must be 'MASK.png LABEL_ID SCORE', got {line!r:.60}")
            continue
        label, score = _number(fields[1]), _number(fields[2])
        if label not in classes.values() and label not in _LABELS:
            problems.append(f"{where}: label {fields[1]!r:.40} is not one of Cityscapes")
            continue
        if not 0 <= score <= 1:
            problems.append(f"{where}: score must lie in [0, 1], got {fields[2]!r:.40}")
            continue
        try:
            mask = (path.parent / fields[0]).resolve()
            inside = mask.is_relative_to(whole) and not Path(fields[0]).is_absolute()
        except (OSError, ValueError, RuntimeError) as error:
            problems.append(f"{where}: {error}")
            continue
        if not inside:
            problems.append(f"{where}: the mask must lie inside of {root}, got {fields[0]!r:.60}")
            continue
        if mask in out:  # as in the official script, the last line counts
            problems.append(f"{out[mask][0]}: the mask {fields[0]!r:.60} is named again in line {number}")
        out[mask] = where, mask, int(label), score
    return [line for line in out.values() if line[2] in classes.values()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _overlaps(lines: list[Line], ids: IdMap, metric: CityscapesAP, decoder: Decoder, problems: list[str]) -> Overlaps:
    place = {number: k for k, number in enumerate(metric.ids)}
    rows: list[np.ndarray] = []
    kept: list[tuple[int, float]] = []
    for where, path, label, score in lines:
        try:
            rows.append(ids.under(decoder.read(path.read_bytes(), (ids.shape[0], ids.shape[1])) != 0))
        except OSError as error:
            problems.append(f"{where}: cannot read {path.name}: {error.strerror or error}")
        except ValueError as error:
            problems.append(f"{where}: {path.name}: {error}")
        else:
            kept.append((place[label], score))
    under = np.array(rows, np.int64).reshape(len(rows), len(ids.ids))
    labels = np.array([label for label, _ in kept], np.int64)
    return metric.overlaps(ids, labels, np.array([score for _, score in kept], np.float64), under)


def _settle(problems: dict[str, list[str]], truth: Path, results: Path) -> None:
    texts = [text for its in problems.values() for text in sorted(its)]
    if texts:
        more = f"; and {len(texts) - 5} more" if len(texts) > 5 else ""
        raise InputError(
            f"{truth} and {results}: {len(texts)} entries cannot be used - {'; '.join(texts[:5])}{more}. "
            "Correct them, or drop and count them with --lenient."
        )
