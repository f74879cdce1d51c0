"""The command line's frame: instant help, messages instead of tracebacks, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from maskwright.cli import main as cli
from maskwright.errors import InputError


def _fake(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Put a command of our own in the place of ``train``."""
    module = ModuleType("maskwright.cli.train")
    module.configure = lambda parser: parser.add_argument("--steps", type=int, default=3)  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "maskwright.cli.train", module)


@pytest.mark.parametrize("words", [["--help"], ["models"], ["models", "--json"], ["--version"], ["predict", "--help"]])
def test_these_import_neither_torch_nor_numpy(words: list[str]) -> None:
    code = (
        "import sys, contextlib\n"
        "from maskwright.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({words!r})\n"
        "print([m for m in ('torch', 'numpy', 'PIL', 'numba') if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.strip() == "[]"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    assert not [name for name, help_text in cli.COMMANDS.items() if f" {name} {help_text[:20]}" not in words]


def test_no_command_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: maskwright" in capsys.readouterr().err
    assert cli.main(["predcit", "x.jpg"]) == 2
    assert "Did you mean predict?" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("maskwright 0.")


def test_arguments_and_exit_code_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(monkeypatch, lambda args: args.steps)
    assert cli.main(["train", "--steps", "7"]) == 7
    assert cli.main(["train"]) == 3


def test_unusable_input_is_one_line_and_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Any) -> int:
        raise InputError("boxes must be finite, got NaN. Repair the file.")

    _fake(monkeypatch, run)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "maskwright train: boxes must be finite, got NaN. Repair the file.\n"


def test_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Any) -> int:
        raise KeyboardInterrupt

    _fake(monkeypatch, run)
    assert cli.main(["train"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_mistakes_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Any) -> int:
        raise ValueError("a mistake")

    _fake(monkeypatch, run)
    with pytest.raises(ValueError, match="a mistake"):
        cli.main(["train"])


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m maskwright models --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_models_table_and_json_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in rows)
    published = {w["name"]: w for row in rows.values() for w in row["weights"]}
    assert published["mask-rcnn-r50-detectron2-3x"]["mask_ap"] == 0.372
    line = next(line for line in text.splitlines() if "mask-rcnn-r50-detectron2-3x" in line)
    assert "37.2" in line
    assert "41.0" in line
    assert "CC BY-SA 3.0" in line
