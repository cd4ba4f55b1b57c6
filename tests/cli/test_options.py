"""Every option explains itself, and the reference's own spellings are accepted in silence."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from moa_cli.cli.app import app
from tests.support.command import Moa

GROUP: Any = typer.main.get_command(app)
HIDDEN = (
    "--reference-models",
    "--reference_models",
    "--model",
    "--max_tokens",
    "--num_proc",
    "--num-proc",
    "--multi_turn",
    "--no_multi_turn",
)


def commands(group: Any = GROUP, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """Each command with its path, those of subgroups included."""
    found: list[tuple[str, Any]] = []
    for name, one in group.commands.items():
        inner = (*path, name)
        found += commands(one, inner) if hasattr(one, "commands") else [(" ".join(inner), one)]
    return found


COMMANDS = dict(commands())


def options(name: str) -> list[Any]:
    """The options of a command, as Typer holds them."""
    return [one for one in COMMANDS[name].params if one.param_type_name == "option"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained_in_one_sentence(name: str) -> None:
    assert re.fullmatch(r"[A-Z][^\n]+[.?]", COMMANDS[name].help.splitlines()[0])
    for option in options(name):
        if not option.hidden and option.name != "help":
            assert re.fullmatch(r"[A-Z`][^\n]+\.", option.help or ""), option.opts


@pytest.mark.parametrize("name", ["ask", "chat", "doctor", "profile show", "profile new"])
def test_the_reference_s_spellings_are_accepted_and_not_shown(moa: Moa, name: str) -> None:
    taken = {spelling for one in options(name) for spelling in (*one.opts, *one.secondary_opts)}
    assert taken >= set(HIDDEN)
    shown = set(re.findall(r"--[\w-]+", moa.run(*name.split(), "--help").text))
    assert shown.isdisjoint(HIDDEN)
    assert {"--reference-model", "--aggregator", "--max-tokens", "--concurrency"} <= shown


def test_commands_that_take_a_mixture_share_its_options() -> None:
    shared = {tuple(one.opts): one.help for one in options("doctor") if one.name != "offline"}
    for name in ("ask", "chat", "profile show", "profile new"):
        own = {tuple(one.opts): one.help for one in options(name)}
        assert shared.items() <= own.items()


def test_no_two_options_of_a_command_share_a_letter() -> None:
    for name in COMMANDS:
        spellings = [s for one in options(name) for s in (*one.opts, *one.secondary_opts)]
        assert len(spellings) == len(set(spellings)), name


def test_help_has_no_markup_and_fits_eighty_columns(moa: Moa) -> None:
    for name in COMMANDS:
        text = moa.run(*name.split(), "--help", env={"COLUMNS": "80"}).text
        assert text.startswith(f"Usage: moa {name}")
        assert max(map(len, text.splitlines())) <= 80
