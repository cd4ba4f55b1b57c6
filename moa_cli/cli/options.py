"""The options that several commands share. Each is declared once.

`takes_profile` adds the options of a mixture to a command. It also adds the fields of a bundle: a
command with a parameter `display: Display` has the fields of `Display` as options, at that place of
its help, and gets a `Display` with their values.
"""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from moa_cli.cli import wiring
from moa_cli.cli.commands import Debug
from moa_cli.config.meanings import MEANINGS, sentence
from moa_cli.core.errors import UsageError
from moa_cli.core.strategy import STRATEGIES

if TYPE_CHECKING:
    from moa_cli.config.schema import Config
    from moa_cli.core.ledger import DaySpending
    from moa_cli.engine import Budget
    from moa_cli.profile import Overrides, Profile
    from moa_cli.terminal.look import Look
    from moa_cli.terminal.sinks import Show

_T = TypeVar("_T")
_S = TypeVar("_S", bound="Show")
_SPANS = {"h": 3600, "d": 86400, "w": 604800}
_MOST_TOKENS = 10**12


def profile_names() -> list[str]:
    """The names of all profiles, for the shell's completion, which filters them."""
    from moa_cli.profile import list_profiles

    return [file.name for file in list_profiles()]


def option_of(setting: str, *names: str, more: str = "", **settings: Any) -> Any:
    """An option with the help of the setting that it changes. more: see `sentence`."""
    return Option(*names, help=sentence(MEANINGS[setting], more), **settings)


Concurrency = Annotated[int | None, option_of("concurrency", metavar="N", min=1)]
ProviderConcurrency = Annotated[
    int | None, Option(metavar="N", min=1, help="Calls in flight to one provider.")
]
# For these options, None leaves the value to the settings.
Plain = Annotated[bool | None, option_of("plain")]
Live = Annotated[bool | None, option_of("live")]
Save = Annotated[bool | None, option_of("save")]
KeepTexts = Annotated[bool | None, option_of("keep_texts")]
Continue = Annotated[
    bool, Option("-c", "--continue", help="Continue the last conversation with its own settings.")
]
Cid = Annotated[
    str | None,
    Option(metavar="ID", help="Continue this conversation (an id or a unique prefix of it)."),
]
Yes = Annotated[bool, Option("-y", "--yes", help="Do not ask.")]
YesBeforeSending = Annotated[
    bool, Option("-y", "--yes", help="Do not ask before anything is sent.")
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
JsonArray = Annotated[bool, Option("--json", help="Print a JSON array.")]
NoPager = Annotated[bool, Option("--no-pager", help="Do not use a pager for long output.")]
Since = Annotated[
    str | None, Option("--since", metavar="SPAN", help="Only those from the last SPAN, such as 7d.")
]
ForceFile = Annotated[bool, Option("--force", help="Overwrite the file.")]
ForceProfile = Annotated[bool, Option("--force", help="Replace a profile of that name.")]
# Options of evaluations and of similar commands.
Best = Annotated[
    str | None,
    Option(metavar="MODEL", help="The proposer that Self-MoA samples; by default, the first."),
]
Data = Annotated[
    Path | None,
    Option(
        metavar="FOLDER",
        help="The folder of datasets; by default, MOA_BENCH_DATA or the cache folder.",
    ),
]
RunFolder = Annotated[Path, Argument(metavar="RUN", help="The folder of a run.")]
OutputFile = Annotated[
    Path | None,
    Option("-o", "--output", metavar="FILE", help="Write to this file instead of standard output."),
]


def _amount(value: float | None) -> float | None:
    if value is not None:
        from moa_cli.core.money import MOST_USD

        # Written in this way, the condition also refuses NaN.
        if not 0 <= value <= MOST_USD:
            raise typer.BadParameter(f"{value} is not an amount between 0 and {MOST_USD:,.0f}")
    return value


def _tokens(value: int | None) -> int | None:
    if value is not None and value > _MOST_TOKENS:
        raise typer.BadParameter(f"{value} is more than {_MOST_TOKENS:,}")
    return value


def max_cost_option(help: str) -> Any:
    """The option `--max-cost`. help: what it caps."""
    return Option("--max-cost", metavar="USD", min=0, callback=_amount, help=help)


def _theme(name: str | None) -> str | None:
    if name is not None and name not in _themes():
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(_themes())}")
    return name


