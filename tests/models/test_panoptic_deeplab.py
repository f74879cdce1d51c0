from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright import zoo
from maskwright.models.panoptic_deeplab import PanopticDeepLab, Raw
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

CLASSES = Taxonomy(names=("car", "road", "person"), thing=(True, False, True))
SIZE = (64, 96)
THIN: dict[str, Any] = {"aspp_width": 16, "semantic_width": 16, "semantic_head_width": 16, "instance_width": 16}


def build(taxonomy: Taxonomy = CLASSES, **options: Any) -> PanopticDeepLab:
    torch.manual_seed(0)
    body = {"body": "resnet18", "dilations": (), **THIN, "projected": (8, 8), "stuff_area": 8}
    return zoo.build("panoptic-deeplab-r52", taxonomy, **{**body, **options})  # type: ignore[return-value]


def scene(*, ignore: bool = False, crowd: bool = False) -> Scene:
    """Two cars and a person on a road, whose last column is void; the person may be a crowd."""
    dense = torch.zeros(3, *SIZE, dtype=torch.bool)
    dense[0, 10:30, 8:40], dense[1, 10:30, 40:60], dense[2, 40:60, 20:30] = True, True, True
    masks = Masks.from_dense(dense)
    semantic = torch.ones(SIZE, dtype=torch.int64)
    semantic[dense[0] | dense[1]], semantic[dense[2]], semantic[:, -1] = 0, 2, -1
    regions = torch.zeros(1, *SIZE, dtype=torch.bool)
    regions[0, 50:60] = True
    return Scene(
        size=SIZE, semantic=semantic, ignore=Masks.from_dense(regions) if ignore else None,
        segments=Segments(
            size=SIZE, labels=torch.tensor([0, 0, 2]), masks=masks, boxes=masks.boxes(),
            crowd=torch.tensor([False, False, crowd]),
        ),
    )  # fmt: skip


def batch(*scenes: Scene) -> Batch:
    pixels = [torch.randint(0, 256, (3, *s.size), dtype=torch.uint8) for s in scenes]
    return Batch(inputs=Images.pad(pixels, multiple=16), scenes=scenes, keys=tuple(map(str, range(len(scenes)))))


def perfect(truth: Scene, model: PanopticDeepLab) -> Raw:
    """Maps at the picture's own size that say what ``truth`` is."""
    target = model.targets([truth], SIZE, torch.device("cpu"))
    classes = target.semantic.masked_fill(target.semantic < 0, 1)
    logits = 20.0 * functional.one_hot(classes, len(CLASSES)).permute(0, 3, 1, 2).float()
    return Raw(logits, target.heat, target.offsets, SIZE)


def test_perfect_maps_give_the_scene_back() -> None:
    model, truth = build(), scene()
    found = model.predict(perfect(truth, model), [Geometry.identity(SIZE)])[0]
    segments = found.objects().validate(len(CLASSES))
    assert sorted(segments.labels.tolist()) == [0, 0, 1, 2]
    assert truth.segments is not None
    assert truth.segments.masks is not None
    assert segments.masks is not None
    assert (segments.masks.iou(truth.segments.masks).amax(0) == 1).all()
    assert (segments.scores > 0.9).all()  # type: ignore[operator]
    assert found.panoptic is not None
    assert bool((found.panoptic > 0).all())


def test_perfect_maps_of_a_resized_picture() -> None:
    """Offsets grow with the picture."""
    model, truth = build(), scene()
    found = model.predict(perfect(truth, model), [Geometry.resized((192, 288), SIZE)])[0]
    segments = found.objects()
    assert sorted(segments.labels.tolist()) == [0, 0, 1, 2]
    assert truth.segments is not None
    assert truth.segments.masks is not None
    dense = functional.interpolate(truth.segments.masks.dense()[None].float(), scale_factor=3)[0] > 0
    assert segments.masks is not None
    assert (segments.masks.iou(Masks.from_dense(dense)).amax(0) > 0.95).all()


def test_an_object_has_the_class_of_most_of_its_pixels_and_small_stuff_is_void() -> None:
    model, truth = build(stuff_area=5000), scene()
    raw = perfect(truth, model)
    raw.semantic_logits[0, :, 10:20, 8:30] = torch.tensor([0.0, 0.0, 20.0])[:, None, None]
    found = model.predict(raw, [Geometry.identity(SIZE)])[0]
    assert sorted(found.objects().labels.tolist()) == [0, 0, 2]
    assert found.panoptic is not None
    assert int((found.panoptic == 0).sum()) == 64 * 96 - 20 * 52 - 20 * 10


