"""The output `web:127.0.0.1:8008`: the run in a browser."""

from __future__ import annotations

import logging
import ssl
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Semaphore
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from ape_nodes.web.access import Access, Tokens, check_reach
from ape_nodes.web.camera import Found
from ape_nodes.web.encoding.native import native_labels
from ape_nodes.web.hub import Hub
from ape_nodes.web.recorder import Recorder, Rotation, plain
from ape_nodes.web.server import Server
from ape_nodes.web.zones.events import Events, ways
from ape_stream.cli.console import say
from ape_stream.closing import Closing
from ape_stream.draw import pixelate
from ape_stream.errors import ConfigError, SinkError, UsageError

if TYPE_CHECKING:
    from ape_nodes.web.zones.counting import Event
    from ape_stream.protocols import RunControl
    from ape_stream.types import Frame, FrameResult, MapKind

__all__ = ["WebSink"]

DEFAULT_PORT: Final = 8008
_log = logging.getLogger("ape_stream")


class WebSink(Closing):
    """Serves a page that shows the run and changes its prompts.

    Args:
        spec: `web:HOST:PORT`; without a port 8008, port 0 lets the system choose.
        tls: "CERT,KEY": files in PEM form.
        public: True allows an unencrypted bind that other machines reach.
        hosts: Further names under which the server is reached, with commas between.
        tokens: File with the tokens (control, view), made if missing; None draws new ones.
        browser: Open the page.
        folder: Where snapshots and recordings are written; None refuses them.
        rotate_mb: Size of a recording's files.
        rotate_s: Length of a recording's files, seconds.
        events: File that gets events of zones, one JSON object a line.
        webhook: URL that events are POSTed to.
        mqtt: `mqtt://HOST:PORT/TOPIC` (or mqtts, with user:password@) that events are published to.
        blur: Prompts, with commas between, whose regions are made unrecognisable in all that is
            served and written here. Images are then shown with their results only.

    Raises:
        ConfigError: the address cannot be used, or is public and unguarded.
    """

    def __init__(  # noqa: PLR0913 (the options of an output are the parameters of its plugin)
        self,
        spec: str,
        *,
        tls: str | None = None,
        public: bool = False,
        hosts: str = "",
        tokens: str | None = None,
        browser: bool = False,
        folder: str | None = None,
        rotate_mb: float = 500.0,
        rotate_s: float = 600.0,
        events: str | None = None,
        webhook: str | None = None,
        mqtt: str | None = None,
        blur: str = "",
    ) -> None:
        self.name = spec
        self._host, self._port = _address(spec)
        check_reach(self._host, tls=tls is not None, public=public)
        self._tls = None if tls is None else _context(tls)
        self._hosts = _listed(hosts)
        self._blur = tuple(" ".join(text.split()) for text in _listed(blur))
        self._recorder = Recorder(folder, Rotation(rotate_mb, rotate_s))
        self._events = Events(ways(events, webhook, mqtt))
        self._images = ThreadPoolExecutor(1, "images of events")
        self._image_waits = Semaphore(4)
        self.tokens = Tokens.of(tokens)
        self._browser = browser
        self._run: RunControl | None = None
        self._hub: Hub | None = None
        self._server: Server | None = None

    def control(self, run: RunControl) -> None:
        """Take the run; see `ControlsRun`."""
        missing = [text for text in self._blur if text not in run.prompts.texts]
        if missing:
            raise ConfigError(f"blur names {missing[0]!r}, which is no prompt: add it")
        self._run = run

    def __enter__(self) -> Self:
        """Bind the port, and say where the page is."""
        if self._run is None:
            raise UsageError("the web output belongs to a run: give it to a pipeline")
        self._hub = Hub(
            self._run,
            list(self._run.stats().streams),
            self._recorder,
            self._events,
            hide=self._hidden if self._blur else None,
            locked=self._blur,
        )
        access = Access(
            self.tokens,
            [self._host, *self._hosts],
            cookie=f"ape_stream_{self._port}",
            secure=self._tls is not None,
        )
        native_labels()  # compiled now if need be, not while the first page waits for its masks
        self._server = Server(self._hub, access, self._host, self._port, self._tls)
        self._server.start()
        say(f"live page: {self.url}")
        if self._browser:
            webbrowser.open(self.url)
        return self

    @property
    def maps(self) -> frozenset[MapKind]:
        """What somebody looks at; see `NeedsMaps`."""
        return frozenset() if self._hub is None else self._hub.maps

    @property
    def encode_cpu_s(self) -> float:
        """CPU seconds that all encodings of images took so far."""
        return 0.0 if self._hub is None else sum(c.encode_cpu_s for c in self._hub.cameras)

    @property
    def address(self) -> str:
        """Where it listens, such as http://127.0.0.1:8008."""
        port = self._port if self._server is None else self._server.port
        host = "127.0.0.1" if self._host == "0.0.0.0" else self._host  # noqa: S104 (not a bind)
        host = f"[{host}]" if ":" in host else host
        return f"{'http' if self._tls is None else 'https'}://{host}:{port}"

    @property
    def url(self) -> str:
        """The page's URL with the token that may change things."""
        return f"{self.address}/#t={self.tokens.control}"

    def see(self, frame: Frame) -> None:
        """Show a frame before the model has it; see `SeesFrames`."""
        if self._hub is not None:
            self._hub.by_name[frame.stream].see(frame)

    def write(self, result: FrameResult) -> None:
        """Show what was found, count it in zones, record it; never waits for a viewer."""
        hub = self._hub
        if hub is None:
            return
        camera = hub.by_name[result.frame.stream]
        rev = hub.prompts.rev_of(result.prompts)
        if rev is None:
            hub.call(hub.prompts.adopt, result.prompts)
            rev = 0
        if not hub.prompts.any_enabled:  # the model keeps its last prompts, nobody wants them
            result = plain(result)
        happened = camera.zones.update(result)
        ids = tuple(hub.prompts.id_of(text) for text in result.prompts.texts)
        shown = camera.take(Found(result, rev, ids, camera.zones.counts()))
        self._recorder.write(shown)
        for event in happened:
            self._report(hub, event, shown)

    def _hidden(self, result: FrameResult) -> FrameResult:
        """The result with the regions of some prompts made unrecognisable."""
        hidden = [k for k, text in enumerate(result.prompts.texts) if text in self._blur]
        kept = np.isin(result.instances.prompt_ids, hidden)
        image = result.frame.image.copy()
        pixelate(image, result.instances.boxes[kept])
        return replace(result, frame=replace(result.frame, image=image))

    def _report(self, hub: Hub, event: Event, result: FrameResult) -> None:
        """Send an event, with an image where there is a folder and time for it."""
        if self._recorder.folder is None or not self._image_waits.acquire(blocking=False):
            hub.call(hub.happened, event)
            return

        def write_image() -> None:
            name = None
            try:
                name = self._recorder.event_image(result)
            except SinkError as error:
                _log.warning("%s", error)
            finally:
                self._image_waits.release()
                hub.call(hub.happened, replace(event, snapshot=name))

        self._images.submit(write_image)

    def close(self, error: BaseException | None = None) -> None:
        """Say goodbye to the viewers and stop serving."""
        self._images.shutdown()
        if self._server is not None:
            self._server.close("the run has ended" if error is None else "the run was stopped")
        self._recorder.close()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _address(spec: str) -> tuple[str, int]:
    text = spec.removeprefix("web:").removeprefix("//") or "127.0.0.1"
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"{spec!r}: the live page is web:HOST:PORT, such as web:127.0.0.1:8008")
    return host.strip("[]"), int(port)


def _context(tls: str) -> ssl.SSLContext:
    certificate, comma, key = tls.partition(",")
    if not comma:
        raise ConfigError(f"tls is CERT,KEY: two files in PEM form, not {tls!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"cannot use the certificate {certificate} and key {key}: {error}"
        ) from error
    return context
