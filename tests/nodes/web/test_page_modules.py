"""The page's modules that need no page, and the two painters, in a real Chromium."""

import base64

import numpy as np
import pytest

pytest.importorskip("selenium")
import chromium
from chromium import Browser

from ape_nodes.web import protocol
from ape_nodes.web.encoding.images import H264Encoder, encode_jpeg
from ape_nodes.web.encoding.labels import pack_label_map
from ape_nodes.web.protocol import BinaryHead

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())


@pytest.fixture(scope="module")
def page(driver, live):
    browser = Browser(driver)
    browser.open(live)
    return browser


def test_words_are_split_linked_and_taken_back(page):
    found = page.run("""
        const words = await import('/js/wordlist.js');
        const row = (text, more = {}) =>
            ({text, threshold: null, enabled: true, color: null, ...more});
        const off = {enabled: false, color: '#e69f00'};
        const rows = [row('a~b, c', {threshold: 0.25}), row('d', off)];
        const [a, b, c] = ['a', 'b', 'c'].map((text) => row(text));
        return {
            typed: words.splitTyped(' red  apple,\\n dog;dog,, x:y '),
            same: words.sameRows(rows, words.fromLink(words.toLink(rows))),
            broken: words.fromLink('%E0%A4%A,~0.5,ok~7~nonsense'),
            removed: words.revert([b, c], [a, b], [b]),
            added: words.revert([a, b, c], [a], [a, b]),
            changed: words.revert(
                [row('a', {threshold: 0.5, color: '#000000'})], [a], [row('a', {threshold: 0.5})]),
        };
    """)
    assert found["typed"] == ["red apple", "dog", "x:y"]
    assert found["same"] is True
    assert [(row["text"], row["threshold"]) for row in found["broken"]] == [("ok", None)]
    assert [row["text"] for row in found["removed"]] == ["a", "b", "c"]  # in its old position
    assert [row["text"] for row in found["added"]] == ["a", "c"]  # what another added stays
    (row,) = found["changed"]
    assert (row["threshold"], row["color"]) == (None, "#000000")  # another's colour stays


def test_messages_are_read_as_the_server_writes_them(page):
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 4, (37, 9), dtype=np.uint8), 23, axis=1)
    head = BinaryHead(3, 2, 4_000_000_000, 123_456_789_012, 7, 0, 123_456_790_000)
    packed = protocol.pack(head, {"dets": []}, pack_label_map(labels), b"image")
    found = page.run(
        """
        const js = await import('/js/protocol.js');
        const bytes = Uint8Array.from(atob(args[0]), (c) => c.charCodeAt(0));
        const read = js.readMessage(bytes.buffer);
        const map = js.readLabelMap(await js.inflate(read.mask));
        const own = js.packCameraImage(3, 5, 1234.6, new TextEncoder().encode('jpeg').buffer);
        return {...read, mask: null, image: [...read.image], map: {...map, labels: [...map.labels]},
            own: btoa(String.fromCharCode(...new Uint8Array(own)))};
    """,
        base64.b64encode(packed).decode(),
    )
    assert (found["kind"], found["cam"], found["seq"], found["rev"]) == (3, 2, 4_000_000_000, 7)
    assert (found["capturedUs"], found["sentUs"]) == (123_456_789_012, 123_456_790_000)
    assert bytes(found["image"]) == b"image"
    assert (found["map"]["width"], found["map"]["height"]) == labels.shape[::-1]
    np.testing.assert_array_equal(found["map"]["labels"], labels.ravel())
    own, _, _, image = protocol.unpack(base64.b64decode(found["own"]))
    assert (own.kind, own.cam, own.seq, own.captured_us) == (5, 3, 5, 1235)
    assert image == b"jpeg"


