"""Files that the user names in a line: mentioned, pasted or dragged, or typed after a command.

A mention is `@src/main.py`. If the path has spaces, it is `@"my notes.txt"`, `@'my notes.txt'` or
`@my\\ notes.txt`. An `@` begins a mention only if it is not part of a longer name. So mail
addresses, decorators in code (`` `@property` ``) and similar words stay text.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.search import FileSearch, is_pattern
from moa_cli.core.text import prompt_text

_START = r"(?<![A-Za-z0-9_.+%@/\\`-])@"
_MENTION = re.compile(rf"""{_START}(?:"([^"\n]+)"|('[^'\n]+'|(?:\\ |[^\s"`])+))""")
_BEGUN = re.compile(rf'{_START}("?)([^"\n]*)\Z')
# Punctuation that may follow a path in a sentence. Line numbers may follow, too, as in the messages
# of compilers, or an ending as in `@notes.txt's first line`.
_AFTER = ".,;:!?)]}>'’”»，。；：！？、）」』】"
_BEHIND = re.compile(r":\d+(?:[-:]\d+)?\Z|['’]s\Z")
# A path as people write one: with a folder, or with a suffix.
_LIKE_A_PATH = re.compile(r"[\w~.-]*[\w~.-][/\\][\w/\\.~-]*[\w.]|[\w-]+\.[A-Za-z][A-Za-z0-9]{0,4}")
# A pasted path counts as a file only with one of these suffixes.
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf"})
_LONGEST = 4096


def begun_mention(before: str) -> tuple[bool, str] | None:
    """The mention at the cursor: whether it is in quotation marks, and the typed part of its path.
    None if there is no mention at the cursor. before: the text before the cursor."""
    match = _BEGUN.search(before)
    if match is None or (not match[1] and re.search(r"[\s`]", match[2])):
        return None
    return bool(match[1]), match[2]


def mentioned_files(text: str) -> tuple[list[str], list[str]]:
    """The files, folders and patterns that a prompt mentions. Returns the paths that exist, each
    once; and the words that look like a path, but do not exist."""
    found: dict[str, None] = {}
    missing: dict[str, None] = {}
    for match in _MENTION.finditer(text):
        forms = [match[1]] if match[1] else list(_mentioned_forms(match[2]))
        path = next((form for form in forms if _leads_somewhere(form)), None)
        if path is not None:
            found[path] = None
        elif match[1] or "\\ " in match[2] or any(_LIKE_A_PATH.fullmatch(form) for form in forms):
            missing[forms[-1]] = None
    return list(found), list(missing)


def _mentioned_forms(word: str) -> Iterator[str]:
    """The possible paths that a word may mean, the most likely first."""
    yield word
    yield from _pasted_forms(word)
    if behind := _BEHIND.search(word):
        yield from _mentioned_forms(word[: behind.start()])
    bare = word.rstrip(_AFTER)
    if bare and bare != word:
        yield from _mentioned_forms(bare)


def _leads_somewhere(text: str) -> bool:
    try:
        if os.path.lexists(paths.expand(text)):
            return True
        return is_pattern(text) and bool(FileSearch().files_like(text))
    except UsageError:
        # There are too many files. The error comes when they are attached.
        return True
    except (OSError, ValueError, RuntimeError):
        # A NUL character, a name that is too long, or an unknown home.
        return False


def pasted_files(text: str) -> tuple[list[Path], str]:
    """The files that are named on separate lines of a prompt, and the prompt without these lines.

    A line counts if it is only the path of an existing image or PDF file, as terminals paste it:
    bare, in quotation marks, with backslashes before its spaces, or as a `file:` address.
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
    forms = [argument, *_pasted_forms(argument)]
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
    """The file that a line names; None if the line is not the path of an image or PDF file."""
    if not line or len(line) > _LONGEST:
        return None
    for form in (line, *_pasted_forms(line)):
        # An unknown home, a NUL character, or a name that is too long.
        with suppress(OSError, RuntimeError, ValueError):
            path = Path(form).expanduser()
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                return path
    return None


def _pasted_forms(line: str) -> list[str]:
    """The other path that a pasted line may mean: without its quotation marks, without its
    backslashes before spaces, or without the scheme of a `file:` address."""
    if len(line) > 2 and line[0] == line[-1] and line[0] in "'\"":
        return [line[1:-1]]
    if line.startswith("file://"):
        return [unquote(line.removeprefix("file://").removeprefix("localhost"))]
    # A backslash protects the next character. Nothing is lost on Windows, where it separates
    # folders, because the unchanged line is tried first.
    return [re.sub(r"\\(.)", r"\1", line)] if "\\" in line else []


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists() or Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
