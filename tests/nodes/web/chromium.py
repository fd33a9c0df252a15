"""The page in a real Chromium."""

import contextlib
import json
import os
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import ElementNotInteractableException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 60.0
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--window-size=1000,700",
)
# Of a server that is away, as tests make it be; of software rendering.
_EXPECTED = (
    "ERR_CONNECTION_REFUSED",
    "WebSocket connection to",
    "GL Driver Message",
    "401",
    "as a test wants it",
)


def missing():
    """Why there is no browser here, empty if there is one."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(lacking)} (tools/test-packages.sh)" if lacking else ""


def axe():
    """The script of axe-core that is here, or None; APE_AXE may name a newer one."""
    if "APE_AXE" in os.environ:
        return Path(os.environ["APE_AXE"])
    found = find_spec("axe_core_python")
    return Path(found.origin).parent / "axe.min.js" if found else None


def start():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )


class Browser:
    """One tab with the page; `app` in its scripts is what main.js exports."""

    def __init__(self, driver):
        self.driver = driver
        self._window = driver.current_window_handle

    def front(self):
        """Make this the tab that the driver speaks to."""
        self.driver.switch_to.window(self._window)

    @contextlib.contextmanager
    def another(self, run):
        """One more tab with the page; both are visible. The driver speaks to it first."""
        self.driver.switch_to.new_window("window")
        other = Browser(self.driver)
        try:
            other.open(run)
            yield other
        finally:
            other.front()
            self.driver.close()
            self.front()

    def open(self, run, role="control", query=""):
        self.driver.get("about:blank")  # an address that differs after # only is no new page
        self.driver.get(f"{run.base}/{query}#t={getattr(run.tokens, role)}")
        self.wait("app.tiles.length > 0 && app.words.rev > 0")

    def run(self, script, *arguments):
        """What the body of an async function returns, as JSON."""
        text = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "import('/js/main.js').then(({app}) => (async (args) => {" + script + "})"
            "([...arguments].slice(0, -1))).then((found) => done(JSON.stringify(found ?? null)),"
            " (error) => done(JSON.stringify({error: String(error.stack)})));",
            *arguments,
        )
        found = json.loads(text)
        if isinstance(found, dict) and "error" in found:
            raise AssertionError(found["error"])
        return found

    def value(self, expression, *arguments):
        return self.run(f"return {expression};", *arguments)

    def wait(self, expression, *arguments):
        """Until a JavaScript expression is true."""
        end = time.monotonic() + WAIT_S
        while not (found := self.value(f"Boolean({expression})", *arguments)):
            assert time.monotonic() < end, (
                f"never: {expression}; {self.notices()}, link {self.value('app.link.state')}"
            )
            time.sleep(0.05)
        return found

    @contextlib.contextmanager
    def sized(self, width, scale=1, *, phone=False):
        """The page in a window of another width, CSS pixels, enlarged `scale` times."""
        size = {"width": width, "height": 700, "deviceScaleFactor": scale, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        try:
            # The page takes both over with its next frame.
            coarse = f"matchMedia('(pointer: coarse)').matches === {str(phone).lower()}"
            self.wait(f"innerWidth === {width} && {coarse}")
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def find(self, selector):
        """By CSS, or by XPath if it begins with //."""
        way = By.XPATH if selector.startswith("//") else By.CSS_SELECTOR
        return self.driver.find_element(way, selector)

    def click(self, selector):
        """Click on it once it is shown: the page draws with the next image."""
        waiting = WebDriverWait(self.driver, WAIT_S, 0.05, [ElementNotInteractableException])
        waiting.until(lambda _: self.find(selector).click() is None)

    def keys(self, *keys):
        """Press keys where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def text(self, selector):
        return self.find(selector).text

    def notices(self):
        return [node.text for node in self.driver.find_elements(By.CSS_SELECTOR, ".notice p")]

    def problems(self):
        """Lines of the console that no test expects."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
            and not any(known in entry["message"] for known in _EXPECTED)
        ]
