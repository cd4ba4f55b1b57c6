"""Reads TOML files and single values that users write, and describes in words what a key allows."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.files.text import SourceText, read_source
from moa_cli.core.values import TOML, Key, KeyPath, ValueFault, choices_text, range_text

_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_NAME = rf"""(?P<name>(?:{_PART.pattern})(?:\s*\.\s*(?:{_PART.pattern}))*)"""
_HEADER = re.compile(rf"\s*\[(?P<list>\[)?\s*{_NAME}\s*\]")
_ASSIGNMENT = re.compile(rf"\s*{_NAME}\s*=")
_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def allowed(key: Key) -> str:
    """The allowed values of a key, in words."""
    if key.choices:
        return choices_text(key)
    if key.kind == "other":
        return " or ".join(TOML.kinds[choice.kind] for choice in key.either)
    bounded = key.low is not None or key.high is not None
    return range_text(key) if bounded else TOML.kinds[key.kind]


def refused(fault: ValueFault, place: str = "") -> ProfileError:
    """The error for a fault. place: where the wrong value was read."""
    problem = fault.problem if names_key(place, fault.path) else fault.sentence(TOML)
    return ProfileError(problem, place=place, path=fault.path, hint=fault.hint)


def names_key(place: str, path: KeyPath) -> bool:
    """Whether a place is an option, a variable or a command with the name of the key at `path`.
    Then a message need not repeat the name of the key."""
    return place.removeprefix("MOA_").lstrip("-/").replace("-", "_").lower() in path


def value_of(text: str, key: Key) -> object:
    """The value of a text for this key; the text itself if it cannot be converted.

    The result is not checked yet.
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
            case _:
                return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def read_toml(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The tables of a TOML file; none, with `missing_ok`, if there is no such file.

    Raises ProfileError, naming the file, where it cannot be read or is not TOML.
    """
    source = read_settings_file(path)
    if source is None and not missing_ok:
        raise ProfileError("no such file", place=str(path))
    return parse_toml(source.text if source else "", str(path))


def read_settings_file(path: Path) -> SourceText | None:
    """The text of a settings file, with its encoding and line ends; None if there is no such file.

    Raises ProfileError, naming the file, where it cannot be read or is not text.
    """
    try:
        data = paths.read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        # With `sudo -u` and in containers, HOME may still be the folder of another user.
        hint = None if os.access(path.parent, os.X_OK) else "set HOME, or MOA_CONFIG_DIR"
        raise ProfileError(
            f"cannot be read: {error.strerror}", place=str(path), hint=hint
        ) from None
    return read_source(data, str(path), ProfileError)


def line_of(text: str, path: KeyPath) -> int | None:
    """The number of the line, from 1, on which the value at a path of a TOML text begins. If the
    value is missing, the line of its table; None if there is no such line.

    Good enough for messages, but a multi-line text that looks like TOML may mislead it.
    """
    section: KeyPath = ()
    tables: dict[KeyPath, int] = {}
    best, line_of_best = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            named = _numbered(_parts(header["name"]), tables)
            if header["list"]:
                tables[named] = tables.get(named, -1) + 1
                named = (*named, tables[named])
            section = found = named
        elif (assigned := _ASSIGNMENT.match(line)) is not None:
            found = (*section, *_parts(assigned["name"]))
        else:
            continue
        if best < len(found) and found == path[: len(found)]:
            best, line_of_best = len(found), number
    return line_of_best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _numbered(names: tuple[str, ...], tables: Mapping[KeyPath, int]) -> KeyPath:
    """The path of a table, with the index of the current item for each list of tables above it."""
    path: KeyPath = ()
    for name in names[:-1]:
        path = (*path, name)
        path = (*path, tables[path]) if path in tables else path
    return (*path, *names[-1:])


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ProfileError, naming the place, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; so is that of a number too long for Python. Lists nested
        # too deep raise RecursionError.
        raise ProfileError(f"is not valid TOML: {error}", place=place) from None
