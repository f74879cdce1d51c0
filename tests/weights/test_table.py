"""The published table: complete, consistent, listed without torch, and licenses are kept."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from maskwright.errors import InputError
from maskwright.weights.table import check_license, find, is_published, packaged, published


def test_rows_are_consistent() -> None:
    names = [row.name for row in published()]
    assert len(set(names)) == len(names) >= 5
    for row in published():
        assert find(row.name) is row
        assert is_published(row.name)
        assert row.license
        assert row.origin
        assert row.preprocessing
        assert re.match(r"https://|package:", row.url) or (not row.url and "repository" in row.note)
        assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", row.sha256)
        for ap in (row.box_ap, row.mask_ap):
            assert ap is None or 0.2 < ap < 0.7
        if row.sha256 and row.url.startswith("https"):
            assert f"-{row.sha256[:8]}." in row.url


def test_published_figures() -> None:
    figures = {row.name: (row.box_ap, row.mask_ap) for row in published()}
    assert figures["mask-rcnn-r50-detectron2-3x"] == (0.410, 0.372)
    assert figures["mask-rcnn-r101-detectron2-3x"] == (0.429, 0.386)
    assert figures["mask-rcnn-r50-torchvision-v1"][1] == 0.346
    assert figures["mask-rcnn-r50-torchvision-v2"][1] == 0.418


def test_unknown_names_get_a_suggestion() -> None:
    assert not is_published("mask-rcnn-r50-torchvision")
    with pytest.raises(InputError, match=r"Did you mean .*mask-rcnn-r50-torchvision-v[12]"):
        find("mask-rcnn-r50-torchvision")


@pytest.mark.parametrize("allowed", [False, None])
def test_commercial_use_needs_a_license_that_allows_it(allowed: bool | None) -> None:
    row = replace(find("mask-rcnn-r50-torchvision-v1"), name="other", license="CC BY-NC 4.0", commercial=allowed)
    with pytest.raises(InputError, match=r"commercial=True.*CC BY-NC 4.0.*Allowed for mask-rcnn-r50: .*torchvision"):
        check_license(row, commercial=True)
    check_license(row, commercial=False)
    check_license(find("mask-rcnn-r50-detectron2-3x"), commercial=True)


def test_packaged_rows_are_files_of_the_package() -> None:
    assert packaged(find("mask-rcnn-r50-torchvision-v1")) is None
    gone = replace(find("embedded"), url="package:absent.safetensors")
    with pytest.raises(InputError, match="Install it again"):
        packaged(gone)


def test_listing_imports_no_torch() -> None:
    code = "import sys, maskwright.weights.table as t; t.published(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
