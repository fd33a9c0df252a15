"""The report in a real Chromium: a review by keys, kept in a file, taken up again."""

import base64
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("selenium")
sys.path.insert(0, str(Path(__file__).parents[2] / "nodes" / "web"))
import chromium
from selenium.webdriver.common.by import By

from ape_stream.annotation.outputs import STRIPS
from ape_stream.annotation.report import write_report
from ape_stream.annotation.review import rejected_in
from ape_stream.batch.clips import Clip
from ape_stream.batch.folder import OutFolder

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())
WORD = "</script><b>dog"
DOUBTS = {("a", 1): 0.2, ("a", 2): 0.9, ("b <c>", 1): 0.5}
"""By clip and track; shown in the order a 2, b 1, a 1."""


@pytest.fixture(scope="module")
def driver():
    driver = chromium.start()
    yield driver
    driver.quit()


def strip(track, doubt):
    _, data = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))
    image = base64.b64encode(data.tobytes()).decode()
    return json.dumps({
        "track": track, "prompt": WORD if track == 2 else "cup", "frames": 9, "first_s": 0.0,
        "last_s": 61.5, "score": 0.8, "lowest": 0.4, "doubt": doubt, "images": [image] * 3,
    })  # fmt: skip


@pytest.fixture
def page(driver, tmp_path):
    out = OutFolder(tmp_path / "out")
    states = []
    for name in ("a", "b <c>"):
        clip = Clip(name, f"{name}.mp4", 1, "digest")
        work = out.clip_work(clip)
        work.mkdir(parents=True)
        lines = [strip(track, doubt) for (of, track), doubt in DOUBTS.items() if of == name]
        (work / STRIPS).write_text("\n".join(lines) + "\n")
        states.append(SimpleNamespace(clip=clip))
    write_report(out, states)
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    driver.get(out.report.as_uri())
    yield driver
    driver.execute_script("saved = true")  # else the next page waits for an answer
    assert [line for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []


def press(page, keys):
    for key in keys:
        page.switch_to.active_element.send_keys(key)


def shown(page):
    """Of every row that is to be seen: clip and track, verdict, whether it is the current one."""
    return page.execute_script(
        "return visible().map((t) => [t.clip, t.track, t.verdict, t === current])"
    )


def downloaded(page, folder):
    page.find_element(By.ID, "save").click()
    path, end = folder / "review.json", time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return path


def test_keys_judge_the_most_doubtful_first_and_the_file_says_what_was_rejected(page, tmp_path):
    assert shown(page) == [["a", 2, "", True], ["b <c>", 1, "", False], ["a", 1, "", False]]
    assert page.execute_script(
        "return [...document.images].every((image) => image.complete && image.naturalWidth === 30)"
    )
    press(page, "ra")
    assert shown(page) == [
        ["a", 2, "rejected", False], ["b <c>", 1, "accepted", False], ["a", 1, "", True]
    ]  # fmt: skip
    press(page, "u")  # the last judgement, not that of the row that came after it
    assert shown(page)[1:] == [["b <c>", 1, "", True], ["a", 1, "", False]]
    press(page, "rk")
    assert shown(page)[1] == ["b <c>", 1, "rejected", True]
    path = downloaded(page, tmp_path)
    assert rejected_in(path) == {"a": [2], "b <c>": [1]}
    # The same page later, elsewhere: what was decided is there again.
    page.refresh()
    assert {verdict for _, _, verdict, _ in shown(page)} == {""}
    page.find_element(By.ID, "file").send_keys(str(path))
    status = page.find_element(By.ID, "count")
    end = time.monotonic() + 60
    while "2 of review.json" not in status.text:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [verdict for _, _, verdict, _ in shown(page)] == ["rejected", "rejected", ""]


def test_filters_leave_clips_words_and_what_is_not_reviewed(page):
    def choose(name, value):
        page.execute_script(
            f"byId('{name}').value = arguments[0]; byId('{name}').onchange()", value
        )
        return [[clip, track] for clip, track, *_ in shown(page)]

    assert choose("word", WORD) == [["a", 2]]
    assert page.find_element(By.CSS_SELECTOR, "li b").text == WORD
    assert choose("word", "") == [["a", 2], ["b <c>", 1], ["a", 1]]
    assert choose("clip", "b <c>") == [["b <c>", 1]]
    press(page, "a")
    assert choose("clip", "") == [["a", 2], ["b <c>", 1], ["a", 1]]
    assert choose("shown", "open") == [["a", 2], ["a", 1]]
    assert choose("shown", "accepted") == [["b <c>", 1]]
