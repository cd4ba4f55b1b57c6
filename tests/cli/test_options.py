"""Every option explains itself, and the reference's own spellings are accepted in silence."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
import typer.core

from moa_cli.cli.table import app
from moa_cli.config.schema import CONFIG_KEYS
from moa_cli.core.strategy import STRATEGIES
from moa_cli.profile.schema import PROFILE_KEYS, PROPOSER_KEYS
from tests.support.command import Moa
from tests.support.upstream import Upstream

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
    for name, command in group.commands.items():
        inner = (*path, name)
        found += (
            commands(command, inner)
            if hasattr(command, "commands")
            else [(" ".join(inner), command)]
        )
    return found


COMMANDS = dict(commands())


def options(name: str) -> list[Any]:
    """The options of a command, as Typer holds them."""
    return [command for command in COMMANDS[name].params if command.param_type_name == "option"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained_in_one_sentence(name: str) -> None:
    assert re.fullmatch(r"[A-Z][^\n]+[.?]", COMMANDS[name].help.splitlines()[0])
    for option in options(name):
        if not option.hidden and option.name != "help":
            assert re.fullmatch(r"[A-Z`][^\n]+\.", option.help or ""), option.opts


def groups(group: Any = GROUP) -> list[Any]:
    """All groups of commands."""
    inner = [found for found in group.commands.values() if hasattr(found, "commands")]
    return [group, *(found for item in inner for found in groups(item))]


def test_a_group_s_table_agrees_with_its_commands() -> None:
    # What a group says of its commands comes from a table, so that none is loaded for it.
    for group in groups():
        ctx = typer.Context(group, info_name="moa")
        assert group.list_commands(ctx) == list(group.commands)
        for name, command in group.commands.items():
            for width in (30, 62, 10_000):
                told = group.get_command(ctx, name).get_short_help_str(width)
                assert told == command.get_short_help_str(width), name


@pytest.mark.parametrize("name", ["ask", "chat", "doctor", "profile show", "profile new"])
def test_the_reference_s_spellings_are_accepted_and_not_shown(moa: Moa, name: str) -> None:
    taken = {
        spelling for option in options(name) for spelling in (*option.opts, *option.secondary_opts)
    }
    assert taken >= set(HIDDEN)
    shown = set(re.findall(r"--[\w-]+", moa.run(*name.split(), "--help").text))
    assert shown.isdisjoint(HIDDEN)
    assert {"--reference-model", "--aggregator", "--max-tokens", "--concurrency"} <= shown


def test_commands_that_take_a_mixture_share_its_options() -> None:
    shared = {
        tuple(option.opts): option.help
        for option in options("doctor")
        if option.name not in ("offline", "call")
    }
    for name in ("ask", "chat", "profile show", "profile new"):
        own = {tuple(option.opts): option.help for option in options(name)}
        assert shared.items() <= own.items()


EXPLAINED = {
    "--profile": CONFIG_KEYS["profile"],
    "--concurrency": CONFIG_KEYS["concurrency"],
    "--save": CONFIG_KEYS["save"],
    "--keep-texts": CONFIG_KEYS["keep_texts"],
    "--plain": CONFIG_KEYS["plain"],
    "--live": CONFIG_KEYS["live"],
    "--compact": CONFIG_KEYS["compact"],
    "--show-reasoning": CONFIG_KEYS["show_reasoning"],
    "--theme": CONFIG_KEYS["theme"],
    "--bell": CONFIG_KEYS["bell"],
    "--title": CONFIG_KEYS["title"],
    "--accessible": CONFIG_KEYS["accessible"],
    "--progress-interval": CONFIG_KEYS["progress_interval"],
    "--vi": CONFIG_KEYS["vi"],
    "--usage": CONFIG_KEYS["usage"],
    "--aggregator": PROFILE_KEYS["aggregator"],
    "--reference-model": PROFILE_KEYS["proposers"],
    "--samples": PROPOSER_KEYS["samples"],
    "--judge-model": PROFILE_KEYS["judge"],
    **{
        f"--{key.replace('_', '-')}": PROFILE_KEYS[key]
        for key in (
            *("rounds", "temperature", "max_tokens", "multi_turn", "system"),
            "max_history",
            *("reference_placement", "reference_format", "reference_names", "merge_prompt"),
            *("strategy", "final_answer", "chosen_by", "one_call", "stop_when_agreed"),
            *("timeout", "stall", "first_token", "hedge_after"),
            *("quorum", "patience", "use_partial", "overlap", "report"),
        )
    },
}


def test_an_option_and_the_key_of_its_setting_are_explained_alike() -> None:
    told = {
        s: option.help
        for name in ("compare", "ask", "chat")
        for option in options(name)
        for s in option.opts
    }
    for spelling, key in EXPLAINED.items():
        assert (told[spelling] or "").casefold().startswith(key.help.casefold()), spelling


def test_every_option_of_a_setting_s_name_is_among_them() -> None:
    keys = {f"--{key.replace('_', '-')}" for key in (*CONFIG_KEYS, *PROFILE_KEYS)}
    shown = {
        s for name in COMMANDS for option in options(name) if not option.hidden for s in option.opts
    }
    # The judge of an evaluation is another one than that of a mixture (`--judge-model`); items are
    # shuffled there, too, and a sweep has numbers of proposers.
    assert shown & keys - {"--judge", "--shuffle", "--proposers"} <= EXPLAINED.keys()


def test_no_two_options_of_a_command_share_a_letter() -> None:
    for name in COMMANDS:
        spellings = [s for option in options(name) for s in (*option.opts, *option.secondary_opts)]
        assert len(spellings) == len(set(spellings)), name


def test_help_has_no_markup_and_fits_eighty_columns(moa: Moa) -> None:
    for name in COMMANDS:
        text = moa.run(*name.split(), "--help", env={"COLUMNS": "80"}).text
        assert text.startswith(f"Usage: moa {name}")
        assert max(map(len, text.splitlines())) <= 80


# Older releases of Typer convert values by Click, which has its own words.
_HAS_CLICKS_WORDS = not hasattr(typer.core.TyperOption, "get_runtime_param")


@pytest.mark.parametrize(
    ("typed", "wrong", "said"),
    [
        (["ask", "-t", "0,7", "hi"], "0,7", "'-t' / '--temperature': must be a number, not '0,7'"),
        (["ask", "-r", "two", "hi"], "two", "'-r' / '--rounds': must be a whole number, not 'two'"),
        (["ask", "--max-cost", "-1", "hi"], "-1", "'--max-cost': must be 0 or more, not '-1'"),
        (["ask", "--bell", "99999", "hi"], "99999", "'--bell': must be 86400 or less, not '99999'"),
        (["compare", "delete", "2", "x"], "x", "'ID': must be a whole number, not 'x'"),
        (
            ["ask", "--output", "xml", "hi"],
            "xml",
            "'--output': must be one of 'text', 'json', 'jsonl', not 'xml'",
        ),
    ],
)
def test_a_wrong_value_of_an_option_is_named_in_plain_words(
    moa: Moa, typed: list[str], wrong: str, said: str
) -> None:
    ran = moa.run(*typed)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    if _HAS_CLICKS_WORDS:
        option, _, _ = said.partition(": ")
        assert ran.err.startswith(f"moa: Invalid value for {option}: ")
        assert wrong in ran.err.partition(": ")[2]
    else:
        assert ran.err.startswith(f"moa: Invalid value for {said} (see `moa ")


@pytest.mark.parametrize(
    ("typed", "command"),
    [("ask -m", "ask"), ("serve --port", "serve"), ("history export --format", "history export")],
)
def test_an_option_without_its_value_leads_to_the_help_of_its_command(
    moa: Moa, typed: str, command: str
) -> None:
    ran = moa.run(*typed.split())
    assert ran.code == 2
    assert ran.err.endswith(f"requires an argument (see `moa {command} --help`)\n")


def test_help_names_no_types_of_python(moa: Moa) -> None:
    for name in COMMANDS:
        text = moa.run(*name.split(), "--help").text
        # The choices of an option may stand in such brackets.
        assert not re.findall(r"<(?:list|str|int|float|bool|path)\b[^>]*>", text), name


@pytest.mark.parametrize(
    ("typed", "place", "key", "known"),
    [
        (["--strategy", "chorus"], "--strategy", "strategy", STRATEGIES),
        (["--chosen-by", "chorus"], "--chosen-by", "chosen_by", ("judge", "proposers")),
    ],
)
def test_a_wrong_name_ends_in_a_line_that_lists_the_known_ones(
    moa: Moa, upstream: Upstream, typed: list[str], place: str, key: str, known: tuple[str, ...]
) -> None:
    by_variable = moa.run("ask", "hello", env={f"MOA_{key.upper()}": "chorus"})
    for ran, where in (
        (moa.run("ask", *typed, "hello"), place),
        (by_variable, f"MOA_{key.upper()}"),
    ):
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
        assert ran.err.startswith(f"moa: {where}: must be ")
        assert all(name in ran.err for name in (*known, "'chorus'"))
    assert upstream.requests == []
