"""Claim: Mask2Former on Swin-T at 480 x 640 takes <= 1 / 2 of transformers' time in bf16 against its fp32, and <= 1/1.2
of its time under autocast, on one core that multiplies bf16 in hardware. Elsewhere fp32 is compared with fp32.

Both networks have the same random weights, which go through the importer that users run; classes are spread so that
some 20 queries take part in the panoptic map. ``forward`` is from pixels to logits (transformers is spared the
normalization of its pixels), ``panoptic`` is that and the segments of the picture: ``predict`` here, which makes
run-lengths too, ``post_process_panoptic_segmentation`` there. Logits and maps must agree before anything is timed. Runs
are interleaved; the figures are ratios of medians. ``--parts`` times the parts of ours.

    python benchmarks/mask2former_speed.py [--rounds 7] [--threads 1] [--parts] [--json]

It needs transformers: pip install transformers
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor, SwinConfig

from maskwright import zoo
from maskwright.ops.hardware import has_bf16
from maskwright.structures import Geometry, Images, Taxonomy
from maskwright.weights.mask2former import MEAN, STD
from maskwright.weights.report import load_state
from maskwright.weights.transformers_mask2former import TransformersMask2Former

SIZE, CLASSES, TAKING_PART, OVERLAP = (480, 640), 133, 20, 0.0
SPREAD = 2.0
"""Standard deviation of class logits and of the masks' embeddings among queries."""
Timed = Callable[[], Any]


