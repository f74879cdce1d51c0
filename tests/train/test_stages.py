"""Two-stage models trained one stage after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.synthetic.discs import Discs
from maskwright.errors import InputError
from maskwright.metrics.proposals import ProposalRecall, paired
from maskwright.objectives import ObjectiveOptions, make
from maskwright.objectives.staged import FirstStage, SecondStage
from maskwright.structures import Batch, Resize, Taxonomy
from maskwright.train import TrainOptions, seed_all
from maskwright.train.recall import proposal_recall
from maskwright.train.stages import SHARES, train_stages, two_stages
from maskwright.weights import store
from tests.train.toy import Toy, ToyBatches

SMALL: dict[str, Any] = {
    "channels": 16,
    "box_hidden": 16,
    "mask_width": 8,
    "anchor_sizes": (8, 16, 32, 64),
    "rpn_batch": 32,
    "roi_batch": 16,
    "proposals_train": (60, 30),
    "proposals_test": (60, 30),
    "resize": Resize(scale=1.0),
}
OPTIONS = TrainOptions(
    steps=10, batch_size=2, learning_rate=2e-3, device="cpu", precision="32", workers=0, checkpoint_every=1, keep=2
)


def source() -> Discs:
    return Discs(6, size=(64, 64), seed=1)


def model(name: str = "mask-rcnn-r18-light", **options: Any) -> Any:
    seed_all(0)
    return zoo.build(name, source().taxonomy, **{**SMALL, **options})


def batches(**kwargs: Any) -> Any:
    data = source()
    return make_loader(data, Augment(crop=(64, 64)), Shuffled(data, 2, seed=3), **kwargs)


class Stops:
    """Batches that end with Ctrl-C's exception after so many."""

    def __init__(self, inner: Any, after: int) -> None:
        self.inner, self.left = inner, after

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.inner:
            if self.left == 0:
                raise KilledError
            self.left -= 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class KilledError(Exception):
    """Stands for a kill: nothing of the loop handles it."""


def last(folder: Path) -> dict[str, Tensor]:
    return store.read_tensors(folder / "last.safetensors")


