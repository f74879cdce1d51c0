"""The other program of ``small_models.py``: run by an interpreter that has ultralytics (AGPL), never by this project's.

    python small_models_peer.py PRECISION OBJECTS COMPILED

Builds yolo11n-seg with random weights and fused norms; for each line of its input it runs once, from uint8 pixels to
dense masks, and answers with one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

import torch

SIDE = 640


def main() -> None:
    """Build, then one run for each line."""
    precision, objects, compiled = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inductor: Any = import_module("torch._inductor.config")
    inductor.freezing = True  # weights are constants for the compiler
    ultralytics: Any = import_module("ultralytics")
    suppress = import_module("ultralytics.utils.nms").non_max_suppression
    draw = import_module("ultralytics.utils.ops").process_mask
    model = import_module("ultralytics.nn.tasks").SegmentationModel("yolo11n-seg.yaml", nc=80, verbose=False)
    model = model.eval().fuse(verbose=False).to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = model.to(dtype)
    pixels = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    network: Any = torch.compile(model) if compiled else model

    @torch.no_grad()
    def run(threshold: float) -> dict[str, float]:
        begin = time.perf_counter()
        out = network(pixels.to(dtype) / 255)
        after = time.perf_counter()
        rows, maps = out[0], out[1]
        if isinstance(rows, tuple):
            rows, maps = rows
        maps = maps["proto"] if isinstance(maps, dict) else maps[-1] if isinstance(maps, tuple | list) else maps
        found = suppress(rows.float(), threshold, 0.7, nc=80, max_det=objects, max_time_img=10.0)[0]
        masks = draw(maps[0].float(), found[:, 6:], found[:, :4], (SIDE, SIDE), upsample=True)
        return {"whole": time.perf_counter() - begin, "network": after - begin, "objects": len(masks)}

    low, high = 0.0, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if run(middle)["objects"] < objects else (middle, high)
    print(json.dumps({"name": f"yolo11n-seg of ultralytics {ultralytics.__version__}"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run(low)), flush=True)


if __name__ == "__main__":
    main()
