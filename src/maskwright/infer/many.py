"""Very many pictures: predicted part by part, by one process, several, or a cluster, and taken up again after a kill.

A part is a fixed stretch of the list of pictures and depends on nothing else, so who computes it, when, and how often
does not show in the result. Inside of a part pictures that the network sees at the same padded size are computed
together: nobody is padded for another's sake, and each is found as it is alone.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import orjson
import torch
from torch import Tensor, nn

from maskwright.data.io import image_size, read_image
from maskwright.errors import InputError
from maskwright.infer.inputs import Item, digest
from maskwright.infer.journal import Journal
from maskwright.infer.parts import FORMATS, Row, part_path, row_of, write_part
from maskwright.infer.predictor import predict, stream
from maskwright.infer.ready import Sizing, require, sizing
from maskwright.infer.tables import require_pyarrow
from maskwright.ops.hardware import choose_device, choose_precision
from maskwright.protocols import Model
from maskwright.structures import Resize, Scene

FORMAT = 1
ATTEMPTS = 3
"""Workers that may die of one part, one after the other."""

Load = Callable[[], Model]
"""Makes the model; it is pickled and called once in each worker."""
Done = tuple[int, dict[str, int]]
"""A part and its figures: ``pictures``, ``failed``, ``objects``."""


@dataclass(frozen=True, slots=True)
class Job:
    """How pictures are predicted; the options are those of ``predict``. ``precision`` is never ``"auto"``."""

    folder: str
    kind: str = "coco"
    resize: Any = "default"
    score_threshold: float | None = None
    max_per_image: int | None = None
    batch_size: int = 1
    device: str = "cpu"
    precision: str = "32"


@dataclass(frozen=True, slots=True)
class Task:
    """One part: its number, the number of its first picture (from 1), and its pictures."""

    part: int
    first: int
    items: tuple[Item, ...]


class Worker:
    """Holds the model and computes parts; it reads ahead with ``readers`` threads."""

    def __init__(self, model: Model, job: Job, readers: int = 2) -> None:
        self.model, self.job = model, job
        self.resize = sizing(model.resize, job.resize)
        self.readers = max(1, readers)

    def __call__(self, task: Task) -> Done:
        """Predict a part and write its file."""
        rows: dict[int, Row] = {}
        with ThreadPoolExecutor(self.readers, thread_name_prefix="decode") as pool:
            sizes = list(pool.map(self._padded, task.items))
            groups = _groups(sizes, self.job.batch_size)
            for place, answer in self._answers(task, groups, pool):
                item, number = task.items[place], task.first + place
                rows[place] = row_of(number, item.key, item.path, answer, self.model.taxonomy)
        ordered = [rows[place] for place in sorted(rows)]
        write_part(Path(self.job.folder), task.part, self.job.kind, ordered, self.model.taxonomy)
        failed = sum(row["error"] is not None for row in ordered)
        objects = sum(len(row["objects"]) for row in ordered)
        return task.part, {"pictures": len(ordered), "failed": failed, "objects": objects}

    def _answers(
        self, task: Task, groups: list[list[int]], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[int, Scene | InputError]]:
        coming = (place for group in groups for place in group)
        ahead = self.job.batch_size + 2 * self.readers
        waiting: deque[Future[Tensor | InputError]] = deque()
        for group in groups:
            for place in islice(coming, max(0, ahead - len(waiting))):
                waiting.append(pool.submit(_decode, task.items[place].path))
            pictures = [waiting.popleft().result() for _ in group]
            good = [picture for picture in pictures if isinstance(picture, Tensor)]
            scenes = iter(self._predict(good, [task.items[place].path for place in group], pictures))
            for place, picture in zip(group, pictures, strict=True):
                yield place, picture if isinstance(picture, InputError) else next(scenes)

    def _predict(
        self, good: list[Tensor], paths: list[str], pictures: Sequence[Tensor | InputError]
    ) -> list[Scene | InputError]:
        if not good:
            return []
        options = self._options()
        try:
            return cast("list[Scene | InputError]", predict(self.model, good, batch_size=len(good), **options))
        except (MemoryError, RuntimeError):
            # One by one: a picture that does not fit gives its own error, and anything else is raised from there.
            able = [path for path, picture in zip(paths, pictures, strict=True) if isinstance(picture, Tensor)]
            return [answer.scene for path in able for answer in stream(self.model, [path], **options)]

    def _padded(self, item: Item) -> tuple[int, int] | None:
        return _padded(item.path, self.resize, self.model.size_divisor)

    def _options(self) -> dict[str, Any]:
        names = ("resize", "score_threshold", "max_per_image", "device", "precision")
        return {name: getattr(self.job, name) for name in names}


def predict_many(
    load: Load,
    items: Sequence[Item],
    folder: str | Path,
    *,
    model: Model | None = None,
    kind: str = "coco",
    part_size: int = 256,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    batch_size: int = 1,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 1,
    cluster: str | None = None,
    files: Sequence[str | Path] = (),
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Find the objects of any number of pictures and write them to parts in ``folder``; go on where a run stopped.

    Args:
        load: makes the model; with ``workers`` above 1 or a cluster it must be picklable.
        items: pictures with distinct keys.
        folder: of the parts, the manifest and the journal.
        model: what ``load`` made, if it has been called already.
        kind: of the parts, one of ``FORMATS``.
        part_size: pictures in a part.
        resize, score_threshold, max_per_image, batch_size, device, precision: as ``predict`` takes them.
        workers: processes that compute; 1 is this one.
        cluster: ``"local"`` or the address of a Ray cluster whose machines see the same files.
        files: weights the model was made of, whose contents are pinned too.
        restart: begin anew where the folder holds another run.
        progress: called with (pictures done, pictures in all).

    Returns:
        The journal's line of each part, in order: ``file``, ``pictures``, ``failed``, ``objects``.

    Raises:
        InputError: an option out of range, or a folder of another run.
    """
    require(kind in FORMATS, "kind", " or ".join(FORMATS), kind)
    require(part_size >= 1, "part_size", "at least 1", part_size)
    require(batch_size >= 1, "batch_size", "at least 1", batch_size)
    require(workers >= 1, "workers", "at least 1", workers)
    if score_threshold is not None:
        require(0 <= score_threshold <= 1, "score_threshold", "a number from 0 to 1", score_threshold)
    if max_per_image is not None:
        require(max_per_image >= 1, "max_per_image", "at least 1", max_per_image)
    if kind == "parquet":
        require_pyarrow()
    where = choose_device(device)
    place = Path(folder).absolute()
    job = Job(
        str(place), kind, resize, score_threshold, max_per_image, batch_size, str(where),
        choose_precision(precision, where),
    )  # fmt: skip
    model = model or load()
    how = sizing(model.resize, resize)
    manifest = {
        "format": FORMAT,
        "model": fingerprint(model, files),
        "inputs": digest(items),
        "pictures": len(items),
        "part_size": part_size,
        **{k: v for k, v in asdict(job).items() if k not in ("folder", "device", "resize")},
        "resize": None if how is None else asdict(how),
    }
    with Journal(place, manifest, restart) as journal:
        todo = [task for task in _tasks(items, part_size) if task.part not in journal.done]
        count = sum(line["pictures"] for line in journal.done.values())
        if progress is not None:
            progress(count, len(items))
        for part, figures in _run(load, model, job, todo, workers, cluster):
            journal.add(part, part_path(place, part, kind), **figures)
            count += figures["pictures"]
            if progress is not None:
                progress(count, len(items))
        return [journal.done[part] for part in sorted(journal.done)]


