"""YouTube-VIS files in, average precision of tubes out: ``read_ytvis``. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics._coco_read import Problems
from maskwright.metrics._tubes import Runs, tubes
from maskwright.metrics.video_ap import Tubes, VideoAP, mean_areas
from maskwright.storage import read_json

Entry = dict[str, Any]


@dataclass(slots=True)
class _Video:
    """A video's frames and, of either file, the places and entries that belong to it."""

    height: int
    width: int
    length: int | None
    truth: list[tuple[int, Entry]] = field(default_factory=list[tuple[int, Entry]])
    results: list[tuple[int, Entry]] = field(default_factory=list[tuple[int, Entry]])


@dataclass(slots=True)
class _Shown:
    """What the tubes of one side of a video show: masks on (H, W), each with its tube and its frame."""

    entries: list[Entry]
    counts: np.ndarray
    offsets: np.ndarray
    owner: np.ndarray
    frame: np.ndarray


def read_ytvis(
    truth: str | Path, results: str | Path, *, max_detections: int | Sequence[int] = 100, lenient: bool = False
) -> VideoAP:
    """A result file of YouTube-VIS (or OVIS) compared with its truth.

    Args:
        truth: JSON with ``videos``, ``categories`` and ``annotations``; of these each is a tube, its ``segmentations``
            one for each frame (run-lengths of either form, polygons, or null) and its ``areas`` likewise; or each is a
            mask of one frame with ``instance_id`` and ``image_id``, the images saying their ``video_id`` and
            ``frame_id``.
        results: a JSON list of ``{video_id, category_id, score, segmentations}``.
        max_detections: as in ``VideoAP``.
        lenient: drop and count (``dropped``) entries that cannot be used instead of raising.

    Returns:
        the measure, its keys the ids of the videos.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used (unknown videos or classes,
            a score outside of [0, 1], masks of another size or number than the video's frames, malformed run-lengths);
            names the first five.
    """
    truth, results = Path(truth), Path(results)
    data = _object(read_json(truth), truth)
    names, labels = _classes(data["categories"], truth)
    videos = _videos(data["videos"], truth)
    problems = [Problems(truth, "annotations", lenient), Problems(results, "results", lenient)]
    annotations = data["annotations"]
    problems[0].total = len(annotations)
    if any("segmentation" in entry for entry in annotations if isinstance(entry, dict)):
        annotations = _by_instance(data, videos, problems[0])
    else:
        annotations = list(enumerate(annotations))
    found: Any = read_json(results)
    if not isinstance(found, list):
        hint = " Did you swap --truth and --results?" if _get(found, "annotations") is not None else ""
        raise InputError(f"{results} must be a JSON list of results.{hint}")
    problems[1].total = len(cast("list[Any]", found))
    _assign(annotations, videos, labels, problems[0], scored=False)
    _assign(list(enumerate(cast("list[Any]", found))), videos, labels, problems[1], scored=True)
    shown: dict[Any, tuple[_Shown, _Shown]] = {}
    for key, video in videos.items():
        there = _decoded(video.truth, video, problems[0])
        shown[key] = there, _decoded(video.results, video, problems[1])
    for problem in problems:
        problem.settle()
    out = VideoAP(names, max_detections)
    for key, (there, here) in shown.items():
        out.update_tubes(*_compared(here, there, videos[key], labels), key)
    if lenient:
        out.dropped = {"truth": problems[0].dropped, "results": problems[1].dropped}
    return out


# ---- files -> entries of videos -------------------------------------------------------------------------------------


def _object(data: Any, path: Path) -> dict[str, list[Any]]:
    if not isinstance(data, dict):
        hint = " Did you swap --truth and --results?" if isinstance(data, list) else ""
        raise InputError(f"{path} is not YouTube-VIS: it must be an object.{hint}")
    members = cast("dict[str, Any]", data)
    for name in ("videos", "categories", "annotations"):
        if not isinstance(members.get(name), list):
            has = ", ".join(map(repr, list(members)[:5])) or "nothing"
            raise InputError(f"{path} is not YouTube-VIS: {name!r} must be a list; the file has {has}.")
    return members


