"""An RTSP camera of GStreamer's server, for the system's Python: PORT FIRST, frames numbered."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (their versions come first)

WIDTH, HEIGHT, RATE = 128, 96, 25
PIPELINE = (
    "appsrc name=frames is-live=true format=time do-timestamp=true"
    f" caps=video/x-raw,format=BGR,width={WIDTH},height={HEIGHT},framerate={RATE}/1"
    " ! videoconvert ! video/x-raw,format=I420"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96"
)


def image_of(number):
    """The bytes of an image whose eight bars spell the number, as `clips.image_of` does."""
    bars = (bytes([210 if number >> bit & 1 else 40]) * (3 * WIDTH // 8) for bit in range(8))
    return b"".join(bars) * HEIGHT


class Camera(GstRtspServer.RTSPMediaFactory):
    """Gives out the next number 25 times a second, and prints when."""

    number = int(sys.argv[2])

    def do_create_element(self, _url):
        """Called once: the media is shared."""
        return Gst.parse_launch(PIPELINE)

    def do_configure(self, media):
        """Feed it."""
        frames = media.get_element().get_child_by_name("frames")
        GLib.timeout_add(1000 // RATE, self.feed, frames)

    def feed(self, frames):
        """One frame; False once nobody takes them."""
        now_s = GLib.get_monotonic_time() / 1e6
        print(self.number, now_s, flush=True)  # noqa: T201 (the test reads it)
        done = frames.emit("push-buffer", Gst.Buffer.new_wrapped(image_of(self.number)))
        self.number += 1
        return done == Gst.FlowReturn.OK


Gst.init(None)
camera = Camera()
camera.set_shared(True)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
server.get_mount_points().add_factory("/cam", camera)
server.attach(None)
GLib.MainLoop().run()
