"""Claim: on one processor core the fastest small model here is at or ahead of ultralytics' yolo11n-seg, masks included.

640 x 640, one picture, one thread, random weights and 80 classes; bf16 too where the processor multiplies it. Ours goes
from uint8 pixels to a scene in run-lengths, through a copy with folded norms (``nn.fold``); the peer, fused likewise,
from the same pixels to dense masks. Score thresholds are set so that each finds ``--objects`` objects, since random
weights find none or thousands. ``network`` is the time without NMS and masks. ``--compile`` has both compiled too.

The peer is AGPL: it is another program, in an interpreter of its own, and is only told when to run. One after the other
runs in each round; figures are medians, ratios are peer over ours.

    python benchmarks/small_models.py [--peer-python PATH] [--models NAME ...] [--objects 20] [--rounds 15] [--compile]
        [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch

from maskwright import zoo
from maskwright.nn.fold import folded
from maskwright.nn.modes import autocast
from maskwright.ops.hardware import has_bf16
from maskwright.structures import Geometry, Images, Taxonomy

MODELS = ("yolact-mobilenetv3", "rtmdet-ins-tiny", "solov2-light-r18")
SIDE = 640
PEER = Path(__file__).with_name("small_models_peer.py")


class Ours:
    """One of our models, ready to run."""

    def __init__(self, name: str, precision: str, objects: int, compiled: bool) -> None:
        torch.manual_seed(0)
        self.precision = precision
        pixels = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
        self.inputs = Images.pad([pixels], [Geometry.resized((SIDE, SIDE), (SIDE, SIDE))], multiple=32)
        model: Any = zoo.build(name, Taxonomy(names=tuple(f"class {i}" for i in range(80))))
        self.model: Any = folded(model, self.inputs)
        self.model.max_per_image = objects
        if name.startswith("solov2"):  # a second threshold, which random scores never reach
            self.model.rules = replace(self.model.rules, update_threshold=0.0)
        low, high = 0.0, 1.0
        for _ in range(12):  # the greatest threshold with enough objects
            middle = self.model.score_threshold = (low + high) / 2
            low, high = (low, middle) if self.run()[1] < objects else (middle, high)
        self.model.score_threshold = low
        if compiled:
            for part in self.model.children():
                part.compile()
        self.found = self.run()[1]

    def run(self) -> tuple[float, int]:
        """Seconds from pixels to the scene, and how many objects it has."""
        with torch.no_grad(), autocast(torch.device("cpu"), self.precision):
            begin = time.perf_counter()
            scene = self.model.predict(self.model(self.inputs), self.inputs.geometry)[0]
            return time.perf_counter() - begin, len(scene.segments)

    def network(self) -> float:
        """Seconds of the network without NMS and masks: nothing is above the threshold."""
        before, self.model.score_threshold = self.model.score_threshold, 1.0
        seconds = self.run()[0]
        self.model.score_threshold = before
        return seconds


class Peer:
    """The other program, that runs once for each line it is sent and answers with two times and a count."""

    def __init__(self, python: str, precision: str, objects: int, compiled: bool) -> None:
        command = [python, str(PEER), precision, str(objects), str(int(compiled))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        self.name = self._answer()["name"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("")

    def run(self) -> dict[str, Any]:
        """Seconds ``whole`` and of the ``network``, and the ``objects`` found."""
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # it may have said something else before
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"the peer ended with status {self.process.wait()}; is ultralytics in its interpreter?")


def measure(name: str, args: argparse.Namespace, precision: str, compiled: bool) -> dict[str, Any]:
    """Medians in milliseconds of one model, and of the peer beside it."""
    ours = Ours(name, precision, args.objects, compiled)
    times: dict[str, list[float]] = {"whole": [], "network": [], "peer_whole": [], "peer_network": []}
    found: dict[str, Any] = {"model": name, "precision": precision, "compiled": compiled, "objects": ours.found}

    def rounds(beside: Callable[[], dict[str, Any]] | None) -> None:
        for turn in range(args.rounds + 2):
            row = {"whole": ours.run()[0], "network": ours.network()}
            if beside is not None:
                other = beside()
                row |= {"peer_whole": other["whole"], "peer_network": other["network"]}
                found["peer_objects"] = other["objects"]
            for key, seconds in row.items():
                times[key] += [seconds] if turn > 1 else []  # the first two are for warming up

    if args.peer_python:
        with Peer(args.peer_python, precision, args.objects, compiled) as peer:
            found["peer"] = peer.name
            rounds(peer.run)
    else:
        rounds(None)
    return found | {f"{key}_ms": 1e3 * statistics.median(values) for key, values in times.items() if values}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="an interpreter that has ultralytics; without, only ours is measured")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="both compiled, too")
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    inductor: Any = import_module("torch._inductor.config")
    inductor.freezing = True  # weights are constants for the compiler
    precisions = ["32", "bf16"] if has_bf16(torch.device("cpu")) else ["32"]
    if "bf16" not in precisions and not args.json:
        print("this processor does not multiply bf16: fp32 only")
    for name in args.models:
        for precision in precisions:
            for compiled in (False, True) if args.compile else (False,):
                row = measure(name, args, precision, compiled)
                print(json.dumps(row) if args.json else _text(row), flush=True)


def _text(row: dict[str, Any]) -> str:
    how = f"{row['precision']}, {'compiled' if row['compiled'] else 'eager'}"
    line = f"{row['model']:20} {how:14} {row['whole_ms']:7.1f} ms (network {row['network_ms']:6.1f})"
    line += f", {row['objects']} objects"
    if "peer" not in row:
        return line
    return (
        f"{line}; {row['peer']} {row['peer_whole_ms']:6.1f} ms (network {row['peer_network_ms']:6.1f}), "
        f"{row['peer_objects']} objects; ratio {row['peer_whole_ms'] / row['whole_ms']:4.2f}, "
        f"network {row['peer_network_ms'] / row['network_ms']:4.2f}"
    )


if __name__ == "__main__":
    main()