def fingerprint(model: Model, files: Sequence[str | Path] = ()) -> str:
    """SHA-256 of what decides a model's answers: its class, classes, limits, every tensor, and files it was made of."""
    total = hashlib.sha256()
    own = {
        "kind": type(model).__qualname__,
        "taxonomy": model.taxonomy.to_json(),
        "limits": [model.score_threshold, model.max_per_image, model.size_divisor],
    }
    total.update(orjson.dumps(own))
    state: dict[str, Any] = cast(nn.Module, model).state_dict() if isinstance(model, nn.Module) else {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            total.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    for given in map(Path, files):
        inner = sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]
        # a run's folder also holds logs; its weights are among the tensors
        for path in inner if not (given.is_dir() and state) else []:
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _tasks(items: Sequence[Item], size: int) -> Iterator[Task]:
    for part, first in enumerate(range(0, len(items), size)):
        yield Task(part, first + 1, tuple(items[first : first + size]))


def _run(load: Load, model: Model, job: Job, todo: list[Task], workers: int, cluster: str | None) -> Iterator[Done]:
    if not todo:
        return iter(())
    if cluster is not None:
        from maskwright.infer.cluster import by_cluster

        return by_cluster(load, job, todo, workers, cluster)
    if min(workers, len(todo)) > 1:
        return _by_processes(load, job, todo, min(workers, len(todo)))
    return map(Worker(model, job), todo)


