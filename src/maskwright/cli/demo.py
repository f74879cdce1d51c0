"""``maskwright demo``: the embedded weights on two photographs that ship with scikit-image."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskwright.errors import InputError

PHOTOGRAPHS = ("immunohistochemistry", "coins")
"""Stained colon tissue, and 24 Greek coins from Pompeii."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where results go (default: runs/demo)")


def run(args: argparse.Namespace) -> int:
    """Write the photographs, then do what ``maskwright predict`` does with them."""
    try:
        from skimage import data
    except ImportError as error:
        raise InputError("the demo's photographs ship with scikit-image: install maskwright[demo].") from error
    from PIL import Image

    from maskwright.cli import predict

    pictures = args.out / "pictures"
    predict.require_writable(pictures)
    paths: list[str] = []
    for name in PHOTOGRAPHS:
        path = pictures / f"{name}.png"
        Image.fromarray(getattr(data, name)()).save(path)
        paths.append(str(path))
    parser = argparse.ArgumentParser()
    predict.configure(parser)
    return predict.run(parser.parse_args([*paths, "--max-per-image", "400", "--out", str(args.out)]))
