"""Files that a prompt mentions: `@src/main.py`, or `@"my notes.txt"` where the path has spaces.

An `@` begins a mention only where no name can go on, so that addresses of mail, decorators in code
(`` `@property` ``) and the like stay text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.file_search import Search, is_pattern

_START = r"(?<![A-Za-z0-9_.+%@/\\`-])@"
_MENTION = re.compile(rf'{_START}(?:"([^"\n]+)"|([^\s"`]+))')
_BEGUN = re.compile(rf'{_START}("?)([^"\n]*)\Z')
# What follows a path in a sentence, and the lines of a file as compilers name them.
_AFTER = ".,;:!?)]}>'’”»，。；：！？、）」』】"
_LINES = re.compile(r":\d+(?:[-:]\d+)?\Z")
# A path as people write one: with a folder, or with a suffix.
_LIKE_A_PATH = re.compile(r"[\w~.-]*[\w~.-][/\\][\w/\\.~-]*[\w.]|[\w-]+\.[A-Za-z][A-Za-z0-9]{0,4}")


def begun_mention(before: str) -> tuple[bool, str] | None:
    """The mention that the cursor is in.

    Args:
        before: The text before the cursor.

    Returns:
        Whether it is in quotation marks, and what of the path is typed; None if the cursor is in no
        mention.
    """
    match = _BEGUN.search(before)
    if match is None or (not match[1] and re.search(r"[\s`]", match[2])):
        return None
    return bool(match[1]), match[2]


def mentioned_files(text: str) -> tuple[list[str], list[str]]:
    """The files, folders and patterns of files that a prompt mentions.

    Args:
        text: The prompt.

    Returns:
        The paths of those that are there, each once; and those that look like a path, but lead to
        nothing.
    """
    found: dict[str, None] = {}
    missing: dict[str, None] = {}
    for match in _MENTION.finditer(text):
        forms = [match[1]] if match[1] else list(_forms(match[2]))
        path = next((form for form in forms if _is_there(form)), None)
        if path is not None:
            found[path] = None
        elif match[1] or any(_LIKE_A_PATH.fullmatch(form) for form in forms):
            missing[forms[-1]] = None
    return list(found), list(missing)


def _forms(word: str) -> Iterator[str]:
    """What a word may mean as a path, the likeliest first."""
    yield word
    if numbered := _LINES.search(word):
        yield word[: numbered.start()]
    bare = word.rstrip(_AFTER)
    if bare and bare != word:
        yield from _forms(bare)


def _is_there(text: str) -> bool:
    try:
        if os.path.lexists(paths.expand(text)):
            return True
        return is_pattern(text) and bool(Search().files_like(text))
    except UsageError:
        # So many files that attaching them says so.
        return True
    except (OSError, ValueError, RuntimeError):
        # A NUL character, a name that is too long, or an unknown home.
        return False