def test_latencies_are_summed_and_drops_counted(page):
    found = page.run("""
        const {Series, percentile, stagesOf} = await import('/js/series.js');
        const series = new Series(10);
        for (let k = 0; k < 100; k++) series.add(100 * k, [k, 0, 0, 0, 0, 0, 0]);
        series.drop(9_950, 3);
        const columns = series.columns(9_999, 10);
        const message = {meta: {timings: {perceive: 5, track: 1}, encode_ms: 2},
            capturedUs: 0, sentUs: 10_000};
        return {last: columns.at(-1), first: columns[0], summary: series.summary(9_999, 10),
            none: String(percentile([], 0.5)),
            stages: stagesOf(message, {receivedUs: 9_000, decodedUs: 13_000, shownUs: 14_000})};
    """)
    assert found["last"] == {"stages": [94.5, 0, 0, 0, 0, 0, 0], "drops": 3}
    assert found["first"]["stages"][0] == 4.5
    assert found["summary"] == {"rate": 10, "p50": 50, "p95": 95}
    assert found["none"] == "NaN"
    assert found["stages"] == [2, 5, 1, 2, 0, 4, 1]  # another clock makes none negative


def test_text_can_be_read_on_every_colour(page):
    least = page.run("""
        const {inkOn, rgb} = await import('/js/colours.js');
        const light = (hex) => rgb(hex).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
        return Math.min(...app.palette.map((hex) => {
            const [a, b] = [light(hex), light(inkOn(hex))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        }));
    """)
    assert least >= 4.5


SCENES = [
    {},
    {"fill": "tint"},
    {"fill": "tint", "image": False},
    {"fill": "blur"},
    {"fill": "pixelate"},
    {"fill": "tint", "view": [0.25, 0.25, 0.5, 0.5]},
]
PAINT = """
    const {painterFor} = await import('/js/painter.js');
    const source = new OffscreenCanvas(240, 160);
    const context = source.getContext('2d');
    for (let y = 0; y < 160; y++) for (let x = 0; x < 240; x++) {
        context.fillStyle = (x + y) % 2 ? '#303030' : '#d0d0d0';
        context.fillRect(x, y, 1, 1);
    }
    const bitmap = await createImageBitmap(source);
    const labels = new Uint8Array(120 * 80);
    for (let y = 20; y < 60; y++) labels.fill(1, y * 120 + 30, y * 120 + 90);
    const colours = new Uint8Array(1024);
    colours.set([255, 0, 0, 255], 4);
    const all = {
        bitmap, serial: 1, map: {width: 120, height: 80, labels}, colours, opacity: 0.5,
        marked: new Uint8Array(256), fill: 'none', outline: false, image: true, grey: false,
        view: [0, 0, 1, 1],
    };
    const copy = new OffscreenCanvas(240, 160).getContext('2d', {willReadFrequently: true});
    const drawn = (kind, scene) => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [240, 160];
        painterFor(canvas, kind).paint({...all, ...scene});
        copy.drawImage(canvas, 0, 0);
        const rows = Array.from({length: 160}, (_, y) => copy.getImageData(0, y, 240, 1).data);
        return rows.map((row) => btoa(String.fromCharCode(...row)));
    };
    return args[0].map((scene) => [drawn('webgl', scene), drawn('2d', scene)]);
"""


def test_both_painters_draw_the_same(page):
    rows = [row for pair in page.run(PAINT, SCENES) for drawn in pair for row in drawn]
    found = np.frombuffer(b"".join(map(base64.b64decode, rows)), np.uint8)
    plain, tint, masks, blur, blocks, part = found.reshape(len(SCENES), 2, 160, 240, 4)[
        ..., :3
    ].astype(int)  # WebGL, 2D
    inside, outside = np.s_[:, 50:110, 70:170], np.s_[:, 5:35, 10:230]
    for drawn in (plain, tint, masks):
        assert np.abs(drawn[0] - drawn[1])[inside[1:]].max() <= 3
    for drawn in (tint, blur, blocks):  # nothing changes where no mask is
        assert np.abs(drawn - plain)[outside].max() <= 3
    np.testing.assert_allclose(tint[inside][..., 0], (plain[inside][..., 0] + 255) / 2, atol=3)
    assert masks[outside].max() == 0
    for drawn in (blur, blocks):  # of the pattern, 160 grey levels apart, little is left
        assert np.ptp(drawn[inside][..., 1].reshape(2, -1), axis=1).max() < 40
    # The middle, twice as large: its mask reaches all edges.
    assert (part[:, 4:-4, 4:-4, 0] >= part[:, 4:-4, 4:-4, 1] + 20).all()


