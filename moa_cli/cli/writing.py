"""Writes the results of a command to a file or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moa_cli.cli.output import say
from moa_cli.core.errors import MoAError
from moa_cli.core.files.new_file import check_is_text, new_file


@contextmanager
def destination(path: Path | None, *, force: bool, error: type[MoAError]) -> Iterator[BinaryIO]:
    """The file to write to: a new file (see `new_file`), or standard output."""
    if path is None:
        yield sys.stdout.buffer
        return
    with new_file(path, force=force, error=error) as file:
        yield file


def put(text: str, output: Path | None, error: type[MoAError]) -> None:
    """Print a text, or write it to a file. An older file is overwritten, because such a text can be
    made again at any time.

    Raises `error` if the file cannot be written, UsageError if its name is not allowed."""
    if output is None:
        sys.stdout.write(text)
        return
    check_is_text(output)
    with new_file(output, force=True, error=error) as file:
        file.write(text.encode())
    say(f"wrote {output}")
