"""MaskFormer: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
NeurIPS 2021 (arXiv:2107.06278).

A pixel decoder gives every pixel an embedding; a transformer's queries give a class and a mask embedding each, and the
product of the two embeddings is the query's mask (section 3.4). Queries and objects, regions of stuff among them, are
paired one to one at the least cost of class and mask, after every decoder layer (section 3.3). Semantic segmentation
sums class times mask over queries, panoptic segmentation lets confident queries compete (section 3.5).

Differences: the official ResNets have a transformer encoder in the pixel decoder, the Swins do not; the official code
resizes logits to the file's size before decoding, transformers resizes probabilities (``rule="transformers"``).
Padding is not masked, in either.

Weights: importers for facebookresearch/MaskFormer (CC BY-NC 4.0) and transformers (the same weights).

    tensor         meaning                                                        shape
    pixels         RGB, 0..255                                                    [B, 3, H, W]
    class_logits   of each query after each layer; the last logit is "none"       L x [B, Q, C + 1]
    mask_logits    with scenes, of the N matched queries of each layer            L x [N, H/4, W/4]
                   without, of all queries of the last layer                      [B, Q, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.queries import (
    QUERY_RULES,
    Matches,
    QueryTruth,
    dice_cost,
    enlarge,
    focal_cost,
    instance_scene,
    panoptic_scene,
    query_truth,
    semantic_scene,
    shrink,
    silent_masks,
)
from maskwright.nn.backbones.swin import SWINS, Swin
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.per_pixel import PixelDecoder, everywhere
from maskwright.nn.losses import Dice, Focal, Weighted
from maskwright.nn.norm import normalize_pixels
from maskwright.nn.position import sine_position
from maskwright.nn.transformer import MLP, Decoder, Encoder
from maskwright.ops.assign_sets import match_sets
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
COSTS = {"class": 1.0, "focal": 20.0, "dice": 1.0}
Task = Literal["semantic", "instance", "panoptic"]


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``truth`` and ``matches`` (one a layer) with scenes. ``padded`` is (H, W)."""

    class_logits: list[Tensor]
    mask_logits: list[Tensor]
    padded: tuple[int, int]
    truth: list[QueryTruth] | None = None
    matches: list[Matches] | None = None


