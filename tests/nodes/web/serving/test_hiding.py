"""`--blur`: what nobody may see is in nothing that is served or written."""

import asyncio
import time
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from live_run import WAIT_S, LiveRun
from live_world import ClockSource, SquaresPerceiver, square_of

from ape_nodes.web.protocol import H264, JPEG, SYNCED

SIZE = (240, 384)
EVERYWHERE = {"name": "all", "kind": "area", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}


class Sand(ClockSource):
    """Grains of 4 pixels, from black to white."""

    def __iter__(self):
        grains = np.random.default_rng(0).integers(0, 256, (SIZE[0] // 4, SIZE[1] // 4), np.uint8)
        image = np.repeat(grains.repeat(4, 0).repeat(4, 1)[..., None], 3, axis=2)
        for frame in super().__iter__():
            yield replace(frame, image=image)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Images by the way that they came: over the socket, by REST, and as files."""
    folder = tmp_path_factory.mktemp("records")
    options = {"blur": "fox", "folder": str(folder), "perceiver": SquaresPerceiver(still=True)}
    with LiveRun(sources=[Sand(size=SIZE)], **options) as run:
        found = asyncio.run(pages(run))
        assert run.ask("PUT", "/api/cams/0/zones", json={"zones": [EVERYWHERE]})[0] == 200
        for number, overlay in enumerate((False, True), 1):
            body = {"on": True, "overlay": overlay}
            assert run.ask("POST", "/api/cams/0/record", json=body)[0] == 200
            wait_until(lambda: len(list(folder.glob("*.mp4*"))) >= number)  # noqa: B023 (now)
            assert run.ask("POST", "/api/cams/0/record", json={"on": False})[0] == 200
        found["snapshot.jpg"] = [decoded(run.ask("GET", "/api/cams/0/snapshot.jpg", "view")[1])]
        assert run.ask("POST", "/api/cams/0/snapshot")[0] == 200
        wait_until(lambda: list(folder.glob("*.jpg")))
    found["png"] = [cv2.imread(str(path)) for path in folder.glob("*.png")]
    found["event"] = [cv2.imread(str(path)) for path in folder.glob("*.jpg")]
    plain, drawn = sorted(folder.glob("*.mp4"))
    found["recording"], found["recording with overlay"] = frames_of(plain), frames_of(drawn)
    return found


def wait_until(true):
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def pages(run):
    found = {}
    async with run.page("view") as page:
        for name, kind, wish in (
            ("jpeg", JPEG, {}),
            ("jpeg, small", JPEG, {"max_w": 320}),
            ("sync", SYNCED, {"mode": "sync"}),
            ("h264", H264, {"codec": "h264"}),
        ):
            await page.send("sub", cam=0, **wish)
            message = await page.binary(kind, where=lambda m: m[0].kind != H264 or m[0].flags)
            found[name] = [decoded(message[3]) if kind != H264 else unit(message[3])]
    return found


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def unit(data):
    decoder = av.CodecContext.create("h264", "r")
    frames = decoder.decode(av.Packet(data)) + decoder.decode(None)
    return frames[0].to_ndarray(format="bgr24")


def frames_of(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]


@pytest.mark.parametrize(
    "way",
    ["jpeg", "jpeg, small", "sync", "h264", "snapshot.jpg", "png", "event", "recording",
     "recording with overlay"],
)  # fmt: skip
def test_the_grains_under_a_blurred_square_fade(seen, way):
    assert seen[way]
    for image in seen[way]:
        scale = image.shape[1] / SIZE[1]
        spread = {}
        for text in ("fox", "red apple"):
            x1, y1, x2, y2 = np.array(square_of(text, 0, SIZE)) * scale
            quarter = (x2 - x1) / 4  # the middle: no outline and no label
            rows = slice(int(y1 + quarter), int(y2 - quarter))
            spread[text] = image[rows, int(x1 + quarter) : int(x2 - quarter)].std(axis=(0, 1)).max()
        assert spread["fox"] < 0.5 * spread["red apple"]
