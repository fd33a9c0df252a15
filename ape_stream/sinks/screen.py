"""The size of the screen, which OpenCV does not report."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["screen_size"]


def screen_size() -> tuple[int, int] | None:
    """Width and height of the screen in pixels, or None where the system does not say."""
    try:
        size = _windows() if sys.platform == "win32" else _x11()
    except (OSError, AttributeError):  # no such library, or another one of its name
        return None
    return size if size is not None and min(size) > 0 else None


def _windows() -> tuple[int, int]:
    """Microsoft's `GetSystemMetrics`, 0: SM_CXSCREEN, 1: SM_CYSCREEN."""
    user32 = ctypes.CDLL("user32")
    return user32.GetSystemMetrics(0), user32.GetSystemMetrics(1)


def _x11() -> tuple[int, int] | None:
    """Of the X server that DISPLAY names (`XDisplayWidth`); Wayland has one for such programs."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        return None
    try:
        screen = x11.XDefaultScreen(display)
        return x11.XDisplayWidth(display, screen), x11.XDisplayHeight(display, screen)
    finally:
        x11.XCloseDisplay(display)
