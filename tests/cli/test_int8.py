"""How int8 chooses what stays in fp32, on programs whose figures are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.cli import _int8
from maskwright.data.synthetic.discs import Discs
from maskwright.errors import InputError
from maskwright.export import artifact, quantize

COSTS = {"body": 0.01, "neck": 0.04, "head": 0.005}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], float]:
    """The figure of a program: 0.5, less what its quantized parts cost."""
    monkeypatch.setattr(_int8, "_with_objects", lambda train, count: [])
    monkeypatch.setattr(_int8, "_feeds", lambda program, pictures: [(torch.zeros(1), torch.zeros(1))])
    monkeypatch.setattr(artifact, "export", lambda model, described, to, out, **_: Path(out).mkdir())
    monkeypatch.setattr(quantize, "groups", lambda folder: {part: [part] for part in COSTS})

    def write(folder: Path, out: Path, feeds: Any, *, build: Any, without: list[str]) -> None:
        out.mkdir(exist_ok=True)
        (out / "without").write_text(" ".join(without))

    monkeypatch.setattr(quantize, "quantize", write)
    monkeypatch.setattr(zoo, "load", lambda path: path)

    def measure(path: Path) -> float:
        if not (path / "without").exists():
            return 0.5
        return 0.5 - sum(cost for part, cost in COSTS.items() if part not in (path / "without").read_text().split())

    return measure


def make(out: Path, measure: Callable[[Any], float], limit: float, **more: Any) -> dict[str, Any]:
    nothing: Any = SimpleNamespace()
    return _int8.make(
        nothing, {}, out, train=nothing, measure=measure, calibrate=4, limit=limit, say=lambda text: None, **more
    )


def test_all_is_quantized_where_little_is_lost(told: Callable[[Any], float], tmp_path: Path) -> None:
    found = make(tmp_path / "out", told, 0.1)
    assert found["without"] == []
    assert found["culprits"] == {}
    assert found["int8"] == found["all"]
    assert (tmp_path / "out" / "without").read_text() == ""


def test_the_worst_parts_stay_in_fp32(told: Callable[[Any], float], tmp_path: Path) -> None:
    found = make(tmp_path / "out", told, 0.02)
    assert found["without"] == ["neck"]
    assert found["culprits"] == pytest.approx(COSTS)
    assert found["lost"] == pytest.approx(0.015)
    assert make(tmp_path / "more", told, 0.007)["without"] == ["neck", "body"]
    assert (tmp_path / "more" / "without").read_text() == "neck body"


def test_culprits_are_measured_where_they_are_asked_for(told: Callable[[Any], float], tmp_path: Path) -> None:
    found = make(tmp_path / "out", told, 0.1, blame=True)
    assert found["culprits"] == pytest.approx(COSTS)
    assert found["without"] == []
    assert (tmp_path / "out" / "without").read_text() == ""


def test_nothing_is_written_where_too_much_is_lost(told: Callable[[Any], float], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"may lose 0\.001 here, but loses 0\.0050 .*neck \+0\.0400"):
        make(tmp_path / "out", told, 0.001)
    assert list(tmp_path.iterdir()) == []


def test_calibration_pictures_have_objects() -> None:
    with pytest.raises(InputError, match="pictures with objects"):
        _int8._with_objects(Discs(0, size=(64, 64)), 4)