def _classes(categories: list[Any], path: Path) -> tuple[list[str], dict[int, int]]:
    ids = [_get(category, "id") for category in categories]
    if any(type(i) is not int for i in ids) or len(set(ids)) < len(ids):
        raise InputError(f"{path} is not YouTube-VIS: categories must have distinct integer ids, got {ids[:10]}.")
    ordered = sorted(categories, key=lambda category: category["id"])
    plain = [str(category.get("name", category["id"])) for category in ordered]
    pairs = zip(plain, ordered, strict=True)
    names = [name if plain.count(name) == 1 else f"{name} (id {category['id']})" for name, category in pairs]
    return names, {category["id"]: k for k, category in enumerate(ordered)}


def _videos(entries: list[Any], path: Path) -> dict[Any, _Video]:
    out: dict[Any, _Video] = {}
    for k, entry in enumerate(entries):
        key, height, width = _key(entry, "id"), _get(entry, "height"), _get(entry, "width")
        sound = type(height) is int and type(width) is int and height > 0 and width > 0
        if key is None or key in out or not sound:
            raise InputError(
                f"{path} is not YouTube-VIS: videos[{k}] must have an id of its own, height and width, got "
                f"{ {'id': key, 'height': height, 'width': width} }."
            )
        length, files = _get(entry, "length"), _get(entry, "file_names")
        if type(length) is not int:
            length = len(cast("list[Any]", files)) if isinstance(files, list) else None
        out[key] = _Video(height, width, length)
    return out


def _by_instance(data: dict[str, list[Any]], videos: dict[Any, _Video], problems: Problems) -> list[tuple[int, Entry]]:
    """Annotations of single frames as tubes, each with the place of its first annotation."""
    where: dict[Any, tuple[Any, int]] = {}
    for image in data.get("images", []):
        video, frame = _key(image, "video_id"), _get(image, "frame_id")
        if video in videos and type(frame) is int and frame >= 0:
            where[_key(image, "id")] = video, frame
            videos[video].length = max(videos[video].length or 0, frame + 1)
    out: dict[tuple[Any, Any], tuple[int, Entry]] = {}
    for k, entry in enumerate(data["annotations"]):
        video, frame = where.get(_key(entry, "image_id"), (None, 0))
        instance = _key(entry, "instance_id")
        if video is None or instance is None:
            problems.add([k], lambda _: "image_id must be of an image with video_id and frame_id, instance_id be there")
            continue
        length = videos[video].length or 0
        shared = {name: entry.get(name) for name in ("category_id", "iscrowd")} | {"video_id": video}
        _, tube = out.setdefault(
            (video, instance), (k, shared | {"segmentations": [None] * length, "areas": [None] * length})
        )
        if tube["segmentations"][frame] is not None or tube["category_id"] != shared["category_id"]:
            text = f"instance {instance} has another mask in frame {frame}, or another class"
            problems.add([k], lambda _, text=text: text)
            continue
        tube["segmentations"][frame], tube["areas"][frame] = entry.get("segmentation"), entry.get("area")
    return list(out.values())


def _assign(
    entries: Sequence[tuple[int, Any]], videos: dict[Any, _Video], labels: dict[int, int], problems: Problems, *,
    scored: bool,
) -> None:  # fmt: skip
    """Give the entries to their videos, those that can be used as far as that shows without their masks."""
    seen: set[Any] = set()
    for k, entry in entries:
        video, category, parts = (_get(entry, name) for name in ("video_id", "category_id", "segmentations"))
        score, number = _get(entry, "score"), _key(entry, "id")
        fault = None
        if not isinstance(video, (int, str)) or video not in videos:
            fault = f"video {video!r:.60} is not in the videos"
        elif type(category) is not int or category not in labels:
            fault = f"category {category!r:.60} is not in the categories"
        elif scored and not (type(score) in (int, float) and 0 <= score <= 1):
            fault = f"score must lie in [0, 1], got {score!r:.60}"
        elif not isinstance(parts, list):
            fault = f"segmentations must be a list, one for each frame, got {parts!r:.60}"
        elif not scored and number is not None and number in seen:
            fault = f"id {number} occurs before"
        else:
            length = len(cast("list[Any]", parts))
            its = videos[video]
            its.length = length if its.length is None else its.length
            if its.length != length:
                fault = f"segmentations must be one for each of {its.length} frames of video {video}, got {length}"
            else:
                (its.results if scored else its.truth).append((k, entry))
                seen.add(number)
        if fault:
            problems.add([k], lambda _, fault=fault: fault)


