"""Two processes are one with the double batch; when one dies the run stops, and goes on with another number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright.errors import InputError
from maskwright.train import checkpoint, distributed
from maskwright.weights import store
from tests.train.test_loop import rows
from tests.train.together import STEPS

ROOT = Path(__file__).parents[2]


def start(
    out: Path, processes: int, *, dies_at: int = -1, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The training by so many processes, to its end."""
    alone = [sys.executable, "-m"]
    joined = [*alone, "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    words = [*(alone if processes == 1 else joined), "tests.train.together", str(out), str(dies_at), *more]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = start(out, 1)
    assert done.returncode == 0, done.stderr
    return out


def agree(one: Path, other: Path) -> None:
    """Equal losses in every step, equal weights and averages at the end, equal figures."""
    for mine, its in zip(rows(one), rows(other), strict=True):
        for name in mine:
            if name != "seconds":
                assert float(mine[name]) == pytest.approx(float(its[name]), rel=2e-4, abs=1e-7), name
    for name in ("last", "best"):
        a, b = (store.read(folder / f"{name}.safetensors")[0] for folder in (one, other))
        assert all(torch.allclose(a[key], value, atol=2e-5) for key, value in b.items())
    assert figures(one, 0) == figures(other, 0)


def figures(out: Path, rank: int) -> Any:
    """What that process says it measured."""
    return json.loads(Path(f"{out}-{rank}.json").read_text())["metrics"]


def test_two_processes_are_one_with_the_double_batch(whole: Path, tmp_path: Path) -> None:
    done = start(tmp_path / "run", 2)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run")) == STEPS
    agree(whole, tmp_path / "run")
    assert figures(tmp_path / "run", 1) == figures(whole, 0)  # both know the whole
    assert figures(whole, 0)["box"]["AP50"] > 0
    first, second = (json.loads(Path(f"{tmp_path}/run-{rank}.json").read_text())["weights"] for rank in (0, 1))
    assert first == second
    said = json.loads((tmp_path / "run" / "options.json").read_text())["chosen"]
    assert said["processes"] == 2


def test_a_process_that_dies_stops_the_run_which_goes_on_with_another_number(whole: Path, tmp_path: Path) -> None:
    died = start(tmp_path / "run", 2, dies_at=5)
    assert died.returncode != 0
    assert "SIGKILL" in died.stderr or "-9" in died.stderr
    assert not (tmp_path / "run" / "last.safetensors").exists()
    done = start(tmp_path / "run", 1, more=("resume",))
    assert done.returncode == 0, done.stderr
    assert "resuming after step 4" in done.stderr
    agree(whole, tmp_path / "run")


def test_a_process_that_hangs_stops_the_run(tmp_path: Path) -> None:
    hung = start(tmp_path / "run", 2, dies_at=5, more=("hangs",))
    assert hung.returncode != 0
    assert "this one waited 0.05 minutes" in hung.stderr
    assert [checkpoint.step_of(path) for path in checkpoint.found(tmp_path / "run" / "checkpoints")] == [4, 2]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, (3, 4, 1, 2)),
        (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NNODES": "2"},
            (5, 8, 1, 2),
        ),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (0, 1, 0, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "5"}, (0, 1, 0, 1)),  # a job's own shell, not srun
    ],
)
def test_where_a_process_stands(environment: dict[str, str], expected: tuple[int, ...]) -> None:
    found = distributed.place(environment)
    assert (found.rank, found.world, found.local, found.nodes) == expected


def test_machines_must_have_as_many_processes() -> None:
    with pytest.raises(InputError, match="same number"):
        distributed.place(
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "5", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NNODES": "2"}
        )


def test_synchronized_norms_need_gpus() -> None:
    with pytest.raises(InputError, match="Group norms"):
        distributed.synchronized(torch.nn.BatchNorm2d(1), torch.device("cpu"))
