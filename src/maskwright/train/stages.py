"""Training a two-stage model one stage after the other, as the first of them were.

S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN", NIPS 2015 (arXiv:1506.01497), section 3.2, here in four stages:

1. the start: what the model came with (ImageNet weights of its backbone, a checkpoint, or nothing);
2. *proposals*: backbone, neck and RPN learn the RPN's losses;
3. *detector*: from the start anew, everything but the RPN learns on proposals of stage 2, which stand still;
4. *joint*: all learn together, from stage 3's network with stage 2's RPN.

The paper's steps 3 and 4 keep the shared layers still and tune the RPN and the detector on them in turn; here both are
tuned together, as its approximate joint training does, which needs one stage less; stage 4 therefore begins with an RPN
that was learned on another backbone, and recall falls until it has followed. The paper wrote proposals to files.
Crops are drawn anew here at each step, so stage 2's network is kept beside, frozen, and asked for each of them: fixed
are the proposals of a crop, not those of a file.

Each stage is a run of its own in ``stages/``, the last one in the run directory itself; a run that was killed goes on
in the stage it was in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.objectives.staged import FirstStage, SecondStage
from maskwright.objectives.supervised import Supervised
from maskwright.protocols import Model, Objective, Proposer, TwoStages
from maskwright.storage import read_json, write_json
from maskwright.structures import Images
from maskwright.train import checkpoint, distributed
from maskwright.train.directory import CHECKPOINTS, STAGES, prepare
from maskwright.train.log import tell
from maskwright.train.loop import SUMMARY, Batches, steps_of, train
from maskwright.train.options import TrainOptions
from maskwright.weights import store

SHARES = (0.3, 0.4, 0.3)
"""Of the steps (or minutes) for proposals, detector, joint."""
PROPOSALS, DETECTOR = "2-proposals", "3-detector"
RECALL = "recall.json"


def train_stages(
    objective: Objective | Model,
    batches: Batches,
    *,
    options: TrainOptions,
    out: str | Path,
    shares: Sequence[float] = SHARES,
    recall: Callable[[nn.Module], Mapping[str, float]] | None = None,
    meta: Mapping[str, Any] | None = None,
    resume: bool = False,
    epoch: int | None = None,
    quiet: bool = False,
    **rest: Any,
) -> dict[str, Any]:
    """Train as the head of this file says; arguments and answer are ``train``'s but for those named here.

    Args:
        options: of every stage; their steps or minutes are those of all stages together, and each stage goes through
            the whole schedule of the learning rate.
        shares: of the steps for proposals, detector, joint, each above 0; they are scaled to a sum of 1.
        recall: measures what a model proposes, see ``metrics.proposals``; asked at the start, after stage 2, at the
            beginning of stage 4, and at the end. What it says is in ``stages/recall.json`` and, as ``recall``, in the
            answer.
        rest: for the last stage: ``evaluate``, ``samples``, ``about``.

    Raises:
        InputError: the model has no two stages, several processes, shares that are none; and what ``train`` raises.
    """
    whole = objective if hasattr(objective, "after_step") else Supervised(cast(Model, objective))
    model = cast(nn.Module, cast(Any, whole).model)
    two = two_stages(model)
    parts = _parts(options, epoch, shares)
    if distributed.place().world > 1:
        raise InputError("stages one after the other are trained by one process. Leave out --stages, or torchrun.")
    out = Path(out)
    prepare(out, resume=resume)
    folder = out / STAGES
    say: Callable[[str], None] = (lambda _: None) if quiet else tell
    module = cast(nn.Module, whole)
    start = _start(folder / "start.safetensors", module, meta or {})
    _report(folder, "1 start", recall, model, say)
    position = batches.state_dict()

    def stage(name: str, aim: nn.Module, learns: Callable[[str], bool], part: TrainOptions) -> dict[str, Tensor]:
        place = folder / name
        nonlocal position
        if (place / SUMMARY).is_file():
            kept = checkpoint.load_newest(place / CHECKPOINTS, say)
            if kept is not None and kept["options"]["steps"] != part.steps:
                say(f"stage {name} ended before, after {kept['step']} steps, and stays as it is")
            position = position if kept is None else kept["batches"]
        else:
            say(f"stage {name}: {part.steps or part.minutes} {'steps' if part.steps else 'minutes'}")
            batches.load_state_dict(position)
            going: dict[str, Any] = {"options": part, "out": place, "resume": place.exists()}
            with _learning(model, learns):
                train(cast(Objective, aim), batches, meta=meta, quiet=quiet, **going)
            position = batches.state_dict()
        return store.read_tensors(place / "last.safetensors")

    first = stage(PROPOSALS, FirstStage(two), lambda name: _within(name, two.first_parts), parts[0])
    model.load_state_dict(first)
    _report(folder, "2 proposals", recall, model, say)
    frozen = copy.deepcopy(model)
    module.load_state_dict(start)
    two.proposer = _frozen(frozen)
    try:
        aim = SecondStage(module, two.first_losses)
        second = stage(DETECTOR, aim, lambda name: not _within(name, two.first_only), parts[1])
    finally:
        two.proposer = None
    module.load_state_dict(start)
    model.load_state_dict({**second, **{k: v for k, v in first.items() if _within(k, two.first_only)}})
    _report(folder, "3 detector, with the first's RPN", recall, model, say)
    batches.load_state_dict(position)
    say(f"stage 4-joint: {parts[2].steps or parts[2].minutes} {'steps' if parts[2].steps else 'minutes'}")
    answer = train(whole, batches, options=parts[2], out=out, meta=meta, resume=True, epoch=epoch, quiet=quiet, **rest)
    model.load_state_dict(store.read_tensors(out / "last.safetensors"))
    return {**answer, "recall": _report(folder, "4 joint", recall, model, say)}


def two_stages(model: nn.Module) -> TwoStages:
    """The model, if its stages can learn one after the other.

    Raises:
        InputError: they cannot.
    """
    if not isinstance(model, TwoStages):
        raise InputError(
            f"stages one after the other are for models whose first stage proposes boxes for a second, and "
            f"{type(model).__name__} is not of them. Leave out --stages."
        )
    return model


def _parts(options: TrainOptions, epoch: int | None, shares: Sequence[float]) -> list[TrainOptions]:
    """Each stage's options: its share of the steps, or of the minutes where only the clock decides."""
    if len(shares) != 3 or not all(0 < share < float("inf") for share in shares):
        raise InputError(f"stages need three shares above 0 (proposals, detector, joint), got {list(shares)}.")
    steps, scaled = steps_of(options, epoch), [share / sum(shares) for share in shares]
    if steps:
        ends = [round(steps * sum(scaled[: i + 1])) for i in range(3)]
        each = [end - begin for begin, end in zip([0, *ends[:2]], ends, strict=True)]
        if min(each) < 1:
            raise InputError(f"each stage needs a step, but shares {list(shares)} of {steps} steps give {each}.")
        return [replace(options, steps=n, minutes=options.minutes * s) for n, s in zip(each, scaled, strict=True)]
    return [replace(options, minutes=options.minutes * share) for share in scaled]


