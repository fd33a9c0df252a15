"""Semantic and panoptic views of a run, and the areas where to look."""

import asyncio
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from live_run import SIZE, LiveRun
from live_world import SquaresPerceiver
from test_protocol import read_labels

from ape_nodes.web import protocol
from ape_nodes.web.encoding.views import has_view, regions_of
from ape_nodes.web.protocol import Zone
from ape_nodes.web.recorder import plain
from ape_nodes.web.still import StillSource
from ape_nodes.web.zones.looking import within
from ape_stream.types import (
    Frame,
    FrameResult,
    Instances,
    Maps,
    Mask,
    PanopticMap,
    PromptSet,
    Segment,
    SemanticMap,
)


class MapSquares(SquaresPerceiver):
    """Its maps: the left half is the first prompt; of its two segments one has the upper half."""

    def __init__(self):
        super().__init__(still=True)
        self.wanted = []

    def perceive_with_maps(self, frames, wanted):
        self.wanted.append(wanted)
        return [(self._find(frame), self._maps(frame.size, wanted)) for frame in frames]

    def _maps(self, size, wanted):
        return Maps(
            semantic=SemanticMap(halves(size, 1, 1)) if "semantic" in wanted else None,
            panoptic=panoptic(size) if "panoptic" in wanted else None,
        )


def halves(size, upper, lower):
    ids = np.zeros(size, np.uint16)
    rows, cols = size[0] // 2, size[1] // 2
    ids[:rows, :cols], ids[rows:, :cols] = upper, lower
    return ids


def panoptic(size):
    area = size[0] * size[1] // 4
    segments = tuple(Segment(k, 0, True, 0.5 + k / 8, area) for k in (1, 2))
    return PanopticMap(halves(size, 1, 2), segments, (False, False))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "grey.png"
    cv2.imwrite(str(path), np.full((*SIZE, 3), 90, np.uint8))
    return path


def still(file, perceiver):
    return LiveRun(sources=[StillSource(f"still://{file}", name="grey")], perceiver=perceiver)


def test_an_image_is_looked_at_again_for_a_map_that_it_lacks(file):
    async def main():
        async with live.page() as page, live.page("view") as other:
            found = {}
            for one, view in ((page, "instances"), (page, "semantic"), (other, "panoptic")):
                await one.send("sub", cam=0, view=view)
                fits = lambda m, view=view: m[1].get("view", "instances") == view  # noqa: E731
                found[view] = await one.binary(protocol.MASKS, where=fits)
            return found, page.welcome["can"]["maps"]

    perceiver = MapSquares()
    with still(file, perceiver) as live:
        found, can = asyncio.run(main())
    assert can
    height, width = SIZE
    assert len(found["instances"][1]["dets"]) == 2
    assert [det[1:] for det in found["semantic"][1]["dets"]] == [
        [None, 0, 0, 0, width // 2, height]
    ]
    assert [det[1:] for det in found["panoptic"][1]["dets"]] == [
        [0.625, 0, 0, 0, width // 2, height // 2],
        [0.75, 0, 0, height // 2, width // 2, height],
    ]
    np.testing.assert_array_equal(read_labels(found["semantic"][2]), halves(SIZE, 1, 1)[::2, ::2])
    np.testing.assert_array_equal(read_labels(found["panoptic"][2]), halves(SIZE, 1, 2)[::2, ::2])
    # No map is made before somebody looks at one.
    assert perceiver.wanted[0] == {"semantic"}


def test_a_model_without_maps_says_so(file):
    async def main():
        async with live.page() as page:
            await page.send("sub", cam=0, view="semantic")
            return page.welcome["can"]["maps"], (await page.text("error"))["reason"]

    with still(file, SquaresPerceiver()) as live:
        assert asyncio.run(main()) == (False, "this model has no semantic view")


def test_an_area_where_to_look_holds_for_the_image_that_stays(file):
    whole = {"name": "look 1", "kind": "look", "points": [[0, 0], [1, 0], [1, 1]], "prompts": []}
    empty = {**whole, "points": [[0, 0], [0.01, 0], [0, 0.01]]}

    async def main():
        async with live.page() as page:
            await page.send("sub", cam=0)
            first = await page.binary(protocol.MASKS)
            await page.send("zones.set", cam=0, base_rev=1, zones=[empty], id=1)
            none = await page.binary(protocol.MASKS, where=lambda m: m[0].seq > first[0].seq)
            return len(first[1]["dets"]), none[1]["dets"], none[1].get("counts")

    with still(file, SquaresPerceiver(still=True)) as live:
        assert asyncio.run(main()) == (2, [], None)


def result_of(*boxes, masks=True, maps=None):
    """Boxes x1 y1 x2 y2 in a frame of 40 x 80, of two prompts in turn."""
    frame = Frame(np.zeros((40, 80, 3), np.uint8), 0, 0.0, "s")
    found = Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), 0.9, np.float32),
        prompt_ids=np.arange(len(boxes)) % 2,
        masks=tuple(Mask(np.ones((y2 - y1, x2 - x1), bool), x1, y1) for x1, y1, x2, y2 in boxes)
        if masks
        else None,
        size=frame.size,
    )
    return FrameResult(frame, found, PromptSet.of("apple, fox"), {}, maps or Maps())


