"""MOTS files in, tracking measures out: ``read_mots``. No torch.

A line is ``frame id class height width run-lengths``, the last as COCO writes them (MOTS, KITTI-MOTS, MOTSChallenge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics._coco_read import Problems
from maskwright.metrics._png import Decoder
from maskwright.metrics._tubes import Frame
from maskwright.metrics.tracks import Tracking

CLASSES: Mapping[str, int] = {"car": 1, "pedestrian": 2}
"""The classes of KITTI-MOTS; MOTSChallenge has the second."""

IGNORE = 10
"""The class of regions that do not count."""


@dataclass(slots=True)
class _Lines:
    """The masks of one file, by frame and then as the file has them.

    Attributes:
        table: int64 [N, 4]: line, frame, track, class. size: height and width. counts, offsets: their runs.
    """

    table: np.ndarray
    size: tuple[int, int] | None
    counts: np.ndarray
    offsets: np.ndarray

    def frame(self, number: int, wanted: np.ndarray) -> tuple[Frame, np.ndarray]:
        """What frame ``number`` shows of the classes ``wanted``, in the order of the lines, and its classes."""
        from maskwright.ops import rle

        begin, end = np.searchsorted(self.table[:, 1], [number, number + 1])
        places: np.ndarray = begin + np.flatnonzero(np.isin(self.table[begin:end, 3], wanted))
        return Frame(self.table[places, 2], *rle.take(self.counts, self.offsets, places)), self.table[places, 3]


def read_mots(
    truth: str | Path,
    results: str | Path,
    *,
    classes: Mapping[str, int] = CLASSES,
    ignore: int = IGNORE,
    lenient: bool = False,
) -> Tracking:
    """Compare tracks in MOTS files; sequences without truth or results in a frame need no line for it.

    Args:
        truth: a folder of ``NAME.txt``, of ``NAME/gt/gt.txt``, or of ``NAME/FRAME.png`` (maps whose pixels are
            class * 1000 + n); or one file. results: the same, or a folder with ``data/NAME.txt``; one file if ``truth``
            is one.
        classes: those to compare, by name, and their numbers in the files. The others of MOTS are passed over.
        ignore: the class in truth of regions that do not count.
        lenient: drop and count lines that cannot be used, and files that belong to no sequence; sequences without
            results are compared as if nothing had been found, and counted under ``"sequences"``.

    Returns:
        the measure, its keys the names of sequences; ``dropped`` counts "truth" and "results" (lines), "sequences".

    Raises:
        InputError: a file or a sequence's results are missing, or lines cannot be used (six fields, known classes, one
            size in a sequence, sound run-lengths, ids distinct and masks disjoint in a frame); names the first five.
    """
    pairs, missing, extra = _pairs(Path(truth), Path(results))
    for names, what in ((missing, "has no results"), (extra, "has results but no truth")):
        if names and not lenient:
            more = "" if len(names) <= 5 else f" and {len(names) - 5} more"
            raise InputError(
                f"each sequence of {truth} must have one file in {results}, but of {len(pairs) + len(extra)} sequences "
                f"{len(names)} {what}: {', '.join(names[:5])}{more}. Add them, or drop and count them with --lenient."
            )
    out = Tracking(tuple(classes))
    out.dropped = dict.fromkeys(("truth", "results"), 0) | {"sequences": len(missing) + len(extra)} if lenient else {}
    for name, (first, second) in pairs.items():
        known = {*classes.values(), *CLASSES.values(), ignore}
        paths = (first, second or first)
        problems = [Problems(path, "maps" if path.is_dir() else "lines", lenient) for path in paths]
        there = _read(first, known, ignore, problems[0], None)
        found = _read(second, known, ignore, problems[1], there.size)
        _compare(out, there, found, tuple(classes.values()), ignore, name)
        for side, problem in zip(("truth", "results"), problems, strict=True):
            if lenient:
                out.dropped[side] += problem.dropped
    return out


def _pairs(truth: Path, results: Path) -> tuple[dict[str, tuple[Path, Path | None]], list[str], list[str]]:
    """Files of each sequence; sequences without results; results without truth."""
    for path in (truth, results):
        if not path.exists():
            raise InputError(f"no such file or folder: {path}.")
    if truth.is_file():
        if results.is_dir():
            raise InputError(f"{truth} is one file, so results must be one too, but {results} is a directory.")
        return {truth.stem: (truth, results)}, [], []
    if results.is_file():
        raise InputError(f"{truth} is a directory, so results must be one too, but {results} is a file.")
    there = {path.parent.parent.name: path for path in truth.glob("*/gt/gt.txt")} or _sequences(truth)
    found = _sequences(results) or _sequences(results / "data")
    if not there:
        forms = "NAME.txt, NAME/gt/gt.txt or NAME/FRAME.png"
        raise InputError(f"{truth} must hold {forms} for each sequence, but it has none.")
    pairs = {name: (there[name], found.get(name)) for name in sorted(there)}
    return pairs, [n for n in pairs if n not in found], sorted(found.keys() - there.keys())


def _sequences(folder: Path) -> dict[str, Path]:
    texts = {path.stem: path for path in folder.glob("*.txt")}
    maps = {path.parent.name: path.parent for path in folder.glob("*/*.png")}
    return texts or maps


def _read(path: Path | None, known: set[int], ignore: int, problems: Problems, size: tuple[int, int] | None) -> _Lines:
    """The sound lines of a file; all others are refused or dropped."""
    from maskwright.ops import rle

    rows: list[tuple[int, int, int, int]] = []
    runs: list[np.ndarray] = []
    seen: set[tuple[int, int]] = set()
    if path is not None and path.is_dir():
        return _read_maps(path, known, problems, size)
    for number, line in enumerate(_text(path) if path else [], 1):
        fields = line.split()
        if not fields:
            continue
        problems.total += 1
        try:
            if len(fields) != 6:
                raise InputError(f"must be 'frame id class height width run-lengths', got {len(fields)} fields")
            frame, track, label, *own = (_integer(field) for field in fields[:5])
            if label not in known:
                raise InputError(f"class {label} is not one of {sorted(known)}")
            if (frame, track) in seen and label != ignore:
                raise InputError(f"track {track} is in frame {frame} twice")
            its = own[0], own[1]
            if size is not None and its != size:
                raise InputError(f"its size must be {size[0]} x {size[1]} as the others', got {own[0]} x {own[1]}")
            part, _ = rle.from_coco([{"size": own, "counts": fields[5]}], its)
            size = its
        except InputError as error:
            problems.add([number], lambda _, error=error: str(error).rstrip(".").replace("mask 0: ", ""))
            continue
        seen.add((frame, track))
        rows.append((number, frame, track, label))
        runs.append(part)
    table = np.array(rows, np.int64).reshape(-1, 4)
    order: list[int] = np.argsort(table[:, 1], kind="stable").tolist()
    offsets = np.concatenate([[0], np.cumsum([len(runs[i]) for i in order])]).astype(np.int64)
    counts = np.concatenate([np.zeros(0, np.int32), *(runs[i] for i in order)])
    lines = _Lines(table[order], size, counts, offsets)
    keep = _disjoint(lines, ignore, problems)
    problems.settle()
    if not keep.all():
        lines = _Lines(lines.table[keep], size, *rle.take(counts, offsets, np.flatnonzero(keep)))
    return lines


def _read_maps(folder: Path, known: set[int], problems: Problems, size: tuple[int, int] | None) -> _Lines:
    """The masks of a folder of maps ``FRAME.png``, whose pixels are class * 1000 + n, 0 without an object."""
    from maskwright.ops import rle

    decoder = Decoder()
    rows: list[tuple[int, int, int, int]] = []
    parts: list[np.ndarray] = []
    lengths: list[int] = [0]
    paths = sorted(folder.glob("*.png"), key=lambda path: (len(path.stem), path.stem))
    problems.total = len(paths)
    for number, path in enumerate(paths):
        try:
            frame = _integer(path.stem)
            ids = decoder.read(path.read_bytes(), size)
            size = ids.shape[0], ids.shape[1]
            names = np.unique(ids[ids > 0]).tolist()
            unknown = [name for name in names if name // 1000 not in known]
            if unknown:
                raise ValueError(f"its ids must be class * 1000 + n of classes {sorted(known)}, got {unknown[:5]}")
        except (OSError, ValueError) as error:
            problems.add([number], lambda _, path=path, error=error: f"{path.name}: {error}".rstrip("."))
            continue
        if names:
            counts, offsets = rle.encode(np.stack([ids == name for name in names]))
            parts.append(counts)
            lengths += np.diff(offsets).tolist()
            rows += [(number, frame, name, name // 1000) for name in names]
    problems.settle()
    counts = np.concatenate([np.zeros(0, np.int32), *parts])
    table = np.array(rows, np.int64).reshape(-1, 4)
    order = np.argsort(table[:, 1], kind="stable")
    return _Lines(table[order], size, *rle.take(counts, np.cumsum(lengths), order))


def _text(path: Path) -> Sequence[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: {error}.") from error


def _integer(field: str) -> int:
    try:
        value = int(field)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 31:
        raise InputError(f"frame, id, class, height and width must be integers from 0 on, got {field!r:.40}")
    return value


def _disjoint(lines: _Lines, ignore: int, problems: Problems) -> np.ndarray:
    """Which masks share no pixel with those before them in their frame, bool [N]."""
    from maskwright.ops import rle

    keep = np.ones(len(lines.table), bool)
    if lines.size is None:
        return keep
    cuts = np.append(np.flatnonzero(np.diff(lines.table[:, 1], prepend=-1)), len(lines.table))
    for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        part = slice(int(lines.offsets[begin]), int(lines.offsets[end]))
        runs = lines.counts[part], lines.offsets[begin : end + 1] - part.start
        whole = rle.union(*runs)
        if int(rle.area(*runs).sum()) == int(whole[1::2].sum(dtype=np.int64)):
            continue
        common = rle.intersection(*runs, *runs, height=lines.size[0])
        region = lines.table[begin:end, 3] == ignore
        common[np.ix_(region, region)] = 0
        for i in range(end - begin):
            before = common[i, :i] * keep[begin : begin + i]
            if before.any():
                keep[begin + i] = False
                other = lines.table[begin + int(before.argmax())]
                text = (
                    f"shares {int(before.max())} pixels with track {other[2]} in frame {other[1]}; masks are disjoint"
                )
                problems.add([int(lines.table[begin + i, 0])], lambda _, text=text: text)
    return keep


def _compare(out: Tracking, truth: _Lines, found: _Lines, classes: Sequence[int], ignore: int, name: str) -> None:
    wanted = np.array(classes, np.int64)
    place = {number: k for k, number in enumerate(classes)}
    numbers = np.union1d(truth.table[:, 1], found.table[:, 1]).tolist()
    there = [truth.frame(t, wanted) for t in numbers]
    here = [found.frame(t, wanted) for t in numbers]
    regions = [truth.frame(t, np.array([ignore]))[0] for t in numbers]

    def dense(labels: np.ndarray) -> np.ndarray:
        return np.array([place[int(v)] for v in labels], np.int64)

    out.update_frames(
        [frame for frame, _ in here], [dense(labels) for _, labels in here],
        [frame for frame, _ in there], [dense(labels) for _, labels in there],
        [regions], (truth.size or found.size or (1, 1))[0], name,
    )  # fmt: skip
