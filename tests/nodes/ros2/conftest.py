import pytest
from ros_bench import World


@pytest.fixture
def world(monkeypatch):
    """Real rclpy; files whose tests run on a fake as well have a fixture of their own."""
    made = World("real", monkeypatch)
    made.start()
    yield made
    made.end()
