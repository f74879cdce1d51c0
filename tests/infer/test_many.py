"""Very many pictures: order, buckets, going on after a kill, failures, damage, several processes and a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskwright.errors import InputError
from maskwright.infer import many, tables
from maskwright.infer.inputs import Item, read_table
from maskwright.infer.many import predict_many
from maskwright.infer.parts import merge_coco, read_part
from maskwright.infer.predictor import predict
from maskwright.structures import Scene
from tests.infer.toy import Toy, save, spot

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Load:
    """Makes a toy in whatever process; ``wait`` seconds a picture; one process dies where a file ``dies_at`` is."""

    wait: float = 0.0
    dies_at: str = ""
    weight: float = 1.0

    def __call__(self) -> Any:
        model = Slow(self.wait, self.dies_at)
        model.weight.data.fill_(self.weight)
        return model


class Slow(Toy):
    def __init__(self, wait: float, dies_at: str) -> None:
        super().__init__()
        self.wait, self.dies_at = wait, dies_at

    def predict(self, raw: Any, geometry: Any) -> list[Scene]:
        time.sleep(self.wait * len(geometry))
        if self.dies_at and len(geometry) and geometry[0].original == (31, 77) and Path(self.dies_at).exists():
            Path(self.dies_at).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(raw, geometry)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Eleven pictures of three sizes, one of them broken and one missing."""
    found: list[Item] = []
    for n in range(11):
        size = [(40, 60), (31, 77), (40, 60), (64, 30)][n % 4]
        path = tmp_path / f"p{n}.png"
        save(path, spot(size, (2 + n, 3, 20 + n % 5, 25)))
        found.append(Item(f"key-{n}", str(path)))
    Path(found[4].path).write_bytes(Path(found[4].path).read_bytes()[:60])
    Path(found[7].path).unlink()
    return found


def _rows(folder: Path, lines: list[dict[str, Any]], kind: str = "coco") -> list[dict[str, Any]]:
    return [row for line in lines for row in read_part(folder / line["file"], kind)]


