"""A picture of 100 megapixels with 2,000 objects, in tiles: peak memory and time, objects checked one by one.

    python benchmarks/large_image.py                            # 10,000 x 10,000, below 4 GiB
    python benchmarks/large_image.py --side 3000 --objects 300

The picture is drawn and written, strip by strip, by another process, so that the peak is that of prediction: reading
by windows, a stand-in model that finds bright connected regions from the pixels of a tile, stitching, and writing
``results.json``, ``objects.csv`` and ``objects.geojson``. The stand-in is exact, so any object that is lost, doubled or
cut by a seam shows in the areas; two discs reach over several tiles.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 256
LIMIT = 4 << 30
"""Bytes that the peak must stay below."""


def plan(side: int, objects: int, large: int, seed: int = 0) -> np.ndarray:
    """Centers and radii int64 [N, 3] of discs in the cells of a grid, so that they do not touch."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(objects)))
    cell = side // across
    places = [(y, x) for y in range(across) for x in range(across)][:objects]
    found = []
    for y, x in places:
        radius = int(rng.integers(min(4, cell // 4), max(cell // 2 - 2, 2)))
        room = cell - 2 * radius - 2
        dy, dx = rng.integers(0, max(room, 1), 2)
        found.append((y * cell + radius + 1 + dy, x * cell + radius + 1 + dx, radius))
    discs = np.array(found, np.int64)
    # A few that reach over several tiles take the place of all they would touch.
    for _ in range(large):
        y, x = rng.integers(0, side, 2)
        far = np.hypot(discs[:, 0] - y, discs[:, 1] - x) > discs[:, 2] + side // 9 + 3
        discs = np.concatenate([discs[far], [[y, x, side // 9]]])
    return discs


def draw(path: Path, side: int, discs: np.ndarray) -> None:
    """A TIFF of deflated strips, RGB, in UTM 33 with pixels of a tenth of a meter."""
    parts: list[int] = []
    offsets: list[int] = []
    with open(path, "wb") as file:
        file.write(b"II*\0\0\0\0\0")
        columns = np.arange(side)
        for top in range(0, side, ROWS):
            high = min(ROWS, side - top)
            strip = np.full((high, side, 3), 30, np.uint8)
            for y, x, radius in discs[(discs[:, 0] + discs[:, 2] >= top) & (discs[:, 0] - discs[:, 2] < top + high)]:
                left, right = max(x - radius, 0), min(x + radius + 1, side)
                far = (np.arange(top, top + high)[:, None] - y) ** 2 + (columns[left:right][None] - x) ** 2
                strip[:, left:right][far <= radius * radius] = (200, 210, 190)
            data = zlib.compress(strip.tobytes(), 1)
            offsets.append(file.tell())
            parts.append(len(data))
            file.write(data)
        keys = (1, 1, 0, 1, 3072, 0, 1, 32633)
        rows: list[tuple[int, str, Sequence[Any]]] = [
            (256, "I", [side]), (257, "I", [side]), (258, "H", [8, 8, 8]), (259, "H", [8]), (262, "H", [2]),
            (273, "I", offsets), (277, "H", [3]), (278, "I", [ROWS]), (279, "I", parts), (33550, "d", [0.1, 0.1, 0]),
            (33922, "d", [0, 0, 0, 5e5, 5.4e6, 0]), (34735, "H", keys),
        ]  # fmt: skip
        entries = b""
        for tag, form, values in rows:
            data = struct.pack(f"<{len(values)}{form}", *values)
            if len(data) > 4:
                place, data = file.tell(), file.write(data) and b""
                data = struct.pack("<I", place)
            entries += struct.pack("<HHI", tag, {"H": 3, "I": 4, "d": 12}[form], len(values)) + data.ljust(4, b"\0")
        place = file.tell()
        file.write(struct.pack("<H", len(rows)) + entries + b"\0\0\0\0")
        file.seek(4)
        file.write(struct.pack("<I", place))


def bright_regions() -> Any:
    """The stand-in model."""
    import torch
    from scipy import ndimage
    from torch import nn

    from maskwright.ops.rle_maps import encode_map
    from maskwright.structures import Masks, Resize, Scene, Segments, Taxonomy

    class Bright(nn.Module):
        task, size_divisor = "instance", 1

        def __init__(self) -> None:
            super().__init__()
            self.taxonomy, self.resize = Taxonomy(names=("disc",)), Resize()
            self.score_threshold, self.max_per_image = 0.0, 10_000

        def forward(self, inputs: Any, scenes: Any = None) -> Any:
            return inputs.pixels

        def predict(self, raw: Any, geometry: Any) -> list[Any]:
            return [
                self.scene(p[:, : g.valid[0], : g.valid[1]], g.original) for p, g in zip(raw, geometry, strict=True)
            ]

        def scene(self, pixels: Any, size: tuple[int, int]) -> Any:
            regions, count = ndimage.label(pixels.numpy().max(0) > 128, np.ones((3, 3)))
            masks = Masks.from_arrays(*encode_map(regions, np.arange(1, count + 1)), size)
            labels, scores = torch.zeros(count, dtype=torch.int64), torch.full((count,), 0.9)
            return Scene(
                size=size, segments=Segments(size=size, labels=labels, masks=masks, boxes=masks.boxes(), scores=scores)
            )

    return Bright()


def areas(side: int, discs: np.ndarray) -> list[int]:
    """Pixels of each disc inside the picture, sorted."""
    out = []
    for y, x, radius in discs:
        rows = np.arange(max(y - radius, 0), min(y + radius + 1, side))[:, None]
        columns = np.arange(max(x - radius, 0), min(x + radius + 1, side))[None]
        out.append(int(((rows - y) ** 2 + (columns - x) ** 2 <= radius * radius).sum()))
    return sorted(out)


def peak() -> int:
    """Largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(path: Path, out: Path, side: int, discs: np.ndarray, tiles: str) -> dict[str, Any]:
    """Predict, write, check."""
    import torch

    from maskwright.data.georeference import read_georeference
    from maskwright.infer.geojson import geojson_document
    from maskwright.infer.predictor import stream
    from maskwright.infer.tiles import Tiles
    from maskwright.infer.writers import coco_document, object_table

    torch.set_num_threads(1)
    model = bright_regions()
    before, began = peak(), time.perf_counter()
    (answer,) = stream(model, [path], tiles=Tiles.parse(tiles, model.resize))
    found = time.perf_counter() - began
    scene: Any = answer.scene
    place = read_georeference(path)
    assert place is not None
    with (
        coco_document(out / "results.json", model.taxonomy) as add,
        object_table(out / "objects.csv", model.taxonomy) as tell,
        geojson_document(out / "objects.geojson", model.taxonomy, place.epsg) as put,
    ):
        add(path.name, scene)
        tell(path.name, scene)
        put(path.name, scene, place)
    seconds = time.perf_counter() - began
    got, drawn = sorted(scene.objects().masks.area().tolist()), areas(side, discs)
    return {
        "side": side, "objects": len(discs), "tiles": tiles, "equal": got == drawn,
        "seconds_to_predict": round(found, 2), "seconds_with_files": round(seconds, 2),
        "peak_mib": peak() >> 20, "peak_before_mib": before >> 20, "below_limit": peak() < LIMIT,
    }  # fmt: skip


def main() -> int:
    """Draw in another process, measure in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=2_200, help="before those that large ones displace")
    parser.add_argument("--large", type=int, default=2, help="discs of a ninth of the side as radius")
    parser.add_argument("--tile", default="1024,192")
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    discs = plan(args.side, args.objects, args.large)
    if args.draw is not None:
        draw(args.draw, args.side, discs)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tif"
        subprocess.run([sys.executable, *sys.argv, "--draw", str(path)], check=True)
        figures = measure(path, Path(folder), args.side, discs, args.tile)
    print(json.dumps(figures))
    return 0 if figures["equal"] and figures["below_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
