import asyncio
import json
import socket
import threading
import time

import av
import cv2
import pytest
from live_run import SIZE, LiveRun
from live_world import ClockSource

from ape_nodes.web import client
from ape_nodes.web.client import TOKEN, WebClient
from ape_stream.errors import ConfigError, SourceError


def test_a_snapshot_is_an_image_and_what_was_found(live):
    status, answer = live.ask("POST", "/api/cams/0/snapshot")
    path = live.sink._recorder.folder / answer["file"]
    assert status == 200
    assert cv2.imread(str(path)).shape == (*SIZE, 3)
    found = json.loads(path.with_suffix(".json").read_text())
    assert {region["prompt"] for region in found["regions"]} <= {"red apple", "fox"}
    assert live.ask("GET", "/api/cams/0/snapshot.jpg", "view")[1][:2] == b"\xff\xd8"
    assert live.ask("POST", "/api/cams/7/snapshot")[0] == 400


def test_recordings_are_rotated_and_whole(tmp_path):
    with LiveRun(folder=str(tmp_path), rotate_s=0.5) as live:
        assert live.ask("POST", "/api/cams/0/record", json={"on": True})[0] == 200
        time.sleep(1.5)
        assert live.ask("GET", "/api/cams")[1]["cams"][0]["recording"] is True
        assert live.ask("POST", "/api/cams/0/record", json={"on": False})[0] == 200
        assert live.ask("GET", "/api/cams")[1]["cams"][0]["recording"] is False
    files = sorted(tmp_path.glob("clock-*.mp4"))
    assert len(files) >= 2
    assert not list(tmp_path.glob("*.part"))
    for file in files:
        with av.open(str(file)) as video:
            assert sum(1 for _ in video.decode(video=0)) >= 1


def test_without_a_folder_nothing_is_written():
    with LiveRun() as live:
        assert live.ask("POST", "/api/cams/0/record", json={"on": True})[0] == 400
        status, answer = live.ask("POST", "/api/cams/0/snapshot")
        assert status == 400
        assert "--folder" in answer["reason"]


def test_numbers_for_prometheus_and_for_pages(live):
    text = live.ask("GET", "/metrics", "view")[1].decode()
    for line in (
        'ape_stream_frames_captured_total{stream="clock"}',
        'ape_stream_age_seconds{quantile="0.95",stream="clock"}',
        'ape_stream_stage_calls_total{stage="perceive"}',
        "ape_stream_viewers ",
    ):
        assert line in text
    assert live.ask("GET", "/api/stats", "view")[1]["streams"]["clock"]["captured"] > 0
    assert live.ask("GET", "/healthz")[0] == 200


def test_silence_is_said_and_not_shown_as_live():
    with LiveRun(sources=[ClockSource(size=SIZE, count=5), ClockSource("on", SIZE)]) as live:

        async def main():
            async with live.page() as page:
                return await page.text("cam", lambda m: m["state"] == "stale")

        stale = asyncio.run(main())
        assert stale["cam"] == 0
        assert stale["age_ms"] >= 1000
        assert live.ask("GET", "/healthz")[0] == 503


def test_the_end_of_the_run_is_said():
    async def main(live):
        async with live.page() as page:
            status, _ = await asyncio.to_thread(live.ask, "POST", "/api/stop")
            live.pipeline.close()
            return status, (await page.text("bye"))["why"]

    with LiveRun() as live:
        status, why = asyncio.run(main(live))
    assert status == 200
    assert "ended" in why


def test_the_control_command_speaks_to_a_page(live):
    ask = WebClient(live.sink.url).ask
    before = ask("get")
    try:
        changed = ask("set", prompts="star, fox", threshold=0.5)
        assert [(p["text"], p["threshold"]) for p in changed["prompts"]] == [
            ("star", 0.5), ("fox", 0.5)
        ]  # fmt: skip
        assert [p["threshold"] for p in ask("set", threshold=0.25)["prompts"]] == [0.25, 0.25]
        with pytest.raises(ConfigError, match="200"):
            ask("set", prompts="x" * 201)
        assert ask("stats")["stats"]["streams"]["clock"]["captured"] > 0
    finally:
        live.ask("PUT", "/api/prompts", json={"prompts": ["red apple", "fox"]})
    assert [p["text"] for p in before["prompts"]] == ["red apple", "fox"]


def test_the_control_command_says_what_is_wrong(live, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ConfigError, match="needs a token"):
        WebClient(live.base)
    with pytest.raises(ConfigError, match="token is needed"):
        WebClient(f"{live.base}/#t=wrong").ask("get")
    with pytest.raises(SourceError, match="nobody answers"):
        WebClient("http://127.0.0.1:9/#t=x").ask("get")


def test_a_client_gives_up_soon_where_nobody_is_and_waits_for_an_answer(monkeypatch):
    monkeypatch.setattr(client, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/#t=x"

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                time.sleep(0.5)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")

        slow = threading.Thread(target=answer)
        slow.start()
        assert WebClient(url).ask("get") == {}
        slow.join()
        with socket.create_connection(server.getsockname()):  # the queue is full
            start = time.monotonic()
            with pytest.raises(SourceError, match=r"nobody answers.*timed out"):
                WebClient(url).ask("get")
            assert time.monotonic() - start < 10
