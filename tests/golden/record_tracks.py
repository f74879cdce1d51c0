"""Records ``tracks.json``: what TrackEval 1.3.0 (MIT) says of sequences drawn by ``draw`` and ``draw_boxes``.

    python -m venv v && v/bin/pip install trackeval==1.3.0 && v/bin/python record_tracks.py

Masks go through its KITTI-MOTS reader (ignore regions, classes), boxes straight into its measures. The tests draw the
same data again, so only the figures are stored.
"""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CASES = {
    "mixed": {"0002": (1, 14), "0006": (2, 9), "0007": (3, 20)},
    "crowded": {"0010": (4, 25)},
    "nothing found in one": {"0001": (5, 8), "0003": (-6, 8)},
}
"""By name: sequences, each a seed (negative: nothing is found) and its frames."""

BOXES = {"a": (11, 12), "b": (12, 30), "c": (13, 5)}
SIZE = (48, 72)
CLASSES = {"car": 1, "pedestrian": 2}
FIGURES = {
    "HOTA": ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA"),
    "CLEAR": ("MOTA", "sMOTA", "MOTP", "CLR_Re", "CLR_Pr", "IDSW", "Frag", "MT", "PT", "ML"),
    "Identity": ("IDF1", "IDP", "IDR"),
}


def draw(seed: int, frames: int) -> tuple[list[str], list[str]]:
    """Lines of MOTS files, truth and results: masks of a frame are disjoint, tracks pause and swap their ids, classes
    are mistaken, and things are found on regions to ignore."""
    rng = np.random.default_rng(abs(seed))
    objects = [
        [int(rng.integers(1, 3)), *rng.integers(0, SIZE).tolist(), *rng.integers(3, 12, 2).tolist()] for _ in range(9)
    ]
    ids = list(range(len(objects)))
    truth: list[str] = []
    results: list[str] = []
    for t in range(frames):
        there, found = np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
        if rng.random() < 0.6:
            _paint(there, 10000, int(rng.integers(0, SIZE[0])), int(rng.integers(0, SIZE[1])), 10, 14)
        ignored = there > 0
        for n, (label, y, x, h, w) in enumerate(objects):
            objects[n][1:3] = int(y + rng.integers(-2, 3)), int(x + rng.integers(-3, 4))
            if rng.random() < 0.8:
                _paint(there, label * 1000 + n, y, x, h, w)
            if rng.random() < 0.7:
                dy, dx, dh, dw = rng.integers(-2, 3, 4).tolist()
                other = 3 - label if rng.random() < 0.05 else label
                _paint(found, other * 1000 + ids[n], y + dy, x + dx, max(2, h + dh), max(2, w + dw))
        for _ in range(int(rng.integers(0, 3))):
            where = np.argwhere(ignored) if ignored.any() and rng.random() < 0.7 else np.argwhere(~ignored)
            y, x = where[rng.integers(0, len(where))].tolist()
            _paint(found, int(rng.integers(1, 3)) * 1000 + int(rng.integers(20, 40)), y, x, 3, 4)
        if rng.random() < 0.3:
            a, b = rng.choice(len(ids), 2, replace=False).tolist()
            ids[a], ids[b] = ids[b], ids[a]
        there = there if rng.random() < 0.95 else np.zeros_like(there)
        truth += _lines(t, there, rng)
        results += _lines(t, found, rng)
    return truth, results if seed > 0 else []


def draw_boxes(seed: int, frames: int) -> tuple[list[np.ndarray], ...]:
    """Ids and boxes (x1, y1, x2, y2) of each frame: truth's, then found ones."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.integers(0, 80, (7, 2)), rng.integers(10, 30, (7, 2))], 1).astype(np.float64)
    names = rng.permutation(20)[:7]
    out: tuple[list[np.ndarray], ...] = ([], [], [], [])
    for _ in range(frames):
        boxes[:, :2] += rng.integers(-4, 5, (7, 2))
        there, found = rng.random(7) < 0.8, rng.random(7) < 0.8
        near = boxes + rng.integers(-3, 4, (7, 4))
        if rng.random() < 0.3:
            names = rng.permutation(names)
        out[0].append(np.flatnonzero(there))
        out[2].append(names[found])
        for side, shown in ((1, boxes[there]), (3, near[found])):
            out[side].append(np.concatenate([shown[:, :2], shown[:, :2] + shown[:, 2:]], 1))
    return out


def _paint(canvas: np.ndarray, value: int, y: int, x: int, h: int, w: int) -> None:
    part = canvas[max(0, y - h) : max(0, y + h), max(0, x - w) : max(0, x + w)]
    part[part == 0] = value


def _lines(t: int, canvas: np.ndarray, rng: np.random.Generator) -> list[str]:
    values = rng.permutation(np.unique(canvas[canvas > 0])).tolist()
    return [f"{t} {v} {v // 1000} {SIZE[0]} {SIZE[1]} {_counts(canvas == v)}" for v in values]


def _counts(mask: np.ndarray) -> str:
    """COCO's string of a mask."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    borders = [0, *np.flatnonzero(np.diff(flat)).tolist(), mask.size]
    runs = [b - a for a, b in pairwise(borders)]
    runs = runs if runs[-1] else runs[:-1]
    out = ""
    for k, run in enumerate(runs):
        value = run - runs[k - 2] if k > 2 else run
        more = True
        while more:
            digit = value & 31
            value >>= 5
            more = value != (-1 if digit & 16 else 0)
            out += chr((digit | 32 if more else digit) + 48)
    return out


