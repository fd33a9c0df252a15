"""How often images are encoded, and for whom; how they are made smaller."""

import queue
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from ape_nodes.web import camera as cameras
from ape_nodes.web.access import Role
from ape_nodes.web.camera import Camera
from ape_nodes.web.encoding.images import scaled
from ape_nodes.web.protocol import Ack, Subscribe
from ape_nodes.web.viewer import CREDITS, Viewer
from ape_stream.types import Frame

FPS = 30
IMAGE = np.zeros((72, 1280, 3), np.uint8)


class Room:
    """A camera and its viewers, frame by frame, without a clock."""

    def __init__(self, monkeypatch, viewers):
        self.widths = Counter()
        self.order = []
        self._viewers = [Viewer(k, Role.VIEW, None) for k in range(viewers)]
        self._ready = queue.SimpleQueue()
        self._frames = 0
        self.camera = Camera(0, "camera", lambda _, messages: [*map(self._ready.put, messages)])
        monkeypatch.setattr(self.camera, "hz", lambda **_: FPS)
        encode = cameras.encode_jpeg

        def count(image, width):
            self.widths[width] += 1
            self.order.append(width)
            return encode(image, width)

        monkeypatch.setattr(cameras, "encode_jpeg", count)
        for viewer in self._viewers:
            viewer.subscribe(Subscribe(0))
        self.camera.start()

    def show(self, frames, every):
        """Show frames; viewer k acknowledges what it has at every `every[k]`-th, or never: 0."""
        for _ in range(frames):
            wanted = frozenset(want for v in self._viewers for want in v.wants(0))
            wanted = {want for want in wanted if not want.has_masks}  # no results come
            self.camera.want(frozenset(wanted))
            self.camera.see(Frame(IMAGE, self._frames, self._frames / FPS, "camera"))
            self._frames += 1
            for message in [self._ready.get(timeout=30) for _ in wanted]:
                for viewer in self._viewers:
                    viewer.offer(self.camera, message)
            for viewer, pace in zip(self._viewers, every, strict=True):
                if pace and self._frames % pace == 0 and viewer.watched[0].images_out:
                    viewer.acknowledge(Ack(0, 0))
                    viewer._binary.popleft()
            if self._frames % FPS == 0:
                for viewer in self._viewers:
                    viewer.adapt(self.camera)

    def width(self, k):
        return self._viewers[k].watched[0].variant.width


@pytest.fixture
def room(monkeypatch):
    made = []

    def make(viewers):
        made.append(Room(monkeypatch, viewers))
        return made[0]

    yield make
    made[0].camera.close()


def test_an_image_is_encoded_once_for_all_and_never_for_nobody(room):
    four = room(4)
    four.show(20, (1, 1, 1, 1))
    assert four.widths == {1280: 20}
    four._viewers.clear()
    four.show(20, ())
    assert four.widths == {1280: 20}


def test_a_stopped_viewer_costs_no_encoding(room):
    pair = room(2)
    pair.show(12 * FPS, (1, 0))
    assert pair.width(1) == 320  # it would get small images, if it took any
    assert pair.widths == {1280: 12 * FPS}


def test_a_stopped_viewer_alone_costs_its_credits(room):
    alone = room(1)
    alone.show(12 * FPS, (0,))
    assert alone.widths == {1280: CREDITS["jpeg"]}


def test_a_slow_viewer_costs_as_many_small_images_as_it_takes(room):
    pair = room(2)
    pair.show(3 * FPS, (1, 6))
    assert pair.widths == {1280: 3 * FPS}  # what it takes is encoded for the other anyway
    pair.show(3 * FPS, (1, 3))
    assert pair.width(1) == 640
    small = pair.widths[960]
    assert 0 < small <= FPS + CREDITS["jpeg"]
    assert pair.widths == {1280: 6 * FPS, 960: small}


def test_who_sees_large_images_does_not_wait_for_those_of_slow_viewers(room):
    pair = room(2)
    pair.show(3 * FPS, (1, 6))
    pair.order.clear()
    pair.show(FPS, (1, 2))
    firsts = [k for k, width in enumerate(pair.order) if width == 960]
    assert firsts
    assert all(pair.order[k - 1] == 1280 for k in firsts)


def photo(height, width):
    """Shades and edges of many sizes, as of a photo."""
    rng = np.random.default_rng(3)
    layers = [
        side**0.5
        * cv2.resize(rng.normal(0, 1, (-(-height // side), -(-width // side), 3)), (width, height))
        for side in (1, 2, 4, 8, 16, 32, 64)
    ]
    return np.clip(128 + 6 * sum(layers), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("part", [2, 2.1, 3, 3.7])
def test_to_half_and_less_images_are_means_of_areas_to_the_bit(part):
    image = photo(333, 500)
    size = (int(500 / part), round(333 * int(500 / part) / 500))
    means = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(scaled(image, size[0]), means)


@pytest.mark.parametrize("part", [1.05, 1.2, 4 / 3, 1.5, 1.75, 1.95])
def test_to_more_than_half_they_are_as_near_to_lanczos_as_means_of_areas(part):
    image = photo(480, 640)
    size = (width := round(640 / part), round(480 * width / 640))
    best = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    means = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(scaled(image, size[0]), best) >= cv2.PSNR(means, best) - 0.5
