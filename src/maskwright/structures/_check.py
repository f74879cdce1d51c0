"""Validation shared by the structures: every error says what must hold, what came, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def check_size(size: Sequence[int]) -> tuple[int, ...]:
    """Return ``size`` as a tuple of non-negative Python integers of length 1 to 3, or raise ``ValueError``."""
    out = tuple(int(v) for v in size)
    require(
        1 <= len(out) <= 3 and min(out) >= 0,
        f"size must be (H, W), (T, H, W), (D, H, W) or (P,) with non-negative entries, got {tuple(size)}",
    )
    return out


def check_tensor(
    name: str, value: Tensor, shape: tuple[int | str, ...], dtype: torch.dtype | None = None, hint: str = ""
) -> None:
    """Check the shape (a string stands for any length) and dtype of one field.

    Raises:
        TypeError: ``value`` is not a tensor.
        ValueError: the shape or dtype is not the one required.
    """
    if not isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a torch.Tensor of shape {_show(shape)}, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    require(fits, f"{name} must have shape {_show(shape)}, got {tuple(value.shape)}.{' ' + hint if hint else ''}")
    if dtype is not None:
        require(
            value.dtype == dtype,
            f"{name} must be {dtype}, got {value.dtype}. Convert it with .to({dtype}).",
        )


def _show(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(str(v) for v in shape) + ("," if len(shape) == 1 else "") + ")"
