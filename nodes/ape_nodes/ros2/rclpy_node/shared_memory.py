"""More shared memory for Fast DDS: without it, readers on the same machine lose messages.

A process writes what it publishes into a segment of its own, by default of 512 KiB. One mask of
640x480 is larger, and overwrites what was published just before it and is not read yet: a lost
message is sent again after up to 3 s, or never. A larger segment in the process that publishes is
the whole cure, and readers need no setting. `python -m ape_nodes.ros2.rclpy_node.shared_memory`
prints the path of the profile, for other processes such as the camera's.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["LARGE_DATA", "PROFILE", "SEGMENT_BYTES", "enlarge_shared_memory"]

PROFILE: Final = Path(__file__).with_name("fast_dds.xml")
"""What Fast DDS reads."""
SEGMENT_BYTES: Final = 32 * 2**20
"""Size of the segment in `PROFILE`: masks and an overlay of 1080p are 15 MB."""
_FOR_OTHERS: Final = 16 * 2**20
"""Stays free for the segments of others, which have 512 KiB; a container of Docker has 64 MiB."""
_VARIABLES: Final = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS 2 (Jazzy) and 3 (Kilted) look for a profile."""
_TRANSPORTS: Final = "FASTDDS_BUILTIN_TRANSPORTS"
LARGE_DATA: Final = "LARGE_DATA?max_msg_size=1MB&sockets_size=8MB&non_blocking=true"
"""What to set there between machines."""
_FILES: Final = ("DEFAULT_FASTRTPS_PROFILES.xml", "DEFAULT_FASTDDS_PROFILES.xml")
"""Profiles that Fast DDS reads from the present folder."""
_FOLDER: Final = Path("/dev/shm")  # noqa: S108 (POSIX shared memory, not a temporary file)
_log: Final = logging.getLogger("ape_stream")


def enlarge_shared_memory(
    environment: MutableMapping[str, str] = os.environ, folder: Path = _FOLDER
) -> bool:
    """Name `PROFILE` to Fast DDS, before it is loaded; nothing that the user has set is changed.

    Args:
        environment: Of this process.
        folder: Where segments are.

    Returns:
        Whether it was named: not where another RMW or another configuration is chosen, or where
        the folder has too little space (Fast DDS would then use no shared memory at all).
    """
    if "fastrtps" not in (environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"):
        return False
    used = _transports_are_used(environment)
    configured = (*_VARIABLES, _TRANSPORTS) if used else _VARIABLES
    if any(environment.get(name) for name in configured):
        return False
    if any(Path(name).exists() for name in _FILES) or not folder.is_dir():
        return False
    needed = SEGMENT_BYTES + _FOR_OTHERS
    if (free := shutil.disk_usage(folder).free) < needed:
        _log.warning(
            "%s has only %d MiB left, of which Fast DDS needs %d: readers on this machine may lose"
            " masks and images",
            folder, free >> 20, needed >> 20,
        )  # fmt: skip
        return False
    environment.update(dict.fromkeys(_VARIABLES, str(PROFILE)))
    return True


def _transports_are_used(environment: MutableMapping[str, str]) -> bool:
    """Whether Fast DDS uses the transports that are chosen; warns where they lose images."""
    chosen = environment.get(_TRANSPORTS, "")
    if chosen and _is_one_host(environment):
        # rmw_fastrtps then makes UDP and shared memory of 512 KiB of its own, in each process: of
        # 300 images of 1080p a plain reader got 3 to 15. Those of a profile are used.
        _log.warning(
            "%s is not used where ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST or ROS_LOCALHOST_ONLY=1"
            " is set, and large images are lost: unset it in every process, and set %s=%s in the"
            " camera's", _TRANSPORTS, _VARIABLES[0], PROFILE,
        )  # fmt: skip
        return False
    # Readers on the same machine get what is published through shared memory, of twice the size
    # of the sockets' buffers; without one, of 300 images of 1080p a plain reader got 31.
    if chosen.startswith("LARGE_DATA") and "?" not in chosen:
        _log.warning(
            "LARGE_DATA without options loses most images on one machine: set %s=%s in every"
            " process", _TRANSPORTS, LARGE_DATA,
        )  # fmt: skip
    return True


def _is_one_host(environment: MutableMapping[str, str]) -> bool:
    one_range = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    return one_range or environment.get("ROS_LOCALHOST_ONLY") == "1"


if __name__ == "__main__":
    sys.stdout.write(f"{PROFILE}\n")
