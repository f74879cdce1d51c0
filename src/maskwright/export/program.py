"""A model as a program of plain tensors: what every runtime is given.

The design, which is the same for every row of the table:

- A program is the family's own ``forward`` without scenes, traced by ``torch.export``: pixels [B, 3, H, W] and the
  pictures' sizes [B, 2] within their padding go in, the tensors of ``Raw`` that ``predict`` reads come out. Networks,
  NMS, RoIs and mask heads are inside, with any H and W, any number of detections (also none) and no loop over
  instances. NMS is one operator (``ops.nms.grouped_nms``) that each runtime replaces by its own.
- What is left is the family's own ``predict``, from small maps to run-lengths in file pixels. It runs on the host, on a
  model without weights: the artifact says how to build that and how its ``Raw`` is put together (``export.layout``).

So there is no second decoder to keep equal, and a family needs no code to be exported. Sizes are symbols while a graph
is traced: with a fixed batch one pair of integers a picture; with a dynamic batch one tensor, which serves families
whose ``forward`` does not walk over pictures (those with queries or semantic maps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram

from maskwright.errors import InputError
from maskwright.export.layout import Layout
from maskwright.nn.modes import autocast, evaluating
from maskwright.protocols import Model
from maskwright.structures import Images

LEAST = 160
"""Shorter sides (rounded up to the divisor) are padded: pyramids of a single cell would make graphs of their own.
What the model finds is then what it finds in a picture with so much padding."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced model.

    Attributes:
        program: of torch.export. layout: of its outputs.
        batch: pictures at once; ``None`` for any number.
        least, most: sides of the padded pixels in pixels, multiples of the model's divisor.
    """

    program: ExportedProgram
    layout: Layout
    batch: int | None
    least: int
    most: int


class Program(nn.Module):
    """A model's ``forward`` on tensors alone."""

    def __init__(self, model: Model, layout: Layout, batch: int | None, precision: str) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)
        self.layout, self.batch, self.precision = layout, batch, precision

    def forward(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """RGB float32 [B, 3, H, W] in 0..255 and sizes int64 [B, 2] (H, W) to the layout's outputs."""
        known: Any = sizes
        if self.batch is not None:
            known = tuple(_size(sizes[i]) for i in range(self.batch))
        with autocast(torch.device("cpu"), self.precision):
            raw = self.model(cast(Images, _Pictures(pixels, known)))
        return self.layout.flatten(raw)


class _Pictures:
    """What ``forward`` needs of ``Images``, with sizes that are symbols."""

    def __init__(self, pixels: Tensor, sizes: Any) -> None:
        self.pixels, self.sizes = pixels, sizes

    def __len__(self) -> int:
        return self.pixels.shape[0]


def _size(size: Tensor) -> tuple[int, int]:
    height, width = size[0].item(), size[1].item()
    torch._check(height >= 1)
    torch._check(width >= 1)
    return cast(int, height), cast(int, width)


def trace(
    model: Model, golden: Sequence[Images], *, batch: int | None = 1, most: int = 2048, precision: str = "fp32"
) -> Traced:
    """Trace ``model`` with any picture size.

    Args:
        model: on the host; its limits (``score_threshold``, ``max_per_image``) become part of the program.
        golden: inputs with objects that the model finds; they show what ``predict`` reads.
        batch: pictures at once; ``None`` for any number.
        most: the longest padded side, in pixels.
        precision: ``"fp32"``; ``"bf16"`` or ``"fp16"`` casts as autocast does, within the graph.

    Raises:
        InputError: the family's graph cannot have this batch, or cannot be traced.
    """
    network, divisor = cast(nn.Module, model), model.size_divisor
    least, most = least_side(divisor), most // divisor * divisor
    if most < least:
        raise InputError(f"the longest side must be at least {least} pixels for this model, got {most}.")
    layout = layout_of(model, golden)
    program = Program(model, layout, batch, {"fp32": "32", "bf16": "bf16", "fp16": "16"}[precision])
    pixels = torch.rand(2 if batch is None else batch, 3, *_example(least, most, divisor)) * 255
    sizes = torch.tensor([[pixels.shape[2] - 3, pixels.shape[3] - 5]] * len(pixels))
    height, width = (_multiple(name, divisor, least, most) for name in ("height", "width"))
    shapes = {"pixels": {2: height, 3: width}, "sizes": None}
    if batch is None:
        count = Dim("batch", min=1, max=4096)
        shapes = {"pixels": {0: count, 2: height, 3: width}, "sizes": {0: count}}
    with torch.no_grad(), evaluating(network, {}):
        try:
            exported = torch.export.export(
                program.eval(),
                (pixels, sizes),
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError, UserError) as error:
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            hint = "Its forward walks over pictures: export with batch 1." if batch is None else ""
            raise InputError(f"this model cannot be traced: {reason}. {hint}".strip()) from error
    _rid_of_asserts(exported)
    return Traced(exported, layout, batch, least, most)


def least_side(divisor: int) -> int:
    """The shortest padded side of a program's pixels, in pixels."""
    return -(-LEAST // divisor) * divisor


def layout_of(model: Model, golden: Sequence[Images]) -> Layout:
    """What ``predict`` reads of the model's ``Raw``: for ``golden``, and where it finds nothing."""
    network = cast(nn.Module, model)
    with torch.no_grad(), evaluating(network, {}):
        one = [Images(pixels=g.pixels[:1], geometry=g.geometry[:1]) for g in golden]
        raws = [network(inputs) for inputs in one]
        with evaluating(network, {"score_threshold": 1.0}):
            raws.append(network(one[0]))
        views = iter([inputs.geometry for inputs in [*one, one[0]]])
        return Layout.of(raws, lambda raw: model.predict(raw, next(views)))


def _rid_of_asserts(program: ExportedProgram) -> None:
    """Tracing claims that NMS keeps at least 2 boxes, and the graph would insist on it."""
    unwanted = {torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default}
    for node in [n for n in program.graph.nodes if n.target in unwanted]:
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _multiple(name: str, divisor: int, least: int, most: int) -> Any:
    if divisor == 1:
        return Dim(name, min=least, max=most)
    return divisor * Dim(name, min=least // divisor, max=most // divisor)


def _example(least: int, most: int, divisor: int) -> tuple[int, int]:
    """Two sides, 11 and 13 cells of 32 if that can be: windows of 4, 7 or 12 cells fit on no level without padding.

    What is traced for a size that needs padding is right for one that needs none; the reverse does not hold.
    """
    step = -(-32 // divisor) * divisor
    height, width = (min(max(count * step, least), most) for count in (11, 13))
    return height, width


def without_weights(model: Model) -> Model:
    """``model`` with parameters that have no memory (buffers do): ``predict`` needs no weights."""
    for module in cast(nn.Module, model).modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
    return model
