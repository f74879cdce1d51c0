"""Claim: a training step of Mask R-CNN R50-FPN is >= 1.3x as fast as torchvision's at equal settings.

Both models have the same weights (torchvision's fresh ones, through our importer), the same pictures and objects, the
same numbers of proposals, sampled anchors and sampled RoIs, trainable batch norm, channels_last memory, SGD with
momentum, and the same precision: bf16 autocast where the machine multiplies bf16 in hardware, else fp32. A step is
forward, losses, backward and update. Before anything is timed, the five losses must agree (fp32, relative 1e-3) on two
pictures with samplers that take everything, which leaves nothing to chance. Steps are interleaved; the figure is the
ratio of medians.

    python benchmarks/train_step.py [--size 256] [--batch 4] [--rounds 5] [--rois 512] [--precision auto] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from maskwright import zoo
from maskwright.objectives.supervised import Supervised
from maskwright.ops.hardware import has_bf16
from maskwright.structures import Batch, Images, Masks, Scene, Segments, Taxonomy
from maskwright.weights.torchvision import TorchvisionMaskRCNN

CLASSES = 80
NAMES = {
    "loss_objectness": "rpn_class",
    "loss_rpn_box_reg": "rpn_box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}
Losses = dict[str, Tensor]


def peer(rois: int, anchors: int) -> nn.Module:
    """torchvision's Mask R-CNN, fresh, fed at the pictures' own size."""
    return maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        box_batch_size_per_image=rois,
        rpn_batch_size_per_image=anchors,
        _skip_resize=True,
    )


def ours(state: dict[str, Tensor], rois: int, anchors: int) -> nn.Module:
    """The same network as ours."""
    importer = TorchvisionMaskRCNN()
    options = {**importer.options(state), "norm": "train", "frozen_stages": 0}
    options |= {"roi_batch": rois, "rpn_batch": anchors, "proposals_train": (2000, 2000)}
    taxonomy = Taxonomy(names=tuple(f"class {i}" for i in range(CLASSES)))
    model: Any = zoo.build("mask-rcnn-r50", taxonomy, **options)
    model.load_state_dict(importer.convert(state), strict=False)
    return model


def examples(count: int, side: int, objects: int = 8) -> tuple[list[Tensor], list[dict[str, Tensor]], Batch]:
    """Pictures uint8 with ellipses of 16 pixels up to half the side, in both forms."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    pictures: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    scenes: list[Scene] = []
    for _ in range(count):
        picture = torch.randint(0, 90, (3, side, side), generator=rng)
        center = side * (0.15 + 0.7 * torch.rand(objects, 2, generator=rng))
        radius = 8 + (side / 4 - 8) * torch.rand(objects, 2, generator=rng)
        away = ((x - center[:, :1, None]) / radius[:, :1, None]) ** 2 + (
            (y - center[:, 1:, None]) / radius[:, 1:, None]
        ) ** 2
        dense = away <= 1
        for i, mask in enumerate(dense):
            picture[:, mask] = torch.tensor([40 + 25 * i, 220 - 20 * i, 128])[:, None]
        masks = Masks.from_dense(dense)
        labels = torch.randint(0, CLASSES, (objects,), generator=rng)
        segments = Segments(size=(side, side), labels=labels, masks=masks, boxes=masks.boxes())
        pictures.append(picture.to(torch.uint8))
        targets.append({"boxes": masks.boxes(), "labels": labels + 1, "masks": dense.to(torch.uint8)})
        scenes.append(Scene(size=(side, side), segments=segments))
    batch = Batch(inputs=Images.pad(pictures), scenes=tuple(scenes), keys=tuple(map(str, range(count))))
    return pictures, targets, batch


def disagreement(side: int) -> float:
    """The largest relative difference of a loss between both, with samplers that take everything."""
    torch.manual_seed(0)
    theirs = peer(10**6, 10**6)
    own = ours(theirs.state_dict(), 10**6, 10**6)
    pictures, targets, batch = examples(2, side)
    with torch.no_grad():
        want = theirs.train()([p / 255 for p in pictures], targets)
        got = Supervised(own).train()(batch)  # pyright: ignore[reportArgumentType]
    return max(abs(float(got[name] / want[key]) - 1) for key, name in NAMES.items())


def step_of(
    model: nn.Module, losses: Callable[[], Losses], precision: str, device: torch.device
) -> Callable[[], float]:
    """One training step; returns its seconds."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def step() -> float:
        wait()
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            total = torch.stack([loss.float() for loss in losses().values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        wait()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 256), ("batch", 4), ("rounds", 5), ("rois", 512), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    precision = ("bf16" if has_bf16(device) else "fp32") if args.precision == "auto" else args.precision
    error = disagreement(128)
    if error > 1e-3:
        raise SystemExit(f"the losses must agree within 1e-3, but differ by {error:.1e}: there is nothing to compare")
    torch.manual_seed(0)
    theirs = peer(args.rois, 256)
    own = ours(theirs.state_dict(), args.rois, 256)
    pictures, targets, batch = examples(args.batch, args.size)
    for model in (theirs, own):
        model.to(device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    scaled = [(p / 255).to(device) for p in pictures]
    targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
    batch, objective = batch.to(device), Supervised(own)  # pyright: ignore[reportArgumentType]
    steps = {
        "torchvision": step_of(theirs, lambda: theirs(scaled, targets), precision, device),
        "maskwright": step_of(own, lambda: objective(batch), precision, device),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(args.rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if i:  # the first one builds kernels and fills caches
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["torchvision"] / medians["maskwright"]
    result = {
        "ratio": ratio,
        "seconds": medians,
        "loss_difference": error,
        "precision": precision,
        "size": args.size,
        "batch": args.batch,
        "rois": args.rois,
        "rounds": args.rounds,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"losses agree within {error:.1e}; {precision}, batch {args.batch} of {args.size} x {args.size} pixels")
        for name, seconds in medians.items():
            print(f"{name:12} {seconds:8.3f} s a step (median of {args.rounds})")
        print(f"ratio        {ratio:8.2f} x")


if __name__ == "__main__":
    main()