def peer_model(normalized: Tensor) -> Any:
    """transformers' Mask2Former on Swin-T, random but not constant on this picture."""
    body = SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(backbone_config=body, num_queries=100, num_labels=CLASSES)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    decoder = model.model.transformer_module
    embed = [m for m in decoder.decoder.mask_predictor.mask_embedder.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():  # random queries are all alike; let classes and masks show how they differ, as if trained
        decoder.queries_features.weight.normal_()
        found: list[Tensor] = []
        for layer in (embed, model.class_predictor):
            handle = layer.register_forward_hook(lambda _, __, out: found.append(out))
            model(pixel_values=normalized)
            handle.remove()
            values = found[-1].reshape(-1, layer.out_features)
            layer.bias.sub_(values.mean(0))
            spread = SPREAD / float((values - values.mean(0)).std())
            layer.weight.mul_(spread)
            layer.bias.mul_(spread)
    return model


def our_model(peer: Any) -> Any:
    """Ours with the peer's weights."""
    importer, state = TransformersMask2Former(), peer.state_dict()
    taxonomy = importer.taxonomy(state)
    model: Any = zoo.build(importer.model(state), taxonomy, **importer.options(state))
    if not load_state(model, importer.convert(state), source="transformers").complete:
        raise RuntimeError("not all weights of transformers have a place here")
    return model.eval()


def median(times: list[float]) -> float:
    return 1e3 * statistics.median(times)


def interleaved(ways: dict[str, Timed], rounds: int) -> dict[str, float]:
    """Median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first is for warming up
                times[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in times.items()}


def agree(ours: Any, theirs: Any) -> None:
    """Stop unless the logits are the same."""
    for name, got, want in (
        ("classes", ours.class_logits, theirs.class_queries_logits),
        ("masks", ours.mask_logits, theirs.masks_queries_logits),
    ):
        worst = float((got - want).abs().max() / want.abs().max())
        if worst > 1e-3:
            raise RuntimeError(f"{name} differ by {worst:.2g} of the largest logit")


def parts_of(model: Any, inputs: Images) -> dict[str, float]:
    """Milliseconds of one forward and its stages, by hooks: the whole of each module that is named."""
    named: dict[str, list[nn.Module]] = {
        "backbone": [model.backbone],
        "pixel decoder": [model.pixel_decoder],
        "its encoder": list(model.pixel_decoder.layers),
        "deformable attention in it": [layer.attention for layer in model.pixel_decoder.layers],
        "decoder": [model.decoder],
        "its layers": list(model.decoder.layers),
    }
    spent = dict.fromkeys(named, 0.0)
    begun: dict[nn.Module, float] = {}
    handles: list[Any] = []
    for name, modules in named.items():
        for module in modules:

            def begin(m: nn.Module, _: Any) -> None:
                begun[m] = time.perf_counter()

            def end(m: nn.Module, _: Any, __: Any, name: str = name) -> None:
                spent[name] += time.perf_counter() - begun[m]

            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    start = time.perf_counter()
    model(inputs)
    whole = time.perf_counter() - start
    for handle in handles:
        handle.remove()
    return {"forward": 1e3 * whole, **{name: 1e3 * seconds for name, seconds in spent.items()}}


@torch.no_grad()
def main() -> None:
    """Check that both agree, then time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 15, 20) * 255, SIZE, mode="bicubic").clamp(0, 255)
    inputs = Images(pixels=pixels.to(torch.uint8), geometry=(Geometry.identity(SIZE),))
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    normalized = (inputs.pixels.float() - mean) / std
    peer = peer_model(normalized)
    model = our_model(peer)
    raw, out = model(inputs), peer(pixel_values=normalized)
    agree(raw.layers[-1], out)
    scores, labels = raw.layers[-1].class_logits[0].softmax(-1).max(-1)
    taking = scores[labels < CLASSES].sort(descending=True).values
    threshold = float(taking[min(TAKING_PART, len(taking) - 1)])
    model.score_threshold = threshold
    model.rule = type(model.rule)(
        direct=model.rule.direct, overlap=OVERLAP, claim=model.rule.claim, weighted=model.rule.weighted
    )
    processor = Mask2FormerImageProcessor()
    # all are things: where stuff is merged, transformers numbers what comes next as something before
    model.taxonomy = Taxonomy(names=model.taxonomy.names)

    def theirs(found: Any) -> Tensor:
        return processor.post_process_panoptic_segmentation(
            found,
            threshold=threshold,
            overlap_mask_area_threshold=OVERLAP,
            label_ids_to_fuse=set(),
            target_sizes=[SIZE],
        )[0]["segmentation"]

    ours = model.predict(raw, inputs.geometry)[0].panoptic
    wanted = theirs(out).clamp(min=0)
    if float((ours != wanted).float().mean()) > 1e-3:
        raise RuntimeError(f"the panoptic maps differ in {int((ours != wanted).sum())} pixels of {ours.numel()}")
    if int(ours.max()) < 2:
        raise RuntimeError(f"the map must have several segments to be worth timing, it has {int(ours.max())}")
    ways: dict[str, Timed] = {
        "ours forward": lambda: model(inputs),
        "transformers forward": lambda: peer(pixel_values=normalized),
        "ours panoptic": lambda: model.predict(model(inputs), inputs.geometry),
        "transformers panoptic": lambda: theirs(peer(pixel_values=normalized)),
    }
    bf16 = has_bf16(torch.device("cpu"))
    if bf16:

        def cast(way: Timed) -> Timed:
            def run() -> Any:
                with torch.autocast("cpu", torch.bfloat16):
                    return way()

            return run

        ways |= {"ours forward, bf16": cast(ways["ours forward"])}
        ways |= {"transformers forward, bf16": cast(ways["transformers forward"])}
    medians = interleaved(ways, options.rounds)
    pairs = [("transformers forward", "ours forward"), ("transformers panoptic", "ours panoptic")]
    if bf16:
        pairs += [("transformers forward", "ours forward, bf16"), ("transformers forward, bf16", "ours forward, bf16")]
    ratios = {f"{a} / {b}": medians[a] / medians[b] for a, b in pairs}
    parts = parts_of(model, inputs) if options.parts else {}
    if options.json:
        print(json.dumps({"threads": options.threads, "bf16": bf16, "ms": medians, "ratios": ratios, "parts": parts}))
        return
    print(f"segments in the map: {int(ours.max())}; bf16 in hardware: {'yes' if bf16 else 'no, so fp32 alone'}")
    for name, value in {**medians, **{f"part: {name}": value for name, value in parts.items()}}.items():
        print(f"{name:40} {value:8.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")


if __name__ == "__main__":
    main()
