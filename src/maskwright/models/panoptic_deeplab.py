"""Panoptic-DeepLab: Cheng, Collins, Zhu, Liu, Huang, Adam, Chen, "Panoptic-DeepLab: A Simple, Strong, and Fast
Baseline for Bottom-Up Panoptic Segmentation", CVPR 2020 (arXiv:1911.10194).

One backbone with a stride of 16 and two decoders: one says the class of each pixel, the other where centers of objects
are and how far each pixel is from its object's center (section 3.1). The local maxima of the heat map are the objects;
each pixel of a thing belongs to the center nearest to where it points, and an object's class is the one that most of
its pixels have (section 3.3). Nothing overlaps, and nothing is computed object by object.

Differences: the paper's decoders have separable 5x5 convolutions, detectron2's published ones two 3x3 (``separable``).
detectron2 resizes offsets with the picture but does not scale them; here they are scaled (``scale_offsets``), which
changes nothing where pictures keep their size, as on Cityscapes. Of more than ``max_per_image`` centers exactly so many
are kept, there those above the last one. The multi-grid (1, 2, 4) and the three-convolution stem are detectron2's R52.

Weights: importer for detectron2's project of that name (CC BY-SA 3.0).

    tensor           meaning                                            shape
    pixels           RGB, 0..255                                        [B, 3, H, W]
    semantic_logits  one map a class                                    [B, C, H/4, W/4]
    heat             how likely a center, not squashed                  [B, 1, H/4, W/4]
    offsets          (y, x) to the object's center, in cells            [B, 2, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.parts.panoptic import fused_scene, ignored_at, semantic_target, thing_labels
from maskwright.models.parts.semantic import IMAGENET_MEAN, IMAGENET_STD
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.panoptic_deeplab import Decoder, MapHead, hard_pixels
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.ops import rle
from maskwright.ops.group_centers import center_targets, find_centers, group
from maskwright.ops.panoptic import Fused, fuse_maps
from maskwright.ops.query_maps import Resampling, largest
from maskwright.ops.rle_maps import paint_map
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy


@dataclass(slots=True)
class Truth:
    """What the maps of a batch should be, on its padded pictures.

    Attributes:
        semantic: int64 [B, H, W], -1 where void. weights: float [B, H, W], of each pixel's class.
        heat: float [B, 1, H, W]. offsets: float [B, 2, H, W], in pixels.
        known: float [B, 1, H, W], 1 where the heat map learns. inside: the same of offsets.
    """

    semantic: Tensor
    weights: Tensor
    heat: Tensor
    offsets: Tensor
    known: Tensor
    inside: Tensor


@dataclass(slots=True)
class Raw:
    """Maps as above; ``padded`` is (H, W) of the pixels."""

    semantic_logits: Tensor
    heat: Tensor
    offsets: Tensor
    padded: tuple[int, int]
    truth: Truth | None = None


class PanopticDeepLab(nn.Module):
    """Panoptic-DeepLab on built parts.

    Args:
        backbone: pixels to maps, finest first.
        semantic, instance: decoders of these maps. classes, centers, offsets: heads of the decoders' maps.
        taxonomy: things and stuff.
        hard_share: the semantic loss is the mean over this share of the pixels, the worst ones (section 3.2: 0.15;
            detectron2: 0.2).
        small_area, small_weight: objects with fewer pixels cost so many times more (section 3.2).
        sigma: of the Gaussians around centers, in pixels.
        stuff_area: stuff with fewer pixels becomes void. window: of the search for local maxima, in pixels.
        offsets_of_stuff: whether stuff learns offsets of 0.
        loss_weights: ``semantic``, ``center``, ``offset``; 1, 200 and 0.01 by default (section 3.2).
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        scale_offsets: see the differences above.

    ``score_threshold`` is of the heat map; ``max_per_image`` limits the centers.
    """

    size_divisor = 16
    task = "panoptic"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        semantic: nn.Module,
        instance: nn.Module,
        classes: nn.Module,
        centers: nn.Module,
        offsets: nn.Module,
        *,
        taxonomy: Taxonomy,
        hard_share: float = 0.2,
        small_area: int = 4096,
        small_weight: float = 3.0,
        sigma: float = 8.0,
        stuff_area: int = 2048,
        window: int = 7,
        offsets_of_stuff: bool = False,
        score_threshold: float = 0.1,
        max_per_image: int = 200,
        loss_weights: Mapping[str, float] | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
        scale_offsets: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.semantic, self.instance = backbone, semantic, instance
        self.classes, self.centers, self.offsets = classes, centers, offsets
        self.taxonomy = taxonomy
        self.hard_share, self.small_area, self.small_weight = hard_share, small_area, small_weight
        self.sigma, self.stuff_area, self.window = sigma, stuff_area, window
        self.offsets_of_stuff, self.scale_offsets = offsets_of_stuff, scale_offsets
        self.score_threshold, self.max_per_image = score_threshold, max_per_image
        self.loss_weights = {"semantic": 1.0, "center": 200.0, "offset": 0.01, **(loss_weights or {})}
        self.resize = resize or Resize(short=640, long=640)
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """All maps; with ``scenes`` what they should be, too."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        features = self.backbone(pixels)
        objects = self.instance(features)
        padded = (pixels.shape[-2], pixels.shape[-1])
        logits = self.classes(self.semantic(features))
        truth = None if scenes is None else self.targets(scenes, padded, pixels.device)
        return Raw(logits, self.centers(objects), self.offsets(objects), padded, truth)

    # ---- loss ---------------------------------------------------------------------------------------------------

    def targets(self, scenes: Sequence[Scene], padded: tuple[int, int], device: torch.device) -> Truth:
        """What the maps of pictures with these scenes should be."""
        semantic = semantic_target(scenes, padded, "cpu")
        shape = (len(scenes), 1, *padded)
        heat, known, inside = (torch.zeros(shape) for _ in range(3))
        offsets, weights = torch.zeros(len(scenes), 2, *padded), torch.ones(len(scenes), *padded)
        for i, scene in enumerate(scenes):
            ids, crowd = _painted(scene, self.taxonomy)
            peaks, moves, areas = center_targets(ids, int(ids.max(initial=0)), self.sigma)
            height, width = scene.size
            place = (i, slice(0, height), slice(0, width))
            labeled = (semantic[place] >= 0) & ~crowd
            things = torch.from_numpy(ids > 0) & ~ignored_at(scene)
            small = torch.from_numpy(np.append(areas < self.small_area, False)[ids - 1])
            weights[place] += (self.small_weight - 1) * (small & things)
            heat[i, 0, :height, :width] = torch.from_numpy(peaks)
            offsets[i, :, :height, :width] = torch.from_numpy(moves)
            known[i, 0, :height, :width] = (labeled | things).float()
            inside[i, 0, :height, :width] = (labeled | things if self.offsets_of_stuff else things).float()
        return Truth(*(part.to(device) for part in (semantic, weights, heat, offsets, known, inside)))

    def _sums(self, raw: Raw) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each loss summed, and what it is divided by."""
        truth = raw.truth
        if truth is None:
            raise ValueError("a loss needs the output of forward(inputs, scenes); this one was made without scenes")
        logits, heat, offsets = (_enlarged(maps, raw.padded) for maps in (raw.semantic_logits, raw.heat, raw.offsets))
        total, count = hard_pixels(logits, truth.semantic, truth.weights, self.hard_share)
        stride = raw.padded[0] / raw.offsets.shape[-2]
        sums = {
            "semantic": total,
            "center": ((heat - truth.heat).square() * truth.known).sum(),
            "offset": ((offsets * stride - truth.offsets).abs() * truth.inside).sum(),
        }
        return sums, {"semantic": count, "center": truth.known.sum(), "offset": truth.inside.sum()}

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the hardest pixels, squared errors of the heat map, absolute ones of offsets."""
        sums, counts = self._sums(raw)
        return {name: self.loss_weights[name] * sums[name] / counts[name].clamp(min=1) for name in sums}

    @torch.no_grad()
    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """How many pixels each loss is a mean over."""
        return self._sums(raw)[1]

    # ---- predict ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes with a panoptic map, in file pixels; an object's score is its class's mean times the center's heat."""
        maps = zip(raw.semantic_logits.float(), raw.heat.float(), raw.offsets.float(), geometry, strict=True)
        return [self.scene(*each, raw.padded) for each in maps]

    def scene(
        self, logits: Tensor, heat: Tensor, offsets: Tensor, view: Geometry, padded: tuple[int, int]
    ) -> Scene:  # fmt: skip
        """The scene of one picture's maps [C, h, w], [1, h, w] and [2, h, w]."""
        way = Resampling.chained((logits.shape[-2], logits.shape[-1]), padded, view.valid, view.original)
        semantic = largest(logits, way)[0].cpu().long()
        hot, moves = self.located(heat, offsets, view, padded, way)
        places = find_centers(
            hot, threshold=self.score_threshold, kernel=self.window, limit=self.max_per_image
        )  # fmt: skip
        thing = np.append(self.taxonomy.thing, False)
        inside = thing[semantic.numpy()]
        objects = group(places.cpu().numpy(), moves.cpu().numpy(), inside)
        fused = fuse_maps(objects, semantic.numpy(), self.taxonomy.thing, stuff_area=self.stuff_area)
        return fused_scene(fused, _scores(fused, logits, hot, way), semantic)

    def located(
        self, heat: Tensor, offsets: Tensor, view: Geometry, padded: tuple[int, int], way: Resampling
    ) -> tuple[Tensor, Tensor]:
        """The heat map [H, W] and offsets [2, H, W] in pixels, of the file."""
        stride = padded[0] / offsets.shape[-2]
        maps = torch.cat((heat, offsets * stride))
        out = maps.new_empty(3, *way.size)
        for rows, columns, values in way.tiles(maps):
            out[:, rows, columns] = values
        if self.scale_offsets:
            scale = [o / v for o, v in zip(view.original, view.valid, strict=True)]
            out[1:] *= out.new_tensor(scale)[:, None, None]
        return out[0], out[1:]


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)


