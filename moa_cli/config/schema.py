"""The settings file, config.toml: all settings that are not part of a mixture."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any

from moa_cli.config.meanings import MEANINGS
from moa_cli.config.palette import UNCHANGED, Palette, Theme
from moa_cli.config.toml import read_toml, refused, value_of
from moa_cli.core import paths
from moa_cli.core.money import MOST_USD, Price
from moa_cli.core.quirks import Quirk
from moa_cli.core.text import meant
from moa_cli.core.values import TOML, Key, ValueFault, keys_of, read_fields, read_value

# Environment variables that override the file.
VARIABLES = {
    "profile": "MOA_PROFILE",
    "concurrency": "MOA_CONCURRENCY",
    "retries": "MOA_RETRIES",
    "save": "MOA_SAVE",
    "bell": "MOA_BELL",
    "title": "MOA_TITLE",
    "default_context": "MOA_DEFAULT_CONTEXT",
    "theme": "MOA_THEME",
    "accessible": "MOA_ACCESSIBLE",
    "progress_interval": "MOA_PROGRESS_INTERVAL",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check_variable(name: str) -> None:
    if not _VARIABLE.fullmatch(name):
        # The message does not repeat the value, because it may be the key itself.
        raise ValueFault(
            "is not the name of a variable",
            hint="put the key itself into that variable, or into a .env file",
        )


# The characters that HTTP allows in the name of a header. A value may be any visible ASCII and
# spaces.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers that a user cannot set, because they describe the connection or the body.
_HEADERS_OF_OURS = (
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueFault("is not the name of a header", path=(name,))
        if name.lower() in _HEADERS_OF_OURS:
            raise ValueFault("cannot be set: moa sets this header itself", path=(name,))
        # The message does not repeat the value, because it may be a secret.
        if not value.strip() or not value.isascii() or not value.isprintable():
            raise ValueFault(
                "must be visible ASCII characters on one line",
                path=(name,),
                hint="a secret is better kept in a variable: `${NAME}` stands for its value",
            )
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueFault("names a header twice: upper and lower case are the same")


def _check_query(query: Mapping[str, str]) -> None:
    for name, value in query.items():
        if not name or not name.isprintable() or not value.isprintable():
            raise ValueFault("must be visible characters on one line", path=(name,))


def _check_amount(amount: float) -> None:
    if amount > MOST_USD:
        raise ValueFault(f"must be {MOST_USD:,.0f} or less", hint="without it, there is no limit")


def _usd(help: str, example: float) -> Key:
    return Key(help, 0, example=example, check=_check_amount)


def _zone(name: str) -> tzinfo:
    """The time zone of that name. Raises ValueFault if this machine has none."""
    if name == "UTC":
        # UTC works even if the system has no database of time zones.
        return UTC
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        # The name is unknown, empty, the name of a folder of the database, or a path.
        known = available_timezones()
    hint = meant(name, known, "a name such as Europe/Berlin, or UTC")
    if not known:
        hint = "this system knows no time zones but UTC; the Python package tzdata adds them"
    raise ValueFault(f"is not a time zone: {name!r}", hint=hint)


@dataclass(frozen=True)
class ProviderSettings:
    """The user's settings for one provider; None keeps the built-in value."""

    base_url: Annotated[
        str | None,
        Key(
            "address of the OpenAI-compatible API, usually ending in /v1",
            example="http://127.0.0.1:8000/v1",
        ),
    ] = None
    api_key_env: Annotated[
        str | None,
        Key(
            "the environment variable that holds the key",
            example="LAB_API_KEY",
            check=_check_variable,
        ),
    ] = None
    api_key_cmd: Annotated[
        str | None, Key("a command that prints the key", example="pass show lab")
    ] = None
    headers: Annotated[
        Mapping[str, Annotated[str, Key(secret=True)]] | None,
        Key(
            "headers to send with each request; `${NAME}` in a value stands for that variable",
            example={"X-Team": "${LAB_TEAM}"},
            secret=True,
            check=_check_headers,
        ),
    ] = None
    query: Annotated[
        Mapping[str, Annotated[str, Key(secret=True)]] | None,
        Key(
            "parameters to add to each request's address; `${NAME}` as in headers",
            example={"api-version": "2024-10-21"},
            secret=True,
            check=_check_query,
        ),
    ] = None
    quirks: Annotated[
        tuple[Quirk, ...] | None,
        Key(
            "how the endpoint differs from OpenAI's, in place of the built-in quirks",
            example=["no_stream_options"],
        ),
    ] = None
    concurrency: Annotated[
        int | None,
        Key(
            "maximum number of calls to it at the same time; by default, `moa` finds out how many"
            " it takes",
            1,
            1024,
            example=4,
        ),
    ] = None
    web: Annotated[
        Mapping[str, Any] | None,
        Key(
            "fields of a request that make its models search the web",
            example={"web_search_options": {}},
        ),
    ] = None
    rpm: Annotated[
        int | None,
        Key("maximum number of requests to it in any minute", 1, 100_000, example=60),
    ] = None
    batch_price: Annotated[
        float | None,
        Key(
            "share of the price that its batch interface (`/files` and `/batches` as OpenAI's)"
            " charges; if unset, it has no such interface",
            0,
            1,
            example=0.5,
        ),
    ] = None


