"""Hard images again: at their share, the worst first, the same for any number of workers and ranks, resumed exactly."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data.augment.transforms import ToSize
from maskwright.data.loader import Loader, make_loader
from maskwright.data.replay import Replay
from maskwright.data.samplers import Draw, Sequential, Shuffled
from maskwright.data.source import FileSource, MixedSource
from maskwright.errors import InputError
from maskwright.structures import Batch
from tests.data.make import ANIMALS, record


def source(count: int, tall: int = 0, folder: Path = Path()) -> FileSource:
    made = [
        record((9, 5) if i < tall else (5, 9), [], key=f"{i}.png", path=folder / f"{i}.png", image_id=i)
        for i in range(count)
    ]
    return FileSource.from_records(made, ANIMALS)


def take(sampler: Shuffled, count: int) -> list[list[Draw]]:
    return [sampler.draw() for _ in range(count)]


def loss(image: int) -> float:
    """Multiples of 7 are hard."""
    return 10.0 + image / 100 if image % 7 == 0 else 1.0 + image / 100


def trained(sampler: Shuffled, count: int) -> list[list[Draw]]:
    """A loop that reports at once."""
    out = []
    for _ in range(count):
        out.append(sampler.draw())
        sampler.report([loss(draw.index) for draw in out[-1]])
    return out


def test_hard_images_take_their_share() -> None:
    sampler = Shuffled(source(100), 8, replay=Replay(0.25, memory=15, power=0.0, lag=2))
    batches = trained(sampler, 100)
    trained(sampler, 300)
    seen = Counter(d.index for batch in trained(sampler, 1000) for d in batch)
    hard = sum(seen[i] for i in range(0, 100, 7))
    assert hard == pytest.approx(8000 * (0.25 + 0.75 * 0.15), rel=0.02)
    assert min(seen.values()) >= 58  # 6000 of 8000 draws go round over all images
    assert sampler.replay is not None
    assert list(sampler.replay.losses) == sorted(range(0, 100, 7), reverse=True)
    assert all(len({d.seed for d in batch}) == 8 for batch in batches)


def test_rank_decides_how_often() -> None:
    sampler = Shuffled(source(50), 4, replay=Replay(0.5, memory=10, power=1.0, lag=1))
    trained(sampler, 200)
    seen = Counter(d.index for batch in trained(sampler, 3000) for d in batch)
    worst, least = 49, 43
    assert seen[worst] > 2 * seen[least] > 0


def test_an_easy_image_is_forgotten() -> None:
    replay = Replay(0.5, memory=3, lag=1)
    replay.note(0, [1, 2, 3, 4, 1])
    replay.report([5.0, 4.0, 3.0, 6.0, 7.0])
    allowed = np.ones(9, bool)
    replay.choose(0, 1, 4, allowed)
    assert replay.losses == {1: 7.0, 4: 6.0, 2: 4.0}
    replay.note(1, [4, 8])
    replay.report([0.5, 9.0])
    assert set(replay.choose(0, 2, 6, allowed).values()) <= {8, 1, 2}
    assert replay.losses == {8: 9.0, 1: 7.0, 2: 4.0}
    replay.note(2, [1, 2])
    replay.report([1.0, 1.0])
    allowed[8] = False
    assert set(replay.choose(0, 3, 4, allowed).values()) == {1, 2}


def test_groups_stay_apart_and_mixes_keep_their_ratio() -> None:
    data = MixedSource([source(20, tall=10), source(30)], [3, 1])
    batches = trained(Shuffled(data, 6, group=True, replay=Replay(0.3, memory=20, lag=3)), 200)
    assert all(len({d.index < 10 for d in batch}) == 1 for batch in batches)
    assert {d.index for batch in batches for d in batch} == set(range(50))


def test_ranks_that_report_together_are_one_process() -> None:
    def made(batch: int, **more: Any) -> Shuffled:
        return Shuffled(source(40, tall=15), batch, group=True, replay=Replay(0.4, memory=9, lag=2), **more)

    alone = trained(made(6), 60)
    ranks = [made(2, rank=r, world=3) for r in range(3)]
    together = []
    for _ in range(60):
        parts = [rank.draw() for rank in ranks]
        together.append([draw for part in parts for draw in part])
        for rank in ranks:
            rank.report([loss(draw.index) for draw in together[-1]])
    assert together == alone
    replayed = [sum(d.index % 7 == 0 for d in batch[2 * r : 2 * r + 2]) for batch in alone[20:] for r in range(3)]
    assert min(sum(replayed[r::3]) for r in range(3)) > 10  # every rank has its part


@pytest.mark.parametrize("done", [0, 1, 5, 33])
def test_an_order_resumes_exactly(done: int) -> None:
    def made() -> Shuffled:
        return Shuffled(source(40), 3, seed=2, replay=Replay(0.5, memory=7, lag=4))

    whole = trained(made(), done + 30)
    first = made()
    trained(first, done)
    state = json.loads(json.dumps(first.state_dict()))
    again = made()
    again.load_state_dict(state)
    assert trained(again, 30) == whole[done:]
    assert len(json.dumps(state)) < 1500  # bounded, whatever came before
    with pytest.raises(InputError, match="replay"):
        Shuffled(source(40), 3).load_state_dict(state)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    folder = tmp_path_factory.mktemp("pictures")
    data = source(30, folder=folder)
    for i in range(len(data)):
        Image.fromarray(np.full((*data.record(i).size, 3), i, np.uint8)).save(data.record(i).path)
    return data


def loader(data: FileSource, workers: int = 0) -> Loader:
    order = Shuffled(data, 3, seed=1, replay=Replay(0.5, memory=5, lag=10))
    return make_loader(data, ToSize(), order, workers=workers, prefetch=3)


def learn(batches: Loader, count: int) -> list[tuple[str, ...]]:
    """A loop as in ``train``: two batches to a step, then their losses."""
    out: list[tuple[str, ...]] = []
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == 2:
            for one in window:
                batches.report([loss(int(key.split(".")[0])) for key in one.keys])
            out += [one.keys for one in window]
            window = []
        if len(out) == count:
            break
    return out


def test_the_same_for_any_number_of_workers_and_after_a_break(pictures: FileSource) -> None:
    want = learn(loader(pictures), 40)
    assert Counter(key for keys in want[20:] for key in keys)["28.png"] > 3
    assert learn(loader(pictures, workers=2), 40) == want
    first = loader(pictures, workers=1)
    assert learn(first, 16) == want[:16]
    state = json.loads(json.dumps(first.state_dict()))
    assert state["batches"] == 16
    again = loader(pictures)
    again.load_state_dict(state)
    assert learn(again, 24) == want[16:]
    assert learn(first, 24) == want[16:]  # and the first one goes on


def test_a_loop_that_does_not_report_is_told() -> None:
    sampler = Shuffled(source(40), 3, replay=Replay(0.5, lag=4))
    with pytest.raises(InputError, match="losses of every batch within 4 batches, but those of batch 1 did not come"):
        take(sampler, 5)
    with pytest.raises(ValueError, match="each of the 3 samples"):
        sampler.report([1.0])
    with pytest.raises(ValueError, match="finite"):
        sampler.report([1.0, 2.0, float("nan")])
    sampler.report([1.0, 2.0, 3.0])
    fresh = Shuffled(source(4), 2, replay=Replay())
    with pytest.raises(ValueError, match="reported already"):
        fresh.report([1.0, 1.0])
    Shuffled(source(4), 2).report([1.0])  # nothing listens
    plain = make_loader(source(4), ToSize(), Sequential(source(4)))
    plain.report([1.0])
    assert plain.state_dict() == {"count": 4, "batches": 0}


def test_arguments_are_checked() -> None:
    for wrong in ({"share": 1.0}, {"share": -0.1}, {"memory": 0}, {"power": -1.0}, {"lag": 0}):
        with pytest.raises(InputError, match="replay needs"):
            Replay(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lag of the replay must be more"):
        make_loader(source(3), ToSize(), Shuffled(source(3), 1, replay=Replay(lag=8)), workers=2, prefetch=4)
