"""One optimizer step and all that it changes: weights, their average, the optimizer, the scaler."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from maskwright.errors import InputError
from maskwright.objectives.supervised import Supervised
from maskwright.ops.hardware import choose_precision
from maskwright.protocols import Anneals, Model, Objective
from maskwright.structures import Batch
from maskwright.train import distributed, memory
from maskwright.train.average import Average
from maskwright.train.checkpoint import random_state, set_random_state
from maskwright.train.clipping import clip
from maskwright.train.optimizer import make_optimizer, set_rate
from maskwright.train.options import TrainOptions
from maskwright.train.window import NotFiniteError, Step, backward


class Engine:
    """An objective that learns on a device, alone or together with other processes.

    Args:
        objective: what a step minimizes; a bare model gets ``Supervised``.
        options: see ``TrainOptions``.
        device, place: where it computes, and which of the processes this is.
        say: told what a user should know.
    """

    def __init__(
        self,
        objective: Objective | Model,
        options: TrainOptions,
        device: torch.device,
        place: distributed.Place,
        say: Callable[[str], None],
    ) -> None:
        self.options, self.device, self.place, self.say = options, device, place, say
        self.precision = choose_precision(options.precision, self.device)
        whole = objective if hasattr(objective, "after_step") else Supervised(cast(Model, objective))
        self.objective = cast(Objective, whole)
        self.module = cast(nn.Module, whole)
        self.fabric = distributed.launch(self.device, self.precision, self.place, options.timeout_minutes)
        if options.sync_norm and self.place.world > 1:
            distributed.synchronized(self.module, self.device)
        self.module.to(self.device)
        if options.channels_last:
            cast(Any, self.module).to(memory_format=torch.channels_last)
        if options.checkpoint_activations:
            memory.checkpoint_activations(self.objective.model)
        if options.compile:
            memory.compile_parts(self.objective.model)
        plain = make_optimizer(self.module, options, fused=self.device.type == "cpu")
        self.network, self.optimizer = self.fabric.setup(Step(self.module), plain)
        self.average = Average(self.module, options.ema) if options.ema else None
        self.pieces = 1
        """Parts that each micro-batch is computed in, for want of memory."""

    def anneal(self, done: float) -> None:
        """Tell a model that changes with the run (``protocols.Anneals``) which share of it is over."""
        if isinstance(self.objective.model, Anneals):
            self.objective.model.anneal(done)

    def learn(self, window: Sequence[Batch], step: int, learning_rate: float) -> dict[str, float]:
        """Make step number ``step`` from a window of batches; the losses and the gradient's norm.

        Raises:
            NotFiniteError: a loss or the gradient is NaN or infinite; weights and statistics are as before.
            InputError: there is too little memory for a single picture.
        """
        set_rate(cast(torch.optim.Optimizer, self.optimizer), learning_rate)
        self.network.train()
        prepared = [self._prepared(batch) for batch in window]
        values = self._gradient(prepared)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(step)
        if self.average is not None:
            self.average.update(self.module)
        return values

    def _gradient(self, window: Sequence[Batch]) -> dict[str, float]:
        random, before = random_state(), memory.statistics(self.module)
        while True:
            shortage = ""
            try:
                parts = memory.cut(window, self.pieces)
                values = backward(self.fabric, self.network, parts, counts=self.network.module.counts)
                return {**values, **self._clip(window)}
            except NotFiniteError:
                self._undo(before)
                raise
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                shortage = str(error).splitlines()[0] if str(error) else type(error).__name__
            # Outside of the handler, whose error would hold on to the activations.
            self._undo(before)
            set_random_state(random)
            self._cut(window, shortage)

    def _clip(self, window: Sequence[Batch]) -> dict[str, float]:
        try:
            return clip(self.fabric, self.network, self.optimizer, self.options)
        except NotFiniteError as error:
            keys = ", ".join(key for batch in window for key in batch.keys)
            raise NotFiniteError(f"{error} on the images {keys}.") from error

    def _undo(self, before: Any) -> None:
        memory.restore(before)
        self.optimizer.zero_grad(set_to_none=True)
        getattr(self.objective, "discard", lambda: None)()

    def _cut(self, window: Sequence[Batch], shortage: str) -> None:
        most = max(len(batch) for batch in window)
        if self.place.world > 1:
            raise InputError(
                f"there is too little memory ({shortage}), and processes cannot cut their batches each for itself. "
                "Resume with half the --batch-size and twice the --accumulate."
            )
        if self.pieces >= most:
            keys = ", ".join(key for batch in window for key in batch.keys)
            raise InputError(
                f"there is too little memory even for one picture at a time ({shortage}), of {keys}. Give "
                "--checkpoint-activations, a lower --precision, smaller pictures (--short, --crop), or a smaller model."
            )
        self.pieces = min(most, 2 * self.pieces)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(
            f"too little memory: batches of {most} are computed in {self.pieces} parts from here on; the step is the "
            "same, only slower"
        )

    def _prepared(self, batch: Batch) -> Batch:
        batch = batch.to(self.fabric.device)
        if self.options.channels_last:
            pixels = batch.inputs.pixels.contiguous(memory_format=torch.channels_last)
            batch = replace(batch, inputs=replace(batch.inputs, pixels=pixels))
        return batch

    @contextmanager
    def averaged(self) -> Generator[nn.Module]:
        """The model, with averaged weights where there are some."""
        with nullcontext() if self.average is None else self.average.applied(self.module):
            yield self.objective.model

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What to resume from; all processes must ask for it together."""
        distributed.share_buffers(self.module)
        return {
            "weights": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "pieces": self.pieces,
            "random": distributed.gathered(random_state()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there, also with another number of processes, whose random numbers are other ones then.

        Raises:
            RuntimeError, ValueError: the state is of another model or optimizer.
        """
        self.module.load_state_dict(state["weights"])
        groups = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        for group, own in zip(self.optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in own.items() if key not in ("params", "lr")})
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.pieces = int(state.get("pieces", 1))
        known: Any = state["random"]  # of one process, in checkpoints from before there were several
        random = cast(list[Any], known if isinstance(known, list) else [known])
        if len(random) == self.place.world:
            set_random_state(random[self.place.rank])