@pytest.mark.parametrize("kind", ["coco", "parquet"])
def test_rows_stand_in_order_and_equal_one_by_one(items: list[Item], tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    lines = predict_many(Load(), items, tmp_path / "parts", kind=kind, part_size=4, batch_size=3)
    rows = _rows(tmp_path / "parts", lines, kind)
    assert [row["key"] for row in rows] == [item.key for item in items]
    assert [row["id"] for row in rows] == list(range(1, 12))
    assert [line["pictures"] for line in lines] == [4, 4, 3]
    assert [n for n, row in enumerate(rows) if row["error"]] == [4, 7]
    assert "p4.png" in rows[4]["error"]
    assert "no such picture" in rows[7]["error"]
    for item, row in zip(items, rows, strict=True):
        if row["error"]:
            assert row["objects"] == []
            continue
        scene = predict(Load()(), item.path)
        assert isinstance(scene, Scene)
        segments = scene.objects()
        assert segments.masks is not None
        assert segments.scores is not None
        assert (row["height"], row["width"]) == scene.size
        assert [each["counts"] for each in row["objects"]] == [mask["counts"] for mask in segments.masks.rle()]
        scores = [each["score"] for each in row["objects"]]
        assert np.allclose(scores, segments.scores, atol=1e-6)


def test_pictures_of_one_size_are_computed_together(items: list[Item], tmp_path: Path) -> None:
    model = Load()()
    predict_many(lambda: model, items, tmp_path / "parts", part_size=11, batch_size=4)
    seen = [(len(each["sizes"]), tuple(each["pixels"].shape[2:])) for each in model.seen]
    assert seen == [(3, (96, 128)), (2, (96, 128)), (3, (64, 160)), (1, (128, 64))]  # one of the first is broken


def test_one_document_of_all_parts(items: list[Item], tmp_path: Path) -> None:
    lines = predict_many(Load(), items, tmp_path / "parts", part_size=3)
    merge_coco(tmp_path / "all.json", [tmp_path / "parts" / line["file"] for line in lines], "coco", Toy().taxonomy)
    document = json.loads((tmp_path / "all.json").read_text())
    assert [each["file_name"] for each in document["failed"]] == ["key-4", "key-7"]
    assert len(document["images"]) == 9
    assert [each["id"] for each in document["annotations"]] == list(range(1, 19))
    assert sum(line["objects"] for line in lines) == 18
    assert {each["category_id"] for each in document["annotations"]} == {3, 7}


def test_what_is_done_is_not_done_again(items: list[Item], tmp_path: Path) -> None:
    model = Load()()
    first = predict_many(lambda: model, items, tmp_path / "parts", part_size=4)
    count = len(model.seen)
    assert predict_many(lambda: model, items, tmp_path / "parts", part_size=4) == first
    assert len(model.seen) == count


@pytest.mark.parametrize("how", ["changed", "missing", "unsaid", "torn"])
def test_a_damaged_part_is_done_again(items: list[Item], tmp_path: Path, how: str) -> None:
    folder = tmp_path / "parts"
    lines = predict_many(Load(), items, folder, part_size=4)
    whole = {line["file"]: (folder / line["file"]).read_bytes() for line in lines}
    journal = folder / "journal.jsonl"
    if how == "changed":
        (folder / lines[1]["file"]).write_bytes(whole[lines[1]["file"]][:-9])
    elif how == "missing":
        (folder / lines[1]["file"]).unlink()
    elif how == "unsaid":
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:1]))
    else:
        journal.write_bytes(journal.read_bytes()[:-20])
    again: list[tuple[int, int]] = []
    assert (
        predict_many(Load(), items, folder, part_size=4, progress=lambda done, total: again.append((done, total)))
        == lines
    )
    assert again[0] == ({"unsaid": 4, "torn": 8}.get(how, 7), 11)
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert len(journal.read_bytes().splitlines()) in (3, 4)


def test_another_run_is_refused_unless_asked_for(items: list[Item], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    predict_many(Load(), items, folder, part_size=4)
    with pytest.raises(InputError, match=r"score_threshold was None, now 0\.6.*--restart"):
        predict_many(Load(), items, folder, part_size=4, score_threshold=0.6)
    with pytest.raises(InputError, match="model was"):
        predict_many(Load(weight=2.0), items, folder, part_size=4)
    with pytest.raises(InputError, match="inputs was"):
        predict_many(Load(), items[:-1], folder, part_size=4)
    lines = predict_many(Load(), items[:5], folder, part_size=4, score_threshold=0.6, restart=True)
    assert sorted(path.name for path in folder.glob("part-*")) == [line["file"] for line in lines]
    assert len(lines) == 2


def test_two_runs_do_not_share_a_folder(items: list[Item], tmp_path: Path) -> None:
    def meddle(done: int, total: int) -> None:
        if done:
            with pytest.raises(InputError, match="another run is at work"):
                predict_many(Load(), items, tmp_path / "parts")
            seen.append(done)

    seen: list[int] = []
    predict_many(Load(), items, tmp_path / "parts", progress=meddle)
    assert seen == [11]


def test_options_out_of_range(items: list[Item], tmp_path: Path) -> None:
    for bad in ({"kind": "xml"}, {"part_size": 0}, {"batch_size": 0}, {"workers": 0}, {"score_threshold": 2}):
        with pytest.raises(InputError, match=next(iter(bad))):
            predict_many(Load(), items, tmp_path / "parts", **bad)  # type: ignore[arg-type]


def test_killed_at_any_moment_it_goes_on(items: list[Item], tmp_path: Path) -> None:
    whole = predict_many(Load(), items, tmp_path / "whole", part_size=2)
    code = (
        "import json, sys; from tests.infer.test_many import Load; from maskwright.infer.inputs import Item\n"
        "from maskwright.infer.many import predict_many\n"
        "items = [Item(*each) for each in json.load(sys.stdin)]\n"
        f"predict_many(Load(0.15), items, {str(tmp_path / 'parts')!r}, part_size=2)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=ROOT, env=environment)
    assert child.stdin is not None
    child.stdin.write(json.dumps(items).encode())
    child.stdin.close()
    journal, end = tmp_path / "parts" / "journal.jsonl", time.monotonic() + 60
    while time.monotonic() < end and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 0.6)))
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before: list[int] = []
    lines = predict_many(
        Load(0.15), items, tmp_path / "parts", part_size=2, progress=lambda done, total: before.append(done)
    )
    assert 2 <= before[0] < 11
    assert lines == whole
    for line in whole:
        assert (tmp_path / "parts" / line["file"]).read_bytes() == (tmp_path / "whole" / line["file"]).read_bytes()


