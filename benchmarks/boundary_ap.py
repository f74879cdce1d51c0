"""Boundary AP of a result file, whole process: maskwright against vernier, interleaved; and the peak memory of each.

The data of ``coco_ap.py``: 1,000 images of 480 x 640, 80 classes, about 7 truths and 100 run-length detections an
image; or a folder with ``gt.json`` and ``dt.json``. Results get boxes, which vernier insists on. Both must give the
same numbers before anything is timed::

    python benchmarks/boundary_ap.py --peer-python path/to/python      # one with vernier
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import coco_ap
from pycocotools import mask as coco_mask

PEAK = """
print(next((line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), 0))
"""
# what getrusage states would include this process before it became that one
OURS = (
    """
import json, sys
from maskwright.metrics.files import score
got = score(sys.argv[1], sys.argv[2], ["boundary"])["boundary"]
got.pop("per_class")
print(json.dumps(list(got.values())))
"""
    + PEAK
)
PEER = (
    """
import json, sys
from vernier.instance import Boundary, Evaluator
truth, results = (open(path, "rb").read() for path in sys.argv[1:3])
got = Evaluator(iou=Boundary(), parity_mode="strict").evaluate(truth, results)
print(json.dumps([float(v) for v in got.stats]))
"""
    + PEAK
)


def run(command: list[str]) -> tuple[float, float, list[float]]:
    """Wall seconds, peak memory in MiB and the figures of one process."""
    begin = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {process.stderr[-500:]}")
    figures, peak = process.stdout.splitlines()
    return took, int(peak) / 1024, json.loads(figures)


def with_boxes(path: str, folder: Path) -> str:
    """The results at ``path`` with boxes, as another file."""
    results = json.loads(Path(path).read_text())
    for result in results:
        result.setdefault("bbox", coco_mask.toBbox(result["segmentation"]).tolist())
    out = folder / "boxed.json"
    out.write_text(json.dumps(results))
    return str(out)


def main() -> None:
    """Print the median times, their ratio and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has vernier")
    parser.add_argument("--data", type=Path, help="a folder with gt.json and dt.json")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            files = [str(args.data / name) for name in ("gt.json", "dt.json")]
        else:
            files = list(map(str, coco_ap.write_data(Path(folder))))
        files[1] = with_boxes(files[1], Path(folder))
        ours, peer = [sys.executable, "-c", OURS, *files], [args.peer_python, "-c", PEER, *files]
        first, second = run(ours)[2], run(peer)[2]
        worst = max(abs(a - b) for a, b in zip(first, second, strict=True))
        print(f"largest difference of the twelve numbers: {worst:.1e}")
        assert worst < 1e-9
        rounds = [(run(ours), run(peer)) for _ in range(args.rounds)]
    for name, place in (("maskwright", 0), ("vernier", 1)):
        times, memory = ([r[place][k] for r in rounds] for k in (0, 1))
        print(f"{name}: {statistics.median(times):.2f} s, {max(memory):.0f} MiB at most")
    ratio = statistics.median(b[0] for _, b in rounds) / statistics.median(a[0] for a, _ in rounds)
    print(f"ratio of medians: {ratio:.2f}")


if __name__ == "__main__":
    main()
