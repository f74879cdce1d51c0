"""Reading 100 queries on a picture of 1024 x 2048 never makes a dense [100, H, W]: measured in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskwright.models.parts.queries import QUERY_RULES, instance_scene, panoptic_scene, semantic_scene
from maskwright.structures import Geometry, Taxonomy
from tests.ops.peak import extra_megabytes

QUERIES, CLASSES, SIZE = 100, 133, (1024, 2048)
LIMIT = 100
"""MB."""
KINDS = Taxonomy(names=tuple(f"class {i}" for i in range(CLASSES)), thing=(True,) * 80 + (False,) * 53)


def logits(cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every query sees a class, and all masks overlap."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, QUERIES, 8, 16, generator=rng) * 4
    maps = torch.nn.functional.interpolate(coarse, size=cells, mode="bilinear")[0].contiguous()
    classes = torch.randn(QUERIES, CLASSES + 1, generator=rng) * 3
    classes[:, -1] = -9.0
    return classes, maps


def readings(size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Each task by each way of decoding, on a picture of ``size``; transformers' maps are 384 x 384."""
    view = Geometry.identity(size)
    out: dict[str, Callable[[], object]] = {}
    for name, numbers in QUERY_RULES.items():
        cells = (384, 384) if numbers.direct else (size[0] // 4, size[1] // 4)
        known = (*logits(cells), view, size)
        rule = replace(numbers, overlap=0.1)
        out[f"{name} semantic"] = lambda known=known, rule=rule: semantic_scene(*known, rule)
        out[f"{name} instance"] = lambda known=known, rule=rule: instance_scene(
            *known, KINDS, rule, score_threshold=0.0, max_per_image=100
        )
        out[f"{name} panoptic"] = lambda known=known, rule=rule: panoptic_scene(
            *known, KINDS, rule, score_threshold=0.0, max_per_image=100
        )
    return out


def main() -> None:
    """Print the MB that each reading needs, and those that a dense bool [100, H, W] needs by the same measure."""
    torch.set_num_threads(1)
    for work in readings((128, 256)).values():  # loads and compiles what is used
        work()
    found: dict[str, float] = {}
    for name, work in readings(SIZE).items():
        ctypes.CDLL(None).malloc_trim(0)
        found[name] = extra_megabytes(work)
    found["dense"] = extra_megabytes(lambda: torch.ones(QUERIES, *SIZE, dtype=torch.bool))
    sys.stdout.write(f"{json.dumps(found)}\n")


@cache
def measured() -> dict[str, float]:
    """What ``main`` prints in a fresh process, in which large blocks go back to the system as soon as they are free."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell a process's peak memory")
    root = Path(__file__).parents[2]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.test_query_memory"], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_measure_sees_a_dense_block() -> None:
    assert 195 < measured()["dense"] < 215


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("rule", sorted(QUERY_RULES))
def test_reading_a_hundred_queries_takes_little_memory(rule: str, task: str) -> None:
    assert measured()[f"{rule} {task}"] < LIMIT


if __name__ == "__main__":
    main()
