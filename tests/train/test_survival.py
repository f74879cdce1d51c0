"""What a run survives: kills while a checkpoint is written, and files that break while it goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco, write_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.synthetic.discs import Discs
from maskwright.errors import InputError
from maskwright.structures import Batch
from maskwright.train import TrainOptions, checkpoint, seed_all, train
from maskwright.weights import store
from tests.train.test_loop import losses, run
from tests.train.test_window import TakesAll

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys, torch
from pathlib import Path
from maskwright.train import checkpoint
from tests.train.test_loop import run

out, share, at = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
save, count = torch.save, 0

def killed(state, file):
    global count
    count += 1
    save(state, file)
    if count == at and share < 1:
        whole = Path(file).read_bytes()
        with open(file, "wb") as torn:
            torn.write(whole[: int(share * len(whole))])
            torn.flush()
            os.fsync(torn.fileno())
        os.kill(os.getpid(), signal.SIGKILL)

replace = os.replace

def unnamed(source, target):
    if count == at and share >= 1 and Path(target).name.startswith("step-"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

torch.save, os.replace = killed, unnamed
torch.set_num_threads(1)
run(out, steps=8, checkpoint_every=2, ema=0.9)
"""
"""Trains, and is killed while it writes its ``at``-th checkpoint, when a ``share`` of it is on the disk; with 1 all of
it is, but it does not have its name yet."""


def test_kill_9_in_the_middle_of_a_checkpoint(tmp_path: Path) -> None:
    cases = {"empty": (0.0, 2), "half": (0.5, 3), "unnamed": (1.0, 3), "first": (0.9, 1)}
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / name), str(share), str(at)], cwd=ROOT, stderr=subprocess.PIPE
        )
        for name, (share, at) in cases.items()
    }
    run(tmp_path / "whole", steps=8, ema=0.9)
    for name, process in processes.items():
        said = process.communicate(timeout=300)[1]
        assert process.returncode == -9, said
        _, at = cases[name]
        kept = [checkpoint.step_of(path) for path in checkpoint.found(tmp_path / name / "checkpoints")]
        assert kept == [2 * i for i in range(at - 1, 0, -1)][:2], name
        run(tmp_path / name, steps=8, checkpoint_every=2, ema=0.9, resume=True)
        assert losses(tmp_path / name) == losses(tmp_path / "whole")
        ends = [store.read_tensors(tmp_path / each / "last.safetensors") for each in ("whole", name)]
        assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())
        assert {path.name for path in (tmp_path / name / "checkpoints").iterdir()} == {
            path.name for path in checkpoint.found(tmp_path / name / "checkpoints")
        }, "what a kill left half-written is gone"


# ---- a picture that breaks in the third epoch -----------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    source = Discs(4, size=(64, 64), seed=1)
    records = [replace(source.record(i), key=f"{i}.png") for i in range(4)]
    for i, record in enumerate(records):
        Image.fromarray(source.load(i)[1].permute(1, 2, 0).numpy()).save(tmp_path / record.key)
    write_coco(tmp_path / "train.json", records, source.taxonomy)
    return tmp_path


class Breaks:
    """A loader before whose batch number ``at`` a file is damaged on the disk."""

    def __init__(self, inner: Any, file: Path, at: int) -> None:
        self.inner, self.file, self.at, self.given = inner, file, at, 0

    def __iter__(self) -> Iterator[Batch]:
        stream = iter(self.inner)
        while True:
            if self.given == self.at:
                self.file.write_bytes(self.file.read_bytes()[:60])
            self.given += 1
            yield next(stream)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


def trained(folder: Path, out: str, *, at: int = -1, left_out: Any = None, **more: Any) -> dict[str, Any]:
    """Five epochs of two steps."""
    source = read_coco(folder / "train.json")
    loader = make_loader(source, Augment(), Shuffled(source, 2, seed=0), workers=0, left_out=left_out)
    options = TrainOptions(steps=10, batch_size=2, device="cpu", precision="32", checkpoint_every=0)
    seed_all(0)
    model: Any = TakesAll(norm=False)
    model.taxonomy = source.taxonomy
    broken = Breaks(loader, folder / "2.png", at)
    return train(model, broken, options=options, out=folder / out, quiet=True, **more)


def test_a_picture_that_breaks_in_the_third_epoch_stops_the_run_and_loses_no_step(pictures: Path) -> None:
    trained(pictures, "whole")
    whole = (pictures / "2.png").read_bytes()
    with pytest.raises(InputError, match=r"2\.png"):
        trained(pictures, "run", at=4)
    (newest, *_) = checkpoint.found(pictures / "run" / "checkpoints")
    assert checkpoint.step_of(newest) == len(losses(pictures / "run")) >= 4
    (pictures / "2.png").write_bytes(whole)
    trained(pictures, "run", resume=True)
    assert losses(pictures / "run") == losses(pictures / "whole")


def test_or_is_left_out_aloud(pictures: Path) -> None:
    heard: list[str] = []
    done = trained(pictures, "run", at=4, left_out=heard.append)
    assert done["step"] == 10
    assert heard
    assert all("2.png" in said for said in heard)


# ---- processes that load pictures -----------------------------------------------------------------------------------

PARENT = os.getpid()


class Fatal(Discs):
    """Whoever loads the last picture, in a process of its own, is killed, or waits forever."""

    way = "dies"

    def load(self, index: int) -> Any:
        if index == len(self) - 1 and os.getpid() != PARENT:
            if self.way == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return super().load(index)


@pytest.mark.parametrize("way", ["dies", "hangs"])
def test_a_loading_process_that_dies_or_hangs_stops_the_run_with_a_checkpoint(tmp_path: Path, way: str) -> None:
    def trained(source: Discs, out: Path, workers: int, **more: Any) -> dict[str, Any]:
        loader = make_loader(source, Augment(), Shuffled(source, 2, seed=1), workers=workers, prefetch=1, timeout=3)
        options = TrainOptions(steps=8, batch_size=2, device="cpu", precision="32", checkpoint_every=0)
        seed_all(0)
        model: Any = TakesAll(norm=False)
        model.taxonomy = source.taxonomy
        return train(model, loader, options=options, out=out, quiet=True, **more)

    whole = Discs(16, size=(64, 64), seed=1)
    trained(whole, tmp_path / "whole", 0)
    fatal = Fatal(16, size=(64, 64), seed=1)
    fatal.way = way
    with pytest.raises(InputError, match="a process that loads pictures died or hung"):
        trained(fatal, tmp_path / "run", 1)
    (newest, *_) = checkpoint.found(tmp_path / "run" / "checkpoints")
    assert checkpoint.step_of(newest) >= 1
    trained(whole, tmp_path / "run", 0, resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


# ---- a disk that is full --------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_run_and_costs_what_came_after_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, count = torch.save, 0

    def full(state: Any, file: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    run(tmp_path / "whole", steps=8)
    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        run(tmp_path / "run", steps=8, checkpoint_every=2)
    assert [checkpoint.step_of(path) for path in checkpoint.found(tmp_path / "run" / "checkpoints")] == [4, 2]
    run(tmp_path / "run", steps=8, checkpoint_every=2, resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
