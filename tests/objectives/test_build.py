"""From options to an objective: every choice arrives, and what does not fit is refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import nn

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.nn.losses import MASK_LOSSES
from maskwright.objectives import ObjectiveOptions, Supervised, make
from maskwright.objectives.balance import DynamicAverage, Uncertainty
from maskwright.objectives.distilled import Distilled
from maskwright.objectives.gradnorm import GradNorm
from maskwright.objectives.options import MaskLossName
from maskwright.objectives.weights import WeightedTerms
from maskwright.structures import Batch, Images, Masks, Scene, Segments, Taxonomy
from tests.objectives.toy import Knows, Pupil
from tests.train.toy import batch

CLASSES = Taxonomy(names=("disc", "square"))
TINY: dict[str, Any] = {
    "body": "resnet18", "channels": 16, "box_hidden": 32, "mask_width": 16, "head_norm": "batch", "roi_batch": 16,
    "rpn_batch": 32, "proposals_train": (200, 100), "proposals_test": (60, 30),
}  # fmt: skip


def two_stage(row: str = "mask-rcnn-r50", **options: Any) -> Any:
    torch.manual_seed(0)
    return zoo.build(row, CLASSES, **{**TINY, **options})


def scenes(*objects: int) -> Batch:
    pixels, known = [], []
    for count in objects:
        pixels.append(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
        dense = torch.zeros(count, 64, 64, dtype=torch.bool)
        for i in range(count):
            dense[i, 4 + 20 * i : 20 + 20 * i, 8 + 10 * i : 30 + 10 * i] = True
        masks = Masks.from_dense(dense)
        segments = Segments(size=(64, 64), labels=torch.arange(count) % 2, masks=masks, boxes=masks.boxes())
        known.append(Scene(size=(64, 64), segments=segments))
    return Batch(inputs=Images.pad(pixels, multiple=32), scenes=tuple(known), keys=tuple(map(str, objects)))


# ---- wrappers -------------------------------------------------------------------------------------------------------


def test_nothing_asked_is_the_plain_objective() -> None:
    assert type(make(Pupil())) is Supervised
    assert type(make(Pupil(), ObjectiveOptions())) is Supervised


@pytest.mark.parametrize(
    ("name", "kind"), [("uncertainty", Uncertainty), ("gradnorm", GradNorm), ("dwa", DynamicAverage)]
)
def test_balance_by_name(name: Any, kind: type) -> None:
    objective: Any = make(Pupil(), ObjectiveOptions(balance=name, balance_every=7, balance_alpha=0.5))
    assert type(objective) is kind
    assert objective.names == ("area", "hits")
    assert getattr(objective, "every", 7) == 7
    assert getattr(objective, "alpha", 0.5) == 0.5


def test_all_at_once() -> None:
    options = ObjectiveOptions(
        loss_weights="teacher_*=2,hits=0.5", balance="dwa", teacher="x", distill="response, features,relations",
        teacher_threshold=0.2, teacher_share=1.0, teacher_soft=True,
    )  # fmt: skip
    objective: Any = make(Pupil(), options, teacher=Knows())
    assert [type(part) for part in (objective, objective.inner, objective.inner.inner)] == [
        WeightedTerms, DynamicAverage, Distilled,
    ]  # fmt: skip
    assert objective.factors == {"teacher_objects": 2, "teacher_rest": 2, "teacher_relations": 2, "hits": 0.5}
    rules = objective.inner.inner.answers.rules
    assert (rules.threshold, rules.doubt, rules.share, rules.soft) == (0.2, 0.1, 1.0, True)
    sum(objective(batch([1, 2])).values()).backward()
    objective.after_step(1)


def test_a_teacher_is_named_and_given() -> None:
    with pytest.raises(InputError, match="one without the other"):
        make(Pupil(), ObjectiveOptions(teacher="x"))
    with pytest.raises(InputError, match="one without the other"):
        make(Pupil(), teacher=Knows())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"balance": "equal"}, "--balance.*one of none, uncertainty, gradnorm, dwa, got 'equal'"),
        ({"mask_loss": "mse"}, "--mask-loss.*bce"),
        ({"roi_sampling": "easy"}, "--roi-sampling.*random, hard, focal"),
        ({"roi_positive": 0.0}, "--roi-positive"),
        ({"balance_every": 0}, "--balance-every"),
        ({"balance_alpha": float("nan")}, "--balance-alpha"),
        ({"teacher_share": 1.5}, "--teacher-share"),
        ({"distill": "logits"}, "--distill.*response, features, relations"),
        ({"distill": ""}, "--distill"),
        ({"distill": "features,features"}, "each once"),
    ],
)
def test_bad_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ObjectiveOptions(**values)


# ---- mask losses ----------------------------------------------------------------------------------------------------


def test_the_options_know_all_mask_losses() -> None:
    assert get_args(MaskLossName) == tuple(MASK_LOSSES)


def test_mask_losses_by_name() -> None:
    """The same model and batch: only the mask loss differs, and it is the one that was named."""
    data = scenes(2, 1)
    masks: dict[str, float] = {}
    others = []
    for name in MASK_LOSSES:
        model = two_stage().eval()
        objective: Any = make(model, ObjectiveOptions(mask_loss=name))
        assert model.mask_loss is MASK_LOSSES[name]
        torch.manual_seed(1)
        found = {key: float(loss.detach()) for key, loss in objective(data).items()}
        masks[name] = found.pop("mask")
        others.append(found)
    assert len(set(masks.values())) == len(masks)
    assert all(found == others[0] for found in others)
    assert masks["bce+dice"] == pytest.approx(masks["bce"] + masks["dice"])


def test_a_mask_loss_reaches_the_detector_inside() -> None:
    model = two_stage("panoptic-fpn-r50", semantic_width=16)
    make(model, ObjectiveOptions(mask_loss="dice", roi_sampling="hard", roi_positive=0.5))
    assert model.detector.mask_loss is MASK_LOSSES["dice"]
    assert (model.detector.roi_sampling, model.detector.roi_positive) == ("hard", 0.5)


def test_models_without_masks_or_regions_say_so() -> None:
    with pytest.raises(InputError, match="Leave out --mask-loss"):
        make(Pupil(), ObjectiveOptions(mask_loss="dice"))
    with pytest.raises(InputError, match="Leave out --roi-sampling"):
        make(Pupil(), ObjectiveOptions(roi_sampling="hard"))


# ---- regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["mask-rcnn-r50", "cascade-mask-rcnn-r50"])
@pytest.mark.parametrize("sampling", ["hard", "focal"])
def test_sampling_by_name(row: str, sampling: Any) -> None:
    """It trains, also without objects, and batch norms see each region that is learned from once."""
    model = two_stage(row, box_head="conv4_fc1")
    objective: Any = make(model, ObjectiveOptions(roi_sampling=sampling, roi_positive=0.5)).train()
    norms = [m for m in model.box_head.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert norms
    for number, objects in enumerate([(2, 1), (0, 0)], 1):
        losses, _ = objective.counted(scenes(*objects))
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert {int(norm.num_batches_tracked) for norm in norms} == {number}
        assert all(norm.training for norm in norms)


def test_the_hardest_regions_are_learned_from() -> None:
    """Against all candidates: no region left out costs more than one of its kind that was kept; the ratio is kept."""
    model = two_stage(roi_positive=0.25).eval()
    data = scenes(2)
    with torch.no_grad():
        features = model.dense(data.inputs)[0]
        side = torch.rand(200, 2) * 40
        boxes = torch.cat([side, side + 4 + torch.rand(200, 2) * 20], 1)
        boxes[:20] = data.scenes[0].segments.boxes[torch.arange(20) % 2] + torch.rand(20, 4)
        kept: dict[str, Any] = {}
        for sampling, count in (("random", 10_000), ("hard", 16)):
            model.roi_sampling, model.roi_batch, model.roi_positive = sampling, count, 0.25 if count == 16 else 1.0
            kept[sampling] = model.sample(features, 0, boxes, data.scenes[0])

        def cost(rois: Any) -> torch.Tensor:
            logits, _ = model.box_head(model.pool(features, [rois.boxes], model.box_size))
            return nn.functional.cross_entropy(logits, rois.labels, reduction="none")

        everything, hard = cost(kept["random"]), cost(kept["hard"])
    assert (kept["hard"].kind == 1).sum() == 4
    assert (kept["hard"].kind == 0).sum() == 12
    for kind, number in ((1, 4), (0, 12)):
        wanted = everything[kept["random"].kind == kind].topk(number).values
        torch.testing.assert_close(hard[kept["hard"].kind == kind].sort(descending=True).values, wanted)
