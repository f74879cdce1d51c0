"""Which of the formats of published data sets knows which sample; none is upset by files that are nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.shared import shared

MODULES = (
    "ade20k", "coco_panoptic", "coco_stuff", "lvis", "open_images", "scene_parsing", "segment_anything", "voc", "yolo",
)  # fmt: skip

OWNERS = {
    "formats/ade20k2017/dataset": "ade20k",
    "formats/ade20k2020/dataset": "ade20k",
    "formats/camvid": None,
    "formats/cityscapes": None,
    "formats/coco_instances": None,
    "formats/coco_panoptic": "coco_panoptic",
    "formats/coco_stuff": "coco_stuff",
    "formats/cvat": None,
    "formats/kitti_segmentation": None,
    "formats/labelme": None,
    "formats/mots": None,
    "formats/open_images/v5": "open_images",
    "formats/open_images/v6": "open_images",
    "formats/open_images/v6/annotations": "open_images",
    "formats/segment_anything": "segment_anything",
    "formats/synthia": None,
    "formats/via_balloon": None,
    "formats/voc/voc_dataset1": "voc",
    "formats/voc/voc_dataset2": "voc",
    "formats/voc/voc_dataset3": "voc",
    "formats/voc_real": "voc",
    "coco128": None,  # has instances.json: COCO's own
    "coco128/panoptic.json": "coco_panoptic",
    "coco128/instances.json": None,
    "nuclei": None,
    "video": None,
}


def knowing(path: Path) -> list[str]:
    """Whose recognizers say yes."""
    return [name for name in MODULES if import_module(f"maskwright.data.formats.{name}").recognizes(path)]


@pytest.mark.parametrize("name", OWNERS)
def test_samples(name: str) -> None:
    owner = OWNERS[name]
    assert knowing(shared(f"data/{name}")) == ([] if owner is None else [owner])


def test_nothing_in_junk(tmp_path: Path) -> None:
    endings = ("json", "xml", "yaml", "yml", "csv", "txt", "png", "jpg")
    for name in ("annotations", "Annotations", "images", "labels", "masks", "train", "annotations/training"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for i, content in enumerate(
            (b"", b"\0" * 99, b"\xff\xfe{", b"{" * 10**5, b"[" * 10**5, b"<a>", b"names:", b"{}")
        ):
            for ending in endings:
                if (name, ending) != ("annotations/training", "png"):
                    (folder / f"{i}.{ending}").write_bytes(content)
    for ending in endings:
        (tmp_path / f"folder.{ending}").mkdir()
        (tmp_path / f"nowhere.{ending}").symlink_to(tmp_path / "gone")
    for path in (tmp_path, tmp_path / "missing", *tmp_path.rglob("*")):
        assert knowing(path) == [], path
