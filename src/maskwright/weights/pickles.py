"""Checkpoints of other projects, read without running the code that a pickle may carry."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.weights import store

_WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict")
_LEGACY_TORCH = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_PLAIN_KINDS = "biufcSU"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the host; the kind of file is recognized from its first bytes.

    Understood: detectron2's pickles of numpy arrays, ``torch.save`` files (zip and legacy) and safetensors; wrappers
    such as ``{"model": ...}`` and ``{"state_dict": ...}`` are taken off, and so is ``module.`` before every name.

    Raises:
        InputError: the file is missing, damaged, of another kind, holds no tensors, or wants to run code when read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected a checkpoint file, but {path} is a directory. Name the file inside it.")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror or error}. Check the path.") from error
    if zipfile.is_zipfile(path) or head[2:].startswith(_LEGACY_TORCH):
        content: Any = _read_torch(path)
    elif head[:1] == b"\x80":
        content = read_pickle(path)
    elif head[8:9] == b"{":
        content = store.read_tensors(path)
    else:
        raise InputError(
            f"{path} is no checkpoint: it must be a torch.save file, a detectron2 .pkl or a .safetensors file, "
            f"but begins with {head[:12]!r}."
        )
    return unwrap(content, path)


def unwrap(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The tensors inside what a checkpoint file held; ``path`` is for the errors.

    Raises:
        InputError: there is no dictionary of tensors in it.
    """
    for _ in range(4):
        inner = [content[key] for key in _WRAPPERS if isinstance(content, Mapping) and key in content]
        inner = [value for value in inner if isinstance(value, Mapping)]
        if not inner:
            break
        content = inner[0]
    if isinstance(content, Mapping) and "blobs" in content:
        raise InputError(
            f"{path} is a Caffe2 checkpoint of the first Detectron ('blobs'); detectron2 checkpoints are understood. "
            "Convert it with detectron2 first."
        )
    state = _tensors(content) if isinstance(content, Mapping) else {}
    if not state:
        keys = ", ".join(repr(key) for key in list(content)[:5]) if isinstance(content, Mapping) else ""
        held = f"a dictionary with {keys or 'nothing'}" if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path} must hold a dictionary from names to tensors, got {held}. Save model.state_dict() instead."
        )
    while state and all(name.startswith("module.") for name in state):
        state = {name[len("module.") :]: value for name, value in state.items()}
    return state


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The entries that are tensors or numeric arrays; counters and names beside them are left out."""
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            state[str(name)] = value.detach()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            native = value.astype(value.dtype.newbyteorder("="), copy=False)
            # Arrays that point into the pickle's own bytes are read-only, which torch does not want.
            state[str(name)] = torch.from_numpy(np.array(native, order="C"))
    return state


# ---- torch.save -----------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)|(?:type|class|function) ([\w.]+)|import of ([\w.]+)", str(error))
        name = next((group for group in refused.groups() if group), "") if refused else ""
        if not name and "eights" not in str(error):
            raise InputError(f"{path} is a damaged torch.save file: {error}. Copy or download it again.") from error
        raise InputError(
            f"{path} must hold tensors only, but wants to run code when read{f' ({name})' if name else ''}; refused. "
            "Save model.state_dict() where it came from, and load that."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a whole torch.save file: {reason}. It is truncated or of another kind; "
            "copy or download it again."
        ) from error


# ---- pickles of numpy arrays ----------------------------------------------------------------------------------------


def _dtype(*args: Any) -> np.dtype[Any]:
    out = np.dtype(*args)
    if out.kind not in _PLAIN_KINDS:
        raise pickle.UnpicklingError(f"arrays of {out} are refused")
    return out


_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


def _allowed() -> dict[tuple[str, str], Any]:
    """What a pickle may name: how numpy rebuilds an array, and plain containers."""
    out: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
        ("collections", "OrderedDict"): OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):
        out[f"{core}.multiarray", "_reconstruct"] = _RECONSTRUCT
        out[f"{core}.multiarray", "scalar"] = _SCALAR
        out[f"{core}.numeric", "_frombuffer"] = _FROM_BUFFER
    for builtins in ("builtins", "__builtin__"):
        for kind in (set, frozenset, bytearray, complex):
            out[builtins, kind.__name__] = kind
        # Protocol 2 writes empty bytes as a call without arguments; any other call could ask for all the memory.
        out[builtins, "bytes"] = lambda: b""
    # Protocol 2 writes the bytes of an array as text and asks for them to be encoded again.
    out["_codecs", "encode"] = lambda text, encoding="latin1": str(text).encode(encoding)
    return out


_ALLOWED = _allowed()


class _Refused(pickle.UnpicklingError):
    pass


class _Restricted(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise _Refused(f"{module_name}.{global_name}") from None

    def persistent_load(self, pid: Any, /) -> Any:
        raise _Refused("a persistent id")


def read_pickle(path: str | Path) -> Any:
    """What a pickle of numpy arrays, numbers, strings, lists and dictionaries holds; nothing in it is executed.

    Raises:
        InputError: the file is missing or damaged, or names anything but numpy's arrays; the message names it.
    """
    try:
        with open(path, "rb") as file:
            return _load(file)
    except _Refused as error:
        raise InputError(
            f"{path} must hold arrays only, but wants to run code when read ({error}); refused. "
            "Save a dictionary of arrays, or a state dict with torch.save."
        ) from error
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror or error}.") from error
    except Exception as error:  # a hostile pickle may raise anything at all
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is a damaged pickle: {reason}. Copy or download it again.") from error


def _load(file: BinaryIO) -> Any:
    return _Restricted(file, encoding="latin1").load()
