"""Every parameter of the node as data: the node and docs/ros2.md are made from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_nodes.ros2.topics import LABEL_SOURCES
from ape_stream.errors import ConfigError, PromptError
from ape_stream.types import Prompt, PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULTS",
    "MOST_PROMPTS",
    "PARAMETERS",
    "PROMPT_PARAMETERS",
    "ParameterSpec",
    "as_table",
    "check",
    "in_force",
    "prompt_set",
]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter."""

    name: str
    """Its name."""
    default: Any
    """Value at the start; its type is the parameter's."""
    description: str
    """What it means."""
    read_only: bool = False
    """True: set at the start only."""
    limits: tuple[float, float] | None = None
    """Lowest and highest value."""
    choices: tuple[str, ...] | None = None
    """The possible values."""

    def check(self, value: Any) -> None:
        """Refuse a value that is not a choice or is outside the limits.

        Raises:
            ConfigError: it is refused; the message says what is possible.
        """
        if self.choices is not None and value not in self.choices:
            raise ConfigError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")
        if self.limits is not None and not self.limits[0] <= value <= self.limits[1]:
            raise ConfigError(
                f"{self.name} is {value}, not within {self.limits[0]}..{self.limits[1]}"
            )


PARAMETERS: Final = (
    ParameterSpec("prompts", ["person"], "what to find; changes at once, all or nothing"),
    ParameterSpec("score_threshold", 0.0, "lowest score that is kept; 0 = the model's own",
                  limits=(0.0, 1.0)),
    ParameterSpec("prompt_thresholds", [""],
                  "thresholds of prompts by their text, as `dog:0.6`; others have score_threshold"),
    ParameterSpec("max_rate", 0.0, "images processed per second; 0 = as many as the model can",
                  limits=(0.0, 1000.0)),
    ParameterSpec("model", "nano", "name or path of the model", read_only=True),
    ParameterSpec("perceiver", "ape", "the perceiver plugin", read_only=True),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:1", read_only=True),
    ParameterSpec("dtype", "float32", "arithmetic of the network: float32, bfloat16 or float16",
                  read_only=True),
    ParameterSpec("canvas", 0, "long side of the image that the network sees, pixels; 0 = the"
                  " model's own", read_only=True),
    ParameterSpec("tracker", "iou", "the tracker plugin", read_only=True),
    ParameterSpec("iou_track", 0.3, "lowest overlap that continues a track",
                  read_only=True, limits=(0.01, 1.0)),
    ParameterSpec("mask_encoding", "mono16", "mono8 where all values fit", read_only=True,
                  choices=("mono16", "mono8")),
    ParameterSpec("label_source", "instances",
                  "what `label_image` is made from: masks painted, or the semantic map",
                  read_only=True, choices=LABEL_SOURCES),
    ParameterSpec("publish_compressed", True, "false leaves out the `/compressed` outputs",
                  read_only=True),
    ParameterSpec("image_transport", "raw",
                  "raw, compressed, or video: H.264 and others in packets (`ffmpeg`, `foxglove`)",
                  read_only=True, choices=("raw", "compressed", "ffmpeg", "foxglove")),
    ParameterSpec("image_reliability", "best_effort", "best_effort or reliable", read_only=True,
                  choices=("best_effort", "reliable")),
    ParameterSpec("depth", "none",
                  "where depth comes from: none, image (`depth`), compressed, or points (`points`)",
                  read_only=True, choices=("none", "image", "compressed", "points")),
    ParameterSpec("depth_slop", 0.02,
                  "largest difference of the stamps of an image and its depth, seconds",
                  read_only=True, limits=(0.0, 10.0)),
    ParameterSpec("rectified", False, "the images are rectified: P of the camera info holds",
                  read_only=True),
    ParameterSpec("boxes_3d", "oriented", "oriented or axis_aligned", read_only=True,
                  choices=("oriented", "axis_aligned")),
    ParameterSpec("voxel_size", 0.0, "side of the cubes of which `points` has one, metres; 0 = all",
                  limits=(0.0, 100.0)),
    ParameterSpec("target_frame", "", "coordinate frame of results in space; empty: the image's"),
)  # fmt: skip

MOST_PROMPTS: Final = 10_000
"""More would keep the node's services busy for seconds."""
DEFAULTS: Final = {parameter.name: parameter.default for parameter in PARAMETERS}
"""The value of each parameter at the start."""
PROMPT_PARAMETERS: Final = ("prompts", "prompt_thresholds", "score_threshold")
"""The parameters that together make the prompt set."""


def check(values: Mapping[str, Any]) -> None:
    """Refuse values that are not possible; names that are not ours are ignored.

    Raises:
        ConfigError: a value is refused; the message says what is possible.
    """
    for parameter in PARAMETERS:
        if parameter.name in values:
            parameter.check(values[parameter.name])


def prompt_set(values: Mapping[str, Any]) -> PromptSet:
    """The prompt set of these values of `PROMPT_PARAMETERS`; a threshold of 0 means none.

    A prompt may have its threshold with it, as `dog:0.6`; that goes before `prompt_thresholds`.

    Raises:
        PromptError: a text is empty or given twice, a threshold is outside 0..1 or missing, or
            there are more prompts than `MOST_PROMPTS`.
    """
    # A ROS array cannot be empty without losing its type: [""] stands for no thresholds.
    texts = list(values["prompts"])
    if len(texts) > MOST_PROMPTS:
        raise PromptError(f"{len(texts)} prompts are more than the {MOST_PROMPTS} of a node")
    # Thresholds of texts that are not among the prompts wait for them: parameters that are loaded
    # one after the other are then taken in any order.
    known = dict(_with_threshold(given) for given in values["prompt_thresholds"] if given)
    for text, own in known.items():
        if own is None:
            raise PromptError(f"prompt_thresholds has {text!r}: write it as 'dog:0.6'")
    prompts = []
    for given in texts:
        text, own = _with_threshold(given)
        prompts.append(Prompt(text, threshold=known.get(text) if own is None else own))
    return PromptSet(tuple(prompts)).with_threshold(values["score_threshold"] or None)


def _with_threshold(given: str) -> tuple[str, float | None]:
    """Text and threshold of `dog:0.6`; a text that ends otherwise has none."""
    text, colon, number = given.rpartition(":")
    try:
        return (text.strip(), float(number)) if colon else (given, None)
    except ValueError:
        return given, None


def in_force(prompts: PromptSet, refused: str) -> str:
    """What `~/prompts_in_force` says: JSON of active prompts, and why others were refused."""
    values = {
        "prompts": list(prompts.texts),
        "thresholds": [prompt.threshold for prompt in prompts],
        "refused": refused,
    }
    return json.dumps(values, ensure_ascii=False)


def as_table() -> str:
    """A Markdown table of the parameters."""
    lines = ["| parameter | default | when | what |", "|---|---|---|---|"]
    for one in PARAMETERS:
        when = "start only" if one.read_only else "any time"
        limits = "" if one.limits is None else f", {one.limits[0]:g}..{one.limits[1]:g}"
        lines.append(f"| `{one.name}` | `{one.default}` | {when} | {one.description}{limits} |")
    return "\n".join(lines)
