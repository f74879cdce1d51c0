"""Our own checkpoints: safetensors with one JSON header, read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskwright.errors import InputError
from maskwright.storage import replacing

FORMAT = 1
_KEY = "maskwright"


def save(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file to make; its directory is created when missing.
        state: names to tensors of any shape, dtype and device; tied tensors are written once a name.
        meta: JSON values (``version``, ``model``, ``options``, ``taxonomy``, ``resize``, ``card``); adds ``format``.

    Raises:
        InputError: the file cannot be written.
        TypeError: ``meta`` holds something that is no JSON value.
    """
    seen: set[tuple[int, torch.device]] = set()
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        # safetensors refuses tensors that share memory, and strided views.
        tensor = value.detach().contiguous()
        place = (tensor.untyped_storage().data_ptr(), tensor.device)
        plain[name] = (tensor.clone() if place in seen else tensor).cpu()
        seen.add(place)
    header = orjson.dumps({"format": FORMAT, **meta}).decode()
    with replacing(path) as beside:
        try:
            save_file(plain, beside, metadata={_KEY: header})
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {path}: {error}. Is the disk full? Choose another output.") from error


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save`` wrote: (names to tensors on the host, meta).

    Raises:
        InputError: the file is missing, truncated, no safetensors file, or one that maskwright did not write.
    """
    meta = read_meta(path)
    return read_tensors(path), meta


def read_meta(path: str | Path) -> dict[str, Any]:
    """The meta alone; the tensors are not read. Raises what ``read`` raises."""
    text = _open(path, lambda file: (file.metadata() or {}).get(_KEY))
    if text is None:
        raise InputError(
            f"{path} holds tensors, but maskwright did not write it: its header lacks {_KEY!r}. "
            "Name the model too, as in load('mask-rcnn-r50', weights=...)."
        )
    try:
        meta = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: the maskwright header is not JSON: {error}. The file is damaged.") from error
    version = meta.get("format") if isinstance(meta, dict) else None
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(
            f"{path} must have format {FORMAT} or older, got {version!r}. A newer maskwright wrote it: upgrade."
        )
    return meta


def is_ours(path: str | Path) -> bool:
    """Whether ``path`` is a readable safetensors file that maskwright wrote; never raises."""
    try:
        read_meta(path)
    except InputError:
        return False
    return True


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, on the host. Raises ``InputError`` as ``read`` does."""
    return _open(path, _all_tensors)


def _all_tensors(file: Any) -> dict[str, Tensor]:
    names = file.keys()
    return {name: file.get_tensor(name) for name in names}


def _open(path: str | Path, take: Any) -> Any:
    path = Path(path)
    if not path.exists():
        raise InputError(f"no checkpoint at {path}: the file does not exist. Check the path.")
    if path.is_dir():
        raise InputError(f"expected a checkpoint file, but {path} is a directory. Name the file inside it.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return take(file)
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{path} ({size} bytes) is not a whole safetensors file: {error}. It is truncated or of another kind; "
            "copy or download it again."
        ) from error
