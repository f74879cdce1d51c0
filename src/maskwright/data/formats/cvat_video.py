"""CVAT for video 1.1: tracks over the frames of one or several tasks (https://docs.cvat.ai/docs/other/xml_format).

The tool's export lists every frame of a track; between frames that are not listed, as in files made for its import, it
interpolates keyframes, and so does this reader: numbers of boxes, ellipses and polygons of equally many points
linearly, angles the short way; masks and other polygons stay. ``outside`` ends a track until its next shape that is
not; a track without one goes on to the task's last frame. Shapes are read as in ``cvat``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.cvat_shapes import (
    NO_REGIONS,
    REGIONS,
    Figure,
    add_crowd,
    add_labels,
    beginning,
    between,
    classes,
    figure,
    file_of,
    is_crowd,
    outline_of,
    save,
    shape_elements,
    text_of,
    whole,
)
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.io import SUFFIXES, image_size
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.storage import read_xml
from maskwright.structures import Record

_MOST_FRAMES = 250_000
_MOST_OBJECTS = 2_000_000
_FRAME = re.compile(r"(?:frame_)?(\d{1,9})")


def recognizes(path: Path) -> bool:
    """An XML (or the ``annotations.xml`` of a folder) whose root is ``annotations`` and that has tracks."""
    text = beginning(path)
    return b"<image " not in text and (b"<track " in text or b"interpolation</mode>" in text)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read the export of a task, or of a project, whose tasks are the sequences and whose subsets are the splits.

    Every frame of a task is an image. Frames are named ``frame_000010.png`` (or by the number alone) and looked for in
    ``images/SUBSET/TASK``, ``images/TASK``, ``images/SUBSET``, ``images`` and beside the XML. An export may come
    without them: where none is found, records have the paths at which they should be; where some are, frames without
    annotations and without a picture are left out.

    Raises:
        InputError: the file is missing or not of this format; an annotated frame's picture is missing while others are
            there; the size of a task's frames is not known; objects are broken and ``strict``.
    """
    file = file_of(path)
    root = read_xml(file)
    if root.tag != "annotations":
        raise InputError(f"{file} is not a CVAT file: its root must be annotations, got {root.tag[:60]}.")
    build = Builder(file, "cvat-video", classes(root, file), strict=strict)
    for name in (root.findtext("meta/project/subsets") or "").split("\n"):
        if name.strip():
            build.split(inside_folder(name.strip(), file))
    left: dict[str, list[str]] = {}
    tasks = _tasks(root, file, images)
    for position, track in enumerate(root.iterfind("track")):
        task = tasks.get(track.get("task_id") or "", next(iter(tasks.values())) if len(tasks) == 1 else None)
        if task is None:
            build.problem("a task_id that is not among the tasks", f"track {track.get('id', position)}")
            continue
        _read_track(build, track, position, task, left)
    for task in tasks.values():
        _add_frames(build, task, file, many=len(tasks) > 1, left=left)
    return figures.leaving_out(build.done(), left)


