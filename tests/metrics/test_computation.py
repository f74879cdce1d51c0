"""What a model costs: torchvision's published figures, sums by hand, a clock that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_weight
from torchvision.ops import DeformConv2d

from maskwright.metrics.computation import (
    Stopwatch,
    costs,
    count_flops,
    count_parameters,
    file_size,
    measure_latency,
    peak_device_memory,
)

# ---- operations -----------------------------------------------------------------------------------------------------

PUBLISHED = {
    "resnet50": ("ResNet50_Weights.IMAGENET1K_V2", 224),
    "vit_b_16": ("ViT_B_16_Weights.IMAGENET1K_V1", 224),
    "deeplabv3_resnet50": ("DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1", 520),
    "fcn_resnet50": ("FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1", 520),
}
"""torchvision counts multiply-adds of one picture of the size that its preprocessing makes (520 for segmentation, with
the auxiliary head, which runs in evaluation too)."""


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_operations_and_parameters(name: str) -> None:
    weights, size = PUBLISHED[name]
    published = get_weight(weights).meta
    options: dict[str, Any] = {"weights_backbone": None, "aux_loss": True} if size == 520 else {}
    with torch.device("meta"):
        model = get_model(name, weights=None, **options)
    got = count_flops(model, [torch.zeros(1, 3, size, size, device="meta")], pretend=True)
    assert got["macs"] / 1e9 == pytest.approx(published["_ops"], abs=6e-4)  # published to three digits
    assert got["flops"] == 2 * got["macs"] == sum(got["by_module"].values()) == sum(got["by_operator"].values())
    assert count_parameters(model)["parameters"] == published["num_params"]


@pytest.mark.parametrize(("name", "detections"), [("maskrcnn_resnet50_fpn", 0), ("maskrcnn_resnet50_fpn_v2", 100)])
def test_published_operations_of_mask_rcnn(name: str, detections: int) -> None:
    # A picture of 800 x 800 gives 1000 proposals; of its noise the first model published made no detections, the second
    # 100. A whole run needs values, and seconds: benchmarks/model_speed.py. So stage by stage here.
    weights = {0: "MaskRCNN_ResNet50_FPN_Weights.COCO_V1", 100: "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1"}[detections]
    with torch.device("meta"):
        model: Any = get_model(name, weights=None, weights_backbone=None)
    heads = model.roi_heads
    levels = [torch.zeros(1, 256, side, side, device="meta") for side in (200, 100, 50, 25, 13)]
    regions = torch.zeros(1000, 256, 7, 7, device="meta")
    found = torch.zeros(max(detections, 1), 256, 14, 14, device="meta")
    stages = [
        (model.backbone, torch.zeros(1, 3, 800, 800, device="meta"), 1),
        (model.rpn.head, levels, 1),
        (heads.box_head, regions, 1),
        (heads.box_predictor, torch.zeros(1000, 1024, device="meta"), 1),
        (nn.Sequential(heads.mask_head, heads.mask_predictor), found, int(detections > 0)),
    ]
    total = sum(times * count_flops(stage, [given], pretend=True)["macs"] for stage, given, times in stages)
    assert total / 1e9 == pytest.approx(get_weight(weights).meta["_ops"], abs=6e-4)


def test_operations_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    got = count_flops(model, [torch.rand(2, 3, 8, 8)])
    convolution, product = 2 * 2 * 8 * 8 * 8 * 3 * 9, 2 * 2 * 512 * 5
    assert got["by_module"] == {"0": convolution, "4": product}
    assert got["flops"] == convolution + product
    assert count_flops(model, [torch.rand(2, 3, 8, 8)], pretend=True) == got


def test_attention_and_deformable_convolution_are_not_lost() -> None:
    attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    # 4 projections of 16 x 16, 2 products with 5 keys, 2 layers of 16 x 32, for 5 places of 1 sequence
    macs = 5 * (4 * 16 * 16 + 2 * 5 * 16 + 2 * 16 * 32)
    assert count_flops(attention, [torch.rand(1, 5, 16)])["macs"] == macs
    assert torch.backends.mha.get_fastpath_enabled()
    deformable = DeformConv2d(4, 6, 3, padding=1)
    got = count_flops(deformable, [torch.rand(2, 4, 7, 7), torch.zeros(2, 18, 7, 7)])
    assert got["macs"] == 2 * 7 * 7 * 6 * 4 * 9


def test_counting_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout()).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(model, [torch.rand(3, 1, 4, 4)])
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_depth_and_options() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))

        def forward(self, x: torch.Tensor, *, twice: bool = False) -> torch.Tensor:
            return self.body(x) + self.body(x) if twice else self.body(x)

    one, two = (count_flops(Net(), [torch.rand(1, 2)], {"twice": twice}, depth=2) for twice in (False, True))
    assert one["by_module"] == {"body": 36, "body.0": 12, "body.1": 24}
    assert two["flops"] == 2 * one["flops"]
    assert list(count_flops(Net(), [torch.rand(1, 2)])["by_module"]) == ["body"]


def test_parameters_and_files(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False))
    model.append(model[2])
    model[0].bias.requires_grad_(False)
    got = count_parameters(model.half())
    assert got["parameters"] == 16 + 8 + 16
    assert got["trainable"] == 36
    assert got["buffers"] == 9
    assert got["bytes"] == 2 * (40 + 8) + 8  # the number of batches seen is an int64
    assert got["by_module"] == {"0": 16, "1": 8, "2": 16}
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "in" / "b").write_bytes(b"123")
    assert (file_size(tmp_path / "a"), file_size(tmp_path)) == (5, 8)
    with pytest.raises(FileNotFoundError):
        file_size(tmp_path / "absent")


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_memory_of_a_device_is_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    answers = {"memory_allocated": 100, "max_memory_allocated": 350}
    for name in ("synchronize", "memory_allocated", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: (calls.append(name), answers.get(name))[1])
    got = peak_device_memory(lambda: calls.append("call"))
    assert got == {"before": 100, "peak": 350, "added": 250}
    order = "call synchronize memory_allocated reset_peak_memory_stats call synchronize max_memory_allocated"
    assert calls == order.split()


# ---- time -----------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_and_percentiles() -> None:
    clock = Clock()
    watch = Stopwatch(warmup=2, clock=clock)
    for i in range(102):
        with watch.run(images=4):
            for _ in range(2):
                with watch.stage("read"):
                    clock.now += 0.001
            if i >= 2:
                with watch.stage("forward"):
                    clock.now += 0.001 * (i - 1)  # 1 .. 100 ms
            clock.now += 0.003 if i >= 2 else 100.0
    got = watch.compute()
    assert len(watch) == got["runs"] == 100
    assert got["images"] == 400
    whole = np.arange(1, 101) + 5.0
    for name, p in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert got["end_to_end"][name] == pytest.approx(np.percentile(whole, p))
        assert got["stages"]["read"][name] == pytest.approx(2.0)
        assert got["stages"]["rest"][name] == pytest.approx(3.0)
    assert got["stages"]["forward"]["mean"] == pytest.approx(50.5)
    assert sum(stage["share"] for stage in got["stages"].values()) == pytest.approx(1.0)
    assert got["images_per_second"] == pytest.approx(400 / (whole.sum() / 1000))
    assert got["threads"] == torch.get_num_threads()
    json.dumps(got)


def test_runs_that_raise_do_not_count_and_nesting_is_refused() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.run(), watch.stage("read"):
        raise KeyError
    with pytest.raises(RuntimeError, match="no run was counted"):
        watch.compute()
    with pytest.raises(RuntimeError, match="must lie in a run"), watch.stage("read"):
        pass
    with watch.run():
        with watch.stage("a"), pytest.raises(RuntimeError, match="in no other stage"), watch.stage("b"):
            pass
        with pytest.raises(RuntimeError, match="cannot be nested"), watch.run():
            pass
    with pytest.raises(ValueError, match="at least 1 image"), watch.run(0):
        pass
    with pytest.raises(ValueError, match="warmup"):
        Stopwatch(warmup=-1)
    assert list(watch.compute()["stages"]) == ["a", "rest"]


def test_a_device_is_waited_for_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waits.append(f"wait {device}"))
    watch = Stopwatch(device="cuda:1")
    with watch.run(), watch.stage("forward"):
        waits.append("work")
    assert waits == ["wait cuda:1", "wait cuda:1", "work", "wait cuda:1", "wait cuda:1"]


def test_latency_warms_up_and_gives_threads_back() -> None:
    before, seen = torch.get_num_threads(), []

    def call(watch: Stopwatch) -> None:
        with watch.stage("forward"):
            seen.append(torch.get_num_threads())

    got = measure_latency(call, runs=4, warmup=3, images=2, threads=before + 1)
    assert seen == [before + 1] * 7
    assert (got["runs"], got["images"], got["warmup"], got["threads"]) == (4, 8, 3, before + 1)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="runs"):
        measure_latency(call, runs=0)


def test_costs_of_a_model_go_into_json(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    got = costs(model, [torch.rand(2, 3, 9, 9)], file=tmp_path / "w.pt", images=2, runs=3, warmup=1)
    assert set(json.loads(json.dumps(got))) == {"parameters", "operations", "latency", "file_bytes"}
    assert got["operations"]["macs"] == 2 * 7 * 7 * 4 * 27
    assert got["latency"]["images"] == 6
    assert got["file_bytes"] == (tmp_path / "w.pt").stat().st_size
    assert model.training
    assert model[1].training
