"""Servers on loopback that send small videos in every way that networks have."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JPEG_HEAD = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


class Broadcast:
    """A TCP server that sends one clip per connection, as fast as it goes.

    Args:
        clips: Bytes for the first connection, the second, ...
        hold_s: How long a connection stays open after its clip.
        away_s: How long the server is gone before each connection but the first.
        port: Where it listens; 0 for any.
    """

    def __init__(self, *clips, hold_s=0.0, away_s=0.0, port=0):
        self._server = socket.create_server(("127.0.0.1", port))
        self._clips = clips
        self._hold_s, self._away_s = hold_s, away_s
        self._done = threading.Event()
        self.port = self._server.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        for count, clip in enumerate(self._clips):
            if count and self._away_s:
                self._server.close()
                self._done.wait(self._away_s)
                self._server = socket.create_server(("127.0.0.1", self.port))
            try:
                connection, _ = self._server.accept()
                with connection:
                    self.send(connection, clip)
                    self._done.wait(self._hold_s)
            except OSError:
                return

    def send(self, connection, clip):
        """Send a clip; a subclass may do it slowly."""
        connection.sendall(clip)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._done.set()
        self._server.close()
        self._thread.join(5)


class Paced(Broadcast):
    """The same, MPEG-TS at its own pace: `(bytes, seconds to wait before)` pairs for each clip."""

    def send(self, connection, clip):
        for part, wait_s in clip:
            if self._done.wait(wait_s):
                return
            connection.sendall(part)


@contextmanager
def web(answer):
    """An HTTP server; `answer(handler)` writes the whole answer to a GET request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.close_connection = True
            with suppress(OSError):  # the reader has left
                answer(self)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def folder(files, *, ranges=False, chunked=False):
    """Answers with the bytes in `files` by name, with or without ranges, or in chunks."""

    def answer(handler):
        data = files.get(handler.path.strip("/").partition("?")[0])
        if data is None:
            handler.send_error(404)
            return
        asked = re.match(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")) if ranges else None
        if asked is not None:
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        else:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def motion_jpeg(parts):
    """Answers with multipart JPEG; `parts()` yields the bytes of each part, at its own pace."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for part in parts():
            handler.wfile.write(JPEG_HEAD % len(part) + part + b"\r\n")

    return answer


def paced(times_s):
    """Wait until each of these times after the first has come, and yield their positions."""
    start = time.monotonic()
    for k, at_s in enumerate(times_s):
        time.sleep(max(0.0, start + at_s - time.monotonic()))
        yield k
