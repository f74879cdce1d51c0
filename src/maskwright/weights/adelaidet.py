"""AdelaiDet's CondInst (and the network of its BoxInst) in our names.

Origin: aim-uofa/AdelaiDet, academic use only. Pixels are BGR, so the first convolution's input channels are reversed
here. Its checkpoints hold no pixel statistics; its ResNets are detectron2's (stride in the 1x1 convolution).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

HEAD = "proposal_generator.fcos_head."
BODY = "backbone.bottom_up."
MEAN = (123.675, 116.28, 103.53)
STD = (1.0, 1.0, 1.0)


class AdelaiDetCondInst:
    """Importer of AdelaiDet's CondInst on a ResNet with FPN."""

    origin = "adelaidet"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of AdelaiDet's CondInst on a ResNet."""
        needed = (f"{HEAD}cls_logits.weight", "controller.weight", "mask_branch.tower.0.0.weight")
        return all(name in state for name in (*needed, f"{BODY}stem.conv1.weight"))

    def model(self, state: Mapping[str, Any]) -> str:
        """``condinst-r50`` or ``-r101``, from the blocks there are."""
        return f"condinst-{resnet_depth(state)}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[f"{HEAD}cls_logits.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Stride in the 1x1 convolution, frozen norms, AdelaiDet's rules; widths and depths from the shapes."""
        depth = max(int(name.split(".")[2]) for name in state if name.startswith("mask_branch.tower."))
        return {
            **fcos_options(state),
            "rules": "adelaidet",
            "stride_in_1x1": True,
            "branch_width": int(state["mask_branch.tower.0.0.weight"].shape[0]),
            "branch_depth": depth,
            "mask_features": int(state[f"mask_branch.tower.{depth}.weight"].shape[0]),
            "semantic": "mask_branch.logits.weight" in state,
            "resize": Resize(short=800, long=1333, antialias=True),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        depth = max(int(name.split(".")[2]) for name in state if name.startswith("mask_branch.tower."))
        branch = r"mask_branch\."
        rules = [
            Rule(r"mask_head\.(sizes_of_interest|_iter)", None),
            *fcos_rules(),
            *fpn_rules(),
            *resnet_rules(),
            Rule(r"controller\.(\w+)", r"controller.\1"),
            Rule(rf"{branch}refine\.(\d)\.0\.weight", r"mask_branch.refine.\1.conv.weight"),
            Rule(rf"{branch}refine\.(\d)\.1\.(\w+)", r"mask_branch.refine.\1.norm.\2"),
            Rule(rf"{branch}tower\.{depth}\.(\w+)", r"mask_branch.output.\1"),
            Rule(rf"{branch}tower\.(\d+)\.0\.weight", r"mask_branch.tower.\1.conv.weight"),
            Rule(rf"{branch}tower\.(\d+)\.1\.(\w+)", r"mask_branch.tower.\1.norm.\2"),
            Rule(rf"{branch}seg_head\.(\d)\.0\.weight", r"mask_branch.semantic.\1.conv.weight"),
            Rule(rf"{branch}seg_head\.(\d)\.1\.(\w+)", r"mask_branch.semantic.\1.norm.\2"),
            Rule(rf"{branch}logits\.(\w+)", r"mask_branch.semantic.2.\1"),
        ]
        return {**rename(with_scales(state), rules), **pixel_statistics()}


# ---- what AdelaiDet's families and those built on its FCOS share -----------------------------------------------------


def resnet_depth(state: Mapping[str, Any]) -> str:
    """``r50`` or ``r101``."""
    names = [name.removeprefix(BODY) for name in state if name.startswith(f"{BODY}res")]
    ours = [f"layer{int(name[3]) - 1}{name[4:]}" for name in names]
    return resnet_model(ours, False).removeprefix("mask-rcnn-")


def fcos_options(state: Mapping[str, Any]) -> dict[str, Any]:
    """Norms, depths and widths that the shapes of an FCOS on a feature pyramid tell."""
    convs = [name for name in state if name.startswith(f"{HEAD}cls_tower.") and state[name].ndim == 4]
    return {
        "norm": "frozen",
        "frozen_stages": 2,
        "channels": int(state["backbone.fpn_output3.weight"].shape[0]),
        "head_depth": len(convs),
        "head_norm": "group" if f"{HEAD}cls_tower.1.weight" in state else None,
        "pixel_mean": MEAN,
        "pixel_std": STD,
    }


def fcos_rules() -> list[Rule]:
    """FCOS's head: each tower layer is a convolution, a norm and a ReLU, numbered through."""
    rules: list[Rule] = []
    for k in range(8):
        for theirs, ours in (("cls", "class"), ("bbox", "box")):
            tower = rf"proposal_generator\.fcos_head\.{theirs}_tower\."
            rules += [
                Rule(rf"{tower}{3 * k}\.(\w+)", rf"head.{ours}_tower.{k}.conv.\1"),
                Rule(rf"{tower}{3 * k + 1}\.(\w+)", rf"head.{ours}_tower.{k}.norm.\1"),
            ]
    head = r"proposal_generator\.fcos_head\."
    return [
        *rules,
        Rule(rf"{head}cls_logits\.(\w+)", r"head.class_logits.\1"),
        Rule(rf"{head}bbox_pred\.(\w+)", r"head.distances.\1"),
        Rule(rf"{head}ctrness\.(\w+)", r"head.centerness.\1"),
        Rule(r"proposal_generator\.anchor_generator\..*", None),
        Rule(r".*num_batches_tracked", None),
    ]


def fpn_rules() -> list[Rule]:
    """P3 to P5, and the convolutions that make P6 and P7."""
    rules = [Rule(r"backbone\.top_block\.p6\.(\w+)", r"neck.1.convs.0.\1")]
    rules.append(Rule(r"backbone\.top_block\.p7\.(\w+)", r"neck.1.convs.1.\1"))
    for level in (3, 4, 5):
        rules.append(Rule(rf"backbone\.fpn_(lateral|output){level}\.(\w+)", rf"neck.0.\1.{level - 3}.\2"))
    return rules


def resnet_rules() -> list[Rule]:
    """detectron2's ResNet, whose input is BGR."""
    body = r"backbone\.bottom_up\."
    rules = [
        Rule(rf"{body}stem\.conv1\.weight", "backbone.body.conv1.weight", reverse_input),
        Rule(rf"{body}stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    ]
    for stage in range(2, 6):
        block, ours = rf"{body}res{stage}\.(\d+)\.", rf"backbone.body.layer{stage - 1}.\g<1>."
        rules += [
            Rule(rf"{block}shortcut\.weight", f"{ours}downsample.0.weight"),
            Rule(rf"{block}shortcut\.norm\.(\w+)", rf"{ours}downsample.1.\2"),
            Rule(rf"{block}conv(\d)\.weight", rf"{ours}conv\2.weight"),
            Rule(rf"{block}conv(\d)\.norm\.(\w+)", rf"{ours}bn\2.\3"),
        ]
    return rules


def with_scales(state: Mapping[str, Any], prefix: str = f"{HEAD}scales.") -> dict[str, Tensor]:
    """The levels' scales, one tensor each there, as one; ``pixel_mean`` and ``pixel_std`` are left out."""
    out = {name: value for name, value in state.items() if name not in ("pixel_mean", "pixel_std")}
    scales = [out.pop(f"{prefix}{i}.scale").reshape(1) for i in range(16) if f"{prefix}{i}.scale" in out]
    return {**out, "head.scales": torch.cat(scales)}


def pixel_statistics(mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> dict[str, Tensor]:
    """The buffers of our models, in RGB."""
    return {"pixel_mean": torch.tensor(mean), "pixel_std": torch.tensor(std)}


def reverse_input(weight: Tensor) -> Tensor:
    """BGR input channels to RGB, or back."""
    return weight.flip(1)
