"""From the options of `ape-stream annotate` and `run` to a `RunConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig, load
from ape_stream.errors import PromptError, UsageError, reason_of
from ape_stream.pipeline import Policy
from ape_stream.sinks.conflicts import refuse_inputs
from ape_stream.sources.media import expand
from ape_stream.specs import stream_name
from ape_stream.types import PromptSet
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Options", "from_file", "from_options", "model_with", "with_files", "words"]

VIDEOS = (".mp4", ".mkv")
DEFAULT_OUTPUTS = ("overlay.mp4", "tracks.json", "results.jsonl", "sheet.png")


@dataclass(frozen=True, slots=True)
class Options:
    """What was given to `annotate`; None and empty lists leave it to the file or the default."""

    sources: Sequence[str]
    """Files, folders, patterns, devices or URLs."""
    prompt: Sequence[str] = ()
    """Lines of prompts between commas."""
    prompts_file: Path | None = None
    """A file with one prompt a line."""
    config: Path | None = None
    """A TOML file for what the others leave open."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Options of the perceiver by name, None where one was not given."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Options of every source by name, None where one was not given."""
    thresholds: Sequence[str] = ()
    """"0.4", or "dog face=0.6"."""
    tracker: str | None = None
    """Name of a tracker, or none."""
    policy: str | None = None
    """every, newest or auto."""
    output: Sequence[str] = ()
    """Files, folders, addresses, window."""
    metrics: str | None = None
    """HOST:PORT where the run's numbers are served."""
    blur: Sequence[str] = ()
    """Lines of prompts between commas whose masks videos show blurred."""
    pixelate: Sequence[str] = ()
    """The same, pixelated."""
    overwrite: bool = False
    """Replace outputs of an earlier run."""


def from_file(config: Path, *, overwrite: bool, metrics: str | None = None) -> RunConfig:
    """The run of a TOML file.

    Raises:
        UsageError: it cannot be read, or says something wrong.
    """
    plan = load(config)
    outputs = (*plan.outputs, *_metrics(metrics))
    return replace(plan, outputs=outputs, overwrite=plan.overwrite or overwrite)


def _metrics(address: str | None) -> list[OutputConfig]:
    return [] if address is None else [OutputConfig(f"metrics:{address}")]


def from_options(given: Options) -> RunConfig:
    """The run that options describe, and a TOML file where they leave something open.

    Args:
        given: The options; what they name is read once, it may be a pipe.

    Raises:
        UsageError: something given cannot be used.
    """
    prompts = _prompts(given.prompt, given.prompts_file)
    sources = _named(given)
    if given.config is not None:
        plan = load(given.config, prompts=prompts)
    elif prompts is not None or given.blur or given.pixelate:
        prompts = prompts or PromptSet.of([*words(given.blur), *words(given.pixelate)])
        plan = RunConfig(sources=sources, prompts=prompts)
    else:
        raise PromptError('no prompt given: say what to find, as in --prompt "red apple, dog face"')
    # What is to be hidden must be looked for.
    looked_for = PromptSet.of([*plan.prompts, *words(given.blur), *words(given.pixelate)])
    threshold, prompts = _thresholds(given.thresholds, replace(plan, prompts=looked_for))
    plan = replace(
        plan,
        sources=sources,
        prompts=prompts,
        model=model_with(plan.model, given.model),
        tracker=_tracker(given.tracker, plan.tracker),
        threshold=threshold,
        policy=plan.policy if given.policy is None else _policy(given.policy),
        outputs=(
            *_hiding(_outputs(given.output, plan.outputs), given),
            *_metrics(given.metrics),
        ),
        overwrite=plan.overwrite or given.overwrite,
    )
    _refuse_own_files(plan, given)
    return plan


