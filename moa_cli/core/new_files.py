"""Files that are written for the user, where they say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
def new_file(path: Path, *, force: bool, error: type[MoAError]) -> Iterator[BinaryIO]:
    """Where the bytes go: a new file, complete or not there at all.

    Args:
        path: The file.
        force: Whether it may be overwritten.
        error: What is raised if it cannot be written.

    Raises:
        UsageError: The file is there and not to be overwritten, or cannot be called so on every
            system.
    """
    # Through a symbolic link, which itself is left alone.
    path = path.resolve()
    check_name(path)
    check_free(path, force=force)
    try:
        with paths.replacing(path) as file:
            yield file
    except OSError as trouble:
        raise error(f"{path}: cannot be written: {trouble.strerror}") from None
