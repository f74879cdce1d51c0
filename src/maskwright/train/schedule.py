"""The course of a run: how far it is, and the learning rate there. Pure functions, so nothing to save."""

from __future__ import annotations

from math import cos, pi

from maskwright.train.options import TrainOptions

START = {"onecycle": 1 / 25, "cosine": 1e-3, "poly": 1e-3, "step": 1e-3, "constant": 1e-3}
"""Share of the highest rate that the warm-up starts with: Smith and Topin 2018 (fastai's 25); Detectron's 1/1000."""


def progress(step: int, steps: int, seconds: float, minutes: float) -> float:
    """How much of a run is done, from 0 to 1: the larger of its shares of steps and of time; a limit of 0 is none."""
    by_steps = step / steps if steps else 0.0
    by_time = seconds / (60 * minutes) if minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def rate(options: TrainOptions, done: float) -> float:
    """The share of the highest learning rate when ``done``, from 0 to 1, of the run is over."""
    start = START[options.schedule]
    if done < options.warmup:
        risen = done / options.warmup
        if options.schedule == "onecycle":
            risen = (1 - cos(pi * risen)) / 2
        return start + (1 - start) * risen
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "step":
        return options.decay ** sum(done >= milestone for milestone in options.milestones)
    if options.schedule == "poly":  # Chen et al. 2017, arXiv:1606.00915, section 4.1
        fallen = (1 - (done - options.warmup) / (1 - options.warmup)) ** options.power
        return options.final_rate + (1 - options.final_rate) * fallen
    fallen = (1 + cos(pi * (done - options.warmup) / (1 - options.warmup))) / 2
    return options.final_rate + (1 - options.final_rate) * fallen
