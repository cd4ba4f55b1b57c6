"""Texts put beside a prompt: files and piped input, each in a fence."""

from __future__ import annotations

import re
from pathlib import Path

from moa_cli.core.text_files import read_text

__all__ = ["fenced", "fenced_file"]


def fenced(text: str, name: str = "") -> str:
    """`text` in a fence that is longer than any run of backticks inside it, under its name."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    label = f"{' '.join(name.split())}:\n" if name else ""
    return f"{label}{fence}\n{text.rstrip()}\n{fence}"


def fenced_file(path: Path) -> str:
    """The text of a file, fenced under its path.

    Raises UsageError if it cannot be read, or is not text (see `text_files`).
    """
    return fenced(read_text(path), str(path))
