"""The cache of compiled kernels: said once, found again, never piling up."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from numba import types

from maskwright.metrics import _native


def test_old_kernels_of_the_same_set_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path])
    for k in range(7):
        _native._keep(f"match_kernels-{k:024x}", b"code", ["a", "b"])
        os.utime(tmp_path / f"kernels-match_kernels-{k:024x}.o", (k, k))
    _native._keep("other_kernels-0", b"code", ["a"])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"kernels-match_kernels-{k:024x}.o" for k in range(3, 7)] + ["kernels-other_kernels-0.o"]
    assert _native._cached("match_kernels-" + f"{6:024x}") == (b"code", ["a", "b"])


def test_a_file_that_was_cut_short_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path / "absent", tmp_path])
    _native._keep("set-1", b"code", ["a"])
    path = tmp_path / "absent" / "kernels-set-1.o"
    path.write_bytes(path.read_bytes()[:-1])
    assert _native._cached("set-1") == (b"", [])


def test_compiling_is_said_once_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "_native.py").write_text("")
    (tmp_path / "_twice_kernels.py").write_text("")
    module = SimpleNamespace(KERNELS={"twice": (lambda value: 2 * value, types.int64(types.int64))})
    load = _native.import_module
    monkeypatch.setattr(_native, "_folders", lambda: [tmp_path])
    monkeypatch.setattr(_native, "_HERE", tmp_path)
    monkeypatch.setattr(_native, "import_module", lambda name: module if "_twice" in name else load(name))
    for said in (True, False):
        assert _native.Kernels("_twice_kernels")("twice", 21) == 42
        text = capsys.readouterr()
        assert text.out == ""
        assert ("compiling kernels once" in text.err) == said
    with pytest.raises(RuntimeError, match=r"twice must take 2 arguments.*Start it again"):
        _native.Kernels("_twice_kernels")("twice", 21, 22)
