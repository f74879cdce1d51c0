"""Files made to hurt a reader, and the limits that must hold while it refuses them."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from maskwright.errors import InputError

BILLION_LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 10
    + '"><!ENTITY c "'
    + "&b;" * 10
    + '">]>\n'
)
"""Goes before the root element of an XML file."""


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares so many pixels and has none."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IDAT" + zlib.compress(b"\0" * 10)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, end))
    return b"\x89PNG\r\n\x1a\n" + chunks


def refused(read: Callable[[], Any], says: str, most_bytes: int = 200 << 20) -> None:
    """``read`` must raise ``InputError`` that says so, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=says):
            read()
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()
