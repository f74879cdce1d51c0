"""Drawn scenes written to a folder, with every label in a common format.

- ``images/KEY.png`` (or .jpg).
- ``instances.json``: COCO instances with, beyond COCO, ``amodal_segmentation`` (run-lengths of the whole object as
  far as it is in the picture), ``occluded`` (the share of it that is hidden) and ``track_id``; images of clips have
  ``video_id`` and ``frame_id``, and there is a list of ``videos``.
- ``panoptic.json`` with ``panoptic/KEY.png``: COCO panoptic; the segments' ids are their tracks.
- ``semantic/KEY.png``: 8 bits, dense labels (the categories of ``panoptic.json`` in order), 255 void.
- ``depth/KEY.png``: 16 bits, in steps that ``knobs.json`` gives (``depth_steps`` to the unit, 1000 for millimeters),
  65535 for what is farther or endlessly far.
- ``flow/KEY.flo``: Middlebury's form (Baker et al. 2011), 1e10 where unknown; none for the last frame of a clip.
- ``knobs.json``: all that is needed to draw the set again.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from PIL import Image

from maskwright.data.synthetic.drawn import Drawn
from maskwright.data.synthetic.scenes import Synthetic
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.storage import replacing, write_json
from maskwright.structures import Taxonomy

Form = Literal["png", "jpg"]

UNKNOWN_FLOW = 1e10
"""What Middlebury's files hold where there is no flow."""


def write_set(
    source: Synthetic,
    out: str | Path,
    *,
    form: Form = "png",
    workers: int = 0,
    done: Callable[[int], None] | None = None,
) -> int:
    """Draw a whole set into a folder.

    Args:
        source: made with ``instances=False``.
        out: a folder that is empty or does not exist.
        form: ``png``, or ``jpg`` of quality 95, which is smaller and not exact.
        workers: processes that draw; the files are the same for any number.
        done: called with the number of pictures finished.

    Returns:
        How many objects were written.

    Raises:
        InputError: the folder is in use, cannot be written, or the disk is full; what was being written is then absent,
            not cut short.
    """
    out = Path(out)
    if source.instances:
        raise ValueError("writing needs all segments: make the source with instances=False")
    if len(source.taxonomy) > 255:
        raise InputError(f"semantic maps of 8 bits hold 255 classes, the kind has {len(source.taxonomy)}")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"the output must be an empty or a new folder, and {out} is in use. Choose another.")
        return _write(source, out, form, workers, done)
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error.strerror or error}. Make room or choose another.") from error


def _write(source: Synthetic, out: Path, form: Form, workers: int, done: Callable[[int], None] | None) -> int:
    steps = getattr(source.kind, "depth_steps", 1000)
    settings = {
        "kind": source.name,
        "seed": source.seed,
        "n": source.count,
        "size": source.size,
        "frames": source.frames,
    }
    written = 0
    with ExitStack() as stack:
        things = stack.enter_context(_Document(out / "instances.json"))
        panoptic = stack.enter_context(_Document(out / "panoptic.json"))
        make = partial(_clip, source, out, form, steps)
        for clip, pictures in enumerate(_each(stack, make, source.count, workers)):
            for frame, (image, objects, segments) in enumerate(pictures):
                for found in objects:
                    written += 1
                    things.add({"id": written, **found})
                things.images.append(image)
                panoptic.images.append(image)
                panoptic.add(segments)
                if done is not None:
                    done(clip * source.frames + frame + 1)
        rest: dict[str, Any] = {}
        if source.frames > 1:
            names = (source.key(clip * source.frames).rpartition("-")[0] for clip in range(source.count))
            rest["videos"] = [{"id": clip + 1, "name": name} for clip, name in enumerate(names)]
        things.end({**rest, "categories": _categories(source.taxonomy, things_only=True)})
        panoptic.end({**rest, "categories": _categories(source.taxonomy, things_only=False)})
    write_json(out / "knobs.json", {**settings, "depth_steps": steps, "knobs": asdict(source.knobs)}, indent=True)
    return written


Picture = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]
"""A picture's entries: its image, its objects without ids, its panoptic annotation."""


def _each(stack: ExitStack, make: Callable[[int], list[Picture]], count: int, workers: int) -> Iterator[list[Picture]]:
    if workers <= 0 or count < 2:
        return map(make, range(count))
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = stack.enter_context(multiprocessing.get_context(method).Pool(min(workers, count)))
    return pool.imap(make, range(count))


