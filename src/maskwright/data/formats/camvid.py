"""CamVid: street scenes with a class for every pixel, in the forms in which it is passed around.

- ``images/NAME.png``, ``labels/NAME_P.png`` (class numbers) and ``codes.txt`` (a name a line, from number 0), with
  ``valid.txt``, if there, naming the pictures of the validation split;
- colors: ``label_colors.txt`` (``r g b name``) or ``class_dict.csv`` (``name,r,g,b``), pictures in ``SPLIT/`` and
  labels in ``SPLIT_labels/``, ``SPLITannot/`` or ``SPLIT_annot/``, or ``images/`` and ``labels/``; a label may end in
  ``_L`` or ``_P``;
- SegNet's: the same folders, numbers of 11 classes (11 is void), no table.

The classes ``Void``, ``Unlabelled`` and ``Background`` are void; there are no objects. Classes known by their names
have CamVid's colors.

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video" (2009),
http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid; SegNet's tutorial for the 11 classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.formats.camvid_table import COLORS, SEGNET, THINGS, VOID
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import LabelMap, MapForm, Taxonomy
from maskwright.structures.taxonomy import palette

_ENDINGS = ("_labels", "annot", "_annot")
_TABLES = ("label_colors.txt", "class_dict.csv")


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with one of the tables, or SegNet's folders, beside pictures and labels."""
    if not maps.holds(path, "codes.txt", *_TABLES, "*annot"):
        return False
    return next(_splits(path), None) is not None


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits.

    Args:
        path: the data set's folder.
        images: the folder of the pictures of a data set without splits.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, most pixels of a split's first map are
            of no class.
    """
    splits = list(_splits(path))
    if not splits:
        raise InputError(
            f"{path} holds no pictures with labels beside (images and labels, train and train_labels, ...)."
        )
    if images is not None and len(splits) > 1:
        raise InputError(f"{path} has several splits, so their pictures cannot all be in {images}.")
    taxonomy, void, form = _classes(path)
    classes = maps.color_classes(taxonomy) if form == "rgb" else taxonomy.label_of
    build = Builder(path, "camvid", taxonomy, strict=strict)
    validation = (
        {Path(n.strip()).stem for n in maps.lines(path / "valid.txt")} if (path / "valid.txt").is_file() else None
    )
    for split, pictures, truth in splits:
        files = maps.files(images or pictures)
        labels = {n if n in files else _plain(n): file for n, file in maps.files(truth, maps.MAPS).items()}
        checked = False
        for name, file, found in maps.paired(build, files, labels, split):
            semantic = None if found is None else LabelMap(path=found, form=form, classes=classes)
            if semantic is not None and not checked:
                maps.check_classes(semantic, void)
                checked = True
            own = split
            if split == WHOLE and validation is not None:
                own = "val" if file.stem in validation else "train"
            build.image(f"{name}{file.suffix}", file, image_size(file), split=own, semantic=semantic)
    made = build.done()
    kept = {name: source for name, source in made.splits.items() if name != WHOLE or validation is None}
    return Dataset(format=made.format, taxonomy=taxonomy, splits=kept, dropped=made.dropped)


def _splits(path: Path) -> Iterator[tuple[str, Path, Path]]:
    """(split, pictures, labels) of each pair of folders."""
    if (path / "images").is_dir() and (path / "labels").is_dir():
        yield WHOLE, path / "images", path / "labels"
        return
    try:
        inside = maps.folders(path)
    except OSError:
        return
    for folder in inside:
        for ending in _ENDINGS:
            if (path / f"{folder.name}{ending}").is_dir():
                yield folder.name, folder, path / f"{folder.name}{ending}"
                break


def _plain(name: str) -> str:
    return name[:-2] if name.endswith(("_P", "_L")) else name


def _classes(path: Path) -> tuple[Taxonomy, set[int], MapForm]:
    """The classes, the values that are void, and how the maps are read."""
    table = next((path / name for name in _TABLES if (path / name).is_file()), None)
    form: MapForm = "index"
    if table is not None:
        rows = [(name, i, color) for i, (name, color) in enumerate(maps.read_colors(table))]
        form = "rgb"
    else:
        codes = path / "codes.txt"
        names = [line.strip() for line in maps.lines(codes)] if codes.is_file() else list(SEGNET)
        while names and not names[-1]:
            names.pop()
        if not names or not all(names) or len(set(names)) < len(names):
            raise InputError(f"{codes} must hold distinct class names, one a line.")
        spare = palette(len(names))
        rows = [(name, i, COLORS.get(name, spare[i])) for i, name in enumerate(names)]
    void = {maps.rgb_value(color) if form == "rgb" else i for name, i, color in rows if name.lower() in VOID}
    rows = [row for row in rows if row[0].lower() not in VOID]
    taxonomy = Taxonomy(
        names=tuple(name for name, _, _ in rows),
        thing=tuple(name in THINGS for name, _, _ in rows),
        colors=tuple(color for _, _, color in rows),
        source_ids=tuple(i for _, i, _ in rows),
    )
    return taxonomy, void | ({11} if form == "index" and tuple(taxonomy.names) == SEGNET[:11] else set()), form
