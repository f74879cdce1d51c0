"""Virtual KITTI 1.3.1 and 2: scenes in variations (weather, light, camera), every pixel's class, every vehicle's track.

Version 2: ``SceneNN/VARIATION/frames/rgb/Camera_C/rgb_NNNNN.jpg`` with ``classSegmentation/Camera_C/classgt_NNNNN.png``
(colors, named in ``SceneNN/VARIATION/colors.txt``: ``Category r g b``) and ``instanceSegmentation/Camera_C/
instancegt_NNNNN.png`` (a palette; the index is trackID + 1, 0 for no vehicle); ``SceneNN/VARIATION/info.txt``
(``trackID label model color``) says what a track is.

Version 1: ``*rgb/SCENE/VARIATION/NNNNN.png`` and ``*scenegt/SCENE/VARIATION/NNNNN.png`` (colors, named in
``*scenegt/SCENE_VARIATION_scenegt_rgb_encoding.txt``: ``Category(:id) r g b``, the id being the track).

Of version 2, whose archives come apart, cameras without any labels are left out. A sequence is one variation seen by
one camera. Cars, vans and trucks are things. Depth and flow are not read.

Source: Gaidon et al. (CVPR 2016) and Cabon et al., "Virtual KITTI 2" (2020), the data sets' README.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.data.label_maps import read_map
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Taxonomy

_CLASSES: tuple[tuple[str, maps.Color], ...] = (
    ("Terrain", (210, 0, 200)),
    ("Sky", (90, 200, 255)),
    ("Tree", (0, 199, 0)),
    ("Vegetation", (90, 240, 0)),
    ("Building", (140, 140, 140)),
    ("Road", (100, 60, 100)),
    ("GuardRail", (250, 100, 255)),
    ("TrafficSign", (255, 255, 0)),
    ("TrafficLight", (200, 200, 0)),
    ("Pole", (255, 130, 0)),
    ("Misc", (80, 80, 80)),
    ("Truck", (160, 60, 60)),
    ("Car", (255, 127, 80)),
    ("Van", (0, 139, 139)),
)
_VEHICLES = ("Truck", "Car", "Van")
_VOID = "Undefined"
_SECOND = "Scene*/*/frames"
_ENCODING = "_scenegt_rgb_encoding.txt"
_Colors = Mapping[maps.Color, tuple[str, int]]


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``Scene*/*/frames/rgb`` or with ``*scenegt`` and ``*rgb``."""
    return maps.holds(path, f"{_SECOND}/rgb") or (
        maps.holds(path, f"*scenegt/*{_ENCODING}", f"*scenegt/*/*{_ENCODING}") and maps.holds(path, "*rgb")
    )


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all scenes and variations as one split.

    Args:
        path: the folder that holds the scenes (2) or the unpacked archives (1).
        images: version 1: the folder that holds ``SCENE/VARIATION/*.png`` pictures; version 2: the folder with the same
            tree of scenes.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, a track has no class.
    """
    taxonomy = Taxonomy(
        names=tuple(name for name, _ in _CLASSES),
        thing=tuple(name in _VEHICLES for name, _ in _CLASSES),
        colors=tuple(color for _, color in _CLASSES),
    )
    build = Builder(path, "virtual_kitti", taxonomy, strict=strict)
    build.split(WHOLE)
    if maps.holds(path, _SECOND):
        for frames in sorted(path.glob(_SECOND)):
            _read_second(build, taxonomy, path, frames, path if images is None else images)
    elif maps.holds(path, "*scenegt"):
        truth = next(p for p in sorted(path.glob("*scenegt")) if p.is_dir())
        pictures = images or maps.first_existing(sorted(path.glob("*rgb")))
        if pictures is None:
            raise InputError(f"{path} holds no folder *rgb with the pictures. Name it (--images).")
        _read_first(build, taxonomy, truth, pictures)
    else:
        raise InputError(f"{path} holds neither Scene*/*/frames nor *scenegt. Name the folder that does.")
    return build.done()


