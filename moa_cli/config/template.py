"""The initial settings file, with an explanation of every key, and each key as a comment."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping

from moa_cli.config.meanings import sentence
from moa_cli.config.names import KEYS_OF, NAMED, default_of, dotted, path_of
from moa_cli.config.schema import CONFIG_KEYS, VARIABLES, ServerSettings
from moa_cli.config.toml import allowed
from moa_cli.core.values import Key, keys_of

_HEAD = """\
# Settings of moa.
#
# Each setting is shown as a comment, at its default or, where there is none, with an
# example: remove the `#` before it to change it. `moa config list` shows what is in force.
# API keys do not belong here: they come from the environment, from a .env file, or from the
# command in api_key_cmd.
"""
_EXAMPLE_NAMES = {"prices": "openrouter:qwen/qwen3-32b", "providers": "lab", "server": "lab"}


def template() -> str:
    """The text of a settings file that sets nothing."""
    simple = [_entry((name,), key) for name, key in CONFIG_KEYS.items() if name not in KEYS_OF]
    return "\n".join([_HEAD, *simple, *map(_section, KEYS_OF)])


def _section(table: str) -> str:
    key = keys_of(ServerSettings)["keys"] if table == "server" else CONFIG_KEYS[table]
    help_ = _prose(sentence(key.help))
    if table not in NAMED:
        entries = [_entry((table, name), key) for name, key in KEYS_OF[table].items()]
        return "\n".join([f"[{table}]\n{help_}", *entries])
    name = _EXAMPLE_NAMES[table]
    keys = KEYS_OF[table]
    # The settings of one model or one provider stay together in a section.
    about = "".join(
        _prose(f"{last}: {explanation((*path_of(table), name, last), key)}")
        for last, key in keys.items()
    )
    if table == "prices":
        values = ", ".join(assignment(last, key.example) for last, key in keys.items())
        return f"[{table}]\n{help_}{about}#{dotted((name,))} = {{ {values} }}\n"
    values = "".join(f"#{assignment(last, key.example)}\n" for last, key in keys.items())
    example = f"#[{dotted((*path_of(table), name))}]\n{values}"
    head = f"[{table}]\n" if path_of(table) == (table,) else ""
    return f"{head}{help_}{about}{example}"


def _entry(path: tuple[str, ...], key: Key) -> str:
    default = default_of(path)
    value = key.example if default is None else default
    return f"{_prose(explanation(path, key))}#{assignment(path[-1], value)}\n"


def explanation(path: tuple[str, ...], key: Key) -> str:
    """The meaning of a setting, its allowed values, and its default."""
    facts = [allowed(key)] if key.low is not None else []
    default = default_of(path)
    if default is not None:
        facts.append(f"by default {toml_text(default)}")
    parts = [sentence(key.help)]
    if facts:
        text = ", ".join(facts)
        parts.append(f"{text[0].upper()}{text[1:]}.")
    if path[0] in VARIABLES:
        parts.append(f"{VARIABLES[path[0]]} overrides it.")
    return " ".join(parts)


def assignment(key: str, value: object) -> str:
    return f"{dotted((key,))} = {toml_text(value)}"


def toml_text(value: object) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, Mapping):
        given = {name: inner for name, inner in value.items() if inner is not None}
        inside = ", ".join(assignment(name, inner) for name, inner in given.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    # Texts, numbers and booleans are the same in JSON and in TOML.
    return json.dumps(value, ensure_ascii=False)


def _prose(text: str) -> str:
    return textwrap.fill(text, 92, initial_indent="# ", subsequent_indent="# ") + "\n"