def _themes() -> list[str]:
    from moa_cli.config.palette import THEMES

    return list(THEMES)


def look_of(settings: Config, theme: str | None = None) -> Look:
    """The look that is configured. theme: the typed theme, which takes precedence."""
    from moa_cli.config.palette import THEMES
    from moa_cli.terminal.look import Look

    chosen = next((name for name in THEMES if name == theme), settings.theme)
    return Look(chosen, settings.palette, settings.hyperlinks)


@dataclass(frozen=True)
class Display:
    """The options for how replies are shown. None means that the settings decide."""

    plain: Plain = None
    live: Live = None
    compact: Annotated[bool | None, option_of("compact")] = None
    show_reasoning: Annotated[bool | None, option_of("show_reasoning")] = None
    bell: Annotated[int | None, option_of("bell", metavar="SECONDS", min=0, max=86_400)] = None
    title: Annotated[bool | None, option_of("title")] = None
    theme: Annotated[
        str | None,
        option_of("theme", metavar="NAME", callback=_theme, autocompletion=_themes),
    ] = None
    accessible: Annotated[bool | None, option_of("accessible")] = None
    progress_interval: Annotated[
        int | None,
        option_of("progress_interval", metavar="SECONDS", min=0, max=3600),
    ] = None

    def over(self, show: _S) -> _S:
        """`show` with the typed values, else with those of the settings."""
        settings = wiring.config()
        # The options have the names of the settings.
        shown: dict[str, Any] = {
            name: typed_or(typed, getattr(settings, name)) for name, typed in vars(self).items()
        }
        look, reasoning = look_of(settings, shown.pop("theme")), shown.pop("show_reasoning")
        return replace(show, look=look, reasoning=reasoning, **shown)


@dataclass(frozen=True)
class TurnCaps:
    """The options that cap a turn."""

    max_cost: Annotated[float | None, max_cost_option("Maximum cost of one turn.")] = None
    max_total_tokens: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            callback=_tokens,
            help="Maximum number of tokens of one turn, prompts and answers of all calls.",
        ),
    ] = None

    def budgets(self, spending: DaySpending | None, *, one_turn: bool) -> tuple[Budget, ...]:
        """The budgets, with those of the settings. one_turn: whether there is only one turn."""
        from moa_cli.store import accounts

        return accounts.budgets(
            wiring.config(),
            spending,
            max_cost=self.max_cost,
            max_total_tokens=self.max_total_tokens,
            session=one_turn,
        )


_BUNDLES = (Display, TurnCaps)


def typed_or(typed: _T | None, configured: _T) -> _T:
    """The typed value, or the configured one if none was typed."""
    return configured if typed is None else typed


def time_ago(span: str | None) -> float:
    """The time that is a span such as `30d`, `12h` or `2w` ago, in seconds since 1970; 0.0 for
    None. Raises UsageError for anything else."""
    if span is None:
        return 0.0
    match = re.fullmatch(r"(\d{1,6})([hdw])", span)
    if match is None:
        raise UsageError(f"{span!r} is not a span of time", hint="for example 12h, 30d or 2w")
    return time.time() - int(match.group(1)) * _SPANS[match.group(2)]


def split_names(given: list[str] | None, option: str, noun: str) -> tuple[str, ...] | None:
    """Names from repeated and comma-separated values; None if nothing was given.

    option, noun: for messages. Raises UsageError if the values contain no name.
    """
    if given is None:
        return None
    names = tuple(name.strip() for text in given for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option} names no {noun}")
    return names


