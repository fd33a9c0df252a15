"""Draws the clip that ships with the project: things that cross each other's lanes, H.264."""

import argparse
from fractions import Fraction

import av

from ape_model.world import World

CAST = ("red apple", "dog face", "tropical fish", "sailboat", "mushroom", "birthday cake")
FPS, SIZE = 15, (240, 320)


def main() -> None:
    """Write the clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--frames", type=int, default=180)
    given = parser.parse_args()
    video = World(object_px=(44, 96)).video(given.seed, SIZE, fps=FPS, cast=CAST)
    with av.open(given.path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(given.frames):
            frame = av.VideoFrame.from_ndarray(video.scene(index).image, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
