"""torchvision's own DeepLabv3 with random weights against ours, from pixels to the map of classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_resnet50, deeplabv3_resnet101

from maskwright.structures import Geometry, Images
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.test_torchvision_random import randomize

SIZE = (120, 150)


@pytest.mark.parametrize(("make", "classes"), [(deeplabv3_resnet50, 21), (deeplabv3_resnet101, 5)])
@torch.no_grad()
def test_maps_and_classes(make: Any, classes: int) -> None:
    theirs = make(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True).eval()
    randomize(theirs, 0, {r"conv1\.weight": 0.5, r"layer.*conv3\.weight": 0.5})
    state = theirs.state_dict()
    importer = require_importer(state, "torchvision")
    taxonomy = importer.taxonomy(state)
    assert len(taxonomy) == classes
    assert (taxonomy.names[0] == "background") == (classes == 21)
    model: Any = build(importer.model(state), taxonomy, **importer.options(state))
    assert load_state(model, importer.convert(state), source="torchvision").complete
    pixels = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = Images(pixels=pixels, geometry=(Geometry.identity(SIZE), Geometry.resized((180, 225), SIZE)))
    raw = model.eval()(inputs)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    wanted = theirs((pixels / 255 - mean) / std)["out"]
    ours = functional.interpolate(raw.semantic_logits, size=SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    same, larger = (scene.semantic for scene in model.predict(raw, inputs.geometry))
    assert (same != wanted[0].argmax(0)).float().mean() < 1e-3
    again = functional.interpolate(wanted[1:], size=(180, 225), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (larger != again).float().mean() < 1e-3
