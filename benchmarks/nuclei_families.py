"""Trains every family on nuclei under one budget, and writes ``docs/families.md`` from what was measured.

The same crops in the same order, optimizer, schedule and number of steps for all; a ResNet-18 each, begun from the
backbone of the weights that ship with the package; widths of some 100 channels. Figures are of the weights' moving
average after the last step; ``val`` is looked at once. A family's figures are kept in ``docs/families/NAME.json``.

    python benchmarks/nuclei_families.py --data NUCLEI --train mask-rcnn condinst   # train, measure, write the page
    python benchmarks/nuclei_families.py --data NUCLEI --corners solov2             # val cut to the crops' size
    python benchmarks/nuclei_families.py --data NUCLEI --ceiling                    # what a stride leaves of true masks
    python benchmarks/nuclei_families.py --drawn solo mask-rcnn                     # on drawn pictures
    python benchmarks/nuclei_families.py --data NUCLEI --draw                       # paint the same six pictures by all
    python benchmarks/nuclei_families.py                                            # write the page
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _light import begin_backbone, keep_json

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import CachedSource, FileSource
from maskwright.data.synthetic.discs import Discs
from maskwright.draw.image import overlay, save
from maskwright.evaluate import evaluate
from maskwright.infer.predictor import predict
from maskwright.metrics.average_precision import CocoAP
from maskwright.models.parts.grids import GridDetections, scene_of, shrunk
from maskwright.storage import replacing
from maskwright.structures import Geometry, Masks, Resize, Scene, Segments
from maskwright.train import TrainOptions, seed_all, train

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "families"
STEPS, BATCH, CROP, SEED, LIMIT = 200, 8, 160, 0, 400
RATE = 1e-3
ZOOM = 2.0
DRAWN: dict[str, dict[str, Any]] = {
    "mixed": {"scale": 1.5},
    "larger": {"scale": 2.0, "kinds": {"coins": 0.7, "discs": 0.3}},
}
"""The sets of drawn pictures that are held out: the first is as the training set, the second of larger objects."""
HELD_OUT = 60
CEILINGS = (4, 8)
"""Strides of ``--ceiling``."""

SHOWN = (3, 17, 31, 52, 70, 88)
"""Pictures of val that are painted."""

RCNN: dict[str, Any] = {
    "out_indices": (1, 2, 3),
    "channels": 96,
    "neck_norm": "batch",
    "head_norm": "batch",
    "box_hidden": 256,
    "mask_width": 64,
    "strides": (4, 8, 16, 32),
    "anchor_sizes": (16, 32, 64, 128),
    "roi_levels": 3,
    "canonical_size": 112.0,
    "roi_batch": 128,
    "proposals_train": (1000, 500),
    "proposals_test": (1000, 1000),
}
DENSE: dict[str, Any] = {"channels": 96, "head_depth": 2}

SOLO: dict[str, Any] = {
    "channels": 96,
    "width": 96,
    "depth": 3,
    "ranges": ((1, 48), (24, 96), (48, 192), (96, 384), (192, 2048)),
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mask-rcnn": ("mask-rcnn-r50", RCNN),
    "panet": ("panet-r50", RCNN),
    "mask-scoring-rcnn": ("mask-scoring-rcnn-r50", {**RCNN, "iou_width": 64, "iou_hidden": 256}),
    "cascade-mask-rcnn": ("cascade-mask-rcnn-r50", RCNN),
    "condinst": ("condinst-r50", {**DENSE, "branch_width": 64}),
    "centermask": ("centermask-r50", {**DENSE, "mask_width": 64, "iou_hidden": 256, "stages": (2, 3, 4)}),
    "centermask-stride8": ("centermask-r50", {**DENSE, "mask_width": 64, "iou_hidden": 256}),
    "pointrend": ("pointrend-r50", {**RCNN, "mask_hidden": 256}),
    "solo": ("solo-r50", SOLO),
    "solo-decoupled": ("solo-decoupled-r50", SOLO),
    "solov2": ("solov2-r50", {**SOLO, "mask_width": 64, "kernels": 64}),
    "queryinst": (
        "queryinst-r50",
        {"channels": 96, "queries": 150, "stages": 3, "heads": 4, "hidden": 256, "dynamic_width": 32, "mask_width": 64},
    ),
    "yolact": ("yolact-r50", {"channels": 96, "width": 96, "prototype_width": 96, "top_k": 2000}),
    "rtmdet-ins": ("rtmdet-ins-s", {"channels": 96}),
}
"""The zoo's row of each family and what makes it light; all get ``body="resnet18"``."""


