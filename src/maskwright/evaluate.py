"""``evaluate``: a model against annotated images, in the official numbers of its task, and against the same damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from maskwright.data.augment.transforms import ToSize
from maskwright.data.loader import make_loader
from maskwright.data.rasterize import scene_of
from maskwright.data.robustness import corruptions as damage
from maskwright.data.samplers import Sequential
from maskwright.data.source import Loads
from maskwright.data.task_views import for_task
from maskwright.errors import InputError
from maskwright.metrics.by_task import INSTANCE_KINDS, MAIN_FIGURES, Judge, judge
from maskwright.nn.modes import autocast, evaluating
from maskwright.ops.hardware import choose_device, choose_precision
from maskwright.protocols import Metric, Model, task_of
from maskwright.structures import Record, Scene, Taxonomy


def evaluate(
    model: Model,
    source: Loads,
    *,
    max_per_image: int = 100,
    score_threshold: float | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "32",
    workers: int = 0,
    kinds: Sequence[str] = INSTANCE_KINDS,
    progress: Callable[[int, int], None] | None = None,
    found: Callable[[Record, Scene], None] | None = None,
    also: Mapping[str, Metric] | None = None,
    measure: Judge | None = None,
    rank: int = 0,
    world: int = 1,
    gather: Callable[[Any], list[Any]] | None = None,
) -> dict[str, Any]:
    """Predict every image of ``source`` and compare that with what is annotated, in file pixels.

    The model's task chooses the measures. Instance: average precision of masks and boxes (``CocoAP``). Semantic: mean
    and frequency-weighted IoU, pixel accuracy, Boundary IoU (``SemanticFigures``). Panoptic: PQ, SQ, RQ of all
    classes, things and stuff, of boundaries too, mean IoU, and the things' AP (``PanopticFigures``).
    ``data.task_views.for_task`` says which data serve which task.

    Classes are paired by name; what the model finds of classes that the data does not have is left out, in maps void.
    Images whose maps are void all over do not count.

    Args:
        model: what ``load`` or ``build`` returned; it moves to ``device``; its modes and limits stay.
        source: annotated images, as ``read_coco`` or ``open_split`` gives them.
        max_per_image: objects an image that the model gives and that the metric counts, both; COCO has 100.
        score_threshold: objects below it are left out, in [0, 1]; ``None`` keeps the model's.
        batch_size: images computed at once.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: ``"32"``, ``"bf16"``, ``"16"``, or ``"auto"``: bf16 where the hardware has it.
        workers: processes that load and resize images; 0 does it in this one.
        kinds: of ``"mask"`` and ``"box"``, for instances.
        progress: called with (images done, images in all).
        found: called with each image's record and what was found there, classes numbered as in the data.
        also: further measures by name, fed the same scenes; they stay with the caller, for intervals and curves.
        measure: what ``metrics.by_task.judge`` gives for the task and the classes of ``for_task(source, task)``, where
            the caller wants to keep it, for intervals and curves; ``None`` makes one.
        rank, world: this process takes every ``world``-th batch, from its own number on.
        gather: from a value to those of all processes, in their order, in each of them; what each measured is merged,
            so that all return the figures of the whole. Needed where ``world`` is above 1; ``found`` sees a part.

    Returns:
        ``{"mask": {"AP", "AP50", ..., "per_class"}, "box": {...}, "images", "max_per_image"}``, figures as fractions;
        ``{"semantic": {"mIoU", ...}, "images"}``; or ``{"panoptic": {"PQ", ...}, "boundary": {"PQ", ...}, "semantic",
        "mask", "images", "max_per_image"}``; and for each of ``also`` its own figures under its name.

    Raises:
        InputError: no images, none with annotations, an image that cannot be read, no class in common, annotations that
            do not suit the task, or an option out of range.
    """
    task = task_of(model)
    taken = sorted({*kinds, *MAIN_FIGURES, "boundary", "images", "max_per_image"} & (also or {}).keys())
    if taken:
        raise ValueError(f"measures in also must have names of their own, got {', '.join(taken)}")
    if max_per_image < 1 or batch_size < 1 or workers < 0:
        given = f"{max_per_image}, {batch_size} and {workers}"
        raise InputError(f"max_per_image and batch_size must be 1 or more and workers 0 or more, got {given}.")
    if world > 1 and gather is None:
        raise ValueError(f"an evaluation in {world} parts needs gather, to join them")
    if len(source) == 0:
        raise InputError("an evaluation needs annotated images, but the data has none.")
    source = for_task(source, task)
    pairing = pair(model.taxonomy, source.taxonomy)
    where = choose_device(device)
    chosen = choose_precision(precision, where)
    metric = measure
    if metric is None:  # an empty one is false
        metric = judge(task, source.taxonomy, kinds=kinds, max_detections=max_per_image)
    order = Sequential(source, batch_size, rank=rank, world=world)
    loader = make_loader(
        source, ToSize(resize=model.resize, scenes=False), order, workers=workers, multiple=model.size_divisor
    )
    limits: dict[str, float] = {"max_per_image": max_per_image}
    if score_threshold is not None:
        limits["score_threshold"] = score_threshold
    network = cast(nn.Module, model).to(where)
    done, unknown, keys = 0, 0, _repeated(source) if world > 1 else set[int]()
    with torch.no_grad(), evaluating(network, limits):
        for number, batch in enumerate(loader):
            first = (rank + number * world) * batch_size
            with autocast(where, chosen):
                raw = network(batch.inputs.to(where))
            for index, scene in enumerate(model.predict(raw, batch.inputs.geometry), first):
                record = source.record(index)
                # Mixed data may use an id twice; it only decides between equal scores of different images.
                key = f"{record.image_id} {index}" if record.image_id in keys else record.image_id
                if world == 1:
                    keys.add(record.image_id)
                predicted, (truth, areas) = relabel(scene.to("cpu"), pairing), truth_of(record)
                done += 1
                if found is not None:
                    found(record, predicted)
                if truth.semantic is not None and bool((truth.semantic < 0).all()):
                    unknown += 1
                    continue
                metric.update(predicted, truth, key=key, areas=areas)
                for other in (also or {}).values():
                    other.update(predicted, truth, key=key)
            if progress is not None:
                progress(min(done * world, len(source)), len(source))
    if gather is not None and world > 1:
        parts = gather((metric, done, unknown, dict(also or {})))
        metric = reduce(lambda one, other: one.merge(other), [part[0] for part in parts])
        done, unknown = (sum(part[i] for part in parts) for i in (1, 2))
        also = {name: reduce(lambda a, b: a.merge(b), [part[3][name] for part in parts]) for name in also or {}}
    if unknown == done:
        raise InputError(f"an evaluation needs annotated images, but the maps of all {done} are void.")
    return metric.compute() | {name: other.compute() for name, other in (also or {}).items()}


def _repeated(source: Loads) -> set[int]:
    """Ids that several images of mixed data share."""
    counts = Counter(source.record(index).image_id for index in range(len(source)))
    return {image_id for image_id, count in counts.items() if count > 1}


def evaluate_corrupted(
    model: Model,
    source: Loads,
    *,
    corruptions: Sequence[str] = damage.KINDS,
    severities: Sequence[int] = damage.SEVERITIES,
    max_per_image: int = 100,
    score_threshold: float | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "32",
    workers: int = 0,
    kinds: Sequence[str] = INSTANCE_KINDS,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """How much of its performance a model keeps when pictures are damaged (Michaelis et al. 2019, section 3.2).

    The clean images are evaluated first, then each kind of damage at each strength, done to the file's pixels before
    the model's resize. A picture's damage comes from its place in ``source``, the kind and the severity alone.

    Args:
        model, source: as for ``evaluate``, as are the options not named here.
        corruptions: of ``data.robustness.corruptions.KINDS``; all 15 are the benchmark.
        severities: of 1 to 5; all are the benchmark.
        progress: called with (images done, images in all, what is being measured), all evaluations counted together.

    Returns:
        ``{"clean": {"mask", "box"}, "corrupted": {kind: {"1": {"mask", "box"}, ...}}, "mPC": {"mask", "box"},
        "rPC": {"mask", "box"}, "by": {"mask": "AP", "box": "AP"}, "images", "max_per_image"}``, figures as ``evaluate``
        gives them, in the groups whose main figure counts: PQ of ``"panoptic"``, mIoU of ``"semantic"``. mPC is its
        mean over kinds and severities, rPC what that is of the clean one; ``None`` where there is none, or it is zero.

    Raises:
        InputError: as ``evaluate``, and for kinds and severities that do not exist or come twice.
    """
    damage.check(corruptions, severities)
    runs = [(kind, severity) for kind in corruptions for severity in severities]
    total = (1 + len(runs)) * len(source)

    def measure(images: Loads, number: int, what: str) -> dict[str, Any]:
        def told(done: int, of: int) -> None:
            if progress is not None:
                progress(number * of + done, total, what)

        return evaluate(
            model,
            images,
            max_per_image=max_per_image,
            score_threshold=score_threshold,
            batch_size=batch_size,
            device=device,
            precision=precision,
            workers=workers,
            kinds=kinds,
            progress=told,
        )

    whole = measure(source, 0, "clean")
    main = {group: name for group, name in MAIN_FIGURES[task_of(model)].items() if group in whole}
    clean = {group: whole[group] for group in main}
    counts = {name: whole[name] for name in ("images", "max_per_image") if name in whole}
    corrupted: dict[str, dict[str, Any]] = {kind: {} for kind in corruptions}
    for number, (kind, severity) in enumerate(runs, 1):
        figures = measure(damage.Corrupted(source, kind, severity), number, f"{kind} {severity}")
        corrupted[kind][str(severity)] = {group: figures[group] for group in main}
    all_rows = [row for by in corrupted.values() for row in by.values()]
    mean = {group: mean_ap([row[group][name] for row in all_rows]) for group, name in main.items()}
    relative = {
        group: value / clean[group][main[group]] if value is not None and clean[group][main[group]] > 0 else None
        for group, value in mean.items()
    }
    return {"clean": clean, "corrupted": corrupted, "mPC": mean, "rPC": relative, "by": main, **counts}


def mean_ap(values: Sequence[float | None]) -> float | None:
    """The mean; ``None`` unless all are numbers from 0 up, for COCO writes -1 where there is nothing to be found."""
    known = [value for value in values if value is not None and value >= 0]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def truth_of(record: Record) -> tuple[Scene, np.ndarray]:
    """What is annotated, with the file's own boxes, and its areas: float64 [N], which decide the size class."""
    scene = scene_of(replace(record, tracks=None))
    objects = scene.objects()
    if objects.ids is None:
        return scene, record.areas
    place = {int(number): i for i, number in enumerate(record.ids)}
    index = np.array([place[number] for number in objects.ids.tolist()], np.int64)
    boxes = torch.from_numpy(record.boxes[index].astype(np.float32))
    return replace(scene, segments=replace(objects, boxes=boxes)), record.areas[index]


