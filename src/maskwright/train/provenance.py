"""Where a run comes from: a hash of its data, the state of the code's and the working directory's git, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from maskwright.data.source import Loads, image_sizes
from maskwright.structures import LabelMap, Record, Region, Shape

_SECONDS = 10.0


def provenance(
    sources: Mapping[str, Loads], paths: Mapping[str, str] | None = None, *, directory: Path | None = None
) -> dict[str, Any]:
    """What the run directory must say of where a run comes from; JSON values.

    Args:
        sources: role (``"train"``, ``"val"``) -> data.
        paths: role -> what was typed for it.
        directory: whose git state is meant; the working directory by default.

    Returns:
        ``{"data": {role: {"path", "hash", "images", "objects", "classes"}}, "git": {"commit", "branch", "dirty",
        "diff"} or None, "machine": {...}}``.
    """
    found: dict[str, Any] = {}
    for role, source in sources.items():
        digest, objects = data_hash(source)
        found[role] = {
            "path": str((paths or {}).get(role, "")),
            "hash": digest,
            "images": len(source),
            "objects": objects,
            "classes": len(source.taxonomy),
        }
    return {"data": found, "git": git_state(directory or Path.cwd()), "machine": machine()}


def data_hash(source: Loads) -> tuple[str, int]:
    """A hash of names, sizes, classes and annotations of all images in their order, and how many objects there are.

    Pixels are not read: a picture that was changed under its name is not noticed, nor is a label map in a file of its
    own, of which the name and the length count.
    """
    digest = hashlib.sha256()
    digest.update(orjson.dumps(source.taxonomy.to_json()))
    digest.update(np.ascontiguousarray(image_sizes(source), np.int64).tobytes())
    objects = 0
    for index in range(len(source)):
        record = source.record(index)
        objects += len(record)
        for part in _parts(record):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()[:16], objects


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit, branch, whether tracked files differ from it (``dirty``), and a hash of how; ``None`` outside of git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    branch = _git(directory, "rev-parse", "--abbrev-ref", "HEAD")
    diff = _git(directory, "diff", "HEAD") or ""
    changed = hashlib.sha256(diff.encode("utf-8", "surrogateescape")).hexdigest()[:16] if diff else None
    return {"commit": commit, "branch": branch, "dirty": bool(diff), "diff": changed}


def machine() -> dict[str, Any]:
    """System, processor cores and GPUs."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    return {"system": platform.platform(), "cores": os.cpu_count(), "gpus": gpus, "cuda": torch.version.cuda}


def _parts(record: Record) -> list[bytes]:
    parts = [record.key.encode("utf-8", "surrogateescape")]
    for values in (record.labels, record.boxes, record.crowd, record.ids, record.areas):
        parts.append(np.ascontiguousarray(values).tobytes())
    for shape in record.shapes:
        parts.append(_plain(shape))
    for map_ in (record.semantic, record.panoptic):
        parts.append(_plain(map_))
    return parts


def _plain(value: Shape | LabelMap | np.ndarray) -> bytes:
    """An outline or a map as bytes: numbers by their contents, maps in files by name and length."""
    if value is None:
        return b""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).tobytes()
    if isinstance(value, LabelMap | Region):
        length = value.path.stat().st_size if value.path.exists() else -1
        which = getattr(value, "value", None)
        return f"{value.path.name} {length} {which}".encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        counts = value["counts"]
        return counts.encode() if isinstance(counts, str) else bytes(counts)
    return b"".join(np.ascontiguousarray(polygon, np.float64).tobytes() for polygon in value)


def _git(directory: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words], capture_output=True, timeout=_SECONDS, check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "surrogateescape").strip()
