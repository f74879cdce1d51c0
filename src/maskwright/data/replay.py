"""Hard images again: a bounded memory of losses, and a share of every batch drawn from its worst.

In the spirit of online hard example mining (Shrivastava et al. 2016) for whole images, chosen by the rank of their loss
rather than its size (Schaul et al. 2016, section 3.3), so that one broken annotation does not take all the share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np

from maskwright.errors import InputError


class Replay:
    """What ``Shuffled(..., replay=Replay(...))`` remembers.

    Losses of a batch have an effect ``lag`` batches later, not as soon as they come: workers ask for batches ahead, and
    what is drawn must not depend on how far ahead. So every batch must have been reported when the batch ``lag`` after
    it is drawn; ``lag`` must be at least workers x prefetch + micro-batches in a step.

    Args:
        share: of the samples drawn, from 0 to below 1; less until enough is known.
        memory: images remembered, those of the largest losses.
        power: an image of rank r (1 is the worst) is replayed at r^-power of the rate of the worst; 0 for equal rates.
        lag: see above.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(self, share: float = 0.25, *, memory: int = 1024, power: float = 0.5, lag: int = 32) -> None:
        if not 0 <= share < 1 or memory < 1 or not 0 <= power < 100 or lag < 1:
            raise InputError(
                "replay needs 0 <= share < 1, memory >= 1, power >= 0 and lag >= 1, "
                f"got {share}, {memory}, {power} and {lag}"
            )
        self.share, self.memory, self.power, self.lag = share, memory, power, lag
        self._images = np.zeros(0, np.int64)  # by falling loss
        self._losses = np.zeros(0, np.float64)
        # By batch number; of batches that were applied too, because a loader's state may stand before them.
        self._drawn: dict[int, list[int]] = {}
        self._reports: dict[int, list[float] | None] = {}
        self._next = 0  # the first batch without a report

    @property
    def losses(self) -> dict[int, float]:
        """Image -> loss of those remembered, the worst first."""
        return dict(zip(self._images.tolist(), self._losses.tolist(), strict=True))

    def report(self, losses: Sequence[float]) -> None:
        """The losses of the oldest batch not reported yet, one for each of its samples over all ranks, in rank order.

        Raises:
            ValueError: no batch waits, their number is not its samples', or one is not finite.
        """
        values = [float(v) for v in losses]
        drawn = self._drawn.get(self._next)
        if drawn is None:
            raise ValueError("every batch was reported already; report each once, in the order they were handed out")
        if len(values) != len(drawn):
            raise ValueError(
                f"expected a loss for each of the {len(drawn)} samples of a batch over all ranks, got {len(values)}. "
                "Gather those of all ranks first."
            )
        if not np.isfinite(values).all():
            raise ValueError("losses must be finite")
        self._reports[self._next] = values
        self._next += 1

    def choose(self, seed: int, batch: int, size: int, allowed: np.ndarray) -> dict[int, int]:
        """What is replayed in batch number ``batch``: place in the batch -> image; takes in what was reported in time.

        Args:
            seed: of the run.
            batch: its number, from 0, one more at each call.
            size: samples in it over all ranks.
            allowed: bool, by image: which may come.

        Raises:
            InputError: the batch ``lag`` before was not reported.
        """
        self._take_in(batch - self.lag)
        known = self._images[allowed[self._images]] if len(self._images) else self._images
        count = min(floor((batch + 1) * size * self.share) - floor(batch * size * self.share), len(known))
        if count == 0:
            return {}
        odds = np.arange(1, len(known) + 1, dtype=np.float64) ** -self.power
        rng = np.random.default_rng([seed, batch, 0x5EED])
        chosen = rng.choice(known, count, replace=False, p=odds / odds.sum()).tolist()
        # Spread over the batch, so that every rank has its part.
        return {(2 * k + 1) * size // (2 * count): image for k, image in enumerate(chosen)}

    def note(self, batch: int, images: list[int]) -> None:
        """Batch number ``batch`` holds these images over all ranks."""
        self._drawn[batch] = images
        for old in [b for b in self._drawn if b <= batch - 2 * self.lag]:
            del self._drawn[old]
            self._reports.pop(old, None)

    def state_dict(self, batches: int) -> dict[str, Any]:
        """What was taken in before batch number ``batches`` is drawn, and what waits, as plain numbers."""
        waiting = [b for b in sorted(self._drawn) if batches - self.lag <= b < batches]
        return {
            "images": self._images.tolist(),
            "losses": self._losses.tolist(),
            "drawn": [[b, self._drawn[b]] for b in waiting],
            "reports": [[b, self._reports[b]] for b in waiting if b in self._reports],
        }

    def completed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """``state``, noted when its last batch was drawn, with the reports of its batches that came since."""
        return {**state, "reports": [[b, self._reports[b]] for b, _ in state["drawn"] if b in self._reports]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; batches it has without a report are never going to be reported."""
        self._images = np.array(state["images"], np.int64)
        self._losses = np.array(state["losses"], np.float64)
        self._drawn = {int(b): [int(i) for i in images] for b, images in state["drawn"]}
        reports = {int(b): losses for b, losses in state["reports"]}
        self._reports = {b: reports.get(b) for b in self._drawn}
        self._next = max(self._drawn, default=-1) + 1

    def _take_in(self, batch: int) -> None:
        if batch < 0 or batch not in self._drawn:
            return
        if batch not in self._reports:
            raise InputError(
                f"replay needs the losses of every batch within {self.lag} batches, but those of batch {batch + 1} did "
                "not come: the training loop must call report() on the loader, and lag must be at least workers x "
                "prefetch + micro-batches in a step."
            )
        losses = self._reports[batch]
        if losses is None:
            return
        # The newest loss of an image counts; of one that came twice in the batch the larger.
        fresh: dict[int, float] = {}
        for image, loss in zip(self._drawn[batch], losses, strict=True):
            fresh[image] = max(loss, fresh.get(image, -np.inf))
        kept = ~np.isin(self._images, list(fresh))
        images = np.concatenate([self._images[kept], np.array(list(fresh), np.int64)])
        values = np.concatenate([self._losses[kept], np.array(list(fresh.values()))])
        best = np.lexsort((images, -values))[: self.memory]
        self._images, self._losses = images[best], values[best]
