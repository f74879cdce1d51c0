"""Which ResNet a checkpoint holds, from the names of its blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable

from maskwright.errors import InputError

_BLOCKS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "mask-rcnn-r18",
    ((3, 4, 6, 3), True): "mask-rcnn-r50",
    ((3, 4, 23, 3), True): "mask-rcnn-r101",
}


def resnet_model(names: Iterable[str], grouped: bool) -> str:
    """The zoo's Mask R-CNN on this body.

    Args:
        names: parameter names of the body, as ``layer1.0.conv1.weight``.
        grouped: whether its 3x3 convolutions have groups (ResNeXt).

    Raises:
        InputError: no model of the zoo has such a body.
    """
    counts = [0, 0, 0, 0]
    bottleneck = False
    for name in names:
        found = re.match(r"layer([1-4])\.(\d+)\.", name)
        if found:
            stage = int(found[1]) - 1
            counts[stage] = max(counts[stage], int(found[2]) + 1)
            bottleneck |= ".conv3." in name
    model = _BLOCKS.get((tuple(counts), bottleneck))
    if grouped:
        model = "mask-rcnn-x101" if model == "mask-rcnn-r101" else None
    if model is None:
        kind = f"{'bottleneck' if bottleneck else 'basic'} blocks{' with groups' if grouped else ''}"
        raise InputError(
            f"the checkpoint's body must be a ResNet-18, -50, -101 or ResNeXt-101, got {tuple(counts)} {kind}. "
            "Build the model with that body yourself and convert with the importer."
        )
    return model
