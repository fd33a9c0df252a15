"""Shared memory of Fast DDS: enough for masks, unless the user or the machine says otherwise."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import claim_domain

from ape_nodes.ros2.rclpy_node import shared_memory
from ape_nodes.ros2.rclpy_node.shared_memory import (
    LARGE_DATA,
    PROFILE,
    SEGMENT_BYTES,
    enlarge_shared_memory,
)

FASTRTPS, FASTDDS = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    return tmp_path


def test_the_profile_has_the_size_that_is_promised():
    assert SEGMENT_BYTES >= 1080 * 1920 * (3 + 2 + 2), "an overlay and two masks"
    sizes = [int(one.text) for one in ET.parse(PROFILE).iter() if one.tag.endswith("segment_size")]
    assert sizes == [SEGMENT_BYTES]


def test_both_releases_of_fast_dds_are_told(tmp_path):
    environment = {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}
    assert enlarge_shared_memory(environment, tmp_path)
    assert environment[FASTRTPS] == environment[FASTDDS] == str(PROFILE)


@pytest.mark.parametrize(
    "environment",
    [
        {FASTRTPS: "mine.xml"},
        {FASTDDS: "mine.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
    ],
)
def test_what_the_user_has_chosen_stays(tmp_path, environment):
    before = dict(environment)
    assert not enlarge_shared_memory(environment, tmp_path)
    assert environment == before


@pytest.mark.parametrize(
    ("name", "value", "warns"),
    [("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", True), ("ROS_LOCALHOST_ONLY", "1", True),
     ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET", False)],
)  # fmt: skip
def test_transports_are_not_used_on_one_host_only(tmp_path, caplog, name, value, warns):
    environment = {"FASTDDS_BUILTIN_TRANSPORTS": LARGE_DATA, name: value}
    assert enlarge_shared_memory(environment, tmp_path) is warns
    assert (name in caplog.text) is warns
    assert environment.get(FASTRTPS) == (str(PROFILE) if warns else None)


def test_nothing_is_said_of_fast_dds_where_another_rmw_is_chosen(tmp_path, caplog):
    environment = {
        "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA", "ROS_LOCALHOST_ONLY": "1",
        "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
    }  # fmt: skip
    assert not enlarge_shared_memory(environment, tmp_path)
    assert not caplog.text


@pytest.mark.parametrize(("value", "warns"), [("LARGE_DATA", True), (LARGE_DATA, False)])
def test_large_data_without_options_is_warned_of(tmp_path, caplog, value, warns):
    """Its shared memory is then smaller than an image."""
    enlarge_shared_memory({"FASTDDS_BUILTIN_TRANSPORTS": value}, tmp_path)
    assert (LARGE_DATA in caplog.text) is warns


def test_the_document_names_the_options_of_large_data():
    assert LARGE_DATA in (Path(__file__).parents[3] / "docs" / "ros2.md").read_text()


def test_a_profile_in_the_present_folder_stays(tmp_path):
    (tmp_path / "DEFAULT_FASTRTPS_PROFILES.xml").touch()
    assert not enlarge_shared_memory({}, tmp_path)


def test_too_little_space_is_a_warning(tmp_path, monkeypatch, caplog):
    """Without space for its segment Fast DDS uses no shared memory at all."""
    monkeypatch.setattr(
        shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=40 << 20)
    )
    environment = {}
    assert not enlarge_shared_memory(environment, tmp_path)
    assert environment == {}
    assert "has only 40 MiB left, of which Fast DDS needs 48" in caplog.text
    assert not enlarge_shared_memory({}, tmp_path / "absent")


@pytest.mark.ros
@pytest.mark.parametrize(
    "given",
    [{}, {"FASTDDS_BUILTIN_TRANSPORTS": LARGE_DATA, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}],
    ids=["plain", "one host"],
)
def test_fast_dds_makes_the_segment(given):
    pytest.importorskip("rclpy")
    number, claim = claim_domain()
    code = (
        "from ape_nodes.ros2.rclpy_node.backend import RclpyNode\n"
        "node = RclpyNode('ape')\n"
        "for line in open('/proc/self/maps'):\n"
        "    if '/fastrtps_' in line:\n"
        "        low, high = line.split()[0].split('-')\n"
        "        print(int(high, 16) - int(low, 16))\n"
        "node.close()"
    )
    env = {**os.environ, "ROS_DOMAIN_ID": str(number), **given}
    with claim:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
    assert max(map(int, done.stdout.split())) >= SEGMENT_BYTES