def _read_second(build: Builder, taxonomy: Taxonomy, root: Path, frames: Path, pictures: Path) -> None:
    variation = frames.parent
    place = frames.relative_to(root)
    table = variation / "colors.txt"
    colors = maps.read_colors(table) if table.is_file() else list(_CLASSES)
    classes = {maps.rgb_value(color): taxonomy.index(name) for name, color in colors if name in taxonomy.names}
    info = variation / "info.txt"
    tracks = _tracks(info) if info.is_file() else {}
    cameras = maps.folders(pictures / place / "rgb")
    for camera in cameras:
        folder = "classSegmentation", "instanceSegmentation"
        kinds, objects = (_numbered(frames / name / camera.name) for name in folder)
        if not kinds and not objects:
            continue
        files = _numbered(camera)
        for number in sorted((kinds.keys() | objects.keys()) - files.keys()):
            build.problem("labels whose picture is missing", str(kinds.get(number) or objects[number]))
        for number, file in files.items():
            if number not in kinds and number not in objects:
                build.problem("a picture that has no labels", str(file))
                continue
            size = image_size(file)
            key = file.relative_to(pictures).as_posix()
            semantic = LabelMap(path=kinds[number], form="rgb", classes=classes) if number in kinds else None
            sequence = f"{variation.relative_to(root).as_posix()}/{camera.name}"
            build.image(key, file, size, sequence=sequence, frame=number, semantic=semantic)
            if number in objects:
                numbers = maps.read_flat(objects[number], size)
                _add_tracks(build, numbers, tracks, objects[number])


def _numbered(folder: Path) -> dict[int, Path]:
    """Frame -> file."""
    files = maps.files(folder, deep=False).values() if folder.is_dir() else ()
    return {number: file for file in files if (number := maps.number_of(file.stem)) is not None}


def _add_tracks(build: Builder, numbers: np.ndarray, tracks: Mapping[int, str], where: Path) -> None:
    values = maps.present(numbers)
    values = values[values > 0]
    for value, shape in zip(values.tolist(), maps.cut(numbers, values), strict=True):
        name = tracks.get(value - 1)
        if name is None:
            build.problem("a track that info.txt does not name", f"{where} value {value}")
        else:
            build.object(name, shape, f"{where} value {value}", track=value - 1)


def _tracks(path: Path) -> dict[int, str]:
    """Track -> class, of an ``info.txt``."""
    out: dict[int, str] = {}
    for number, line in enumerate(maps.lines(path), 1):
        words = line.split()
        if not words or (number == 1 and words[0].lower() == "trackid"):
            continue
        if len(words) < 2 or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 18:
            raise InputError(f"{path}:{number}: a line must be: trackID label model color, got {line[:60]!r}")
        out[int(words[0])] = words[1].partition(":")[0]
    return out


def _read_first(build: Builder, taxonomy: Taxonomy, truth: Path, pictures: Path) -> None:
    labels = maps.files(truth, (".png",))
    tables: dict[tuple[str, ...], _Colors] = {}
    for name, file, found in maps.paired(build, maps.files(pictures), labels, WHOLE):
        size = image_size(file)
        sequence = name.rpartition("/")[0]
        if found is None:
            build.image(f"{name}{file.suffix}", file, size, sequence=sequence, frame=maps.number_of(file.stem))
            continue
        scene = tuple(sequence.split("/"))
        if scene not in tables:
            tables[scene] = _encoding(truth, scene)
        table = tables[scene]
        classes = {
            maps.rgb_value(color): taxonomy.index(name) for color, (name, _) in table.items() if name in taxonomy.names
        }
        semantic = LabelMap(path=found, form="rgb", classes=classes)
        build.image(
            f"{name}{file.suffix}", file, size, sequence=sequence, frame=maps.number_of(file.stem), semantic=semantic
        )
        meanings = {
            maps.rgb_value(color): maps.Meaning(kind, track=track)
            for color, (kind, track) in table.items()
            if kind in _VEHICLES and track >= 0
        }
        maps.add_objects(build, read_map(found, "rgb", size), meanings.get, str(found))


def _encoding(truth: Path, scene: tuple[str, ...]) -> _Colors:
    """Color -> (class, track or -1) of one variation of a scene."""
    name = f"{'_'.join(scene)}{_ENCODING}"
    file = next(
        (f for f in (truth / name, truth.joinpath(*scene) / name, truth / scene[0] / name) if f.is_file()), None
    )
    if file is None:
        raise InputError(f"{truth} holds no {name}, which says what the colors are.")
    out: dict[maps.Color, tuple[str, int]] = {}
    for named, color in maps.read_colors(file):
        kind, _, track = named.partition(":")
        out[color] = (kind, int(track) if track.isascii() and track.isdigit() and len(track) < 19 else -1)
    return out
