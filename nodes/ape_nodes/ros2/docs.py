"""Writes the tables of docs/ros2.md from the code: python -m ape_nodes.ros2.docs docs/ros2.md."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from ape_nodes.ros2 import parameters as ros_parameters
from ape_nodes.ros2 import topics
from ape_nodes.ros2.types import service_definitions

__all__ = ["refreshed"]


def _launch_table(folder: Path) -> str:
    """The arguments of every launch file, read from its source: running it needs ROS."""
    lines = ["| file | argument | default | what |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.launch.py")):
        for node in ast.parse(path.read_text()).body:
            # Each file has ARGUMENTS = {name: (default, description)} for its declarations.
            if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"):
                continue
            for name, (default, description) in ast.literal_eval(node.value).items():
                shown = f"`{default}`" if default else "" if default is None else "empty"
                lines.append(f"| `{path.name}` | `{name}` | {shown} | {description} |")
    return "\n".join(lines)


def refreshed(text: str, launch_files: Path) -> str:
    """The document with every table between its marks replaced by the present one.

    Args:
        text: Markdown.
        launch_files: The folder `launch/`.
    """
    tables = {
        "outputs": topics.as_table((*topics.OUTPUTS, topics.IN_FORCE, topics.DIAGNOSTICS), "~/"),
        "inputs": topics.as_table(topics.INPUTS),
        "parameters": ros_parameters.as_table(),
        "launch": _launch_table(launch_files),
        "services": "\n".join(map("```text\n{}```".format, service_definitions().values())),
    }
    for name, table in tables.items():
        mark = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(mark, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    document = Path(sys.argv[1])
    launch_folder = document.resolve().parents[1] / "launch"
    document.write_text(refreshed(document.read_text(), launch_folder))