def _get(entry: Any, name: str) -> Any:
    return cast("dict[str, Any]", entry).get(name) if isinstance(entry, dict) else None


def _key(entry: Any, name: str) -> int | str | None:
    value = _get(entry, name)
    return value if type(value) in (int, str) else None


# ---- entries -> tubes -----------------------------------------------------------------------------------------------


def _decoded(entries: list[tuple[int, Entry]], video: _Video, problems: Problems) -> _Shown:
    """The masks of the sound ones among ``entries``."""
    try:
        return _runs([entry for _, entry in entries], video)
    except InputError:
        kept: list[Entry] = []
        for k, entry in entries:
            try:
                _runs([entry], video)
                kept.append(entry)
            except InputError as error:
                problems.add([k], lambda _, error=error: str(error).rstrip("."))
        return _runs(kept, video)


def _runs(entries: list[Entry], video: _Video) -> _Shown:
    from maskwright.ops import rle
    from maskwright.ops.polygons import rasterize

    size = (video.height, video.width)
    owner: list[int] = []
    frame: list[int] = []
    forms: list[Any] = []
    for n, entry in enumerate(entries):
        for t, form in enumerate(entry["segmentations"]):
            if not form:
                continue
            if isinstance(form, list):
                try:
                    points = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in cast("list[Any]", form)]
                except (TypeError, ValueError) as error:
                    raise InputError(
                        f"frame {t}: polygons must be lists [x, y, x, y, ...], got {form!r:.60}"
                    ) from error
                form = {"size": list(size), "counts": rasterize(points, size).tolist()}
            owner.append(n)
            frame.append(t)
            forms.append(form)
    counts, offsets = rle.from_coco(forms, size)
    return _Shown(entries, counts, offsets, np.array(owner, np.int64), np.array(frame, np.int64))


def _compared(found: _Shown, truth: _Shown, video: _Video, labels: dict[int, int]) -> tuple[Tubes, Tubes, np.ndarray]:
    """Both sides of a video and what they share."""
    from maskwright.ops import rle

    length = video.length or 0
    common = np.zeros((len(found.entries), len(truth.entries)), np.int64)
    # Long videos in parts, for one canvas holds no more than MAX_PIXELS.
    step = max(1, rle.MAX_PIXELS // (video.height * video.width))
    for begin in range(0, length, step):
        size = min(step, length - begin), video.height, video.width
        sides: list[Runs] = []
        for side in (found, truth):
            inside = np.flatnonzero((side.frame >= begin) & (side.frame < begin + step))
            runs = rle.take(side.counts, side.offsets, inside)
            sides.append(tubes(*runs, side.owner[inside], side.frame[inside] - begin, len(side.entries), size))
        common += rle.intersection(*sides[0], *sides[1])
    out: list[Tubes] = []
    for side in (found, truth):
        areas = np.zeros((len(side.entries), length))
        areas[side.owner, side.frame] = rle.area(side.counts, side.offsets)
        own = np.array([labels[entry["category_id"]] for entry in side.entries], np.int64)
        out.append(Tubes(own, areas.sum(1).astype(np.int64), mean_areas(areas)))
    out[0].scores = np.array([entry["score"] for entry in found.entries], np.float64)
    out[1].crowd = np.array([bool(entry.get("iscrowd")) for entry in truth.entries], bool)
    for n, entry in enumerate(truth.entries):
        stated = entry.get("areas")
        if isinstance(stated, list):  # as the file has them, as the official script does
            known = [value for value in cast("list[Any]", stated) if isinstance(value, (int, float)) and value]
            out[1].areas[n] = np.mean(known) if known else 0.0
    return out[0], out[1], common
