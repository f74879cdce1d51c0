"""``maskwright predict`` in parts with a toy model: tables, going on, refusals, the merged document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskwright import zoo
from maskwright.cli.main import main
from tests.infer.toy import Toy, save, spot


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """shots/a.png to shots/e.png, of which c is broken, and list.csv, seen from their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda *names, **options: Toy())
    (tmp_path / "shots").mkdir()
    for n, name in enumerate("abcde"):
        save(tmp_path / "shots" / f"{name}.png", spot(box=(5 + n, 8, 30, 31)))
    (tmp_path / "shots" / "c.png").write_text("no picture")
    (tmp_path / "list.csv").write_text("key,path\none,shots/e.png\ntwo,shots/a.png\n")
    return tmp_path


def _names(document: dict[str, Any]) -> list[str]:
    return [image["file_name"] for image in document["images"]]


def test_a_folder_in_parts_and_one_document(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "shots", "--part-size", "2", "--workers", "1", "--merge", "--format", "coco"]
    assert main(words) == 1
    assert "5 pictures, 8 objects, 1 failed: 3 parts" in capsys.readouterr().out
    parts = sorted(path.name for path in (pictures / "out" / "parts").iterdir())
    assert parts == ["journal.jsonl", "manifest.json", *(f"part-00000{n}.json" for n in range(3))]
    document = json.loads((pictures / "out" / "results.json").read_text())
    assert _names(document) == ["shots/a.png", "shots/b.png", "shots/d.png", "shots/e.png"]
    assert "c.png" in document["failed"][0]["error"]
    assert main(["predict", "shots", "--out", "plain", "--no-overlays"]) == 1
    plain = json.loads((pictures / "plain" / "results.json").read_text())
    assert _names(plain) == _names(document)
    of_parts, of_plain = (
        sorted((each["segmentation"]["counts"], each["score"]) for each in found["annotations"])
        for found in (document, plain)
    )
    assert of_parts == of_plain
    (pictures / "out" / "parts" / "part-000001.json").unlink()
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"] == 5
    assert json.loads((pictures / "out" / "results.json").read_text()) == document


def test_a_table_keeps_its_order_and_keys(pictures: Path) -> None:
    assert main(["predict", "list.csv", "--workers", "1"]) == 0
    document = json.loads((pictures / "out" / "parts" / "part-000000.json").read_text())
    assert _names(document) == ["one", "two"]
    assert not (pictures / "out" / "overlays").exists()


def test_parquet(pictures: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["predict", "list.csv", "--workers", "1", "--format", "parquet"]) == 0
    rows = parquet.read_table(pictures / "out" / "parts" / "part-000000.parquet").to_pylist()
    assert [(row["key"], len(row["objects"]), row["error"]) for row in rows] == [("one", 2, None), ("two", 2, None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list.csv", "--score-threshold", "0.7"], "score_threshold was 0.5, now 0.7"),
        (["list.csv", "--format", "parquet"], "kind was coco, now parquet"),
        (["list.csv", "shots"], "a table is given alone, got 2 paths"),
        (["list.csv", "--tile", "auto"], "--tile goes with pictures that are written one by one"),
        (["list.csv", "--path-column", "file"], "must have a column 'file', it has key, path"),
        (["list.csv", "--part-size", "0"], "part_size must be at least 1"),
        (["list.csv", "--workers", "0"], "workers must be at least 1"),
        (["absent.csv"], "absent.csv"),
    ],
)
def test_refusals(pictures: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    if "parquet" in words:
        pytest.importorskip("pyarrow")
    assert main(["predict", "list.csv", "--workers", "1"]) == 0
    before = {path: path.read_bytes() for path in (pictures / "out" / "parts").iterdir()}
    capsys.readouterr()
    assert main(["predict", "--workers", "1", *words]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (pictures / "out" / "parts").iterdir()} == before


def test_restart(pictures: Path) -> None:
    assert main(["predict", "list.csv", "--workers", "1"]) == 0
    assert main(["predict", "list.csv", "--workers", "1", "--score-threshold", "0.7", "--restart"]) == 0
    document = json.loads((pictures / "out" / "parts" / "part-000000.json").read_text())
    assert len(document["annotations"]) == 2
