"""Every parameter of the node as data: the node and docs/ros2.md are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_nodes.ros2.topics import LABEL_SOURCES
from ape_stream.errors import ConfigError, PromptError
from ape_stream.types import Prompt, PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULTS",
    "PARAMETERS",
    "PROMPT_PARAMETERS",
    "ParameterSpec",
    "as_table",
    "check",
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
    ParameterSpec("prompt_thresholds", [0.0],
                  "thresholds of the prompts, in their order; 0 = score_threshold"),
    ParameterSpec("max_rate", 0.0, "images processed per second; 0 = as many as the model can",
                  limits=(0.0, 1000.0)),
    ParameterSpec("model", "nano", "name or path of the model", read_only=True),
    ParameterSpec("perceiver", "ape", "the perceiver plugin", read_only=True),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:1", read_only=True),
    ParameterSpec("dtype", "float32", "arithmetic of the network: float32, bfloat16 or float16",
                  read_only=True),
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
    ParameterSpec("image_transport", "raw", "raw or compressed", read_only=True,
                  choices=("raw", "compressed")),
    ParameterSpec("image_reliability", "best_effort", "best_effort or reliable", read_only=True,
                  choices=("best_effort", "reliable")),
)  # fmt: skip

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

    Raises:
        PromptError: a text is empty or given twice, a threshold is outside 0..1, or there are
            more thresholds than prompts.
    """
    # A ROS array cannot be empty without losing its type: [0.0] stands for no thresholds.
    texts, thresholds = list(values["prompts"]), list(values["prompt_thresholds"])
    if len(thresholds) > max(1, len(texts)):
        raise PromptError(f"{len(thresholds)} prompt_thresholds for {len(texts)} prompts")
    thresholds += [0.0] * (len(texts) - len(thresholds))
    pairs = zip(texts, thresholds, strict=False)  # without prompts one threshold is left over
    prompts = [Prompt(text, threshold=own or None) for text, own in pairs]
    return PromptSet(tuple(prompts)).with_threshold(values["score_threshold"] or None)


def as_table() -> str:
    """A Markdown table of the parameters."""
    lines = ["| parameter | default | when | what |", "|---|---|---|---|"]
    for one in PARAMETERS:
        when = "start only" if one.read_only else "any time"
        limits = "" if one.limits is None else f", {one.limits[0]:g}..{one.limits[1]:g}"
        lines.append(f"| `{one.name}` | `{one.default}` | {when} | {one.description}{limits} |")
    return "\n".join(lines)
