"""What one training step minimizes: the model's losses, weighted and balanced, with or without a teacher."""

from maskwright.objectives.build import make
from maskwright.objectives.options import ObjectiveOptions
from maskwright.objectives.supervised import Supervised

__all__ = ["ObjectiveOptions", "Supervised", "make"]
