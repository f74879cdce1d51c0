"""UPSNet's own panoptic head, mask pruning and semantic head against ours, on the recorded inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.upsnet import Claimed, Raw, UPSNet, upsnet_r50
from maskwright.nn.heads.roi_box import detect
from maskwright.nn.heads.upsnet import DeformableSemanticHead, Placed, panoptic_logits
from maskwright.ops import rle
from maskwright.ops.panoptic import prune
from maskwright.structures import Taxonomy
from tests.parity.harness import Reference, matched, recipe

SIZE = (128, 160)
STUFF, THINGS = torch.arange(11), torch.arange(11, 19)
KEYS = {
    *(f"{kind}_{what}" for kind in ("det", "pan") for what in ("boxes", "scores", "classes")),
    *("keep_inds", "mask_logits_removal", "seg_inst_logits", "panoptic_output_void", "panoptic_output_novoid"),
    *("train_mask_term", "train_seg_inst", "train_matched_gt_void", "train_matched_gt_novoid"),
    *("train_panoptic_loss_void", "train_panoptic_loss_novoid", "fcn_score", "fcn_output_argmax"),
}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.read("upsnet_panoptic_head")


def enlarged(values: np.ndarray, factor: int) -> Tensor:
    return torch.from_numpy(np.repeat(np.repeat(values, factor, -2), factor, -1))


def normal(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    return recipe().normal(name, shape, scale)


def masks() -> Tensor:
    return enlarged(normal("ups_masks", (100, 9, 7, 7), 2), 4) + 1.2


@pytest.fixture(scope="module")
def placed(reference: Reference) -> tuple[Placed, Tensor]:
    boxes, classes = (torch.from_numpy(reference.full(f"pan_{what}")) for what in ("boxes", "classes"))
    return Placed.at(masks()[torch.arange(len(classes)), classes], boxes, SIZE), classes


def test_every_recorded_key_is_tested(reference: Reference) -> None:
    assert set(reference.meta["arrays"]) == KEYS


@pytest.mark.parametrize(("kind", "threshold", "agnostic"), [("det", 0.05, False), ("pan", 0.6, True)])
def test_detections(reference: Reference, kind: str, threshold: float, agnostic: bool) -> None:
    center, extent = recipe().uniform("ups_centres", (60, 2)), recipe().uniform("ups_sizes", (60, 2), 0.15, 0.65)
    wide = np.array([SIZE[1], SIZE[0]], np.float32)
    rois = np.concatenate(((center - extent / 2) * wide, (center + extent / 2) * wide), 1).astype(np.float32)
    rois = torch.from_numpy(rois).clamp(min=0).minimum(torch.tensor([SIZE[1] - 1, SIZE[0] - 1] * 2))
    deltas = torch.from_numpy(normal("ups_deltas", (60, 36), 0.5))[:, 4:]
    logits = torch.from_numpy(normal("ups_cls", (60, 9), 4)).roll(-1, 1)
    far = torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = detect(
        [rois + far], logits, deltas, [SIZE], box_weights=(10.0, 10.0, 5.0, 5.0), score_threshold=threshold,
        nms_threshold=0.5, limit=100, agnostic=agnostic, inclusive=True,
    )[0]  # fmt: skip
    boxes, classes = reference.full(f"{kind}_boxes"), reference.full(f"{kind}_classes")
    index, gap = matched(boxes, classes, (found.boxes - far).numpy(), found.labels.numpy() + 1)
    assert len(found.boxes) == len(boxes)
    assert gap.max() <= 1e-2
    assert np.abs(found.scores.numpy()[index] - reference.full(f"{kind}_scores")).max() <= 1e-3


def test_pruned_masks(reference: Reference, placed: tuple[Placed, Tensor]) -> None:
    drawn, classes = placed
    runs = rle.encode((drawn.masks() > 0).numpy())
    kept = prune(runs, classes.numpy(), reference.full("pan_scores"), SIZE, 0.3)
    assert kept.tolist() == reference.full("keep_inds").tolist()


def test_panoptic_head(reference: Reference, placed: tuple[Placed, Tensor]) -> None:
    semantic = enlarged(normal("ups_seg", (1, 19, SIZE[0] // 8, SIZE[1] // 8)), 8)[0]
    kept = torch.from_numpy(reference.full("keep_inds"))
    drawn, labels = placed[0][kept], placed[1][kept] + 10
    reference.near("mask_logits_removal", drawn.masks()[None], relative=1e-4)
    reference.near("seg_inst_logits", drawn.classes(semantic, labels)[None], relative=1e-4)
    maps = panoptic_logits(semantic, STUFF, THINGS, drawn, labels)
    owner = maps.argmax(0)
    owner[owner == len(maps) - 1] = 255
    assert torch.equal(owner, torch.from_numpy(reference.full("panoptic_output_void"))[0].long())
    known = maps[:-1].argmax(0)
    assert torch.equal(known, torch.from_numpy(reference.full("panoptic_output_novoid"))[0].long())
    rows = slice(40, 77)  # any part can be computed alone
    assert torch.equal(panoptic_logits(semantic[:, rows], STUFF, THINGS, drawn, labels, rows), maps[:, rows])


def training() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Semantic logits at a stride of 4, the true objects' mask logits, inclusive boxes and classes from 1."""
    boxes, labels, _ = recipe().targets(*SIZE)
    semantic = enlarged(normal("ups_seg4", (1, 19, SIZE[0] // 8, SIZE[1] // 8)), 2)
    classes = torch.from_numpy(labels % 8 + 1)
    return semantic, masks()[torch.arange(5), classes], torch.from_numpy(boxes - [0, 0, 1, 1]).float(), classes


def test_training_maps(reference: Reference) -> None:
    semantic, logits, boxes, classes = training()
    drawn = Placed.at(logits, boxes / 4, (32, 40))
    reference.near("train_mask_term", drawn.masks()[None], relative=1e-4)
    reference.near("train_seg_inst", drawn.classes(semantic[0], classes + 10)[None], relative=1e-4)


@pytest.mark.parametrize(("name", "known"), [("void", 4), ("novoid", 5)])
def test_panoptic_loss(reference: Reference, name: str, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"class {i}" for i in range(19))
    model = tiny(Taxonomy(names=names, thing=(False,) * 11 + (True,) * 8))
    semantic, logits, boxes, classes = training()
    target = torch.from_numpy(reference.full(f"train_matched_gt_{name}").astype(np.int64))[0]
    target[target == 255] = -1
    claimed = Claimed((boxes + torch.tensor([0, 0, 1, 1]))[:known], classes[:known] - 1, target)
    nothing: Any = None
    raw = Raw(*[nothing] * 7, semantic_logits=semantic, truth_logits=logits[:known], claimed=[claimed])
    if name == "novoid":  # without the unknown class
        compete = model.compete
        monkeypatch.setattr(model, "compete", lambda *args: compete(*args)[:-1])
    loss = model._panoptic_sum(raw) / semantic[:, 0].numel()
    assert float(loss) == pytest.approx(float(reference.full(f"train_panoptic_loss_{name}")), rel=1e-4)


def test_true_panoptic_map(reference: Reference) -> None:
    """The map that the panoptic loss learns, from a scene."""
    from maskwright.structures import Masks, Scene, Segments

    boxes, labels, masks = recipe().targets(*SIZE)
    names = tuple(f"class {i}" for i in range(19))
    model = tiny(Taxonomy(names=names, thing=(False,) * 11 + (True,) * 8), unknown=0.0)
    semantic = torch.arange(40)[None].expand(32, 40).repeat_interleave(4, 0).repeat_interleave(4, 1) // 6 % 11
    for label, mask in zip(labels % 8, torch.from_numpy(masks), strict=True):
        semantic = torch.where(mask, 11 + int(label), semantic)
    semantic[:12] = -1
    segments = Segments(
        size=SIZE, labels=torch.from_numpy(labels % 8 + 11), boxes=torch.from_numpy(boxes),
        masks=Masks.from_dense(torch.from_numpy(masks)),
    )  # fmt: skip
    found = model._claim(Scene(size=SIZE, segments=segments, semantic=semantic), (32, 40), torch.device("cpu"))
    want = torch.from_numpy(reference.full("train_matched_gt_novoid").astype(np.int64))[0]
    place = [int((found.boxes == box).all(1).nonzero()) for box in torch.from_numpy(boxes)]
    ours = torch.tensor([*range(11), *(11 + p for p in place), *[-1] * 240])
    assert torch.equal(found.target, ours[want])


def test_semantic_head(reference: Reference) -> None:
    head = DeformableSemanticHead(256, 19)
    state: dict[str, Tensor] = {}
    for name, value in reference.state.items():
        new = name.replace("score.", "predictor.").replace("fcn_subnet.conv.", "convs.")
        for theirs, ours in ((".0.conv_offset.", ".offsets."), (".0.conv.", ".conv."), (".1.weight", ".norm.weight")):
            if new.startswith("convs."):
                index, rest = new.removeprefix("convs.").split(".", 1)
                new = f"convs.{index}{f'.{rest}'.replace(theirs, ours).replace('.1.bias', '.norm.bias')}"
        state[new] = value
    head.load_state_dict(state)
    strides = (4, 8, 16, 32)
    features = [torch.from_numpy(normal(f"ups_p{i}", (1, 256, 96 // s, 160 // s))) for i, s in enumerate(strides)]
    with torch.no_grad():
        logits = head(features)
    reference.near("fcn_score", logits, relative=1e-4)
    full = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    got, want = reference.pair("fcn_output_argmax", full.argmax(1).to(torch.uint8))
    assert (got != want).mean() < 1e-3


def tiny(taxonomy: Taxonomy, **options: Any) -> UPSNet:
    return upsnet_r50(
        taxonomy, body="resnet18", channels=16, mask_width=16, box_hidden=32, semantic_width=16, **options
    )
