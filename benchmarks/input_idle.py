"""How long a training step waits for its pictures: the share of the time that the loader, not the model, takes.

    python benchmarks/input_idle.py --data NUCLEI                 # mask-rcnn-r18-light, 8 crops of 160, one worker
    python benchmarks/input_idle.py --data NUCLEI --workers 0     # the same without, for comparison

Pictures are read from their files each time, cropped, turned and recolored as in a training. Waiting is what ``next``
on the loader takes in the training process, after the first few steps have filled the queue.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.train import seed_all

WARM = 4
"""Steps that do not count."""
AUGMENT = Augment(
    vflip=0.5, quarter_turns=True, scale=(1.6, 2.4), crop=(160, 160), crop_on_object=0.8, invert=0.2, brightness=0.2
)


def main() -> None:
    """Train a few steps and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json and images/")
    parser.add_argument("--model", default="mask-rcnn-r18-light")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    seed_all(0)
    source = read_coco(args.data / "train.json")
    model: Any = zoo.build(args.model, source.taxonomy)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    order = Shuffled(source, args.batch_size, seed=0)
    loader = iter(make_loader(source, AUGMENT, order, workers=args.workers))
    waited, computed = list[float](), list[float]()
    for step in range(WARM + args.steps):
        begun = time.perf_counter()
        batch = next(loader)
        came = time.perf_counter()
        losses = model.loss(model(batch.inputs, batch.scenes), batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= WARM:
            waited.append(came - begun)
            computed.append(time.perf_counter() - came)
    share = sum(waited) / (sum(waited) + sum(computed))
    figures = {"waiting_ms": 1000 * median(waited), "computing_ms": 1000 * median(computed), "idle": share}
    print(json.dumps({**vars(args), "data": str(args.data), **{k: round(v, 4) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
