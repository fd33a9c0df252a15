"""The process: arguments, autostart, several cameras, and a shutdown without stray threads."""

import importlib
import threading
import time
from types import SimpleNamespace

import pytest
from ros_bench import BACKENDS, PATIENCE_S, World

PARAMETERS = """
/**:
  ros__parameters:
    perceiver: oracle
    prompts: ["red apple", "dog"]
    max_rate: 7.5
"""


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    made = World(request.param, monkeypatch)
    yield made
    made.end()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMETERS)
    return str(path)


class Running:
    """The process as a thread of this one; it ends when the context is shut down."""

    def __init__(self, world, monkeypatch, *arguments):
        self.world, self.nodes, self.code = world, [], None
        process = importlib.import_module("ape_nodes.ros2.rclpy_node.process")
        make = process.ApeNode
        monkeypatch.setattr(process, "ApeNode", lambda *a, **o: self.keep(make(*a, **o)))
        self._thread = threading.Thread(target=lambda: self.finish(process.run(arguments)))
        self._thread.start()

    def keep(self, node):
        self.nodes.append(node)
        return node

    def finish(self, code):
        self.code = code

    def wait(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self):
        self.world.rclpy.try_shutdown()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.code


def test_a_node_waits_for_its_transitions_and_reads_its_file(world, monkeypatch, file):
    running = Running(
        world, monkeypatch, "--params", file, "--ros-args", "-r", "image:=/camera/image_raw",
        "-r", "__node:=finder", "--log-level", "info",
    )  # fmt: skip
    running.wait(lambda: running.nodes)
    time.sleep(0.3)
    (node,) = running.nodes
    assert node.get_fully_qualified_name() == "/finder"
    assert node.state_name == "unconfigured"
    assert list(node.get_parameter("prompts").value) == ["red apple", "dog"]
    assert node.get_parameter("max_rate").value == 7.5
    assert node.resolve_topic_name("image") == "/camera/image_raw"
    assert running.end() == 0


def test_cameras_start_at_once_share_a_model_and_end_cleanly(world, monkeypatch, file):
    running = Running(
        world, monkeypatch, "--autostart", "--params", file,
        "--cameras", "/front/image_raw", "/rear/image_raw",
    )  # fmt: skip
    running.wait(
        lambda: len(running.nodes) == 2 and all(n.state_name == "active" for n in running.nodes)
    )
    names = [node.get_fully_qualified_name() for node in running.nodes]
    assert names == ["/front_image_raw/ape", "/rear_image_raw/ape"]
    topics = [node.resolve_topic_name("image") for node in running.nodes]
    assert topics == ["/front/image_raw", "/rear/image_raw"]
    assert running.nodes[0].perceiver is running.nodes[1].perceiver
    assert running.end() == 0
    assert running.nodes[0].perceiver.loaded is None


class Failing:
    """An executor whose turn fails, with the context as it is then."""

    def __init__(self, alive):
        self.context = SimpleNamespace(ok=lambda: alive)

    def spin_once(self, **_timeout):
        raise RuntimeError("failed to initialize wait set")


def test_a_turn_of_the_executor_may_fail_with_a_context_that_has_ended_only(world):
    world.ros_rclpy.spin_once(Failing(alive=False))
    with pytest.raises(RuntimeError, match="wait set"):
        world.ros_rclpy.spin_once(Failing(alive=True))


def test_a_node_that_cannot_start_ends_the_process_with_a_code(world, monkeypatch, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMETERS.replace("oracle", "absent"))
    running = Running(world, monkeypatch, "--autostart", "--params", str(path))
    running.wait(lambda: running.code is not None)
    assert running.end() == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [('["red apple", "dog"]', '"red apple"'), ("max_rate: 7.5", "score_threshold: 1.7")],
)
def test_a_parameter_of_a_wrong_type_or_value_is_reported_in_one_line(
    world, monkeypatch, tmp_path, capfd, old, new
):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMETERS.replace(old, new))
    running = Running(world, monkeypatch, "--params", str(path))
    running.wait(lambda: running.code is not None)
    assert running.end() == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "ape_node:" in line]
    assert len(lines) == 1
    assert ("prompts" if "apple" in new else "score_threshold") in lines[0]


def test_cameras_are_below_the_namespace_of_the_process(world, monkeypatch, file):
    running = Running(
        world, monkeypatch, "--params", file, "--cameras", "/front/image_raw", "rear/image_raw",
        "--ros-args", "-r", "__ns:=/robot",
    )  # fmt: skip
    running.wait(lambda: len(running.nodes) == 2)
    names = [node.get_fully_qualified_name() for node in running.nodes]
    assert names == ["/robot/front_image_raw/ape", "/robot/rear_image_raw/ape"]
    topics = [node.resolve_topic_name("image") for node in running.nodes]
    assert topics == ["/front/image_raw", "/robot/rear/image_raw"]
    assert running.end() == 0


@pytest.mark.parametrize("cameras", [["/a/b", "/a_b"], ["/a", "/a"], ["a", "/a"]])
def test_two_cameras_of_one_name_are_refused(world, monkeypatch, capfd, cameras):
    running = Running(world, monkeypatch, "--cameras", *cameras)
    running.wait(lambda: running.code is not None)
    assert running.end() == 1
    assert "would both be in the namespace /a" in capfd.readouterr().err


@pytest.mark.usefixtures("world")
def test_a_late_signal_does_not_disturb_the_end_of_the_process(monkeypatch):
    """Launch sends SIGTERM 5 s after SIGINT, perhaps while the interpreter ends."""
    ends = []

    def polite_end(*, last):
        ends.append(last)
        raise SystemExit(0)

    process = importlib.import_module("ape_nodes.ros2.rclpy_node.process")
    monkeypatch.setattr(process, "polite_end", polite_end)
    monkeypatch.setattr("sys.argv", ["ape_node"])
    with pytest.raises(SystemExit):
        process.main()
    assert ends == [True]


@pytest.mark.usefixtures("world")
def test_a_file_of_parameters_that_is_not_there_is_one_line(capfd):
    process = importlib.import_module("ape_nodes.ros2.rclpy_node.process")
    assert process.run(["--params", "/no/such.yaml"]) == 1
    assert capfd.readouterr().err == "ape_node: there is no file /no/such.yaml\n"


def test_what_is_given_goes_before_the_file(world, monkeypatch, file):
    running = Running(world, monkeypatch, "--params", file, "--ros-args", "-p", "max_rate:=2.0")
    running.wait(lambda: running.nodes)
    assert running.nodes[0].get_parameter("max_rate").value == 2.0
    assert running.end() == 0
