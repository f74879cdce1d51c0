"""The repository itself: what a stranger's clone needs, and nothing that only works on the machine it was made on."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "maskwright"
EMBEDDED = SOURCE / "weights" / "files" / "embedded.safetensors"
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _tracked() -> list[Path]:
    """Text files that belong to the project: what git knows, or without git what lies where the project's files do."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\n")
        files = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "benchmarks", "docs", ".ci")
        files = [p for f in folders for p in (ROOT / f).rglob("*")] + list(ROOT.glob("*"))
    text = {".py", ".md", ".toml", ".lock", ".yaml", ".yml", ".json", ""}
    return [p for p in files if p.is_file() and p.suffix in text]


TRACKERS = {"mlflow", "wandb", "trackio"}


def test_the_lock_pins_versions_and_names_no_place() -> None:
    """Each line pins one released version; where to get it from is the business of whoever installs."""
    assert LOCK
    for line in LOCK:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][0-9a-z.]*( ; .+)?", line), line


def test_the_lock_covers_every_dependency() -> None:
    """But for clients of tracking servers: who runs one installs what it wants, and they hold others back."""
    pinned = {re.split("==", line)[0] for line in LOCK}
    extras = {k: v for k, v in PROJECT["project"]["optional-dependencies"].items() if k not in TRACKERS}
    wanted = [*PROJECT["project"]["dependencies"], *(need for needs in extras.values() for need in needs)]
    for need in wanted:
        name = re.split(r"[\[<>=!~ ;]", need)[0].lower().replace("_", "-")
        assert name in pinned, f"{need} is not in requirements.lock: compile it anew (CONTRIBUTING.md)"


def test_the_extras_are_those_promised() -> None:
    assert {"export", "serve", "cluster", "video", "cloud", "dev"} <= set(PROJECT["project"]["optional-dependencies"])


def test_dependencies_of_the_core_are_imported() -> None:
    """The core stays small: what nothing imports is not installed."""
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for need in PROJECT["project"]["dependencies"]:
        name = re.split(r"[\[<>=!~ ;]", need)[0]
        module = modules.get(name, name.replace("-", "_"))
        imports = rf"""^\s*(import|from) {module}\b|import_module\("{module}"\)"""
        assert re.search(imports, code, re.MULTILINE), f"nothing imports {name}"


def test_nothing_silences_the_tools() -> None:
    """No ignore list for the linter, and no blanket comment in the package."""
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert not lint.get("ignore")
    assert not lint.get("extend-ignore")
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"# noqa\s*$|# type: ignore\s*$|# pyright: ignore\s*$", text, re.MULTILINE), path


def test_no_path_of_one_machine() -> None:
    local = re.compile(r"(?<![\w.])/(work|home/\w+|Users/\w+|root)/[\w.]")
    for path in _tracked():
        if path != Path(__file__).resolve():
            found = local.search(path.read_text(errors="ignore"))
            assert found is None, f"{path.relative_to(ROOT)} names {found.group() if found else ''}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_in_documents_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), f"{name} links to {target}, which does not exist"


def test_the_license_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_make_has_the_promised_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench", "docs"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "://" not in makefile, "where packages come from is the business of whoever installs"
    runner = ROOT / ".ci" / "run"
    assert runner.stat().st_mode & 0o111
    assert "make test" in runner.read_text()


def test_embedded_weights_are_small_and_tell_where_they_come_from() -> None:
    from maskwright.weights import store

    assert EMBEDDED.exists(), "the weights that ship with the package are missing"
    assert EMBEDDED.stat().st_size <= 16_000_000
    card = store.read(EMBEDDED)[1]["card"]
    assert {"data", "license", "recipe", "seed", "measured"} <= set(card)
    assert "CC0" in card["license"]
    assert 0 < card["measured"]["mask"]["AP"] < 1
