"""`-f a.py b.py "question"`: further files after the path of `-f` are attached, too.

A shell expands `-f *.py` to this, and people type it. Only words that come directly after the path
of a `-f` and name existing files are taken as files, so the question is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from moa_cli.core.errors import UsageError

_OPTIONS = ("-f", "--file")


def with_following_files(arguments: list[str]) -> Iterator[str]:
    """The arguments of a command with `-f` before each file that follows another one."""
    rest = iter(arguments)
    after_file = False
    for word in rest:
        if word == "--":
            # All that follows is the question.
            yield word
            yield from rest
            return
        if word in _OPTIONS:
            yield word
            path = next(rest, None)
            if path is not None:
                yield path
            after_file = True
            continue
        if after_file and _names_files(word):
            yield _OPTIONS[0]
        else:
            after_file = word.startswith(("--file=", "-f")) and len(word) > 2
        yield word


def _names_files(word: str) -> bool:
    if word.startswith("-"):
        return False
    from moa_cli.core.files.search import FileSearch, is_pattern

    try:
        path = Path(word).expanduser()
        if path.exists():
            # A bare word that is also a folder, such as `tests`, is more likely a question.
            return not path.is_dir() or "/" in word or "\\" in word
        return is_pattern(word) and not word.split()[1:] and bool(FileSearch().files_like(word))
    except UsageError:
        # There are too many files. They count as files here, and attaching them reports the error.
        return True
    except (OSError, RuntimeError, ValueError):
        # The word cannot be a path: it is too long, has a NUL character, or names an unknown home.
        return False
