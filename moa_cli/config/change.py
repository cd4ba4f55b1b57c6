"""Changing the settings file: one value at a time, everything else as the user wrote it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moa_cli.config.edit_text import with_value, without
from moa_cli.config.names import Name, dotted
from moa_cli.config.tables import check_table, parse_toml, read_settings_file, read_toml
from moa_cli.config.template import template
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.text_files import Source

__all__ = ["create_file", "set_setting", "unset_setting"]

Table = dict[str, Any]


def set_setting(file: Path, name: Name, value: object, check: Callable[[Table], object]) -> None:
    """Set one setting in `file`; where there is no file yet, in a new one from the template.

    check: refuses, by raising, tables that are no valid settings; nothing is changed then.
    Raises ProfileError if the value is not what the setting takes, or the file cannot be
    read, changed or written.
    """
    # By itself first, so that the message does not blame the file for it.
    *above, last = name.path
    check_table({last: value}, {last: name.key}, prefix=f"{dotted(tuple(above))}." if above else "")

    def edit(text: str, then: Table) -> str | None:
        path = name.path
        _put(then, path, value)
        return with_value(text, path, value, then)

    _change(file, str(name), edit, check)


def unset_setting(file: Path, name: Name, check: Callable[[Table], object]) -> bool:
    """Take one setting out of `file`; False if it is not in there. check, raises: as above."""
    if not _has(read_toml(file, missing_ok=True), name.path):
        return False

    def edit(text: str, then: Table) -> str | None:
        path = name.path
        if not _has(then, path):
            return text
        # A provider of which nothing is said any more is not named either.
        if len(path) > 2 and len(_at(then, path[:-1])) == 1:
            path = path[:-1]
        del _at(then, path[:-1])[path[-1]]
        return without(text, path, then)

    _change(file, str(name), edit, check)
    return True


def create_file(file: Path) -> None:
    """Write the template to `file`, unless there is something. Raises ProfileError."""
    if not file.exists():
        with _writing(file) as real, paths.replacing(real) as made:
            made.write(template().encode())


def _change(
    file: Path,
    name: str,
    edit: Callable[[str, Table], str | None],
    check: Callable[[Table], object],
) -> None:
    """edit: the new text, given the old one and its tables, which it makes into the new ones."""
    with _writing(file) as real:
        old = read_settings_file(file) or Source(template())
        tables = parse_toml(old.text, str(file))
        new = edit(old.text, tables)
        check(tables)
        if new is None:
            raise ProfileError(
                f"{file}: `{name}` cannot be changed without rewriting the file",
                hint="use `moa config edit`",
            )
        with paths.replacing(real) as made:
            made.write(old.encode(new))


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """The place to write to, with nobody else at it. Raises ProfileError in place of OSError."""
    try:
        # A link stays a link: settings are often kept in a repository of their own.
        real = Path(os.path.realpath(file))
        paths.make_private(real.parent)
        with paths.alone(real.parent):
            yield real
    except UnicodeEncodeError:
        # Half of a surrogate pair, as an argument may hold it.
        raise ProfileError(f"{file}: cannot be written: the value is not Unicode") from None
    except OSError as error:
        raise ProfileError(f"{file}: cannot be written: {error.strerror}") from None


def _at(tables: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tables = tables[part]
    return tables


def _has(tables: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(tables, dict) or part not in tables:
            return False
        tables = tables[part]
    return True


def _put(tables: Table, path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            raise ProfileError(f"`{part}` must be a table")
    tables[path[-1]] = copy.deepcopy(value)
