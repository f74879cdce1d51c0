"""How many of a data set's objects a model's first stage proposes."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from maskwright.data.augment.transforms import ToSize
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Sequential
from maskwright.data.source import Loads
from maskwright.metrics.proposals import ProposalRecall
from maskwright.nn.modes import autocast, evaluating
from maskwright.ops.hardware import choose_device, choose_precision
from maskwright.protocols import Model
from maskwright.structures import Scene
from maskwright.train.stages import two_stages


def proposal_recall(
    model: nn.Module, source: Loads, *, device: str = "auto", precision: str = "32", workers: int = 0
) -> dict[str, float]:
    """Average recall of what the model proposes at test time, see ``metrics.proposals``; crowds do not count.

    Things only, in models that tell them from stuff. Boxes are compared in the pixels that the model sees.

    Raises:
        InputError: the model's first stage proposes no boxes.
    """
    two, where = two_stages(model), choose_device(device)
    chosen = choose_precision(precision, where)
    known = cast(Model, model)
    augment = ToSize(resize=known.resize)
    loader = make_loader(source, augment, Sequential(source, 1), workers=workers, multiple=known.size_divisor)
    metric = ProposalRecall()
    thing = torch.tensor(source.taxonomy.thing)
    network = model.to(where)
    with torch.no_grad(), evaluating(network, {}):
        for batch in loader:
            with autocast(where, chosen):
                found = two.proposals(batch.inputs.to(where), two.proposals_test)
            for boxes, scene in zip(found, batch.truth(), strict=True):
                metric.update(boxes.float().cpu(), _boxes(scene, thing))
    return metric.compute()


def _boxes(scene: Scene, thing: torch.Tensor) -> torch.Tensor:
    objects = scene.objects()
    keep = thing[objects.labels]
    if objects.crowd is not None:
        keep &= ~objects.crowd
    objects = objects[keep]
    if objects.boxes is not None:
        return objects.boxes.float()
    assert objects.masks is not None
    return objects.masks.boxes().float()