# The values of `--arms`, for its help.
ARMS_HELP = (
    "mixture (the profile as it is), a strategy over its proposals"
    f" ({', '.join(STRATEGIES)}), self (Self-MoA: one proposer in the place of all),"
    " single (each model alone)"
)


def arm_names(typed: str) -> tuple[str, ...]:
    """The kinds of arms that `--arms` names. Raises UsageError for an unknown one."""
    from moa_cli.bench.run.arms import ARMS

    names = [name.strip() for name in typed.split(",") if name.strip()]
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise UsageError(
            f"--arms: there is no arm `{unknown[0] if unknown else ''}`",
            hint=f"there are {', '.join(ARMS)}",
        )
    return tuple(arm for arm in ARMS if arm in names)


@dataclass(frozen=True)
class TypedMixture:
    """The typed options for the mixture: a profile's name, and settings that change it. None means
    that an option was not typed."""

    profile: Annotated[
        str | None,
        option_of("profile", "-p", "--profile", metavar="NAME|PATH", autocompletion=profile_names),
    ] = None
    aggregator: Annotated[
        str | None, option_of("aggregator", "-a", "--aggregator", metavar="MODEL")
    ] = None
    reference_model: Annotated[
        list[str] | None,
        option_of(
            "proposers",
            "-m",
            "--reference-model",
            more="repeat the option, or separate by commas",
            metavar="MODEL",
        ),
    ] = None
    samples: Annotated[int | None, option_of("samples", metavar="N")] = None
    temperature: Annotated[
        float | None, option_of("temperature", "-t", "--temperature", metavar="T")
    ] = None
    max_tokens: Annotated[int | None, option_of("max_tokens", metavar="N")] = None
    rounds: Annotated[int | None, option_of("rounds", "-r", "--rounds", metavar="N")] = None
    multi_turn: Annotated[bool | None, option_of("multi_turn")] = None
    max_history: Annotated[int | None, option_of("max_history", metavar="N")] = None
    system: Annotated[str | None, option_of("system", "-s", "--system", metavar="TEXT")] = None
    reference_placement: Annotated[
        str | None, option_of("reference_placement", metavar="PLACE")
    ] = None
    reference_format: Annotated[str | None, option_of("reference_format", metavar="FORMAT")] = None
    reference_names: Annotated[bool | None, option_of("reference_names")] = None
    merge_prompt: Annotated[str | None, option_of("merge_prompt", metavar="FILE")] = None
    strategy: Annotated[
        str | None, option_of("strategy", metavar="NAME", autocompletion=lambda: STRATEGIES)
    ] = None
    judge_model: Annotated[str | None, option_of("judge", metavar="MODEL")] = None
    final_answer: Annotated[str | None, option_of("final_answer", metavar="RULE")] = None
    chosen_by: Annotated[str | None, option_of("chosen_by", metavar="WHO")] = None
    one_call: Annotated[bool | None, option_of("one_call")] = None
    stop_when_agreed: Annotated[float | None, option_of("stop_when_agreed", metavar="SHARE")] = None
    timeout: Annotated[float | None, option_of("timeout", metavar="SECONDS")] = None
    stall: Annotated[float | None, option_of("stall", metavar="SECONDS")] = None
    first_token: Annotated[float | None, option_of("first_token", metavar="SECONDS")] = None
    hedge_after: Annotated[float | None, option_of("hedge_after", metavar="SECONDS")] = None
    quorum: Annotated[int | None, option_of("quorum", metavar="N")] = None
    patience: Annotated[float | None, option_of("patience", metavar="SECONDS")] = None
    use_partial: Annotated[bool | None, option_of("use_partial")] = None
    overlap: Annotated[bool | None, option_of("overlap")] = None
    report: Annotated[bool | None, option_of("report")] = None
    concurrency: Concurrency = None
    # The reference implementation's own spellings, so that its documented commands run.
    reference_models: Annotated[
        list[str] | None, Option("--reference-models", "--reference_models", hidden=True)
    ] = None
    model: Annotated[str | None, Option(hidden=True)] = None
    max_tokens_: Annotated[int | None, Option("--max_tokens", hidden=True)] = None
    num_proc: Annotated[int | None, Option("--num_proc", "--num-proc", min=1, hidden=True)] = None
    multi_turn_: Annotated[bool | None, Option("--multi_turn/--no_multi_turn", hidden=True)] = None
    debug: Debug = False

    @cached_property
    def settings(self) -> Overrides:
        """The settings that change the profile. Raises UsageError if two spellings of an option
        have different values."""
        from moa_cli.profile import Overrides

        typed = vars(self)
        names = [*(self.reference_model or []), *(self.reference_models or [])]
        found = {field.name: typed.get(field.name) for field in fields(Overrides)} | {
            "aggregator": _first(self.aggregator, self.model),
            "reference_models": split_names(names or None, "--reference-model", "model"),
            "max_tokens": _first(self.max_tokens, self.max_tokens_),
            "multi_turn": _first(self.multi_turn, self.multi_turn_),
            "judge": self.judge_model,
        }
        return Overrides(**found)

    def resolved(self) -> Profile:
        """The typed profile, or the default one, changed by the typed settings."""
        return wiring.choose_profile(self.profile, self.settings)


