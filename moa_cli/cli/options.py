"""The options that several commands share, each declared once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, TypedDict, TypeVar

import typer

from moa_cli.config.schema import CONFIG_KEYS
from moa_cli.config.toml import sentence
from moa_cli.core.errors import UsageError
from moa_cli.profile import Overrides, Profile, list_profiles
from moa_cli.profile.schema import PROFILE_KEYS, PROPOSER_KEYS

__all__ = [
    "Compact",
    "Concurrency",
    "Display",
    "Live",
    "Plain",
    "ProfileName",
    "ShowReasoning",
    "display",
    "span_seconds",
    "split_names",
    "takes_profile",
    "typed_or",
]

_T = TypeVar("_T")
_SPANS = {"h": 3600, "d": 86400, "w": 604800}


def _profile_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    return [one.name for one in list_profiles() if one.name.startswith(incomplete)]


ProfileName = Annotated[
    str | None,
    typer.Option(
        "-p",
        "--profile",
        metavar="NAME|PATH",
        help=sentence(CONFIG_KEYS["profile"]),
        autocompletion=_profile_names,
    ),
]
AggregatorName = Annotated[
    str | None,
    typer.Option("-a", "--aggregator", metavar="MODEL", help=sentence(PROFILE_KEYS["aggregator"])),
]
ReferenceModels = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--reference-model",
        metavar="MODEL",
        help=sentence(PROFILE_KEYS["proposers"], "repeat the option, or separate by commas"),
    ),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", metavar="N", help=sentence(PROPOSER_KEYS["samples"])),
]
Temperature = Annotated[
    float | None,
    typer.Option("-t", "--temperature", metavar="T", help=sentence(PROFILE_KEYS["temperature"])),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="N", help=sentence(PROFILE_KEYS["max_tokens"])),
]
Rounds = Annotated[
    int | None,
    typer.Option("-r", "--rounds", metavar="N", help=sentence(PROFILE_KEYS["rounds"])),
]
MultiTurn = Annotated[
    bool | None,
    typer.Option("--multi-turn/--no-multi-turn", help=sentence(PROFILE_KEYS["multi_turn"])),
]
System = Annotated[
    str | None,
    typer.Option("-s", "--system", metavar="TEXT", help=sentence(PROFILE_KEYS["system"])),
]
ReferencePlacement = Annotated[
    str | None,
    typer.Option(
        "--reference-placement",
        metavar="PLACE",
        help=sentence(PROFILE_KEYS["reference_placement"]),
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", metavar="N", min=1, help=sentence(CONFIG_KEYS["concurrency"])),
]
# How things are shown: None leaves it to the settings file.
Plain = Annotated[
    bool | None, typer.Option("--plain/--no-plain", help=sentence(CONFIG_KEYS["plain"]))
]
Live = Annotated[bool | None, typer.Option("--live/--no-live", help=sentence(CONFIG_KEYS["live"]))]
Compact = Annotated[
    bool | None, typer.Option("--compact/--no-compact", help=sentence(CONFIG_KEYS["compact"]))
]
ShowReasoning = Annotated[
    bool | None,
    typer.Option(
        "--show-reasoning/--no-show-reasoning", help=sentence(CONFIG_KEYS["show_reasoning"])
    ),
]
# The reference implementation's own spellings, so that its documented commands run.
_OtherReferenceModels = Annotated[
    list[str] | None,
    typer.Option("--reference-models", "--reference_models", hidden=True),
]
_OtherAggregator = Annotated[str | None, typer.Option("--model", hidden=True)]
_OtherMaxTokens = Annotated[int | None, typer.Option("--max_tokens", hidden=True)]
_OtherConcurrency = Annotated[
    int | None, typer.Option("--num_proc", "--num-proc", min=1, hidden=True)
]
_OtherMultiTurn = Annotated[bool | None, typer.Option("--multi_turn/--no_multi_turn", hidden=True)]


class Display(TypedDict):
    """How replies are shown; see `render.sinks.Show`."""

    plain: bool
    live: bool
    compact: bool
    reasoning: bool


def display(
    plain: bool | None, live: bool | None, compact: bool | None, reasoning: bool | None
) -> Display:
    """How replies are shown: what was typed, else what is configured."""
    from moa_cli.cli.wiring import config

    settings = config()
    return Display(
        plain=typed_or(plain, settings.plain),
        live=typed_or(live, settings.live),
        compact=typed_or(compact, settings.compact),
        reasoning=typed_or(reasoning, settings.show_reasoning),
    )


def typed_or(typed: _T | None, configured: _T) -> _T:
    """What was typed, else what is configured."""
    return configured if typed is None else typed


def span_seconds(text: str) -> float:
    """The seconds in `30d`, `12h` or `2w`. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if match is None:
        raise UsageError(f"{text!r} is no span of time", hint="for example 12h, 30d or 2w")
    return int(match.group(1)) * float(_SPANS[match.group(2)])


def split_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Model names from repeated and comma-separated values; None if nothing was given.

    Raises UsageError if what was given holds none.
    """
    if given is None:
        return None
    names = tuple(name.strip() for text in given for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--reference-model names no model")
    return names


def _shared(
    profile: ProfileName = None,
    aggregator: AggregatorName = None,
    reference_model: ReferenceModels = None,
    samples: Samples = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    rounds: Rounds = None,
    multi_turn: MultiTurn = None,
    system: System = None,
    reference_placement: ReferencePlacement = None,
    concurrency: Concurrency = None,
    reference_models: _OtherReferenceModels = None,
    model: _OtherAggregator = None,
    max_tokens_: _OtherMaxTokens = None,
    num_proc: _OtherConcurrency = None,
    multi_turn_: _OtherMultiTurn = None,
) -> tuple[str | None, Overrides, int | None]:
    """The profile's name, what was typed over it, and the concurrency."""
    names = [*(reference_model or []), *(reference_models or [])]
    flags = Overrides(
        aggregator=_first(aggregator, model),
        reference_models=split_names(names or None),
        samples=samples,
        temperature=temperature,
        max_tokens=_first(max_tokens, max_tokens_),
        rounds=rounds,
        multi_turn=_first(multi_turn, multi_turn_),
        system=system,
        reference_placement=reference_placement,  # type: ignore[arg-type]
    )
    return profile, flags, _first(concurrency, num_proc)


def _first(ours: Any, theirs: Any) -> Any:
    if ours is not None and theirs is not None and ours != theirs:
        raise UsageError(f"one setting was given two values: {ours} and {theirs}")
    return theirs if ours is None else ours


def takes_profile(command: Callable[..., Any], *, checked: bool = True) -> Callable[..., Any]:
    """Graft the shared options onto a command, and hand it the resolved `profile`.

    checked: whether a model name whose provider is not known ends the command before it begins.

    It is handed `concurrency` (None if not typed) too, if it has such a parameter. One that
    takes the profile's name as an argument calls that `named`; it is not handed on.
    """
    shared = inspect.signature(_shared, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    handed = {"profile", "concurrency"} & own.keys()

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        from moa_cli.cli.wiring import choose_profile

        name, flags, concurrency = _shared(**{key: given.pop(key) for key in shared})
        chosen = _first(given.pop("named", None), name)
        profile: Profile = choose_profile(chosen, flags, checked=checked)
        extra = {"profile": profile, "concurrency": concurrency}
        return command(**given, **{key: extra[key] for key in handed})

    kept = [one for name, one in own.items() if name not in handed]
    # Typer reads the signature, and resolves its annotations, from these two.
    run.__signature__ = inspect.Signature([*kept, *shared.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*kept, *shared.values()]}
    return run
