import time

import pytest
from live_run import LiveRun


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """One run for the tests that change nothing but prompts and zones."""
    with LiveRun(folder=str(tmp_path_factory.mktemp("records"))) as run:
        # Threads that come with the first use: none may appear within a test.
        assert run.ask("PUT", "/api/prompts", json={"prompts": ["red apple", "fox"]})[0] == 200
        deadline = time.monotonic() + 30
        while (answer := run.ask("POST", "/api/cams/0/snapshot"))[0] != 200:
            assert time.monotonic() < deadline, answer  # the first image takes its time
            time.sleep(0.05)
        run.sink._images.submit(int).result()
        yield run


@pytest.fixture(scope="module")
def driver():
    """One Chromium for the tests of a file; one that is left open would go on drawing."""
    import chromium  # noqa: PLC0415 (without selenium the other tests here still run)

    driver = chromium.start()
    yield driver
    driver.quit()
