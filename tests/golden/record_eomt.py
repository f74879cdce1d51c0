"""Record ``eomt.json``: what transformers' EoMT computes with the weights and the picture of ``inputs`` below.

Run it where transformers 4.57.1 is installed: ``python -m tests.golden.record_eomt``. Tests read the weights' rule from
here, too; nothing of it needs transformers but ``record``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PATH = Path(__file__).with_name("eomt.json")
SIDE, QUERIES, CLASSES, POINTS = 64, 12, 5, 300
LABELS = (0, 2, 4)
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
    "num_blocks": 2,
    "num_queries": QUERIES,
    "num_labels": CLASSES,
    "train_num_points": POINTS,
}
CHANCES = {"masked": (1.0, 1.0), "plain": (0.0, 0.0), "between": (1.0, 0.4)}


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A tensor for each name, that depends on the name alone."""
    out: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
        wide = len(shape) > 1 and "embeddings" not in name and name != "query.weight"
        if wide:
            draw = draw * np.sqrt(2.0 / prod(shape[1:]))
        elif len(shape) == 1:
            draw = 0.1 * draw + (0.0 if name.endswith("bias") else 1.0)
        out[name] = torch.from_numpy(draw.astype(np.float32))
    return out


def picture() -> Tensor:
    """uint8 [3, H, W], waves and a square."""
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = [(3 * x + 31 * c) % 96 + (5 * y + 17 * c) % 120 for c in range(3)]
    waves[1][20:50, 12:40] = 240
    return torch.from_numpy(np.stack(waves).astype(np.uint8))


def masks() -> Tensor:
    """bool [3, H, W], the objects with ``LABELS``."""
    out = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    out[0, 20:50, 12:40], out[1, :18], out[2, 50:, 30:] = True, True, True
    return out


def even(*size: int, **_: Any) -> Tensor:
    """Stands in for ``torch.rand``: the same evenly spread numbers at every call."""
    numbers = (np.arange(1, prod(size) + 1, dtype=np.float64) * 0.6180339887498949) % 1.0
    return torch.from_numpy(numbers.astype(np.float32)).reshape(size)


def record() -> None:
    """Write ``eomt.json``."""
    import transformers  # pyright: ignore[reportMissingImports]

    model: Any = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**SIZE))
    skipped = ("criterion.empty_weight", "attn_mask_probs")
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if name not in skipped}
    model.load_state_dict(weights(shapes), strict=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = ((picture() / 255 - mean) / std)[None]
    out: dict[str, Any] = {"transformers": transformers.__version__, "shapes": shapes}
    torch.rand = even
    for name, chances in CHANCES.items():
        model.attn_mask_probs.copy_(torch.tensor(chances))
        if name != "between":
            with torch.no_grad():
                found = model.eval()(pixels)
            out[name] = {
                "classes": np.round(found.class_queries_logits.numpy().astype(float), 5).reshape(-1).tolist(),
                "masks": np.round(found.masks_queries_logits.numpy().astype(float), 4).reshape(-1)[::7].tolist(),
            }
        layers: list[dict[str, float]] = []
        keep = model.get_loss_dict

        def spy(*args: Any, _layers: list[dict[str, float]] = layers, _keep: Any = keep, **options: Any) -> Any:
            losses = _keep(*args, **options)
            _layers.append({key: float(value) for key, value in losses.items()})
            return losses

        model.get_loss_dict = spy
        total = model.train()(pixels, mask_labels=[masks().float()], class_labels=[torch.tensor(LABELS)]).loss
        model.get_loss_dict = keep
        out.setdefault(name, {}).update(losses=layers, total=float(total))
    PATH.write_text(json.dumps(out))


if __name__ == "__main__":
    record()
