"""Panoptic video files in, ``VideoPanopticQuality`` and ``STQ`` out.

Two layouts: COCO panoptic JSON whose images belong to clips (as of Cityscapes-VPS and VIPSeg), and folders of
KITTI-STEP maps. Clips are read one at a time on each processor; neither torch nor an image library is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import local
from typing import Any, cast

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics import panoptic_files as files
from maskwright.metrics._clips import Maps
from maskwright.metrics._form import Key
from maskwright.metrics._native import run_threads
from maskwright.metrics._panoptic_core import MapSegments
from maskwright.metrics._png import Decoder
from maskwright.metrics.panoptic_files import Faults, Listed
from maskwright.metrics.video_panoptic import STQ, VideoPanopticQuality

_VOID = 255


def read_vpq(
    truth: str | Path, results: str | Path, *, lenient: bool = False, windows: Sequence[int] = (1, 2, 3, 4)
) -> VideoPanopticQuality:
    """VPQ of a results file.

    The truth is COCO panoptic JSON, the PNGs in the folder beside it of the same name. Its images say by ``video_id``
    which clip they are of, and by ``frame_id`` in which order (else that of the file); or ``videos`` list their
    ``images`` (VIPSeg), and annotations come nested by ``video_id``. A segment has one id in all frames of its clip.

    Args:
        truth, results: JSON files; results need the annotations only.
        lenient: leave out and count what cannot be used; a clip of which a frame cannot be compared is left out whole.
        windows: lengths of windows, in frames.

    Raises:
        InputError: as ``read_panoptic``; images say no clip; a segment has another class in another frame.
    """
    paths = Path(truth), Path(results)
    data = files.load_json(paths[0], ("annotations", "categories")), files.load_json(paths[1], ("annotations",))
    names, thing, label_of = files.read_categories(data[0]["categories"], paths[0])
    clips = _clips(data[0], paths[0])
    faults = Faults(paths[0], lenient), Faults(paths[1], lenient)
    listed: list[dict[Key, Listed]] = []
    for side, (content, path, fault) in enumerate(zip(data, paths, faults, strict=True)):
        entries = _flat(content["annotations"])
        listed.append(files.list_annotations(entries, path.with_suffix(""), label_of, fault, truth=side == 0))
    for image in sorted({i for clip in clips.values() for i in clip}, key=str):
        for side in (0, 1):
            if image not in listed[side]:
                faults[side].add(-1, f"image {image!r} has no {'prediction' if side else 'annotation'}")
    metric = VideoPanopticQuality(names, thing=thing, windows=windows)
    own = local()

    def work(clip: Key) -> None:
        if not hasattr(own, "decoders"):
            own.decoders = Decoder(), Decoder()
        if any(image not in its for its in listed for image in clips[clip]):
            return
        sides: list[tuple[np.ndarray, MapSegments]] = []
        for its, decoder, fault in zip(listed, own.decoders, faults, strict=True):
            read = _read([its[image] for image in clips[clip]], decoder, fault)
            if read is None:
                return
            sides.append(read)
        try:
            metric.update_ids(sides[1], sides[0], clip)
        except ValueError as error:
            faults[1].add(-1, f"clip {clip!r}: {error}")

    run_threads([lambda clip=clip: work(clip) for clip in clips])
    return _settled(metric, faults, lenient)


def read_step(
    truth: str | Path,
    results: str | Path,
    *,
    classes: Mapping[str, int] | Sequence[str],
    things: Sequence[str],
    lenient: bool = False,
) -> STQ:
    """STQ of folders of KITTI-STEP maps: a folder a clip, a PNG a frame, paired by their paths.

    A pixel's red is its class (255 void), green x 256 + blue its instance; 0 is a crowd in the truth of a thing.

    Args:
        truth, results: folders with a folder a clip, or with the frames of one clip.
        classes: names for the values from 0 on, or name -> value.
        things: which classes are told apart by instances.
        lenient: leave out and count clips that cannot be compared.

    Raises:
        InputError: a folder is missing or empty, maps are missing, damaged or of another size, hold an unknown class;
            or ``things`` names no class.
    """
    values = dict(classes) if isinstance(classes, Mapping) else {name: i for i, name in enumerate(classes)}
    unknown = [name for name in things if name not in values]
    if unknown or not things:
        raise InputError(f"things must be some of the classes {', '.join(list(values)[:20])}, got {', '.join(things)}")
    roots = Path(truth), Path(results)
    frames = _frames(roots[0]), _frames(roots[1])
    faults = Faults(roots[0], lenient), Faults(roots[1], lenient)
    for clip, names in frames[0].items():
        lacking = sorted(set(names) - set(frames[1].get(clip, ())))
        for name in lacking:
            faults[1].add(-1, f"{Path(clip) / name} is missing")
    metric = STQ(list(values), thing=[name in things for name in values])
    table = np.full(256, len(values), np.int64)
    table[list(values.values())] = np.arange(len(values))
    table[_VOID] = _VOID if len(values) <= _VOID else -1
    own = local()

    def work(clip: str) -> None:
        if not hasattr(own, "decoder"):
            own.decoder = Decoder()
        if set(frames[0][clip]) - set(frames[1].get(clip, ())):
            return
        sides: list[Maps] = []
        for root, fault in zip(roots, faults, strict=True):
            read = _step_maps([root / clip / name for name in frames[0][clip]], table, len(values), own.decoder, fault)
            if read is None:
                return
            sides.append(read)
        try:
            metric.update_maps(sides[1], sides[0], clip)
        except ValueError as error:
            faults[1].add(-1, f"clip {clip!r}: {error}")

    run_threads([lambda clip=clip: work(clip) for clip in frames[0]])
    return _settled(metric, faults, lenient)


def _settled(metric: Any, faults: tuple[Faults, Faults], lenient: bool) -> Any:
    for fault in faults:
        fault.settle()
    if lenient:
        metric.dropped = {"truth": faults[0].dropped, "results": faults[1].dropped}
    return metric


# ---- JSON -----------------------------------------------------------------------------------------------------------


def _clips(data: dict[str, Any], path: Path) -> dict[Key, list[Key]]:
    """Clip -> its images in order."""
    rows: dict[Key, list[tuple[Any, int, Key]]] = {}
    images: list[tuple[Any, Any]] = [(None, image) for image in cast("list[Any]", data.get("images") or [])]
    for video in cast("list[Any]", data.get("videos") or []):
        if isinstance(video, dict) and isinstance(cast("dict[str, Any]", video).get("images"), list):
            its = cast("dict[str, Any]", video)
            images += [(its.get("video_id", its.get("id")), image) for image in its["images"]]
    for place, (clip, image) in enumerate(images):
        entry = cast("dict[str, Any]", image) if isinstance(image, dict) else {}
        clip = entry.get("video_id", clip)
        if type(clip) not in (int, str) or type(entry.get("id")) not in (int, str):
            raise InputError(
                f"{path}: an image must have an id and a video_id, which clip it is of, got {image!r:.80}."
            )
        order = entry.get("frame_id")
        rows.setdefault(clip, []).append((order if isinstance(order, int) else place, place, entry["id"]))
    if not rows:
        raise InputError(f"{path} must list images, each with the video_id of its clip, but has none.")
    return {clip: [image for *_, image in sorted(frames, key=lambda row: row[:2])] for clip, frames in rows.items()}


def _flat(entries: list[Any]) -> list[Any]:
    """Annotations of images, also where they come nested by clip."""
    out: list[Any] = []
    for entry in entries:
        inner = cast("dict[str, Any]", entry).get("annotations") if isinstance(entry, dict) else None
        out += cast("list[Any]", inner) if isinstance(inner, list) else [entry]
    return out


def _read(frames: Sequence[Listed], decoder: Decoder, faults: Faults) -> tuple[np.ndarray, MapSegments] | None:
    """Ids [T, H, W] of a clip and its segments; ``None`` after noting what is wrong."""
    maps: list[np.ndarray] = []
    rows: dict[int, tuple[int, int]] = {}
    for listed in frames:
        found = files.read_map(listed, decoder, listed.size, faults)
        if found is None:
            return None
        ids = found.astype(np.int64)
        known = np.array(sorted(listed.segments), np.int64)
        present = np.unique(ids[ids > 0])
        strange = np.setdiff1d(present, known)
        for ident in np.setdiff1d(strange, listed.refused).tolist():
            faults.add(listed.entry, f"id {ident} is in the PNG but not among the segments")
        ids[np.isin(ids, strange)] = 0
        for ident in np.intersect1d(present, known).tolist():
            label, crowd, _ = listed.segments[ident]
            if rows.setdefault(ident, (label, crowd)) != (label, crowd):
                faults.add(listed.entry, f"segment {ident} is of another class or crowd than in frames before")
                return None
        maps.append(ids)
    if len({m.shape for m in maps}) != 1:
        faults.add(frames[0].entry, "the frames of a clip must be of one size")
        return None
    labels, crowds = (np.array([row[k] for row in rows.values()], np.int64) for k in (0, 1))
    return np.stack(maps), MapSegments(np.array(list(rows), np.int64), labels, crowds.astype(bool))


# ---- folders --------------------------------------------------------------------------------------------------------


def _frames(root: Path) -> dict[str, list[str]]:
    """Clip (a folder, "" for the root itself) -> names of its frames."""
    if not root.is_dir():
        raise InputError(f"{root} must be a folder of maps, or of a folder a clip. Check its name.")
    out: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.png")):
        out.setdefault(path.parent.relative_to(root).as_posix(), []).append(path.name)
    if not out:
        raise InputError(f"{root} holds no PNG maps. Check the folder.")
    return out


def _step_maps(paths: Sequence[Path], table: np.ndarray, unknown: int, decoder: Decoder, faults: Faults) -> Maps | None:
    """Classes and instances [T, H, W] of a clip."""
    maps: list[np.ndarray] = []
    for path in paths:
        found = files.read_map(Listed(-1, path, {}, []), decoder, maps[0].shape if maps else None, faults)
        if found is None:
            return None
        classes = table[found & 255]
        if (classes == unknown).any():
            values = np.unique((found & 255)[classes == unknown])[:5].tolist()
            faults.add(-1, f"{path}: its red must be the value of a class or {_VOID} (void), got {values}")
            return None
        maps.append(found.copy())
    whole = np.stack(maps)
    return table[whole & 255], (whole >> 8 & 255) << 8 | whole >> 16 & 255
