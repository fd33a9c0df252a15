"""Other processes of the tests: peers that report in JSON lines, and a ROS domain for each test."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class Peer:
    """A script of this folder as a process of its own, killed with SIGKILL at the end."""

    ROOT = HERE.parents[2]

    def __init__(self, script, *arguments):
        paths = os.pathsep.join(
            str(self.ROOT / part) for part in (".", "nodes", "model", "cuda_ops")
        )
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def lines(self, count):
        return [json.loads(self.process.stdout.readline()) for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def claim_domain():
    """A ROS_DOMAIN_ID that no other test on this machine has, and the socket that holds it.

    Tests that run at the same time would receive each other's messages in one domain.
    """
    for number in random.sample(range(1, 100), 99):
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", 7399 + 250 * number))  # just below the ports of the domain
        except OSError:
            holder.close()
        else:
            return number, holder
    raise RuntimeError("every ROS domain is taken")
