"""Whether every instance family can learn four drawn pictures by heart: one that cannot is broken.

Four pictures of 128 x 128 pixels with two to four discs and boxes of some 30 to 60 pixels, one batch, light models from
random numbers, 200 steps of AdamW at 0.001 on one cycle, fp32, seed 0. Measured on these very pictures; the figures say
nothing else. They go to ``docs/families/by-heart-NAME.json`` and the table to ``docs/families/by-heart.md``.

    python benchmarks/families_by_heart.py --train solov2 centermask     # train, measure, write the table
    python benchmarks/families_by_heart.py                               # write the table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _light import keep_json

from maskwright import zoo
from maskwright.metrics.average_precision import CocoAP
from maskwright.storage import replacing
from maskwright.structures import Batch, Images, Masks, Resize, Scene, Segments, Taxonomy

KEPT = Path(__file__).parents[1] / "docs" / "families"
CLASSES = Taxonomy(names=("disc", "box"))
PICTURES, SIDE, STEPS, RATE, SEED = 4, 128, 200, 1e-3, 0

SOLO: dict[str, Any] = {
    "channels": 64,
    "width": 64,
    "depth": 3,
    "ranges": ((1, 48), (24, 96), (48, 192), (96, 384), (192, 2048)),
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "condinst": ("condinst-r50", {"channels": 64, "head_depth": 2, "branch_width": 64}),
    "centermask": ("centermask-r50", {"channels": 64, "head_depth": 2, "mask_width": 64, "iou_hidden": 256}),
    "solo": ("solo-r50", SOLO),
    "solo-decoupled": ("solo-decoupled-r50", SOLO),
    "solov2": ("solov2-r50", {**SOLO, "mask_width": 64, "kernels": 64}),
    "queryinst": (
        "queryinst-r50",
        {"channels": 64, "queries": 30, "stages": 3, "heads": 4, "hidden": 256, "dynamic_width": 32, "mask_width": 64},
    ),
    "yolact": ("yolact-r50", {"channels": 64, "width": 64, "prototype_width": 64}),
    "rtmdet-ins": ("rtmdet-ins-s", {"channels": 64}),
}
"""The zoo's row of each family and what makes it light; all get ``body="resnet18"``."""


def pictures() -> list[tuple[torch.Tensor, Scene]]:
    """The drawn pictures, uint8 [3, H, W], and what is on them; later objects lie over earlier ones."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:SIDE, :SIDE]
    out: list[tuple[torch.Tensor, Scene]] = []
    for _ in range(PICTURES):
        image = rng.integers(20, 90, 3)[:, None, None] * np.ones((3, SIDE, SIDE))
        owner, labels = np.full((SIDE, SIDE), -1), list[int]()
        for number in range(rng.integers(2, 5)):
            center, reach = rng.uniform(20, SIDE - 20, 2), rng.uniform(14, 30, 2)
            down, along = y - center[0], x - center[1]
            labels.append(int(rng.integers(2)))
            box = (abs(down) < reach[0]) & (abs(along) < reach[1])
            inside = box if labels[-1] else down**2 + along**2 < reach[0] ** 2
            owner[inside] = number
            image[:, inside] = rng.integers(100, 255, 3)[:, None]
        shown = [number for number in range(len(labels)) if (owner == number).sum() > 150]
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        masks = Masks.from_dense(torch.from_numpy(np.stack([owner == number for number in shown])))
        kinds = torch.tensor([labels[number] for number in shown])
        segments = Segments(size=(SIDE, SIDE), labels=kinds, masks=masks, boxes=masks.boxes())
        out.append((torch.from_numpy(image), Scene(size=(SIDE, SIDE), segments=segments)))
    return out


def run(name: str) -> None:
    """Train one family, measure it on what it learned; its figures go to its file."""
    torch.manual_seed(SEED)
    row, options = FAMILIES[name]
    data = pictures()
    model: Any = zoo.build(row, CLASSES, body="resnet18", resize=Resize(scale=1.0, long=2048), **options)
    images = Images.pad([pixels for pixels, _ in data])
    keys = tuple(str(index) for index in range(len(data)))
    batch = Batch(inputs=images, scenes=tuple(scene for _, scene in data), keys=keys)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.05)
    model.train()
    course: list[float] = []
    for _ in range(STEPS):
        total = sum(model.loss(model(images, batch.truth()), batch).values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        course.append(float(total.detach()))
    model.eval()
    score = CocoAP(CLASSES, kinds=("mask", "box"))
    with torch.no_grad():
        found = model.predict(model(images), images.geometry)
    for key, predicted, (_, truth) in zip(keys, found, data, strict=True):
        score.update(predicted, truth, key=key)
    figures = score.compute()
    known = {"family": name, "row": row, "first_loss": course[0], "last_loss": course[-1]}
    known |= {"AP": figures["mask"]["AP"], "AP50": figures["mask"]["AP50"], "box_AP": figures["box"]["AP"]}
    keep_json(KEPT / f"by-heart-{name}.json", known)


def page() -> str:
    """The table as Markdown."""
    files = [KEPT / f"by-heart-{name}.json" for name in FAMILIES]
    rows = [json.loads(file.read_text()) for file in files if file.is_file()]
    lines = [
        "# Four pictures learned by heart",
        "",
        f"Made by `python benchmarks/families_by_heart.py` (its first lines say how): {PICTURES} drawn pictures of "
        f"{SIDE} x {SIDE} pixels with objects of two classes, {STEPS} steps, measured on these very pictures. It shows "
        "that targets, losses and decoding of a family belong together; masks of SOLO end at cells of 4 pixels, which "
        "is what is missing there.",
        "",
        "| family | row | first loss | last loss | AP | AP50 | box AP |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['family']} | `{row['row']}` | {row['first_loss']:.2f} | {row['last_loss']:.3f} | "
        f"{100 * row['AP']:.1f} | {100 * row['AP50']:.1f} | {100 * row['box_AP']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is named, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="*", choices=tuple(FAMILIES), default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in args.train:
        run(name)
    with replacing(KEPT / "by-heart.md") as beside:
        beside.write_text(page())


if __name__ == "__main__":
    main()
