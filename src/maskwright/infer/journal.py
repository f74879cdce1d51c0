"""What is done of a long run, on disk: a manifest that pins the run, and a journal with a line for each whole part.

Order makes it safe against a kill at any moment: a part is renamed into place, then its line is written and flushed
to disk. A part without a line, or whose file is not what the line says, is done again under the same name, so nothing
is lost and nothing counted twice. A line that was cut short counts as none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import orjson

from maskwright.errors import InputError
from maskwright.storage import read_json, write_json

MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"


class Journal:
    """The journal of one folder of parts, held by one run at a time.

    Args:
        folder: where the parts are; it is made when missing.
        manifest: JSON values that a run that goes on must share: model, options, inputs, parts.
        restart: forget what another manifest's run has done; its parts are removed.

    Attributes:
        done: part -> its line, for parts whose files are whole.
        damaged: parts that have a line and whose files are missing or changed.

    Raises:
        InputError: the folder is of a run with another manifest and ``restart`` is not set, or a run is at work in it.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], restart: bool = False) -> None:
        self.folder = folder
        self.done: dict[int, dict[str, Any]] = {}
        self.damaged: list[int] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / JOURNAL).open("ab+")
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror or error}. Choose another --out.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise InputError(f"another run is at work in {folder}. Wait for it, or choose another --out.") from error
        try:
            self._begin(manifest, restart)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs in."""
        self._file.close()

    def add(self, part: int, path: Path, **figures: Any) -> None:
        """Note that the file of a part is whole."""
        line = {"part": part, "file": path.name, "sha256": file_hash(path), **figures}
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[part] = line

    def _begin(self, manifest: dict[str, Any], restart: bool) -> None:
        place = self.folder / MANIFEST
        if restart:
            self._clear()
        if not place.exists():
            self._file.truncate(0)
            write_json(place, manifest, indent=True)
            return
        known = read_json(place)
        # what JSON makes of it, so that tuples equal lists
        wanted = orjson.loads(orjson.dumps(manifest))
        changed = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
        if changed:
            told = "; ".join(f"{key} was {_short(known.get(key))}, now {_short(wanted.get(key))}" for key in changed)
            raise InputError(
                f"{self.folder} holds the parts of another run: {told}. Give what that run was given to go on, "
                "--restart to begin anew, or another --out."
            )
        self._recall()

    def _clear(self) -> None:
        for path in self.folder.glob("part-*"):
            path.unlink(missing_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._file.truncate(0)

    def _recall(self) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        if lines.pop():  # cut short
            self._file.truncate(sum(len(line) + 1 for line in lines))
        for text in lines:
            line = orjson.loads(text)
            self.done[int(line["part"])] = line
        for part, line in list(self.done.items()):
            path = self.folder / line["file"]
            if not path.is_file() or file_hash(path) != line["sha256"]:
                self.damaged.append(part)
                del self.done[part]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
