"""Settings as people write them: TOML files, one value as a text, and what a key says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.text_files import SourceText, read_source
from moa_cli.core.values import TOML, Key, ValueFault, choices_text, range_text

_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def sentence(key: Key, more: str = "") -> str:
    """The key's help as a sentence. more: what is to be said behind it."""
    text = f"{key.help}; {more}" if more else key.help
    return f"{text[0].upper()}{text[1:]}."


def allowed(key: Key) -> str:
    """What the key's value may be, in words."""
    if key.choices:
        return choices_text(key)
    if key.kind == "other":
        return " or ".join(TOML.kinds[choice.kind] for choice in key.either)
    bounded = key.low is not None or key.high is not None
    return range_text(key) if bounded else TOML.kinds[key.kind]


def refused(fault: ValueFault, place: str = "") -> ProfileError:
    """The error that tells of a fault. place: where the wrong value stands."""
    return ProfileError(fault.sentence(TOML), place=place, path=fault.path, hint=fault.hint)


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
    """The text of a settings file, and how it stands there; None if there is no such file.

    Raises ProfileError, naming the file, where it cannot be read or is not text.
    """
    try:
        data = paths.read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", place=str(path)) from None
    return read_source(data, str(path), ProfileError)


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ProfileError, naming the place, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError: numbers too long for Python, lists nested too deep.
        raise ProfileError(f"is not valid TOML: {error}", place=place) from None
