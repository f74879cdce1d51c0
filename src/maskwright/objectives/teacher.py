"""A model that is right already: it shows a pupil its scenes and its maps, and learns nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.errors import InputError
from maskwright.nn.modes import evaluating
from maskwright.objectives.probing import watched
from maskwright.protocols import Model, task_of
from maskwright.structures import Batch, Geometry, Images, Scene, Segments, Taxonomy


class Teacher:
    """A frozen model in evaluation mode.

    It is no ``nn.Module``, so whoever holds it does not show its weights to optimizers, checkpoints or processes.

    Args:
        model: a ``protocols.Model``; its gradients are switched off for good.
    """

    def __init__(self, model: Model | nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"a teacher must be an nn.Module, got {type(model).__name__}")
        self.model = model.eval().requires_grad_(False)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes it tells apart."""
        return cast(Any, self.model).taxonomy

    def apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> None:
        """What ``nn.Module._apply`` does: move or cast its tensors."""
        self.model._apply(function, recurse)

    @torch.no_grad()
    def scenes(
        self, inputs: Images, layer: nn.Module | None = None, *, least: float = 0.0
    ) -> tuple[list[Scene], dict[str, Tensor]]:
        """What it finds with a score of ``least`` or more, in pixels of the resized pictures; the maps of ``layer``."""
        inputs = padded(inputs, int(cast(Any, self.model).size_divisor))
        views = [Geometry.identity(size) for size in inputs.sizes]
        maps: dict[str, Tensor] = {}
        # no score is learned below ``least``; above it, none may be missing
        with evaluating(self.model, {"score_threshold": least}):
            with nullcontext(maps) if layer is None else watched(layer) as maps:
                raw = self.model(inputs)
            return cast(Model, self.model).predict(raw, views), maps

    @torch.no_grad()
    def maps(self, inputs: Images, layer: nn.Module) -> dict[str, Tensor]:
        """The maps of ``layer``; nothing after it is computed."""
        return maps_in(self.model, inputs, layer)


def maps_in(model: nn.Module, inputs: Images, layer: nn.Module) -> dict[str, Tensor]:
    """The maps that ``layer``, a part of the model, gives for ``inputs``; nothing after it is computed."""
    with watched(layer, enough=True) as seen:
        model(inputs)
    return seen


