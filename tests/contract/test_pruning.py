"""Every kind of body and head can be pruned, computes what is left, and is saved and opened again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskwright import zoo
from maskwright.nn.chains import Chain, chains
from maskwright.nn.prune import choose, cut, silenced
from maskwright.protocols import Model
from maskwright.weights import store
from tests.contract.test_models import SIDE, network, pictures, shallow

SOME = (
    "mask-rcnn-r50",
    "rtmdet-ins-tiny",
    "yolact-mobilenetv3",
    "mask2former-instance-r50",
    "detr-r50",
    "segformer-b0",
    "panoptic-deeplab-mobilenetv3",
)
"""Two stages, CSPNeXt, inverted residuals, Swin, transformers, Mix-FFN, separable decoders."""


def prunable(name: str) -> Model:
    return shallow(name)


def pruned(model: Model, share: float) -> tuple[Any, dict[str, int]]:
    out: Any = copy.deepcopy(model)
    widths = cut(out, choose(out, share))
    label, options = out.built
    out.built = (label, {**options, "pruned": widths})
    return out, widths


def owner(chain: Chain, layers: dict[str, nn.Module]) -> str:
    """The smallest module that holds a whole chain and is called."""
    parts = [member.path.split(".") for member in chain.members]
    path = parts[0]
    while any(other[: len(path)] != path for other in parts) or isinstance(layers[".".join(path)], nn.ModuleList):
        path = path[:-1]
    return ".".join(path)


@pytest.mark.parametrize("name", SOME)
def test_what_is_left_computes_what_it_did(name: str) -> None:
    """Each block alone, on what it is given: a network's later stages choose regions, which rounding may exchange."""
    model = shallow(name)
    net = network(model)
    found = chains(net)
    kept = choose(net, 0.4)
    quiet, (slim, widths) = silenced(net, kept).eval(), pruned(model, 0.4)
    assert widths
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    layers, slimmer = dict(quiet.named_modules()), dict(slim.named_modules())
    blocks = sorted({owner(chain, layers) for chain in found.values()})
    given: dict[str, tuple[Any, list[Any]]] = {}

    def keep(block: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            given.setdefault(block, (copy.deepcopy(inputs), [leaf.clone() for leaf in tensors(output)]))

        return hook

    for block in blocks:
        layers[block].register_forward_hook(keep(block))
    with torch.no_grad():
        quiet(pictures((SIDE, SIDE)))
        assert given
        for block, (inputs, wanted) in given.items():
            for a, b in zip(tensors(slimmer[block](*inputs)), wanted, strict=True):
                assert a.shape == b.shape, block
                assert b.numel() == 0 or float((a - b).abs().max()) <= 1e-4 * float(b.abs().max()) + 1e-6, block


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@pytest.mark.parametrize("name", SOME)
def test_a_pruned_model_is_saved_and_opened(name: str, tmp_path: Path) -> None:
    slim, widths = pruned(shallow(name), 0.4)
    store.save(tmp_path / "slim.safetensors", slim.state_dict(), zoo.describe(slim))
    again: Any = zoo.load(tmp_path / "slim.safetensors")
    assert again.report.complete
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in slim.state_dict().items()}
    assert zoo.describe(again)["options"]["pruned"] == widths
    inputs = pictures((SIDE, SIDE))
    with torch.no_grad():
        wanted = slim.eval().predict(slim(inputs), inputs.geometry)[0]
        found = again.predict(again(inputs), inputs.geometry)[0]
    for part in ("semantic", "panoptic"):
        a, b = getattr(found, part), getattr(wanted, part)
        assert (a is None and b is None) or torch.equal(a, b)
    if wanted.segments is not None:
        assert torch.equal(found.segments.scores, wanted.segments.scores)
        assert found.segments.masks.rle() == wanted.segments.masks.rle()


def test_a_share_of_zero_is_the_same_model() -> None:
    model = shallow("mask-rcnn-r50")
    slim, widths = pruned(model, 0.0)
    assert widths == {}
    own = network(model).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in slim.state_dict().items())


def test_a_pruned_model_is_pruned_again() -> None:
    slim, widths = pruned(shallow("mask-rcnn-r50"), 0.4)
    slimmer, more = pruned(slim, 0.4)
    name, options = slimmer.built
    assert set(more) <= set(widths)
    assert all(more[key] < widths[key] for key in more)
    again: Any = zoo.build(name, slim.taxonomy, **{**options, "pruned": {**widths, **more}})
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in slimmer.state_dict().items()}