def test_several_processes_and_one_that_dies(items: list[Item], tmp_path: Path) -> None:
    whole = predict_many(Load(), items, tmp_path / "whole", part_size=2)
    death = tmp_path / "death"
    death.touch()
    lines = predict_many(Load(dies_at=str(death)), items, tmp_path / "parts", part_size=2, workers=2)
    assert not death.exists()
    assert lines == whole


@pytest.mark.skipif(
    os.environ.get("MASKWRIGHT_RAY") != "1", reason="takes minutes on two cores; MASKWRIGHT_RAY=1 runs it"
)
def test_through_ray_with_a_worker_killed(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    whole = predict_many(Load(), items, tmp_path / "whole", part_size=2)
    death = tmp_path / "death"
    death.touch()
    load = Load(dies_at=str(death))
    lines = predict_many(load, items, tmp_path / "parts", part_size=2, workers=2, cluster="local")
    assert not death.exists()
    assert lines == whole
    assert len((tmp_path / "parts" / "journal.jsonl").read_bytes().splitlines()) == len(whole)


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_tables_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x.png\n\ny/z.png\n")
    (tmp_path / "a.csv").write_text("key,path\none,x.png\ntwo,y/z.png\n")
    (tmp_path / "b.tsv").write_text("file\tname\nx.png\tone\ny/z.png\ttwo\n")
    paths = [str(tmp_path / "x.png"), str(tmp_path / "y/z.png")]
    keyed = [Item("one", paths[0]), Item("two", paths[1])]
    assert read_table(tmp_path / "a.txt") == [Item("x.png", paths[0]), Item("y/z.png", paths[1])]
    assert read_table(tmp_path / "a.csv") == keyed
    assert read_table(tmp_path / "b.tsv", "file", "name") == keyed
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"path": ["x.png", "y/z.png"], "key": ["one", "two"], "n": [1, 2]}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet") == keyed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,key\nx,1\n", "must have a column 'path', it has file, key"),
        ("a.csv", "path,key\nx,1\ny,1\n", "'1' comes twice"),
        ("a.csv", "path,key\nx\n", "row 1 must have a path and a key"),
        ("a.csv", "path\n", "names no pictures"),
        ("a.txt", "\n", "names no pictures"),
        ("a.parquet", "PAR0", "as Parquet"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name)
    with pytest.raises(InputError, match="absent"):
        read_table(tmp_path / f"absent-{name}")


def test_parquet_without_pyarrow(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"maskwright\[table\]"):
        tables.require_pyarrow()
    with pytest.raises(InputError, match=r"maskwright\[table\]"):
        predict_many(Load(), items, tmp_path / "parts", kind="parquet")
    assert not (tmp_path / "parts").exists()


def test_a_part_that_kills_every_worker_is_told(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "ATTEMPTS", 1)
    death = tmp_path / "death"
    death.touch()
    with pytest.raises(InputError, match="1 workers died of part 0, the last with exit code -9"):
        predict_many(Load(dies_at=str(death)), items[:3], tmp_path / "parts", part_size=2, workers=2)
