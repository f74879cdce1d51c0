"""A training by several processes, each with its part of every batch; run by torchrun, or alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from maskwright.data.synthetic.discs import Discs
from maskwright.evaluate import evaluate
from maskwright.structures import Batch, Geometry, Masks, Scene, Segments
from maskwright.train import TrainOptions, distributed, seed_all, train
from tests.train.test_window import TakesAll
from tests.train.toy import Raw, ToyBatches, batch

WHOLE, STEPS = 4, 8
WAIT = 0.05 if "hangs" in sys.argv else 2.0


class Part(ToyBatches):
    """This process's pictures of each batch of ``WHOLE``."""

    def __init__(self, place: distributed.Place, dies_at: int) -> None:
        super().__init__(size=WHOLE // place.world)
        self.place, self.dies_at = place, dies_at

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self.next == self.dies_at and self.place.rank == self.place.world - 1:
                if "hangs" in sys.argv:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # or torchrun waits half a minute before it kills
                    time.sleep(600)
                os.kill(os.getpid(), signal.SIGKILL)
            first = self.next * WHOLE + self.place.rank * self.size
            self.next += 1
            yield batch([(first + k) % 50 for k in range(self.size)])


class Finds(TakesAll):
    """Finds the same square everywhere, which is right in one picture, more or less sure of it by the content."""

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        scenes: list[Scene] = []
        for area, view in zip(raw.area, geometry, strict=True):
            dense = torch.zeros(1, *view.original, dtype=torch.bool)
            dense[:, 13:55, 13:55] = True
            masks = Masks.from_dense(dense)
            segments = Segments(
                size=view.original, labels=torch.zeros(1, dtype=torch.int64), masks=masks, boxes=masks.boxes(),
                scores=area.detach()[None].sigmoid(),
            )  # fmt: skip
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def main() -> None:
    """Train into the folder of the first argument; the second is the batch before which the last one dies or hangs."""
    out, dies_at = Path(sys.argv[1]), int(sys.argv[2])
    place = distributed.place()
    data = Discs(5, size=(64, 64), seed=0)

    def measure(model: Any) -> dict[str, Any]:
        found = evaluate(model, data, device="cpu", rank=place.rank, world=place.world, gather=distributed.gathered)
        return {kind: {"AP": found[kind]["AP"], "AP50": found[kind]["AP50"]} for kind in ("mask", "box")}

    options = TrainOptions(
        steps=STEPS, optimizer="sgd", learning_rate=0.05, clip_norm=1.0, ema=0.9, checkpoint_every=2, evaluations=1,
        accumulate=1, device="cpu", precision="32", channels_last=False, timeout_minutes=WAIT,
    )  # fmt: skip
    seed_all(0)
    model = Finds(norm=False)
    model.taxonomy = data.taxonomy
    done = train(model, Part(place, dies_at), options=options, out=out, evaluate=measure, resume="resume" in sys.argv)
    own = [value.tolist() for value in model.state_dict().values()]
    Path(f"{out}-{place.rank}.json").write_text(json.dumps({"metrics": done["metrics"], "weights": str(own)}))


if __name__ == "__main__":
    main()