def test_losses_are_those_of_the_paper() -> None:
    model = build(hard_share=0.2, small_area=300)
    data = batch(scene(), scene(crowd=True), scene(ignore=True))
    raw = model(data.inputs, data.truth())
    losses, counts = model.loss(raw, data), model.loss_counts(raw, data)
    full = [functional.interpolate(m, size=SIZE, mode="bilinear") for m in (raw.semantic_logits, raw.heat, raw.offsets)]
    pixels, heat_sum, heat_count, move_sum, move_count = [], 0.0, 0, 0.0, 0
    for i, each in enumerate(data.truth()):
        semantic = each.semantic.clone()  # type: ignore[union-attr]
        if each.ignore is not None:
            semantic[each.ignore.dense()[0]] = -1
        cost = functional.cross_entropy(full[0][i][None], semantic[None], ignore_index=-1, reduction="none")[0]
        masks = each.segments.masks.dense()  # type: ignore[union-attr]
        crowd = each.segments.crowd  # type: ignore[union-attr]
        known = semantic >= 0
        for mask, many in zip(masks, crowd, strict=True):  # type: ignore[arg-type]
            area = int(mask.sum())
            if many:
                known &= ~mask
                continue
            inside = mask & (semantic >= 0)
            if area < 300:
                cost = torch.where(inside, 3 * cost, cost)
            rows, columns = torch.nonzero(mask, as_tuple=True)
            middle = torch.stack([rows.float().mean(), columns.float().mean()])
            place = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij"))
            error = (4 * full[2][i] - (middle[:, None, None] - place)).abs().sum(0)
            move_sum, move_count = move_sum + float(error[inside].detach().sum()), move_count + int(inside.sum())
        target = model.targets([each], SIZE, torch.device("cpu")).heat[0, 0]
        heat_sum = heat_sum + float((full[1][i, 0] - target).detach().square()[known].sum())
        heat_count += int(known.sum())
        pixels.append(cost)
    hardest = torch.stack(pixels).flatten().topk(int(0.2 * 3 * 64 * 96)).values
    assert float(losses["semantic"]) == pytest.approx(float(hardest.mean()), rel=1e-4)
    assert float(losses["center"]) == pytest.approx(200 * heat_sum / heat_count, rel=1e-4)
    assert float(losses["offset"]) == pytest.approx(0.01 * move_sum / move_count, rel=1e-4)
    assert [int(counts[name]) for name in ("semantic", "center", "offset")] == [len(hardest), heat_count, move_count]


@pytest.mark.parametrize("thing", [(False, False, False), (True, True, True)])
def test_stuff_alone_and_things_alone(thing: tuple[bool, ...]) -> None:
    model = build(Taxonomy(names=CLASSES.names, thing=thing), score_threshold=0.0)
    data = batch(scene())
    losses = model.loss(model(data.inputs, data.truth()), data)
    assert all(torch.isfinite(value) for value in losses.values())
    with torch.no_grad():
        found = model.eval().predict(model(data.inputs), data.inputs.geometry)[0]
    ids = found.panoptic
    assert ids is not None
    names, areas = np.unique(ids[ids > 0].numpy(), return_counts=True)
    segments = found.objects()
    assert segments.ids is not None
    assert segments.masks is not None
    assert sorted(segments.ids.tolist()) == names.tolist()
    assert sorted(segments.masks.area().tolist()) == sorted(areas.tolist())
    if not any(thing):
        assert float(losses["offset"]) == 0
        assert len(segments) == len(segments.labels.unique())


def test_a_loss_needs_scenes() -> None:
    model, data = build(), batch(scene())
    with pytest.raises(ValueError, match="without scenes"):
        model.loss(model(data.inputs), data)


def test_it_learns_one_picture() -> None:
    truth = scene()
    assert truth.semantic is not None
    assert truth.segments is not None
    assert truth.segments.masks is not None
    colors = torch.tensor([[200, 60, 40], [90, 90, 90], [40, 80, 220]], dtype=torch.uint8)
    pixels = colors[truth.semantic.clamp(min=0)].permute(2, 0, 1).clone()
    pixels[:, 10:30, 40:60] = torch.tensor([60, 200, 40], dtype=torch.uint8)[:, None, None]
    data = Batch(inputs=Images.pad([pixels] * 2, multiple=16), scenes=(truth, truth), keys=("0", "1"))
    model = build(hard_share=1.0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first: dict[str, Tensor] = {}
    losses: dict[str, Tensor] = {}
    for _ in range(60):
        losses = model.loss(model(data.inputs, data.truth()), data)
        first = first or {name: value.detach() for name, value in losses.items()}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    assert all(losses[name] < 0.3 * first[name] for name in first)
    with torch.no_grad():
        found = model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects()
    assert found.masks is not None
    cars = truth.segments.masks[torch.tensor([0, 1])]
    assert (found.masks.iou(cars).amax(0) > 0.8).all()  # the two touch: only centers tell them apart