@dataclass(frozen=True)
class BudgetSettings:
    """Caps in USD, None for no cap, and the time zone of the days."""

    # Stored as typed: an int stays an int, so that `5` is not shown as `5.0`.
    session: Annotated[
        int | float | None,
        _usd("maximum cost in USD of one run of `moa ask`, `chat`, `serve` or `bench`", 1.0),
    ] = None
    day: Annotated[int | float | None, _usd("maximum cost in USD of all turns of a day", 5.0)] = (
        None
    )
    zone: Annotated[
        str,
        Key(
            "the time zone in which a day begins and ends",
            example="Europe/Berlin",
            check=_zone,
        ),
    ] = "UTC"


@dataclass(frozen=True)
class LocalSettings:
    """The embedded model. model: a GGUF file, or None for the default model, smollm2."""

    model: Annotated[
        Path | None,
        Key(
            "path of the GGUF file to use as local:smollm2",
            example="~/models/mine.gguf",
            written=str,
        ),
    ] = None
    context: Annotated[int, Key("context of each call, in tokens", 256, 1_000_000)] = 4096
    parallel: Annotated[int, Key("calls answered at the same time", 1, 64)] = 4
    memory: Annotated[
        float | None,
        Key(
            "maximum memory of all models of one run, in GB; by default three quarters of the"
            " machine's memory",
            0.1,
            100_000,
            example=12,
        ),
    ] = None


# The name of a key is shown in logs, metrics and errors, so it is short and plain.
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _check_key_names(keys: Mapping[str, object]) -> None:
    for name in keys:
        if not KEY_NAME.fullmatch(name):
            raise ValueFault(
                "cannot be the name of a key",
                path=(name,),
                hint="use letters, digits, dashes and underscores, 64 at most",
            )


def _check_some(names: tuple[str, ...]) -> None:
    if not names:
        raise ValueFault("must not be empty", hint="without it, all may be asked")