def build(name: str, taxonomy: Any, zoom: float) -> Any:
    """A light model of the family, its backbone begun from the shipped weights as far as they go."""
    row, options = FAMILIES[name]
    resize = Resize(scale=zoom, long=2048)
    model: Any = zoo.build(row, taxonomy, body="resnet18", zero_init=True, resize=resize, **options)
    begin_backbone(model.backbone)
    return model


def measure(model: Any, data: Path) -> dict[str, float]:
    """AP of masks, boxes and boundaries on val, and pictures a second of one core."""
    source = read_coco(data / "val.json")
    boundary = CocoAP(source.taxonomy, kinds=("boundary",), max_detections=LIMIT)
    found = evaluate(model.eval(), source, max_per_image=LIMIT, also={"outline": boundary}, precision="32")
    start = time.process_time()
    for index in range(0, len(source), 4):
        predict(model, source.load(index)[1], max_per_image=LIMIT, precision="32")
    seconds = time.process_time() - start
    return {
        "AP": found["mask"]["AP"],
        "AP50": found["mask"]["AP50"],
        "boundary_AP": found["outline"]["boundary"]["AP"],
        "box_AP": found["box"]["AP"],
        "pictures_a_second": len(range(0, len(source), 4)) / seconds,
    }


def fit(name: str, source: Any, out: Path, zoom: float) -> tuple[Any, float]:
    """The family trained on the source, and the minutes of one core that it took; zoom 1 is for whole pictures."""
    seed_all(SEED)
    torch.set_flush_denormal(True)
    model = build(name, source.taxonomy, zoom)
    options = TrainOptions(
        steps=STEPS, batch_size=BATCH, learning_rate=RATE, clip_norm=5.0, ema=0.98, precision="32",
        channels_last=False, threads=1, workers=0, seed=SEED,
    )  # fmt: skip
    if zoom == 1:
        augment = Augment(vflip=0.5, quarter_turns=True, invert=0.2)
    else:
        augment = Augment(
            vflip=0.5, quarter_turns=True, scale=(0.8 * zoom, 1.2 * zoom), crop=(CROP, CROP), crop_on_object=0.8,
            invert=0.2,
        )  # fmt: skip
    loader = make_loader(source, augment, Shuffled(source, BATCH, seed=SEED))
    begun = time.process_time()
    train(model, loader, options=options, out=out / name, meta=zoo.describe(model))
    return zoo.load(out / name / "last.safetensors"), (time.process_time() - begun) / 60


def keep(name: str, model: Any, figures: dict[str, float], file: str) -> None:
    """Write a family's figures to its file."""
    parameters = sum(p.numel() for p in model.parameters())
    keep_json(KEPT / f"{file}.json", {"family": name, "row": FAMILIES[name][0], "parameters": parameters, **figures})


def run(name: str, data: Path, out: Path) -> None:
    """Train on nuclei and measure one family."""
    source = read_coco(data / "train.json")
    records = [source.record(index) for index in range(len(source))]
    source = CachedSource(FileSource.from_records([r for r in records if len(r)], source.taxonomy))
    _, minutes = fit(name, source, out, ZOOM)
    (out / name / "minutes.txt").write_text(f"{minutes:.2f}\n")
    measure_again(name, data, out)


def run_drawn(name: str, out: Path) -> None:
    """Train one family on drawn pictures, whole ones in training and in the test, and measure it."""
    _, minutes = fit(name, Discs(STEPS * BATCH, size=(CROP, CROP), seed=1, **DRAWN["mixed"]), out / "drawn", 1.0)
    (out / "drawn" / name / "minutes.txt").write_text(f"{minutes:.2f}\n")
    measure_drawn(name, out)


def measure_drawn(name: str, out: Path) -> None:
    """Measure a family that learned from drawn pictures.

    Families that see places as shares of the picture (SOLO's grids, QueryInst's boxes) find in the test what they
    learned, and the second set has the sizes that they are made for.
    """
    trained: Any = zoo.load(out / "drawn" / name / "last.safetensors")
    figures = {"training_minutes": float((out / "drawn" / name / "minutes.txt").read_text())}
    for kind, numbers in DRAWN.items():
        found = evaluate(trained.eval(), Discs(HELD_OUT, size=(CROP, CROP), seed=2, **numbers), precision="32")["mask"]
        figures |= {f"{kind}_AP": found["AP"], f"{kind}_AP50": found["AP50"]}
    keep(name, trained, figures, f"drawn-{name}")


def measure_again(name: str, data: Path, out: Path) -> None:
    """Measure a trained family; its figures go to its file."""
    trained: Any = zoo.load(out / name / "last.safetensors")
    minutes = float((out / name / "minutes.txt").read_text())
    keep(name, trained, {"training_minutes": minutes, **measure(trained, data)}, name)


