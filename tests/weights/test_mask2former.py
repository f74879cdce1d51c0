"""Which Mask2Former a checkpoint is, from its names and shapes."""

from __future__ import annotations

import pytest
import torch

from maskwright.errors import InputError
from maskwright.weights.mask2former import (
    OfficialMask2Former,
    split_projections,
    swin_row,
    task_of,
    taxonomy_of,
)

TABLE = ".attn.relative_position_bias_table"


def swin(heads: int, blocks: int, window: int) -> dict[str, torch.Tensor]:
    side = 2 * window - 1
    state = {f"layers.2.blocks.{i}{TABLE}": torch.zeros(1) for i in range(blocks)}
    return {**state, f"layers.0.blocks.0{TABLE}": torch.zeros(side * side, heads)}


@pytest.mark.parametrize(
    ("numbers", "row"),
    [
        ((3, 6, 7), ("swin-t", None)),
        ((3, 18, 7), ("swin-s", None)),
        ((4, 18, 12), ("swin-b", None)),
        ((4, 18, 7), ("swin-b", "swin_base_patch4_window7_224")),
        ((6, 18, 12), ("swin-l", None)),
    ],
)
def test_swins_by_heads_blocks_and_windows(numbers: tuple[int, int, int], row: tuple[str, str | None]) -> None:
    assert swin_row(swin(*numbers), "layers.", TABLE) == row


def test_an_unknown_swin_is_named() -> None:
    with pytest.raises(InputError, match="5 heads, 6 blocks in the third stage and windows of 7"):
        swin_row(swin(5, 6, 7), "layers.", TABLE)


def test_tasks_and_classes() -> None:
    assert [task_of(*numbers) for numbers in ((80, 100), (133, 200), (150, 100), (150, 200), (8, 100), (19, 100))] == [
        "instance", "panoptic", "semantic", "panoptic", "instance", "semantic",
    ]  # fmt: skip
    assert taxonomy_of(133).thing.count(False) == 53
    assert len(taxonomy_of(80)) == 80
    assert taxonomy_of(19).names[0] == "class 1"


def test_joined_projections_are_split_and_old_names_understood() -> None:
    joined = torch.arange(12.0).view(6, 2)
    prefix = "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn."
    parts = split_projections({f"{prefix}in_proj_weight": joined, "other": joined})
    assert torch.equal(parts[f"{prefix}value.weight"], joined[4:])
    assert torch.equal(parts["other"], joined)
    ours = OfficialMask2Former().convert(
        {f"{prefix}in_proj_weight": joined, "sem_seg_head.predictor.static_query.weight": joined}
    )
    assert torch.equal(ours["decoder.layers.0.among.key.weight"], joined[2:4])
    assert torch.equal(ours["decoder.features"], joined)
