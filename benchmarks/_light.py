"""What benchmarks of families share: a light model's backbone begun from the shipped weights, and figures kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskwright.storage import replacing
from maskwright.weights import store
from maskwright.weights.table import find, packaged


def begin_backbone(backbone: Any) -> None:
    """Copy into a ResNet-18 what the weights that ship with the package have of one."""
    path = packaged(find("embedded"))
    if path is None:
        raise FileNotFoundError("this installation has no embedded weights; install the package whole")
    known, own = store.read(path)[0], backbone.state_dict()
    start = {key: known[f"backbone.{key}"].float() for key in own if f"backbone.{key}" in known}
    if len(start) < 75:
        raise ValueError(f"the backbone must be a ResNet-18 with the shipped weights' names, {len(start)} names fit")
    backbone.load_state_dict({**own, **start})


def keep_json(file: Path, known: dict[str, Any]) -> None:
    """Write figures to a file, and print them as one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as beside:
        beside.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(known), flush=True)