def padded(inputs: Images, multiple: int) -> Images:
    """The pictures padded further at the bottom and right, to a size that ``multiple`` divides."""
    height, width = inputs.pixels.shape[-2:]
    more = (0, -width % multiple, 0, -height % multiple)
    return replace(inputs, pixels=functional.pad(inputs.pixels, more)) if any(more) else inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How a teacher's scenes become what a pupil learns.

    Attributes:
        threshold: objects of a lower score are not learned; where their picture has no annotation, the places of those
            above ``doubt`` are not learned as background either.
        doubt: see ``threshold``.
        soft: an object is learned with the probability that its score is, and else its place is not learned at all; so
            objects weigh as much as their scores in the mean over steps, in any family.
        share: chance that an annotated picture is learned from the teacher's scene and not from its own.
        fill: add the teacher's objects (or classes of pixels) to annotated pictures where nothing is annotated.
        overlap: an object of the teacher is one of the annotation's from this IoU on, and so is not added.
    """

    threshold: float = 0.5
    doubt: float = 0.1
    soft: bool = False
    share: float = 0.0
    fill: bool = False
    overlap: float = 0.5

    def __post_init__(self) -> None:
        for name in ("threshold", "doubt", "share", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"the response's {name} must lie from 0 to 1, got {getattr(self, name)}.")


class Answers:
    """A teacher's scenes in a pupil's classes, mixed with what is annotated.

    Raises:
        InputError: they have another task, or no class in common.
    """

    def __init__(self, teacher: Teacher, pupil: nn.Module, rules: Response) -> None:
        theirs, own = teacher.taxonomy, cast(Any, pupil).taxonomy
        if task_of(teacher.model) != task_of(pupil):
            raise InputError(
                f"a teacher whose scenes are learned must have the pupil's task, {task_of(pupil)}, "
                f"but its is {task_of(teacher.model)}. Distill features or relations only."
            )
        if not set(theirs.names) & set(own.names):
            raise InputError(
                f"teacher and pupil must have classes in common; the teacher has {', '.join(theirs.names[:8])}, "
                f"the pupil {', '.join(own.names[:8])}. Distill features or relations only."
            )
        self.rules, self.task = rules, task_of(pupil)
        self.label = torch.tensor([own.names.index(n) if n in own.names else -1 for n in theirs.names])

    def asked(self, batch: Batch) -> bool:
        """Whether the teacher's scenes can make a difference to this batch."""
        return self.rules.share > 0 or self.rules.fill or any(scene is None for scene in batch.scenes)

    def mixed(self, truth: Scene | None, found: Scene) -> Scene:
        """The scene to learn from; the random choices are those of PyTorch's own generator."""
        replaced = truth is None or (self.rules.share > 0 and float(torch.rand(())) < self.rules.share)
        if self.task == "semantic":
            return self._semantic(truth, found, replaced)
        if self.task == "panoptic":
            return self._panoptic(found) if replaced or truth is None else truth
        sure, doubtful = self._objects(found)
        if replaced or truth is None:
            assert doubtful.masks is not None
            return Scene(size=found.size, segments=sure, ignore=doubtful.masks)
        return self._filled(truth, sure) if self.rules.fill else truth

    def _objects(self, found: Scene) -> tuple[Segments, Segments]:
        """Objects to learn, without scores, and those whose place is left out."""
        objects = found.objects().to("cpu")
        if objects.masks is None or objects.scores is None:
            raise InputError("a teacher's objects must have masks and scores, but these have not.")
        labels, scores = self.label[objects.labels], objects.scores
        sure = (scores >= self.rules.threshold) & (labels >= 0)
        if self.rules.soft:
            sure &= torch.rand(len(scores)) < scores
        doubtful = ~sure & (scores >= self.rules.doubt) & (labels >= 0)
        plain = Segments(size=objects.size, labels=labels, masks=objects.masks, boxes=objects.masks.boxes())
        real = objects.masks.area() > 0
        return plain[sure & real], plain[doubtful & real]

    def _filled(self, truth: Scene, sure: Segments) -> Scene:
        """The annotation, and the objects that overlap nothing that it says."""
        objects = truth.objects()
        if objects.masks is None or sure.masks is None:
            raise InputError("only annotations with masks can be filled up, and this one has none. Leave out fill.")
        free = torch.ones(len(sure), dtype=torch.bool)
        if len(sure) and len(objects):
            free &= sure.masks.iou(objects.masks).amax(1) < self.rules.overlap
        if len(sure) and truth.ignore is not None and len(truth.ignore):
            free &= sure.masks.iou(truth.ignore).amax(1) < self.rules.overlap
        added = sure[free]
        if not len(added):
            return truth
        crowd = None if objects.crowd is None else torch.zeros(len(added), dtype=torch.bool)
        boxes = objects.boxes if objects.boxes is not None else objects.masks.boxes()
        own = replace(objects, boxes=boxes, scores=None, ids=None)
        more = replace(added, crowd=crowd).to(objects.labels.device)
        return replace(truth, segments=Segments.cat([own, replace(more, boxes=_like(more.boxes, boxes))]))

    def _semantic(self, truth: Scene | None, found: Scene, replaced: bool) -> Scene:
        classes = found.classes().cpu()
        own = torch.where(classes >= 0, self.label[classes.clamp(min=0)], -1)
        if replaced or truth is None:
            return Scene(size=found.size, semantic=own)
        if not self.rules.fill:
            return truth
        known = truth.classes()
        return Scene(
            size=truth.size, semantic=torch.where(known >= 0, known, own.to(known.device)), ignore=truth.ignore
        )

    def _panoptic(self, found: Scene) -> Scene:
        objects, ids = found.objects().to("cpu"), found.panoptic
        if ids is None or objects.ids is None:
            raise InputError("a panoptic teacher must give a map of segments with ids, and this one does not.")
        labels = self.label[objects.labels]
        keep = labels >= 0
        if objects.scores is not None:
            keep &= objects.scores >= self.rules.threshold
        known = ids.cpu() * torch.isin(ids.cpu(), objects.ids[keep])
        segments = Segments(size=found.size, labels=labels[keep], ids=objects.ids[keep])
        return Scene(size=found.size, segments=segments, panoptic=known).with_masks()


def _like(boxes: Tensor | None, other: Tensor) -> Tensor | None:
    return None if boxes is None else boxes.to(other)


def layer_of(model: nn.Module, name: str, whose: str) -> nn.Module:
    """The module called ``name``, or the one whose name ends so (``neck`` is ``detector.neck``, too).

    Raises:
        InputError: there is none, or several.
    """
    modules = dict(model.named_modules())
    if name in modules:
        return modules[name]
    ending = [full for full in modules if full.endswith("." + name)]
    if len(ending) == 1:
        return modules[ending[0]]
    parts = ", ".join(child for child, _ in model.named_children())
    raise InputError(
        f"the layer to distill must be one part of each model, but the {whose} has {len(ending)} called {name!r}. "
        f"Its parts are {parts}; name one that gives a pyramid of maps in both."
    )
