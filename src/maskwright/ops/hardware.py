"""What the machine can do: the device to compute on, and whether bf16 is worth it there."""

from __future__ import annotations

import torch

from maskwright.errors import InputError

PRECISIONS = ("auto", "32", "bf16", "16")


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here: {reason}. Try cpu.") from error
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bf16 in hardware; where a CPU emulates it, it is some 30 times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def choose_precision(name: str, device: torch.device) -> str:
    """``"32"``, ``"bf16"`` or ``"16"``; ``"auto"`` is bf16 where ``has_bf16``.

    Raises:
        InputError: an unknown name, or ``"16"`` on something else than a CUDA GPU.
    """
    name = str(name)
    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}.")
    if name == "16" and device.type != "cuda":
        raise InputError(f"precision 16 needs a CUDA GPU, but the device is {device}. Use 32, bf16 or auto.")
    if name == "auto":
        return "bf16" if has_bf16(device) else "32"
    return name
