import asyncio
import gzip
import json
import os
import stat

import aiohttp
import pytest
from live_run import LiveRun, session

from ape_nodes.web import protocol
from ape_nodes.web.access import FAILURES, Role, Tokens, check_reach
from ape_nodes.web.hub import MAX_VIEWERS
from ape_nodes.web.server import ROUTES
from ape_nodes.web.sink import WebSink
from ape_stream.errors import ConfigError, UsageError

GUARDED = [route for route in ROUTES if route.needs is not Role.NOBODY]
CHANGING = [route for route in ROUTES if route.method != "GET" or route.path == "/ws"]


def path_of(route):
    return route.path.replace("{cam}", "0")


def name_of(route):
    return f"{route.method} {route.path}"


def status(live, route, **headers):
    """Status of a request with exactly these headers (`_` stands for `-`)."""

    async def once():
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if route.path == "/ws":
            sent |= {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Protocol": protocol.PROTOCOL,
            }
        async with (
            session() as client,
            client.request(
                route.method, live.base + path_of(route), headers=sent, allow_redirects=False
            ) as answer,
        ):
            return answer.status

    return asyncio.run(once())


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_nobody_gets_in_without_a_token(live, route):
    assert status(live, route, Origin=live.base) == 401
    assert status(live, route, Origin=live.base, Cookie="ape_stream_0=guess") == 401


@pytest.mark.parametrize("route", [r for r in GUARDED if r.needs is Role.CONTROL], ids=name_of)
def test_who_may_look_may_not_change(live, route):
    assert status(live, route, **live.headers("view")) == 403


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_a_name_that_is_not_ours_is_refused(live, route):
    """DNS rebinding: the attacker's name leads to this address."""
    headers = live.headers("control")
    assert status(live, route, Host="attacker.example", **headers) == 403
    assert status(live, route, Host="localhost.attacker.example:8008", **headers) == 403


@pytest.mark.parametrize("route", CHANGING, ids=name_of)
def test_a_page_of_another_origin_is_refused(live, route):
    headers = live.headers("control")
    port = live.base.rpartition(":")[2]
    for origin in (
        "http://127.0.0.1:1",
        f"http://localhost:{port}",
        "null",
        "https://evil.example",
    ):
        assert status(live, route, Origin=origin, **headers) == 403


def test_a_cookie_counts_with_our_own_origin_only(live):
    async def main():
        jar = aiohttp.CookieJar(unsafe=True)
        async with session(cookie_jar=jar) as client:
            entered = await client.post(
                live.base + "/api/session",
                json={"token": live.tokens.control},
                headers={"Origin": live.base},
            )
            cookie = entered.headers["Set-Cookie"]
            answers = [
                (await client.post(live.base + "/api/prompts", json={"ops": []}, headers=h)).status
                for h in ({}, {"Origin": "http://evil.example"}, {"Origin": live.base})
            ]
            looked = await client.get(live.base + "/api/stats")
            return await entered.json(), cookie, answers, looked.status

    role, cookie, answers, looked = asyncio.run(main())
    assert role == {"role": "control"}
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert live.tokens.control not in cookie
    assert answers == [403, 403, 200]
    assert looked == 200


def test_every_answer_says_what_a_browser_must_not_do(live):
    async def main():
        async with session() as client:
            return [
                (await client.get(live.base + path)).headers
                for path in ("/", "/api/stats", "/no-such-file", "/healthz")
            ]

    for headers in asyncio.run(main()):
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path",
    ["/../sink.py", "/..%2fsink.py", "/%2e%2e/sink.py", "/static/index.html", "/__init__.py"],
)
def test_only_files_of_the_page_are_served(live, path):
    assert live.ask("GET", path)[0] == 404


def test_too_many_wrong_tokens_are_refused_for_a_while():
    with LiveRun() as run:
        wrong = {"Authorization": "Bearer wrong"}
        route = next(r for r in ROUTES if r.path == "/api/stats")
        answers = [status(run, route, **wrong) for _ in range(FAILURES + 1)]
        assert answers == [401] * FAILURES + [429]
        assert status(run, route, **run.headers("control")) == 429


def test_a_large_body_and_a_long_message_are_refused(live):
    assert live.ask("POST", "/api/prompts", data=b"{" + b" " * 70_000)[0] == 413

    async def main():
        async with live.page() as page:
            await page.ws.send_str(" " * 70_000)
            with pytest.raises(EOFError):
                await page.text("never")

    asyncio.run(main())


async def bytes_for(live, sent):
    """What comes back for these bytes."""
    host, port = live.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(15):
        answer = await reader.read(12)
    writer.close()
    return answer


ENTER = b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
HERE = b"GET /api/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 400),  # no Host: it would be looked up, and viewers wait
        (HERE + b"Host: attacker.example\r\n\r\n", 400),
        (b"GET http://attacker.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 403),
        (HERE + b"Authorization: Bearer \xff\xfe\r\n\r\n", 401),
        (HERE + b"X: " + b"x" * 20_000 + b"\r\n\r\n", 400),
        (ENTER + b'Content-Length: 19\r\n\r\n{"token": "\\ud800"}', 401),
        (ENTER + b"Content-Type: text/x; charset=none\r\nContent-Length: 2\r\n\r\n{}", 400),
        (ENTER + b"Content-Length: 9999\r\n\r\n" + b"[" * 9999, 400),
        (ENTER.replace(b"//127.0.0.1", b"//[") + b"Content-Length: 2\r\n\r\n{}", 403),
        (b"\x16\x03\x01 not HTTP", 400),
    ],
)
def test_what_makes_no_sense_is_refused_and_fills_no_log(live, caplog, sent, status):
    assert asyncio.run(bytes_for(live, sent)).split()[1:] == [b"%d" % status]
    assert not caplog.records


def test_a_packed_body_is_not_unpacked(live):
    """A few kilobytes could become gigabytes, on the loop that serves every viewer."""
    body = gzip.compress(json.dumps({"ops": []}).encode())
    headers = {"Content-Encoding": "gzip"}
    assert live.ask("POST", "/api/prompts", data=body, headers=headers)[0] == 400


def test_seats_are_limited_and_come_free_again(live):
    async def main():
        async with session(headers=live.headers("view")) as client:
            url, offer = live.base + "/ws", [protocol.PROTOCOL]
            seats = [await client.ws_connect(url, protocols=offer) for _ in range(MAX_VIEWERS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(url, protocols=offer)
            for seat in seats:
                await seat.close()
            await asyncio.sleep(0.2)
            await (await client.ws_connect(url, protocols=offer)).close()
            return refused.value.status

    assert asyncio.run(main()) == 503


def test_a_socket_needs_the_subprotocol(live):
    async def main():
        async with session(headers=live.headers("view")) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(live.base + "/ws", protocols=["other"])
            return refused.value.status

    assert asyncio.run(main()) == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_an_address_that_others_reach_needs_tls_or_a_flag(host):
    with pytest.raises(ConfigError, match="--tls"):
        WebSink(f"web:{host}:8008" if ":" not in host else f"web:[{host}]:8008")
    check_reach(host, tls=False, public=True)
    check_reach(host, tls=True, public=False)


@pytest.mark.parametrize("spec", ["web:127.0.0.1:x", "web:127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(spec):
    with pytest.raises(UsageError):
        WebSink(spec)


def test_tokens_are_kept_in_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "tokens"
    made = Tokens.of(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Tokens.of(str(path)) == made
    path.chmod(0o644)
    if os.name == "posix":
        with pytest.raises(ConfigError, match="chmod 600"):
            Tokens.of(str(path))
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="16 characters"):
        Tokens.of(str(path))
