"""What ``maskwright predict`` leaves on disk: documents, tables, maps, overlays, and the names they have."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from maskwright.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from maskwright.data.georeference import Georeference
    from maskwright.structures import Scene, Taxonomy

Add = Callable[[str, "Scene", str], None]
"""Takes an image's file name as documents have it, its scene, and the name of its maps."""


LARGEST_OVERLAY = 4096
"""Sides in pixels of the overlay of an image that is computed in tiles and too large to be shown as it is."""


def names_inside(paths: Sequence[Path]) -> Callable[[Path], str]:
    """What documents call a file: its path as given, or, where one is absolute or leads upward, from what all share.

    Readers, ours too, take only names that stay inside of a folder, which ``--images`` then names.
    """
    if not any(path.is_absolute() or ".." in path.parts for path in paths):
        return lambda path: path.as_posix()
    whole = {path: Path(os.path.abspath(path)) for path in paths}
    base = os.path.commonpath([path.parent for path in whole.values()])
    return lambda path: whole[path].relative_to(base).as_posix()


def open_outputs(stack: ExitStack, out: Path, taxonomy: Taxonomy, task: str) -> list[Add]:
    """What takes each image's file name, scene and the name of its maps."""
    from maskwright.infer.map_writers import area_table, label_images, panoptic_document
    from maskwright.infer.writers import coco_document, object_table

    adds: list[Add] = []
    if task != "semantic":
        for name, write in {"results.json": coco_document, "objects.csv": object_table}.items():
            plain = stack.enter_context(write(out / name, taxonomy))
            adds.append(lambda name, scene, stem, plain=plain: plain(name, scene))
    if task != "instance":
        maps = {"semantic": label_images, "areas.csv": area_table}
        for name, write in ({**maps, "panoptic.json": panoptic_document} if task == "panoptic" else maps).items():
            adds.append(stack.enter_context(write(out / name, taxonomy)))
    return adds


def open_places(
    stack: ExitStack,
    out: Path,
    taxonomy: Taxonomy,
    paths: Sequence[Path],
    failed: dict[str, str],
    kind: str = "geojson",
) -> Callable[[Path, str, Scene], None]:
    """What takes each image's path, name and scene, and writes its objects to ``objects.geojson`` if it has a place.

    Where the images are of several coordinate systems there is a document for each, ``objects-epsg32633.geojson``. An
    image whose place cannot be read is put into ``failed``. ``kind`` is ``"geojson"`` or ``"gpkg"``.
    """
    from maskwright.data.georeference import read_georeference
    from maskwright.infer.geojson import geojson_document
    from maskwright.infer.geopackage import geopackage

    places: dict[Path, Georeference] = {}
    for path in paths:
        try:
            place = read_georeference(path)
        except InputError as error:
            failed[path.as_posix()] = str(error)
            continue
        if place is not None:
            places[path] = place
    systems = {place.epsg for place in places.values()}
    document = {"geojson": geojson_document, "gpkg": geopackage}[kind]
    adds = {
        epsg: stack.enter_context(document(out / f"{_places_name(epsg, len(systems))}.{kind}", taxonomy, epsg))
        for epsg in systems
    }

    def add(path: Path, name: str, scene: Scene) -> None:
        if path in places:
            adds[places[path].epsg](name, scene, places[path])

    return add


def _places_name(epsg: int | None, systems: int) -> str:
    if systems == 1:
        return "objects"
    return "objects-local" if epsg is None else f"objects-epsg{epsg}"


def require_writable(folder: Path) -> None:
    """Make ``folder`` and see that files can be made in it, or raise ``InputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"results go to a folder that can be written, but {folder} cannot: {error.strerror}. Choose another --out."
        ) from error


class Painter:
    """Draws and writes overlays in one thread beside the model's; a few at most wait."""

    def __init__(self, folder: Path, taxonomy: Taxonomy, failed: dict[str, str], waiting: int = 2) -> None:
        self.folder, self.taxonomy, self.failed, self.limit = folder, taxonomy, failed, waiting
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="overlay")
        self.waiting: deque[tuple[Path, Future[None]]] = deque()

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self._settle(0)
        self.pool.shutdown()

    def __call__(self, path: Path, stem: str, picture: Tensor | None, scene: Scene) -> None:
        """Draw an image's overlay; one that is too large to be shown as it is (``None``) is drawn smaller."""
        target = self.folder / f"{stem}.png"
        self.waiting.append((path, self.pool.submit(_paint, target, path, picture, scene, self.taxonomy)))
        self._settle(self.limit)

    def _settle(self, left: int) -> None:
        while len(self.waiting) > left:
            path, done = self.waiting.popleft()
            try:
                done.result()
            except (InputError, OSError) as error:
                self.failed[path.as_posix()] = f"{path}: the overlay could not be written: {error}"


def _paint(target: Path, path: Path, picture: Tensor | None, scene: Scene, taxonomy: Taxonomy) -> None:
    from maskwright.draw.image import overlay, save

    if picture is None:
        from maskwright.data.augment.placement import Placement
        from maskwright.data.augment.test_time import placed
        from maskwright.data.rasters import open_raster, overview

        picture = overview(open_raster(path), LARGEST_OVERLAY)
        size, small = (scene.size[0], scene.size[1]), (int(picture.shape[1]), int(picture.shape[2]))
        scene = placed(scene, Placement.whole(size, small))
    save(target, overlay(picture, scene, taxonomy))


def unique_names() -> Callable[[Path], str]:
    """A function from an image's path to a name for its overlay and maps, different for every call.

    The stem where it is free, then with its folder, its ending, and a number. Case does not count, as some file
    systems do not tell it apart.
    """
    used: set[str] = set()

    def name(path: Path) -> str:
        stem, folder, ending = path.stem, path.parent.name, path.suffix[1:]
        first = [stem, f"{folder}-{stem}" if folder else stem, f"{stem}-{ending}"]
        free = (choice for choice in chain(first, (f"{stem}-{n}" for n in count(2))) if choice.casefold() not in used)
        used.add((chosen := next(free)).casefold())
        return chosen

    return name
