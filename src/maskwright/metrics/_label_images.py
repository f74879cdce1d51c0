"""Folders of label images, compared pair by pair: PNG (one channel or a palette), TIFF (volumes too) and NPY."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock, local
from typing import Any

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics._native import run_threads
from maskwright.metrics._png import Decoder

ENDINGS = (".png", ".tif", ".tiff", ".npy")
"""What label images are kept as."""

Update = Callable[[np.ndarray, np.ndarray, str], None]
"""Compares a predicted and a true map under a key; a ValueError says why it cannot."""


def compare_folders(
    update: Update,
    truth: str | Path,
    results: str | Path,
    *,
    truth_suffix: str = "",
    results_suffix: str = "",
    lenient: bool = False,
) -> dict[str, int]:
    """Compare the label images of two folders (or two files), on all processors.

    Args:
        update: called once for each pair, from several threads, with the stem of the file as key.
        truth, results: folders, searched with all that is in them; files pair by stem. Or one file each.
        truth_suffix, results_suffix: what stems end with in either folder, not part of the key; other files of a folder
            are left alone (``"_gtFine_labelIds"`` of Cityscapes).
        lenient: leave out and count what cannot be compared.

    Returns:
        how many were left out: ``"truth"`` files without a result or that cannot be read, ``"results"`` without truth,
        or that cannot be read or compared. All 0 unless lenient.

    Raises:
        InputError: a folder is missing or empty, or files are missing, not label images, of another size, or hold
            labels that are not known; names the first five.
    """
    there, found = _listed(Path(truth), truth_suffix), _listed(Path(results), results_suffix)
    if Path(truth).is_file() and Path(results).is_file():  # two files need not share a name
        found = dict(zip(there, found.values(), strict=True))
    problems: dict[str, dict[str, str]] = {"truth": {}, "results": {}}
    for key in there.keys() - found.keys():
        problems["truth"][key] = f"{there[key].name} has no result"
    for key in found.keys() - there.keys():
        problems["results"][key] = f"{found[key].name} has no truth"
    if not lenient:
        _settle(problems, truth, results, len(there))
    keys = sorted(there.keys() & found.keys())
    own, lock = local(), Lock()

    def work(part: list[str]) -> None:
        if not hasattr(own, "decoders"):
            own.decoders = Decoder(), Decoder()
        for key in part:
            side = "truth"
            try:
                its = read_labels(there[key], own.decoders[0])
                side = "results"
                update(read_labels(found[key], own.decoders[1]), its, key)
            except ValueError as error:
                with lock:
                    problems[side][key] = f"{(there if side == 'truth' else found)[key].name}: {error}"

    step = 4
    run_threads([lambda i=i: work(keys[i : i + step]) for i in range(0, len(keys), step)])
    if not lenient:
        _settle(problems, truth, results, len(there))
    return {side: len(its) for side, its in problems.items()}


def read_labels(path: Path, decoder: Decoder | None = None) -> np.ndarray:
    """The labels of one file: integers [H, W], or [D, H, W] of a TIFF of several pages or a volume in NPY.

    Args:
        path: a file whose name ends as ``ENDINGS`` say.
        decoder: reads PNG; what it returns is good until its next call.

    Raises:
        InputError: it is missing, damaged, or no map of labels; does not name the file.
    """
    try:
        if path.suffix.lower() == ".npy":
            out: Any = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".png":
            data = path.read_bytes()
            if data[25:26] not in (b"\0", b"\3"):  # gray and palette, in the header of the PNG
                raise InputError("a label image must have one channel or a palette, not colors")
            return (decoder or Decoder()).read(data, indexed=True)
        else:
            out = _tiff(path)
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot be read: {error}" if str(error) else "cannot be read") from error
    if out.dtype.kind not in "iub" or out.ndim not in (2, 3):
        raise InputError(f"labels must be integers [H, W] or [D, H, W], got {out.dtype} {out.shape}")
    return out.view(np.uint8) if out.dtype == bool else out


def _tiff(path: Path) -> np.ndarray:
    from PIL import Image, ImageSequence  # only TIFF needs it

    try:
        with Image.open(path, formats=["TIFF"]) as image:
            pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    except Image.DecompressionBombError as error:
        raise InputError(str(error)) from error
    return pages[0] if len(pages) == 1 else np.stack(pages)


def _listed(folder: Path, suffix: str) -> dict[str, Path]:
    """Label images by key."""
    if folder.is_file():
        return {folder.stem.removesuffix(suffix): folder}
    if not folder.is_dir():
        raise InputError(f"cannot read {folder}: there is no such folder. Check its name.")
    out: dict[str, Path] = {}
    twice: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in ENDINGS or not path.stem.endswith(suffix):
            continue
        key = path.stem.removesuffix(suffix)
        if key in out:
            twice.append(f"{out[key].relative_to(folder)} and {path.relative_to(folder)}")
        out[key] = path
    if twice:
        raise InputError(
            f"{folder}: files pair by stem, but {len(twice)} stems are there twice: {'; '.join(twice[:5])}. "
            "Say what stems end with, or move the others away."
        )
    if not out:
        ends = f" whose stem ends with {suffix!r}" if suffix else ""
        raise InputError(f"{folder} holds no label images ({', '.join(ENDINGS)}){ends}. Check the folder.")
    return out


def _settle(problems: dict[str, dict[str, str]], truth: str | Path, results: str | Path, total: int) -> None:
    texts = [text for side in ("truth", "results") for _, text in sorted(problems[side].items())]
    if texts:
        more = f"; and {len(texts) - 5} more" if len(texts) > 5 else ""
        raise InputError(
            f"{truth} and {results}: {len(texts)} of {total} files cannot be compared - {'; '.join(texts[:5])}{more}. "
            "Correct them, or leave them out and count them with --lenient."
        )