def run_corner(name: str, data: Path, out: Path) -> None:
    """A trained family's AP on the upper left corners of val, as large as the crops that it learned from."""
    model: Any = zoo.load(out / name / "last.safetensors")
    source = read_coco(data / "val.json")
    score = CocoAP(source.taxonomy, kinds=("mask",), max_detections=LIMIT)
    side = round(CROP / ZOOM)
    for index in range(len(source)):
        scene: Any = source[index].scene
        pixels, whole = source.load(index)[1][:, :side, :side].contiguous(), scene.segments
        dense = whole.masks.dense()[:, :side, :side]
        seen = dense.flatten(1).any(1)
        size, masks = (dense.shape[1], dense.shape[2]), Masks.from_dense(dense[seen])
        truth = Segments(size=size, labels=whole.labels[seen], masks=masks, boxes=masks.boxes())
        found: Any = predict(model.eval(), pixels, max_per_image=LIMIT, precision="32")
        score.update(found, Scene(size=size, segments=truth), key=index)
    figures = score.compute()["mask"]
    keep_json(KEPT / f"corner-{name}.json", {"family": name, "AP": figures["AP"], "AP50": figures["AP50"]})


def ceiling(data: Path) -> None:
    """AP of val's true masks after they were brought to cells of each stride and back, as SOLO's targets are."""
    source = read_coco(data / "val.json")
    for stride in CEILINGS:
        score = CocoAP(source.taxonomy, kinds=("mask",), max_detections=LIMIT)
        for index in range(len(source)):
            scene: Any = source[index].scene
            truth = scene.segments
            step = round(stride / ZOOM)  # in file pixels; SOLO's rule for the enlarged picture comes to the same
            height, width = scene.size
            small = shrunk(truth.masks, torch.arange(len(truth)), step, (-(-height // step), -(-width // step)))
            found = GridDetections(small, torch.ones(len(truth)), truth.labels)
            score.update(scene_of(found, step, 0.5, Geometry.identity(scene.size)), scene, key=index)
        figures = score.compute()["mask"]
        keep_json(KEPT / f"ceiling-{stride}.json", {"stride": stride, "AP": figures["AP"], "AP50": figures["AP50"]})


def draw(data: Path, out: Path) -> None:
    """One row a family, and first the truth, of the same six pictures, each cut to 160 pixels."""
    source = read_coco(data / "val.json")
    names = [name for name in FAMILIES if (out / name / "last.safetensors").is_file()]
    rows: list[np.ndarray] = []
    for name in ("truth", *names):
        model = None if name == "truth" else zoo.load(out / name / "last.safetensors")
        parts: list[np.ndarray] = []
        for index in SHOWN:
            scene: Any = source[index].scene
            pixels = source.load(index)[1]
            if model is not None:
                scene = predict(model, pixels, max_per_image=LIMIT, score_threshold=0.4, precision="32")
            painted = overlay(pixels, scene, source.taxonomy, labels=False)[:160, :160]
            parts.append(np.pad(painted, ((0, 164 - painted.shape[0]), (0, 164 - painted.shape[1]), (0, 0))))
        rows.append(np.concatenate(parts, 1))
    save(DOCS / "families.png", np.concatenate(rows))
    print("rows:", "truth", *names)


def kept(prefix: str = "") -> list[dict[str, Any]]:
    """The figures that were written so far, in the order of the families."""
    return [json.loads(f.read_text()) for name in FAMILIES if (f := KEPT / f"{prefix}{name}.json").is_file()]


def drawn_table() -> list[str]:
    """The table of drawn pictures, if there are figures."""
    rows = kept("drawn-")
    if not rows:
        return []
    base = next((row for row in rows if row["family"] == "mask-rcnn"), {})
    lines = [
        "## Larger objects",
        "",
        f"Drawn discs, coins and nuclei, {CROP} x {CROP} pixels, whole pictures in training and in the test, the same "
        f"budget. Held out: {HELD_OUT} pictures of the same kinds (half of the objects narrower than 20 pixels), and "
        f"{HELD_OUT} of coins and discs alone (half of them wider than 44, a quarter of the picture).",
        "",
        "| family | small AP | small AP50 | of Mask R-CNN | large AP | large AP50 | of Mask R-CNN | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = [
            f"{100 * row[kind + '_AP']:.1f} | {100 * row[kind + '_AP50']:.1f} | "
            f"{share(row[kind + '_AP'], base.get(kind + '_AP'))}"
            for kind in DRAWN
        ]
        lines.append(f"| {row['family']} | {' | '.join(parts)} | {row['training_minutes']:.0f} |")
    return [*lines, ""]


def corner_table() -> list[str]:
    """The table of corners of val and of what strides leave, if there are figures."""
    rows = kept("corner-")
    base = next((row["AP"] for row in rows if row["family"] == "mask-rcnn"), None)
    lines: list[str] = []
    if rows:
        lines = [
            "## Pictures as large as the crops",
            "",
            f"The same weights on the upper left corner of each picture of `val`, {CROP} x {CROP} pixels once "
            "enlarged, as large as the crops that all learned from: what families that see places as shares of the "
            "picture (SOLO's grids, QueryInst's boxes) lose because the whole pictures are larger.",
            "",
            "| family | AP | AP50 | of Mask R-CNN |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {row['family']} | {100 * row['AP']:.1f} | {100 * row['AP50']:.1f} | {share(row['AP'], base)} |"
            for row in rows
        ]
        lines.append("")
    files = [KEPT / f"ceiling-{stride}.json" for stride in CEILINGS]
    limits = [json.loads(file.read_text()) for file in files if file.is_file()]
    if limits:
        said = "; ".join(
            f"stride {row['stride']}: AP {100 * row['AP']:.1f}, AP50 {100 * row['AP50']:.1f}" for row in limits
        )
        lines += [f"True masks of `val` brought to cells of a stride and back, every object found: {said}.", ""]
    return lines


def share(value: float, base: float | None) -> str:
    """In percent of Mask R-CNN's figure."""
    return "" if base is None else f"{100 * value / base:.0f} %"


def page() -> str:
    """The page as Markdown."""
    rows = kept()
    base = next((row["AP"] for row in rows if row["family"] == "mask-rcnn"), None)
    lines = [
        "# Families side by side",
        "",
        "Made by `python benchmarks/nuclei_families.py` (its first lines say how). Every family on nuclei "
        f"(2018 Data Science Bowl, stage 1) under one budget: {STEPS} steps of {BATCH} crops of {CROP} x {CROP} pixels "
        f"at 1.6 to 2.4 times their size, AdamW at {RATE:g}, one cycle, seed {SEED}, fp32, a ResNet-18 begun from the "
        "backbone of the shipped weights (which a Mask R-CNN trained on these nuclei: every family profits alike, "
        "Mask R-CNN perhaps a little more). Figures are of the 98 pictures of `val`, enlarged twofold, up to 400 "
        "objects each; pictures a second are of one core and its processor time. This is a small budget: it ranks how "
        "soon families learn small round objects, not what they reach on COCO.",
        "",
        "| family | row | AP | AP50 | boundary AP | box AP | of Mask R-CNN | pictures/s | parameters | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['family']} | `{row['row']}` | {100 * row['AP']:.1f} | {100 * row['AP50']:.1f} | "
            f"{100 * row['boundary_AP']:.1f} | {100 * row['box_AP']:.1f} | {share(row['AP'], base)} | "
            f"{row['pictures_a_second']:.2f} | {row['parameters'] / 1e6:.1f} M | {row['training_minutes']:.0f} |"
        )
    notes = KEPT / "notes.md"
    known = notes.read_text().strip() if notes.is_file() else ""
    drawn = "The same six pictures: the truth first, then the families in the table's order."
    return (
        "\n".join(
            [
                *lines,
                "",
                known,
                "",
                *corner_table(),
                *drawn_table(),
                *([drawn, "", "![](families.png)"] if (DOCS / "families.png").is_file() else []),
            ]
        )
        + "\n"
    )


def main() -> None:
    """Train what is named, paint if asked, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train.json, val.json and images/")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--train", nargs="*", choices=tuple(FAMILIES), default=[])
    parser.add_argument("--drawn", nargs="*", choices=tuple(FAMILIES), default=[])
    parser.add_argument("--again", action="store_true", help="measure what was trained before")
    parser.add_argument("--corners", nargs="*", choices=tuple(FAMILIES), default=[], help="already trained ones")
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    if (args.train or args.corners or args.ceiling or args.draw) and args.data is None:
        parser.error("--train, --corners, --ceiling and --draw need --data")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}")
    for name in args.train:
        (measure_again if args.again else run)(name, args.data, args.out)
    for name in args.drawn:
        (measure_drawn if args.again else run_drawn)(name, args.out)
    for name in args.corners:
        run_corner(name, args.data, args.out)
    if args.ceiling:
        ceiling(args.data)
    if args.draw:
        draw(args.data, args.out)
    with replacing(DOCS / "families.md") as beside:
        beside.write_text(page())


if __name__ == "__main__":
    main()
