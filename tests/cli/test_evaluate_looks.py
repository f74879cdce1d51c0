"""``maskwright evaluate`` with ``--tta``, several ``--weights`` and ``--tile``: an exact model stays perfect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskwright import zoo
from maskwright.cli.main import main
from maskwright.infer.predictor import predict
from tests.infer.exact import Exact, discs
from tests.infer.test_tiles import tensor


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of discs, annotated by the model itself, which every name loads, less sure with every call."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(1, 3):
        picture, _ = discs((120, 160), 25, (2, 12), number)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 120, "width": 160})
        found = predict(Exact(), tensor(picture)).objects()  # type: ignore[union-attr]
        assert found.masks is not None
        for label, runs, box in zip(
            found.labels.tolist(), found.masks.rle(), found.masks.boxes().tolist(), strict=True
        ):
            x1, y1, x2, y2 = box
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                            "segmentation": runs, "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "area": (x2 - x1) * (y2 - y1)})  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(("red", "green", "ground"), 1)]
    file = tmp_path / "val.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    monkeypatch.setattr(zoo, "load", lambda *names, **options: Exact(score=0.9 if names[-1] == "a" else 0.6))
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["a"],
        ["a", "--tta", "flip,vflip,rot90"],
        ["--weights", "a,b", "--votes", "2,1"],
        ["a", "--tile", "64,28"],
        ["--weights", "a", "--weights", "b", "--tta", "flip", "--tile", "64,28", "--batch-size", "2"],
    ],
)
def test_an_exact_model_stays_perfect(data: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *words, "--data", str(data), "--workers", "0", "--device", "cpu", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["mask"]["AP"] == pytest.approx(1.0)
    assert figures["box"]["AP"] == pytest.approx(1.0)


def test_unusable_flags_are_refused_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--tta", "mirror"], ["--tile", "9"], ["--votes", "1,2"]):
        assert main(["evaluate", "a", "--data", str(data), *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
