"""Frames dumped from AI2-THOR's controller: colors of instances, and what each color is.

AI2-THOR has no file format; this layout is read, of one scene or of several in folders of their own::

    [SCENE/]rgb/NAME.png                      event.frame (or frames/, images/)
    [SCENE/]instance_segmentation/NAME.png    event.instance_segmentation_frame (or instance/, instances/)
    [SCENE/]metadata/NAME.json                event.metadata, or an object that holds it as "metadata"

The JSON says what the colors are in one of these ways: ``colors`` of the metadata itself (``[{"name": id, "color": [r,
g, b]}]``, as the server sends it), ``object_id_to_color`` (``{id: [r, g, b]}``, ``event.object_id_to_color``), or
``color_to_object_id`` (``{"(r, g, b)": id}`` with the tuple as text, or ``[[[r, g, b], id]]``). An object's class is
its ``objectType`` in ``objects``, else the part of its id before the first ``|``; colors whose id has no ``|`` and is
not in ``objects`` are classes' and structures' and are background, as are colors that are not listed.

Objects keep one track over the frames of a scene; ``sequence`` is the scene's folder, ``frame`` the number in the name.

Source: https://ai2thor.allenai.org/ithor/documentation/environment-state.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.data.label_maps import read_map
from maskwright.errors import InputError
from maskwright.storage import read_json

_PICTURES = ("rgb", "frames", "images")
_TRUTH = ("instance_segmentation", "instance", "instances")
_META = "metadata"


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder, or folders in it, with ``instance_segmentation`` beside ``metadata`` JSONs."""
    return any(
        maps.holds(path, f"{deep}{_META}/*.json") and maps.holds(path, *(f"{deep}{name}/*.png" for name in _TRUTH))
        for deep in ("", "*/")
    )


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all scenes as one split.

    Args:
        path: a scene's folder, or the folder of the scenes' folders.
        images: the folder of the pictures, of one scene only.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged.
    """
    scenes = [folder for folder in [path, *maps.folders(path)] if _truth(folder) is not None]
    if not scenes:
        raise InputError(f"{path} holds no {_TRUTH[0]} with {_META} beside it.")
    if images is not None and len(scenes) > 1:
        raise InputError(f"{path} has several scenes, so their pictures cannot all be in {images}. Read one scene.")
    build = Builder(path, "ai2thor", strict=strict)
    for scene in scenes:
        truth = _truth(scene)
        pictures = maps.first_existing(scene / name for name in _PICTURES) if images is None else images
        if pictures is None or truth is None:
            raise InputError(f"{scene} holds no pictures ({', '.join(_PICTURES)}). Name their folder (--images).")
        _read_scene(build, path, scene, pictures, truth)
    return build.done()


def _truth(scene: Path) -> Path | None:
    return maps.first_existing(scene / name for name in _TRUTH) if (scene / _META).is_dir() else None


def _read_scene(build: Builder, root: Path, scene: Path, pictures: Path, truth: Path) -> None:
    metas = maps.files(scene / _META, (".json",))
    tracks: dict[str, int] = {}
    prefix = "" if scene == root else f"{scene.relative_to(root).as_posix()}/"
    for name, file, found in maps.paired(build, maps.files(pictures), maps.files(truth, (".png",)), WHOLE):
        size = image_size(file)
        build.image(f"{prefix}{name}{file.suffix}", file, size, sequence=scene.name, frame=maps.number_of(file.stem))
        if found is None:
            continue
        if name not in metas:
            build.problem("a frame without metadata", str(found))
            continue
        meanings: dict[int, maps.Meaning] = {}
        for color, ident, kind in _named(metas[name]):
            meanings[maps.rgb_value(color)] = maps.Meaning(kind, track=tracks.setdefault(ident, len(tracks)))
        maps.add_objects(build, read_map(found, "rgb", size), meanings.get, str(found))


def _named(path: Path) -> list[tuple[maps.Color, str, str]]:
    """(color, object id, class) of the objects that a metadata file lists."""
    data = read_json(path)
    meta: Any = data.get("metadata", data) if isinstance(data, dict) else None
    if not isinstance(meta, dict):
        raise InputError(f"{path} must hold the metadata of an event.")
    sources = (data, meta)
    pairs: list[tuple[Any, Any]] | None = None
    for source in sources:
        for key in ("object_id_to_color", "color_to_object_id", "colors"):
            if pairs is None and isinstance(source.get(key), (dict, list)):
                pairs = _pairs(source[key], key)
    if pairs is None:
        raise InputError(f"{path} says nothing of colors: it needs colors, object_id_to_color or color_to_object_id.")
    kinds: dict[str, str] = {}
    objects: Any = meta.get("objects")
    for item in objects if isinstance(objects, list) else []:
        if isinstance(item, dict) and isinstance(item.get("objectId"), str) and isinstance(item.get("objectType"), str):
            kinds[item["objectId"]] = item["objectType"]
    out: list[tuple[maps.Color, str, str]] = []
    for color, ident in pairs:
        rgb = _color(color)
        if rgb is None or not isinstance(ident, str):
            raise InputError(
                f"{path}: a color must be three numbers in 0..255 with an object id, got {str(color)[:60]!r}"
            )
        if ident in kinds or "|" in ident:
            out.append((rgb, ident, kinds.get(ident, ident.partition("|")[0])))
    return out


def _pairs(value: Any, key: str) -> list[tuple[Any, Any]]:
    """(color, object id) of one of the forms."""
    if key == "object_id_to_color" and isinstance(value, dict):
        return [(color, ident) for ident, color in value.items()]
    if isinstance(value, dict):
        return list(value.items())
    if key == "colors":
        return [(row.get("color"), row.get("name")) if isinstance(row, dict) else (row, None) for row in value]
    return [(row[0], row[1]) if isinstance(row, list) and len(row) == 2 else (row, None) for row in value]


def _color(value: Any) -> maps.Color | None:
    if isinstance(value, str):
        value = [int(word) for word in re.findall(r"[0-9]{1,3}", value)]
    if not isinstance(value, list) or len(value) not in (3, 4):
        return None
    if not all(isinstance(c, int) and 0 <= c < 256 for c in value):
        return None
    return int(value[0]), int(value[1]), int(value[2])