def changed(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> set[str]:
    """The modules of the first level whose parameters differ."""
    return {name.split(".")[0] for name in a if a[name].is_floating_point() and not torch.equal(a[name], b[name])}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("stages") / "run"
    answer = train_stages(
        model(), batches(), options=OPTIONS, out=out, recall=lambda m: proposal_recall(m, source()), quiet=True
    )
    return out, answer


def test_each_stage_learns_its_own_parts(run: tuple[Path, dict[str, Any]]) -> None:
    out, _ = run
    start = store.read_tensors(out / "stages" / "start.safetensors")
    start = {name.removeprefix("model."): value for name, value in start.items()}
    first, second, joint = last(out / "stages" / "2-proposals"), last(out / "stages" / "3-detector"), last(out)
    assert changed(start, first) == {"backbone", "neck", "rpn"}
    assert changed(start, second) == {"backbone", "neck", "box_head", "mask_head"}
    assert changed({**second, **{k: v for k, v in first.items() if k.startswith("rpn")}}, joint) == {
        "backbone", "neck", "rpn", "box_head", "mask_head",
    }  # fmt: skip
    places = (out, *(out / "stages").glob("*-*"))
    columns = {folder: (folder / "log.csv").read_text().splitlines()[0] for folder in places}
    assert "rpn_class" in columns[out / "stages" / "2-proposals"]
    assert "mask" not in columns[out / "stages" / "2-proposals"]
    assert "rpn" not in columns[out / "stages" / "3-detector"]
    assert {"rpn_class", "mask"} <= set(columns[out].split(","))


def test_steps_and_recall_are_told(run: tuple[Path, dict[str, Any]]) -> None:
    out, answer = run
    steps = [json.loads((f / "summary.json").read_text())["step"] for f in (*sorted((out / "stages").glob("*-*")), out)]
    assert steps == [3, 4, 3]
    assert sum(steps) == OPTIONS.steps
    assert list(answer["recall"]) == ["1 start", "2 proposals", "3 detector, with the first's RPN", "4 joint"]
    assert json.loads((out / "stages" / "recall.json").read_text()) == answer["recall"]
    for figures in answer["recall"].values():
        assert figures["objects"] == sum(len(source().record(i)) for i in range(6))
        assert 0 <= figures["AR_100"] <= figures["R50_100"] <= figures["R50_1000"] <= 1


@pytest.mark.parametrize("after", [2, 3, 5, 9])
def test_killed_in_any_stage_and_resumed_is_as_never_stopped(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, after: int
) -> None:
    with pytest.raises(KilledError):
        train_stages(model(), Stops(batches(), after), options=OPTIONS, out=tmp_path / "cut", quiet=True)
    other = model()
    torch.nn.init.normal_(other.box_head.fc1.weight if hasattr(other.box_head, "fc1") else next(other.parameters()))
    train_stages(other, batches(), options=OPTIONS, out=tmp_path / "cut", resume=True, quiet=True)
    assert not changed(last(run[0]), last(tmp_path / "cut"))


def test_the_detector_learns_from_proposals_that_stand_still() -> None:
    network, seen = model(), list[list[Tensor]]()
    network.proposer = lambda inputs, numbers: [torch.tensor([[4.0, 4, 30, 30]]) for _ in range(len(inputs))]
    batch = next(iter(batches()))
    seen = network(batch.inputs, batch.scenes).proposals
    assert all(torch.equal(boxes, torch.tensor([[4.0, 4, 30, 30]])) for boxes in seen)
    losses, _ = SecondStage(make(network), network.first_losses).counted(batch)
    assert set(losses) == {"class", "box", "mask"}


@pytest.mark.parametrize("name", ["mask-rcnn-r18-light", "cascade-mask-rcnn-r50", "mask-scoring-rcnn-r50", "panet-r50"])
def test_the_first_stage_alone_has_the_losses_of_the_whole(name: str) -> None:
    options = {"body": "resnet18", "strides": (4, 8, 16, 32, 64), "anchor_sizes": (8, 16, 32, 64, 128)}
    network = model(name, **({} if name.endswith("light") else options)).eval()
    batch = next(iter(batches()))
    torch.manual_seed(5)
    alone, counts = FirstStage(network).counted(batch)
    torch.manual_seed(5)
    raw = network(batch.inputs, batch.scenes)
    torch.manual_seed(5)
    losses = network.loss(raw, batch)
    for term in network.first_losses:
        assert float(alone[term]) == pytest.approx(float(losses[term]), rel=1e-5)
        assert float(counts[term]) == float(network.loss_counts(raw, batch)[term])


def test_objectives_keep_their_wrappers(tmp_path: Path) -> None:
    network = model()
    objective = make(network, ObjectiveOptions(balance="uncertainty", loss_weights="mask=2"))
    train_stages(objective, batches(), options=TrainOptions(
        steps=3, batch_size=2, learning_rate=1e-3, device="cpu", precision="32", workers=0
    ), out=tmp_path / "run", shares=(1, 1, 1), quiet=True)  # fmt: skip
    assert network.proposer is None
    assert all(p.requires_grad for p in network.rpn.parameters())


def test_models_without_two_stages_and_bad_shares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Toy is not of them"):
        train_stages(Toy(), ToyBatches(), options=OPTIONS, out=tmp_path / "a", quiet=True)
    with pytest.raises(InputError, match="SOLO"):
        two_stages(zoo.build("solo-r50", Taxonomy(names=("disc",)), body="resnet18"))
    for shares in ((1, 1), (1, 0, 1), (1, float("nan"), 1)):
        with pytest.raises(InputError, match="three shares"):
            train_stages(model(), batches(), options=OPTIONS, out=tmp_path / "b", shares=shares, quiet=True)
    with pytest.raises(InputError, match="each stage needs a step"):
        train_stages(model(), batches(), options=OPTIONS, out=tmp_path / "b", shares=(1, 1, 1000), quiet=True)
    assert not (tmp_path / "b").exists()


def test_panoptic_families_have_their_stages_too() -> None:
    taxonomy = Taxonomy(names=("disc", "ground"), thing=(True, False))
    network: Any = zoo.build("panoptic-fpn-r50", taxonomy, body="resnet18")
    assert isinstance(two_stages(network), nn.Module)
    network.proposer = lambda inputs, numbers: []
    assert network.detector.proposer is not None


# ---- recall ---------------------------------------------------------------------------------------------------------


def test_pairs_are_taken_best_first() -> None:
    overlap = np.array([[0.9, 0.8], [0.7, 0.4], [0.3, 0.6]])
    assert paired(overlap).tolist() == [0.9, 0.6]
    assert paired(np.zeros((0, 0))).tolist() == []


def test_recall_by_hand() -> None:
    metric = ProposalRecall((1, 10))
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    found = torch.tensor([[0.0, 0, 10, 8], [20, 20, 40, 40], [0, 0, 10, 10]])
    metric.update(found, truth)
    metric.update(torch.zeros(0, 4), truth[:1])
    figures = metric.compute()
    assert figures["R50_10"] == pytest.approx(2 / 3)
    assert figures["AR_10"] == pytest.approx(2 / 3)
    assert figures["R50_1"] == pytest.approx(1 / 3)
    assert figures["AR_1"] == pytest.approx(7 / 10 / 3)  # IoU 0.8: thresholds 0.5 to 0.8
    assert (figures["objects"], figures["images"]) == (3, 2)
    assert ProposalRecall().compute()["AR_100"] == -1
    with pytest.raises(ValueError, match="from 1 on"):
        ProposalRecall((0,))


def test_shares_add_up() -> None:
    assert sum(SHARES) == pytest.approx(1)
