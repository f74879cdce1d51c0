"""Every command and every line of Python in the README runs."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.cli.main import COMMANDS, main
from maskwright.data.formats.coco import write_coco
from maskwright.data.synthetic.discs import Discs

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- not run in tests"
TRAINING = ["--steps", "2", "--batch-size", "2", "--evaluations", "1", "--resize", "64,64", "--workers", "0"]
SHORTER = {
    "train": TRAINING,
    "tune": ["--with", *TRAINING],
    "curve": ["--with", *TRAINING],
    "rate": ["--tries", "10", "--batch-size", "2", "--workers", "0", "--resize", "64,64"],
    "benchmark": ["--repeat", "1", "--no-memory"],
    "search": ["--repeat", "1", "--proposals", "50", "--workers", "0"],
    "compress": ["--repeat", "1", "--with", *TRAINING],
}
LIGHTER = {"mask-rcnn-r18": "mask-rcnn-r18-light"}
"""Options that make a command of the README quick, and the model of those that train often; nothing else changes."""


def blocks(language: str) -> list[str]:
    """The README's code blocks in ``language``, without those marked as not run."""
    text = (ROOT / "README.md").read_text()
    found = re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [m[1] for m in found if not text[: m.start()].rstrip().rpartition("\n")[2].startswith(MARK)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's commands expect to find: pictures, annotations, results."""
    folder = tmp_path_factory.mktemp("readme")
    source = Discs(4, size=(64, 64), seed=3)
    records = []
    (folder / "folder").mkdir()
    for i in range(len(source)):
        record, pixels = source.load(i)
        path = folder / f"picture{i}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "folder" / f"{i}.png")
        records.append((record, path))
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save(folder / "photo.jpg")
    named = [replace(r, key=p.name, path=p, ids=r.ids + 100 * i) for i, (r, p) in enumerate(records)]
    for name in ("train.json", "val.json"):
        write_coco(folder / name, named, source.taxonomy)
    (folder / "results.json").write_text("[]")
    return folder


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line in commands() if line.startswith("maskwright")}
    assert shown | {"demo"} == set(COMMANDS)


def test_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, since later ones use what earlier ones wrote; in this process, for starting one costs seconds."""
    monkeypatch.chdir(folder)
    for line in commands():
        words = shlex.split(line)
        assert words[0] == "maskwright", line
        short = [LIGHTER.get(word, word) for word in words[1:]] if words[1] in ("tune", "curve") else words[1:]
        done = main([*short, *SHORTER.get(words[1], [])])
        seen = capsys.readouterr()
        assert done == 0, f"{line}\n{seen.out}\n{seen.err}"
    assert (folder / "out" / "results.json").is_file()
    assert (folder / "runs" / "mine" / "best.safetensors").is_file()


def test_made_pages_are_up_to_date() -> None:
    """``make docs`` was run after the tables that the pages show were changed."""
    for script, page in (("formats.py", "data.md"), ("models.py", "models.md")):
        found = runpy.run_path(str(ROOT / "docs" / script))
        assert found.get("made", found.get("page"))() == (ROOT / "docs" / page).read_text(), page


def test_python_runs(folder: Path) -> None:
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
