"""Files that are written for the user, where they say, and which names every system takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moa_cli.core import paths
from moa_cli.core.errors import MoAError, UsageError

# Windows opens a device in place of a file with such a name, whatever follows a dot. It treats
# superscript digits as digits.
_PORTS = (f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS})


def why_unfit(name: str) -> str | None:
    """Why Windows cannot have a file called `name`; None if it can.

    This is checked on every system, because users carry settings and results to other ones.
    """
    stem = name.partition(".")[0].rstrip(" ").lower()
    if stem in _DEVICES:
        return f"Windows reserves the name `{stem}`"
    if name.rstrip(". ") != name and name not in (".", ".."):
        return "Windows drops a dot or a space at the end of a name"
    return None


def check_name(path: Path) -> None:
    """Raise UsageError if no file can be called so on every system."""
    unfit = why_unfit(path.name)
    if unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")


def check_free(path: Path, *, force: bool) -> None:
    """Raise UsageError if there is something that may not be overwritten."""
    try:
        taken, is_file = path.exists(), path.is_file()
    except OSError as trouble:
        # The name is too long, or a folder on the way cannot be looked into.
        raise UsageError(f"{path}: cannot be written: {trouble.strerror}") from None
    if taken and not (force and is_file):
        hint = "--force overwrites it" if is_file else None
        raise UsageError(f"{path}: already exists", hint=hint)


@contextmanager
def new_file(path: Path, *, force: bool, error: type[MoAError]) -> Iterator[BinaryIO]:
    """Where the bytes go: a new file, complete or not there at all.

    Raises UsageError if the file is there and not to be overwritten (`force`), or cannot be called
    so on every system, and `error` if it cannot be written.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
        # Through a symbolic link, which itself is left alone.
        path = path.resolve()
    except (OSError, RuntimeError, ValueError):
        # A NUL character, half of a surrogate pair, or a loop of links.
        raise UsageError(f"{path}: is not a path that leads to a file") from None
    check_name(path)
    check_free(path, force=force)
    try:
        with paths.replacing(path) as file:
            yield file
    except OSError as trouble:
        raise error(f"{path}: cannot be written: {trouble.strerror}") from None