# ---- pictures -------------------------------------------------------------------------------------------------------


def _decode(path: str) -> Tensor | InputError:
    try:
        return read_image(path)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"cannot read {path}: {error.strerror or error}.")


def _padded(path: str, resize: Resize | None, divisor: int) -> tuple[int, int] | None:
    """(H, W) that the network sees, from the file's header; ``None`` where it cannot be read."""
    try:
        size = image_size(path)
    except (InputError, OSError):
        return None  # decoding says what is wrong
    height, width = size if resize is None else resize.target(size)
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _groups(sizes: Sequence[tuple[int, int] | None], batch_size: int) -> list[list[int]]:
    """Places of pictures to be computed together: of one size, in order, at most ``batch_size``."""
    of_size: dict[tuple[int, int] | None, list[int]] = {}
    for place, size in enumerate(sizes):
        of_size.setdefault(size, []).append(place)
    return [
        places[start : start + batch_size] for places in of_size.values() for start in range(0, len(places), batch_size)
    ]


# ---- several processes ----------------------------------------------------------------------------------------------


def _by_processes(load: Load, job: Job, todo: list[Task], workers: int) -> Iterator[Done]:
    """Parts by worker processes; what a worker had when it died is given to a new one."""
    # Forked from a process that has imported everything and computed nothing: one import for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    threads = max(1, torch.get_num_threads() // workers)
    waiting, attempts = deque(todo), dict.fromkeys((task.part for task in todo), 0)
    busy: dict[Connection, tuple[Any, Task]] = {}

    def begin() -> None:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, load, job, threads), daemon=True)
        process.start()
        there.close()
        give(here, process)

    def give(line: Connection, process: Any) -> None:
        task = waiting.popleft()
        busy[line] = (process, task)
        with suppress(OSError):  # where it is dead, reading from it says so
            line.send(task)

    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                begin()
            for line in cast("list[Connection]", wait(list(busy))):
                process, task = busy.pop(line)
                try:
                    kind, answer = line.recv()
                except (EOFError, OSError):
                    line.close()
                    process.join()
                    attempts[task.part] += 1
                    if attempts[task.part] == ATTEMPTS:
                        raise InputError(
                            f"{ATTEMPTS} workers died of part {task.part}, the last with exit code {process.exitcode}. "
                            "Is memory short? Give fewer --workers or a smaller --batch-size; what is done is kept."
                        ) from None
                    waiting.appendleft(task)
                    continue
                if kind == "input":
                    raise InputError(answer)
                if kind == "error":
                    raise RuntimeError(f"a worker failed at part {task.part}:\n{answer}")
                if waiting:
                    give(line, process)
                else:
                    line.close()
                yield answer
    finally:
        for line, (process, _) in busy.items():
            process.terminate()
            line.close()


def _serve(line: Connection, load: Load, job: Job, threads: int) -> None:
    """A worker's life: the model once, then part after part until nobody asks."""
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    worker: Worker | None = None
    while True:
        try:
            task = line.recv()
        except (EOFError, OSError):
            return  # also when the one who asks was killed
        try:
            worker = worker or Worker(load(), job, readers=1)
            answer = ("done", worker(task))
        except InputError as error:
            answer = ("input", str(error))
        except Exception:
            answer = ("error", traceback.format_exc())
        try:
            line.send(answer)
        except OSError:
            return
