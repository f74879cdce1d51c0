"""Programs of every family: any size, also with a size in symbols, and any number of pictures where that can be."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from maskwright import zoo
from maskwright.export.golden import batches, drawn
from maskwright.export.program import trace, without_weights
from maskwright.metrics.alike import Tolerance, compare
from maskwright.structures import Images
from tests.contract.test_models import CLASSES, TINY, ready

ROUGH = Tolerance(score=1e-2, iou=0.9, objects=0.9, pixels=0.999)
"""Random masks are noise around their threshold."""

QUICK = ("solov2-light-r18", "rtmdet-ins-tiny", "semantic-fpn-r50")
"""One of each kind of graph that the other tests here have not; the contract traces all families."""


def reader(name: str) -> Any:
    """The model's family without weights."""
    model: Any = ready(name)
    made: Any = zoo.build(name, CLASSES, **TINY[zoo.entry(name).build.partition(":")[0]])
    made.score_threshold, made.max_per_image = model.score_threshold, model.max_per_image
    return without_weights(made.eval())


@pytest.mark.parametrize("name", QUICK)
def test_a_program_is_the_model_at_any_size(name: str) -> None:
    model: Any = ready(name)
    golden = batches([drawn((90, 150), 0)], 1, model.size_divisor)
    traced = trace(model, golden, most=1024)
    program: Any = traced.program.module(check_guards=False)
    light = reader(name)
    for size in ((181, 255), (310, 190)):
        inputs: Images = batches([drawn(size, 1)], 1, model.size_divisor)[0]
        with torch.no_grad():
            found = traced.layout.build(program(inputs.pixels, torch.tensor(inputs.sizes)))
            wanted = model(inputs)
        limits = {"threshold": model.score_threshold, "limit": model.max_per_image}
        scenes = light.predict(found, inputs.geometry), model.predict(wanted, inputs.geometry)
        agreement = compare(*scenes, ROUGH, **cast(Any, limits))
        assert agreement.objects > 0 or model.task == "semantic"
        assert agreement.holds(ROUGH), agreement


@pytest.mark.parametrize("name", ["semantic-fpn-r50"])
def test_any_number_of_pictures(name: str) -> None:
    model: Any = ready(name)
    traced = trace(model, batches([drawn((90, 150), 0)], None, model.size_divisor), batch=None, most=1024)
    assert traced.batch is None
    program: Any = traced.program.module(check_guards=False)
    for count in (1, 3):
        inputs = batches([drawn((181 + 9 * i, 200), i) for i in range(count)], count, model.size_divisor)[0]
        with torch.no_grad():
            found = traced.layout.flatten(model(inputs))
            for a, b in zip(program(inputs.pixels, torch.tensor(inputs.sizes)), found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
