"""Pulling a released checkpoint, from a hub on this machine alone."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from ape_model.errors import HubError, VariantError
from ape_model.io.checkpoint_reader import file_digest
from ape_model.weights.hub import HUB_FILES, REPOSITORY, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "c1e9f78" + "0" * 33
CONTENT = bytes(range(256)) * 4_000


@dataclass
class Hub:
    """What the server does, and what was asked of it."""

    content: bytes = CONTENT
    name: str = hashlib.sha256(CONTENT).hexdigest()
    status: int = 200
    breaks: int = 0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, body: bytes, first: int = 0) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("Range")))
            status = 206 if first and hub.status == 200 else hub.status
            self.send_response(status)
            self.send_header("ETag", f'"{hub.name}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()

        def do_HEAD(self) -> None:
            self._answer(hub.content)

        def do_GET(self) -> None:
            first = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self._answer(hub.content, first)
            body = hub.content[first:]
            if hub.breaks:
                hub.breaks -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    state = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # what it keeps of a torn file
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its tries
    yield state
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_every_variant_has_its_place() -> None:
    assert set(HUB_FILES) == {"A", "B", "C", "D", "Ti"}
    assert len(set(HUB_FILES.values())) == 5
    for file in HUB_FILES.values():
        assert file.startswith("configs/LVISCOCOCOCOSTUFF_O365_OID_VG")
        assert file.endswith("/model_final.pth")


def test_pull_brings_the_file(hub: Hub) -> None:
    path = fetch("D")
    assert path.name == "model_final.pth"
    assert file_digest(path) == hub.name
    assert {asked[1] for asked in hub.asked} == {f"/{REPOSITORY}/resolve/main/{HUB_FILES['D']}"}


def test_a_second_pull_transfers_nothing(hub: Hub) -> None:
    fetch("D")
    hub.asked.clear()
    fetch("D")
    assert [asked[0] for asked in hub.asked] == ["HEAD"]


def test_what_broke_off_is_resumed(hub: Hub) -> None:
    hub.breaks = 1
    assert file_digest(fetch("Ti")) == hub.name
    ranges = [asked[2] for asked in hub.asked if asked[0] == "GET"]
    assert len(ranges) == 2
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 0


def test_what_arrived_damaged_is_removed(hub: Hub) -> None:
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(HubError, match="damaged in transfer and is removed"):
        fetch("D")
    hub.content = CONTENT
    assert file_digest(fetch("D")) == hub.name


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_refusal_is_one_line(status: int, hub: Hub) -> None:
    hub.status = status
    with pytest.raises(HubError, match=r"cannot be downloaded .*pull again") as error:
        fetch("D")
    assert "\n" not in str(error.value)


def test_no_hub_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="check the network"):
        fetch("D")


def test_unknown_variant() -> None:
    with pytest.raises(VariantError, match="A, B, C, D, Ti"):
        fetch("E")


def test_missing_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"pip install 'ape-stream\[hub\]'"):
        fetch("D")