def write(path: Path, dataset: Dataset) -> None:
    """Write one XML with a task for every sequence and all splits as subsets; every frame of every track is listed.

    An outline of several polygons becomes a mask. Objects without a track become tracks of one frame. Ids and areas are
    not kept, and pictures are named by their frame.

    Raises:
        InputError: images without sequence or frame, or with one frame twice; frames of one sequence have different
            sizes; a track is in a frame twice; a name that XML cannot hold; the file cannot be written.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for split, source in dataset.splits.items():
        for index in range(len(source)):
            record = source.record(index)
            if record.sequence is None or record.frame is None or record.frame < 0:
                raise InputError(
                    f"{record.key}: a video needs the sequence and frame of every image. Use cvat for images."
                )
            groups.setdefault((split, record.sequence), []).append(record)
    root = Element("annotations")
    text_of(root, "version", "1.1")
    meta = SubElement(SubElement(root, "meta"), "project")
    text_of(meta, "name", "maskwright")
    text_of(
        meta,
        "subsets",
        "\n".join(figures.check_xml(name, "a subset of CVAT") for name in dataset.splits if name != WHOLE),
    )
    listed = SubElement(meta, "tasks")
    add_labels(meta, dataset.taxonomy)
    for number, ((split, sequence), records) in enumerate(groups.items(), 1):
        frames = sorted(r.frame for r in records if r.frame is not None)
        step = math.gcd(*(frame - frames[0] for frame in frames)) or 1
        sizes = {record.size for record in records}
        if len(sizes) > 1 or len(set(frames)) < len(frames):
            raise InputError(
                f"the sequence {sequence} must have frames of one size, each once, got {len(frames)} of which "
                f"{len(set(frames))} are distinct, with {len(sizes)} sizes"
            )
        _add_task(listed, number, sequence, split, frames, step, records[0].size)
        _add_tracks(root, number, split, records, step, dataset.taxonomy.names)
    save(root, path)


def picture(root: Path, split: str, record: Record) -> Path:
    """``images/SPLIT/SEQUENCE/frame_000010.png``."""
    folder = root / "images" if split == WHOLE else root / "images" / split
    return folder / str(record.sequence) / f"frame_{record.frame or 0:06d}{record.path.suffix}"


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shown:
    """An object on one frame."""

    label: str
    figure: Figure
    crowd: bool
    height: int
    track: int
    where: str


@dataclass(slots=True)
class _Task:
    sequence: str
    split: str
    frames: range
    size: tuple[int, int]
    pictures: dict[int, Path]
    folder: Path
    shown: dict[int, list[_Shown]] = field(default_factory=dict)
    total: int = 0


def _tasks(root: Element, file: Path, images: Path | None) -> dict[str, _Task]:
    """Id -> task."""
    rows = [*root.iterfind("meta/task"), *root.iterfind("meta/job"), *root.iterfind("meta/project/tasks/task")]
    out: dict[str, _Task] = {}
    for row in rows or [Element("task")]:
        ident = row.findtext("id") or ""
        name = (row.findtext("name") or "").strip() or (f"task {ident}" if len(rows) > 1 else file.stem)
        try:
            frames = _frames(row, root)
        except figures.FigureError as error:
            raise InputError(f"{file}: the frames of the task {name} have {error}. Correct meta.") from error
        split = inside_folder((row.findtext("subset") or "").strip() or WHOLE, file)
        folder, pictures = _pictures(file.parent, images, split, name)
        height, width = row.findtext("original_size/height"), row.findtext("original_size/width")
        if height is not None and width is not None:
            size = figures.size_of(height, width, f"{file}: task {name}")
        elif pictures:
            size = image_size(next(iter(pictures.values())))
        else:
            raise InputError(
                f"{file}: the size of the frames of {name} is not known: meta has no original_size, and no pictures "
                "are beside the file. Name their folder with images= (--images)."
            )
        while (split, name) in {(task.split, task.sequence) for task in out.values()}:
            name += " (again)"
        out[ident] = _Task(name, split, frames, size, pictures, folder)
    return out


def _frames(row: Element, root: Element) -> range:
    start = whole(row.findtext("start_frame"), 0)
    step = re.search(r"step=(\d{1,9})", row.findtext("frame_filter") or "")
    stride = int(step[1]) if step else 1
    if row.find("stop_frame") is not None:
        stop = whole(row.findtext("stop_frame"))
    elif row.find("size") is not None:
        stop = start + (whole(row.findtext("size")) - 1) * max(stride, 1)
    else:
        stop = max((whole(e.get("frame")) for e in root.iterfind("track/*")), default=start - 1)
    if start < 0 or stride < 1 or (stop - start) // stride >= _MOST_FRAMES:
        raise figures.FigureError(f"numbers that cannot be ({start} to {stop} by {stride})")
    return range(start, stop + 1, stride)


def _pictures(parent: Path, images: Path | None, split: str, name: str) -> tuple[Path, dict[int, Path]]:
    """The first folder that has frames, and frame -> picture; the first that could have them where none has."""
    safe = re.fullmatch(r"[^/\\\0]+", name) and name not in (".", "..")
    candidates: list[Path] = []
    for base in (parent / "images", parent) if images is None else (images,):
        candidates += [base / split / name, base / name] if safe else []
        candidates += [base / split, base]
    for folder in candidates:
        found: dict[int, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            number = _FRAME.fullmatch(path.stem)
            if number and path.suffix.lower() in SUFFIXES:
                found.setdefault(int(number[1]), path)
        if found:
            return folder, found
    return (parent / "images" if images is None else images), {}


def _read_track(build: Builder, track: Element, position: int, task: _Task, left: dict[str, list[str]]) -> None:
    """Put a track's objects on the frames of its task."""
    name = f"track {track.get('id', position)}"
    ident = track.get("id") or ""
    number = int(ident) if re.fullmatch(r"\d{1,18}", ident) else position
    keys: list[tuple[int, Figure, Element]] = []
    for element in track:
        where = f"{name} frame {element.get('frame')}"
        if element.tag in NO_REGIONS:
            left.setdefault(f"shapes that are no regions ({element.tag})", []).append(where)
        elif element.tag in REGIONS:
            with figures.noting(build, where):
                keys.append((whole(element.get("frame")), figure(element, task.size), element))
    keys.sort(key=lambda key: key[0])
    for i, (frame, drawn, element) in enumerate(keys):
        if element.get("outside") == "1":
            continue
        follow = keys[i + 1] if i + 1 < len(keys) else None
        until = task.frames.stop if follow is None else follow[0]
        with figures.noting(build, f"{name} frame {frame}"):
            height, crowd = whole(element.get("z_order"), 0), is_crowd(element)
            for at in _within(task.frames, frame, until):
                part = (at - frame) / (until - frame)
                shown = drawn if follow is None else between(drawn, follow[1], part)
                item = _Shown(track.get("label") or "", shown, crowd, height, number, f"{name} frame {at}")
                task.shown.setdefault(at, []).append(item)
                task.total += 1
            if frame not in task.frames:
                raise figures.FigureError("a frame that is not in its task")
        if task.total > _MOST_OBJECTS:
            raise InputError(f"{build.path}: the tracks of {task.sequence} have over {_MOST_OBJECTS} objects.")