def with_files(run: RunConfig, given: Options) -> RunConfig:
    """A run of `from_options`, with files of each stream where nothing names an output.

    Raises:
        UsageError: one of these files is what the run was read from.
    """
    metrics = tuple(_metrics(given.metrics))
    if run.outputs != metrics:
        return run
    files = tuple(
        OutputConfig(f"out/{source.name}/{file}", source.name)
        for source in run.sources
        for file in DEFAULT_OUTPUTS
    )
    run = replace(run, outputs=(*_hiding(files, given), *metrics))
    _refuse_own_files(run, given)
    return run


def _refuse_own_files(run: RunConfig, given: Options) -> None:
    """An output must not replace the file that the run was read from."""
    read = [path for path in (given.prompts_file, given.config) if path is not None]
    refuse_inputs((Path(output.output) for output in run.outputs), read)


def words(lines: Sequence[str]) -> list[str]:
    """The prompts on lines with commas between them."""
    texts = [" ".join(part.split()) for line in lines for part in line.split(",")]
    return [text for text in texts if text]


def _prompts(lines: Sequence[str], file: Path | None) -> PromptSet | None:
    texts = words(lines)
    if file is not None:
        try:
            listed = [line.strip() for line in read_text(file).splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the prompts in {file}: {reason_of(error)}") from error
        texts += [line for line in listed if line and not line.startswith("#")]
    if not texts and (lines or file is not None):
        raise PromptError("no prompt given: name at least one thing to find")
    return PromptSet.of(texts) if texts else None


def _thresholds(given: Sequence[str], plan: RunConfig) -> tuple[float | None, PromptSet]:
    """The threshold for all, and the prompts with those for one."""
    general, own = plan.threshold, {}
    for text in given:
        # At the last sign: a prompt may hold one of its own.
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(
                f"threshold {text!r} is no number: give 0.4, or 'dog face=0.6' for one prompt"
            ) from error
        if equals:
            own[" ".join(name.split())] = value  # as `Prompt` normalises its text
        else:
            general = value
    for name in own:
        if name not in plan.prompts.texts:
            known = ", ".join(plan.prompts.texts)
            raise UsageError(f"threshold for {name!r}, which is no prompt; there are: {known}")
    prompts = [replace(p, threshold=own.get(p.text, p.threshold)) for p in plan.prompts]
    return general, PromptSet(tuple(prompts))


def _named(given: Options) -> tuple[SourceConfig, ...]:
    """The sources, lists opened, each with a name for its folder of outputs."""
    options = _chosen(given.source)
    taken: set[str] = set()
    named = []
    for source in given.sources:
        for spec in expand(source):
            name = stream_name(spec, taken)
            taken.add(name)
            named.append(SourceConfig(spec, name, options, is_one=True))
    return tuple(named)


def model_with(configured: PluginConfig, given: Mapping[str, Any]) -> PluginConfig:
    """A perceiver with the options that were given; None where one was not."""
    options = _chosen(given)
    name = options.pop("model", None)
    plugin = configured if name is None else configured.with_model(name)
    return replace(plugin, options={**plugin.options, **options})


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _tracker(name: str | None, configured: PluginConfig | None) -> PluginConfig | None:
    if name is None or (configured is not None and configured.plugin == name):
        return configured
    return None if name == "none" else PluginConfig(name)


def _policy(name: str) -> Policy:
    for known in get_args(Policy):
        if name == known:
            policy: Policy = known
            return policy
    raise UsageError(f"policy {name!r} is none of {', '.join(get_args(Policy))}")


def _outputs(
    named: Sequence[str], configured: tuple[OutputConfig, ...]
) -> tuple[OutputConfig, ...]:
    return tuple(OutputConfig(output) for output in named) or configured


def _hiding(outputs: tuple[OutputConfig, ...], given: Options) -> tuple[OutputConfig, ...]:
    """Give videos the prompts that they hide."""
    hidden = _chosen_lists({"blur": words(given.blur), "pixelate": words(given.pixelate)})
    return tuple(
        replace(output, options={**output.options, **hidden})
        if hidden and Path(output.output).suffix.lower() in VIDEOS
        else output
        for output in outputs
    )


def _chosen_lists(given: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {key: value for key, value in given.items() if value}
