"""Which origin a checkpoint came from, and what every importer does besides converting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from maskwright.errors import InputError
from maskwright.protocols import Importer
from maskwright.structures import Taxonomy
from maskwright.weights.adelaidet import AdelaiDetCondInst
from maskwright.weights.adelaidet_solov2 import AdelaiDetSOLOv2
from maskwright.weights.centermask2 import CenterMask2
from maskwright.weights.detectron2 import Detectron2MaskRCNN
from maskwright.weights.detectron2_panoptic import Detectron2PanopticFPN
from maskwright.weights.detectron2_panoptic_deeplab import Detectron2PanopticDeepLab
from maskwright.weights.detr import OfficialDETR
from maskwright.weights.mask2former import OfficialMask2Former
from maskwright.weights.mask_scoring import OfficialMaskScoring
from maskwright.weights.maskformer import OfficialMaskFormer
from maskwright.weights.mmdetection_dense import MMDetectionCondInst
from maskwright.weights.mmdetection_queryinst import MMDetectionQueryInst
from maskwright.weights.mmdetection_rtmdet import MMDetectionRTMDetIns
from maskwright.weights.mmdetection_single_stage import MMDetectionYolact
from maskwright.weights.mmdetection_two_stage import MMDetectionTwoStage
from maskwright.weights.pointrend import Detectron2PointRend
from maskwright.weights.segformer_official import MMSegmentationSegFormer, OfficialSegFormer
from maskwright.weights.solo import MMDetectionSOLO, OfficialSOLO
from maskwright.weights.torchvision import TorchvisionMaskRCNN
from maskwright.weights.torchvision_deeplab import TorchvisionDeepLab
from maskwright.weights.transformers_detr import TransformersDETR
from maskwright.weights.transformers_eomt import TransformersEoMT
from maskwright.weights.transformers_mask2former import TransformersMask2Former
from maskwright.weights.transformers_maskformer import TransformersMaskFormer
from maskwright.weights.transformers_segformer import TransformersSegFormer
from maskwright.weights.yolact import YolactOriginal


class ModelImporter(Importer, Protocol):
    """An importer that also knows which model to build for what it converts."""

    def model(self, state: Mapping[str, Any]) -> str:
        """The zoo's name of the model that the checkpoint fits."""
        ...

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The options of that model which reproduce the origin's conventions."""
        ...

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """The classes that the checkpoint has."""
        ...


IMPORTERS: tuple[ModelImporter, ...] = (
    Detectron2PointRend(),
    Detectron2PanopticFPN(),
    Detectron2PanopticDeepLab(),
    Detectron2MaskRCNN(),
    TorchvisionMaskRCNN(),
    AdelaiDetCondInst(),
    CenterMask2(),
    OfficialMaskScoring(),
    MMDetectionQueryInst(),
    MMDetectionTwoStage(),
    MMDetectionCondInst(),
    OfficialSOLO(),
    AdelaiDetSOLOv2(),
    MMDetectionSOLO(),
    YolactOriginal(),
    MMDetectionYolact(),
    MMDetectionRTMDetIns(),
    OfficialMask2Former(),
    TransformersMask2Former(),
    TransformersEoMT(),
    OfficialSegFormer(),
    TransformersSegFormer(),
    MMSegmentationSegFormer(),
    OfficialDETR(),
    TransformersDETR(),
    OfficialMaskFormer(),
    TransformersMaskFormer(),
    TorchvisionDeepLab(),
)


def recognize(state: Mapping[str, Tensor]) -> ModelImporter | None:
    """The importer that knows this layout of names; ``None`` for our own names or an unknown origin."""
    return next((importer for importer in IMPORTERS if importer.recognizes(state)), None)


def require_importer(state: Mapping[str, Tensor], source: str) -> ModelImporter:
    """``recognize``, or an error that names ``source`` and the origins that are understood.

    Raises:
        InputError: no importer knows the names.
    """
    importer = recognize(state)
    if importer is None:
        origins = ", ".join(known.origin for known in IMPORTERS)
        raise InputError(
            f"{source} must be a checkpoint of a known origin ({origins}) or of maskwright, "
            f"but its parameters are called {', '.join(list(state)[:3])} …. It is a checkpoint of another model."
        )
    return importer