def _within(frames: range, begin: int, end: int) -> Iterator[int]:
    """The frames from ``begin`` to before ``end``."""
    first = frames.start + max(0, -(-(begin - frames.start) // frames.step)) * frames.step
    yield from range(first, min(end, frames.stop), frames.step)


def _add_frames(build: Builder, task: _Task, file: Path, *, many: bool, left: dict[str, list[str]]) -> None:
    build.split(task.split)
    some = bool(task.pictures)
    lacking = [f"frame {frame}" for frame in task.frames if frame in task.shown and frame not in task.pictures]
    require_pictures(lacking if some else [], len(task.frames), file, [task.folder])
    for frame in task.frames:
        path = task.pictures.get(frame, task.folder / f"frame_{frame:06d}.png")
        if some and frame not in task.pictures:
            left.setdefault("frames without objects and without a picture", []).append(f"{task.sequence} {frame}")
            continue
        key = inside_folder(f"{task.sequence.replace('/', ' ')}/{path.name}" if many else path.name, file)
        build.image(key, path, task.size, split=task.split, sequence=task.sequence, frame=frame)
        for item in sorted(task.shown.get(frame, ()), key=lambda item: item.height):
            with figures.noting(build, item.where):
                shape, box = outline_of(item.figure, task.size)
                build.object(item.label, shape, item.where, box=box, crowd=item.crowd, track=item.track)


# ---- writing --------------------------------------------------------------------------------------------------------


def _add_task(
    parent: Element, number: int, sequence: str, split: str, frames: list[int], step: int, size: tuple[int, int]
) -> None:
    task = SubElement(parent, "task")
    text_of(task, "id", number)
    text_of(task, "name", figures.check_xml(sequence, "a task of CVAT"))
    text_of(task, "size", (frames[-1] - frames[0]) // step + 1)
    text_of(task, "mode", "interpolation")
    text_of(task, "subset", "" if split == WHOLE else split)
    text_of(task, "start_frame", frames[0])
    text_of(task, "stop_frame", frames[-1])
    text_of(task, "frame_filter", f"step={step}")
    original = SubElement(task, "original_size")
    text_of(original, "width", size[1])
    text_of(original, "height", size[0])


def _add_tracks(root: Element, task: int, split: str, records: list[Record], step: int, names: tuple[str, ...]) -> None:
    """A track element for every identity and class, in the order in which they appear."""
    ordered = sorted(records, key=lambda record: record.frame or 0)
    known = [int(t) for record in records if record.tracks is not None for t in record.tracks]
    free = max(known, default=-1) + 1
    tracks: dict[tuple[int, int], dict[int, tuple[str, dict[str, str], bool, int]]] = {}
    for record in map(resolve, ordered):
        for i, label in enumerate(record.labels.tolist()):
            identity = -1 if record.tracks is None else int(record.tracks[i])
            if identity < 0:
                identity, free = free, free + 1
            shapes = tracks.setdefault((identity, label), {})
            frame = record.frame or 0
            if frame in shapes:
                raise InputError(f"{record.key}: the track {identity} is on this frame twice")
            ((tag, own),) = shape_elements(record, i, whole_mask=True)
            shapes[frame] = (tag, own, bool(record.crowd[i]), i)
    last = ordered[-1].frame or 0
    for (identity, label), shapes in tracks.items():
        attributes = {"id": str(identity), "label": names[label], "source": "manual", "task_id": str(task)}
        track = SubElement(root, "track", attributes | ({} if split == WHOLE else {"subset": split}))
        for frame, (tag, own, crowd, place) in shapes.items():
            common = {"frame": str(frame), "keyframe": "1", "outside": "0", "occluded": "0", "z_order": str(place)}
            add_crowd(SubElement(track, tag, common | own), crowd)
            if frame + step not in shapes and frame + step <= last:
                gone = common | {"frame": str(frame + step), "outside": "1"}
                SubElement(track, tag, gone | own)
