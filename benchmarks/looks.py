"""What looking more than once gains: one model from several sides, and several families merged, on annotated pictures.

    python benchmarks/looks.py --data DATA@val --weights RUN --with RUN --with RUN --tta flip,scale

Every picture is looked at once by each model and view; what is merged of these looks is scored as ``maskwright
evaluate`` scores it, so a line equals ``evaluate --weights ... --tta ...`` with the same options. Figures are printed
as pictures come in, so a run may be stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from maskwright import zoo
from maskwright.data.opening import open_split
from maskwright.data.task_views import for_task
from maskwright.evaluate import pair, relabel, truth_of
from maskwright.infer.augmented import parse_views
from maskwright.infer.looks import Looks
from maskwright.infer.merge import Merging, merge
from maskwright.infer.ready import prepare
from maskwright.metrics.by_task import judge
from maskwright.nn.modes import evaluating
from maskwright.structures import Images


def main() -> None:
    """Look, merge, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="the model that looks from several sides")
    parser.add_argument("--with", dest="others", action="append", default=[], help="models that it is merged with")
    parser.add_argument("--tta", default="flip,scale")
    parser.add_argument("--every", type=int, default=10, help="pictures between printed figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = for_task(open_split(args.data, "val"), "instance")
    first: Any = zoo.load(args.weights)
    others: list[Any] = [zoo.load(name) for name in args.others]
    views = parse_views(args.tta)
    looks = [Looks([first], views=[view]) for view in views] + [Looks([other]) for other in others]
    numbers = [pair(look.taxonomy, first.taxonomy) for look in looks]
    flips = [i for i, view in enumerate(views) if view.scale == 1.0]
    sides = len(views)
    ways: dict[str, list[int]] = {"plain": [0], "mirrored": flips, args.tta: list(range(sides))}
    for k in range(1, len(others) + 1):
        ways[f"model {k + 1} alone"] = [sides + k - 1]
    for k in range(1, len(others) + 1):
        ways[f"{k + 1} models"] = [0, *range(sides, sides + k)]
    pairing = pair(first.taxonomy, source.taxonomy)
    measures = {name: judge("instance", source.taxonomy, kinds=("mask", "box"), max_detections=100) for name in ways}
    spent = [0.0] * len(looks)
    how = Merging(max_per_image=100, score_threshold=0.0)
    for index in range(len(source)):
        record, picture = source.load(index)
        ready = prepare(picture, None)
        images = Images.pad([ready.pixels], [ready.geometry], multiple=1)
        said: list[Any] = []
        for i, look in enumerate(looks):
            began = time.perf_counter()
            with torch.no_grad(), evaluating(look, {"max_per_image": 100}):
                said.append(relabel(look(images).scenes[0][0], numbers[i]))
            spent[i] += time.perf_counter() - began
        truth, areas = truth_of(record)
        for name, chosen in ways.items():
            scene = merge([said[i] for i in chosen], [1.0] * len(chosen), "instance", first.taxonomy, how)
            measures[name].update(relabel(scene, pairing), truth, key=record.image_id, areas=areas)
        if (index + 1) % args.every == 0 or index + 1 == len(source):
            rows = {
                name: {
                    "mask AP": round(figures["mask"]["AP"], 4), "mask AP50": round(figures["mask"]["AP50"], 4),
                    "box AP": round(figures["box"]["AP"], 4),
                    "seconds a picture": round(sum(spent[i] for i in ways[name]) / (index + 1), 2),
                }
                for name, figures in ((name, measure.compute()) for name, measure in measures.items())
            }  # fmt: skip
            print(json.dumps({"pictures": index + 1, **rows}), flush=True)


if __name__ == "__main__":
    main()