REPAINT = """
    const {painterFor} = await import('/js/painter.js');
    const grey = new OffscreenCanvas(60, 40).getContext('2d');
    grey.fillStyle = '#808080';
    grey.fillRect(0, 0, 60, 40);
    const map = (from) => {
        const labels = new Uint8Array(60 * 40);
        for (let y = 0; y < 40; y++) labels.fill(1, y * 60 + from, y * 60 + from + 30);
        return {width: 60, height: 40, labels};
    };
    const colours = new Uint8Array(1024), marked = new Uint8Array(256);
    const scene = {
        bitmap: await createImageBitmap(grey.canvas), serial: 1, map: map(0), colours, opacity: 1,
        marked, fill: 'tint', outline: false, image: true, grey: false, view: [0, 0, 1, 1],
    };
    const copy = new OffscreenCanvas(60, 40).getContext('2d', {willReadFrequently: true});
    return ['webgl', '2d'].map((kind) => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [60, 40];
        const painter = painterFor(canvas, kind);
        const at = (change) => {
            painter.paint(Object.assign(scene, change));
            copy.drawImage(canvas, 0, 0);
            return [[0, 20], [15, 20], [29, 20], [45, 20]].map(
                ([x, y]) => [...copy.getImageData(x, y, 1, 1).data.slice(0, 3)]);
        };
        colours.set([255, 0, 0, 255], 4);
        const red = at({map: map(0), outline: false, fill: 'tint'});
        colours.set([0, 0, 255, 255], 4);
        const blue = at({serial: 2});
        const moved = at({map: map(30), serial: 3});
        const outline = at({map: map(0), outline: true, fill: 'none'});
        colours.fill(0);
        return [red, blue, moved, outline, at({})];
    });
"""
GREY, RED, BLUE = [128] * 3, [255, 0, 0], [0, 0, 255]


def test_a_painter_follows_masks_colours_and_layers(page):
    """The 2D one keeps the masks that it has coloured; an outline is none at the image's border."""
    wanted = [
        [RED, RED, RED, GREY],
        [BLUE, BLUE, BLUE, GREY],
        [GREY, GREY, GREY, BLUE],
        [GREY, GREY, BLUE, GREY],
        [GREY] * 4,
    ]
    for found in page.run(REPAINT):
        np.testing.assert_allclose(found, wanted, atol=3)


