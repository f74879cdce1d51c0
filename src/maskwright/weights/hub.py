"""Downloads with a cache, resumed where they broke off, and checked against their hash."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from maskwright.errors import InputError

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are and the bytes there will be (``None`` when the server does not say)."""

_CHUNK = 1 << 20
_ATTEMPTS = 3


def cache_dir() -> Path:
    """``$MASKWRIGHT_CACHE``, else ``maskwright`` in the platform's cache directory."""
    own = os.environ.get("MASKWRIGHT_CACHE")
    if own:
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "maskwright"


def cached_path(url: str, cache: Path | None = None) -> Path:
    """Where ``download`` keeps the file of ``url``, whether it is there or not."""
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    return (cache or cache_dir()) / "weights" / key / (url.rstrip("/").rpartition("/")[2] or "file")


def download(
    url: str,
    sha256: str | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> Path:
    """The file of ``url`` in the cache, downloaded when it is not there or is not the one wanted.

    What a broken connection left is continued, in this call and in later ones. Two processes that want one file
    download it once.

    Args:
        url: ``http`` or ``https``.
        sha256: the SHA-256 in hexadecimal, or the beginning of it; ``None`` checks the length only.
        cache: directory; ``cache_dir()`` by default.
        progress: called after every chunk.
        timeout: seconds without an answer.

    Raises:
        InputError: there is no network or no such file, the connection keeps breaking, the cache cannot be written, or
            the file has another hash (it is deleted then).
    """
    if not url.startswith(("https://", "http://")):
        raise InputError(f"a download needs a http or https address, got {url!r}.")
    target = cached_path(url, cache)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if target.exists():
                if _fits(target, sha256):
                    return target
                target.unlink()
            resumed = part.exists() and part.stat().st_size > 0
            _fetch(url, part, progress, timeout)
            if not _fits(part, sha256) and resumed:
                # The beginning may be that of an older file: once more, from the start.
                part.unlink()
                _fetch(url, part, progress, timeout)
            if not _fits(part, sha256):
                found = _hash(part)
                part.unlink()
                raise InputError(
                    f"{url} must have the SHA-256 {sha256}, got {found[: max(16, len(sha256 or ''))]}; the file was "
                    "deleted. The address serves another file, or the network changed it: try again."
                )
            os.replace(part, target)
    except OSError as error:
        raise InputError(
            f"cannot write the cache {target.parent}: {error.strerror or error}. "
            "Set MASKWRIGHT_CACHE to another directory."
        ) from error
    return target


def _fetch(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    reason = ""
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, before, progress, timeout):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:
                part.unlink()
                continue
            if error.code < 500:
                raise InputError(f"cannot download {url}: the server says {error.code} {error.reason}.") from error
            reason = f"the server says {error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, HTTPException, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    kept = part.stat().st_size if part.exists() else 0
    left = f"; {kept} bytes are kept and the next call continues there" if kept else ""
    raise InputError(
        f"cannot download {url}: {reason}{left}. Is there a network? You may also put the file at "
        f"{part.with_name(part.name.removesuffix('.part'))} yourself."
    )


def _continue(url: str, part: Path, before: int, progress: Progress | None, timeout: float) -> bool:
    """Append to ``part`` from byte ``before``; whether the file is complete."""
    request = urllib.request.Request(url, headers={"User-Agent": "maskwright"})
    if before:
        request.add_header("Range", f"bytes={before}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if before and not _continues_at(response, before):
            before = 0
        length = response.headers.get("Content-Length")
        total = before + int(length) if length else None
        have = before
        with open(part, "ab" if before else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    return total is None or have >= total


def _continues_at(response: HTTPResponse, before: int) -> bool:
    found = response.headers.get("Content-Range", "")
    return response.status == 206 and found.startswith(f"bytes {before}-")


def _fits(path: Path, sha256: str | None) -> bool:
    return sha256 is None or _hash(path).startswith(sha256.lower())


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` against other processes where the system has such locks (not on Windows)."""
    with open(path, "w") as file:
        if sys.platform != "win32":
            fcntl = importlib.import_module("fcntl")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
