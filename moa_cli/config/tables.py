"""Reading settings files: TOML tables checked key by key, with errors that name the place."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.text_files import Source, read_source

__all__ = [
    "Key",
    "allowed",
    "check_table",
    "nearest",
    "parse_toml",
    "read_settings_file",
    "read_toml",
    "sentence",
    "value_above",
    "value_of",
]

_T = TypeVar("_T")
Kind = Literal["text", "whole", "number", "flag", "texts", "table", "tables"]

_KIND_NAMES: dict[Kind, str] = {
    "text": "a text in quotes",
    "whole": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "texts": "a list of texts",
    "table": "a table",
    "tables": "a list of tables",
}
_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@dataclass(frozen=True)
class Key:
    """One setting: what it holds and what it means.

    help: one line, used wherever the setting is explained: by options, files and the README.
    low, high: bounds, both allowed values. choices: the only allowed texts.
    example: a value to show where there is no default.
    blank: whether a text may be empty, or of spaces only. off: whether `false` stands for 0.
    """

    kind: Kind
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    example: object = None
    blank: bool = False
    off: bool = False


def sentence(key: Key, more: str = "") -> str:
    """The key's help as a sentence. more: what is to be said behind it."""
    text = f"{key.help}; {more}" if more else key.help
    return f"{text[0].upper()}{text[1:]}."


def allowed(key: Key) -> str:
    """What the key's value may be, in words."""
    if key.choices:
        return f"one of {', '.join(key.choices)}"
    bounded = key.low is not None or key.high is not None
    return _range(key) if bounded else _KIND_NAMES[key.kind]


def value_of(text: str, key: Key) -> object:
    """The value that a text means for that key; the text itself where it can mean none.

    What comes out is still to be checked.
    """
    try:
        match key.kind:
            case "whole":
                return False if key.off and text.lower() == "false" else int(text)
            case "number":
                return float(text) if re.search(r"[.eE]", text) else int(text)
            case "flag":
                return _SWITCH.get(text.lower(), text)
            case "text":
                return text
            case "texts" | "table" | "tables":
                return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None if none is like it."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.65)
    return close[0] if close else None


def value_above(values: Mapping[str, _T], path: str) -> _T | None:
    """The value at a dotted path (`layers[1].proposers`), or else at the closest path above it.

    The path above all others is "".
    """
    while path and path not in values:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return values.get(path)


def read_toml(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The tables of a TOML file; none, with `missing_ok`, if there is no such file.

    Raises ProfileError, naming the file, where it cannot be read or is not TOML.
    """
    source = read_settings_file(path)
    if source is None and not missing_ok:
        raise ProfileError(f"{path}: no such file")
    return parse_toml(source.text if source else "", str(path))


def read_settings_file(path: Path) -> Source | None:
    """The text of a settings file, and how it stands there; None if there is no such file.

    Raises ProfileError, naming the file, where it cannot be read or is no text.
    """
    try:
        data = paths.read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from None
    return read_source(data, str(path), ProfileError)


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ProfileError, naming the place, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError: numbers too long for Python, lists nested too deep.
        raise ProfileError(f"{place}: is not valid TOML: {error}") from None


def check_table(
    table: Mapping[str, Any],
    keys: Mapping[str, Key],
    *,
    prefix: str = "",
    place: Mapping[str, str] | str = "",
) -> None:
    """Refuse unknown keys, wrong types and values out of range.

    prefix: the dotted path of `table`, ending in a dot unless empty.
    place: where values come from: one name for all, or a name by dotted path.
    Raises ProfileError naming the place, the key, and the nearest known key.
    """
    for name, value in table.items():
        path = prefix + name
        source = place if isinstance(place, str) else value_above(place, path)
        where = f"{source}: " if source else ""
        if name not in keys:
            near = nearest(name, keys)
            hint = f"did you mean `{near}`?" if near else f"known keys: {', '.join(keys)}"
            raise ProfileError(f"{where}unknown key `{path}`", hint=hint)
        problem = _problem(value, keys[name])
        if problem:
            raise ProfileError(f"{where}`{path}` {problem}")


def _problem(value: Any, key: Key) -> str | None:
    if key.off and value is False:
        return None
    if not _is_kind(value, key.kind):
        return f"must be {_KIND_NAMES[key.kind]}, not {_shown(value)}"
    if key.kind in ("whole", "number") and not _within(value, key.low, key.high):
        return f"must be {_range(key)}, not {_shown(value)}"
    if key.kind == "text" and not key.blank and not value.strip():
        return "must not be empty"
    if key.choices and value not in key.choices:
        return f"must be one of {', '.join(key.choices)}, not {_shown(value)}"
    return None


def _is_kind(value: object, kind: Kind) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "whole":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "flag":
            return isinstance(value, bool)
        case "texts":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "table":
            return isinstance(value, dict)
        case "tables":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _within(value: Any, low: float | None, high: float | None) -> bool:
    # TOML allows inf, nan and numbers beyond any float; no setting means anything by them.
    try:
        if not math.isfinite(value):
            return False
    except OverflowError:
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def _range(key: Key) -> str:
    if key.high is None:
        return "a number" if key.low is None else f"{key.low:.12g} or more"
    high = f"{key.high:.12g}"
    return f"≤ {high}" if key.low is None else f"between {key.low:.12g} and {high}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
