"""`moa config`: list, get, set and unset settings, and edit their file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument

from moa_cli.cli import wiring
from moa_cli.cli.commands import Commands
from moa_cli.cli.options import JsonArray
from moa_cli.cli.output import print_json, print_lines, say
from moa_cli.core import paths
from moa_cli.core.sanitize import sanitize
from moa_cli.core.text import with_hint, without_password
from moa_cli.terminal.tty import columns_of

if TYPE_CHECKING:
    from moa_cli.config.schema import Config
    from moa_cli.models.table import Pairs, Provider

group = Commands(help="List, get, set and unset settings, and edit their file.")

# The path of keys to a setting, its value (None if it is not set) and its origin.
Row = tuple[tuple[str, ...], object, str]
_FILE, _DEFAULT = "config.toml", "default"


def _setting_names() -> list[str]:
    """The names of settings, for the shell's completion."""
    from moa_cli.config.names import NAMED, dotted, leaves

    return [dotted(path) for path in leaves() if path[0] not in NAMED]


KeyName = Annotated[
    str,
    Argument(
        metavar="KEY",
        help="As `moa config list` names it: save, budget.day, providers.lab.base_url.",
        autocompletion=_setting_names,
    ),
]


@group.command("list")
def list_(json: JsonArray = False) -> None:
    """List each setting, its value in effect and its origin."""
    from moa_cli.config.names import dotted

    found = [(dotted(path), value, origin) for path, value, origin in _rows()]
    if json:
        print_json([dict(zip(("key", "value", "origin"), row, strict=True)) for row in found])
        return
    from moa_cli.terminal.plain import setting_lines

    print_lines(setting_lines(found, widest=30, columns=columns_of(sys.stdout)))


@group.command("get")
def get(key: KeyName) -> None:
    """Print the value in effect; exit code 1 if there is none."""
    from moa_cli.config.names import dotted, find_name

    name = find_name(key)
    depth = len(name.path)
    found = [row for row in _rows() if row[0][:depth] == name.path and row[1] is not None]
    if not found:
        say(f"`{name}` is not set")
        raise typer.Exit(1)
    for path, value, _ in found:
        text = sanitize(str(value).lower() if isinstance(value, bool) else str(value))
        # For a table, each of its values is printed with its key.
        typer.echo(text if path == name.path else f"{dotted(path)} = {text}")


@group.command("set", context_settings={"ignore_unknown_options": True})
def set_(
    key: KeyName,
    value: Annotated[
        str,
        Argument(
            metavar="VALUE", help="A number, true or false, text without quotes, or a TOML table."
        ),
    ],
) -> None:
    """Set a setting in the file, and keep its comments and order."""
    from moa_cli.config.edit import set_setting
    from moa_cli.config.names import find_name
    from moa_cli.config.toml import value_of
    from moa_cli.profile import find

    name = find_name(key)
    meant = value_of(value, name.key)
    if name.path == ("profile",):
        found = find(value)
        # Stored as an absolute path, because `moa` may run in another folder next time.
        meant = str(found.path.absolute()) if found.source == "path" else value
    set_setting(paths.config_file(), name, meant, _check)
    say(f"set {name} in {paths.config_file()}")
    _tell_of_variable(name.path)
    _tell_of_prices()


@group.command("unset")
def unset(key: KeyName) -> None:
    """Remove a setting from the file, so that its default applies."""
    from moa_cli.config.edit import unset_setting
    from moa_cli.config.names import find_name

    name = find_name(key)
    done = unset_setting(paths.config_file(), name, _check)
    say(f"{name} {'is unset' if done else 'was not set'} in {paths.config_file()}")
    _tell_of_variable(name.path)


@group.command("path")
def path_() -> None:
    """Print the path of the settings file, whether or not it exists."""
    typer.echo(paths.config_file())


@group.command("template")
def template_() -> None:
    """Print a settings file that sets nothing and explains every key."""
    from moa_cli.config.template import template

    typer.echo(template(), nl=False)


@group.command("edit")
def edit() -> None:
    """Open the settings file in $VISUAL or $EDITOR, then check it."""
    from moa_cli.config.edit import create_file
    from moa_cli.config.toml import read_toml
    from moa_cli.terminal.programs import open_editor

    file = paths.config_file()
    create_file(file)
    open_editor(file)
    _check(read_toml(file), str(file))
    say(f"{file} is valid")
    _tell_of_prices()


