"""DAVIS 2016 and 2017: masks of the objects of a clip, frame by frame.

``JPEGImages/[480p/]CLIP/NNNNN.jpg``, ``Annotations/[480p/]CLIP/NNNNN.png``: a palette picture whose index is the
object's number (its track), 0 for background. Masks of 2016 hold 0 and 255: one object, of track 1; beside other
numbers 255 is void. There are no classes: all are ``object``, colored as the palette has the first.

``ImageSets/[YEAR/]SPLIT.txt`` says which clips are of which split, by clip (2017) or by frame (2016); without it there
is one split. Of several years that with the most clips is read. In splits that begin with ``test`` frames may lack a
mask.

Source: Perazzi et al. (CVPR 2016), Pont-Tuset et al., "The 2017 DAVIS Challenge"; https://davischallenge.org.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import Taxonomy

_PICTURES, _TRUTH, _SETS = "JPEGImages", "Annotations", "ImageSets"
_CLASS = "object"
_WHITE = 255


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``JPEGImages`` and ``Annotations`` that hold clips of JPEGs and PNGs."""
    return maps.holds(path / _TRUTH, "*/*.png", "*/*/*.png") and maps.holds(
        path / _PICTURES, *(f"{deep}*.{ending}" for deep in ("*/", "*/*/") for ending in ("jpg", "png"))
    )


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits.

    Args:
        path: the folder that holds ``JPEGImages`` and ``Annotations``.
        images: the folder of the clips' pictures.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, a list names what is not there.
    """
    if not (path / _TRUTH).is_dir():
        raise InputError(f"{path} holds no {_TRUTH}. Name the folder of the data set.")
    labels = maps.files(path / _TRUTH, (".png",))
    pictures = maps.files(path / _PICTURES if images is None else images)
    labels, pictures = _sharpest(labels), _sharpest(pictures)
    lists = _lists(path / _SETS)
    clips = sorted({name.rpartition("/")[0] for name in [*pictures, *labels]})
    build = Builder(path, "davis", _taxonomy(labels), strict=strict)
    parts = lists or {WHOLE: set(clips)}
    for split, chosen in parts.items():
        for missing in sorted(chosen - set(clips)):
            build.problem("a clip that is listed but not there", f"{split}: {missing}")
        mine = {name: file for name, file in pictures.items() if name.rpartition("/")[0] in chosen}
        own = {name: file for name, file in labels.items() if name.rpartition("/")[0] in chosen}
        for name, file, found in maps.paired(build, mine, own, split):
            size = image_size(file)
            clip, frame = name.rpartition("/")[0], maps.number_of(file.stem)
            build.image(f"{name}{file.suffix}", file, size, split=split, sequence=clip, frame=frame)
            if found is not None:
                _add(build, found, size)
    return build.done()


def _add(build: Builder, path: Path, size: tuple[int, int]) -> None:
    numbers = maps.read_flat(path, size)
    values = maps.present(numbers)
    values = values[values != 0]
    single = values.tolist() == [_WHITE]

    def meaning(value: int) -> maps.Meaning | None:
        if value == 0 or (value == _WHITE and not single):
            return None
        return maps.Meaning(_CLASS, track=1 if single else value)

    maps.add_objects(build, numbers, meaning, str(path))


def _taxonomy(labels: dict[str, Path]) -> Taxonomy:
    colors = maps.palette_of(next(iter(labels.values()))) if labels else []
    return Taxonomy(names=(_CLASS,), colors=(colors[1],) if len(colors) > 1 else ())


def _sharpest(files: dict[str, Path]) -> dict[str, Path]:
    """Clip and frame -> file; of several resolutions (480p, 1080p, Full-Resolution) one: 480p, else the first."""
    depth3 = (PurePosixPath(name).parts for name in files)
    resolutions = sorted({parts[0] for parts in depth3 if len(parts) == 3})
    if not resolutions:
        return files
    chosen = "480p" if "480p" in resolutions else resolutions[0]
    return {name[len(chosen) + 1 :]: file for name, file in files.items() if name.startswith(f"{chosen}/")}


def _lists(folder: Path) -> dict[str, set[str]]:
    """Split -> clips."""
    best: dict[str, set[str]] = {}
    years = [folder, *maps.folders(folder)] if folder.is_dir() else []
    for year in years:
        found: dict[str, set[str]] = {}
        for file in sorted(year.glob("*.txt")):
            clips = {clip for line in maps.lines(file) if (clip := _clip(line, file))}
            if clips and not any(clips <= others for others in found.values()):
                found[file.stem] = clips
        for name in [n for n in found if len(found) > 1 and n in ("trainval", "all")]:
            del found[name]
        if sum(map(len, found.values())) > sum(map(len, best.values())):
            best = found
    return best


def _clip(line: str, file: Path) -> str:
    """The clip that a line names: itself, or the folder of the frame it begins with."""
    words = line.split()
    if not words:
        return ""
    name = inside_folder(words[0].lstrip("/"), file)
    return PurePosixPath(name).parts[-2] if "/" in name else name
