"""What a model of a task is given of a data set: scenes that hold what the task learns and is measured by.

- instance: countable objects and their classes; no maps.
- semantic: ``Scene.semantic``; no objects.
- panoptic: ``Scene.panoptic``, every segment of it in ``Scene.segments`` under its id, things and stuff, and the
  classes of all pixels in ``Scene.semantic``.

A panoptic data set serves all three. Data without any map can serve a panoptic model where nothing is stuff.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

import numpy as np

from maskwright.data.source import Loads, image_labels
from maskwright.data.tasks import Mapped, things_of, to_panoptic, to_semantic
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Record, Taxonomy

ModelTask = Literal["instance", "semantic", "panoptic"]
MODEL_TASKS: tuple[ModelTask, ...] = ("instance", "semantic", "panoptic")

_LOOKED_AT = 200
"""Records that tell what a data set knows."""


class View(Mapped):
    """A source as a model of ``task`` sees it."""

    def __init__(self, source: Loads, task: ModelTask, change: Callable[[Record], Record]) -> None:
        super().__init__(source, change, source.taxonomy)
        self.task = task

    @property
    def image_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """As ``data.source.image_labels``; where there are maps only, they are all read for it."""
        first, labels = image_labels(self.source)
        if len(labels):
            return first, labels
        shown = [_shown(to_semantic(self.source.record(i))) for i in range(len(self))]
        first = np.concatenate([[0], np.cumsum([len(each) for each in shown])]).astype(np.int64)
        return first, np.concatenate([np.zeros(0, np.int64), *shown])


def for_task(source: Loads, task: str) -> Loads:
    """The view of ``source`` that a model of ``task`` is trained and measured on; itself where it is one already.

    Maps are not read before a picture is. An image of which nothing is known, among others with maps, is void all over.

    Args:
        source: annotated images of any kind.
        task: instance, semantic or panoptic, as the zoo says of a model.

    Raises:
        InputError: the annotations cannot tell what the task needs.
        ValueError: no such task.
    """
    if task not in MODEL_TASKS:
        raise ValueError(f"a model's task must be one of {', '.join(MODEL_TASKS)}, got {task!r}")
    if getattr(source, "task", None) == task:
        return source
    checks = {"instance": _check_instance, "semantic": _check_semantic, "panoptic": _check_panoptic}
    checks[task](_Known.of(source), source.taxonomy)
    if task == "instance":
        return things_of(source)
    if task == "semantic":
        return View(source, "semantic", _semantic)
    taxonomy = source.taxonomy
    return View(source, "panoptic", lambda record: _panoptic(record, taxonomy))


# ---- what is known --------------------------------------------------------------------------------------------------


class _Known:
    """What the first records of a source hold."""

    def __init__(self, panoptic: bool, semantic: bool, objects: bool) -> None:
        self.panoptic, self.semantic, self.objects = panoptic, semantic, objects

    @classmethod
    def of(cls, source: Loads) -> _Known:
        panoptic = semantic = objects = False
        for index in range(min(len(source), _LOOKED_AT)):
            record = source.record(index)
            panoptic |= record.panoptic is not None
            semantic |= record.semantic is not None
            objects |= len(record) > 0
        return cls(panoptic, semantic, objects)

    @property
    def maps_only(self) -> bool:
        return self.semantic and not self.panoptic and not self.objects

    @property
    def objects_only(self) -> bool:
        return self.objects and not self.panoptic and not self.semantic


def _check_instance(known: _Known, taxonomy: Taxonomy) -> None:
    if known.maps_only:
        raise InputError(
            "an instance model learns objects, but the data has semantic maps only, which do not say where one object "
            "of a class ends and the next begins. Train a semantic model on it."
        )


def _check_semantic(known: _Known, taxonomy: Taxonomy) -> None:
    if known.objects_only and len(taxonomy) == 1:
        raise InputError(
            f"a semantic model tells classes apart, but the data has objects of one class ({taxonomy.names[0]}) and no "
            "maps: all other pixels are void. Train an instance model on it, or give semantic maps."
        )


def _check_panoptic(known: _Known, taxonomy: Taxonomy) -> None:
    stuff = [name for name, thing in zip(taxonomy.names, taxonomy.thing, strict=True) if not thing]
    things = [name for name in taxonomy.names if name not in stuff]
    if known.objects_only and stuff:
        raise InputError(
            f"a panoptic model learns stuff too, but the data has objects only, and {len(stuff)} of its classes are "
            f"stuff, which no object shows: {_few(stuff)}. Give panoptic annotations or semantic maps beside the "
            "objects, leave these classes out (maskwright remap), or train an instance model."
        )
    if known.maps_only and things:
        raise InputError(
            f"a panoptic model tells objects apart, but the data has semantic maps only, and {len(things)} of its "
            f"classes are things: {_few(things)}. Give panoptic annotations, or objects beside the maps, or train a "
            "semantic model."
        )


# ---- records --------------------------------------------------------------------------------------------------------


def _semantic(record: Record) -> Record:
    """As ``to_semantic``, but a map in a file stays there until its pixels are needed."""
    semantic = record.semantic
    if semantic is None and isinstance(record.panoptic, LabelMap):
        classes = dict(zip(record.ids.tolist(), record.labels.tolist(), strict=True))
        semantic = LabelMap(path=record.panoptic.path, form=record.panoptic.form, classes=classes)
    if semantic is None:
        return to_semantic(record)
    none = np.zeros(0, np.int64)
    return replace(
        record, semantic=semantic, panoptic=None, labels=none, shapes=(), boxes=np.zeros((0, 4), np.float32),
        crowd=none.astype(bool), ids=none, areas=none.astype(np.float64), tracks=None,
    )  # fmt: skip


def _panoptic(record: Record, taxonomy: Taxonomy) -> Record:
    """As ``to_panoptic``, but a panoptic map is left where it is; classes come from the segments."""
    if record.panoptic is not None:
        return record
    if record.semantic is None and len(record) == 0:
        return replace(record, panoptic=np.zeros(record.size, np.int64))
    return to_panoptic(record, taxonomy)


def _shown(record: Record) -> np.ndarray:
    labels = np.unique(cast(np.ndarray, record.semantic)).astype(np.int64)
    return labels[labels >= 0]


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
