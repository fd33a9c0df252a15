"""Writes the tables of docs/ros2.md from the code: python -m ape_nodes.ros_docs docs/ros2.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ape_nodes import ros_parameters, ros_topics

__all__ = ["refreshed"]


def refreshed(text: str) -> str:
    """The document with every table between its marks made anew."""
    tables = {
        "outputs": ros_topics.as_table(ros_topics.OUTPUTS, "~/"),
        "inputs": ros_topics.as_table(ros_topics.INPUTS),
        "parameters": ros_parameters.as_table(),
    }
    for name, table in tables.items():
        mark = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(mark, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(refreshed(document.read_text()))
