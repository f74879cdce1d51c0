"""The classes of Cityscapes, which KITTI shares: 34 labels of which 19 are evaluated (8 things, 11 stuff).

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016), table of labels as
published with the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskwright.structures import Taxonomy

Classes = Literal["evaluated", "all"]
"""Which classes are read: the 19 that are trained and evaluated, or all 34."""


@dataclass(frozen=True, slots=True)
class Label:
    """One row of the table.

    Attributes:
        name: as in the polygon files.
        ident: the value of a pixel in ``labelIds``.
        train: its number among the 19 classes, 255 for none.
        category: the group it belongs to.
        instances: whether its objects are told apart.
        color: in ``color`` pictures.
    """

    name: str
    ident: int
    train: int
    category: str
    instances: bool
    color: tuple[int, int, int]

    @property
    def ignored(self) -> bool:
        """Whether its pixels are left out of the evaluation."""
        return self.train == 255


_VOID = 255

LABELS: tuple[Label, ...] = (
    Label("unlabeled", 0, _VOID, "void", False, (0, 0, 0)),
    Label("ego vehicle", 1, _VOID, "void", False, (0, 0, 0)),
    Label("rectification border", 2, _VOID, "void", False, (0, 0, 0)),
    Label("out of roi", 3, _VOID, "void", False, (0, 0, 0)),
    Label("static", 4, _VOID, "void", False, (0, 0, 0)),
    Label("dynamic", 5, _VOID, "void", False, (111, 74, 0)),
    Label("ground", 6, _VOID, "void", False, (81, 0, 81)),
    Label("road", 7, 0, "flat", False, (128, 64, 128)),
    Label("sidewalk", 8, 1, "flat", False, (244, 35, 232)),
    Label("parking", 9, _VOID, "flat", False, (250, 170, 160)),
    Label("rail track", 10, _VOID, "flat", False, (230, 150, 140)),
    Label("building", 11, 2, "construction", False, (70, 70, 70)),
    Label("wall", 12, 3, "construction", False, (102, 102, 156)),
    Label("fence", 13, 4, "construction", False, (190, 153, 153)),
    Label("guard rail", 14, _VOID, "construction", False, (180, 165, 180)),
    Label("bridge", 15, _VOID, "construction", False, (150, 100, 100)),
    Label("tunnel", 16, _VOID, "construction", False, (150, 120, 90)),
    Label("pole", 17, 5, "object", False, (153, 153, 153)),
    Label("polegroup", 18, _VOID, "object", False, (153, 153, 153)),
    Label("traffic light", 19, 6, "object", False, (250, 170, 30)),
    Label("traffic sign", 20, 7, "object", False, (220, 220, 0)),
    Label("vegetation", 21, 8, "nature", False, (107, 142, 35)),
    Label("terrain", 22, 9, "nature", False, (152, 251, 152)),
    Label("sky", 23, 10, "sky", False, (70, 130, 180)),
    Label("person", 24, 11, "human", True, (220, 20, 60)),
    Label("rider", 25, 12, "human", True, (255, 0, 0)),
    Label("car", 26, 13, "vehicle", True, (0, 0, 142)),
    Label("truck", 27, 14, "vehicle", True, (0, 0, 70)),
    Label("bus", 28, 15, "vehicle", True, (0, 60, 100)),
    Label("caravan", 29, _VOID, "vehicle", True, (0, 0, 90)),
    Label("trailer", 30, _VOID, "vehicle", True, (0, 0, 110)),
    Label("train", 31, 16, "vehicle", True, (0, 80, 100)),
    Label("motorcycle", 32, 17, "vehicle", True, (0, 0, 230)),
    Label("bicycle", 33, 18, "vehicle", True, (119, 11, 32)),
)

LICENSE_PLATE = "license plate"
"""The 35th name, in polygon files only: it has no id and is not drawn."""

BY_NAME = {label.name: label for label in LABELS}
BY_ID = {label.ident: label for label in LABELS}


def labels_of(classes: Classes) -> tuple[Label, ...]:
    """The rows that become classes, in the order of their dense labels.

    Raises:
        ValueError: another choice.
    """
    if classes not in ("evaluated", "all"):
        raise ValueError(f"classes must be 'evaluated' (19) or 'all' (34), got {classes!r}")
    return LABELS if classes == "all" else tuple(label for label in LABELS if not label.ignored)


def taxonomy_of(classes: Classes) -> Taxonomy:
    """The classes with their colors and ids; those whose objects are told apart are things."""
    rows = labels_of(classes)
    return Taxonomy(
        names=tuple(row.name for row in rows),
        thing=tuple(row.instances for row in rows),
        colors=tuple(row.color for row in rows),
        source_ids=tuple(row.ident for row in rows),
    )
