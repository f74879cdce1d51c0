"""Mask R-CNN with ResNet-18-FPN from scratch on nuclei: ours against torchvision's own, everything else equal.

The same crops in the same order, the same optimizer and schedule, the same steps or minutes, one loop for both
(``maskwright.train``), one evaluation for both (whole images enlarged twofold, up to 400 objects each).

    python benchmarks/nuclei_vs_torchvision.py --data NUCLEI --minutes 55 --threads 1 --out runs/versus
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import CachedSource
from maskwright.evaluate import evaluate
from maskwright.ops.paste import paste_expanded
from maskwright.storage import replacing
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy
from maskwright.train import TrainOptions, seed_all, train

CROP = 320
ROIS = 128
LIMIT = 400
RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## Nuclei, from scratch: ours against torchvision"


class Torchvision(nn.Module):
    """torchvision's Mask R-CNN behind our contract, so that one loop and one evaluation serve both."""

    size_divisor = 32

    def __init__(self, taxonomy: Taxonomy, resize: Resize) -> None:
        super().__init__()
        self.taxonomy, self.resize = taxonomy, resize
        self.score_threshold, self.max_per_image = 0.05, 100
        body = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        self.network = MaskRCNN(body, num_classes=len(taxonomy) + 1, box_batch_size_per_image=ROIS)

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Any:
        pictures = [p[:, :h, :w] / 255 for p, (h, w) in zip(inputs.pixels, inputs.sizes, strict=True)]
        sizes = {size for g in inputs.geometry for size in g.valid}
        # Its own transform would resize; pictures come as they should be.
        self.network.transform.min_size = (min(sizes),)
        self.network.transform.max_size = max(sizes)
        self.network.roi_heads.score_thresh = self.score_threshold
        self.network.roi_heads.detections_per_img = self.max_per_image
        if scenes is None:
            return self._detect(pictures)
        targets = [_target(scene) for scene in scenes]
        return self.network(pictures, targets)

    def _detect(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detections with masks of 28 x 28: pasting them densely at once would take gigabytes."""
        images, _ = self.network.transform(pictures)
        features = self.network.backbone(images.tensors)
        proposals, _ = self.network.rpn(images, features)
        found, _ = self.network.roi_heads(features, proposals, images.image_sizes)
        return found

    def loss(self, raw: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return dict(raw)

    def loss_counts(self, raw: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Ones: it gives means only, which is the same as long as a step has one micro-batch."""
        return {name: torch.ones_like(value) for name, value in raw.items()}

    def predict(self, raw: list[dict[str, Tensor]], geometry: Sequence[Geometry]) -> list[Scene]:
        scenes: list[Scene] = []
        for found, view in zip(raw, geometry, strict=True):
            factor = torch.tensor([view.scale[1], view.scale[0]] * 2)
            boxes = (found["boxes"] / factor).float()
            runs = paste_expanded(found["masks"][:, 0].float(), boxes, view.original)
            segments = Segments(
                size=view.original,
                labels=found["labels"] - 1,
                masks=Masks.from_arrays(*runs, view.original),
                boxes=boxes,
                scores=found["scores"].float(),
            )
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def _target(scene: Scene) -> dict[str, Tensor]:
    objects = scene.objects()
    if objects.crowd is not None:
        objects = objects[~objects.crowd]
    assert objects.boxes is not None
    assert objects.masks is not None
    kept = (objects.boxes[:, 2:] > objects.boxes[:, :2]).all(1)
    objects = objects[kept]
    assert objects.masks is not None
    return {"boxes": objects.boxes, "labels": objects.labels + 1, "masks": objects.masks.dense().to(torch.uint8)}


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one of the two."""
    source = read_coco(args.data / "train.json")
    resize = Resize(scale=2.0)
    seed_all(args.seed)
    model: Any = (
        Torchvision(source.taxonomy, resize)
        if name == "torchvision"
        else zoo.build("mask-rcnn-r18", source.taxonomy, roi_batch=ROIS, resize=resize)
    )
    options = TrainOptions(
        steps=-(-args.crops // args.batch_size) if args.crops else 0,
        minutes=args.minutes,
        batch_size=args.batch_size,
        learning_rate=4e-4,
        precision=args.precision,
        threads=args.threads,
        workers=0,
        seed=args.seed,
    )
    augment = Augment(vflip=0.5, invert=0.3, scale=(2.0, 2.0), crop=(CROP, CROP))
    cached = CachedSource(source)
    loader = make_loader(cached, augment, Shuffled(cached, options.batch_size, seed=args.seed))
    meta = zoo.describe(model) if name == "ours" else {"model": "torchvision", "taxonomy": source.taxonomy.to_json()}
    summary = train(model, loader, options=options, out=args.out / name, meta=meta)
    model.eval()
    measured = evaluate(model, read_coco(args.data / "val.json"), max_per_image=LIMIT)
    figures = {f"{kind}_{key}": round(measured[kind][key], 4) for kind in ("mask", "box") for key in ("AP", "AP50")}
    crops = summary["step"] * options.batch_size
    return {"model": name, "crops": crops, "minutes": round(summary["seconds"] / 60, 1), **figures}


def note(row: dict[str, Any], args: argparse.Namespace) -> None:
    """Add a row to this benchmark's table in ``RESULTS.md``."""
    options = f"--minutes {args.minutes:g}" if args.minutes else f"--crops {args.crops}"
    command = f"`{options} --threads {args.threads} --precision {args.precision} --seed {args.seed}`"
    machine = f"{platform.machine()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    names = ("model", "crops", "minutes", "mask_AP", "mask_AP50", "box_AP")
    cells = [time.strftime("%Y-%m-%d"), command, *(str(row[name]) for name in names), machine]
    lines = RESULTS.read_text().splitlines()
    place = lines.index(HEADING)
    while not lines[place].startswith("|"):
        place += 1
    while place < len(lines) and lines[place].startswith("|"):
        place += 1
    lines.insert(place, f"| {' | '.join(cells)} |")
    with replacing(RESULTS) as beside:
        beside.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Train both, one after the other, print one line each and add it to ``RESULTS.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
    parser.add_argument("--out", type=Path, default=Path("runs/versus"))
    parser.add_argument("--minutes", type=float, default=0.0, help="training time of each")
    parser.add_argument("--crops", type=int, default=0, help="training crops of each (4800 in the published figure)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto", choices=("auto", "32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("ours", "torchvision"))
    parser.add_argument("--dry", action="store_true", help="do not add to RESULTS.md")
    args = parser.parse_args()
    if not args.minutes and not args.crops:
        args.crops = 4800
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.processor() or 'CPU'}")
    for name in (args.only,) if args.only else ("torchvision", "ours"):
        row = run(name, args)
        print(json.dumps(row), flush=True)
        if not args.dry:
            note(row, args)


if __name__ == "__main__":
    main()
