"""Parts computed through Ray Data: an actor a worker, which loads the model once; a killed one's part is done again."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import orjson

from maskwright.errors import InputError
from maskwright.infer.inputs import Item
from maskwright.infer.many import Done, Job, Load, Task, Worker


def by_cluster(load: Load, job: Job, todo: list[Task], workers: int, address: str) -> Iterator[Done]:
    """The figures of parts, as they are done.

    Args:
        load: makes the model; pickled.
        job: whose folder, and the pictures, all machines see under the same names.
        todo: the parts.
        workers: actors; on a GPU each has one of its own.
        address: ``"local"`` begins a Ray of ``workers`` processors on this machine and ends it; else a cluster's
            address, or ``"auto"``.

    Raises:
        InputError: Ray is not installed, or nothing answers at ``address``.
    """
    try:
        ray: Any = import_module("ray")
        data: Any = import_module("ray.data")
    except ImportError as error:
        raise InputError("--cluster needs Ray, which is missing: pip install 'maskwright[cluster]'.") from error
    own = not ray.is_initialized()
    try:
        if own and address == "local":
            ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
        elif own:
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address!r}: {error}. Begin one, or give --cluster local."
        ) from error
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        # The parts that are done are on disk in any order; none waits for another.
        rows = [{"part": task.part, "first": task.first, "items": _text(task)} for task in todo]
        size = min(workers, len(todo))
        done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(load, job),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=size),
            num_cpus=1,
            num_gpus=1 if job.device.startswith("cuda") else 0,
        )
        for row in done.iter_rows():
            yield int(row["part"]), {name: int(row[name]) for name in ("pictures", "failed", "objects")}
    finally:
        if own:
            ray.shutdown()


def _text(task: Task) -> str:
    return orjson.dumps([list(item) for item in task.items]).decode()


class _Actor:
    """One worker of the cluster."""

    def __init__(self, load: Load, job: Job) -> None:
        self.worker = Worker(load(), job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, list[int]] = {"part": [], "pictures": [], "failed": [], "objects": []}
        for part, first, text in zip(batch["part"], batch["first"], batch["items"], strict=True):
            items = tuple(Item(*each) for each in orjson.loads(text))
            _, figures = self.worker(Task(int(part), int(first), items))
            for name, value in ({"part": int(part)} | figures).items():
                found[name].append(value)
        return {name: np.array(values, np.int64) for name, values in found.items()}