def _check(table: Mapping[str, Any], place: str | None = None) -> None:
    """Raise ProfileError if a settings file would stop the next command. place: how messages name
    it; None is the file with the change."""
    from moa_cli.config.schema import to_config
    from moa_cli.models.providers import Providers

    Providers(to_config(table, place or f"{paths.config_file()} would be invalid"), {})


def _tell_of_prices() -> None:
    """Print a notice on each price for an unknown model name. Such a price stops no command, but
    has no effect."""
    from moa_cli.config.schema import load_config
    from moa_cli.models.providers import Providers

    for fault in Providers(load_config(), {}).price_faults():
        say(with_hint(fault.message, fault.hint))


def _tell_of_variable(path: tuple[str, ...]) -> None:
    from moa_cli.config.schema import VARIABLES

    variable = VARIABLES.get(path[0], "")
    if os.environ.get(variable):
        say(f"{variable} is set too, and overrides it")


def _rows() -> Iterator[Row]:
    """All settings in effect, in the order of the template. Passwords in addresses are masked."""
    from moa_cli.config.names import NAMED, SERVER_KEYS, leaves
    from moa_cli.config.schema import VARIABLES
    from moa_cli.config.toml import read_toml

    config = wiring.config()
    table = read_toml(paths.config_file(), missing_ok=True)
    for path in leaves():
        if path[0] in NAMED:
            continue
        value: Any = reduce(getattr, path, config)
        if path == ("profile",):
            value = wiring.default_profile()
        variable = VARIABLES.get(path[0], "")
        if not os.environ.get(variable):
            value = str(value) if isinstance(value, Path) else value
            variable = _origin(path, table)
        yield path, value, variable
    if not config.prices:
        yield ("prices",), None, _DEFAULT
    for model, price in config.prices.items():
        yield from _given(("prices", model), price)
    yield from _providers(config, table)
    for name, settings in config.server.keys.items():
        yield from _given((*SERVER_KEYS, name), settings)


def _given(path: tuple[str, ...], settings: object) -> Iterator[Row]:
    """The settings in a table of the file whose name the user has chosen, such as a model's."""
    from moa_cli.config.names import KEYS_OF

    for key in KEYS_OF[path[0]]:
        if (value := getattr(settings, key)) is not None:
            yield (*path, key), str(value) if isinstance(value, Path) else value, _FILE


def _origin(path: tuple[str, ...], table: Any) -> str:
    for part in path:
        if part not in table:
            return _DEFAULT
        table = table[part]
    return _FILE


def _providers(config: Config, table: Mapping[str, Any]) -> Iterator[Row]:
    from moa_cli.models.providers import Providers

    without = Providers(config, {}).known
    for name, provider in Providers(config, os.environ).known.items():
        url = provider.base_url
        if url is not None:
            path = ("providers", name, "base_url")
            origin = _origin(path, table)
            if url != without[name].base_url:
                variables = (f"{name.upper()}_BASE_URL", provider.address_variable, "OLLAMA_HOST")
                told = (name for name in variables if name and os.environ.get(name, "").strip())
                origin = next(told, origin)
            if url:
                yield path, without_password(url), origin
        for key, value in _values(provider).items():
            if value is not None:
                path = ("providers", name, key)
                yield path, value, _origin(path, table)


def _values(provider: Provider) -> dict[str, str | float | None]:
    from moa_cli.config.template import toml_text
    from moa_cli.core.debug_log import names_secret

    return {
        "api_key_env": provider.key_variable,
        "api_key_cmd": provider.key_command,
        "headers": _pairs(provider.headers, lambda _: True),
        "query": _pairs(provider.query, names_secret),
        "quirks": toml_text(sorted(provider.quirks)) if provider.quirks else None,
        "concurrency": provider.concurrency,
        "rpm": provider.rpm,
        "batch_price": provider.batch_price,
    }


def _pairs(pairs: Pairs, is_secret: Callable[[str], bool]) -> str | None:
    """Headers or parameters as TOML, without values that may be secrets."""
    from moa_cli.config.template import toml_text

    told = {
        name: "***" if is_secret(name) and not re.fullmatch(r"\$\{\w+\}", value) else value
        for name, value in pairs
    }
    return toml_text(told) if told else None