class MaskFormer(nn.Module):
    """MaskFormer on built parts.

    Args:
        backbone: gives C2 to C5. pixel_decoder: pixel embeddings, and the map that ``decoder`` reads.
        memory: width of that map; it is projected to ``channels`` unless that is its width.
        taxonomy: the C classes. queries: how many objects and regions a picture can have.
        task: what ``predict`` gives.
        rule: a name in ``parts.queries.QUERY_RULES``; ``model.rule`` holds its numbers.
        no_object: weight of "none" in the class loss.
        costs: factors of matching by class, focal and Dice cost. The mask loss has its own inside.
        loss_weights: factors of the losses "class" and "mask"; missing ones are 1.
        score_threshold: of panoptic segments (0.8 if ``None``) and instances (0.05).
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255. resize: at test time.
    """

    size_divisor = 1
    class_layers = ("class_logits",)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: PixelDecoder,
        decoder: Decoder,
        *,
        taxonomy: Taxonomy,
        memory: int,
        channels: int = 256,
        embedding: int = 256,
        queries: int = 100,
        task: Task = "panoptic",
        rule: str = "maskformer",
        no_object: float = 0.1,
        costs: Mapping[str, float] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        score_threshold: float | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if task not in ("semantic", "instance", "panoptic"):
            raise ValueError(f"task must be 'semantic', 'instance' or 'panoptic', got {task!r}")
        if rule not in QUERY_RULES:
            raise ValueError(f"rule must be one of {', '.join(QUERY_RULES)}, got {rule!r}")
        self.backbone, self.pixel_decoder, self.decoder = backbone, pixel_decoder, decoder
        self.project = nn.Identity() if memory == channels else nn.Conv2d(memory, channels, 1)
        self.queries = nn.Embedding(queries, channels)
        self.class_logits = nn.Linear(channels, len(taxonomy) + 1)
        self.mask_embedding = MLP(channels, channels, embedding)
        self.taxonomy, self.task, self.rule, self.no_object = taxonomy, task, QUERY_RULES[rule], no_object
        self.costs, self.loss_weights = {**COSTS, **(costs or {})}, dict(loss_weights or {})
        self.mask_loss: MaskLoss = Weighted(((20.0, Focal()), (1.0, Dice(smooth=1.0, epsilon=0.0, squares=False))))
        usual = 0.05 if task == "instance" else 0.8
        self.score_threshold = usual if score_threshold is None else score_threshold
        self.max_per_image = 100
        self.resize = resize or Resize(short=800, long=1333)
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Classes after each layer; masks of the last one, or (``scenes``) of all layers' queries with an object."""
        states, pixels = self.features(inputs)
        padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
        classes = [self.class_logits(state) for state in states]
        if scenes is None:
            return Raw(classes, [self.masks(states[-1], pixels)], padded)
        truth = [query_truth(scene, self.taxonomy, padded, pixels.device) for scene in scenes]
        matches: list[Matches] = []
        masks: list[Tensor] = []
        for state, logits in zip(states, classes, strict=True):
            embeddings = self.mask_embedding(state)
            pairs = self.match(logits, embeddings, pixels, truth, padded)
            parts = [
                torch.einsum("nc,chw->nhw", embeddings[i, pairs.query[pairs.picture == i]], pixels[i])
                for i in range(len(truth))
            ]
            matches.append(pairs)
            masks.append(torch.cat(parts))
        return Raw(classes, masks, padded, truth, matches)

    def features(self, inputs: Images) -> tuple[list[Tensor], Tensor]:
        """The queries' states [B, Q, C] after each layer, and pixel embeddings [B, K, H/4, W/4]."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        embeddings, coarse = self.pixel_decoder(self.backbone(pixels))
        memory = self.project(coarse)
        position = sine_position(everywhere(memory), memory.shape[1])
        return self.decoder(self.queries.weight, memory, position), embeddings

    def masks(self, state: Tensor, pixels: Tensor) -> Tensor:
        """Mask logits [B, Q, H/4, W/4] of all queries in one layer's ``state`` [B, Q, C]."""
        return torch.einsum("bqc,bchw->bqhw", self.mask_embedding(state), pixels)

    @torch.no_grad()
    def match(
        self, logits: Tensor, embeddings: Tensor, pixels: Tensor, truth: Sequence[QueryTruth], padded: tuple[int, int]
    ) -> Matches:
        """The pairs of queries and objects at the least cost of class, focal and Dice (section 3.3)."""
        masks = torch.einsum("bqc,bchw->bqhw", embeddings, pixels).float()
        prob, costs = logits.float().softmax(-1), []
        for i, known in enumerate(truth):
            dense = known.dense(torch.arange(len(known.labels)), padded)
            wanted, drawn = shrink(dense, masks).flatten(1), masks[i].flatten(1)
            cost = -self.costs["class"] * prob[i][:, known.labels]
            cost = (
                cost + self.costs["focal"] * focal_cost(drawn, wanted) + self.costs["dice"] * dice_cost(drawn, wanted)
            )
            costs.append(cost)
        return Matches.of(match_sets(costs), truth, silent_masks(masks, truth))

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class and L_mask (equation 1) of the last layer, and of the earlier ones (``class_0``, ``mask_0``, ...)."""
        truth, matches = _learned(raw)
        out: dict[str, Tensor] = {}
        for i, pairs in enumerate(matches):
            name = _name(i, matches)
            total, weight = pairs.class_sum(raw.class_logits[i], self.no_object)
            out[f"class{name}"] = total / weight.clamp(min=1e-6) * self.loss_weights.get("class", 1.0)
            masks = self._mask_sum(raw.mask_logits[i], pairs, truth, raw.padded) / max(len(pairs), 1)
            out[f"mask{name}"] = masks * self.loss_weights.get("mask", 1.0)
        return out

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        _, matches = _learned(raw)
        out: dict[str, Tensor] = {}
        for i, pairs in enumerate(matches):
            name = _name(i, matches)
            out[f"class{name}"] = pairs.weights(raw.class_logits[i], self.no_object).sum()
            out[f"mask{name}"] = out[f"class{name}"].new_tensor(float(len(pairs)))
        return out

    def _mask_sum(self, logits: Tensor, pairs: Matches, truth: Sequence[QueryTruth], padded: tuple[int, int]) -> Tensor:
        total = logits.float().sum() * 0.0
        for i, known in enumerate(truth):
            mine = torch.nonzero(pairs.picture == i).flatten()
            if len(mine):
                wanted = known.dense(pairs.object[mine], padded).float()
                total = total + self.mask_loss(enlarge(logits[mine], padded, known.ignored), wanted) * len(mine)
        return total

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, for the model's ``task``."""
        if raw.truth is not None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        return [self._read(raw, i, view) for i, view in enumerate(geometry)]

    def _read(self, raw: Raw, i: int, view: Geometry) -> Scene:
        known = (raw.class_logits[-1][i], raw.mask_logits[-1][i], view, raw.padded)
        if self.task == "semantic":
            return semantic_scene(*known, self.rule)
        read = panoptic_scene if self.task == "panoptic" else instance_scene
        return read(
            *known, self.taxonomy, self.rule, score_threshold=self.score_threshold, max_per_image=self.max_per_image
        )  # fmt: skip


def _name(layer: int, matches: Sequence[Matches]) -> str:
    return "" if layer == len(matches) - 1 else f"_{layer}"


def _learned(raw: Raw) -> tuple[list[QueryTruth], list[Matches]]:
    if raw.truth is None or raw.matches is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.truth, raw.matches


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    drop_path: float = 0.3,
    channels: int = 256,
    embedding: int = 256,
    heads: int = 8,
    hidden: int = 2048,
    encoder_depth: int = 0,
    depth: int = 6,
    dropout: float = 0.1,
    **options: Any,
) -> MaskFormer:
    if body in SWINS:
        backbone = Swin(body, drop_path=drop_path, pretrained=pretrained, frozen_stages=frozen_stages)
    else:
        backbone = TimmBackbone(
            body, norm=norm, frozen_stages=frozen_stages, pretrained=pretrained, zero_init=zero_init
        )  # fmt: skip
    shape = {"heads": heads, "hidden": hidden, "dropout": dropout}
    encoder = Encoder(channels, depth=encoder_depth, **shape) if encoder_depth else None
    return MaskFormer(
        backbone,
        PixelDecoder(backbone.channels, channels, embedding=embedding, encoder=encoder),
        Decoder(channels, depth=depth, **shape),
        taxonomy=taxonomy,
        memory=channels if encoder is not None else backbone.channels[-1],
        channels=channels,
        embedding=embedding,
        **options,
    )


def maskformer_r50(taxonomy: Taxonomy, **options: Any) -> MaskFormer:
    """ResNet-50, a pixel decoder with six encoder layers, six decoder layers, 100 queries; a panoptic map."""
    return _build(taxonomy, **{"body": "resnet50", "encoder_depth": 6, **options})


def maskformer_swin_t(taxonomy: Taxonomy, **options: Any) -> MaskFormer:
    """Swin-T, a pixel decoder without an encoder, six decoder layers, 100 queries; a panoptic map."""
    return _build(taxonomy, **{"body": "swin_tiny_patch4_window7_224", **options})
