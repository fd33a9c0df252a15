"""`ape-stream bench wire`: size of a 1080p result, and time from publishing to receiving it.

Our results are compared with common ways: pickled dense masks, and the raw frame with a JSON head
(as imagezmq sends it). The time runs from before encoding to after decoding, over PUB and SUB on
loopback TCP. All forms take turns in every round, so a busy machine slows all of them equally.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import zmq

from ape_nodes.benchmarks import SIZE, percentiles, report, scene
from ape_nodes.zeromq.sink import ZmqSink
from ape_nodes.zeromq.subscriber import subscribe
from ape_stream.closing import Closing
from ape_stream.errors import SourceError
from ape_stream.masks import paste
from ape_stream.wire import Envelope, encode_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.types import FrameResult

__all__ = ["Line", "measure", "wire"]

COUNTS: Final = (1, 20, 100)
_ANY_PORT: Final = "tcp://127.0.0.1:*"
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """Measurements of one form."""

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


class _Form(Closing):
    """One way to send a result."""

    name: str

    @property
    def message_bytes(self) -> int:
        """Bytes of a message, all parts together."""
        raise NotImplementedError

    def pass_on(self) -> None:
        """Publish the result and receive it at the other end, decoded."""
        raise NotImplementedError


class _Ours(_Form):
    """The sink and the reader of this project."""

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
        self._sink.wait_for_readers(1, _TIMEOUT_S)  # else the first result would be lost
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        self._open.close()

    @property
    def message_bytes(self) -> int:
        return len(encode_result(self._result, Envelope("0", "0" * 16, 0), image=self._image))

    def pass_on(self) -> None:
        self._sink.write(self._result)
        next(self._reader)


class _PlainPubSub(_Form):
    """A bare PUB and SUB pair, as in many scripts."""

    def __init__(self, result: FrameResult) -> None:
        self._result = result
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def __enter__(self) -> Self:
        self._pub, self._sub = self._context.socket(zmq.XPUB), self._context.socket(zmq.SUB)
        for socket in (self._pub, self._sub):
            socket.linger = 0
        port = self._pub.bind_to_random_port("tcp://127.0.0.1")
        self._sub.subscribe(b"")  # before connecting, so that it is sent with the handshake
        self._sub.connect(f"tcp://127.0.0.1:{port}")
        self._pub.recv()  # the subscription has arrived
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        self._context.destroy(linger=0)

    def _encode(self) -> list[bytes]:
        raise NotImplementedError

    def _decode(self, parts: list[bytes]) -> object:
        raise NotImplementedError

    @property
    def message_bytes(self) -> int:
        return sum(len(part) for part in self._encode())

    def pass_on(self) -> None:
        self._pub.send_multipart(self._encode())
        if not self._sub.poll(1000 * int(_TIMEOUT_S)):
            raise SourceError("a message was lost on loopback")
        self._decode(self._sub.recv_multipart())


class _Pickled(_PlainPubSub):
    """Dense masks, boxes and scores as one pickle."""

    def __init__(self, result: FrameResult) -> None:
        super().__init__(result)
        self.name = f"pickled dense masks, {_regions(result)}"

    def _encode(self) -> list[bytes]:
        found = self._result.instances
        # Dense (N, H, W), as most scripts keep masks.
        masks = np.stack([paste(mask, found.size) for mask in found.masks or ()])
        return [pickle.dumps((found.boxes, found.scores, masks))]

    def _decode(self, parts: list[bytes]) -> object:
        return pickle.loads(parts[0])  # noqa: S301 (our own bytes; others unpickle strangers')


class _RawFrame(_PlainPubSub):
    """A JSON head and the plain pixels."""

    name = "raw frame, no results"

    def _encode(self) -> list[bytes]:
        image = self._result.frame.image
        head = {"msg": "0", "dtype": str(image.dtype), "shape": image.shape}
        return [json.dumps(head).encode(), image.tobytes()]

    def _decode(self, parts: list[bytes]) -> object:
        head = json.loads(parts[0])
        return np.frombuffer(parts[1], head["dtype"]).reshape(head["shape"])


def measure(rounds: int, size: tuple[int, int] = SIZE) -> list[Line]:
    """Send and receive every form `rounds` times, in turns.

    Args:
        rounds: How often.
        size: Height and width of the frame, pixels.
    """
    results = [scene(count, size) for count in COUNTS]
    forms: list[_Form] = [_Ours(result) for result in results]
    forms += [_Ours(results[1], "jpeg"), *(_Pickled(result) for result in results)]
    forms.append(_RawFrame(results[0]))
    times_ms: list[list[float]] = [[] for _ in forms]
    with contextlib.ExitStack() as stack:
        for form in forms:
            stack.enter_context(form)
            form.pass_on()  # not measured: opens connections and fills caches
        for _ in range(rounds):  # all forms in each round: a busy moment falls on all of them
            for form, own_ms in zip(forms, times_ms, strict=True):
                start = time.perf_counter()
                form.pass_on()
                own_ms.append(1e3 * (time.perf_counter() - start))
        return [
            Line(form.name, form.message_bytes, *percentiles(own_ms))
            for form, own_ms in zip(forms, times_ms, strict=True)
        ]


def wire(*, rounds: int, as_json: bool) -> None:
    """Bytes and milliseconds of a 1080p result over ZeroMQ, next to pickles and raw frames."""
    columns: dict[str, Callable[[Line], str]] = {
        "form": lambda line: line.form,
        "bytes": lambda line: f"{line.message_bytes:,}",
        "p50 ms": lambda line: f"{line.ms_p50:.2f}",
        "p95 ms": lambda line: f"{line.ms_p95:.2f}",
        "p99 ms": lambda line: f"{line.ms_p99:.2f}",
    }
    report(measure(rounds), columns, as_json=as_json, first=32)
