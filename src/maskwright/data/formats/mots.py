"""KITTI MOTS and MOTSChallenge: tracks of cars and pedestrians as run-lengths in text, or as 16-bit PNGs.

Text: ``instances_txt/SEQUENCE.txt``, lines ``frame id class height width rle`` (COCO's compressed counts). PNG:
``instances/SEQUENCE/FRAME.png``, a pixel is class * 1000 + track. In both, class 1 is a car, 2 a pedestrian, and 10
(the id 10000) a region to be ignored, which becomes a crowd region of every class: that is how it is scored. A file
``labels.txt`` beside the annotations names other classes, line by line from 1.

Folders: ``[SPLIT/]instances_txt`` or ``[SPLIT/]instances``, pictures in ``[SPLIT/]images`` (MOTSChallenge),
``training/image_02`` (KITTI) or ``image_02`` beside. Where both forms are there, the text is read. Tracks are the
numbers in the files (class * 1000 + track), sequences and frames are kept.

Source: Voigtlaender et al., "MOTS: Multi-Object Tracking and Segmentation" (CVPR 2019), "Annotation Format" at
https://www.vision.rwth-aachen.de/page/mots.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps, mots_lines
from maskwright.data.formats.build import Builder
from maskwright.data.formats.maps_out import Overlap
from maskwright.data.formats.mots_lines import CLASSES, IGNORED, NAMES, RADIX, TEXT
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import Record, Shape, Taxonomy

_MAPS = "instances"
_PICTURES = ("images", "image_02", "training/image_02", "../training/image_02", "../images")
_Frame = tuple[str | None, int]


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder, or folders of splits in it, with ``instances_txt/*.txt`` or with ``instances`` PNGs beside pictures."""
    if any(maps.holds(path, f"{deep}{TEXT}/*.txt") for deep in ("", "*/")) or (
        path.name == TEXT and maps.holds(path, "*.txt")
    ):
        return True
    if maps.holds(path, "image_2", "*/image_2"):
        return False  # KITTI's instance benchmark
    return any(
        maps.holds(path, f"{deep}{_MAPS}/*.png", f"{deep}{_MAPS}/*/*.png")
        and maps.holds(path, *(f"{deep}{name}" for name in _PICTURES[:3]))
        for deep in ("", "*/")
    )


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits, or one: a folder that holds ``instances_txt`` or ``instances``, or one of these itself.

    Args:
        path: as above.
        images: the folder of the sequences' pictures; of one split only.
        strict: as in ``formats.read``.

    Returns:
        every picture of an annotated sequence, also those without objects.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, a line cannot be used.
    """
    base = path.parent if path.name in (TEXT, _MAPS) else path
    parts = {WHOLE: base} if _is_split(base) else {f.name: f for f in maps.folders(base) if _is_split(f)}
    if not parts:
        raise InputError(f"{path} holds neither {TEXT} nor {_MAPS}. Name the folder that does.")
    if images is not None and len(parts) > 1:
        raise InputError(f"{path} has several splits, so their pictures cannot all be in {images}. Read one split.")
    names = _names(parts.values())
    build = Builder(path, "mots", Taxonomy(names=names), strict=strict)
    for split, folder in parts.items():
        build.split(split)
        found = maps.first_existing(folder / name for name in _PICTURES) if images is None else images
        if found is None:
            raise InputError(f"{folder}: no pictures in {', '.join(_PICTURES[:3])}. Name their folder (--images).")
        if (folder / TEXT).is_dir():
            _read_text(build, split, folder / TEXT, found, names)
        else:
            _read_maps(build, split, folder / _MAPS, found, names)
    return build.done()


def picture(root: Path, split: str, record: Record) -> Path:
    """Where a record's picture belongs in the folder that ``write`` made."""
    sequence, frame = mots_lines.place(record)
    return root / split / "images" / sequence / f"{frame:06d}{Path(record.key).suffix or '.png'}"


