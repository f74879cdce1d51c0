"""torchvision's own Mask R-CNN with random weights against ours, file to scene, on pictures of several sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from maskwright.infer.predictor import predict
from maskwright.structures import Resize, Scene
from maskwright.zoo import load
from tests.parity.harness import matched

SHORT, LONG = 160, 256
LIMITS = {"box_detections_per_img": 40, "rpn_post_nms_top_n_test": 200}
SIZES = {"min_size": SHORT, "max_size": LONG}
# Gains that keep a random network's activations in range and make it sure of something.
GAINS = {
    r"conv1\.weight": 0.5,
    r"body\..*conv3\.weight": 0.5,
    r"inner_blocks.*weight": 0.5,
    r"head\.bbox_pred\.weight": 0.15,
    r"head\.cls_logits\.weight": 0.5,
    r"box_predictor\.bbox_pred\.weight": 0.75,
    r"box_predictor\.cls_score\.weight": 3.0,
    r"mask_fcn_logits\.weight": 4.0,
}


def randomize(model: nn.Module, seed: int, gains: dict[str, float], variance: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        draw = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            draw = variance * (0.8 + 0.2 * draw.abs())
        elif value.ndim >= 2:
            draw = draw * (1.6 / value[0].numel()) ** 0.5
        elif name.endswith("weight"):
            draw = (1 + 0.1 * draw) * variance**0.5
        else:
            draw = 0.02 * draw
        for pattern, gain in gains.items():
            draw = draw * (gain if re.search(pattern, name) else 1.0)
        value.copy_(draw)


def pictures() -> list[np.ndarray]:
    """Two pictures of smooth waves, blocks and noise, uint8 [H, W, 3], of different sizes."""
    rng = np.random.default_rng(5)
    out: list[np.ndarray] = []
    for height, width in ((211, 190), (150, 283)):
        y, x = np.mgrid[0:height, 0:width]
        waves = [120 + 70 * np.sin(x / 17 + k) + 50 * np.cos(y / (11 + 3 * k)) for k in range(3)]
        image = np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3))
        for _ in range(6):
            top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
            image[top : top + rng.integers(15, 60), left : left + rng.integers(15, 60)] = rng.integers(0, 255, 3)
        out.append(image.clip(0, 255).astype(np.uint8))
    return out


def version_1() -> nn.Module:
    return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZES, **LIMITS)


def version_2() -> nn.Module:
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **SIZES, **LIMITS)


def published_version_1() -> nn.Module:
    """As torchvision runs its published version 1: frozen norms without epsilon."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    model = MaskRCNN(backbone, num_classes=91, **SIZES, **LIMITS)
    overwrite_eps(model, 0.0)
    return model


def small() -> nn.Module:
    """ResNet-18 and four classes of one's own."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    return MaskRCNN(backbone, num_classes=5, **SIZES, **LIMITS)


CASES: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "v1": (version_1, "mask-rcnn-r50", 1.0),
    "v2": (version_2, "mask-rcnn-r50", 1.0),
    "v1-published": (published_version_1, "mask-rcnn-r50", 1e-4),
    "r18": (small, "mask-rcnn-r18", 1.0),
}


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that the published version 1 has, from before torchvision 0.13."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        name = re.sub(r"(inner|layer)_blocks\.(\d)\.0\.", r"\1_blocks.\2.", name)
        name = re.sub(r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name)
        out[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)] = value
    return out


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_scenes_are_those_of_torchvision(name: str, tmp_path: Path) -> None:
    make, zoo_name, variance = CASES[name]
    torch.manual_seed(0)
    theirs = make().eval()
    randomize(theirs, 3, {**GAINS, r"cls_score\.weight": 5.0} if name == "v2" else GAINS, variance)
    state = theirs.state_dict()
    torch.save(old_names(state) if name == "v1-published" else state, tmp_path / "checkpoint.pth")
    images = pictures()
    expected = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])

    ours = load(zoo_name, weights=tmp_path / "checkpoint.pth")
    assert ours.resize == Resize(short=800, long=1333, antialias=False)
    assert len(ours.taxonomy) == len(state["roi_heads.box_predictor.cls_score.bias"]) - 1
    resize = Resize(short=SHORT, long=LONG, antialias=False)
    ours.proposals_test = (1000, LIMITS["rpn_post_nms_top_n_test"])
    limit = LIMITS["box_detections_per_img"]
    scenes = predict(ours, images, resize=resize, max_per_image=limit, batch_size=2, precision="32")
    assert isinstance(scenes, list)
    for scene, wanted, image in zip(scenes, expected, images, strict=True):
        assert scene.size == image.shape[:2]
        compare(scene, wanted)


def compare(scene: Scene, wanted: dict[str, Any]) -> None:
    found = scene.objects()
    assert found.boxes is not None
    assert found.scores is not None
    assert found.masks is not None
    boxes, labels = wanted["boxes"].numpy(), wanted["labels"].numpy() - 1
    assert len(boxes) >= 20
    assert abs(len(found) - len(boxes)) <= 1
    index, gap = matched(boxes, labels, found.boxes.numpy(), found.labels.numpy())
    good = index >= 0
    # A tie in an NMS may fall the other way under another order of summation.
    assert (~good).sum() <= len(boxes) // 50, np.sort(gap)[-5:]
    assert np.abs(found.scores.numpy()[index[good]] - wanted["scores"].numpy()[good]).max() <= 1e-4
    masks = (wanted["masks"][:, 0] > 0.5).numpy()[good]
    dense = found.masks[torch.from_numpy(index[good])].dense().numpy()
    union, both = (dense | masks).sum((1, 2)), (dense & masks).sum((1, 2))
    assert masks.any()
    assert np.all(both >= 0.99 * union), (both / np.maximum(union, 1)).min()
