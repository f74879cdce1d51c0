"""Ensembles: classes in any order, weights, what does not go together; real families side by side."""

from __future__ import annotations

import pytest
import torch

from maskwright import zoo
from maskwright.data.rasters import InMemory
from maskwright.errors import InputError
from maskwright.infer.ensemble import ensemble
from maskwright.infer.predictor import predict_raster
from maskwright.infer.tiles import Tiles
from maskwright.structures import Taxonomy
from tests.infer.exact import Exact, discs
from tests.infer.test_augmented import Shades, one
from tests.infer.test_tiles import said, tensor
from tests.infer.toy import Toy


def turned(model: Exact) -> Exact:
    """The same model whose classes have other numbers."""
    model.taxonomy = Taxonomy(names=("green", "red", "ground"))
    plain = model._scene

    def scene(pixels: torch.Tensor, view: object) -> object:
        found = plain(pixels, view)  # type: ignore[arg-type]
        labels = torch.tensor([1, 0, 2])[found.objects().labels]
        return type(found)(size=found.size, segments=type(found.objects())(
            size=found.size, labels=labels, masks=found.objects().masks, boxes=found.objects().boxes,
            scores=found.objects().scores,
        ))  # fmt: skip

    model._scene = scene  # type: ignore[method-assign, assignment]
    return model


def test_classes_are_paired_by_name() -> None:
    picture, drawn = discs((75, 103), 30, (2, 12), 3)
    plain = one(Exact(), tensor(picture))
    found = one(ensemble([Exact(), turned(Exact())]), tensor(picture))
    assert said(found) == said(plain)
    assert len(found.objects()) == drawn
    assert not bool(found.objects().scores.sub(0.9).abs().max() > 1e-6)  # type: ignore[union-attr]


def test_weights_count() -> None:
    picture, _ = discs((75, 103), 30, (2, 12), 3)
    found = one(ensemble([Exact(score=0.8), Exact(score=0.4)], weights=[3, 1], kinds="flip"), tensor(picture))
    assert found.objects().scores is not None
    assert torch.allclose(found.objects().scores, torch.tensor(0.7))  # type: ignore[arg-type]


def test_what_does_not_go_together_is_refused() -> None:
    other = Toy()
    with pytest.raises(InputError, match=r"same classes.*green"):
        ensemble([Exact(), other])
    with pytest.raises(InputError, match="one task, got instance and semantic"):
        ensemble([Exact(), Exact("semantic")])
    stuff = Exact()
    stuff.taxonomy = Taxonomy(names=("red", "green", "ground"), thing=(True, True, False))
    with pytest.raises(InputError, match="what is a thing, but do not on ground"):
        ensemble([Exact(), stuff])
    with pytest.raises(InputError, match="one weight above 0"):
        ensemble([Exact(), Exact()], weights=[1])
    with pytest.raises(InputError, match="one weight above 0"):
        ensemble([Exact()], weights=[-1])
    with pytest.raises(InputError, match="one model"):
        ensemble([])
    with pytest.raises(InputError, match="IoU"):
        ensemble([Exact()], agree=1.0)


def test_semantic_models_with_and_without_logits_vote() -> None:
    picture = torch.full((3, 4, 9), 200, dtype=torch.uint8)
    model = ensemble([Shades(), Shades(("bright", "dark"), tells=False)], weights=[1, 2])
    assert one(model, picture).classes()[0].tolist() == [1] * 6 + [0] * 3


def test_an_ensemble_goes_through_tiles() -> None:
    picture, _ = discs((150, 203), 40, (2, 12), 3)
    model = ensemble([Exact(), Exact(score=0.5)], kinds="flip")
    found = predict_raster(model, InMemory(tensor(picture)), Tiles(64, 28))
    assert said(found) == said(one(Exact(), tensor(picture)))


@pytest.mark.parametrize("kinds", [None, "flip,scale=0.5/1"])
def test_families_side_by_side(kinds: str | None) -> None:
    torch.manual_seed(0)
    names = Taxonomy(names=("cat", "dog"))
    models = [zoo.build(name, names) for name in ("mask-rcnn-r50", "condinst-r50")]
    for model in models:
        model.score_threshold = 0.0
    merged = ensemble(models, weights=[1, 2], kinds=kinds, resize=(64, 96))
    picture, _ = discs((75, 103), 30, (2, 12), 3)
    scene = one(merged, tensor(picture), max_per_image=5)
    objects = scene.objects().validate(2)
    assert scene.size == (75, 103)
    assert 0 < len(objects) <= 5
    assert objects.scores is not None
    assert bool((objects.scores[:-1] >= objects.scores[1:]).all())