def look(x1, y1, x2, y2, prompts=()):
    return Zone("look", "look", ((x1, y1), (x2, y1), (x2, y2), (x1, y2)), prompts)


LEFT = look(0, 0, 0.5, 1)


@pytest.mark.parametrize("masks", [True, False])
def test_what_lies_for_more_than_half_inside_stays(masks):
    result = result_of(
        (0, 0, 10, 10), (35, 0, 44, 10), (36, 0, 44, 10), (60, 5, 70, 9), masks=masks
    )
    kept = within(result, [LEFT]).instances.boxes[:, 0].tolist()
    assert kept == [0, 35]  # 5 of 9 columns; 4 of 8 are not more than half
    both = [LEFT, look(0.75, 0, 1, 1)]
    assert within(result, both).instances.boxes[:, 0].tolist() == [0, 35, 60]
    assert within(result, []) is result


def test_an_area_of_some_prompts_restricts_only_them():
    result = result_of((60, 0, 70, 10), (60, 20, 70, 30))
    kept = within(result, [look(0, 0, 0.5, 1, ("fox",))]).instances
    assert kept.prompt_ids.tolist() == [0]


def test_maps_are_cut_and_segments_chosen():
    size = (40, 80)
    result = result_of(maps=Maps(SemanticMap(halves(size, 1, 2)), panoptic(size)))
    looked = within(result, [look(0, 0, 1, 0.4)])  # 16 of 40 rows
    ids = looked.semantic()
    assert (ids[:16, :40] == 1).all()
    assert not ids[16:].any()
    assert [segment.id for segment in looked.panoptic().segments] == [1]
    np.testing.assert_array_equal(looked.panoptic().ids, halves(size, 1, 0))
    bare = plain(result)
    assert [regions_of(bare, view)[1] for view in ("semantic", "panoptic")] == [[], []]
    assert not has_view(plain(result_of()), "semantic")


def test_more_segments_than_labels_keep_their_rows():
    ids = np.repeat(np.arange(400, dtype=np.uint16), 8).reshape(40, 80)
    segments = tuple(Segment(k, 0, True, 0.5, 8) for k in range(1, 400))
    result = SimpleNamespace(panoptic=lambda: PanopticMap(ids, segments, (False,)))
    labels, rows = regions_of(result, "panoptic")
    assert len(rows) == 399
    assert set(np.unique(labels)) <= set(range(256))
    assert (labels == np.where(ids > 255, 0, ids)[::2, ::2]).all()


def test_an_area_has_the_pixels_whose_middle_is_inside():
    rng = np.random.default_rng(4)
    dots = result_of(*((x, y, x + 1, y + 1) for y in range(40) for x in range(80)))
    for points in rng.random((5, 7, 2)):
        own = Zone("look", "look", tuple(map(tuple, points.tolist())))
        kept = within(dots, [own]).instances.boxes[:, :2].astype(int)
        found = np.zeros((40, 80), bool)
        found[kept[:, 1], kept[:, 0]] = True
        x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(40) + 0.5)
        np.testing.assert_array_equal(found, inside(points * (80, 40), x, y))


def inside(points, x, y):
    """The sum of the angles around a point is a multiple of a turn that is odd inside."""
    turns = np.zeros(x.shape)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        a, b = np.arctan2(y1 - y, x1 - x), np.arctan2(y2 - y, x2 - x)
        turns += (b - a + np.pi) % (2 * np.pi) - np.pi
    return np.rint(turns / (2 * np.pi)).astype(int) % 2 == 1