def pair(model: Taxonomy, data: Taxonomy) -> Tensor:
    """For each of the model's classes the data's class of the same name, int64 [C]; -1 where it has none.

    Raises:
        InputError: no class in common.
    """
    known = {name: label for label, name in enumerate(data.names)}
    pairing = torch.tensor([known.get(name, -1) for name in model.names])
    if bool((pairing < 0).all()):
        raise InputError(
            "the model and the data must have class names in common, but the model knows "
            f"{_few(model.names)} and the data {_few(data.names)}. Rename the categories of one of them."
        )
    return pairing


def relabel(scene: Scene, pairing: Tensor) -> Scene:
    """The scene with each label ``l`` replaced by ``pairing[l]``; what gets a negative label is left out, or void."""
    changes: dict[str, Any] = {}
    if scene.segments is not None:
        labels = pairing[scene.segments.labels]
        kept = labels >= 0
        objects = scene.segments if bool(kept.all()) else scene.segments[kept]
        changes["segments"] = replace(objects, labels=labels[kept])
        if scene.panoptic is not None and len(objects) < len(kept) and scene.segments.ids is not None:
            lost = torch.isin(scene.panoptic, scene.segments.ids[~kept])
            changes["panoptic"] = torch.where(lost, 0, scene.panoptic)
    if scene.semantic is not None:
        # -1, void, takes the last place.
        changes["semantic"] = torch.cat([pairing, torch.tensor([-1])])[scene.semantic]
    return replace(scene, **changes)


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
