"""Paths of images and PDF files that are pasted or dragged into the terminal, each on its line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

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


def _path_of(line: str) -> Path | None:
    """The file that a line names; None if it names none that can be attached."""
    if not line or len(line) > _LONGEST:
        return None
    forms = [line]
    if len(line) > 2 and line[0] == line[-1] and line[0] in "'\"":
        forms = [line[1:-1]]
    elif line.startswith("file://"):
        forms = [unquote(line.removeprefix("file://").removeprefix("localhost"))]
    elif "\\" in line:
        # On Windows it separates folders.
        forms.append(re.sub(r"\\(.)", r"\1", line))
    for form in forms:
        # An unknown home, a NUL character, or a name that is too long.
        with suppress(OSError, RuntimeError, ValueError):
            path = Path(form).expanduser()
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                return path
    return None
