"""The settings file, config.toml: what is not part of a mixture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moa_cli import paths
from moa_cli.errors import ProfileError
from moa_cli.tables import Key, check_table, read_toml

__all__ = ["CONFIG_KEYS", "PROVIDER_KEYS", "Config", "ProviderSettings", "load_config"]

CONFIG_KEYS: dict[str, Key] = {
    "profile": Key("text", "the profile used when none is named"),
    "concurrency": Key("whole", "calls in flight at once", 1, 1024),
    "retries": Key("whole", "times a failed call is made again", 0, 20),
    "save": Key("flag", "whether conversations are kept"),
    "providers": Key("table", "model endpoints of your own, or changes to the built-in ones"),
    "local": Key("table", "the embedded model"),
}
PROVIDER_KEYS: dict[str, Key] = {
    "base_url": Key("text", "where the OpenAI-compatible API is, ending in /v1 as a rule"),
    "api_key_env": Key("text", "the environment variable that holds the key"),
    "api_key_cmd": Key("text", "a command that prints the key"),
}
_NUMBERS = ("concurrency", "retries")
_LOCAL_KEYS: dict[str, Key] = {
    "model": Key("text", "path of the GGUF file to use as local:smollm2"),
    "context": Key("whole", "tokens of context for each call", 256, 1_000_000),
    "parallel": Key("whole", "calls answered at the same time", 1, 64),
}


@dataclass(frozen=True)
class ProviderSettings:
    """What the user says of one provider; None leaves the built-in value."""

    base_url: str | None = None
    api_key_env: str | None = None
    api_key_cmd: str | None = None


@dataclass(frozen=True)
class Config:
    """The settings. concurrency: calls in flight at once. retries: per call.

    local_context: tokens for each parallel call. local_model: a GGUF file, or None.
    place: the file that they come from, for messages.
    """

    profile: str | None = None
    concurrency: int = 32
    retries: int = 4
    save: bool = True
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    local_model: Path | None = None
    local_context: int = 4096
    local_parallel: int = 4
    place: str = "config"


def load_config(path: Path | None = None) -> Config:
    """The settings in `path` (default: config.toml in the config folder), or the defaults.

    MOA_CONCURRENCY and MOA_RETRIES in the environment come before the file.
    Raises ProfileError naming file (or variable) and key.
    """
    path = path or paths.config_file()
    table = read_toml(path, missing_ok=True)
    place = str(path)
    check_table(table, CONFIG_KEYS, place=place)
    local = table.get("local", {})
    check_table(local, _LOCAL_KEYS, prefix="local.", place=place)
    providers = {
        name: _provider(name, one, place) for name, one in table.get("providers", {}).items()
    }
    numbers: dict[str, int] = {key: table[key] for key in _NUMBERS if key in table}
    numbers |= _numbers_from_environment()
    return Config(
        profile=table.get("profile"),
        save=table.get("save", True),
        providers=providers,
        local_model=paths.expand(local["model"]) if "model" in local else None,
        local_context=local.get("context", Config.local_context),
        local_parallel=local.get("parallel", Config.local_parallel),
        place=place,
        **numbers,
    )


def _numbers_from_environment() -> dict[str, int]:
    found = {}
    for key in _NUMBERS:
        variable = f"MOA_{key.upper()}"
        text = os.environ.get(variable)
        if not text:
            continue
        try:
            found[key] = int(text)
        except ValueError:
            raise ProfileError(f"{variable}: must be a whole number, not {text!r}") from None
        check_table({key: found[key]}, CONFIG_KEYS, place=variable)
    return found


def _provider(name: str, table: Any, place: str) -> ProviderSettings:
    if not isinstance(table, dict):
        raise ProfileError(f"{place}: `providers.{name}` must be a table")
    check_table(table, PROVIDER_KEYS, prefix=f"providers.{name}.", place=place)
    return ProviderSettings(**table)
