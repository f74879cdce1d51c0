"""Published checkpoints as data: where they are, what they reach, and under which license their weights are.

Listing them imports no torch. ``sha256`` is the whole hash or its beginning; ``None`` says that no hash is known.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from maskwright.errors import InputError

PACKAGED = "package:"
"""A ``url`` that begins so names a file inside ``maskwright/weights/files``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: what ``load(..., weights=name)`` and ``--weights`` take.
        model: the zoo's name of the model it fits.
        url: where it is downloaded from, or ``package:FILE``.
        sha256: lower-case hexadecimal SHA-256, or the beginning of it, or ``None`` when unknown.
        bytes: the file's length, or ``None`` when unknown.
        license: of the weights.
        commercial: whether the license allows commercial use; ``None`` when the license says nothing.
        box_ap, mask_ap: published COCO val AP as fractions; ``None`` when not measured on COCO.
        origin: the project that made it.
        preprocessing: how pictures are brought in at test time.
        note: where the facts are from, and what else to know.
    """

    name: str
    model: str
    url: str
    sha256: str | None
    bytes: int | None
    license: str
    commercial: bool | None
    box_ap: float | None
    mask_ap: float | None
    origin: str
    preprocessing: str
    note: str


_D2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation"
_TORCH = "https://download.pytorch.org/models"
_D2_PIXELS = "BGR, means 103.53/116.28/123.675, std 1; short side 800, long side at most 1333"
_TORCH_PIXELS = "RGB, ImageNet mean and std; short side 800, long side at most 1333, plain bilinear"

_ROWS = (
    Published(
        name="embedded",
        model="mask-rcnn-r18-light",
        url=f"{PACKAGED}embedded.safetensors",
        sha256="77256d081aba24298c280678cbcd3cde7768ce9edbc938066fc7fd8d337a14f3",
        bytes=9_262_468,
        license="CC0-1.0",
        commercial=True,
        box_ap=None,
        mask_ap=None,
        origin="maskwright",
        preprocessing="RGB, ImageNet mean and std; twofold enlarged",
        note="ships with the package; trained by this project on CC0 nuclei and drawn discs; mask AP 0.555, AP50 0.842 "
        "on the 98 held-out nuclei pictures",
    ),
    Published(
        name="mask-rcnn-r50-detectron2-3x",
        model="mask-rcnn-r50",
        url=f"{_D2}/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
        sha256=None,
        bytes=None,
        license="CC BY-SA 3.0",
        commercial=True,
        box_ap=0.410,
        mask_ap=0.372,
        origin="detectron2",
        preprocessing=_D2_PIXELS,
        note="detectron2 model zoo, 3x schedule; share alike: weights derived from it keep its license",
    ),
    Published(
        name="mask-rcnn-r101-detectron2-3x",
        model="mask-rcnn-r101",
        url=f"{_D2}/mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl",
        sha256=None,
        bytes=None,
        license="CC BY-SA 3.0",
        commercial=True,
        box_ap=0.429,
        mask_ap=0.386,
        origin="detectron2",
        preprocessing=_D2_PIXELS,
        note="detectron2 model zoo, 3x schedule; share alike: weights derived from it keep its license",
    ),
    Published(
        name="mask-rcnn-r50-torchvision-v1",
        model="mask-rcnn-r50",
        url=f"{_TORCH}/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        sha256="bf2d0c1e",
        bytes=None,
        license="BSD-3-Clause",
        commercial=True,
        box_ap=0.379,
        mask_ap=0.346,
        origin="torchvision",
        preprocessing=_TORCH_PIXELS,
        note="MaskRCNN_ResNet50_FPN_Weights.COCO_V1; BSD-3 is the license of the code, weights trained on COCO",
    ),
    Published(
        name="mask-rcnn-r50-torchvision-v2",
        model="mask-rcnn-r50",
        url=f"{_TORCH}/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
        sha256="73cbd019",
        bytes=None,
        license="BSD-3-Clause",
        commercial=True,
        box_ap=0.474,
        mask_ap=0.418,
        origin="torchvision",
        preprocessing=_TORCH_PIXELS,
        note="MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1; BSD-3 is the license of the code, weights trained on COCO",
    ),
)

_BY_NAME = {row.name: row for row in _ROWS}


def published() -> tuple[Published, ...]:
    """All rows, in the table's order."""
    return _ROWS


def find(name: str) -> Published:
    """The row called ``name``.

    Raises:
        InputError: there is none; the message suggests the closest names.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    close = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.4) or list(_BY_NAME)
    raise InputError(
        f"weights must be a checkpoint file or a published name, got {name!r}: no such file, and no such name. "
        f"Did you mean {' or '.join(close)}?"
    )


def is_published(name: str) -> bool:
    """Whether the table has a row called ``name``."""
    return name in _BY_NAME


def check_license(row: Published, *, commercial: bool) -> None:
    """Refuse a row for commercial use unless its license allows that.

    Raises:
        InputError: ``commercial`` is true and the license is non-commercial or unknown.
    """
    if commercial and row.commercial is not True:
        kind = (
            "does not allow commercial use"
            if row.commercial is False
            else "does not say that commercial use is allowed"
        )
        free = ", ".join(other.name for other in _ROWS if other.commercial is True and other.model == row.model)
        raise InputError(
            f"commercial=True needs weights whose license allows commercial use; that of {row.name!r} "
            f"({row.license}) {kind}. " + (f"Allowed for {row.model}: {free}." if free else "Choose other weights.")
        )


def packaged(row: Published) -> Path | None:
    """The file inside the package, or ``None`` for a row that is downloaded.

    Raises:
        InputError: the row is packaged, but this installation lacks the file.
    """
    if not row.url.startswith(PACKAGED):
        return None
    path = Path(__file__).parent / "files" / row.url.removeprefix(PACKAGED)
    if not path.is_file():
        raise InputError(
            f"the weights {row.name!r} must ship with the package, but {path} is missing. Install it again."
        )
    return path
