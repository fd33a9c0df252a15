"""Every parameter of the node as data: the node and docs/ros2.md read this table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import ConfigError, PromptError
from ape_stream.types import Prompt, PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DEFAULTS",
    "PARAMETERS",
    "PROMPT_PARAMETERS",
    "ParameterSpec",
    "as_table",
    "check",
    "read_prompts",
    "wanted",
]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter."""

    name: str
    """Its name."""
    default: Any
    """Value at the start; its type is the parameter's."""
    what: str
    """Description."""
    read_only: bool = False
    """True: set at the start only."""
    span: tuple[float, float] | None = None
    """Lowest and highest value."""
    choices: tuple[str, ...] | None = None
    """The values there are."""

    def check(self, value: Any) -> None:
        """Refuse a value outside the choices or the span.

        Raises:
            ConfigError: it is outside; the message says what there is.
        """
        if self.choices is not None and value not in self.choices:
            raise ConfigError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")
        if self.span is not None and not self.span[0] <= value <= self.span[1]:
            raise ConfigError(f"{self.name} lies within {self.span[0]}..{self.span[1]}")


PARAMETERS: Final = (
    ParameterSpec("prompts", ["person"], "what to find; changes at once, all or nothing"),
    ParameterSpec("score_threshold", 0.0, "lowest score that is kept; 0 = the model's own",
                  span=(0.0, 1.0)),
    ParameterSpec("prompt_thresholds", [0.0],
                  "thresholds of the prompts, in their order; 0 = score_threshold"),
    ParameterSpec("max_rate", 0.0, "pictures taken a second; 0 = as many as the model can",
                  span=(0.0, 1000.0)),
    ParameterSpec("model", "nano", "the model's name, or the path of one", read_only=True),
    ParameterSpec("perceiver", "ape", "the perceiver plugin", read_only=True),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:1", read_only=True),
    ParameterSpec("dtype", "float32", "arithmetic of the network: float32, bfloat16 or float16",
                  read_only=True),
    ParameterSpec("tracker", "iou", "the tracker plugin", read_only=True),
    ParameterSpec("iou_track", 0.3, "overlap from which a region goes on with a track",
                  read_only=True, span=(0.01, 1.0)),
    ParameterSpec("mask_encoding", "mono16", "mono8 where all values fit", read_only=True,
                  choices=("mono16", "mono8")),
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
"""The parameters that together say what to look for."""


def check(values: Mapping[str, Any]) -> None:
    """Refuse values outside the choices and spans; names that are not ours are left alone.

    Raises:
        ConfigError: a value is outside; the message says what there is.
    """
    for parameter in PARAMETERS:
        if parameter.name in values:
            parameter.check(values[parameter.name])


def wanted(values: Mapping[str, Any]) -> PromptSet:
    """The prompt set that the values of `PROMPT_PARAMETERS` mean.

    Raises:
        PromptError: a text is empty or given twice, a threshold is outside 0..1 or one too many.
    """
    lowest = values["score_threshold"] or None  # 0: the model's own
    return read_prompts(values["prompts"], values["prompt_thresholds"], default=lowest)


def read_prompts(
    texts: Sequence[str], thresholds: Sequence[float] = (), default: float | None = None
) -> PromptSet:
    """The prompt set that these parameter values mean.

    Args:
        texts: The prompts.
        thresholds: One per prompt; 0 or none takes the default.
        default: For prompts without one; None leaves it to the pipeline.

    Raises:
        PromptError: a text is empty or given twice, or there are more thresholds than texts.
    """
    own = [value or default for value in thresholds]
    if len(own) > max(1, len(texts)):
        raise PromptError(f"{len(own)} prompt_thresholds for {len(texts)} prompts")
    own += [default] * (len(texts) - len(own))
    prompts = [Prompt(text) for text in texts]
    return PromptSet(tuple(replace(p, threshold=own[k]) for k, p in enumerate(prompts)))


def as_table() -> str:
    """A Markdown table of the parameters."""
    lines = ["| parameter | default | when | what |", "|---|---|---|---|"]
    for one in PARAMETERS:
        when = "start only" if one.read_only else "any time"
        span = "" if one.span is None else f", {one.span[0]:g}..{one.span[1]:g}"
        lines.append(f"| `{one.name}` | `{one.default}` | {when} | {one.what}{span} |")
    return "\n".join(lines)
