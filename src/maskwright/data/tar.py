"""Tar archives read by headers alone: what lies where, checked as hostile input is.

Headers are ustar (POSIX.1-1988) with pax records (POSIX.1-2001, ``path`` and ``size``) and GNU long names. Only regular
files are accepted; folders are passed over.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from maskwright.errors import InputError

BLOCK = 512
_LONGEST = 1 << 16  # bytes of a pax record or long name; names are short
_PASSED_OVER = (tarfile.DIRTYPE, tarfile.XGLTYPE)

Read = Callable[[int, int], bytes]
"""``read(offset, count)``: that many bytes from there, fewer where the file ends."""


class Member(NamedTuple):
    """A file in an archive: its name, where its first header begins, where its bytes begin and how many there are."""

    name: str
    start: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


def members(read: Read, start: int, end: int, path: Path, *, whole: bool = True) -> Iterator[Member]:
    """The files of an archive between two offsets, by their headers.

    Args:
        read: see ``Read``.
        start: where a header begins.
        end: where to stop; the end of the file if ``whole``.
        path: names the archive in errors.
        whole: whether the mark of the end (a block of zeros) must come.

    Raises:
        InputError: a header is damaged, a member is cut off or larger than the archive, is not a plain file, or has a
            name that leaves its folder; the message names archive and member.
    """
    at = start
    while at < end:
        first, name, size = at, None, None
        while True:
            header = _header(read, at, end, path)
            if header is None:
                if at != first:
                    raise InputError(f"{path}: the archive ends within a member at byte {first}. Copy it again.")
                return
            body = at + BLOCK
            if body + header.size > end or header.size < 0:
                raise InputError(
                    f"{path}: {_shown(name or header.name)} has {header.size} bytes by its header, but the archive "
                    f"ends at byte {end}. Is it complete?"
                )
            at = Member("", 0, body, header.size).end
            if header.type == tarfile.XHDTYPE:
                found = _pax(_text(read, body, header.size, path), path)
                name, size = found.get("path", name), found.get("size", size)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                name = _decoded(_text(read, body, header.size, path).rstrip(b"\0"), path)
            elif header.type in _PASSED_OVER:
                first, name, size = at, None, None
                if at == end and not whole:
                    return
            else:
                break
        name = header.name if name is None else name
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise InputError(
                f"{path}: {_shown(name)} must be a plain file, not a link, device or sparse file. Write it anew."
            )
        count = header.size if size is None else _count(size, name, path)
        member = Member(_inside(name, path), first, body, count)
        if body + count > end:
            raise InputError(f"{path}: {_shown(name)} has {count} bytes by its header; the archive ends at byte {end}.")
        yield member
        at = member.end
    if whole:
        raise InputError(f"{path}: the archive has no end. Is it complete? Copy it again.")


def is_meta(name: str) -> bool:
    """Whether webdataset passes a member over: its own notes are called ``__note__``."""
    first = name.partition("/")[0]
    return len(first) > 4 and first.startswith("__") and first.endswith("__")


def split_name(name: str) -> tuple[str, str]:
    """Stem and ending of a member: the ending begins at the first dot of the last part of the name."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), ending.lower()


def _header(read: Read, at: int, end: int, path: Path) -> tarfile.TarInfo | None:
    block = read(at, BLOCK)
    if len(block) < BLOCK or at + BLOCK > end:
        raise InputError(f"{path}: the archive breaks off at byte {at + len(block)}. Is it complete? Copy it again.")
    if not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: no tar header at byte {at} ({error}). Is this a plain tar, complete?") from error


def _text(read: Read, at: int, size: int, path: Path) -> bytes:
    if size > _LONGEST:
        raise InputError(f"{path}: the header at byte {at - BLOCK} declares a name of {size} bytes")
    return read(at, size)


def _pax(text: bytes, path: Path) -> dict[str, str]:
    """The records ``LENGTH KEY=VALUE\\n`` of a pax header."""
    out: dict[str, str] = {}
    while text:
        digits, _, _ = text.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not len(digits) + 3 <= length <= len(text):
            raise InputError(f"{path}: damaged pax header ({text[:40]!r})")
        key, _, value = text[len(digits) + 1 : length - 1].partition(b"=")
        if key in (b"path", b"size"):
            out[key.decode()] = _decoded(value, path)
        elif key.startswith(b"GNU.sparse"):
            raise InputError(f"{path}: sparse files are not read; write the archive anew")
        text = text[length:]
    return out


def _decoded(value: bytes, path: Path) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a member's name is not UTF-8: {value[:40]!r}") from error


def _count(size: str, name: str, path: Path) -> int:
    if not size.isascii() or not size.isdigit() or len(size) > 18:
        raise InputError(f"{path}: {_shown(name)} declares a size that is not a number: {size[:40]!r}")
    return int(size)


def _inside(name: str, path: Path) -> str:
    plain = name.replace("\\", "/").removeprefix("./")
    outside = not plain or plain.startswith("/") or plain[1:2] == ":" or "\0" in plain
    if outside or ".." in PurePosixPath(plain).parts or not plain.isprintable():
        raise InputError(f"{path}: a member's name must stay inside the archive, got {_shown(name)}")
    return plain


def _shown(name: str) -> str:
    return repr(name[:120])
