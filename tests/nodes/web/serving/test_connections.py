"""Connections that say nothing, encrypted ones, and those of other machines."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time

import aiohttp
import pytest
from live_run import WAIT_S, LiveRun, own_address, session

from ape_nodes.web import protocol, rest, server
from ape_nodes.web.sink import WebSink
from ape_stream.errors import ConfigError

LIMIT_S = 0.5


@pytest.fixture(scope="module")
def run():
    """A server that waits half a second for the head and the body of a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "IDLE_S", LIMIT_S)
        patch.setattr(rest, "BODY_S", LIMIT_S)
        with LiveRun() as run:
            yield run


async def answer_to(run, *parts):
    """All that comes back for bytes that are sent a third of the limit apart; who ends it."""
    host, port = run.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(LIMIT_S / 3)
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"],
        [b"GET / HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 6],
        [b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET /"],
    ],
    ids=["silent", "half a head", "a header at a time", "half a second head"],
)
def test_who_does_not_finish_a_request_is_cut_off(run, parts):
    answer = asyncio.run(answer_to(run, *parts))
    assert answer.count(b"HTTP/1.1") == (len(parts) == 2)


def test_a_body_that_does_not_come_is_refused(run):
    async def main():
        async def slow():
            yield b'{"token"'
            await asyncio.sleep(WAIT_S)

        async with (
            session(headers={"Origin": run.base}) as client,
            client.post(run.base + "/api/session", data=slow()) as answer,
        ):
            return answer.status, (await answer.json())["reason"]

    status, reason = asyncio.run(main())
    assert status == 408
    assert "0.5 s" in reason


def test_viewers_go_on_where_many_say_nothing(run):
    """Their sockets outlive the limit: it is for requests."""

    async def main():
        silent = asyncio.gather(*(answer_to(run, b"GET /") for _ in range(50)))
        async with run.page() as page:
            await page.send("sub", cam=0, masks=False)
            seen = await page.gather(3 * LIMIT_S)
            await silent
            return seen

    assert len(asyncio.run(main())) > 3


def test_four_tabs_see_the_same_and_each_image_is_encoded_once(run):
    async def main():
        async with run.page() as a, run.page() as b, run.page("view") as c, run.page("view") as d:
            tabs = (a, b, c, d)
            for page in tabs:
                await page.send("sub", cam=0)
            return await asyncio.gather(*(page.gather(1.5) for page in tabs))

    camera = run.sink._hub.cameras[0]
    before = camera.encode.count
    seen = asyncio.run(main())
    images = [{m[0].seq: m[3] for m in messages if m[0].kind == protocol.JPEG} for messages in seen]
    assert min(map(len, images)) > 3
    together = set.intersection(*map(set, images))
    assert together
    assert all(len({tab[seq] for tab in images}) == 1 for seq in together)
    assert camera.encode.count - before < 0.5 * sum(map(len, images))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_the_page_is_served_encrypted(certificate):
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)

    async def main(run):
        async with session(linger_s=0.25, headers={"Origin": run.base}) as client:
            body = {"token": run.tokens.control}
            async with client.post(run.base + "/api/session", json=body, ssl=context) as granted:
                cookie = granted.headers["Set-Cookie"]
            headers = {"Authorization": f"Bearer {run.tokens.view}"}
            url, offer = run.base.replace("https", "wss") + "/ws", [protocol.PROTOCOL]
            async with client.ws_connect(
                url, protocols=offer, headers=headers, ssl=context
            ) as socket_:
                await socket_.send_str('{"type": "hello"}')
                welcome = await socket_.receive_json(timeout=WAIT_S)
            return cookie, welcome["type"]

    with LiveRun(tls=f"{cert},{key}") as run:
        assert run.base.startswith("https://")
        cookie, kind = asyncio.run(main(run))
        plain = run.base.replace("https", "http").rstrip("/")

        async def unencrypted():
            async with session() as client:
                with pytest.raises(aiohttp.ClientError):
                    await client.get(plain + "/healthz")

        asyncio.run(unencrypted())
    assert "Secure" in cookie
    assert kind == "welcome"


@pytest.mark.parametrize("wrong", ["cert.pem", "missing.pem,missing.key"])
def test_a_certificate_that_cannot_be_used_is_refused(wrong):
    with pytest.raises(ConfigError):
        WebSink("web:127.0.0.1:0", tls=wrong)


def test_other_machines_need_a_token_and_get_the_page_by_address():
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but 127.0.0.1")
    with LiveRun(address="web:0.0.0.0:0", public=True) as run:
        run.base = run.base.replace("127.0.0.1", address)
        assert run.ask("GET", "/")[0] == 200
        assert run.ask("GET", "/api/stats", "view")[0] == 200
        run.tokens = type(run.tokens)("no token of this", "no token of this either")
        assert run.ask("GET", "/api/stats")[0] == 401


def test_a_run_ends_soon_though_somebody_says_nothing():
    with LiveRun() as run:
        host, port = run.base.removeprefix("http://").split(":")
        silent = socket.create_connection((host, int(port)))
        start = time.monotonic()
    silent.close()
    assert time.monotonic() - start < 10
