import asyncio
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from aiohttp import web

from ape_nodes.web.zones import events as module
from ape_nodes.web.zones.counting import Event
from ape_nodes.web.zones.events import Events, ways
from ape_stream.errors import ConfigError, SinkError

EVENT = Event("entered", "cam", "door", "person", 7, 1.5)


async def send(ways_out, *events):
    out = Events(ways_out)
    await out.start()
    for event in events:
        out.put(event)
    await out.close()
    return out


def test_lines_are_added_to_a_file(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    for _ in range(2):
        out = asyncio.run(send(ways(str(path), None, None), EVENT))
        assert (out.sent, out.dropped) == (1, {})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0] | {"utc": ""} == {
        "event": "entered", "stream": "cam", "zone": "door", "prompt": "person", "track": 7,
        "time": 1.5, "utc": "", "seconds": None, "snapshot": None,
    }  # fmt: skip


def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write"):
        asyncio.run(send(ways(str(tmp_path / "file" / "x"), None, None)))


@pytest.mark.parametrize(
    ("statuses", "sent", "asked"),
    [([200], 1, 1), ([503, 200], 1, 2), ([404], 0, 1), ([500] * 9, 0, 3)],
)
def test_a_webhook_is_asked_again_where_that_may_help(statuses, sent, asked):
    got = []

    async def answer(request):
        got.append(await request.json())
        return web.Response(status=statuses[len(got) - 1])

    async def main():
        app = web.Application()
        app.router.add_post("/hook", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        out = await send(ways(None, url, None), EVENT)
        await runner.cleanup()
        return out

    out = asyncio.run(main())
    assert out.sent == sent
    assert len(got) == asked
    assert got[0]["zone"] == "door"
    assert sum(out.dropped.values()) == 1 - sent


def test_a_way_that_is_stuck_loses_its_own_events_and_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUEUE", 10)
    monkeypatch.setattr(module, "DRAIN_S", 0.1)

    class Stuck:
        name = "stuck"

        async def open(self): ...

        async def send(self, _text):
            await asyncio.sleep(60)

        async def close(self): ...

    path = tmp_path / "events.jsonl"

    async def main():
        out = Events([Stuck(), *ways(str(path), None, None)])
        await out.start()
        start = time.monotonic()
        for _ in range(30):
            out.put(EVENT)
            await asyncio.sleep(0)
        quick = time.monotonic() - start
        await out.close()
        return out, quick

    out, quick = asyncio.run(main())
    assert quick < 1
    assert out.dropped["stuck"] >= 19
    assert len(path.read_text().splitlines()) == 30


@pytest.mark.parametrize(
    ("webhook", "mqtt"),
    [
        ("ftp://user:secret@host/x", None),
        ("host", None),
        ("https://user:secret@host:port/x", None),
        ("https://user:secret@[host/x", None),
        (None, "http://user:secret@host"),
        (None, "mqtt://host/a/#"),
        (None, "mqtt://user:secret@host:99999/a"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(webhook, mqtt):
    with pytest.raises(ConfigError) as refused:
        ways(None, webhook, mqtt)
    assert "secret" not in str(refused.value)


def test_no_password_is_shown():
    chosen = ways(None, "https://user:secret@host/x?key=secret", "mqtt://user:secret@broker/topic")
    assert "secret" not in " ".join(way.name for way in chosen)


@pytest.fixture
def broker(tmp_path):
    # Debian puts it where the path of a user does not lead.
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("needs mosquitto, an MQTT broker (tools/test-packages.sh)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "broker.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(5)


def test_events_reach_a_broker(broker):
    mqtt = pytest.importorskip("paho.mqtt.client")
    got = []
    reader = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    reader.on_message = lambda _client, _data, message: got.append(json.loads(message.payload))
    reader.connect("127.0.0.1", broker)
    reader.subscribe("house/door", qos=1)
    reader.loop_start()
    time.sleep(0.3)
    try:
        url = f"mqtt://127.0.0.1:{broker}/house/door"
        out = asyncio.run(send(ways(None, None, url), *[EVENT] * 3))
        for _ in range(100):
            if len(got) == 3:
                break
            time.sleep(0.02)
    finally:
        reader.disconnect()
        reader.loop_stop()
    assert out.sent == 3
    assert [event["track"] for event in got] == [7, 7, 7]
