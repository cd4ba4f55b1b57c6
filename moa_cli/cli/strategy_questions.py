"""The questions of `moa profile new --strategy`, for settings that the strategy needs and that were
not typed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import typer

from moa_cli.cli.output import say
from moa_cli.core.errors import ProfileError
from moa_cli.core.strategy import Strategy
from moa_cli.core.text import are, plural, with_hint
from moa_cli.profile import Profile, build, to_table
from moa_cli.profile.schema import PROFILE_KEYS

_KEYS: Final[Mapping[Strategy, tuple[str, ...]]] = {
    "synthesize": (),
    "fusion": ("one_call", "judge"),
    "vote": ("final_answer", "judge"),
    "select": ("chosen_by", "judge"),
    "council": (),
}
# The fewest proposals for which a strategy makes sense. With fewer, there is nothing to compare, to
# choose from, to count or to rank.
_FEWEST: Final[Mapping[Strategy, int]] = {"fusion": 2, "vote": 3, "select": 2, "council": 3}


def completed(profile: Profile, *, ask: bool) -> Profile:
    """The profile with everything that its strategy needs, if the strategy was typed.

    ask: whether to ask for it. Otherwise, and without a terminal, settings stay as they are, and
    the proposers get as few samples as the strategy needs.
    """
    if not _typed(profile, "strategy") or not profile.rounds:
        return profile
    ask = ask and sys.stdin.isatty() and sys.stderr.isatty()
    profile = _with_proposals(profile, ask=ask)
    if ask:
        for key in _KEYS[profile.strategy]:
            if not _typed(profile, key) and _matters(profile, key):
                profile = _asked(profile, key)
    return profile


def _typed(profile: Profile, key: str) -> bool:
    origin = profile.origins.get((key,))
    return origin is not None and origin.kind == "flag"


def _matters(profile: Profile, key: str) -> bool:
    """Whether a setting has an effect. `judge` has none if the strategy asks no judge."""
    if key != "judge":
        return True
    return profile.chosen_by == "judge" if profile.strategy == "select" else not profile.one_call


def _with_proposals(profile: Profile, *, ask: bool) -> Profile:
    """The profile with as many proposals in its last layer as the strategy needs."""
    count = len(profile.layer(profile.rounds))
    fewest = _FEWEST.get(profile.strategy, 1)
    if count >= fewest:
        return profile
    samples = -(-fewest // count)
    told = f"{profile.strategy} needs {fewest} proposals, and there {are(count)} {count}"
    if ask:
        question = f"{told}: samples of each proposer"
        samples = typer.prompt(question, default=samples, type=int, err=True)
        while not 1 <= samples <= 64:
            samples = typer.prompt("1 to 64", default=fewest, type=int, err=True)
    else:
        say(f"{told}: each proposer is sampled {plural(samples, 'time')}")
    return profile.with_proposers(
        lambda proposers: [
            replace(proposer, samples=proposer.samples * samples) for proposer in proposers
        ]
    )


def _asked(profile: Profile, key: str) -> Profile:
    """Ask the user for the value of that key. Returns the profile with it."""
    about = PROFILE_KEYS[key]
    value: Any = getattr(profile, key)
    if isinstance(value, bool):
        answer: Any = typer.confirm(f"{key}: {about.help}", default=value, err=True)
        return replace(profile, **{key: answer})
    default = value or profile.aggregator.model
    while True:
        answer = typer.prompt(f"{key}: {about.help}", default=default, err=True)
        if answer == default:
            return profile
        table = {**to_table(profile), key: answer}
        try:
            return build(profile.name, table, profile.origins)
        except ProfileError as error:
            say(with_hint(error.message, error.hint))
