import pytest

from ape_nodes.web.access import Role
from ape_nodes.web.camera import Encoded
from ape_nodes.web.encoding.images import Variant, width_for
from ape_nodes.web.protocol import Ack, Subscribe
from ape_nodes.web.viewer import MAX_TEXTS, WAITING, Viewer


class Camera:
    """Delivers 30 images a second, as far as a viewer knows."""

    index = 0

    def __init__(self):
        self.keys = []

    def hz(self, *, results):
        return 10.0 if results else 30.0

    def want_key(self, width):
        self.keys.append(width)


@pytest.fixture
def viewer():
    seen = Viewer(1, Role.VIEW, None)
    seen.subscribe(Subscribe(0))
    return seen


JPEG = Variant("jpeg", 1280)
MASKS = Variant("masks")


def image(serial, variant=JPEG, *, key=True):
    return Encoded(variant, serial, b"??%d" % serial, 2, key)


def waiting(viewer):
    return [message.message for message in viewer._binary]


def second(viewer, camera, sent):
    """A second in which so many images were sent."""
    viewer.watched[0].sent = sent
    viewer.adapt(camera)
    return viewer.watched[0].variant


def test_a_viewer_that_misses_images_for_three_seconds_gets_smaller_ones(viewer):
    camera = Camera()
    widths = [second(viewer, camera, 5).width for _ in range(16)]
    assert widths == [1280] * 2 + [960] * 3 + [640] * 3 + [320] * 8


def test_after_ten_calm_seconds_they_grow_again(viewer):
    camera = Camera()
    for _ in range(3):
        second(viewer, camera, 5)
    widths = [second(viewer, camera, 30).width for _ in range(10)]
    assert widths == [960] * 9 + [1280]


def test_a_viewer_too_slow_for_h264_gets_jpeg(viewer):
    viewer.subscribe(Subscribe(0, codec="h264"))
    camera = Camera()
    assert second(viewer, camera, 30) == Variant("h264", 1280)
    for _ in range(3):
        slow = second(viewer, camera, 5)
    assert slow == Variant("jpeg", 960)


def test_in_sync_there_are_as_many_images_as_results(viewer):
    viewer.subscribe(Subscribe(0, mode="sync"))
    camera = Camera()
    assert {second(viewer, camera, 10).width for _ in range(5)} == {1280}


def test_few_images_because_few_were_asked_for_are_no_slowness(viewer):
    viewer.subscribe(Subscribe(0, fps=5))
    camera = Camera()
    assert {second(viewer, camera, 5).width for _ in range(20)} == {1280}


def test_asking_again_gives_no_credit_back(viewer):
    camera = Camera()
    for serial in range(1, 4):
        viewer.offer(camera, image(serial))
    assert waiting(viewer) == [b"1", b"2"]
    viewer.subscribe(Subscribe(0))
    viewer.offer(camera, image(4))
    assert len(viewer._binary) == 2
    viewer.acknowledge(Ack(0, 1))
    viewer.offer(camera, image(5))
    assert waiting(viewer)[2:] == [b"5"]


def test_acknowledging_what_was_never_sent_gives_no_credit(viewer):
    camera = Camera()
    for _ in range(9):
        viewer.acknowledge(Ack(0, 1))
    for serial in range(1, 9):
        viewer.offer(camera, image(serial))
    assert len(viewer._binary) == 2


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_what_waits_is_bounded_for_any_viewer(viewer, codec):
    """One that reads nothing, acknowledges everything and asks for the camera again and again."""
    camera = Camera()
    for serial in range(1, 100):
        viewer.watched.pop(0, None)
        viewer.subscribe(Subscribe(0, codec=codec))
        viewer.offer(camera, image(serial, Variant(codec, 1280)))
        viewer.offer(camera, image(serial, MASKS))
        viewer.acknowledge(Ack(0, serial))
        viewer.acknowledge(Ack(0, serial, "masks"))
    assert len(viewer._binary) == WAITING
    assert viewer.wants(0) == []
    viewer._binary.popleft()
    assert MASKS in viewer.wants(0)


def test_after_a_missing_unit_h264_goes_on_with_a_key_frame(viewer):
    viewer.subscribe(Subscribe(0, codec="h264"))
    camera, wanted = Camera(), Variant("h264", 1280)
    viewer.offer(camera, image(1, wanted, key=False))  # nothing before it: cannot be decoded
    assert camera.keys == [1280]
    for serial in range(2, 7):
        viewer.offer(camera, image(serial, wanted, key=serial == 2))
    assert waiting(viewer) == [b"2", b"3", b"4", b"5"]  # 6 had no credit
    viewer.acknowledge(Ack(0, 2))
    viewer.offer(camera, image(7, wanted, key=False))
    assert camera.keys == [1280, 1280]
    viewer.offer(camera, image(8, wanted, key=True))
    assert waiting(viewer)[4:] == [b"8"]


def test_a_viewer_that_reads_nothing_is_ended_before_it_fills_the_memory(viewer):
    for _ in range(2 * MAX_TEXTS):
        viewer.send("{}")
    assert len(viewer._texts) == MAX_TEXTS
    assert viewer._over


@pytest.mark.parametrize(
    ("wanted", "level", "width"),
    [(1280, 0, 1280), (1300, 1, 960), (5000, 0, 1920), (1, 0, 320), (640, 9, 320)],
)
def test_widths_are_few(wanted, level, width):
    assert width_for(wanted, level) == width


class Socket:
    """A WebSocket and what is below it."""

    closed = False

    def __init__(self):
        self.written = []
        self.unsent = 0
        self.closing = False

    def write(self, data):
        self.written.append(data)

    def get_write_buffer_size(self):
        return self.unsent

    def is_closing(self):
        return self.closing


@pytest.fixture
def socket():
    return Socket()


@pytest.fixture
def connected(socket):
    seen = Viewer(1, Role.VIEW, socket, socket)
    seen.subscribe(Subscribe(0, codec="h264"))
    return seen


UNIT = Variant("h264", 1280)


def test_where_nothing_waits_a_message_goes_to_the_system_at_once(connected, socket):
    connected.offer(Camera(), image(1, UNIT))
    assert socket.written == [b"??1"]
    assert not connected._binary


@pytest.mark.parametrize(
    "what", [{"unsent": 1}, {"closing": True}, {"closed": True}], ids=lambda what: next(iter(what))
)
def test_a_message_waits_for_a_socket_that_is_behind_or_closes(connected, socket, what):
    for name, value in what.items():
        setattr(socket, name, value)
    connected.offer(Camera(), image(1, UNIT))
    assert socket.written == []
    assert waiting(connected) == [b"1"]


def test_a_message_does_not_overtake_those_that_wait(connected, socket):
    camera = Camera()
    socket.unsent = 1
    connected.offer(camera, image(1, UNIT))
    socket.unsent = 0
    connected.offer(camera, image(2, UNIT))
    assert socket.written == []
    assert waiting(connected) == [b"1", b"2"]
    connected._binary.clear()
    connected.send("{}")
    connected.offer(camera, image(3, UNIT))
    assert socket.written == []
    assert waiting(connected) == [b"3"]


def test_after_its_end_a_viewer_is_written_nothing_more(connected, socket):
    connected.end()
    connected.offer(Camera(), image(1, UNIT))
    assert socket.written == []
