"""The page in a real Chromium: what is shown, what is typed, what comes back."""

import time

import numpy as np
import pytest

pytest.importorskip("selenium")
import chromium
from chromium import Browser
from live_run import LiveRun, own_address
from live_world import BITS, BLOCK, PausedSource, SquaresPerceiver
from selenium.webdriver.common.keys import Keys

from ape_stream.draw import palette

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())
SIZE = (192, 384)


@pytest.fixture(scope="module")
def source():
    return PausedSource(SIZE)


@pytest.fixture(scope="module")
def perceiver():
    return SquaresPerceiver(encode_s=0.3)


@pytest.fixture(scope="module")
def run(source, perceiver):
    with LiveRun(sources=[source], perceiver=perceiver) as run:
        # The thread that edits comes with the first edit: none may appear within a test.
        assert run.ask("PUT", "/api/prompts", json={"prompts": ["fox"]})[0] == 200
        yield run


@pytest.fixture
def page(driver, run):
    """The page of `run`, as nobody has changed it, and without errors afterwards."""
    assert run.ask("PUT", "/api/prompts", json={"prompts": ["red apple", "fox"]})[0] == 200
    browser = Browser(driver)
    kept = {"origin": run.base, "storageTypes": "local_storage"}
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", kept)
    browser.open(run)
    yield browser
    assert browser.problems() == []


def test_a_mask_has_its_words_colour_and_goes_without_the_server(page):
    page.run("app.settings.set('mode', 'sync'); app.settings.set('outline', false)")
    page.wait("app.tiles[0].stream.found && app.tiles[0].things.length === 2")
    pixel = """
        const tile = app.tiles[0];
        const [x1, y1, x2, y2] = args[0] ?? tile.things.find(({text}) => text === 'fox').box;
        const {width, height} = tile.canvas;
        const at = [(x1 + x2) / 2 * width, (y1 + y2) / 2 * height].map(Math.floor);
        const copy = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
        copy.drawImage(tile.canvas, ...at, 1, 1, 0, 0, 1, 1);
        const {data} = copy.getImageData(0, 0, 1, 1);
        return {box: [x1, y1, x2, y2], colour: [...data.slice(0, 3)]};
    """
    # Both are held: the image stays, and so does the mask.
    page.run("app.tiles[0].freeze(); await new Promise(requestAnimationFrame)")
    masked = page.run(pixel)
    page.run("app.sent = []; const send = app.link.send.bind(app.link);"
             "app.link.send = (m) => (app.sent.push(m.type), send(m));")  # fmt: skip
    page.keys("2")  # the second word
    page.wait("app.tiles[0].things.length === 1")
    bare = page.run("await new Promise(requestAnimationFrame);" + pixel, masked["box"])
    assert np.ptp(bare["colour"]) <= 8  # the stripes are grey
    opacity = page.value("app.settings.get('opacity')")
    wanted = (1 - opacity) * np.array(bare["colour"]) + opacity * palette()[1, ::-1]
    assert np.abs(wanted - masked["colour"]).max() <= 8
    assert set(page.value("app.sent")) <= {"ack", "ping"}
    page.keys("2", "m")
    page.wait("!app.settings.get('masks')")
    assert page.find("[name=masks]").is_selected() is False


def test_typed_words_are_encoded_once_and_seen_in_masks(page, perceiver):
    page.wait("app.tiles[0].stream.shown")
    seq = page.value("app.tiles[0].stream.shown.message.seq")
    del perceiver.encoded[:]
    perceiver.encoded += ["red apple", "fox"]
    page.keys("/")
    page.keys("cat, dog:face", Keys.ENTER)
    page.wait("app.words.list.length === 4 && app.words.list.every(({state}) => state === 'on')")
    assert perceiver.encoded == ["red apple", "fox", "cat", "dog:face"]
    page.wait("app.tiles[0].stream.found.message.rev >= app.words.rev"
              " && app.tiles[0].things.some(({text}) => text === 'dog:face')")  # fmt: skip
    page.wait(f"app.tiles[0].stream.shown.message.seq > {seq}")
    names = [node.text for node in page.driver.find_elements("css selector", ".word-name")]
    assert names == ["red apple", "fox", "cat", "dog:face"]
    assert page.driver.current_url.endswith("#w=red%20apple,fox,cat,dog%3Aface")
    page.run("document.activeElement.blur()")
    for left in (3, 2):  # the comma had ended the first one
        page.keys(Keys.CONTROL, "z")
        page.wait(f"app.words.list.length === {left}")


