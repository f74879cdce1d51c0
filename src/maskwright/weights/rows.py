"""What a row of published checkpoints says, and the rows' common parts by origin.

The rows are in ``rows_instance`` and ``rows_maps``. Figures are fractions, as their projects state them; the hashes in
the names of detectron2's files are of another kind (MD5) than those checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PACKAGED = "package:"
"""A ``url`` that begins so names a file inside ``maskwright/weights/files``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: what ``load(..., weights=name)`` and ``--weights`` take.
        model: the zoo's name of the model it fits.
        url: where it is downloaded from, or ``package:FILE``; empty where a file must be fetched by hand, see ``note``.
        sha256: lower-case hexadecimal SHA-256, or the beginning of it, or ``None`` when unknown.
        bytes: the file's length, or ``None`` when unknown.
        license: of the weights.
        commercial: whether the license allows commercial use; ``None`` when the license says nothing.
        box_ap, mask_ap, pq, miou: published on the val half of ``data``; ``None`` where not stated.
        data: what they were measured on.
        origin: the project that made it.
        preprocessing: how pictures are brought in at test time.
        note: where the facts are from, and what else to know.
    """

    name: str
    model: str
    url: str
    license: str
    commercial: bool | None
    origin: str
    preprocessing: str
    note: str
    sha256: str | None = None
    bytes: int | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    pq: float | None = None
    miou: float | None = None
    data: str = "COCO"


_D2 = "https://dl.fbaipublicfiles.com/detectron2"
_DETR = "https://dl.fbaipublicfiles.com/detr"
_MASKFORMER = "https://dl.fbaipublicfiles.com/maskformer"
_TORCH = "https://download.pytorch.org/models"
_MMDET = "https://download.openmmlab.com/mmdetection"
_HUB = "https://huggingface.co"

BGR_PIXELS = "BGR, means 103.53/116.28/123.675, std 1; short side 800, long side at most 1333"
RGB_PIXELS = "RGB, ImageNet mean and std; short side 800, long side at most 1333"
ADE_PIXELS = "RGB, ImageNet mean and std; short side 512, long side at most 2048"
_UNREACHED = (
    "model zoo of mmdetection; its host has not answered since June 2026, so keep a copy or give a mirror's file"
)


def detectron2(name: str, model: str, path: str, *, note: str = "detectron2 model zoo", **figures: Any) -> Published:
    """A row of detectron2 or one of its projects; ``path`` is the file's below the project's host."""
    return Published(
        name=name, model=model, url=f"{_D2}/{path}", license="CC BY-SA 3.0", commercial=True, origin="detectron2",
        preprocessing=figures.pop("preprocessing", BGR_PIXELS),
        note=f"{note}; share alike: weights derived from it keep its license", **figures,
    )  # fmt: skip


def torchvision(name: str, model: str, file: str, enum: str, pixels: str, **figures: Any) -> Published:
    """A row of torchvision's, called ``enum`` there; its file's name ends with the beginning of its hash."""
    return Published(
        name=name, model=model, url=f"{_TORCH}/{file}", sha256=file[-12:-4], license="BSD-3-Clause", commercial=True,
        origin="torchvision", preprocessing=f"{pixels}, plain bilinear",
        note=f"{enum}; BSD-3 is the license of the code, weights trained on COCO", **figures,
    )  # fmt: skip


def mmdetection(
    name: str, model: str, folder: str, version: str, mask: float, box: float | None = None, pixels: str = RGB_PIXELS
) -> Published:
    """A row whose file is called as its folder with ``version`` behind it, the end of which begins the hash."""
    return Published(
        name=name, model=model, url=f"{_MMDET}/{folder}/{folder.rpartition('/')[2]}_{version}.pth",
        sha256=version[-8:], license="none stated", commercial=None, box_ap=box, mask_ap=mask, origin="mmdetection",
        preprocessing=pixels, note=f"{_UNREACHED}; the code is Apache-2.0, of the weights nothing is said",
    )  # fmt: skip


def adelaidet(name: str, model: str, path: str, mask: float, box: float | None = None) -> Published:
    """A row of AdelaiDet's; ``path`` is repository and file on the hub."""
    owner, repository, file = path.split("/")
    return Published(
        name=name, model=model, url=f"{_HUB}/{owner}/{repository}/resolve/main/{file}", license="non-commercial",
        commercial=False, mask_ap=mask, box_ap=box, origin="adelaidet", preprocessing=BGR_PIXELS,
        note="AdelaiDet's model zoo; academic use only",
    )  # fmt: skip


def centermask2(name: str, model: str, path: str, mask: float, box: float, short: int, long: int) -> Published:
    """A row of CenterMask2's; ``path`` is the file's on Dropbox."""
    return Published(
        name=name, model=model, url=f"https://dl.dropbox.com/s/{path}", license="CC BY-NC 4.0", commercial=False,
        mask_ap=mask, box_ap=box, origin="centermask2",
        preprocessing=f"BGR, means 103.53/116.28/123.675, std 1; short side {short}, long side at most {long}",
        note="the authors' repository youngwanLEE/centermask2; a folder of a person, so keep a copy",
    )  # fmt: skip


def detr(name: str, model: str, file: str, **figures: Any) -> Published:
    """A row of the official DETR, whose file's name ends with the beginning of its hash."""
    return Published(
        name=name, model=model, url=f"{_DETR}/{file}", sha256=file[-12:-4], license="Apache-2.0", commercial=True,
        origin="detr", preprocessing=RGB_PIXELS, note="facebookresearch/detr, 500 epochs", **figures,
    )  # fmt: skip


def maskformer(name: str, model: str, path: str, *, data: str = "COCO", **figures: Any) -> Published:
    """A row of the official MaskFormer or Mask2Former; ``path`` is the file's below their host."""
    second = path.startswith("mask2former/")
    return Published(
        name=name, model=model, url=f"{_MASKFORMER}/{path}", license="CC BY-NC 4.0", commercial=False, data=data,
        origin="mask2former" if second else "maskformer", preprocessing=ADE_PIXELS if data == "ADE20K" else RGB_PIXELS,
        note=f"model zoo of facebookresearch/{'Mask2Former' if second else 'MaskFormer'}", **figures,
    )  # fmt: skip


def hub(
    name: str, model: str, path: str, *, license: str, commercial: bool, pixels: str, note: str, **figures: Any
) -> Published:
    """A row of a repository on the hub; ``path`` is owner, repository and file."""
    owner, repository, file = path.split("/")
    return Published(
        name=name, model=model, url=f"{_HUB}/{owner}/{repository}/resolve/main/{file}", license=license,
        commercial=commercial, origin=f"hub {owner}", preprocessing=pixels, note=note, **figures,
    )  # fmt: skip


def by_hand(
    name: str, model: str, *, repository: str, license: str, pixels: str, note: str, **figures: Any
) -> Published:
    """A row whose file no program can fetch."""
    return Published(
        name=name, model=model, url="", license=license, commercial=license == "MIT",
        origin=repository.partition("/")[2].lower(), preprocessing=pixels,
        note=f"{note} the authors' repository {repository}", **figures,
    )  # fmt: skip
