"""`ape-stream bench wire`: what a 1080p result weighs and how long it is underway.

Our results beside what people do by habit: pickled dense masks, and the raw frame with a JSON head
(as imagezmq sends it). Publish to receive: from before the encoding to after the decoding, over
PUB and SUB on loopback TCP. All forms take turns in every round, so that a busy machine slows all
alike.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Protocol, Self

import numpy as np
import typer
import zmq

from ape_nodes.benchmark_data import SIZE, scene
from ape_nodes.zeromq.sink import ZmqSink
from ape_nodes.zeromq.subscriber import subscribe
from ape_stream.errors import SourceError
from ape_stream.masks import paste
from ape_stream.wire import Envelope, encode_result

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.types import FrameResult

__all__ = ["Line", "measure", "wire"]

COUNTS: Final = (1, 20, 100)
_ANY_PORT: Final = "tcp://127.0.0.1:*"
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one form."""

    form: str
    """What is sent."""
    message_bytes: int
    """Bytes of one message, all parts together."""
    ms_p50: float
    """Milliseconds from publish to receive, median over the rounds."""
    ms_p95: float
    """The same, 95th percentile."""
    ms_p99: float
    """The same, 99th percentile."""


def _regions(result: FrameResult) -> str:
    count = len(result.instances)
    return f"{count} region{'s' if count > 1 else ''}"


class _Form(Protocol):
    """One way to send a result."""

    name: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def weight(self) -> int:
        """Bytes of a message."""

    def pass_on(self) -> None:
        """Publish the result and take it at the other end, decoded."""


class _Ours:
    """The sink and the reader that users have."""

    def __init__(self, result: FrameResult, image: str | None = None) -> None:
        with_image = f", frame as {image}" if image else ""
        self.name = f"wire v1, {_regions(result)}{with_image}"
        self._result = result
        self._image = image
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._sink = self._open.enter_context(
            ZmqSink(f"zmq:pub+bind:{_ANY_PORT}", image=self._image)
        )
        reader = subscribe(self._sink.address, timeout_s=_TIMEOUT_S)
        self._reader = self._open.enter_context(reader)
        self._sink.wait_for_readers(1, _TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def weight(self) -> int:
        return len(encode_result(self._result, Envelope("0", "0" * 16, 0), image=self._image))

    def pass_on(self) -> None:
        self._sink.write(self._result)
        next(self._reader)


class _Habit:
    """A bare PUB and SUB pair, as in many a lab."""

    def __init__(self, result: FrameResult) -> None:
        self._result = result
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def __enter__(self) -> Self:
        self._out, self._into = self._context.socket(zmq.XPUB), self._context.socket(zmq.SUB)
        for socket in (self._out, self._into):
            socket.linger = 0
        port = self._out.bind_to_random_port("tcp://127.0.0.1")
        self._into.subscribe(b"")
        self._into.connect(f"tcp://127.0.0.1:{port}")
        self._out.recv()  # the subscription has come
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)

    def _parts(self) -> list[bytes]:
        raise NotImplementedError

    def _read(self, parts: list[bytes]) -> object:
        raise NotImplementedError

    @property
    def weight(self) -> int:
        return sum(len(part) for part in self._parts())

    def pass_on(self) -> None:
        self._out.send_multipart(self._parts())
        if not self._into.poll(1000 * int(_TIMEOUT_S)):
            raise SourceError("a message was lost on loopback")
        self._read(self._into.recv_multipart())


class _Pickled(_Habit):
    """Dense masks, boxes and scores as one pickle."""

    def __init__(self, result: FrameResult) -> None:
        super().__init__(result)
        self.name = f"pickled dense masks, {_regions(result)}"

    def _parts(self) -> list[bytes]:
        found = self._result.instances
        masks = np.stack([paste(mask, found.size) for mask in found.masks])
        return [pickle.dumps((found.boxes, found.scores, masks))]

    def _read(self, parts: list[bytes]) -> object:
        return pickle.loads(parts[0])  # noqa: S301 (our own bytes; that others do so is the point)


class _RawFrame(_Habit):
    """A JSON head and the bare pixels."""

    name = "raw frame, no results"

    def _parts(self) -> list[bytes]:
        image = self._result.frame.image
        head = {"msg": "0", "dtype": str(image.dtype), "shape": image.shape}
        return [json.dumps(head).encode(), image.tobytes()]

    def _read(self, parts: list[bytes]) -> object:
        head = json.loads(parts[0])
        return np.frombuffer(parts[1], head["dtype"]).reshape(head["shape"])


def measure(rounds: int, size: tuple[int, int] = SIZE) -> list[Line]:
    """Pass every form on `rounds` times, in turns.

    Args:
        rounds: How often.
        size: Height and width of the frame, pixels.
    """
    results = [scene(count, size) for count in COUNTS]
    forms: list[_Form] = [_Ours(result) for result in results]
    forms += [_Ours(results[1], "jpeg"), *(_Pickled(result) for result in results)]
    forms.append(_RawFrame(results[0]))
    times: list[list[float]] = [[] for _ in forms]
    with contextlib.ExitStack() as stack:
        for form in forms:
            stack.enter_context(form)
            form.pass_on()  # connections and caches are warm before anything counts
        for _ in range(rounds):
            for form, mine in zip(forms, times, strict=True):
                start = time.perf_counter()
                form.pass_on()
                mine.append(1e3 * (time.perf_counter() - start))
        return [
            Line(form.name, form.weight, *np.percentile(mine, [50, 95, 99]).tolist())
            for form, mine in zip(forms, times, strict=True)
        ]


def wire(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each form is sent.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """Bytes and milliseconds of a 1080p result over ZeroMQ, beside pickles and raw frames."""
    lines = measure(rounds)
    if as_json:
        for line in lines:
            typer.echo(json.dumps(asdict(line)))
        return
    typer.echo(f"{'form':<42} {'bytes':>12} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9}")
    for line in lines:
        figures = f"{line.ms_p50:>9.2f} {line.ms_p95:>9.2f} {line.ms_p99:>9.2f}"
        typer.echo(f"{line.form:<42} {line.message_bytes:>12,} {figures}")