def test_a_word_that_cannot_be_used_says_why_and_one_is_removed_and_comes_back(page):
    page.find("#new-word").send_keys("bad word", Keys.ENTER)
    page.wait("app.words.list.at(-1).state === 'error'")
    assert "cannot be used" in page.text(".word[data-state=error] .word-error")
    page.click(".word[data-state=error] [aria-label^=Remove]")
    page.wait("app.words.list.length === 2")
    page.click(".word [aria-label='Remove red apple']")
    page.wait("app.words.list.length === 1")
    page.click("#undo")
    page.wait("app.words.list.length === 2")
    assert page.value("app.words.list.map(({text}) => text)") == ["red apple", "fox"]
    page.click("[aria-label^='Switch off fox']")
    page.wait("app.words.list[1].state === 'off'")


def test_a_slider_acts_at_once_and_the_server_learns_where_it_rests(page, run):
    page.wait("app.tiles[0].things.length === 2")
    page.run("app.tiles[0].freeze()")
    slider = ".word:first-child input[type=range]"
    shown = page.run(f"""
        const slider = document.querySelector('{slider}');
        slider.value = 0.95;
        slider.dispatchEvent(new Event('input'));
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        return [app.tiles[0].things.map(({{text}}) => text), app.words.list[0].threshold];
    """)
    assert shown == [["fox"], None]  # the frozen frame, and the server does not know it yet
    page.wait("app.words.list[0].threshold === 0.95")
    assert run.ask("GET", "/api/prompts")[1]["prompts"][0]["threshold"] == 0.95
    page.click("[aria-label='Reset the threshold of red apple']")
    page.wait("app.words.list[0].threshold === null")


def test_two_tabs_share_words_and_none_overwrites_the_other_in_silence(page, run):
    with page.another(run) as other:
        other.find("#new-word").send_keys("cat", Keys.ENTER)
        page.front()
        page.wait("app.words.list.at(-1).text === 'cat' && app.words.list.at(-1).state === 'on'")
        # The other tab edits, and this one has not heard of it when it edits, too.
        page.run("app.receive = app.words.receive; app.words.receive = () => {}")
        other.front()
        other.click("[aria-label='Remove cat']")
        other.wait("app.words.list.length === 2")
        page.front()
        page.find("#new-word").send_keys("dog", Keys.ENTER)
        page.wait("document.querySelector('.notice.error')")
        assert "Somebody else has changed the words" in page.notices()[0]
        state = run.ask("GET", "/api/prompts")[1]
        assert [p["text"] for p in state["prompts"]] == ["red apple", "fox"]
        page.run("app.words.receive = app.receive; app.words.receive(args[0])", state)
        page.click(".notice.error button")  # try again
        other.front()
        other.wait("app.words.list.at(-1).text === 'dog'")


def test_a_tab_with_a_slow_connection_slows_only_itself(page, run):
    page.wait("app.tiles[0].stream.shown")
    with page.another(run) as other:
        other.run("app.settings.set('codec', 'jpeg')")
        other.wait("app.tiles[0].stream.shown?.message.kind === 1")
        other.driver.execute_cdp_cmd("Network.enable", {})
        # An image in two seconds: on a busy machine the quick one gets few, too.
        slow = {"offline": False, "latency": 0, "downloadThroughput": 4000, "uploadThroughput": -1}
        other.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        # Chromium slows sockets that are opened from now on.
        other.run("app.before = app.link.socket; app.before.close()")
        other.wait("app.link.socket !== app.before && app.link.state === 'open'"
                   " && app.tiles[0].stream.state().name === 'stale'")  # fmt: skip
        quick, *_, slowed = sorted(run.sink._hub.viewers, key=lambda viewer: viewer.number)
        before = [viewer.watched[0].total for viewer in (quick, slowed)]
        end = time.monotonic() + chromium.WAIT_S
        while quick.watched[0].total < before[0] + 20:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert slowed.watched[0].total < before[1] + 10
        assert len(slowed._binary) <= 4  # images and masks with their credits: no queue


def test_an_old_image_is_not_shown_as_live(page, source):
    page.wait("app.tiles[0].stream.shown")
    source.goes.clear()
    try:
        page.wait("document.querySelector('.tile .badge').dataset.state === 'stale'")
        assert page.text(".tile .badge").startswith("STALE")
        assert "old" in page.find(".stage").get_attribute("class")
    finally:
        source.goes.set()
    page.wait("app.tiles[0].stream.ageMs() < 1000")