def _first(ours: Any, theirs: Any) -> Any:
    if ours is not None and theirs is not None and ours != theirs:
        raise UsageError(f"one setting was given two values: {ours} and {theirs}")
    return theirs if ours is None else ours


def signature_of(command: Callable[..., Any]) -> inspect.Signature:
    """The signature of a command. `Any` stands for the type `Profile`, which is not loaded yet."""
    return inspect.signature(command, eval_str=True, locals={"Profile": Any})


def takes_profile(
    command: Callable[..., Any], *, checked: bool = True, settles: bool = True
) -> Callable[..., Any]:
    """Add the mixture's options to a command, and pass it the resolved `profile`.

    checked: whether a model name with an unknown provider ends the command before it begins.
    settles: whether to choose among the profile's candidates before the command begins.

    If the command has a parameter `concurrency`, it gets the typed value or None. If it has a
    parameter `typed`, it gets the TypedMixture. A command without a parameter `profile` resolves
    the profile itself, if it needs one. A command that takes the profile's name as an argument
    calls it `named`; this argument is not passed on. For bundles, see the module.
    """
    shared = inspect.signature(TypedMixture, eval_str=True).parameters
    own = signature_of(command).parameters
    handed = {"profile", "concurrency", "typed"} & own.keys()
    bundles = {
        name: (parameter.annotation, inspect.signature(parameter.annotation, eval_str=True))
        for name, parameter in own.items()
        if parameter.annotation in _BUNDLES
    }

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        typed = TypedMixture(**{key: given.pop(key) for key in shared})
        typed = replace(typed, profile=_first(given.pop("named", None), typed.profile))
        flags, concurrency = typed.settings, _first(typed.concurrency, typed.num_proc)
        extra: dict[str, Any] = {"concurrency": concurrency, "typed": typed}
        if "profile" in handed:
            extra["profile"] = wiring.choose_profile(
                typed.profile, flags, checked=checked, settles=settles
            )
        for key, (bundle, signature) in bundles.items():
            given[key] = bundle(**{field: given.pop(field) for field in signature.parameters})
        return command(**given, **{key: extra[key] for key in handed})

    options: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name in bundles:
            options += bundles[name][1].parameters.values()
        elif name not in handed:
            options.append(parameter)
    options += shared.values()
    # Typer reads the signature, and resolves its annotations, from these two. As keywords, options
    # with a default may come before arguments without one.
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    )
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
