"""Makes the animation at the top of the README: the shipped network on our own drawn world."""

import argparse
from pathlib import Path

from PIL import Image

import ape_stream
from ape_stream.draw import draw

SOURCE = "synthetic://{seed}?size=512x384&fps=12&frames={frames}&cast={cast}"
CAST = "red apple,dog face,tropical fish,sailboat,mushroom,birthday cake"


def main() -> None:
    """Write the animation, a looping WebP."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--quality", type=int, default=60, help="of WebP, 0 to 100")
    given = parser.parse_args()
    source = SOURCE.format(seed=given.seed, frames=given.frames, cast=CAST)
    with ape_stream.open(source, prompts=[*CAST.split(","), "grass"]) as run:
        images = [Image.fromarray(draw(result)[..., ::-1].copy()) for result in run]
    given.path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(
        given.path,
        save_all=True,
        append_images=images[1:],
        duration=1000 // 12,
        loop=0,
        quality=given.quality,
        method=6,
    )
    print(f"{given.path}: {len(images)} frames, {given.path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
