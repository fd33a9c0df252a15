"""The page in a real Chromium where its device is a camera of the run."""

import pytest

pytest.importorskip("selenium")
import chromium
from chromium import Browser
from live_run import LiveRun

from ape_nodes.web.browser_camera import BrowserSource

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())


def test_a_devices_camera_is_a_source(driver):
    with LiveRun(sources=[BrowserSource("browser://phone", name="phone")]) as run:
        browser = Browser(driver)
        browser.open(run)
        browser.click("#device-start")
        browser.wait("app.tiles[0].stream.shown")
        assert browser.text("#device-start") == "Stop sending"
        browser.click("#device-start")
        browser.wait("app.device.cam === -1")
        assert browser.text("#device-start") == "Send this camera"
        browser.run("""
            const devices = navigator.mediaDevices, give = devices.getUserMedia.bind(devices);
            app.asked = 0;
            devices.getUserMedia = (wish) => (app.asked++, give(wish));
            document.getElementById("device-start").click();
            document.getElementById("device-start").click();
        """)
        browser.wait("app.device.cam === 0")
        assert browser.value("app.asked") == 1
        browser.run("app.device.media.getTracks()[0].onended()")  # as where it is unplugged
        browser.wait("app.device.cam === -1")
        assert browser.text("#device-start") == "Send this camera"
        assert browser.text("#device-why") == "The camera gives no more images."
    assert browser.problems() == []


def test_a_devices_camera_goes_on_after_the_connection_was_lost(driver):
    with LiveRun(sources=[BrowserSource("browser://phone", name="phone")]) as run:
        browser = Browser(driver)
        browser.open(run)
        browser.click("#device-start")
        browser.wait("app.tiles[0].stream.shown")
        browser.run("app.link.socket.close()")
        browser.wait("app.link.state !== 'open'")
        browser.wait("app.link.state === 'open'")
        browser.run("app.seq = app.tiles[0].stream.images.samples.length")
        browser.wait("app.tiles[0].stream.images.samples.length > app.seq + 5")
        assert browser.notices() == []
    assert browser.problems() == []
