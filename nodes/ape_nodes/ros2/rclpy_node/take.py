"""How the messages of a subscription are taken: as bytes through rcl, or as rclpy's own messages.

rclpy makes a message while it holds the lock of Python (GIL): 3.3 ms for a raw image of 1080p, in
which a model waits for the lock. rcl's own function, called by ctypes, copies the bytes without
it, and only the header is read in Python (`cdr`). What rclpy makes is the reference form: tests
compare both, and it is taken where rcl cannot be called so.

The function is `rcl_take_serialized_message` (rcl/subscription.h), public since Dashing. It is
found in what rclpy itself has loaded, so it is of the same rcl as the subscription's handle.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from rclpy.impl.implementation_singleton import rclpy_implementation

from ape_nodes.ros2.rclpy_node.cdr import READERS
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["SerializedTake", "Take", "TypedTake", "Unavailable", "rcl_library", "take_of"]

_OK: Final = 0
_UNSUPPORTED: Final = 3
_NOTHING_THERE: Final = 401  # RCL_RET_SUBSCRIPTION_TAKE_FAILED (rcl/types.h)
_KEPT: Final = 4
"""Buffers that wait to be used again: images wait for their depth, the model or a reader."""
_TOO_LARGE: Final = 4
"""A buffer that is so many times larger than its last message is not kept."""


class Unavailable(Exception):  # noqa: N818 (no failure: another way is taken)
    """Why rcl cannot be called here."""


class Take(Protocol):
    """Takes the messages of one subscription."""

    form: str
    """"serialized" or "typed"."""

    def __call__(self, subscription: Any) -> Any | None:
        """The next message; None where none is there.

        Raises:
            SourceError: it cannot be taken or read.
        """


class TypedTake:
    """Takes what rclpy makes of a message."""

    form = "typed"

    def __call__(self, subscription: Any) -> Any | None:
        """The next message; None where none is there."""
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        return None if taken is None else taken[0]


class _Allocator(ctypes.Structure):
    """rcutils_allocator_t (rcutils/allocator.h)."""

    _fields_ = (
        ("allocate", ctypes.c_void_p),
        ("deallocate", ctypes.c_void_p),
        ("reallocate", ctypes.c_void_p),
        ("zero_allocate", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
    )


class _Array(ctypes.Structure):
    """rcutils_uint8_array_t (rcutils/types/uint8_array.h), which rcl_serialized_message_t is."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("buffer_length", ctypes.c_size_t),
        ("buffer_capacity", ctypes.c_size_t),
        ("allocator", _Allocator),
        ("spare", ctypes.c_uint64 * 8),  # ours: shows whether rcutils has more members
    )


class _ErrorString(ctypes.Structure):
    """rcutils_error_string_t (rcutils/error_handling.h)."""

    _fields_ = (("str", ctypes.c_char * 1024),)


