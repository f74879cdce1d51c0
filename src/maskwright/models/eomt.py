"""EoMT: Kerssies, Cavagnero, Hermans, Norouzi, Averta, Leibe, Dubbelman, de Geus, "Your ViT is Secretly an Image
Segmentation Model", CVPR 2025 (arXiv:2503.19108).

A plain vision transformer reads patches; before its last few blocks learned queries join the patches as further tokens
(section 3.2), and at the end each query is a class and, by its inner product with the enlarged patches, a mask. In
training a query sees in each of those blocks only the patches of its mask so far; these masks are given up block by
block while training goes on, so that at the end the network is a transformer and nothing else (mask annealing, 3.3).

Differences: none known between the authors' code and transformers'. Pictures are padded with black to a square.

Weights: an importer for transformers' checkpoints (``tue-mps/*_eomt_*``, MIT; the backbones, DINOv2, are Apache-2.0).

    tensor         meaning                                                shape
    pixels         RGB, 0..255                                            [B, 3, H, W]
    tokens         queries, class token and registers, patches            [B, Q + 5 + h * w, C]
    class_logits   of Q queries, "no object" last                         [B, Q, C + 1]
    mask_logits    inner products with patches enlarged fourfold          [B, Q, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.parts.point_sets import POINT_LOSS, Learned, PointCriterion, weighted
from maskwright.models.parts.queries import (
    QUERY_RULES,
    instance_scene,
    panoptic_scene,
    semantic_scene,
)
from maskwright.nn.backbones.vit import ViT
from maskwright.nn.masked_attention import draw
from maskwright.nn.norm import normalize_pixels
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
Task = Literal["instance", "semantic", "panoptic"]


@dataclass(slots=True)
class Raw:
    """Logits of classes and of masks, at the end only; with scenes before each block that has queries too.

    ``padded`` is (H, W) of the picture that the masks are on; ``learned``, with scenes, says which query stands for
    which object.
    """

    class_logits: list[Tensor]
    mask_logits: list[Tensor]
    padded: tuple[int, int]
    learned: Learned | None = None

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Logits of classes and of masks, a layer each."""
        return list(zip(self.class_logits, self.mask_logits, strict=True))


