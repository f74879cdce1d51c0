"""Teacher and pupil: what the teacher's scenes and maps change, and what must never change in the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.objectives.distilled import OBJECTS, RELATIONS, REST, Distilled
from maskwright.objectives.supervised import Supervised
from maskwright.objectives.teacher import Answers, Response, Teacher
from maskwright.structures import Batch, Images, Masks, Scene, Segments, Taxonomy
from maskwright.train import TrainOptions, seed_all, train
from tests.objectives.toy import Knows, Pupil, assert_alike, found, step
from tests.train.toy import ToyBatches, batch

THIN: dict[str, Any] = {"channels": 16, "body": "resnet18"}
TWO_STAGE = {**THIN, "box_hidden": 32, "mask_width": 16, "proposals_train": (60, 30), "proposals_test": (60, 30)}


def distilled(seed: int = 0, teacher: nn.Module | None = None, **options: Any) -> Distilled:
    torch.manual_seed(seed)
    return Distilled(Supervised(Pupil()), Knows() if teacher is None else teacher, **options)


# ---- the teacher ----------------------------------------------------------------------------------------------------


def test_the_teacher_is_frozen_and_no_part_of_the_objective(tmp_path: Path) -> None:
    teacher = Knows()
    teacher.norm = nn.BatchNorm2d(4)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = distilled(teacher=teacher, response=Response(share=1.0), features=True, relations=True).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    names = [name for name, _ in objective.named_parameters()]
    assert set(objective.state_dict()) == set(names)
    assert {name.split(".")[0] for name in names} == {"inner", "imitation"}
    options = TrainOptions(steps=3, ema=0.9, precision="32", device="cpu", accumulate=2)
    train(objective, ToyBatches(), options=options, out=tmp_path / "run", quiet=True)
    assert not any(module.training for module in teacher.modules())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_teacher_follows_its_pupil() -> None:
    teacher = Knows()
    distilled(teacher=teacher, features=True).double()
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}


def test_nobody_teaches_himself() -> None:
    pupil = Pupil()
    with pytest.raises(InputError, match="another model than its pupil"):
        Distilled(Supervised(pupil), pupil, features=True)
    with pytest.raises(InputError, match="one or more of response, features and relations"):
        Distilled(Supervised(pupil), Knows())


def test_the_teachers_own_threshold_hides_nothing() -> None:
    seen = []

    class Strict(Knows):
        def predict(self, raw: Any, geometry: Any) -> list[Scene]:
            seen.append(self.score_threshold)
            return super().predict(raw, geometry)

    teacher = Strict()
    teacher.score_threshold = 0.7
    distilled(teacher=teacher, response=Response(share=1.0, threshold=0.2)).counted(batch([1]))
    assert seen == [0.1]
    assert teacher.score_threshold == 0.7


# ---- response -------------------------------------------------------------------------------------------------------


def answers(names: tuple[str, ...] = ("disc",), **rules: Any) -> Answers:
    return Answers(Teacher(Knows(names=names)), Pupil(), Response(**rules))


def annotated(*corners: tuple[int, int], size: tuple[int, int] = (32, 32)) -> Scene:
    """Squares of 8 pixels."""
    dense = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (y, x) in zip(dense, corners, strict=True):
        mask[y : y + 8, x : x + 8] = True
    labels = torch.zeros(len(corners), dtype=torch.int64)
    return Scene(size=size, segments=Segments(size=size, labels=labels, masks=Masks.from_dense(dense)))


def test_a_picture_without_annotation_is_learned_from_the_teacher() -> None:
    scene = answers().mixed(None, found((32, 32)))
    objects = scene.objects()
    assert objects.scores is None
    assert objects.boxes.tolist() == [[0, 0, 8, 8]]  # the sure one
    assert scene.ignore.boxes().tolist() == [[20, 20, 28, 28]]  # the doubtful one is no background


@pytest.mark.parametrize(
    ("threshold", "doubt", "learned", "ignored"), [(0.2, 0.1, 2, 0), (0.95, 0.5, 0, 1), (1, 1, 0, 0)]
)
def test_thresholds(threshold: float, doubt: float, learned: int, ignored: int) -> None:
    scene = answers(threshold=threshold, doubt=doubt).mixed(None, found((32, 32)))
    assert (len(scene.objects()), len(scene.ignore)) == (learned, ignored)


def test_classes_are_matched_by_name() -> None:
    here = answers(("square", "disc")).mixed(None, found((32, 32), 1))
    assert here.objects().labels.tolist() == [0]
    assert len(answers(("square", "disc")).mixed(None, found((32, 32), 0)).objects()) == 0
    with pytest.raises(InputError, match="the teacher has square, the pupil disc"):
        answers(("square",))


def test_the_share_of_pictures() -> None:
    torch.manual_seed(0)
    rules, truth = answers(share=0.25), annotated((16, 0))
    learned = [rules.mixed(truth, found((32, 32))) is truth for _ in range(400)]
    assert sum(learned) / 400 == pytest.approx(0.75, abs=0.07)


def test_soft_objects_weigh_as_their_scores() -> None:
    torch.manual_seed(0)
    rules = answers(soft=True, threshold=0.2, doubt=0.1)
    scenes = [rules.mixed(None, found((32, 32))) for _ in range(600)]
    corners = [int(box[0]) for scene in scenes for box in scene.objects().boxes]
    assert corners.count(0) / 600 == pytest.approx(0.9, abs=0.05)
    assert corners.count(20) / 600 == pytest.approx(0.3, abs=0.06)
    assert all(len(scene.objects()) + len(scene.ignore) == 2 for scene in scenes)  # what is not learned is ignored


def test_filling_adds_what_overlaps_nothing() -> None:
    rules = answers(fill=True, threshold=0.2)
    assert rules.mixed(annotated((0, 0)), found((32, 32))).objects().boxes.tolist() == [[0, 0, 8, 8], [20, 20, 28, 28]]
    both = annotated((0, 1), (21, 20))
    assert rules.mixed(both, found((32, 32))) is both
    assert len(rules.mixed(annotated(), found((32, 32))).objects()) == 2
    region = annotated((0, 0)).objects().masks
    ignoring = Scene(size=(32, 32), segments=annotated((10, 10)).segments, ignore=region)
    assert len(rules.mixed(ignoring, found((32, 32))).objects()) == 2  # the ignored one is not added


def test_filled_scenes_keep_crowds() -> None:
    truth = annotated((16, 0))
    crowd = Scene(size=(32, 32), segments=Segments(
        size=(32, 32), labels=truth.objects().labels, masks=truth.objects().masks, crowd=torch.ones(1, dtype=torch.bool)
    ))  # fmt: skip
    assert answers(fill=True).mixed(crowd, found((32, 32))).objects().crowd.tolist() == [True, False]


def maps_model(kind: str, names: tuple[str, ...]) -> Knows:
    model = Knows(names=names)
    model.task = kind
    return model


def test_maps_of_classes() -> None:
    teacher, pupil = maps_model("semantic", ("square", "disc", "sky")), maps_model("semantic", ("disc", "square"))
    seen = Scene(size=(1, 4), semantic=torch.tensor([[0, 1, 2, -1]]))
    rules = Answers(Teacher(teacher), pupil, Response(fill=True))
    assert rules.mixed(None, seen).semantic.tolist() == [[1, 0, -1, -1]]
    truth = Scene(size=(1, 4), semantic=torch.tensor([[0, -1, -1, 1]]))
    assert rules.mixed(truth, seen).semantic.tolist() == [[0, 0, -1, 1]]


def test_maps_of_segments() -> None:
    teacher, pupil = maps_model("panoptic", ("square", "disc", "sky")), maps_model("panoptic", ("disc", "square"))
    ids = torch.tensor([[5, 5, 7, 9]])
    seen = Scene(size=(1, 4), panoptic=ids, segments=Segments(
        size=(1, 4), labels=torch.tensor([0, 2, 1]), ids=torch.tensor([5, 7, 9]), scores=torch.tensor([0.9, 0.9, 0.2])
    ))  # fmt: skip
    scene = Answers(Teacher(teacher), pupil, Response()).mixed(None, seen)
    assert scene.panoptic.tolist() == [[5, 5, 0, 0]]
    assert scene.objects().labels.tolist() == [1]


def test_tasks_must_agree() -> None:
    with pytest.raises(InputError, match="must have the pupil's task, instance, but its is semantic"):
        Answers(Teacher(maps_model("semantic", ("disc",))), Pupil(), Response())


def test_a_batch_without_annotations_teaches() -> None:
    objective = distilled(response=Response())
    plain = batch([1, 2])
    blank = Batch(inputs=plain.inputs, scenes=(None, None), keys=plain.keys)
    losses, counts = objective.counted(blank)
    assert counts["hits"] == 2 * 64  # pixels of the sure square
    told = Batch(inputs=plain.inputs, scenes=(annotated((0, 0)),) * 2, keys=plain.keys)
    for name, value in Supervised(objective.model)(told).items():
        torch.testing.assert_close(losses[name], value)


# ---- features and relations -----------------------------------------------------------------------------------------


def test_terms_and_counts() -> None:
    objective = distilled(features=True, relations=True)
    losses, counts = objective.counted(batch([0, 1, 2]))
    assert tuple(losses) == objective.terms() == ("area", "hits", OBJECTS, REST, RELATIONS)
    assert (float(counts[OBJECTS]), float(counts[REST]), float(counts[RELATIONS])) == (2.0, 3.0, 3.0)


def test_channels_are_adapted() -> None:
    objective = distilled(features=True)
    assert [tuple(a.weight.shape) for a in objective.imitation.adapters] == [(6, 4, 1, 1), (6, 4, 1, 1)]
    sum(objective.counted(batch([1, 2]))[0].values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in objective.imitation.parameters())


@pytest.mark.parametrize(("names", "rate"), [((OBJECTS, REST), 0.02), ((RELATIONS,), 0.003)])
def test_maps_become_alike(names: tuple[str, ...], rate: float) -> None:
    objective = distilled(features=OBJECTS in names, relations=RELATIONS in names)
    optimizer = torch.optim.Adam(objective.parameters(), rate)
    history = []
    for _ in range(30):
        losses, _ = objective.counted(batch([1, 2, 4]))
        optimizer.zero_grad()
        sum(losses[name] for name in names).backward()
        optimizer.step()
        history.append({name: float(losses[name].detach()) for name in names})
    assert all(history[-1][name] < 0.7 * history[0][name] for name in names), (history[0], history[-1])


def test_pictures_without_objects() -> None:
    objective = distilled(features=True, relations=True)
    losses, counts = objective.counted(batch([0, 3]))
    assert float(counts[OBJECTS]) == float(losses[OBJECTS].detach()) == 0.0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


@pytest.mark.parametrize("parts", [[[1, 2], [3, 4]], [[1], [3, 4, 2]], [[3], [1], [2, 4]]])
def test_accumulation_equals_the_large_batch(parts: list[list[int]]) -> None:
    torch.manual_seed(0)
    objective = distilled(response=Response(share=1.0), features=True, relations=True)
    one = step(objective, [batch([i for part in parts for i in part])])
    many = step(objective, [batch(part) for part in parts])
    assert many[0] == pytest.approx(one[0], rel=1e-4)
    assert_alike(many[1], one[1], 2e-4)


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    def run(name: str, steps: int, resume: bool = False) -> dict[str, torch.Tensor]:
        options = TrainOptions(
            steps=steps, schedule="constant", warmup=0.0, ema=0.9, precision="32", device="cpu", accumulate=2
        )
        seed_all(0)
        objective = distilled(response=Response(share=0.5, soft=True, threshold=0.2), features=True, relations=True)
        train(objective, ToyBatches(), options=options, out=tmp_path / name, resume=resume, quiet=True)
        return {key: value.clone() for key, value in objective.state_dict().items()}

    whole = run("whole", 7)
    run("broken", 3)
    resumed = run("broken", 7, resume=True)
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_unlike_pyramids_are_refused() -> None:
    with pytest.raises(InputError, match=r"levels of one size.*Distill the response only"):
        distilled(teacher=Knows(stride=3), features=True)
    with pytest.raises(InputError, match="the pupil has 0 called 'pyramid'"):
        distilled(features=True, layer="pyramid")
    teacher = Knows()
    teacher.size_divisor = 48
    with pytest.raises(InputError, match="a multiple of 48, the pupil of 32"):
        distilled(teacher=teacher, features=True)


# ---- two families of the zoo ----------------------------------------------------------------------------------------


def scenes_batch(classes: int) -> Batch:
    pixels = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    boxes = annotated((4, 4), (30, 40), size=(64, 64)).objects()
    objects = Segments(size=(64, 64), labels=boxes.labels + classes - 1, masks=boxes.masks, boxes=boxes.masks.boxes())
    return Batch(
        inputs=Images.pad(pixels, multiple=32),
        scenes=(Scene(size=(64, 64), segments=objects), Scene(size=(64, 64), segments=Segments.empty((64, 64)))),
        keys=("two", "none"),
    )


@pytest.mark.parametrize(("pupil", "teacher"), [("mask-rcnn-r50", "condinst-r50"), ("condinst-r50", "mask-rcnn-r50")])
def test_families_teach_each_other(pupil: str, teacher: str) -> None:
    """Response, features and relations at once; their pyramids share some levels, with other channels."""
    torch.manual_seed(0)
    options = {
        "mask-rcnn-r50": TWO_STAGE,
        "condinst-r50": {"body": "resnet18", "channels": 32, "head_depth": 1, "branch_width": 16, "prior": 0.3},
    }
    classes = Taxonomy(names=("disc", "square"))
    models = {name: zoo.build(name, classes, **options[name]) for name in (pupil, teacher)}
    objective = Distilled(
        Supervised(models[pupil]),
        models[teacher],
        response=Response(share=1.0, threshold=0.0, doubt=0.0),
        features=True,
        relations=True,
    ).train()
    assert len(objective.pairs) >= 4
    losses, counts = objective.counted(scenes_batch(2))
    assert all(torch.isfinite(value) for value in losses.values())
    assert float(counts[OBJECTS]) > 2  # the teacher's, not the annotated ones
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in objective.model.parameters() if p.requires_grad
    )
    assert all(p.grad is None for p in models[teacher].parameters())
