"""Any timm model as a feature pyramid's bottom-up path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import timm
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn


class TimmBackbone(nn.Module):
    """A timm model with ``features_only``: pixels [B, 3, H, W] to maps [B, C_i, H / s_i, W / s_i], finest first.

    Args:
        name: any timm model that supports ``features_only``, such as ``resnet50``.
        out_indices: which of timm's feature levels to return; (1, 2, 3, 4) is C2 to C5.
        norm: ``"train"`` leaves batch norms trainable, ``"frozen"`` turns them into fixed affine maps, as detectors
            fine-tuned in small batches do.
        frozen_stages: this many leading feature levels take no gradient (stem and C2 are 2 in the usual recipe).
        stride_in_1x1: move each bottleneck's stride from its 3x3 to its first 1x1 convolution (the original ResNet,
            as in detectron2's MSRA weights).
        pretrained: ask timm for its published weights (needs a network the first time).
        zero_init: random weights begin as timm has them, each residual block the identity. A detector trained from
            scratch for a short time learns more slowly so; frozen norms need it, because nothing else holds back
            what a hundred layers multiply. ``None`` is ``norm == "frozen"``.
        output_stride: of the coarsest level; less than 32 dilates the last stages instead of striding.
        dilations: of the last blocks' 3x3 convolutions, one a block (the multi-grid of Chen et al. 2017, section 3.1).

    Raises:
        ValueError: timm has no such model, or ``stride_in_1x1`` or ``dilations`` for a network without bottlenecks.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self,
        name: str,
        *,
        out_indices: tuple[int, ...] = (1, 2, 3, 4),
        norm: Literal["train", "frozen"] = "train",
        frozen_stages: int = 0,
        stride_in_1x1: bool = False,
        pretrained: bool = False,
        zero_init: bool | None = None,
        output_stride: int = 32,
        dilations: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise ValueError(f"timm has no model {name!r}; close names: {close}")
        strides: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        body: Any = timm.create_model(
            name, features_only=True, out_indices=out_indices, pretrained=pretrained, **strides
        )  # fmt: skip
        if not pretrained and not (norm == "frozen" if zero_init is None else zero_init):
            _open_residuals(body)
        self.channels = tuple(body.feature_info.channels())
        self.strides = tuple(body.feature_info.reduction())
        if stride_in_1x1:
            _move_strides(body, name)
        if dilations:
            _dilate(body, name, dilations)
        self.body = freeze_batch_norm_2d(body) if norm == "frozen" else body
        self.frozen_stages = frozen_stages
        for module in self._leading_modules():
            module.requires_grad_(False)

    def _leading_modules(self) -> list[nn.Module]:
        """The modules up to the ``frozen_stages``-th feature level, in timm's order."""
        body: Any = self.body
        ends = [str(info["module"]) for info in body.feature_info.info[: self.frozen_stages]]
        if not ends:
            return []
        leading: list[nn.Module] = []
        for name, module in body.named_children():
            leading.append(module)
            if name == ends[-1].replace(".", "_"):
                break
        return leading

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        return self.body(pixels)


def _open_residuals(body: nn.Module) -> None:
    """Let every residual branch count from the first step: timm begins those of ResNets with a last scale of zero."""
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.ones_(module.weight)


def _bottlenecks(body: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Conv2d]]:
    """The first 1x1 and the 3x3 convolution of each bottleneck."""
    for module in body.modules():
        first, second = getattr(module, "conv1", None), getattr(module, "conv2", None)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and first.kernel_size == (1, 1):
            yield first, second


def _move_strides(body: nn.Module, name: str) -> None:
    blocks = list(_bottlenecks(body))
    for first, second in blocks:
        first.stride, second.stride = second.stride, first.stride
    if not blocks:
        raise ValueError(f"stride_in_1x1 needs bottleneck blocks (1x1, 3x3, 1x1); {name!r} has none")


def _dilate(body: nn.Module, name: str, dilations: Sequence[int]) -> None:
    blocks = list(_bottlenecks(body))
    if len(blocks) < len(dilations):
        raise ValueError(
            f"dilations need {len(dilations)} bottleneck blocks (1x1, 3x3, 1x1); {name!r} has {len(blocks)}"
        )
    for (_, conv), dilation in zip(blocks[-len(dilations) :], dilations, strict=True):
        conv.dilation = conv.padding = (dilation, dilation)
