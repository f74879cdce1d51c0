"""Run-lengths nobody should write: read exactly as they are defined, or refused by name; never a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskwright.errors import InputError
from maskwright.metrics.files import read_coco
from tests.metrics import oracle

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEIGHT, WIDTH = 7, 9


def runs_of(text: str) -> list[int] | None:
    """COCO's string as run-lengths, by its definition, or ``None`` where it is not one of a mask of this size."""
    values: list[int] = []
    value, bits = 0, 0
    for byte in (ord(c) - 48 for c in text):
        if not 0 <= byte <= 63 or bits > 30:
            return None
        value |= (byte & 31) << bits
        bits += 5
        if not byte & 32:
            value -= (byte & 16) << (bits - 4)
            values.append(value + (values[-2] if len(values) > 2 else 0))
            value, bits = 0, 0
    plain = not bits and all(v >= 0 for v in values) and sum(values) == HEIGHT * WIDTH
    return values if plain else None


def write(folder: Path, size: Any, counts: Any, image: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[Path, Path]:
    """One detection with this mask, and a truth that is half of the picture."""
    half = {"size": list(image), "counts": [0, image[0] * (image[1] // 2), image[0] * (image[1] - image[1] // 2)]}
    shared = {"image_id": 1, "category_id": 1}
    truth = {
        "images": [{"id": 1, "height": image[0], "width": image[1]}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [shared | {"id": 1, "iscrowd": 0, "area": 9.0, "bbox": [0, 0, 3, 3], "segmentation": half}],
    }
    return oracle.write(folder, truth, [shared | {"score": 0.5, "segmentation": {"size": size, "counts": counts}}])


def check(folder: Path, counts: Any, runs: list[int] | None) -> None:
    paths = write(folder, [HEIGHT, WIDTH], counts)
    for kind in ("mask", "boundary"):
        if runs is None:
            with pytest.raises(InputError, match=r"1 of 1 results .*malformed run-lengths|counts must be"):
                read_coco(*paths, [kind])
            continue
        dense = np.repeat(np.arange(len(runs)) % 2, runs).reshape(HEIGHT, WIDTH, order="F").astype(np.uint8)
        half = np.zeros_like(dense)
        half[:, : WIDTH // 2] = 1
        sides = [(dense, half)] + ([(oracle.boundary(dense), oracle.boundary(half))] if kind == "boundary" else [])
        want = min((a & b).sum() / max(1, (a | b).sum()) for a, b in sides)
        thresholds = [t for t in (want - 1e-9, want + 1e-9) if 0 < t <= 1]  # found below its IoU, not above
        curves = read_coco(*paths, [kind], thresholds=thresholds).curves()[kind]
        assert curves["per_class"]["a"]["recall"][0].tolist() == [float(t <= want) for t in thresholds]


@quick
@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=14))
def test_random_strings_are_read_by_definition(tmp_path: Path, text: str) -> None:
    check(tmp_path, text, runs_of(text))


@quick
@given(seed=st.integers(0, 2**32), data=st.data())
def test_broken_strings_are_read_by_definition(tmp_path: Path, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    text = coco_mask.encode(oracle.random_mask(rng, HEIGHT, WIDTH))["counts"].decode()
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=2)) + text[at:]
    check(tmp_path, text, runs_of(text))


@quick
@given(runs=st.lists(st.one_of(st.integers(0, 63), st.integers(-(2**70), 2**70)), max_size=8), fill=st.booleans())
def test_random_lists_are_read_by_definition(tmp_path: Path, runs: list[int], fill: bool) -> None:
    if fill and sum(runs) <= HEIGHT * WIDTH:
        runs = [*runs, HEIGHT * WIDTH - sum(runs)]
    plain = all(v >= 0 for v in runs) and sum(runs) == HEIGHT * WIDTH and bool(runs)
    if any(abs(v) >= 2**63 for v in runs):
        with pytest.raises(InputError, match="1 of 1 results"):
            read_coco(*write(tmp_path, [HEIGHT, WIDTH], runs))
    else:
        check(tmp_path, runs, runs if plain else None)


INVERSE = pow(12345678901, -1, 2**64)  # 12345678901 x this wraps around to 1 in 64 bits


@pytest.mark.parametrize("kind", ["mask", "boundary"])
@pytest.mark.parametrize("size", [(2**40, 2**40), (2**31, 1), (1, 2**31 - 1), (2**32 + 1, 2**32), (3, 2**62)])
def test_sizes_that_overflow_are_refused(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    for counts in ([], [0], [63], "", "o", [size[0] * size[1]] if size[0] * size[1] < 2**63 else [1]):
        paths = write(tmp_path, list(size), counts, image=size)
        with pytest.raises(InputError, match="annotations cannot be used"):
            read_coco(*paths, [kind])
        assert read_coco(*paths, [kind], lenient=True).dropped == {"truth": 1, "results": 1}


def test_a_product_that_wraps_around_is_refused(tmp_path: Path) -> None:
    size = (12345678901, INVERSE % 2**63)
    for polygons in ([[0, 0, 5, 0, 5, 5]], [[0, 0, 1e7, 0, 1e7, 1e7]]):
        truth = {
            "images": [{"id": 1, "height": size[0], "width": size[1]}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [],
        }
        result = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": polygons}
        with pytest.raises(InputError, match="another size"):
            read_coco(*oracle.write(tmp_path, truth, [result]), ["boundary"])


def test_large_masks_have_boundaries(tmp_path: Path) -> None:
    """A picture of 2e8 pixels: run-lengths stay small, and boundaries are made inside of the masks' boxes only."""
    size = (20000, 10000)
    edge = [size[0] * 400 + 300, *([600, size[0] - 600] * 500)]
    edge.append(size[0] * size[1] - sum(edge))
    shared = {"image_id": 1, "category_id": 1, "segmentation": {"size": list(size), "counts": edge}}
    truth = {
        "images": [{"id": 1, "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [shared | {"id": 1, "iscrowd": 0, "area": 3e5, "bbox": [400, 300, 500, 600]}],
    }
    got = read_coco(*oracle.write(tmp_path, truth, [shared | {"score": 1.0}]), ["boundary"], boundary_ratio=0.001)
    assert got.compute()["boundary"]["AP50"] == pytest.approx(1.0)
