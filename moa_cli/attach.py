"""Texts put beside a prompt: files and piped input, each in a fence."""

from __future__ import annotations

import re
from pathlib import Path

from moa_cli import paths
from moa_cli.errors import UsageError

__all__ = ["fenced", "fenced_file"]


def fenced(text: str, name: str = "") -> str:
    """`text` in a fence that is longer than any run of backticks inside it, under its name."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    label = f"{' '.join(name.split())}:\n" if name else ""
    return f"{label}{fence}\n{text.rstrip()}\n{fence}"


def fenced_file(path: Path) -> str:
    """The text of a file, fenced under its path.

    Raises UsageError if it cannot be read, or is no UTF-8 text.
    """
    try:
        text = paths.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file (UTF-8)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if "\0" in text:
        raise UsageError(f"{path}: is not a text file")
    return fenced(text, str(path))
