"""Writes files to paths that the user names, with a check that every system takes their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moa_cli.core import paths
from moa_cli.core.errors import MoAError, UsageError

# For a file with such a name, Windows opens a device, whatever follows after a dot. It treats
# superscript digits as digits.
_PORTS = (f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS})

# Endings of formats that are not text. `moa` writes none of them.
_OFFICE = {".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".odp"}
_NO_TEXTS = _OFFICE | {".pdf", ".epub", ".zip", ".png", ".jpg", ".jpeg", ".gif", ".webp"}


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
    """Raise UsageError if the name of `path` is not valid on every system."""
    unfit = why_unfit(path.name)
    if unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")


def check_is_text(path: Path) -> None:
    """Raise UsageError if `path` has the ending of a format that is not text."""
    suffix = path.suffix.lower()
    if suffix in _NO_TEXTS:
        raise UsageError(
            f"{path}: text cannot be written as {suffix}", hint="choose another ending"
        )


def check_free(path: Path, *, force: bool) -> None:
    """Raise UsageError if `path` exists and must not be overwritten. force: whether a file may be
    overwritten."""
    try:
        taken, is_file = path.exists(), path.is_file()
    except OSError as trouble:
        # The name is too long, or a folder of the path is not accessible.
        raise UsageError(f"{path}: cannot be written: {trouble.strerror}") from None
    if taken and not (force and is_file):
        hint = "--force overwrites it" if is_file else None
        raise UsageError(f"{path}: already exists", hint=hint)


@contextmanager
def new_file(path: Path, *, force: bool, error: type[MoAError]) -> Iterator[BinaryIO]:
    """Write a new file within a `with` block. If the block fails, there is no new file.

    For `/dev/stdout`, `/dev/null` and `>(command)`, write there instead.

    force: whether an existing file may be overwritten. Raises UsageError if the file exists and
    must not be overwritten, or if its name is not valid on every system; `error` if it cannot be
    written.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
        # Resolved, so that the target of a symbolic link is replaced and the link itself stays.
        named, path = path, paths.resolved(path)
    except (OSError, ValueError):
        # A NUL character, half of a surrogate pair, or a working directory that is gone.
        raise UsageError(f"{path}: is not a path that leads to a file") from None
    check_name(path)
    try:
        if paths.is_stream(named):
            with named.open("ab") as stream:
                yield stream
            return
        check_free(path, force=force)
        with paths.replacing(path) as file:
            yield file
    except OSError as trouble:
        raise error(f"{path}: cannot be written: {trouble.strerror}") from None
