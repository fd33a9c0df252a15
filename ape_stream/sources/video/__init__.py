"""Video files and network streams, decoded by PyAV (FFmpeg).

source       the `VideoSource` that users name
opening      a container, opened within a time limit; which stream; whether it has an end
timestamps   a frame's time as the container has it
pixels       upright images with square pixels, in true colours
whole        reads what has an end: every frame, and what was missing
faults       what goes wrong on a live stream, counted and reported
arrivals     the frames of one connection of a live stream as they arrive
connection   the thread that reads them
playlist     when an HLS playlist has a new segment
live         what is handed out of a live stream, over interruptions
"""

from ape_stream.sources.video.source import VideoSource

__all__ = ["VideoSource"]
