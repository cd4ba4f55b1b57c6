"""Changes one setting in the settings file, and keeps everything else as the user wrote it."""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moa_cli.config.names import Name, dotted
from moa_cli.config.template import template
from moa_cli.config.toml import parse_toml, read_settings_file, read_toml, refused
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.files.text import SourceText
from moa_cli.core.values import TOML, ValueFault, read_value

Table = dict[str, Any]


def set_setting(file: Path, name: Name, value: object, check: Callable[[Table], object]) -> None:
    """Set one setting in `file`; if there is no file yet, it is created from the template.

    check: raises an error for tables that are not valid settings; then nothing is changed. Raises
    ProfileError if the value is not valid for the setting, or if the file cannot be read, changed
    or written.
    """
    # The value is checked alone first, so that the message does not blame the file for it.
    try:
        read_value(name.key, value, TOML)
    except ValueFault as fault:
        fault.path = (*name.path, *fault.path)
        raise refused(fault) from None

    def edit(text: str, then: Table) -> str | None:
        path, key = name.path, dotted(name.path[-1:])
        _put(then, path, value)
        return _first_that_means(
            then,
            # Replaces the template's commented line of this setting.
            lambda: _line_replaced(text, path, f"#{key} = ", f"{key} = {_item(value).as_string()}"),
            lambda: _edited(text, lambda document: _lay_at(document, path, value)),
        )

    _change(file, str(name), edit, check)


def unset_setting(file: Path, name: Name, check: Callable[[Table], object]) -> bool:
    """Remove one setting from `file`; False if the file does not have it. check and errors: see
    `set_setting`."""
    if _at(read_toml(file, missing_ok=True), name.path) is None:
        return False

    def edit(text: str, then: Table) -> str | None:
        path = name.path
        if _at(then, path) is None:
            return text
        # The table of a provider is removed with its last setting.
        if len(path) > 2 and len(_at(then, path[:-1])) == 1:
            path = path[:-1]
        _drop(then, path)
        return _first_that_means(
            then,
            lambda: _commented(text, path),
            lambda: _edited(text, lambda document: _drop(document, path)),
        )

    _change(file, str(name), edit, check)
    return True


def create_file(file: Path) -> None:
    """Write the template to `file`, unless the file exists. Raises ProfileError."""
    if not file.exists():
        with _writing(file) as real, paths.replacing(real) as made:
            made.write(template().encode())


def _change(
    file: Path,
    name: str,
    edit: Callable[[str, Table], str | None],
    check: Callable[[Table], object],
) -> None:
    """Rewrite the file. edit: gets the old text and its tables; changes the tables, and returns the
    new text."""
    with _writing(file) as real:
        old = read_settings_file(file) or SourceText(template())
        tables = parse_toml(old.text, str(file))
        new = edit(old.text, tables)
        check(tables)
        if new is None:
            raise ProfileError(
                f"`{name}` cannot be changed without rewriting the file",
                place=str(file),
                hint="use `moa config edit`",
            )
        with paths.replacing(real) as made:
            made.write(old.encode(new))


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """The real path of the file, locked for other processes. Raises ProfileError instead of
    OSError."""
    try:
        # A symbolic link stays, because settings are often kept in a repository and linked from
        # here.
        real = Path(os.path.realpath(file))
        paths.make_private(real.parent)
        with paths.alone(real.parent):
            yield real
    except UnicodeEncodeError:
        # An argument may hold half of a surrogate pair, which UTF-8 cannot encode.
        raise ProfileError("cannot be written: the value is not Unicode", place=str(file)) from None
    except OSError as error:
        raise ProfileError(f"cannot be written: {error.strerror}", place=str(file)) from None


def _at(tables: Any, path: tuple[str, ...]) -> Any:
    """The value at this path; None if there is none. (TOML itself has no null.)"""
    for part in path:
        tables = tables.get(part) if isinstance(tables, dict) else None
    return tables


def _drop(tables: Any, path: tuple[str, ...]) -> None:
    del _at(tables, path[:-1])[path[-1]]


def _put(tables: Table, path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            raise ProfileError(f"`{part}` must be a table", path=path)
    tables[path[-1]] = copy.deepcopy(value)


# --- the text


def _first_that_means(tables: Table, *texts: Callable[[], str | None]) -> str | None:
    """The first text that parses to these tables; None if no text does.

    This makes every edit safe: the parsed result decides, not the way in which the text was edited.
    """
    for make in texts:
        with contextlib.suppress(ProfileError, RecursionError):
            text = make()
            if text is not None and _said(parse_toml(text, "")) == _said(tables):
                return text
    return None


def _said(tables: Table) -> Table:
    # An empty section means the same as no section.
    return {name: value for name, value in tables.items() if value != {}}


def _commented(text: str, path: tuple[str, ...]) -> str | None:
    """The text with the template's commented line in place of this setting, if the setting is right
    below the template's explanation."""
    lines = template().split("\n")
    key = dotted(path[-1:])
    for number, line in enumerate(lines):
        if line.startswith(f"#{key} = "):
            made = _line_replaced(text, path, f"{key} = ", line, below=lines[number - 1])
            if made is not None:
                return made
    return None


def _line_replaced(
    text: str, path: tuple[str, ...], start: str, new: str, below: str | None = None
) -> str | None:
    """The text with `new` in place of the first line of the path's section that starts with
    `start`.

    below: the line that must be right above; None for any.
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
    # Keys are removed one by one, because removing the table would remove its comments, too.
    for gone in old.keys() - value.keys():
        del old[gone]
    for name, inner in value.items():
        _lay(old, name, inner)


def _item(value: object) -> Any:
    import tomlkit

    if not isinstance(value, dict):
        return tomlkit.item(value)
    inline = tomlkit.inline_table()
    inline.update(value)
    return inline


def _lay_at(table: Any, path: tuple[str, ...], value: object) -> None:
    import tomlkit

    for part in path[:-1]:
        if part not in table:
            table[part] = tomlkit.table(is_super_table=part != path[-2])
        table = table[part]
    _lay(table, path[-1], value)


def _edited(text: str, edit: Callable[[Any], None]) -> str | None:
    """The text after a change to its document; None if tomlkit cannot make it."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        edit(document)
    except (TOMLKitError, ValueError, TypeError, KeyError):
        return None
    return tomlkit.dumps(document)
