"""Paths that are typed, pasted or dragged into the terminal."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from moa_cli.core.file_search import is_pattern
from moa_cli.core.text import prompt_text

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf"})
_LONGEST = 4096


def pasted_files(text: str) -> tuple[list[Path], str]:
    """The files that lines of a prompt name, and the prompt without these lines.

    A line counts if it is nothing but the path of an image or a PDF file that is there, as
    terminals paste it: bare, in quotation marks, with backslashes before its spaces, or as a
    `file:` address.
    """
    if not any(suffix in text.lower() for suffix in _SUFFIXES):
        return [], text
    files: list[Path] = []
    rest: list[str] = []
    for line in text.split("\n"):
        path = _path_of(line.strip())
        if path is None:
            rest.append(line)
        else:
            files.append(path)
    return files, prompt_text("\n".join(rest)) if files else text


def named_paths(argument: str) -> list[str]:
    """The paths, and patterns of paths, that a user has typed or pasted after a command.

    Several are separated by spaces, as in a shell. A file whose name has spaces needs no quotation
    marks if it is the only one.
    """
    forms = [argument, *_forms(argument)]
    if (whole := next((form for form in forms if _is_there(form)), None)) is not None:
        return [whole]
    try:
        words = shlex.split(argument, posix=os.name != "nt")
    except ValueError:
        return forms[-1:]
    words = [word.strip("\"'") for word in words]
    if len(words) > 1 and all(_is_there(word) or is_pattern(word) for word in words):
        return words
    return forms[-1:] if len(forms) > 1 and len(words) == 1 else [argument]


def _path_of(line: str) -> Path | None:
    """The file that a line names; None if it names none that can be attached."""
    if not line or len(line) > _LONGEST:
        return None
    for form in (line, *_forms(line)):
        # An unknown home, a NUL character, or a name that is too long.
        with suppress(OSError, RuntimeError, ValueError):
            path = Path(form).expanduser()
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                return path
    return None


def _forms(line: str) -> list[str]:
    """What a line means as a path if it is not taken as it is: without quotation marks, without
    backslashes before spaces, or without the scheme of a `file:` address."""
    if len(line) > 2 and line[0] == line[-1] and line[0] in "'\"":
        return [line[1:-1]]
    if line.startswith("file://"):
        return [unquote(line.removeprefix("file://").removeprefix("localhost"))]
    # On Windows a backslash separates folders.
    return [re.sub(r"\\(.)", r"\1", line)] if "\\" in line else []


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists() or Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