@pytest.mark.parametrize("mode", ["live", "sync"])
def test_the_age_on_the_badge_is_that_of_the_pixels(page, mode):
    """The clock in the image that is shown, against the clock of this machine."""
    page.run("app.settings.set('mode', args[0])", mode)
    page.wait("app.tiles[0].stream.shown")
    seen = page.run(f"""
        const [height, width] = {list(SIZE)}, tile = app.tiles[0], seen = [];
        const copy = new OffscreenCanvas(width, height)
            .getContext('2d', {{willReadFrequently: true}});
        while (seen.length < 100) {{
            await new Promise(requestAnimationFrame);
            copy.drawImage(tile.canvas, 0, 0, width, height);
            const age = tile.stream.ageMs(), now = Date.now();
            const row = copy.getImageData(0, {BLOCK // 2}, width, 1).data;
            let clock = 0;
            for (let bit = 0; bit < {BITS}; bit++)
                clock += 2 ** bit * (row[4 * ({BLOCK} * bit + {BLOCK // 2})] > 127);
            seen.push([clock, (now - clock + 2 ** 24) % 2 ** 24, age]);
        }}
        return seen;
    """)
    clocks, ages, said = np.array(seen).T
    assert len(set(clocks)) > 3
    assert (np.diff(clocks) >= 0).all()  # never an older one again
    assert np.median(ages) < 3000  # on a machine with other work; a queue would make it grow
    assert np.median(np.abs(ages - said)) < 100


def test_jpeg_takes_over_where_h264_fails_and_pinned_things_are_followed(page):
    kind = "app.tiles[0].stream.shown?.message.kind"
    page.wait(f"{kind} === 2")  # 127.0.0.1 is a secure context
    page.run("app.tiles[0].stream.h264.failed('as a test wants it')")
    page.wait(f"{kind} === 1")
    page.wait("app.tiles[0].things.some(({track}) => track > 0)")
    page.run("const tile = app.tiles[0];"
             "tile.pin(tile.things.find(({track}) => track > 0).track);")  # fmt: skip
    for name in ("Follow", "Solo"):
        page.click(f"//button[text()='{name}']")
    page.wait("app.tiles[0].things.length === 1 && app.tiles[0].view[2] < 0.9")
    assert page.text(".card p").startswith(("fox #", "red apple #"))
    page.keys(Keys.ESCAPE)
    page.wait("app.tiles[0].things.length === 2 && app.tiles[0].view[2] === 1")