def _start(path: Path, module: nn.Module, meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """What all began with: of the file, if a run before this one left it."""
    if path.is_file():
        module.load_state_dict(store.read_tensors(path))
    else:
        store.save(path, module.state_dict(), meta)
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _within(name: str, parts: Iterable[str]) -> bool:
    """Whether a parameter lies in one of the named modules."""
    return not set(name.split(".")).isdisjoint(parts)


@contextmanager
def _learning(model: nn.Module, learns: Callable[[str], bool]) -> Generator[None]:
    """Only the parameters whose names ``learns`` says learn, if they did before."""
    still = [p for name, p in model.named_parameters() if p.requires_grad and not learns(name)]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def _frozen(network: nn.Module) -> Proposer:
    """A network's proposals, without a gradient; its module is hidden, so that nobody trains or saves it."""
    network.requires_grad_(False).eval()

    @torch.no_grad()
    def proposer(inputs: Images, numbers: tuple[int, int]) -> list[Tensor]:
        network.to(inputs.pixels.device)
        return cast(TwoStages, network).proposals(inputs, numbers)

    return proposer


def _report(
    folder: Path,
    when: str,
    recall: Callable[[nn.Module], Mapping[str, float]] | None,
    model: nn.Module,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure once what is proposed, keep it, and say it."""
    path = folder / RECALL
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    if recall is not None and when not in known:
        known[when] = dict(recall(model))
        write_json(path, known, indent=True)
        shown = "  ".join(f"{k} {v:.3f}" for k, v in known[when].items() if isinstance(v, float))
        say(f"proposals after stage {when}: {shown}")
    return known