@dataclass(frozen=True)
class ServerKeySettings:
    """The settings of one named key of `moa serve`; None means no limit."""

    key_env: Annotated[
        str | None,
        Key(
            "the environment variable that holds the key (several are separated by commas)",
            example="LAB_MOA_KEY",
            check=_check_variable,
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        Key(
            "a file that holds the key (or several, one on each line), which may be replaced while"
            " the server runs; a path that is not absolute begins at the config folder",
            example="keys/lab",
            written=str,
        ),
    ] = None
    budget: Annotated[
        int | float | None, _usd("maximum cost in USD of the key's turns of a day", 2.0)
    ] = None
    rpm: Annotated[
        int | None, Key("maximum number of turns in any minute", 1, 100_000, example=30)
    ] = None
    concurrency: Annotated[
        int | None, Key("maximum number of turns at the same time", 1, 100_000, example=4)
    ] = None
    profiles: Annotated[
        tuple[str, ...] | None,
        Key(
            "the models that may be asked; by default, all",
            example=["moa", "together"],
            check=_check_some,
        ),
    ] = None
    metrics: Annotated[
        bool, Key("whether the key may read `/metrics`, which covers all clients", example=True)
    ] = False


@dataclass(frozen=True)
class ServerSettings:
    """The settings of `moa serve`. keys: the keys by name."""

    keys: Annotated[
        Mapping[str, ServerKeySettings],
        Key(
            "keys that clients of `moa serve` send, with a name for logs and figures, and limits;"
            " the key itself stands in a variable, in a file, or as a line `NAME: KEY` of"
            " --api-key-file",
            check=_check_key_names,
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The settings.

    Args:
        prices: By model name.
        providers: By the name before the colon of a model name.
        place: The file that the settings come from, for error messages.
        given: The names of the settings that the file or the environment sets.
    """

    profile: Annotated[str | None, Key(MEANINGS["profile"], example="together")] = None
    concurrency: Annotated[int, Key(MEANINGS["concurrency"], 1, 1024)] = 32
    retries: Annotated[int, Key("how many times a failed call is tried again", 0, 20)] = 4
    default_context: Annotated[
        int,
        Key(
            "context in tokens that is assumed for models whose context is not known, to decide"
            " which old turns are left out; 0 or false: all turns are sent",
            0,
            off=True,
        ),
    ] = 32768
    save: Annotated[bool, Key(MEANINGS["save"])] = True
    keep_texts: Annotated[bool, Key(MEANINGS["keep_texts"])] = False
    plain: Annotated[bool, Key(MEANINGS["plain"])] = False
    compact: Annotated[bool, Key(MEANINGS["compact"])] = False
    live: Annotated[bool, Key(MEANINGS["live"])] = True
    accessible: Annotated[bool, Key(MEANINGS["accessible"])] = False
    progress_interval: Annotated[int, Key(MEANINGS["progress_interval"], 0, 3600, off=True)] = 10
    show_reasoning: Annotated[bool, Key(MEANINGS["show_reasoning"])] = False
    bell: Annotated[int, Key(MEANINGS["bell"], 0, 86_400, off=True)] = 10
    title: Annotated[bool, Key(MEANINGS["title"])] = True
    theme: Annotated[Theme, Key(MEANINGS["theme"])] = "auto"
    palette: Annotated[Palette, Key("styles of replies that override the theme's")] = UNCHANGED
    hyperlinks: Annotated[
        bool, Key("make links in replies clickable, in terminals that support it")
    ] = True
    usage: Annotated[bool, Key(MEANINGS["usage"])] = False
    vi: Annotated[bool, Key(MEANINGS["vi"])] = False
    prompt_history: Annotated[
        int,
        Key(
            "how many prompts `moa chat` keeps for Up and Ctrl-R in later chats; 0 or false: none",
            0,
            100_000,
            off=True,
        ),
    ] = 1000
    keep_files: Annotated[
        bool,
        Key(
            "keep the files attached in `moa chat` for all later prompts; otherwise only"
            " for the next one"
        ),
    ] = False
    confirm_tokens: Annotated[
        int,
        Key(
            "ask before attached files of more tokens than this are sent; 0 or false: never ask",
            0,
            1_000_000_000,
            off=True,
        ),
    ] = 100_000
    budget: Annotated[
        BudgetSettings,
        Key("limits on cost; a layer of calls that would exceed one is not started"),
    ] = BudgetSettings()
    local: Annotated[LocalSettings, Key("the embedded model")] = LocalSettings()
    prices: Annotated[
        Mapping[str, Price], Key("prices of models whose provider lists none, by model name")
    ] = field(default_factory=dict)
    providers: Annotated[
        Mapping[str, ProviderSettings],
        Key("model endpoints of your own, or changes to the built-in ones"),
    ] = field(default_factory=dict)
    server: Annotated[ServerSettings, Key("settings of `moa serve`")] = ServerSettings()
    place: str = "config"
    given: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def moves(self) -> bool:
        """Whether progress is drawn live, unless an option says otherwise."""
        return self.live and not self.accessible

    def zone(self) -> tzinfo:
        """The time zone of the budget's days.

        Raises:
            ProfileError: This machine knows no zone of that name.
        """
        try:
            return _zone(self.budget.zone)
        except ValueFault as fault:
            fault.path = ("budget", "zone")
            raise refused(fault, self.place) from None


CONFIG_KEYS = keys_of(Config)


def load_config(path: Path | None = None) -> Config:
    """The settings in `path` (default: config.toml in the config folder), or the defaults.

    Variables such as MOA_CONCURRENCY (see `VARIABLES`) override the file. Raises ProfileError
    naming file (or variable) and key.
    """
    path = path or paths.config_file()
    found = to_config(read_toml(path, missing_ok=True), str(path))
    changed = _from_environment()
    return replace(found, **changed, given=found.given | changed.keys())


def to_config(table: Mapping[str, Any], place: str) -> Config:
    """The settings in the tables of a settings file, without the environment.

    place: the file's name. Raises ProfileError naming it and the key.
    """
    try:
        config = Config(**read_fields(Config, table, TOML), place=place, given=frozenset(table))
    except ValueFault as fault:
        raise refused(fault, place) from None
    if config.local.model is None:
        return config
    # The path was read as a text; `~` in it is expanded here.
    return replace(config, local=replace(config.local, model=paths.expand(str(config.local.model))))


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    # MOA_PROFILE is read where a profile is chosen, because that may happen without the other
    # settings.
    for name in VARIABLES.keys() - {"profile"}:
        variable, key = VARIABLES[name], CONFIG_KEYS[name]
        if text := os.environ.get(variable):
            try:
                found[name] = read_value(key, value_of(text, key), TOML)
            except ValueFault as fault:
                fault.path = (name,)
                raise refused(fault, variable) from None
    return found
