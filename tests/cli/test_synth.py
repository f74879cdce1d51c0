"""``maskwright synth``: flags to knobs, and what is refused."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskwright.cli import synth
from maskwright.data.synthetic.scenes import KINDS
from maskwright.errors import InputError


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    synth.configure(parser)
    return synth.run(parser.parse_args(words))


def test_a_set_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    words = ("shelf", "--out", str(out), "--n", "2", "--seed", "9", "--size", "64", "80")
    assert run(*words, "--count", "3", "8", "--occlusion", "0.2", "--sun", "45", "--format", "jpg") == 0
    said = capsys.readouterr().out
    assert said.startswith("2 pictures with ")
    assert "of 6 classes" in said
    knobs = json.loads((out / "knobs.json").read_text())
    assert (knobs["kind"], knobs["n"], knobs["seed"], knobs["size"]) == ("shelf", 2, 9, [64, 80])
    assert knobs["knobs"]["count"] == [3, 8]
    assert knobs["knobs"]["occlusion"] == 0.2
    assert knobs["knobs"]["sun"] == 45
    assert sorted(p.suffix for p in (out / "images").iterdir()) == [".jpg", ".jpg"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="occlusion must lie in"):
        run("shelf", "--out", str(tmp_path / "a"), "--occlusion", "3")
    with pytest.raises(InputError, match="drawing needs"):
        run("shelf", "--out", str(tmp_path / "a"), "--n", "-1")
    with pytest.raises(InputError, match="in use"):
        run("shelf", "--out", str(Path(__file__).parent))
    assert list(tmp_path.iterdir()) == []


def test_kinds_are_those_there_are() -> None:
    assert set(synth.KINDS) == set(KINDS)


def test_help_does_not_wait_for_torch() -> None:
    code = "import argparse, sys; from maskwright.cli import synth; p = argparse.ArgumentParser(); synth.configure(p); "
    code += "text = p.format_help(); assert '--occlusion' in text; assert 'torch' not in sys.modules; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ok"
