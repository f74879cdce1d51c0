"""CenterMask2 on a ResNet or VoVNetV2 in our names.

Origin: youngwanLEE/centermask2, non-commercial. It is built on detectron2 and AdelaiDet's FCOS; VoVNet's names contain
slashes. Pixels are BGR, so the first convolution's input channels are reversed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.adelaidet import (
    BODY,
    HEAD,
    fcos_options,
    fcos_rules,
    fpn_rules,
    pixel_statistics,
    resnet_depth,
    resnet_rules,
    reverse_input,
    with_scales,
)
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename

_MASK = "roi_heads.mask_head."
_IOU = "roi_heads.maskiou_head."
_VOVNETS: dict[tuple[int, bool, tuple[int, ...], bool], str] = {
    (3, True, (1, 1, 1, 1), True): "v19_slim_dw",
    (3, False, (1, 1, 1, 1), True): "v19_dw",
    (3, True, (1, 1, 1, 1), False): "v19_slim",
    (3, False, (1, 1, 1, 1), False): "v19",
    (5, False, (1, 1, 2, 2), False): "v39",
    (5, False, (1, 1, 4, 3), False): "v57",
    (5, False, (1, 3, 9, 3), False): "v99",
}
"""By layers a block, slim, blocks a stage, separable."""


class CenterMask2:
    """Importer of CenterMask2."""

    origin = "centermask2"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of CenterMask2 on a ResNet or VoVNet."""
        needed = (f"{HEAD}cls_logits.weight", f"{_MASK}predictor.weight", "backbone.fpn_lateral3.weight")
        stems = (f"{BODY}stem.conv1.weight", f"{BODY}stem.stem_1/conv.weight")
        return all(name in state for name in needed) and any(name in state for name in stems)

    def model(self, state: Mapping[str, Any]) -> str:
        """``centermask-r50``, ``-v39`` or ``-lite``, from the blocks there are and the pyramid's width."""
        if int(state["backbone.fpn_output3.weight"].shape[0]) == 128:
            return "centermask-lite"
        body = _body(state)
        if body not in ("resnet50", "v39"):
            raise InputError(f"the checkpoint's body must be a ResNet-50 or VoVNetV2-39, got {body}.")
        return "centermask-r50" if body == "resnet50" else "centermask-v39"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[f"{HEAD}cls_logits.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Frozen norms, CenterMask2's rules, widths and depths from the shapes."""
        body, lite = _body(state), self.model(state) == "centermask-lite"
        scored = f"{_IOU}maskiou.weight" in state
        masks = int(state[f"{_MASK}predictor.weight"].shape[0])
        return {
            **fcos_options(state),
            "rules": "centermask2",
            "stride_in_1x1": body.startswith("resnet"),
            "mask_width": int(state[f"{_MASK}deconv.weight"].shape[0]),
            "mask_depth": sum(f"{_MASK}mask_fcn{k}.weight" in state for k in range(1, 9)),
            **({"iou_hidden": int(state[f"{_IOU}maskiou_fc1.weight"].shape[0])} if scored else {}),
            "attention": f"{_MASK}spatialAtt.conv.weight" in state,
            "mask_scoring": scored,
            "agnostic_mask": masks == 1 and int(state[f"{HEAD}cls_logits.weight"].shape[0]) > 1,
            "resize": Resize(short=600, long=1000) if lite else Resize(short=800, long=1333),
            **({"body": body} if lite else {}),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        body = resnet_rules() if _body(state).startswith("resnet") else _vovnet_rules()
        rules = [*fcos_rules(), *fpn_rules(), *body]
        mask, iou = r"roi_heads\.mask_head\.", r"roi_heads\.maskiou_head\."
        for k in range(1, 9):
            rules += [
                Rule(rf"{mask}mask_fcn{k}\.(\w+)", rf"mask_head.convs.{k - 1}.\1"),
                Rule(rf"{iou}maskiou_fcn{k}\.(\w+)", rf"iou_head.convs.{k - 1}.\1"),
                Rule(rf"{iou}maskiou_fc{k}\.(\w+)", rf"iou_head.fcs.{k - 1}.\1"),
            ]
        rules += [
            Rule(rf"{mask}spatialAtt\.conv\.weight", "mask_head.attention.weight"),
            Rule(rf"{mask}deconv\.(\w+)", r"mask_head.upsample.\1"),
            Rule(rf"{mask}predictor\.(\w+)", r"mask_head.predictor.\1"),
            Rule(rf"{iou}maskiou\.(\w+)", r"iou_head.iou.\1"),
        ]
        return {**rename(with_scales(state), rules), **pixel_statistics()}


def _vovnet_rules() -> list[Rule]:
    body = r"backbone\.bottom_up\."
    end = r"(weight|bias|running_mean|running_var)"
    rules: list[Rule] = []
    for k in (1, 2, 3):
        change = reverse_input if k == 1 else None
        rules += [
            Rule(rf"{body}stem\.stem_{k}/conv\.weight", f"backbone.stem.{k - 1}.conv.weight", change),
            Rule(rf"{body}stem\.stem_{k}/norm\.{end}", rf"backbone.stem.{k - 1}.norm.\1"),
            Rule(rf"{body}stem\.stem_{k}/dw_conv3x3\.weight", f"backbone.stem.{k - 1}.depth.weight"),
            Rule(rf"{body}stem\.stem_{k}/pw_conv1x1\.weight", f"backbone.stem.{k - 1}.conv.weight"),
            Rule(rf"{body}stem\.stem_{k}/pw_norm\.{end}", rf"backbone.stem.{k - 1}.norm.\1"),
        ]
    for stage in range(2, 6):
        for block in range(1, 12):
            theirs = rf"{body}stage{stage}\.OSA{stage}_{block}\."
            ours = f"backbone.stages.{stage - 2}.{block - 1}"
            layer = rf"{theirs}layers\.(\d+)\.[^/]+/"
            rules += [
                Rule(rf"{layer}conv\.weight", rf"{ours}.layers.\1.conv.weight"),
                Rule(rf"{layer}norm\.{end}", rf"{ours}.layers.\1.norm.\2"),
                Rule(rf"{layer}dw_conv3x3\.weight", rf"{ours}.layers.\1.depth.weight"),
                Rule(rf"{layer}pw_conv1x1\.weight", rf"{ours}.layers.\1.conv.weight"),
                Rule(rf"{layer}pw_norm\.{end}", rf"{ours}.layers.\1.norm.\2"),
                Rule(rf"{theirs}conv_reduction\.[^/]+/conv\.weight", f"{ours}.reduce.conv.weight"),
                Rule(rf"{theirs}conv_reduction\.[^/]+/norm\.{end}", rf"{ours}.reduce.norm.\1"),
                Rule(rf"{theirs}concat\.[^/]+/conv\.weight", f"{ours}.concat.conv.weight"),
                Rule(rf"{theirs}concat\.[^/]+/norm\.{end}", rf"{ours}.concat.norm.\1"),
                Rule(rf"{theirs}ese\.fc\.(\w+)", rf"{ours}.attention.fc.\1"),
            ]
    return rules


def _body(state: Mapping[str, Any]) -> str:
    """``resnet50``, ``resnet101`` or a VoVNet's name, from the blocks there are."""
    if f"{BODY}stem.conv1.weight" in state:
        return {"r50": "resnet50", "r101": "resnet101"}.get(resnet_depth(state), "resnet")
    blocks, layers, separable = [0, 0, 0, 0], 0, False
    for name in state:
        found = re.match(rf"{re.escape(BODY)}stage(\d)\.OSA\d_(\d+)\.(?:layers\.(\d+)\.)?", name)
        if found:
            stage = int(found[1]) - 2
            blocks[stage] = max(blocks[stage], int(found[2]))
            layers = max(layers, int(found[3] or 0) + 1)
            separable |= "/dw_conv3x3" in name
    first = f"{BODY}stage2.OSA2_1.concat.OSA2_1_concat/conv.weight"
    slim = int(state[first].shape[0]) < 256
    known = _VOVNETS.get((layers, slim, tuple(blocks), separable))
    if known is None:
        raise InputError(f"the checkpoint's body must be a VoVNetV2, got {blocks} blocks of {layers} layers.")
    return known
