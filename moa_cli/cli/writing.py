"""Files that a command writes for the user."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moa_cli.cli.output import say
from moa_cli.core import paths
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.file_names import why_unfit


def check_name(path: Path) -> None:
    """Raise UsageError if no file can be called so on every system."""
    unfit = why_unfit(path.name)
    if unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")


def check_free(path: Path, *, force: bool) -> None:
    """Raise UsageError if there is something that may not be overwritten."""
    if path.exists() and not (force and path.is_file()):
        hint = "--force overwrites it" if path.is_file() else None
        raise UsageError(f"{path}: already exists", hint=hint)


@contextmanager
def destination(path: Path | None, *, force: bool, error: type[MoAError]) -> Iterator[BinaryIO]:
    """Where the bytes go: a new file, complete or not there at all, or standard output.

    Raises UsageError if the file is there and not to be overwritten, or cannot be called so on
    every system, `error` if it cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    # Through a symbolic link, which itself is left alone.
    path = path.resolve()
    check_name(path)
    check_free(path, force=force)
    try:
        with paths.replacing(path) as file:
            yield file
    except OSError as trouble:
        raise error(f"{path}: cannot be written: {trouble.strerror}") from None


def put(text: str, output: Path | None, error: type[MoAError]) -> None:
    """Print what can be made anew at any time, or write it to a file, over an older one. Raises
    `error` if the file cannot be written, UsageError for a name as `destination` does."""
    if output is None:
        sys.stdout.write(text)
        return
    check_name(output)
    try:
        with paths.replacing(output) as file:
            file.write(text.encode())
    except OSError as trouble:
        raise error(f"{output}: cannot be written: {trouble.strerror}") from None
    say(f"wrote {output}")
