"""Bottom-up path augmentation of a feature pyramid (PANet: Liu et al. 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import ConvNorm, NormName


class PathAggregation(nn.Module):
    """A pyramid P_2..P_k and a second, bottom-up path over it: N_2 = P_2, N_{i+1} = f(P_{i+1} + g(N_i)).

    ``g`` is a 3x3 convolution of stride 2 and ``f`` one of stride 1, both followed by a ReLU.

    Args:
        fpn: the pyramid, without extra levels.
        channels: width of its maps and of the new ones.
        extra: how many stride-2 subsampled copies of the coarsest map are added.
        norm: after each convolution of the new path.
        relu: ``False`` leaves the ReLUs out (mmdetection; so does the authors' code without norms).
        chained: ``g`` sees N_i (the paper); ``False``: it sees what N_i was made of, before ``f`` (mmdetection).
    """

    def __init__(
        self,
        fpn: FPN,
        channels: int = 256,
        *,
        extra: int = 1,
        norm: NormName = None,
        relu: bool = True,
        chained: bool = True,
    ) -> None:
        super().__init__()
        self.fpn, self.extra, self.chained = fpn, extra, chained
        steps = len(fpn.lateral) - 1
        self.down = nn.ModuleList(ConvNorm(channels, channels, stride=2, norm=norm, relu=relu) for _ in range(steps))
        self.fuse = nn.ModuleList(ConvNorm(channels, channels, norm=norm, relu=relu) for _ in range(steps))
        for part in (self.down, self.fuse):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_i, H_i, W_i], finest first -> N_i [B, channels, H_i, W_i] and ``extra`` coarser maps."""
        maps = self.fpn(features)
        out, below = [maps[0]], maps[0]
        for level, down, fuse in zip(maps[1:], self.down, self.fuse, strict=True):
            total = level + down(below)
            out.append(fuse(total))
            below = out[-1] if self.chained else total
        for _ in range(self.extra):
            out.append(functional.max_pool2d(out[-1], 1, 2))
        return out
