"""Distillation: a pupil learns from a teacher's scenes and maps, beside what it learns from annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.objectives.imitation import Imitation, Pairs, pair_levels, paired, relation_sum
from maskwright.objectives.probing import picture, undisturbed, watched
from maskwright.objectives.teacher import Answers, Response, Teacher, layer_of, maps_in
from maskwright.objectives.wrapper import Losses, Wrapper, counted_of
from maskwright.protocols import Model, Objective
from maskwright.structures import Batch, Scene

OBJECTS, REST, RELATIONS = "teacher_objects", "teacher_rest", "teacher_relations"
FACTORS = {OBJECTS: 1.0, REST: 0.5, RELATIONS: 10.0}
"""Weights of the losses on maps: FGD's ratio of objects to the rest; structured distillation's of relations."""


class Distilled(Wrapper):
    """The losses of the objective inside, on scenes mixed with the teacher's, and losses between both models' maps.

    The teacher is frozen, in evaluation mode, and no part of this module: it is in no checkpoint, no optimizer and no
    list of parameters to share between processes. It sees the pictures as the pupil does, padded further if it must.
    Accumulation stays exact: the teacher draws nothing by chance, and what this draws is drawn again alike.

    Args:
        inner: the pupil's objective.
        teacher: a model of any family.
        response: learn the teacher's scenes, mixed with the annotated ones by these rules; of the same task, and
            classes are matched by name. ``None`` learns what is annotated.
        features: imitate the teacher's maps, see ``imitation.Imitation``: losses ``teacher_objects``, a mean over
            objects, and ``teacher_rest``, one over pictures.
        relations: imitate how places of the maps relate, see ``imitation.relation_sum``: ``teacher_relations``.
        layer: the name of the part that gives the pyramid of maps, in both models.
        side: places along a side that relations are measured between.

    Raises:
        InputError: the two models do not fit each other.
    """

    def __init__(
        self,
        inner: Objective | nn.Module,
        teacher: Model | nn.Module,
        *,
        response: Response | None = None,
        features: bool = False,
        relations: bool = False,
        layer: str = "neck",
        side: int = 16,
    ) -> None:
        super().__init__(inner)
        if not (response is not None or features or relations):
            raise InputError("distillation needs one or more of response, features and relations, got none.")
        if teacher is self.model:
            raise InputError("a teacher must be another model than its pupil, got the same. Load it a second time.")
        self.teacher = Teacher(teacher)
        self.answers = None if response is None else Answers(self.teacher, self.model, response)
        self.with_relations, self.side = relations, side
        self.imitation: Imitation | None = None
        self.pairs: Pairs = ()
        if features or relations:
            self._own = _Layer(layer_of(self.model, layer, "pupil"))
            self._theirs = _Layer(layer_of(self.teacher.model, layer, "teacher"))
            channels = self._meet()
            if features:
                self.imitation = Imitation(channels).to(next(self.model.parameters()).device)

    def _meet(self) -> list[tuple[int, int]]:
        """Pair the levels of both pyramids on one picture; their channels."""
        own, theirs = (int(cast(Any, model).size_divisor) for model in (self.model, self.teacher.model))
        if own % theirs:
            raise InputError(
                f"maps can be compared only where both models see the same padded picture: the teacher needs a "
                f"multiple of {theirs}, the pupil of {own}. Distill the response only."
            )
        inputs = picture(self.model).inputs
        self.teacher.model.to(inputs.pixels.device)
        with undisturbed(self.model):
            mine = maps_in(self.model, inputs, self._own.module)
        other = self.teacher.maps(inputs, self._theirs.module)
        self.pairs = pair_levels(mine, other)
        return [(mine[a].shape[1], other[b].shape[1]) for a, b in self.pairs]

    def terms(self) -> tuple[str, ...]:
        """The names of the losses."""
        own = (OBJECTS, REST) if self.imitation is not None else ()
        return (*super().terms(), *own, *((RELATIONS,) if self.with_relations else ()))

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses of the objective inside and those between maps, with what each is a mean over."""
        asked = self.answers is not None and self.answers.asked(batch)
        if not self.pairs:
            return counted_of(self.inner, self._mixed(batch, self._seen(batch)[0]) if asked else batch)
        if not asked:
            theirs = self.teacher.maps(batch.inputs, self._theirs.module)
        else:
            scenes, theirs = self._seen(batch, self._theirs.module)
            batch = self._mixed(batch, scenes)
        with watched(self._own.module) as own:
            losses, counts = counted_of(self.inner, batch)
        maps = paired(own, theirs, self.pairs)
        added, numbers = self._compared(maps, batch)
        return {**losses, **added}, {**counts, **numbers}

    def _compared(self, maps: Sequence[tuple[Tensor, Tensor]], batch: Batch) -> tuple[Losses, Losses]:
        canvas = (int(batch.inputs.pixels.shape[-2]), int(batch.inputs.pixels.shape[-1]))
        pictures = maps[0][0].new_tensor(float(len(batch)))
        losses: Losses = {}
        counts: Losses = {}
        if self.imitation is not None:
            things = torch.tensor(cast(Any, self.model).taxonomy.thing)
            boxes = [_boxes(scene, things) for scene in batch.truth()]
            objects = pictures.new_tensor(float(sum(len(b) for b in boxes)))
            inside, outside = self.imitation(maps, boxes, batch.inputs.sizes, canvas)
            losses = {OBJECTS: inside / objects.clamp(min=1), REST: outside / pictures}
            counts = {OBJECTS: objects, REST: pictures}
        if self.with_relations:
            losses[RELATIONS] = relation_sum(maps, batch.inputs.sizes, canvas, self.side) / pictures
            counts[RELATIONS] = pictures
        return {name: loss * FACTORS[name] for name, loss in losses.items()}, counts

    def _seen(self, batch: Batch, layer: nn.Module | None = None) -> tuple[list[Scene], dict[str, Tensor]]:
        assert self.answers is not None
        rules = self.answers.rules
        return self.teacher.scenes(batch.inputs, layer, least=min(rules.doubt, rules.threshold))

    def _mixed(self, batch: Batch, scenes: Sequence[Scene]) -> Batch:
        assert self.answers is not None
        mixed = [self.answers.mixed(truth, found) for truth, found in zip(batch.scenes, scenes, strict=True)]
        return replace(batch, scenes=tuple(scene.to(batch.inputs.pixels.device) for scene in mixed))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distilled:
        super()._apply(fn, recurse)
        self.teacher.apply(fn, recurse)
        return self


class _Layer:
    """Holds a module without making it a part of whoever holds this."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


@torch.no_grad()
def _boxes(scene: Scene, things: Tensor) -> Tensor:
    """The boxes [N, 4] of single things; none where a scene has no objects but a map."""
    if scene.segments is None:
        return torch.zeros(0, 4)
    objects = scene.with_masks().objects()
    boxes = objects.boxes
    if boxes is None:
        boxes = torch.zeros(len(objects), 4) if objects.masks is None else objects.masks.boxes()
    single = things.to(objects.labels.device)[objects.labels]
    if objects.crowd is not None:
        single = single & ~objects.crowd
    return boxes[single.to(boxes.device)]