class _Memory:
    """Memory of rcl's allocator, which an RMW enlarges where a message needs more."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.array = _Array()
        self._finish = library.rcutils_uint8_array_fini
        allocator = library.rcutils_get_default_allocator()
        array = ctypes.byref(self.array)
        if library.rcutils_uint8_array_init(array, ctypes.c_size_t(0), ctypes.byref(allocator)):
            raise Unavailable("rcutils_uint8_array_init failed")

    def __del__(self) -> None:
        self._finish(ctypes.byref(self.array))


class _Bytes:
    """The bytes of one message, for numpy; its memory is used again when no view of it is left."""

    def __init__(self, array: _Array) -> None:
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (array.buffer_length,),
            "data": (array.buffer or 0, True),  # read only
        }


class SerializedTake:
    """Takes bytes through rcl and reads them; the bytes of a message are a view of what was taken.

    Where the RMW has no serialized messages, it goes on as `TypedTake`, and reports that.

    Args:
        library: The C library rcl, see `rcl_library`.
        read: Makes a message of bytes, see `cdr`.
        report: Takes one line for the log.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        read: Callable[[memoryview], Any],
        report: Callable[[str], None],
    ) -> None:
        self.form = "serialized"
        self._library = library
        self._read = read
        self._report = report
        self._free: deque[_Memory] = deque(maxlen=_KEPT)
        self._typed = TypedTake()

    def __call__(self, subscription: Any) -> Any | None:
        """The next message; None where none is there.

        Raises:
            SourceError: rcl gave an error, or the bytes are no message of this type.
        """
        if self.form == "typed":
            return self._typed(subscription)
        memory = self._free.pop() if self._free else _Memory(self._library)
        # ctypes releases the lock of Python for the time of the call.
        code = self._library.rcl_take_serialized_message(
            subscription.handle.pointer, ctypes.byref(memory.array), None, None
        )
        if code == _OK:
            return self._read(self._view(memory))
        self._free.append(memory)
        if code == _NOTHING_THERE:
            return None
        error = self._error()
        if code == _UNSUPPORTED:
            self.form = "typed"
            self._report(f"the RMW takes no serialized messages: {error}")
            return self._typed(subscription)
        raise SourceError(f"a message could not be taken (rcl's code {code}): {error}")

    def _view(self, memory: _Memory) -> memoryview:
        """The bytes of a message; when no view is left, their memory is free again."""
        owner = _Bytes(memory.array)
        # Not at the end of the process: threads in C may still read an image then.
        weakref.finalize(owner, _give_back, self._free, memory).atexit = False
        bytes_of: NDArray[np.uint8] = np.asarray(owner)
        return bytes_of.data

    def _error(self) -> str:
        """The error of this thread, which is reset: rcl warns where one is overwritten."""
        text: bytes = self._library.rcutils_get_error_string().str
        self._library.rcutils_reset_error()
        return text.decode("utf-8", "replace")


def _give_back(free: deque[_Memory], memory: _Memory) -> None:
    array = memory.array
    # One huge message must not hold its memory as long as the subscription lives.
    if array.buffer_capacity <= _TOO_LARGE * array.buffer_length:
        free.append(memory)


def take_of(kind: str, report: Callable[[str], None]) -> Take:
    """How messages of a type are taken.

    Args:
        kind: The ROS 2 type.
        report: Takes one line for the log, where rcl cannot be called though that would be faster.
    """
    read = READERS.get(kind)
    if read is None:  # small, or not used for images
        return TypedTake()
    try:
        return SerializedTake(rcl_library(), read, report)
    except Unavailable as reason:
        report(f"{kind} is taken as rclpy makes it, which costs the model more: {reason}")
        return TypedTake()


def rcl_library() -> ctypes.CDLL:
    """What is called of rcl and rcutils, with its signatures, checked.

    Raises:
        Unavailable: they are not found, or do not have the layout that is expected.
    """
    path = getattr(rclpy_implementation, "__file__", None)
    try:
        # The library of rclpy is loaded already; its symbols include those that it depends on.
        library = ctypes.CDLL(path) if path else None
        if library is None:
            raise Unavailable("rclpy has no library of its own")
        _declare(library)
    except (OSError, AttributeError) as error:
        raise Unavailable(str(error)) from error
    _check(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    array, allocator = ctypes.POINTER(_Array), ctypes.POINTER(_Allocator)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rcl_take_serialized_message": (
            ctypes.c_int,
            [ctypes.c_void_p, array] + [ctypes.c_void_p] * 2,
        ),
        "rcutils_get_default_allocator": (_Allocator, []),
        "rcutils_get_error_string": (_ErrorString, []),
        "rcutils_reset_error": (None, []),
        "rcutils_uint8_array_init": (ctypes.c_int, [array, ctypes.c_size_t, allocator]),
        "rcutils_uint8_array_fini": (ctypes.c_int, [array]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _check(library: ctypes.CDLL) -> None:
    """Refuse an rcutils whose array has other members than `_Array`."""
    array, allocator = _Array(), library.rcutils_get_default_allocator()
    array.spare = (ctypes.c_uint64 * 8)(*[2**64 - 1] * 8)
    code = library.rcutils_uint8_array_init(
        ctypes.byref(array), ctypes.c_size_t(64), ctypes.byref(allocator)
    )
    found = (code, bool(array.buffer), array.buffer_length, array.buffer_capacity)
    untouched = all(value == 2**64 - 1 for value in array.spare)
    if found != (_OK, True, 0, 64) or bytes(array.allocator) != bytes(allocator) or not untouched:
        raise Unavailable("rcutils_uint8_array_t has another layout than in Jazzy")
    library.rcutils_uint8_array_fini(ctypes.byref(array))
