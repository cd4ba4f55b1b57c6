"""Changes to the text of a settings file, which leave the rest of it as it was written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from moa_cli.config.names import dotted
from moa_cli.config.tables import parse_toml
from moa_cli.config.template import template
from moa_cli.core.errors import ProfileError

__all__ = ["with_value", "without"]

Way = tuple[str, ...]
Table = dict[str, Any]


def with_value(text: str, path: Way, value: object, meant: Table) -> str | None:
    """`text` with the value at that path. meant: what it is to say then.

    None if it cannot be brought to say that without rewriting more of it.
    """
    return _first_that_means(
        meant, lambda: _uncommented(text, path, value), lambda: _put_text(text, path, value)
    )


def without(text: str, path: Way, meant: Table) -> str | None:
    """`text` with nothing at that path; otherwise the same."""
    return _first_that_means(meant, lambda: _commented(text, path), lambda: _drop_text(text, path))


def _first_that_means(tables: Table, *texts: Callable[[], str | None]) -> str | None:
    """The first text whose tables are these; None if none is.

    This is what makes every edit safe: a text is taken for what it says, not for how it was made.
    """
    for make in texts:
        with contextlib.suppress(ProfileError, RecursionError):
            text = make()
            if text is not None and _said(parse_toml(text, "")) == _said(tables):
                return text
    return None


def _said(tables: Table) -> Table:
    # An empty section says no more than none.
    return {name: value for name, value in tables.items() if value != {}}


def _uncommented(text: str, path: Way, value: object) -> str | None:
    """The text with the template's comment on that setting made into the setting."""
    key = dotted(path[-1:])
    return _line_replaced(text, path, f"#{key} = ", f"{key} = {_item(value).as_string()}")


def _commented(text: str, path: Way) -> str | None:
    """The other way round, where the setting still stands below the template's words on it."""
    lines = template().split("\n")
    key = dotted(path[-1:])
    for number, line in enumerate(lines):
        if line.startswith(f"#{key} = "):
            made = _line_replaced(text, path, f"{key} = ", line, below=lines[number - 1])
            if made is not None:
                return made
    return None


def _line_replaced(
    text: str, path: Way, start: str, new: str, below: str | None = None
) -> str | None:
    """The text with the first line in the path's section that starts so replaced.

    below: the only line that it may stand below.
    """
    lines = text.split("\n")
    section: list[str] = []
    for number, line in enumerate(lines):
        header = re.fullmatch(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(#.*)?", line)
        if header:
            section = [header[1]]
        elif section == [*path[:-1]] and line.startswith(start):
            if below is not None and lines[number - 1].rstrip("\r") != below:
                return None
            lines[number] = new + ("\r" if line.endswith("\r") else "")
            return "\n".join(lines)
    return None


def _lay(table: Any, key: str, value: object) -> None:
    old = table.get(key)
    if not isinstance(old, dict) or not isinstance(value, dict):
        table[key] = _item(value)
        return
    # Key by key, since the comments of a table go with it.
    for gone in [one for one in old if one not in value]:
        del old[gone]
    for one, inner in value.items():
        _lay(old, one, inner)


def _item(value: object) -> Any:
    import tomlkit

    if not isinstance(value, dict):
        return tomlkit.item(value)
    inline = tomlkit.inline_table()
    inline.update(value)
    return inline


def _put_text(text: str, path: Way, value: object) -> str | None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        table: Any = document
        for part in path[:-1]:
            if part not in table:
                table[part] = tomlkit.table(is_super_table=part != path[-2])
            table = table[part]
        _lay(table, path[-1], value)
    except (TOMLKitError, ValueError, TypeError):
        return None
    return tomlkit.dumps(document)


def _drop_text(text: str, path: Way) -> str | None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        table: Any = document
        for part in path[:-1]:
            table = table[part]
        del table[path[-1]]
    except (TOMLKitError, ValueError, TypeError, KeyError):
        return None
    return tomlkit.dumps(document)
