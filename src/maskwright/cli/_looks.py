"""Flags of ``predict`` and ``evaluate`` that say how a model looks: in tiles, from several sides, with others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskwright.cli.progress import Download
from maskwright.errors import InputError

MANY = 200
"""Pictures that make it worthwhile to measure how to compute first."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--tta``, ``--votes`` and ``--tile``."""
    group = parser.add_argument_group("looking more than once")
    group.add_argument(
        "--tta",
        metavar="KINDS",
        help="look from several sides and merge what is seen: flip, vflip, rot90, scale, separated by commas, each "
        "combined with each; scale=0.5/1/2 for other factors than 0.8, 1 and 1.25",
    )
    group.add_argument(
        "--votes",
        type=_votes,
        metavar="N,N",
        help="with several --weights: how much each counts when they are merged (default: all the same)",
    )
    group.add_argument(
        "--tile",
        metavar="SIZE,OVERLAP",
        help="compute large images in overlapping tiles of SIZE pixels and stitch them: auto, SIZE or SIZE,OVERLAP "
        "(default overlap: a quarter); TIFF is then read by windows, whatever its size",
    )


def named_weights(given: list[str] | None, default: str) -> list[str]:
    """The weights of ``--weights A --weights B`` or ``--weights A,B``; a path that has a comma itself stays whole."""
    names: list[str] = []
    for text in given or [default]:
        parts = [text] if Path(text).exists() else [part.strip() for part in text.split(",")]
        if not all(parts):
            raise InputError(f"weights are separated by single commas, got {text!r}.")
        names += parts
    return names


def check(args: argparse.Namespace, weights: list[str]) -> None:
    """Refuse what does not go together, before anything is loaded."""
    from maskwright.infer.augmented import parse_views
    from maskwright.infer.tiles import Tiles
    from maskwright.structures import Resize

    if args.tta is not None:
        parse_views(args.tta)
    if args.tile is not None:
        Tiles.parse(args.tile, Resize())
    if args.votes is not None and len(args.votes) != len(weights):
        raise InputError(
            f"--votes must say one number for each of the {len(weights)} --weights, got {len(args.votes)}."
        )


def load(args: argparse.Namespace, weights: list[str], model: str | None, resize: Any = "default") -> tuple[Any, Any]:
    """The model that looks as the flags say, and its tiles or ``None``."""
    from maskwright import zoo
    from maskwright.infer.ensemble import ensemble
    from maskwright.infer.ready import sizing
    from maskwright.infer.tiles import Tiles

    models: list[Any] = []
    for name in weights:
        named = (name,) if model is None else (model, name)
        models.append(zoo.load(*named, commercial=args.commercial, progress=Download()))
    tiles = None
    if args.tile is not None:
        how = sizing(models[0].resize, resize)
        tiles = Tiles.parse(args.tile, type(models[0].resize)() if how is None else how)
    if len(models) == 1 and args.tta is None:
        return models[0], tiles
    return ensemble(models, weights=args.votes, kinds=args.tta, resize=resize), tiles


def settle(args: argparse.Namespace, model: Any, paths: Sequence[Path]) -> tuple[str, str]:
    """``--device`` and ``--precision``; where both are ``auto``, what was measured on this machine (``infer.choose``).

    It is measured where ``MANY`` pictures make it worth its time, and known from then on. What was chosen is printed.
    """
    own = (args.device, args.precision)
    looks_once = args.tta is None and args.tile is None and hasattr(model, "backbone")
    if own != ("auto", "auto") or not looks_once:
        return own
    from maskwright.infer.choose import choose, known
    from maskwright.weights.hub import cache_dir

    kept = cache_dir() / "choices.json"
    choice = known(model, kept, resize=args.resize)
    if choice is None and len(paths) >= MANY:
        choice = choose(model, paths, resize=args.resize, kept=kept, say=_say)
    if choice is None:
        return own
    _say(str(choice))
    return choice.way.device, choice.way.precision


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _votes(text: str) -> list[float]:
    try:
        votes = [float(part) for part in text.split(",")]
    except ValueError:
        votes = []
    if not votes or not all(0 < vote < float("inf") for vote in votes):
        raise argparse.ArgumentTypeError(f"must be numbers above 0, separated by commas, got {text!r}")
    return votes
