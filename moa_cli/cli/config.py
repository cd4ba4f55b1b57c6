"""`moa config`: list, get, set and unset settings, and edit their file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli.commands import Commands

if TYPE_CHECKING:
    from moa_cli.cli.in_force import Row

__all__ = ["group"]

group = Commands(
    help="List, get, set and unset settings, and edit their file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _setting_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from moa_cli.config import dotted, leaves
    from moa_cli.config.names import NAMED

    names = [dotted(path) for path in leaves() if path[0] not in NAMED]
    return [name for name in names if name.startswith(incomplete)]


KeyName = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="As `moa config list` names it: save, budget.day, providers.lab.base_url.",
        autocompletion=_setting_names,
    ),
]

Value = Annotated[
    str,
    typer.Argument(
        metavar="VALUE", help="A number, true or false, a text without quotes, or a TOML table."
    ),
]


@group.command("list")
def list_(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List each setting, its value in force and its origin."""
    from moa_cli.config import dotted

    found = [(dotted(path), value, origin) for path, value, origin in _rows()]
    if json:
        from moa_cli.core.text import dumps

        heads = ("key", "value", "origin")
        typer.echo(dumps([dict(zip(heads, row, strict=True)) for row in found], indent=2))
        return
    from moa_cli.terminal.plain import setting_lines
    from moa_cli.terminal.tty import columns_of

    columns = columns_of(sys.stdout)
    typer.echo("\n".join(setting_lines(found, widest=30, columns=columns)))


def _rows() -> list[Row]:
    from moa_cli.cli import wiring
    from moa_cli.cli.in_force import settings_in_force
    from moa_cli.config.toml import read_toml
    from moa_cli.core import paths

    table = read_toml(paths.config_file(), missing_ok=True)
    return settings_in_force(wiring.config(), table, os.environ)


@group.command("get")
def get(key: KeyName) -> None:
    """Print the value in force; exit code 1 if there is none."""
    from moa_cli.config import dotted, find_name
    from moa_cli.core.sanitize import sanitize

    name = find_name(key)
    depth = len(name.path)
    found = [row for row in _rows() if row[0][:depth] == name.path and row[1] is not None]
    if not found:
        _tell(f"`{name}` is not set")
        raise typer.Exit(1)
    for path, value, _ in found:
        text = sanitize(str(value).lower() if isinstance(value, bool) else str(value))
        # Of a table, all that it holds.
        typer.echo(text if path == name.path else f"{dotted(path)} = {text}")


@group.command("set", context_settings={"ignore_unknown_options": True})
def set_(key: KeyName, value: Value) -> None:
    """Set a setting in the file; its comments and order stay."""
    from moa_cli.config import find_name, set_setting
    from moa_cli.config.toml import value_of
    from moa_cli.core import paths
    from moa_cli.profile import find

    name = find_name(key)
    meant = value_of(value, name.key)
    if name.path == ("profile",):
        found = find(value)
        # A path has to hold wherever the next command is given.
        meant = str(found.path.absolute()) if found.source == "path" else value
    set_setting(paths.config_file(), name, meant, _check_change)
    _tell(f"{name} is set in {paths.config_file()}")
    _tell_of_variable(name.path)
    _tell_of_prices()


def _check(table: Mapping[str, Any], place: str) -> None:
    """Refuse what would stop the next command. place: the file, for messages."""
    from moa_cli.config.schema import to_config
    from moa_cli.models.providers import Providers

    Providers(to_config(table, place), {})


def _tell_of_prices() -> None:
    """Tell of prices whose model names lead nowhere: they stop no command, but hold for nobody."""
    from moa_cli.config.schema import load_config
    from moa_cli.models.providers import Providers

    for fault in Providers(load_config(), {}).price_faults():
        _tell(f"{fault.message} ({fault.hint})")


def _check_change(table: Mapping[str, Any]) -> None:
    from moa_cli.core import paths

    _check(table, f"{paths.config_file()} would be wrong")


def _tell_of_variable(path: tuple[str, ...]) -> None:
    from moa_cli.config.schema import VARIABLES

    variable = VARIABLES.get(path[0], "")
    if os.environ.get(variable):
        _tell(f"{variable} is set too, and comes before it")


@group.command("unset")
def unset(key: KeyName) -> None:
    """Take a setting out of the file, so that its default holds."""
    from moa_cli.config import find_name, unset_setting
    from moa_cli.core import paths

    name = find_name(key)
    done = unset_setting(paths.config_file(), name, _check_change)
    _tell(f"{name} {'is unset' if done else 'was not set'} in {paths.config_file()}")
    _tell_of_variable(name.path)


@group.command("path")
def path_() -> None:
    """Print the path of the settings file, be there one or not."""
    from moa_cli.core import paths

    typer.echo(str(paths.config_file()))


@group.command("template")
def template_() -> None:
    """Print a settings file that sets nothing and explains every key."""
    from moa_cli.config import template

    typer.echo(template(), nl=False)


@group.command("edit")
def edit() -> None:
    """Open the settings file in $VISUAL or $EDITOR, then check it."""
    from moa_cli.config import create_file
    from moa_cli.config.toml import read_toml
    from moa_cli.core import paths
    from moa_cli.terminal.editor import open_editor

    file = paths.config_file()
    create_file(file)
    open_editor(file)
    _check(read_toml(file), str(file))
    _tell(f"{file} is right")
    _tell_of_prices()


def _tell(text: str) -> None:
    from moa_cli.core.sanitize import one_line

    typer.echo(f"moa: {one_line(text)}", err=True)
