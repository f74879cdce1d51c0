"""Run-lengths of binary masks: everything that can be done without pixels. No torch here.

"Runs" are two arrays: ``counts`` int32 [R], the runs of all masks one after the other, and ``offsets`` int64 [N + 1];
mask ``i`` owns ``counts[offsets[i] : offsets[i + 1]]``. Runs alternate background, foreground, background …, starting
with background (possibly 0 long), and walk the last two axes column by column as COCO does; leading axes are slowest.
"""

from __future__ import annotations

from maskwright.ops.rle_codec import compress, decompress, from_coco, to_coco
from maskwright.ops.rle_core import MAX_PIXELS, Runs, area, boxes, canvas, checked, decode, encode, first_invalid, take
from maskwright.ops.rle_geometry import crop, hflip, vflip, window
from maskwright.ops.rle_pairs import intersect, intersection, iou, union

__all__ = [
    "MAX_PIXELS",
    "Runs",
    "area",
    "boxes",
    "canvas",
    "checked",
    "compress",
    "crop",
    "decode",
    "decompress",
    "encode",
    "first_invalid",
    "from_coco",
    "hflip",
    "intersect",
    "intersection",
    "iou",
    "take",
    "to_coco",
    "union",
    "vflip",
    "window",
]