def write(path: Path, dataset: Dataset, *, overlap: Overlap = "refuse") -> None:
    """Write ``SPLIT/instances_txt/SEQUENCE.txt`` and, for other classes than car and pedestrian, ``labels.txt``.

    A track keeps its number where that is class * 1000 + k, others get the next free one; an object without a track is
    a track of its own. Records without a sequence are frames of one called ``0000``, numbered by their image id. Crowd
    regions become regions to be ignored, which hold for every class: they must be there once for each.

    Args:
        path: the data set's folder.
        dataset: what is written.
        overlap: the format does not allow objects to overlap; ``cover`` lets later ones cover earlier ones.

    Raises:
        InputError: objects that overlap, boxes without outlines, crowd regions of some classes only, two objects of one
            track in a frame, two pictures for one frame, over 1000 tracks of a class in a sequence, over 9 classes;
            counted, before anything is written.
    """
    mots_lines.write(path, dataset, overlap)


# ---- reading --------------------------------------------------------------------------------------------------------


def _is_split(folder: Path) -> bool:
    return (folder / TEXT).is_dir() or (folder / _MAPS).is_dir()


def _names(parts: Iterable[Path]) -> tuple[str, ...]:
    """The classes, from 1; ``InputError`` where two splits disagree."""
    found: dict[tuple[str, ...], Path] = {}
    for folder in parts:
        files = [f for part in (TEXT, _MAPS) if (f := folder / part / NAMES).is_file()]
        names = tuple(n for line in maps.lines(files[0]) if (n := line.strip())) if files else CLASSES
        found.setdefault(names, folder)
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise InputError(f"{one} and {other} have different classes ({NAMES}). Read them one by one.")
    (names,) = found
    if not names or len(set(names)) < len(names) or len(names) >= IGNORED:
        raise InputError(f"{found[names] / NAMES}: between 1 and {IGNORED - 1} classes, each once, are possible here.")
    return names


def _frames(pictures: Path) -> dict[_Frame, tuple[str, Path]]:
    """(sequence, frame) -> (key, file) of the pictures in a folder; the sequence is ``None`` for files right in it."""
    out: dict[_Frame, tuple[str, Path]] = {}
    for name, file in maps.files(pictures).items():
        frame = maps.number_of(file.stem)
        if frame is not None:
            sequence = name.rpartition("/")[0] or None
            out.setdefault((sequence, frame), (f"{name}{file.suffix}", file))
    return out


def _read_text(build: Builder, split: str, folder: Path, pictures: Path, names: tuple[str, ...]) -> None:
    frames = _frames(pictures)
    wanted: dict[tuple[str, int], list[mots_lines.Line]] = {}
    sequences: list[str] = []
    for name, file in maps.files(folder, (".txt",)).items():
        if file.name != NAMES:
            sequences.append(name)
            for line in mots_lines.parse(build, file):
                wanted.setdefault((name, line.frame), []).append(line)
    if len(sequences) == 1 and frames and all(sequence is None for sequence, _ in frames):
        frames = {(sequences[0], frame): found for (_, frame), found in frames.items()}  # right in the folder
    for (sequence, frame), (key, file) in frames.items():
        if sequence is None or sequence not in sequences:
            continue
        build.image(key, file, image_size(file), split=split, sequence=sequence, frame=frame)
        for line in wanted.pop((sequence, frame), ()):
            _add(build, line.kind, line.track, line.shape, line.where, names)
    for lines in wanted.values():
        build.problem("a frame whose picture is missing", lines[0].where)


def _read_maps(build: Builder, split: str, folder: Path, pictures: Path, names: tuple[str, ...]) -> None:
    files = maps.files(pictures)
    found = maps.files(folder, (".png",))
    for name, file, labels in maps.paired(build, files, found, split):
        size = image_size(file)
        sequence, frame = name.rpartition("/")[0] or None, maps.number_of(file.stem)
        build.image(f"{name}{file.suffix}", file, size, split=split, sequence=sequence, frame=frame)
        if labels is None:
            continue
        numbers = maps.read_flat(labels, size)
        values = maps.present(numbers)
        values = values[values > 0]
        for value, shape in zip(values.tolist(), maps.cut(numbers, values), strict=True):
            _add(build, value // RADIX, value, shape, f"{labels} value {value}", names)


def _add(build: Builder, kind: int, track: int, shape: Shape, where: str, names: tuple[str, ...]) -> None:
    """Add an object, or a region to be ignored as a crowd of each class."""
    if kind == IGNORED:
        for name in names:
            build.object(name, shape, where, crowd=True, track=-1)
    elif 1 <= kind <= len(names):
        build.object(names[kind - 1], shape, where, track=track)
    else:
        build.problem(f"a class that is not known ({kind})", where)