def test_zones_are_drawn_and_moved_by_keys(page, run):
    page.click("#zone-panel summary")
    page.wait("!document.getElementById('zone-tools').hidden")
    page.find("#add-area").send_keys(Keys.ENTER)
    page.wait("app.tiles[0].zones.zones.length === 1 && document.querySelector('.handle')")
    page.run("document.querySelector('.handle').focus()")
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SHIFT + Keys.ARROW_UP)
    zone = page.value("app.tiles[0].zones.zones[0]")
    assert np.allclose(zone["points"][0], [0.32, 0.25])
    wanted = ("GET", "/api/cams/0/zones")
    end = time.monotonic() + chromium.WAIT_S
    while not np.allclose(run.ask(*wanted)[1]["zones"][0]["points"][0], [0.32, 0.25]):
        assert time.monotonic() < end
        time.sleep(0.1)
    page.click("[aria-label='Remove area 1']")
    page.wait("app.tiles[0].zones.zones.length === 0")
    page.click("#undo")
    page.wait("app.tiles[0].zones.zones.length === 1")
    page.click("[aria-label='Remove area 1']")
    end = time.monotonic() + chromium.WAIT_S
    while run.ask(*wanted)[1]["zones"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_everything_is_reached_by_keys(page):
    page.keys("?")
    assert page.find("#help").is_displayed()
    assert page.run("""
        const close = document.activeElement.getBoundingClientRect();
        return [document.getElementById('help').scrollTop, close.bottom <= innerHeight];
    """) == [0, True]  # the first keys are in sight, and the button
    page.keys(Keys.ENTER)  # its button closes
    assert not page.find("#help").is_displayed()
    page.keys("/")
    page.keys("mm")  # text, no key
    assert page.value("app.settings.get('masks')") is True
    page.run("document.getElementById('new-word').value = ''")
    reached = page.run("""
        const all = [...document.querySelectorAll('button, input, select, summary, a')];
        const seen = all.filter((node) => node.checkVisibility() && !node.disabled);
        return seen.filter((node) => node.tabIndex < 0 || !(node.getAttribute('aria-label')
            || node.textContent.trim() || node.labels?.length)).map((node) => node.outerHTML);
    """)
    assert reached == []
    page.run("document.activeElement.blur(); app.settings.set('letters', false)")
    page.keys("m")
    assert page.value("app.settings.get('masks')") is True


@pytest.mark.parametrize(("width", "scale", "phone"), [(320, 1, True), (640, 2, False)])
def test_narrow_and_enlarged_pages_do_not_scroll_sideways(page, run, width, scale, phone):
    page.run("""
        const { FIRST_SHAPES } = await import('/js/zones.js'), { zones } = app.tiles[0];
        for (const [kind, points] of Object.entries(FIRST_SHAPES))
            zones.add({ name: `${kind} ${'x'.repeat(50)}`, kind, points, prompts: ['red apple'] });
    """)
    page.wait("document.querySelectorAll('.zone').length === 3")
    with page.sized(width, scale, phone=phone):
        page.run("for (const panel of document.querySelectorAll('details')) panel.open = true")
        assert page.value("document.documentElement.scrollWidth") <= width
        over = page.run("""
            return [...document.querySelectorAll('body *')].filter((node) =>
                node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1)
                .map((node) => node.outerHTML.slice(0, 80));
        """)
        assert over == []
        cut = page.run("""
            return [...document.querySelectorAll('.word-name')].filter((node) =>
                node.scrollWidth > node.clientWidth).map((node) => node.textContent);
        """)
        assert cut == []
        small = page.run("""
            const fingers = 'button, select, summary, input:not([type=checkbox]), .checks label';
            return [...document.querySelectorAll(fingers)].filter((node) =>
                !node.matches('.handle')  // it hides the image; a ring around it is touched, too
                && node.checkVisibility() && node.getBoundingClientRect().height < 40)
                .map((node) => node.outerHTML.slice(0, 80));
        """)
        assert not phone or small == []
    page.wait("!app.tiles[0].zones.sending")
    assert run.ask("PUT", "/api/cams/0/zones", json={"zones": []})[0] == 200
    page.wait("document.querySelectorAll('.zone').length === 0")


def test_who_may_only_look_changes_nothing(page, run):
    page.open(run, "view")
    assert not page.find("#add-form").is_displayed()
    assert page.find("[aria-label='Remove fox']").get_attribute("disabled")
    page.wait("app.tiles[0].stream.shown")
    page.open(run)
    page.run("sessionStorage.clear(); document.cookie")
    page.driver.delete_all_cookies()
    page.driver.get(run.base + "/")
    assert page.find("#login").is_displayed()
    assert not page.value("app.tiles.length")


def test_a_page_comes_back_by_itself(driver, tmp_path):
    tokens = str(tmp_path / "tokens")
    browser = Browser(driver)
    with LiveRun(sources=[PausedSource(SIZE)], tokens=tokens) as first:
        browser.open(first)
        browser.wait("app.tiles[0].stream.shown")
        port = first.base.rpartition(":")[2]
    browser.wait("app.link.state !== 'open'")
    assert "old" in browser.find(".stage").get_attribute("class")
    with LiveRun(sources=[PausedSource(SIZE)], tokens=tokens, address=f"web:127.0.0.1:{port}"):
        browser.wait("app.link.state === 'open'")
        browser.run("app.seq = app.tiles[0].stream.images.samples.length")
        browser.wait("app.tiles[0].stream.images.samples.length > app.seq")
    assert browser.problems() == []


@pytest.mark.skipif(own_address() is None, reason="this machine has no address but 127.0.0.1")
def test_by_address_and_without_encryption_images_are_jpegs(driver):
    """Browsers decode H.264 in a secure context only."""
    with LiveRun(sources=[PausedSource(SIZE)], address="web:0.0.0.0:0", public=True) as run:
        run.base = run.base.replace("127.0.0.1", own_address())
        browser = Browser(driver)
        browser.open(run)
        browser.wait("app.tiles[0].stream.shown && app.tiles[0].things.length === 2")
        assert browser.value("isSecureContext") is False
        assert browser.value("app.tiles[0].stream.shown.message.kind") == 1
    assert browser.problems() == []


@pytest.mark.skipif(chromium.axe() is None, reason="needs axe-core-python (extra dev) or APE_AXE")
def test_axe_finds_nothing(page):
    page.run("for (const panel of document.querySelectorAll('details')) panel.open = true")
    page.find("#new-word").send_keys("bad word", Keys.ENTER)  # errors have colours of their own
    page.wait("document.querySelector('.word[data-state=error]') && app.tiles[0].things.length")
    page.run("app.tiles[0].freeze(); app.tiles[0].pin(1)")
    page.driver.execute_script(chromium.axe().read_text("utf-8"))
    for scheme, width in (("light", 1280), ("dark", 320)):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        with page.sized(width):
            found = page.run("return (await axe.run()).violations.map(({id, nodes}) =>"
                             " [id, nodes.map(({html}) => html.slice(0, 120))])")  # fmt: skip
        assert found == [], (scheme, width)
