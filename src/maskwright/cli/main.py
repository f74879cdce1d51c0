"""``maskwright COMMAND``: only the module of the chosen command is imported, so help is instant."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from maskwright.errors import InputError

COMMANDS = {
    "demo": "segment two photographs with the weights that ship with the package",
    "models": "list the models and their published weights",
    "train": "train a model on annotated images: instances, semantic maps or panoptic segments, as its task is",
    "recipes": "list the published trainings that train --recipe runs",
    "rate": "find a learning rate: a short run over which it rises",
    "tune": "search options for the best figure, in trials that are cut short where they are hopeless",
    "curve": "train on growing shares of the data, and say what more labels would bring",
    "runs": "list trainings: state, data, model, best figures",
    "compare": "two trainings: which options differ, and by how much the figures, with confidence",
    "evaluate": "measure a model on annotated images: AP, mIoU or PQ",
    "predict": "find the objects, classes or segments in images, files or whole folders",
    "export": "write a model for a runtime: ONNX Runtime, OpenVINO, TensorRT or compiled PyTorch",
    "benchmark": "time models from file to masks, stage by stage, against a budget",
    "compress": "make a model smaller: prune channels, tune, quantize; and say what it cost and brought",
    "search": "find the most accurate form of a model within a budget of time on this machine",
    "score": "measure result files against annotations, without a model",
    "audit": "find what is wrong with a data set before it costs a training run",
    "synth": "draw scenes with perfect labels: street, cells, parts, shelf, orchard",
    "agree": "say how far annotators agree, who is apart and where, and join what they say",
    "inspect": "say what a data set is: format, images, classes, sizes, objects",
    "convert": "bring annotations from one format or task to another",
    "split": "divide a data set anew, by image or group, with classes spread evenly",
    "merge": "join data sets, their classes by name",
    "remap": "rename, join and remove classes",
    "subset": "choose some of the images",
}
"""Command -> help. Each lives in ``maskwright.cli.COMMAND`` and has ``configure(parser)`` and ``run(args) -> int``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 in part, 2 unusable input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or words[0] != name:
        return _top(words)
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"maskwright: no command {name!r}; there are: {', '.join(COMMANDS)}.{hint}", file=sys.stderr)
        return 2
    module = import_module(f"maskwright.cli.{name}")
    parser = argparse.ArgumentParser(prog=f"maskwright {name}", description=_sentence(COMMANDS[name]))
    module.configure(parser)
    try:
        code = int(module.run(parser.parse_args(words[1:])))
        sys.stdout.flush()
    except InputError as error:
        print(f"maskwright {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"maskwright {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left; what Python flushes at exit must not complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _top(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="maskwright",
        description="Instance, semantic and panoptic segmentation: train, measure, use.",
        epilog="maskwright COMMAND --help says more about one command.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command, summary in COMMANDS.items():
        commands.add_parser(command, help=summary)
    args = parser.parse_args(words)
    if args.version:
        from maskwright import __version__

        print(f"maskwright {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    sys.exit(main())
