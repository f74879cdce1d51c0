"""Every option of a training run, with its default; the command line's flags and help are made from these fields."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from maskwright.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How to train; what to train and on what is not said here."""

    steps: int = 0
    """Optimizer steps; 0 leaves it to epochs or minutes."""
    epochs: float = 12.0
    """Passes over the data; counts only when neither steps nor minutes is given."""
    minutes: float = 0.0
    """Training time, evaluations left out; the schedule follows the clock, or the steps where they run out first."""
    batch_size: int = 4
    """Images in a micro-batch."""
    accumulate: int = 1
    """Micro-batches to a step; losses are normalized over all of them, as one batch of that size would be."""
    learning_rate: float = 4e-4
    """The highest learning rate of the schedule."""
    backbone_rate: float = 1.0
    """Factor on the learning rate of the backbone."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each block of the backbone to the one below it, such as 0.75 for transformers
    (BEiT); 1 does without."""
    optimizer: Literal["adamw", "sgd", "lion", "muon"] = "adamw"
    """The update rule; lion wants a learning rate 3 to 10 times lower than adamw, muon the same one, and it leaves
    biases, norms and embeddings to adamw."""
    momentum: float = 0.9
    """Momentum of sgd and muon, first beta of adamw and lion."""
    weight_decay: float = 0.05
    """Decay of weights; biases, norms, position embeddings and learned tokens are left out."""
    schedule: Literal["onecycle", "cosine", "poly", "step", "constant"] = "onecycle"
    """The course of the learning rate; onecycle rises and falls along a cosine."""
    power: float = 0.9
    """Power of the poly schedule; 0.9 is DeepLab's, 1 a straight line."""
    warmup: float = 0.05
    """Share of the run, from 0 to 1, over which the learning rate rises."""
    milestones: tuple[float, ...] = (0.667, 0.889)
    """Shares of the run at which the step schedule multiplies the learning rate by decay (1x: 60k and 80k of 90k)."""
    decay: float = 0.1
    """Factor of the step schedule at each milestone."""
    final_rate: float = 0.0
    """Share of the highest learning rate that onecycle, cosine and poly end with."""
    clip_norm: float = 0.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    clip_value: float = 0.0
    """Largest number in the gradient; 0 does not clip."""
    clip_adaptive: float = 0.0
    """Largest norm of a filter's gradient in units of the filter's own norm, such as 0.01 (Brock 2021); 0 does not
    clip."""
    ema: float = 0.0
    """Decay of the moving average of the weights, such as 0.999; the average is evaluated and saved. 0 does without."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 spreads them evenly."""
    evaluations: int = 10
    """Evaluations in a run, the last at its end, when evaluate_every is 0."""
    best_by: str = "auto"
    """The evaluation's figure that chooses best.safetensors, the larger the better, such as mask.AP50; auto is that of
    the model's task: mask.AP, semantic.mIoU or panoptic.PQ."""
    patience: int = 0
    """Evaluations without a better best after which the run ends early; 0 trains to the end."""
    log: str = ""
    """Who else is told of the run: mlflow, wandb, trackio, with commas between them; each is an extra to install."""
    sampling: Literal["uniform", "repeat", "sqrt", "balanced"] = "uniform"
    """How often images come: alike; those of rare classes repeated (LVIS); by classes, at the square root of how many
    images show them, or all classes alike."""
    repeat_threshold: float = 0.001
    """Sampling repeat: classes on a smaller share of the images are repeated."""
    replay: float = 0.0
    """Share of the images drawn again from those whose batches had the largest losses; 0 does without."""
    checkpoint_every: int = 0
    """Steps between checkpoints to resume from; 0 leaves it to the minutes."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; 0 leaves it to the steps. Each evaluation and the end make one too."""
    keep: int = 2
    """Checkpoints to keep, the newest."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Arithmetic; auto is bf16 where the hardware has it, else 32."""
    checkpoint_activations: bool = False
    """Keep only what enters each block of the backbone, and compute its inside again for the gradient: less memory, a
    third more time."""
    compile: bool = False
    """Compile backbone and neck with torch.compile: slow to start, then faster, best with few picture sizes."""
    bad_images: Literal["stop", "skip"] = "stop"
    """A picture that cannot be read stops the run with a checkpoint, or its batch is left out and the picture named."""
    not_finite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is NaN or infinite stops the run, or the step is left out; its terms and images are
    named either way. More than 10 in a row always stop it."""
    sync_norm: bool = False
    """Several processes: batch norms in training mode see the pictures of all of them."""
    timeout_minutes: float = 30.0
    """The run stops where it waits so long for a batch, or one of several processes for another."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, mps; auto is a GPU if there is one."""
    channels_last: bool = True
    """Keep pixels and filters with channels innermost, which convolutions like."""
    threads: int = 0
    """Threads of the computation on a CPU; 0 leaves it to PyTorch."""
    workers: int = 2
    """Processes that load and change images; 0 does it in this one."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        positive = ("batch_size", "accumulate", "learning_rate", "keep", "evaluations")
        for name in positive:
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        counts = ("steps", "evaluate_every", "patience", "checkpoint_every", "threads", "workers", "seed")
        amounts = ("epochs", "minutes", "backbone_rate", "weight_decay", "decay", "clip_norm", "checkpoint_minutes")
        amounts = (*amounts, "clip_value", "clip_adaptive", "power")
        for name in (*counts, *amounts):
            value = getattr(self, name)
            _require(isfinite(value) and value >= 0, name, "0 or more", value)
        _require(isfinite(self.learning_rate), "learning_rate", "a finite number", self.learning_rate)
        for name in ("momentum", "warmup", "ema", "replay"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1", getattr(self, name))
        _require(0 <= self.repeat_threshold <= 1, "repeat_threshold", "from 0 to 1", self.repeat_threshold)
        _require(0 <= self.final_rate <= 1, "final_rate", "from 0 to 1", self.final_rate)
        _require(0 < self.layer_decay <= 1, "layer_decay", "above 0, at most 1", self.layer_decay)
        _require(self.timeout_minutes > 0, "timeout_minutes", "above 0", self.timeout_minutes)
        clips = [name for name in ("clip_norm", "clip_value", "clip_adaptive") if getattr(self, name)]
        _require(len(clips) < 2, (clips or [""])[0], "the only way to clip", f"also {', '.join(clips[1:])}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(choices)}", repr(value))
        rising = list(self.milestones) == sorted(self.milestones) and all(0 < m < 1 for m in self.milestones)
        _require(rising, "milestones", "rising numbers between 0 and 1", self.milestones)
        _require(
            self.steps > 0 or self.minutes > 0 or self.epochs > 0, "steps", "given, or epochs or minutes", self.steps
        )


_CHOICES = {
    "optimizer": ("adamw", "sgd", "lion", "muon"),
    "schedule": ("onecycle", "cosine", "poly", "step", "constant"),
    "bad_images": ("stop", "skip"),
    "not_finite": ("stop", "skip"),
    "precision": ("auto", "32", "bf16", "16"),
    "sampling": ("uniform", "repeat", "sqrt", "balanced"),
}


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise InputError(f"the option {name} (--{name.replace('_', '-')}) must be {what}, got {got}.")
