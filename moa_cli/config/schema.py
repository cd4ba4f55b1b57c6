"""The settings file, config.toml: what is not part of a mixture."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from moa_cli.config.tables import Key, check_table, nearest, read_toml, value_of
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.money import MOST_PRICE, MOST_USD, Price

__all__ = [
    "BUDGET_KEYS",
    "CONFIG_KEYS",
    "LOCAL_KEYS",
    "PRICE_KEYS",
    "PROVIDER_KEYS",
    "VARIABLES",
    "Config",
    "ProviderSettings",
    "load_config",
    "to_config",
]

CONFIG_KEYS: dict[str, Key] = {
    "profile": Key("text", "the profile to use (see `moa profile list`)", example="together"),
    "concurrency": Key("whole", "calls in flight at once", 1, 1024),
    "retries": Key("whole", "times a failed call is made again", 0, 20),
    "save": Key("flag", "keep conversations (see `moa history`)"),
    "plain": Key("flag", "show the reply as raw text, not as drawn Markdown"),
    "compact": Key("flag", "fold each layer into one line"),
    "live": Key("flag", "draw moving parts; without them, plain lines tell the progress"),
    "show_reasoning": Key("flag", "show what models think, while they think"),
    "usage": Key("flag", "tell calls, tokens, cost and seconds after each `moa ask`"),
    "vi": Key("flag", "edit with vi's keys"),
    "prompt_history": Key(
        "whole",
        "most prompts that `moa chat` keeps for Up and Ctrl-R in later chats; 0 or false: none",
        0,
        100_000,
        off=True,
    ),
    "budget": Key("table", "most that may be spent; a layer that would go beyond it is not begun"),
    "local": Key("table", "the embedded model"),
    "prices": Key("table", "prices of models that tell none, by model name"),
    "providers": Key("table", "model endpoints of your own, or changes to the built-in ones"),
}
PROVIDER_KEYS: dict[str, Key] = {
    "base_url": Key(
        "text",
        "where the OpenAI-compatible API is, ending in /v1 as a rule",
        example="http://127.0.0.1:8000/v1",
    ),
    "api_key_env": Key(
        "text", "the environment variable that holds the key", example="LAB_API_KEY"
    ),
    "api_key_cmd": Key("text", "a command that prints the key", example="pass show lab"),
}
BUDGET_KEYS: dict[str, Key] = {
    "session": Key(
        "number",
        "USD that one run of `moa ask`, `chat`, `serve` or `bench` may cost",
        0,
        example=1.0,
    ),
    "day": Key("number", "USD that all turns of a day may cost together", 0, example=5.0),
    "zone": Key("text", "the time zone whose days those are", example="Europe/Berlin"),
}
PRICE_KEYS: dict[str, Key] = {
    "prompt": Key("number", "USD per million prompt tokens", 0, MOST_PRICE, example=0.1),
    "completion": Key("number", "USD per million completion tokens", 0, MOST_PRICE, example=0.3),
    "cached": Key(
        "number",
        "USD per million prompt tokens from the provider's cache",
        0,
        MOST_PRICE,
        example=0.05,
    ),
}
LOCAL_KEYS: dict[str, Key] = {
    "model": Key(
        "text", "path of the GGUF file to use as local:smollm2", example="~/models/mine.gguf"
    ),
    "context": Key("whole", "tokens of context for each call", 256, 1_000_000),
    "parallel": Key("whole", "calls answered at the same time", 1, 64),
}
# The variables that come before the file.
VARIABLES = {
    "profile": "MOA_PROFILE",
    "concurrency": "MOA_CONCURRENCY",
    "retries": "MOA_RETRIES",
    "save": "MOA_SAVE",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIMPLE = tuple(key for key, one in CONFIG_KEYS.items() if one.kind != "table")


@dataclass(frozen=True)
class ProviderSettings:
    """What the user says of one provider; None leaves the built-in value."""

    base_url: str | None = None
    api_key_env: str | None = None
    api_key_cmd: str | None = None


@dataclass(frozen=True)
class Config:
    """The settings. concurrency: calls in flight at once. retries: per call.

    plain, compact, live, show_reasoning, usage, vi: how `moa ask` and `moa chat` show and edit.
    prompt_history: most prompts in the file of those typed; 0 is no file.
    budget_session, budget_day: USD, None is no limit. budget_zone: whose days they are.
    prices: by model name.
    local_context: tokens for each parallel call. local_model: a GGUF file, or None.
    place: the file that they come from, for messages.
    """

    profile: str | None = None
    concurrency: int = 32
    retries: int = 4
    save: bool = True
    plain: bool = False
    compact: bool = False
    live: bool = True
    show_reasoning: bool = False
    usage: bool = False
    vi: bool = False
    prompt_history: int = 1000
    budget_session: float | None = None
    budget_day: float | None = None
    budget_zone: str = "UTC"
    prices: Mapping[str, Price] = field(default_factory=dict)
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    local_model: Path | None = None
    local_context: int = 4096
    local_parallel: int = 4
    place: str = "config"

    def zone(self) -> tzinfo:
        """The time zone of the budget's days. Raises ProfileError if this machine has none of
        that name."""
        return _zone(self.budget_zone, self.place)


def load_config(path: Path | None = None) -> Config:
    """The settings in `path` (default: config.toml in the config folder), or the defaults.

    MOA_CONCURRENCY, MOA_RETRIES and MOA_SAVE in the environment come before the file.
    Raises ProfileError naming file (or variable) and key.
    """
    path = path or paths.config_file()
    found = to_config(read_toml(path, missing_ok=True), str(path))
    return replace(found, **_from_environment())


def to_config(table: Mapping[str, Any], place: str) -> Config:
    """The settings in the tables of a settings file, without regard to the environment.

    place: the file's name. Raises ProfileError naming it and the key.
    """
    check_table(table, CONFIG_KEYS, place=place)
    local = table.get("local", {})
    check_table(local, LOCAL_KEYS, prefix="local.", place=place)
    budget = table.get("budget", {})
    check_table(budget, BUDGET_KEYS, prefix="budget.", place=place)
    for key in ("session", "day"):
        if budget.get(key, 0) > MOST_USD:
            raise ProfileError(
                f"{place}: `budget.{key}` must be {MOST_USD:,.0f} or less",
                hint="without it, there is no limit",
            )
    if "zone" in budget:
        _zone(budget["zone"], place)
    return Config(
        budget_session=budget.get("session"),
        budget_day=budget.get("day"),
        budget_zone=budget.get("zone", Config.budget_zone),
        prices={name: _price(name, one, place) for name, one in table.get("prices", {}).items()},
        providers={
            name: _provider(name, one, place) for name, one in table.get("providers", {}).items()
        },
        local_model=paths.expand(local["model"]) if "model" in local else None,
        local_context=local.get("context", Config.local_context),
        local_parallel=local.get("parallel", Config.local_parallel),
        place=place,
        **{key: _simple(key, table[key]) for key in _SIMPLE if key in table},
    )


def _simple(key: str, value: Any) -> Any:
    return 0 if CONFIG_KEYS[key].off and value is False else value


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    # MOA_PROFILE is read where a profile is chosen, which may need none of this.
    for key in ("concurrency", "retries", "save"):
        variable = VARIABLES[key]
        text = os.environ.get(variable)
        if not text:
            continue
        found[key] = value_of(text, CONFIG_KEYS[key])
        check_table({key: found[key]}, CONFIG_KEYS, place=variable)
    return found


def _zone(name: str, place: str) -> tzinfo:
    if name == "UTC":
        # Also where the system knows no zones.
        return UTC
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        # Besides an unknown one: no name, a folder's name, a path.
        known = available_timezones()
    near = nearest(name, known)
    hint = f"did you mean `{near}`?" if near else "a name such as Europe/Berlin, or UTC"
    if not known:
        hint = "this system knows no time zones but UTC; the Python package tzdata adds them"
    raise ProfileError(f"{place}: `budget.zone` is not a time zone: {name!r}", hint=hint)


def _price(model: str, table: Any, place: str) -> Price:
    path = f"prices.{model}"
    if not model.strip():
        raise ProfileError(f"{place}: a table under `prices` has an empty name")
    if not isinstance(table, dict):
        raise ProfileError(
            f"{place}: `{path}` must be a table",
            hint=f'for example "{model}" = {{ prompt = 0.2, completion = 0.6 }}',
        )
    check_table(table, PRICE_KEYS, prefix=f"{path}.", place=place)
    for key in ("prompt", "completion"):
        if key not in table:
            raise ProfileError(f"{place}: `{path}.{key}` is missing")
    return Price(**{key: float(value) for key, value in table.items()})


def _provider(name: str, table: Any, place: str) -> ProviderSettings:
    if not isinstance(table, dict):
        raise ProfileError(f"{place}: `providers.{name}` must be a table")
    check_table(table, PROVIDER_KEYS, prefix=f"providers.{name}.", place=place)
    if not _VARIABLE.fullmatch(table.get("api_key_env") or "_"):
        # What stands there instead may be the key itself, so it is not repeated.
        raise ProfileError(
            f"{place}: `providers.{name}.api_key_env` is not the name of a variable",
            hint="the key itself belongs into that variable, or into a .env file",
        )
    return ProviderSettings(**table)
