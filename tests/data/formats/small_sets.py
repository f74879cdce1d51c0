"""The smallest data set of each format of label pictures, drawn in the documented layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from maskwright.data.formats import (
    ai2thor,
    camvid,
    cityscapes,
    davis,
    flying_things,
    instance_pngs,
    kitti,
    label_images,
    mapillary,
    mots,
    synthia,
    virtual_kitti,
)
from tests.data.formats.pixels import SIZE, colored, map_of, photo, save, save16

TWO = map_of(v1=(1, 1, 4, 3), v2=(4, 2, 8, 6))
RED, BLUE = (200, 0, 10), (0, 5, 250)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def pfm(path: Path, values: np.ndarray, *, order: str = "<") -> Path:
    """A one-channel PFM, lower row first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{'-1.0' if order == '<' else '1.0'}\n".encode()
    path.write_bytes(head + values[::-1].astype(f"{order}f4").tobytes())
    return path


def make_cityscapes(root: Path) -> Path:
    photo(root / "leftImg8bit" / "train" / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    ids = np.select([TWO == 1, TWO == 2], [26000, 24], 7)
    truth = root / "gtFine" / "train" / "ulm"
    save(truth / "ulm_000000_000019_gtFine_labelIds.png", np.where(ids >= 1000, ids // 1000, ids))
    return save(truth / "ulm_000000_000019_gtFine_instanceIds.png", ids, np.uint16)


def make_kitti(root: Path) -> Path:
    photo(root / "training" / "image_2" / "000000_10.png")
    photo(root / "testing" / "image_2" / "000000_10.png")
    ids = np.select([TWO == 1, TWO == 2], [26 * 256 + 1, 24 * 256], 7 * 256)
    save(root / "training" / "semantic" / "000000_10.png", ids // 256)
    return save(root / "training" / "instance" / "000000_10.png", ids, np.uint16)


def make_mots(root: Path) -> Path:
    photo(root / "train" / "images" / "0002" / "000001.jpg")
    ids = np.select([TWO == 1, TWO == 2], [2005, 10000], 0)
    return save(root / "train" / "instances" / "0002" / "000001.png", ids, np.uint16)


def make_synthia(root: Path) -> Path:
    photo(root / "RGB" / "0000000.png")
    channels = np.zeros((*SIZE, 3), np.uint16)
    channels[..., 0] = np.select([TWO == 1, TWO == 2], [8, 10], 3)
    channels[..., 1] = np.select([TWO == 1, TWO == 2], [300, 7], 0)
    return save16(root / "GT" / "LABELS" / "0000000.png", channels)


def make_virtual_kitti(root: Path) -> Path:
    clip = root / "Scene01" / "fog"
    photo(clip / "frames" / "rgb" / "Camera_0" / "rgb_00003.jpg")
    _text(clip / "colors.txt", "Category r g b\nRoad 100 60 100\nCar 255 127 80\nVan 0 139 139\nUndefined 0 0 0\n")
    _text(clip / "info.txt", "trackID label model color\n0 Car Golf Red\n1 Van Bus Blue\n")
    colors = colored(TWO, {0: (100, 60, 100), 1: (255, 127, 80), 2: (0, 139, 139)})
    save(clip / "frames" / "classSegmentation" / "Camera_0" / "classgt_00003.png", colors)
    return save(clip / "frames" / "instanceSegmentation" / "Camera_0" / "instancegt_00003.png", TWO)


def make_mapillary(root: Path) -> Path:
    rows = [("bird", True, True), ("curb", False, True), ("void", False, False)]
    labels = [
        {"name": f"a--{n}", "readable": n, "color": [i, 9, 9], "instances": thing, "evaluate": known}
        for i, (n, thing, known) in enumerate(rows)
    ]
    _text(root / "config_v2.0.json", json.dumps({"labels": labels, "version": "2.0"}))
    photo(root / "training" / "images" / "one.jpg")
    photo(root / "testing" / "images" / "two.jpg")
    ids = np.select([TWO == 1, TWO == 2], [0 * 256 + 1, 2 * 256], 256)
    save(root / "training" / "v2.0" / "labels" / "one.png", ids // 256)
    return save(root / "training" / "v2.0" / "instances" / "one.png", ids, np.uint16)


def make_camvid(root: Path) -> Path:
    photo(root / "images" / "one.png")
    _text(root / "codes.txt", "Car\nRoad\nVoid")
    return save(root / "labels" / "one_P.png", TWO)


def make_flying_things(root: Path) -> Path:
    photo(root / "frames_cleanpass" / "TRAIN" / "A" / "0000" / "left" / "0006.png")
    return pfm(root / "object_index" / "TRAIN" / "A" / "0000" / "left" / "0006.pfm", TWO)


def make_ai2thor(root: Path) -> Path:
    photo(root / "FloorPlan1" / "rgb" / "0004.png")
    meta = {
        "objects": [{"objectId": "Mug|+1|0|2", "objectType": "Mug"}],
        "colors": [
            {"name": "Mug|+1|0|2", "color": list(RED)},
            {"name": "Sofa|0|0|0", "color": list(BLUE)},
            {"name": "Floor", "color": [0, 0, 0]},
        ],
    }
    _text(root / "FloorPlan1" / "metadata" / "0004.json", json.dumps(meta))
    return save(root / "FloorPlan1" / "instance_segmentation" / "0004.png", colored(TWO, {1: RED, 2: BLUE}))


def make_davis(root: Path) -> Path:
    photo(root / "JPEGImages" / "480p" / "bear" / "00000.jpg")
    _text(root / "ImageSets" / "2017" / "train.txt", "bear\n")
    return save(root / "Annotations" / "480p" / "bear" / "00000.png", TWO)


def make_instance_pngs(root: Path) -> Path:
    photo(root / "stage1_train" / "ab12" / "images" / "ab12.png")
    save(root / "stage1_train" / "ab12" / "masks" / "1f.png", (TWO == 1) * 255)
    return save(root / "stage1_train" / "ab12" / "masks" / "2e.png", (TWO == 2) * 255)


def make_label_images(root: Path) -> Path:
    photo(root / "train" / "images" / "one.tif")
    return save(root / "train" / "masks" / "one.tif", TWO, np.uint16)


SETS: dict[str, tuple[ModuleType, Callable[[Path], Path]]] = {
    "cityscapes": (cityscapes, make_cityscapes),
    "kitti": (kitti, make_kitti),
    "mots": (mots, make_mots),
    "synthia": (synthia, make_synthia),
    "virtual_kitti": (virtual_kitti, make_virtual_kitti),
    "mapillary": (mapillary, make_mapillary),
    "camvid": (camvid, make_camvid),
    "flying_things": (flying_things, make_flying_things),
    "ai2thor": (ai2thor, make_ai2thor),
    "davis": (davis, make_davis),
    "instance_pngs": (instance_pngs, make_instance_pngs),
    "label_images": (label_images, make_label_images),
}
"""Format -> its module, and a function that draws a data set below a folder and returns one of its maps of objects."""