def test_a_jpeg_is_decoded_with_and_without_webcodecs(page):
    """Plain http has no ImageDecoder."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 40, 90, 200
    jpeg = encode_jpeg(image, 60)
    found = page.run(
        """
        const {decodeJpeg} = await import('/js/decode.js');
        const jpeg = Uint8Array.from(atob(args[0]), (c) => c.charCodeAt(0));
        const copy = new OffscreenCanvas(60, 40).getContext('2d');
        const look = async () => {
            const bitmap = await decodeJpeg(jpeg);
            copy.drawImage(bitmap, 0, 0);
            const at = (x) => [...copy.getImageData(x, 20, 1, 1).data.slice(0, 3)];
            const pixels = [10, 50].map(at);
            const cut = decodeJpeg(jpeg.slice(0, 40));
            const broken = await cut.then(() => 'decoded', () => 'refused');
            return [bitmap.constructor.name, pixels, broken];
        };
        const [decoder, first] = [globalThis.ImageDecoder, await look()];
        delete globalThis.ImageDecoder;
        const second = await look();
        globalThis.ImageDecoder = decoder;
        return [first, second];
        """,
        base64.b64encode(jpeg).decode(),
    )
    assert [name for name, _, _ in found] == ["VideoFrame", "ImageBitmap"]
    for _, pixels, broken in found:
        np.testing.assert_allclose(pixels, [[0, 0, 0], [200, 90, 40]], atol=4)
        assert broken == "refused"


def test_a_frame_that_comes_in_two_widths_is_decoded_and_answered_twice(page):
    """Each message holds a credit until its decoding has ended."""
    units = []
    for width in (64, 96):
        encoder = H264Encoder(width)
        data, key = encoder.encode(np.zeros((64, 96, 3), np.uint8), key=True)
        units.append([base64.b64encode(data).decode(), key, encoder.codec])
    found = page.run(
        """
        const {H264Decoder} = await import('/js/decode.js');
        const decoder = new H264Decoder((why) => { throw Error(why); });
        const unit = ([data, key, codec]) => decoder.decode({
            seq: 34, key, meta: {codec}, image: Uint8Array.from(atob(data), (c) => c.charCodeAt(0)),
        });
        const late = new Promise((go) => setTimeout(() => go({codedWidth: 'none'}), 10000));
        const frames = await Promise.all(args[0].map(unit).map((one) => Promise.race([one, late])));
        const widths = frames.map((frame) => frame.codedWidth);
        frames.forEach((frame) => frame.close?.());
        decoder.close();
        return widths;
        """,
        units,
    )
    assert found == [64, 96]


ZONES = """
    const { Zones } = await import('/js/zones.js');
    const { History } = await import('/js/history.js');
    const settled = () => new Promise((go) => setTimeout(go, 30));
    const named = (name) => ({ name, kind: 'line', points: [[0, 0], [1, 1]], prompts: [] });
    const names = (zones) => zones.map(({ name }) => name);
    // A server far away: it keeps what is asked until it is let to answer.
    const server = { rev: 0, zones: [], asked: [] };
    const ask = (message) => new Promise((resolve) => server.asked.push({ message, resolve }));
    const zones = new Zones(0, { ask }, new History());
    const said = () => zones.receive({ rev: server.rev, zones: server.zones, counts: {} });
    const answer = () => {
        const { message, resolve } = server.asked.shift();
        if (message.base_rev !== server.rev) { resolve({ type: 'conflict' }); return said(); }
        [server.rev, server.zones] = [server.rev + 1, message.zones];
        said();
        resolve({ type: 'ok', rev: server.rev });
    };
    said();
"""


def test_edits_of_zones_that_follow_fast_are_in_no_conflict(page):
    found = page.run(
        ZONES
        + """
        for (const name of ['a', 'b', 'c']) zones.add(named(name));
        const atOnce = names(zones.zones), sent = server.asked.length;
        answer();
        await settled();
        const meanwhile = names(zones.zones);
        while (server.asked.length) { answer(); await settled(); }
        zones.history.undo();
        answer();
        await settled();
        return { atOnce, sent, meanwhile, server: names(server.zones), shown: names(zones.zones) };
    """
    )
    assert found == {
        "atOnce": ["a", "b", "c"],
        "sent": 1,
        "meanwhile": ["a", "b", "c"],  # what was not sent yet does not vanish
        "server": ["a", "b"],
        "shown": ["a", "b"],
    }


def test_an_edit_of_zones_never_overwrites_that_of_another_page(page):
    found = page.run(
        ZONES
        + """
        zones.add(named('mine'));
        zones.add(named('mine too'));
        answer();
        [server.rev, server.zones] = [2, [named('another')]];
        said();
        await settled();
        const shown = names(zones.zones);
        answer();
        await settled();
        const last = [names(server.zones), names(zones.zones), server.asked.length];
        document.querySelectorAll('.notice').forEach((node) => node.remove());
        return { shown, last };
    """
    )
    assert found == {"shown": ["mine", "mine too"], "last": [["another"], ["another"], 0]}