class Enlarge(nn.Module):
    """Twice the side: a transposed convolution, a depthwise one, a norm over channels (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 2h, 2w]."""
        maps = self.smooth(functional.gelu(self.up(maps)))
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class EoMT(nn.Module):
    """EoMT on a vision transformer.

    Args:
        backbone: with ``embed``, ``blocks`` and ``norm``.
        taxonomy: the C classes; its things and stuff tell what is merged.
        queries: their number. masked_blocks: in how many of the last blocks there are queries.
        enlargements: how often patches are enlarged twofold before masks are drawn.
        task: what ``predict`` makes; the network is the same for all.
        square: smaller pictures are padded to the side that the backbone's positions are for, as the weights need it.
        criterion: numbers of matching and sampling.
        loss_weights: factors of ``class`` (2) and ``mask`` (1: ``mask_loss`` has its own inside).
        score_threshold: panoptic: of queries that take part; instance: of objects. ``None``: 0.8 and 0.
        overlap: a panoptic segment that keeps less than this share of what it claims disappears.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    class_layers = ("class_logits",)
    pixel_mean: Tensor
    pixel_std: Tensor
    mask_chance: Tensor

    def __init__(
        self,
        backbone: ViT,
        *,
        taxonomy: Taxonomy,
        queries: int = 200,
        masked_blocks: int = 4,
        enlargements: int = 2,
        task: Task = "panoptic",
        square: bool = True,
        criterion: PointCriterion | None = None,
        loss_weights: Mapping[str, float] | None = None,
        score_threshold: float | None = None,
        max_per_image: int = 100,
        overlap: float = 0.8,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if task not in ("instance", "semantic", "panoptic"):
            raise ValueError(f"task must be 'instance', 'semantic' or 'panoptic', got {task!r}")
        if not 0 < masked_blocks <= len(backbone.blocks):
            raise ValueError(f"masked_blocks must be in 1..{len(backbone.blocks)}, got {masked_blocks}")
        self.backbone, self.taxonomy, self.task, self.square = backbone, taxonomy, task, square
        width = backbone.width
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.class_logits = nn.Linear(width, len(taxonomy) + 1)
        self.mask_embedding = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.enlarge = nn.Sequential(*[Enlarge(width) for _ in range(enlargements)])
        self.criterion = criterion or PointCriterion()
        self.loss_weights = {"class": 2.0, **(loss_weights or {})}
        self.resize = resize or Resize(short=640, long=640)
        self.mask_loss: MaskLoss = POINT_LOSS
        self.rule, self.max_per_image = replace(QUERY_RULES["mask2former"], overlap=overlap), max_per_image
        fallback = 0.8 if task == "panoptic" else 0.0
        self.score_threshold = fallback if score_threshold is None else score_threshold
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))
        self.register_buffer("mask_chance", torch.ones(masked_blocks))
        self.chances = (1.0,) * masked_blocks
        self.register_load_state_dict_post_hook(_remember_chances)

    # ---- mask annealing -----------------------------------------------------------------------------------------

    def anneal(self, share: float, power: float = 0.9) -> None:
        """Set how likely masks are in each block, after this ``share`` of the training (section 3.3).

        Each block gives up its masks during a sixth of the training; the first begins after one sixth, the last after
        four, the others evenly in between, as the authors' configurations have it.
        """
        count = len(self.mask_chance)
        starts = [(1.0 + 3.0 * i / max(count - 1, 1)) / 6.0 for i in range(count)]
        done = [min(max((share - start) * 6.0, 0.0), 1.0) for start in starts]
        self.mask_chance.copy_(torch.tensor([(1.0 - part) ** power for part in done]))
        _remember_chances(self)

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Classes and masks of all queries; with ``scenes`` those before each of the last blocks too.

        Masks hide patches by chance with ``scenes``; without, in those blocks where that is more likely than not.
        """
        tokens, grid = self.backbone.embed(self.pixels(inputs))
        padded = (grid[0] * self.backbone.patch, grid[1] * self.backbone.patch)
        raw = Raw([], [], padded)
        first = len(self.backbone.blocks) - len(self.chances)
        for i, block in enumerate(self.backbone.blocks):
            if i < first:
                tokens = block(tokens)
                continue
            if i == first:
                queries = self.queries.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
                tokens = torch.cat((queries, tokens), 1)
            chance, allowed = self.chances[i - first], None
            if scenes is not None or chance > 0.5:
                masks = self.read(tokens, grid, raw if scenes is not None else None)
                if chance > 0:
                    allowed = self.allowed(masks, grid, tokens.shape[1], chance if scenes is not None else 1.0)
            tokens = block(tokens, allowed)
        self.read(tokens, grid, raw)
        if scenes is not None:
            raw.learned = Learned.of(raw.pairs, scenes, self.taxonomy, padded, self.criterion)
        return raw

    def pixels(self, inputs: Images) -> Tensor:
        """Normalized pixels; what is padded is black, here and in the batch."""
        patch, side = self.backbone.patch, self.backbone.side if self.square else 0
        height, width = inputs.pixels.shape[-2], inputs.pixels.shape[-1]
        more: list[Any] = [torch.sym_max((n + patch - 1) // patch * patch, side) - n for n in (width, height)]
        pixels = functional.pad(inputs.pixels, (0, more[0], 0, more[1]))
        pixels = normalize_pixels(pixels, self.pixel_mean, self.pixel_std, ())
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return pixels

    def read(self, tokens: Tensor, grid: tuple[int, int], into: Raw | None) -> Tensor:
        """Mask logits [B, Q, H/4, W/4] of the queries among ``tokens``; their classes too, kept in ``into``."""
        tokens = self.backbone.norm(tokens)
        count = len(self.queries)
        queries, patches = tokens[:, :count], tokens[:, count + self.backbone.prefix :]
        maps = self.enlarge(patches.transpose(1, 2).unflatten(2, grid))
        masks = draw(self.mask_embedding(queries), maps)
        if into is not None:
            into.class_logits.append(self.class_logits(queries))
            into.mask_logits.append(masks)
        return masks

    def allowed(self, masks: Tensor, grid: tuple[int, int], count: int, chance: float) -> Tensor:
        """bool [B, 1, T, T]: queries do not see the patches outside of their masks, each with this ``chance``."""
        small = functional.interpolate(masks.detach().float(), size=grid, mode="bilinear", align_corners=False)
        inside = (small > 0).flatten(2)
        if chance < 1:
            inside = inside | (torch.rand(*inside.shape[:2], device=masks.device) > chance)[..., None]
        everything = inside.new_ones(masks.shape[0], inside.shape[1], count - inside.shape[2])
        queries = torch.cat((everything, inside), 2)
        others = inside.new_ones(masks.shape[0], count - inside.shape[1], count)
        return torch.cat((queries, others), 1)[:, None]

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class and L_mask (section 3.1) at the end, and before each block with queries (``class_0``, ``mask_0``)."""
        if raw.learned is None:
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        losses = raw.learned.losses(raw.pairs, self.criterion, self.mask_loss)
        return weighted(losses, self.loss_weights)

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        if raw.learned is None:
            raise ValueError("loss_counts needs the output of forward(inputs, scenes)")
        return raw.learned.counts(raw.pairs, self.criterion)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, as ``task`` asks: objects, a label for every pixel, or segments that share none."""
        if raw.learned is not None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        limits: dict[str, Any] = {"score_threshold": self.score_threshold, "max_per_image": self.max_per_image}
        scenes: list[Scene] = []
        for classes, masks, view in zip(raw.class_logits[-1], raw.mask_logits[-1], geometry, strict=True):
            place = (classes, masks, view, raw.padded)
            if self.task == "semantic":
                scenes.append(semantic_scene(*place, self.rule))
            elif self.task == "instance":
                scenes.append(instance_scene(*place, self.taxonomy, self.rule, **limits))
            else:
                scenes.append(panoptic_scene(*place, self.taxonomy, self.rule, **limits))
        return scenes


def _remember_chances(model: EoMT, *_: Any) -> None:
    """Keep ``mask_chance`` as plain numbers too, so that what is computed can be known before it is."""
    model.chances = tuple(model.mask_chance.tolist())


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    patch: int = 16,
    side: int = 640,
    registers: int = 4,
    layer_scale: float = 1.0,
    pretrained: bool = False,
    mask_points: int = 12544,
    **options: Any,
) -> EoMT:
    backbone = ViT(body, patch=patch, side=side, registers=registers, layer_scale=layer_scale, pretrained=pretrained)
    numbers = {"resize": Resize(short=side, long=side), "criterion": PointCriterion(points=mask_points)}
    return EoMT(backbone, taxonomy=taxonomy, **{**numbers, **options})


def eomt_s(taxonomy: Taxonomy, **options: Any) -> EoMT:
    """DINOv2 ViT-S with registers, 16-pixel patches, 640-pixel pictures, 200 queries in the last 3 of 12 blocks."""
    return _build(taxonomy, **{"body": "vit_small_patch14_reg4_dinov2", "masked_blocks": 3, **options})


def eomt_b(taxonomy: Taxonomy, **options: Any) -> EoMT:
    """DINOv2 ViT-B with registers, 16-pixel patches, 640-pixel pictures, 200 queries in the last 3 of 12 blocks."""
    return _build(taxonomy, **{"body": "vit_base_patch14_reg4_dinov2", "masked_blocks": 3, **options})


def eomt_l(taxonomy: Taxonomy, **options: Any) -> EoMT:
    """DINOv2 ViT-L with registers, 16-pixel patches, 640-pixel pictures, 200 queries in the last 4 of 24 blocks."""
    return _build(taxonomy, **{"body": "vit_large_patch14_reg4_dinov2", "masked_blocks": 4, **options})
