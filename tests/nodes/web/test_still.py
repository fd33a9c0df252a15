"""One image that stays: seen by whoever comes, looked at again, replaced by another."""

import asyncio

import cv2
import numpy as np
import pytest
from live_run import SIZE, LiveRun
from test_live import image_of, packed

from ape_nodes.web import protocol
from ape_nodes.web.still import StillSource, still_of
from ape_stream.errors import ConfigError, SourceError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "grey.png"
    cv2.imwrite(str(path), np.full((*SIZE, 3), 90, np.uint8))
    return path


@pytest.fixture
def live(file):
    with LiveRun(sources=[StillSource(f"still://{file}", name="grey")]) as live:
        yield live


async def seen(page):
    """The image and the masks of a page that has just come."""
    await page.send("sub", cam=0)
    found = {}
    while len(found) < 2:
        message = await page.next()
        if not isinstance(message, dict):
            found[message[0].kind] = message
            await page.ack(message)
    return found[protocol.JPEG], found[protocol.MASKS]


def test_whoever_comes_later_sees_the_image_and_its_masks(live):
    async def main():
        async with live.page() as page:
            first = await seen(page)
        async with live.page("view") as page:
            return first, await seen(page), page.welcome["cams"][0]

    first, second, cam = asyncio.run(main())
    assert first[0][0].seq == second[0][0].seq == 0
    assert first[0][3] == second[0][3]
    assert first[1][1]["dets"] == second[1][1]["dets"] != []
    assert (cam["still"], cam["live"], cam["browser"]) == (True, False, False)


def test_it_is_looked_at_again_when_the_prompts_change(live):
    async def main():
        async with live.page() as page:
            await seen(page)
            add = [{"op": "add", "text": "star"}]
            await page.send("prompts.set", base_rev=1, ops=add, id=1)
            return await page.binary(protocol.MASKS, where=lambda m: m[0].prompt_rev == 2)

    assert len(asyncio.run(main())[1]["dets"]) == 3


def test_another_image_takes_its_place_for_everybody(live):
    white = cv2.imencode(".jpg", np.full((64, 128, 3), 250, np.uint8))[1].tobytes()

    async def main():
        async with live.page() as page, live.page("view") as other:
            await seen(page)
            await seen(other)
            await page.send("camera", cam=0, id=1)
            await page.text("ok")
            for image in (b"\xff\xd8no", white):
                await page.ws.send_bytes(packed(image, 0))
                await page.text("ack")
            return [await one.binary(protocol.JPEG) for one in (page, other)]

    for message in asyncio.run(main()):
        assert message[1]["size"] == [64, 128]
        assert image_of(message).mean() > 240


def test_who_may_only_look_replaces_nothing(live):
    async def main():
        async with live.page("view") as page:
            await page.send("camera", cam=0, id=1)
            return (await page.text("error"))["reason"]

    assert "may look" in asyncio.run(main())


def test_an_image_file_of_the_command_stays_and_other_sources_are_themselves(file, tmp_path):
    assert still_of(str(file)) == f"still://{file}"
    missing, video = str(tmp_path / "missing.png"), str(tmp_path / "clip.mp4")
    (tmp_path / "clip.mp4").touch()
    others = ["0", "rtsp://gate/cam.jpg", str(file.parent), missing, video]
    assert [still_of(other) for other in others] == others


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SourceError, match="not an image"):
        StillSource(f"still://{tmp_path}/text.png", name="x").check()
    with pytest.raises(ConfigError, match="still://PATH"):
        StillSource("still://", name="x")