class _Document:
    """A JSON document whose annotations go to disk as they come; it appears whole at its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.images = path, list[dict[str, Any]]()
        self._many = 0

    def __enter__(self) -> _Document:
        with ExitStack() as stack:
            beside = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(open(beside, "wb"))
            self._file.write(b'{"annotations": [')
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, annotation: dict[str, Any]) -> None:
        self._file.write((b",\n" if self._many else b"\n") + orjson.dumps(annotation))
        self._many += 1

    def end(self, rest: dict[str, Any]) -> None:
        self._file.write(b"],\n" + orjson.dumps({"images": self.images, **rest})[1:])


def _clip(source: Synthetic, out: Path, form: Form, steps: int, clip: int) -> list[Picture]:
    """Write the files of one clip and return its entries."""
    pictures: list[Picture] = []
    try:
        for frame in range(source.frames):
            index = clip * source.frames + frame
            drawn, key = source.drawn(index), source.key(index)
            _save_files(drawn, out, key, form, steps)
            image: dict[str, Any] = {
                "id": index + 1,
                "file_name": f"{key}.{form}",
                "height": source.size[0],
                "width": source.size[1],
            }
            if source.frames > 1:
                image |= {"video_id": clip + 1, "frame_id": frame}
            pictures.append((image, *_entries(drawn, source.taxonomy, index + 1, key)))
    except OSError as error:
        # Plain text: what a worker raises has to be sent to the process that asked.
        raise InputError(f"cannot write into {out}: {error.strerror or error}. Make room or choose another.") from None
    return pictures


def _save_files(drawn: Drawn, out: Path, key: str, form: Form, steps: int) -> None:
    _save_image(out / "images" / f"{key}.{form}", drawn.image.transpose(1, 2, 0))
    semantic = np.where(drawn.semantic < 0, 255, drawn.semantic).astype(np.uint8)
    _save_image(out / "semantic" / f"{key}.png", semantic)
    ids = drawn.panoptic
    if int(ids.max(initial=0)) >= 1 << 24:
        raise InputError(f"{key}: track {int(ids.max())} does not fit a panoptic picture (24 bits)")
    _save_image(out / "panoptic" / f"{key}.png", np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8))
    depth = np.clip(np.nan_to_num(drawn.depth * steps, posinf=65535) + 0.5, 0, 65535).astype(np.uint16)
    _save_image(out / "depth" / f"{key}.png", depth)
    if drawn.flow is not None:
        flow = np.nan_to_num(drawn.flow, nan=UNKNOWN_FLOW).transpose(1, 2, 0)
        head = b"PIEH" + np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
        _put(out / "flow" / f"{key}.flo", head + np.ascontiguousarray(flow, "<f4").tobytes())


def _entries(drawn: Drawn, taxonomy: Taxonomy, image_id: int, key: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    size = drawn.size
    corners = rle.boxes(*drawn.visible, size[0])
    areas = rle.area(*drawn.visible).tolist()
    visible, amodal = rle.to_coco(*drawn.visible, size), rle.to_coco(*drawn.amodal, size)
    objects: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for i, label in enumerate(drawn.labels.tolist()):
        x1, y1, x2, y2 = (int(v) for v in corners[i])
        shared = {
            "category_id": taxonomy.source_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(areas[i]),
            "iscrowd": 0,
        }
        segments.append({"id": int(drawn.tracks[i]), **shared})
        if taxonomy.thing[label]:
            objects.append(
                {
                    "image_id": image_id,
                    **shared,
                    "segmentation": visible[i],
                    "amodal_segmentation": amodal[i],
                    "occluded": round(float(drawn.occluded[i]), 4),
                    "track_id": int(drawn.tracks[i]),
                }
            )
    return objects, {"image_id": image_id, "file_name": f"{key}.png", "segments_info": segments}


def _categories(taxonomy: Taxonomy, *, things_only: bool) -> list[dict[str, Any]]:
    rows = zip(taxonomy.source_ids, taxonomy.names, taxonomy.thing, taxonomy.colors, strict=True)
    return [
        {"id": number, "name": name, "isthing": int(thing), "color": list(color)}
        for number, name, thing, color in rows
        if thing or not things_only
    ]


def _save_image(path: Path, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if path.suffix == ".jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "PNG", compress_level=3)
    _put(path, buffer.getvalue())


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
