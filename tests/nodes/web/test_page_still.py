"""The page for one image in a real Chromium: another image, views, and where to look."""

import base64
import json
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("selenium")
import chromium
from chromium import Browser
from live_run import LiveRun
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from test_views import MapSquares

from ape_nodes.web.still import StillSource

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())
SIZE = (192, 384)


def test_an_image_that_stays_is_replaced_by_one_that_is_dropped(driver, tmp_path):
    file = tmp_path / "grey.png"
    cv2.imwrite(str(file), np.full((*SIZE, 3), 90, np.uint8))
    with LiveRun(sources=[StillSource(f"still://{file}", name="grey")]) as run:
        browser = Browser(driver)
        browser.open(run)
        browser.wait("app.tiles[0].things.length === 2")
        time.sleep(1.5)
        assert browser.text(".tile .badge") == "IMAGE"  # not STALE
        assert browser.find("#still-save").is_displayed()
        colours = "app.tiles[0].things.map(({colour}) => app.palette.indexOf(colour)).join()"
        assert browser.value(colours) == "0,1"
        browser.run("app.settings.set('colours', 'region')")
        browser.wait(f"{colours} === '1,2'")
        browser.run("""
            const canvas = new OffscreenCanvas(300, 200);
            canvas.getContext('2d').fillRect(0, 0, 150, 200);
            const data = new DataTransfer(), type = 'image/png';
            data.items.add(new File([await canvas.convertToBlob({type})], 'half.png', {type}));
            app.tiles[0].node.dispatchEvent(new DragEvent('drop', {dataTransfer: data}));
        """)
        browser.wait("app.tiles[0].stream.shown.message.meta.size.join() === '200,300'")
        browser.wait("app.tiles[0].stream.found.message.meta.size.join() === '200,300'")
        image = run.sink._hub.cameras[0].newest.frame.image
    assert (image[:, :145].max(), image[:, 155:].min()) == (0, 255)  # white below what was clear
    assert browser.problems() == []


@pytest.fixture
def page(driver, tmp_path):
    """The page of one image, by a model with maps."""
    file = tmp_path / "grey.png"
    cv2.imwrite(str(file), np.full((*SIZE, 3), 90, np.uint8))
    source = StillSource(f"still://{file}", name="grey")
    with LiveRun(sources=[source], perceiver=MapSquares()) as run:
        browser = Browser(driver)
        browser.open(run)
        browser.wait("app.tiles[0].things.length === 2")
        yield browser
    assert browser.problems() == []


def view_of(page, name):
    """What is shown once masks of a view have come."""
    page.wait("(app.tiles[0].stream.found.message.meta.view ?? 'instances') === args[0]", name)
    page.run("await new Promise(requestAnimationFrame)")
    page.wait("app.tiles[0].followed === app.tiles[0].stream.found")
    return page.value("app.tiles[0].things.map(({text, score, colour}) => [text, score, colour])")


def test_views_are_chosen_by_key_and_list(page):
    first = view_of(page, "instances")
    page.keys("v")
    assert view_of(page, "semantic") == [["red apple", None, first[0][2]]]
    page.find("#view").send_keys("p")
    upper, lower = view_of(page, "panoptic")
    assert (upper[:2], lower[:2]) == (["red apple", 0.625], ["red apple", 0.75])
    # Segments of one word are shades of its colour.
    assert upper[2] == first[0][2] != lower[2]
    page.run("document.activeElement.blur()")
    page.keys("v")
    assert view_of(page, "instances") == first


def test_image_and_results_are_downloaded(page):
    page.run("""
        const blobs = [], {createObjectURL} = URL;
        URL.createObjectURL = (blob) => (blobs.push(blob), createObjectURL.call(URL, blob));
        window.files = [];
        HTMLAnchorElement.prototype.click = function () {
            files.push(blobs.pop().arrayBuffer().then((bytes) =>
                [this.download, btoa(String.fromCharCode(...new Uint8Array(bytes)))]));
        };
    """)
    page.click("#still-save")
    page.wait("window.files.length === 2")
    files = {name[-4:]: base64.b64decode(data) for name, data in page.value("Promise.all(files)")}
    image = cv2.imdecode(np.frombuffer(files[".png"], np.uint8), cv2.IMREAD_COLOR)
    assert np.ptp(image.reshape(-1, 3), axis=0).max() > 50  # masks are drawn on the grey
    record = json.loads(files["json"])
    assert (record["size"], record["view"]) == (list(SIZE), "instances")
    assert len(record["detections"]) == 2
    for one in record["detections"]:
        x1, y1, x2, y2 = one["box"]
        filled = np.zeros(SIZE, bool)
        filled[y1:y2, x1:x2] = True
        assert one["segmentation"]["size"] == list(SIZE)
        runs = one["segmentation"]["counts"]
        dense = np.repeat(np.arange(len(runs)) % 2, runs).reshape(SIZE, order="F")
        assert (dense == filled).mean() > 0.99  # the label map is smaller than the image


def test_where_to_look_is_drawn_and_given_up(page):
    page.click("#still-look")
    stage = page.find(".stage")
    width, height = (stage.size[side] for side in ("width", "height"))
    corner = (-0.45 * width, -0.4 * height)
    draw = ActionChains(page.driver, duration=20).move_to_element_with_offset(stage, *corner)
    draw.click_and_hold().move_by_offset(0.8 * width, 0).move_by_offset(0, 0.1 * height)
    draw.move_by_offset(-0.8 * width, 0).release().perform()
    page.wait("app.tiles[0].zones.zones.length === 1 && app.tiles[0].things.length === 0")
    (zone,) = page.value("app.tiles[0].zones.zones")
    assert zone["kind"] == "look"
    assert 3 <= len(zone["points"]) <= 64
    page.click("#still-everywhere")
    page.wait("app.tiles[0].zones.zones.length === 0 && app.tiles[0].things.length === 2")


def test_where_to_look_needs_no_pointer(page):
    page.run("document.getElementById('still-look').focus()")
    page.keys(Keys.ENTER)
    page.wait("document.activeElement.matches('.handle')")
    before = page.value("app.tiles[0].zones.zones[0].points[0]")
    page.keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    page.wait("app.tiles[0].zones.zones[0].points[0][0] > args[0]", before[0])