def _plain(results: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for family, names in FIGURES.items():
        out |= {name: np.asarray(results[family][name]).tolist() for name in names}
    return out


def _masks(sequences: dict[str, tuple[int, int]], folder: Path) -> dict[str, Any]:
    from trackeval import Evaluator
    from trackeval.datasets import KittiMOTS
    from trackeval.metrics import CLEAR, HOTA, Identity

    for name, (seed, frames) in sequences.items():
        for part, lines in zip(("label_02", "tracker/data"), draw(seed, frames), strict=True):
            path = folder / part / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(line + "\n" for line in lines))
    (folder / "tracker" / "tracker").mkdir()
    quiet = {"PRINT_CONFIG": False}
    data = KittiMOTS(
        {"GT_FOLDER": str(folder), "TRACKERS_FOLDER": str(folder), "TRACKERS_TO_EVAL": ["tracker"], **quiet}
        | {"SEQ_INFO": {name: frames for name, (_, frames) in sequences.items()}}
    )
    evaluator = Evaluator(
        {"USE_PARALLEL": False, "PRINT_RESULTS": False, "OUTPUT_SUMMARY": False, "TIME_PROGRESS": False, **quiet}
        | {"OUTPUT_DETAILED": False, "OUTPUT_EMPTY_CLASSES": False, "PLOT_CURVES": False, "LOG_ON_ERROR": None}
        | {"BREAK_ON_ERROR": True}
    )
    results, _ = evaluator.evaluate([data], [HOTA(), CLEAR(quiet), Identity(quiet)])
    found = results["KittiMOTS"]["tracker"]
    out = {name: _plain(found["COMBINED_SEQ"][name]) for name in CLASSES}
    each = {f: {c: found["COMBINED_SEQ"][c][f] for c in CLASSES} for f in FIGURES}
    measures = {"HOTA": HOTA(), "CLEAR": CLEAR(quiet), "Identity": Identity(quiet)}
    out["mean"] = _plain({f: m.combine_classes_class_averaged(each[f]) for f, m in measures.items()})
    out["pooled"] = _plain({f: m.combine_classes_det_averaged(each[f]) for f, m in measures.items()})
    return out


def _boxes() -> dict[str, Any]:
    from trackeval.datasets._base_dataset import _BaseDataset
    from trackeval.metrics import CLEAR, HOTA, Identity

    quiet = {"PRINT_CONFIG": False}
    measures = {"HOTA": HOTA(), "CLEAR": CLEAR(quiet), "Identity": Identity(quiet)}
    each: dict[str, dict[str, Any]] = {f: {} for f in measures}
    for name, (seed, frames) in BOXES.items():
        there, truth, here, found = draw_boxes(seed, frames)
        data: dict[str, Any] = {"num_timesteps": frames}
        for side, ids in (("gt", there), ("tracker", here)):
            known, places = np.unique(np.concatenate(ids), return_inverse=True)
            data[f"{side}_ids"] = np.split(places, np.cumsum([len(part) for part in ids])[:-1])
            data |= {f"num_{side}_ids": len(known), f"num_{side}_dets": len(places)}
        pairs = zip(truth, found, strict=True)
        data["similarity_scores"] = [_BaseDataset._calculate_box_ious(a, b, "x0y0x1y1") for a, b in pairs]
        for family, measure in measures.items():
            each[family][name] = measure.eval_sequence(data)
    return _plain({f: m.combine_sequences(each[f]) for f, m in measures.items()})


if __name__ == "__main__":
    recorded: dict[str, Any] = {"source": "trackeval 1.3.0", "boxes": _boxes(), "masks": {}}
    for case, parts in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            recorded["masks"][case] = _masks(parts, Path(place))
    Path(__file__).with_name("tracks.json").write_text(json.dumps(recorded) + "\n")
