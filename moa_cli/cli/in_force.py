"""The settings in force: each value, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from moa_cli.config import leaves
from moa_cli.config.names import KEYS_OF, NAMED
from moa_cli.config.schema import VARIABLES, Config
from moa_cli.models.defaults import default_profile
from moa_cli.models.providers import Provider, Providers

__all__ = ["Row", "masked", "settings_in_force"]

# The way to the setting, its value (None: not set), its origin.
Row = tuple[tuple[str, ...], object, str]
_FILE, _DEFAULT = "config.toml", "default"


def settings_in_force(
    config: Config, table: Mapping[str, Any], environment: Mapping[str, str]
) -> list[Row]:
    """All settings, in the order of the template. table: what the file itself says.

    A password in an address is masked.
    """
    found: list[Row] = []
    for path in leaves():
        if path[0] not in NAMED:
            found.append(_plain(path, config, table, environment))
    found += _prices(config)
    found += _providers(config, table, environment)
    return found


def _plain(
    path: tuple[str, ...],
    config: Config,
    table: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Row:
    value: Any = reduce(getattr, path, config)
    if path == ("profile",):
        value = default_profile(config, environment)
    variable = VARIABLES.get(path[0], "")
    if environment.get(variable):
        return path, value, variable
    return path, str(value) if isinstance(value, Path) else value, _origin(path, table)


def _origin(path: tuple[str, ...], table: Any) -> str:
    for part in path:
        if part not in table:
            return _DEFAULT
        table = table[part]
    return _FILE


def _prices(config: Config) -> Iterator[Row]:
    if not config.prices:
        yield ("prices",), None, _DEFAULT
    for model, price in config.prices.items():
        for key in KEYS_OF["prices"]:
            if getattr(price, key) is not None:
                yield ("prices", model, key), getattr(price, key), _FILE


def _providers(
    config: Config, table: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[Row]:
    without = Providers(config, {}).known
    for name, provider in Providers(config, environment).known.items():
        for key, value in _values(provider).items():
            path = ("providers", name, key)
            origin = _origin(path, table)
            if key == "base_url" and value != without[name].base_url:
                variable = f"{name.upper()}_BASE_URL"
                origin = variable if environment.get(variable, "").strip() else "OLLAMA_HOST"
            if value is not None:
                yield path, masked(value) if key == "base_url" else value, origin


def _values(provider: Provider) -> dict[str, str | None]:
    return {
        "base_url": provider.base_url,
        "api_key_env": provider.key_variable,
        "api_key_cmd": provider.key_command,
    }


def masked(url: str) -> str:
    """The address without the password in it, or the token that stands in a user's place."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)?([^:/@]*:)?.*@", r"\1\2***@", url, flags=re.I | re.S)