def _painted(scene: Scene, taxonomy: Taxonomy) -> tuple[np.ndarray, Tensor]:
    """Things numbered from 1, small ones over large ones, int64 [H, W]; and what crowds alone cover, bool [H, W]."""
    objects = scene.with_masks().segments
    assert objects is not None
    assert objects.masks is not None
    runs = objects.masks.counts.numpy(), objects.masks.offsets.numpy()
    crowd = np.zeros(len(objects), bool) if objects.crowd is None else objects.crowd.cpu().numpy()
    counted = np.isin(objects.labels.cpu().numpy(), thing_labels(taxonomy)) & ~crowd
    chosen = np.flatnonzero(counted)
    chosen = chosen[np.argsort(-rle.area(*rle.take(*runs, chosen)), kind="stable")]
    ids = paint_map(*rle.take(*runs, chosen), scene.size, np.arange(1, len(chosen) + 1))
    many = np.flatnonzero(crowd)
    covered = paint_map(*rle.take(*runs, many), scene.size, np.ones(len(many), np.int64)) > 0
    return ids, torch.from_numpy(covered & (ids == 0))


def _scores(fused: Fused, logits: Tensor, heat: Tensor, way: Resampling) -> Tensor:
    """[S]: the mean probability of each segment's class where it is, times the heat in the middle of a thing."""
    ids = torch.from_numpy(fused.ids)
    label = torch.from_numpy(np.append(0, fused.labels))
    total = torch.zeros(len(fused) + 1, dtype=torch.float64)
    for rows, columns, values in way.tiles(logits):
        names = ids[rows, columns]
        prob = values.softmax(0).cpu().gather(0, label[names][None])[0]
        total += torch.bincount(names.flatten(), prob.flatten().double(), len(total))
    areas = torch.from_numpy(fused.areas)
    scores = (total[1:] / areas).float()
    flat = fused.ids.reshape(-1)
    middle = [
        (np.bincount(flat, np.indices(fused.ids.shape)[axis].reshape(-1), len(total))[1:] / fused.areas).astype(int)
        for axis in (0, 1)
    ]
    things = torch.from_numpy(fused.source >= 0)
    hot = heat.cpu()[torch.from_numpy(middle[0]), torch.from_numpy(middle[1])]
    return torch.where(things, scores * hot, scores)


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    output_stride: Literal[8, 16, 32] = 16,
    dilations: Sequence[int] = (),
    aspp_width: int = 256,
    semantic_width: int = 256,
    semantic_head_width: int = 256,
    instance_width: int = 128,
    instance_head_width: int = 32,
    projected: Sequence[int] = (32, 64),
    rates: Sequence[int] = (6, 12, 18),
    head_norm: NormName = "batch",
    dropout: float = 0.1,
    separable: bool = False,
    pool: tuple[int, int] | None = None,
    **options: Any,
) -> PanopticDeepLab:
    backbone = TimmBackbone(
        body, out_indices=(1, 2, 4), norm=norm, frozen_stages=frozen_stages, pretrained=pretrained,
        zero_init=zero_init, output_stride=output_stride, dilations=dilations,
    )  # fmt: skip
    decoder: dict[str, Any] = {
        "aspp_width": aspp_width, "projected": projected, "rates": rates, "norm": head_norm, "dropout": dropout,
        "separable": separable, "pool": pool,
    }  # fmt: skip
    head: dict[str, Any] = {"norm": head_norm, "separable": separable}
    return PanopticDeepLab(
        backbone,
        Decoder(backbone.channels, semantic_width, **decoder),
        Decoder(backbone.channels, instance_width, **decoder),
        MapHead(semantic_width, semantic_head_width, len(taxonomy), **head),
        MapHead(instance_width, instance_head_width, 1, **head),
        MapHead(instance_width, instance_head_width, 2, **head),
        taxonomy=taxonomy,
        **options,
    )


def panoptic_deeplab_r52(taxonomy: Taxonomy, **options: Any) -> PanopticDeepLab:
    """ResNet-50 with a stem of three convolutions, the last stage dilated by 2, 4 and 8."""
    return _build(taxonomy, **{"body": "resnet50s", "dilations": (2, 4, 8), **options})


def panoptic_deeplab_mobilenetv3(taxonomy: Taxonomy, **options: Any) -> PanopticDeepLab:
    """MobileNetV3-Large, separable decoders of 128 and 64 channels: ours, for processors without a GPU."""
    numbers = {"aspp_width": 128, "semantic_width": 128, "semantic_head_width": 128, "instance_width": 64}
    return _build(taxonomy, **{"body": "mobilenetv3_large_100", "separable": True, **numbers, **options})
