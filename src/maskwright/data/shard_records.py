"""One sample of a shard: a record as JSON and PNG members, and back; see ``data.shards`` for the form."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Shape, Taxonomy

_LONGEST_SIDE = 1 << 24
_MOST_PIXELS = 1 << 31
_VOID = 255
_VOID_DEEP = 65535
_INDEXED = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


def annotation_of(record: Record, taxonomy: Taxonomy) -> dict[str, Any]:
    """The JSON of a resolved record.

    Raises:
        InputError: a label is not in the taxonomy.
    """
    outside = record.labels[(record.labels < 0) | (record.labels >= len(taxonomy))]
    if len(outside):
        raise InputError(f"{record.key}: label {outside[0]} is not one of the {len(taxonomy)} classes to be written")
    out: dict[str, Any] = {
        "key": record.key,
        "image_id": int(record.image_id),
        "height": record.size[0],
        "width": record.size[1],
        "objects": [
            {
                "id": int(record.ids[i]),
                "class": taxonomy.names[int(record.labels[i])],
                "box": record.boxes[i].tolist(),
                "area": float(record.areas[i]),
                "crowd": bool(record.crowd[i]),
                **_outline(shape),
            }
            for i, shape in enumerate(record.shapes)
        ],
    }
    if record.tracks is not None:
        out["tracks"] = record.tracks.tolist()
    for name in ("sequence", "frame"):
        if getattr(record, name) is not None:
            out[name] = getattr(record, name)
    return out


def maps_of(record: Record, taxonomy: Taxonomy) -> dict[str, bytes]:
    """The maps of a resolved record: ending -> PNG.

    Raises:
        InputError: a label of the map is not in the taxonomy, or there are too many segments for 16 bits.
    """
    out: dict[str, bytes] = {}
    if isinstance(record.semantic, np.ndarray):
        labels = record.semantic
        if int(labels.max()) >= len(taxonomy):
            raise InputError(f"{record.key}: label {int(labels.max())} is not one of the {len(taxonomy)} classes")
        deep = len(taxonomy) > _VOID
        out["semantic.png"] = _png(np.where(labels < 0, _VOID_DEEP if deep else _VOID, labels), deep)
    if isinstance(record.panoptic, np.ndarray):
        order = np.argsort(record.ids, kind="stable")
        if len(order) >= _VOID_DEEP:
            raise InputError(f"{record.key}: at most {_VOID_DEEP - 1} segments can be written, got {len(order)}")
        places = np.zeros(record.size, np.int64)
        if len(order):
            near = np.minimum(np.searchsorted(record.ids[order], record.panoptic), len(order) - 1)
            hit = (record.ids[order][near] == record.panoptic) & (record.panoptic != 0)
            places = np.where(hit, order[near] + 1, 0)
        out["panoptic.png"] = _png(places, len(order) > 255)
    return out


def record_of(
    data: Mapping[str, Any],
    taxonomy: Taxonomy,
    shard: Path,
    member: str,
    picture: str,
    maps: Mapping[str, tuple[str, bytes]],
) -> Record:
    """The record of a sample.

    Args:
        data: its JSON.
        taxonomy: gives names their labels.
        shard: the archive.
        member: the name of the JSON in it.
        picture: the name of the picture in it.
        maps: ending -> name and PNG of its maps.

    Raises:
        InputError: something is missing, or of another kind than it must be; the message names shard and member.
    """
    where = f"{shard}: {member}"
    try:
        record = _record(data, taxonomy, shard / picture)
        semantic = _semantic(maps.get("semantic.png"), record.size, len(taxonomy), shard)
        panoptic = _panoptic(maps.get("panoptic.png"), record, shard)
    except _WrongError as wrong:
        raise InputError(f"{where}: {wrong}") from None
    if semantic is None and panoptic is None:
        return record
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return Record(**{**fields, "semantic": semantic, "panoptic": panoptic})


class _WrongError(Exception):
    """What is wrong with an annotation."""


def _record(data: Mapping[str, Any], taxonomy: Taxonomy, path: Path) -> Record:
    size = (_whole(data, "height"), _whole(data, "width"))
    if not all(0 < side < _LONGEST_SIDE for side in size) or size[0] * size[1] > _MOST_PIXELS:
        raise _WrongError(f"height and width must be those of a picture, got {size[0]} and {size[1]}")
    objects = data.get("objects")
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise _WrongError("objects must be a list of objects")
    labels = dict(zip(taxonomy.names, range(len(taxonomy)), strict=True))
    unknown = next((e.get("class") for e in objects if _text(e, "class") not in labels), None)
    if unknown is not None:
        raise _WrongError(f"there is no class {unknown[:80]!r} among the {len(taxonomy)} that are known")
    count = len(objects)
    boxes = _numbers([entry.get("box") for entry in objects], (count, 4), "box")
    areas = _numbers([entry.get("area") for entry in objects], (count,), "area")
    crowd = [entry.get("crowd", False) for entry in objects]
    if not all(isinstance(flag, bool) for flag in crowd):
        raise _WrongError("crowd must be true or false")
    shapes = tuple(_shape(entry, size) for entry in objects)
    runs = [(i, shape) for i, shape in enumerate(shapes) if isinstance(shape, dict)]
    if runs:
        try:
            rle.from_coco([shape for _, shape in runs], size)
        except InputError as error:
            raise _WrongError(f"the run-lengths of its objects do not fit: {error}") from None
    tracks, sequence = data.get("tracks"), data.get("sequence")
    if tracks is not None and (not isinstance(tracks, list) or len(tracks) != count):
        raise _WrongError(f"tracks must be one for each of the {count} objects")
    if sequence is not None and not isinstance(sequence, str):
        raise _WrongError("sequence must be a text")
    return Record(
        key=_text(data, "key"),
        path=path,
        size=size,
        labels=np.array([labels[entry["class"]] for entry in objects], np.int64),
        shapes=shapes,
        boxes=boxes.astype(np.float32),
        crowd=np.array(crowd, bool),
        ids=np.array([_whole(entry, "id") for entry in objects], np.int64),
        areas=areas,
        image_id=_whole(data, "image_id"),
        tracks=None if tracks is None else np.array([_whole({"tracks": t}, "tracks") for t in tracks], np.int64),
        sequence=sequence,
        frame=None if data.get("frame") is None else _whole(data, "frame"),
    )


def _outline(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, dict):
        counts = shape["counts"]
        return {"counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
    if shape is None:
        return {}
    assert isinstance(shape, tuple)
    return {"polygons": [np.asarray(ring, np.float64).reshape(-1).tolist() for ring in shape]}


def _shape(entry: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    counts, rings = entry.get("counts"), entry.get("polygons")
    if counts is not None:
        if not isinstance(counts, str) or not counts.isascii():
            raise _WrongError("counts must be a compressed run-length text")
        return {"size": size, "counts": counts.encode("ascii")}
    if rings is None:
        return None
    if not isinstance(rings, list):
        raise _WrongError("polygons must be a list of lists of coordinates")
    out: list[np.ndarray] = []
    for ring in rings:
        length = len(ring) if isinstance(ring, list) else 0
        if length < 6 or length % 2:
            raise _WrongError("a polygon must have three points or more, as x, y, x, y, ...")
        points = _numbers(ring, (length,), "polygons").reshape(-1, 2)
        far = 2.0 * np.array((size[1], size[0]))
        if (points < -far / 2).any() or (points > far).any():
            raise _WrongError("a polygon lies far outside its picture")
        out.append(points)
    return tuple(out)


def _numbers(value: list[Any], shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        found = np.array(value) if value else np.zeros(shape)
    except (TypeError, ValueError, OverflowError):
        found = np.array(None)
    if found.shape != shape or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise _WrongError(f"{name} must be finite numbers" + (" (x1, y1, x2, y2)" if name == "box" else ""))
    return found.astype(np.float64)


def _whole(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise _WrongError(f"{name} must be a whole number, got {str(value)[:80]}")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise _WrongError(f"{name} must be a text, got {str(value)[:80]}")
    return value


def _png(values: np.ndarray, deep: bool) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(out, "png")
    return out.getvalue()


def _map(member: tuple[str, bytes], size: tuple[int, int], shard: Path) -> np.ndarray:
    name, data = member
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != size[::-1] or image.mode not in _INDEXED:
                raise InputError(
                    f"{shard}: {name} must have one channel on {size[0]}x{size[1]} pixels (height x width), "
                    f"got {image.mode} on {image.size[1]}x{image.size[0]}"
                )
            return np.asarray(image).astype(np.int64)
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shard}: {name} cannot be read as a map: {error}.") from error


def _semantic(member: tuple[str, bytes] | None, size: tuple[int, int], classes: int, shard: Path) -> np.ndarray | None:
    if member is None:
        return None
    found = _map(member, size, shard)
    return np.where(found < min(classes, _VOID_DEEP if classes > _VOID else _VOID), found, -1).astype(np.int16)


def _panoptic(member: tuple[str, bytes] | None, record: Record, shard: Path) -> np.ndarray | None:
    if member is None:
        return None
    found = _map(member, record.size, shard)
    if int(found.max()) > len(record):
        raise InputError(f"{shard}: {member[0]} has segment {int(found.max())} of {len(record)} objects")
    return np.concatenate([[0], record.ids])[found]
