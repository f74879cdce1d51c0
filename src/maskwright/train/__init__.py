"""Training: one loop for every objective, that can be stopped anywhere and resumed exactly."""

from maskwright.train.checkpoint import seed_all
from maskwright.train.loop import train
from maskwright.train.options import TrainOptions

__all__ = ["TrainOptions", "seed_all", "train"]
