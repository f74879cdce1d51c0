"""Downloads against a server of our own: resumed, checked, cached, and clear when they fail."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from maskwright.errors import InputError
from maskwright.weights import hub

BODY = bytes(range(256)) * 12_000
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server does, and what it was asked."""

    body: bytes = BODY
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    status: int = 200
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if state.status != 200 or not self.path.startswith("/weights.bin"):
                self.send_error(state.status if state.status != 200 else 404)
                return
            if start >= len(state.body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
            self.send_header("Content-Length", str(len(state.body) - start))
            self.end_headers()
            end = start + state.break_after.pop(0) if state.break_after else len(state.body)
            self.wfile.write(state.body[start:end])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("sha", [SHA, SHA[:8], SHA[:8].upper(), None])
def test_download_then_cache(site: Site, tmp_path: Path, sha: str | None) -> None:
    seen: list[tuple[int, int | None]] = []
    path = hub.download(site.url, sha, cache=tmp_path, progress=lambda have, total: seen.append((have, total)))
    assert path.read_bytes() == BODY
    assert path.name == "weights.bin"
    assert seen[-1] == (len(BODY), len(BODY))
    assert hub.download(site.url, sha, cache=tmp_path) == path
    assert site.requests == [None]
    assert not list(tmp_path.rglob("*.part"))


def test_a_broken_connection_is_continued(site: Site, tmp_path: Path) -> None:
    site.break_after = [1_000_000, 500_000]
    assert hub.download(site.url, SHA, cache=tmp_path).read_bytes() == BODY
    assert site.requests == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_continues(site: Site, tmp_path: Path) -> None:
    site.break_after = [1000, 1000, 1000]
    with pytest.raises(InputError, match="broke off; 3000 bytes are kept"):
        hub.download(site.url, SHA, cache=tmp_path)
    assert not hub.cached_path(site.url, tmp_path).exists()
    assert hub.download(site.url, SHA, cache=tmp_path).read_bytes() == BODY
    assert site.requests[-1] == "bytes=3000-"


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000]
    assert hub.download(site.url, SHA, cache=tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(BODY) + 5), BODY])
def test_a_stale_beginning_is_thrown_away(site: Site, tmp_path: Path, left: bytes) -> None:
    part = hub.cached_path(site.url, tmp_path)
    part.parent.mkdir(parents=True)
    part.with_name(part.name + ".part").write_bytes(left)
    assert hub.download(site.url, SHA, cache=tmp_path).read_bytes() == BODY


def test_a_wrong_hash_is_deleted_and_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"must have the SHA-256 0{{8}}, got {SHA[:16]}; the file was deleted"):
        hub.download(site.url, "0" * 8, cache=tmp_path)
    assert not [p for p in tmp_path.rglob("weights.bin*") if not p.name.endswith(".lock")]


def test_a_damaged_cache_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    path = hub.download(site.url, SHA, cache=tmp_path)
    path.write_bytes(BODY[:-1])
    assert hub.download(site.url, SHA, cache=tmp_path).read_bytes() == BODY


def test_errors_of_the_server(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="404"):
        hub.download(site.url.replace("weights", "other"), cache=tmp_path)
    site.status = 503
    with pytest.raises(InputError, match="503"):
        hub.download(site.url, cache=tmp_path)


def test_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cannot download .*Is there a network\? You may also put the file at .*w\.bin"
    ):
        hub.download("http://127.0.0.1:9/w.bin", cache=tmp_path, timeout=2)


def test_other_addresses_and_caches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http or https"):
        hub.download("file:///etc/passwd", cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MASKWRIGHT_CACHE"):
        hub.download("http://127.0.0.1:9/w.bin", cache=tmp_path / "file")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    assert hub.cache_dir() == tmp_path
    monkeypatch.delenv("MASKWRIGHT_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.cache_dir() == tmp_path / "xdg" / "maskwright"


def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=hub.download, args=(site.url, SHA), kwargs={"cache": tmp_path}) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert site.requests == [None]
