"""What users call conversations: titles, and tags by which they find them again."""

from __future__ import annotations

import re
import unicodedata

_LONGEST, _LONGEST_TITLE = 50, 200
_NONE = re.compile(r"[\s,\x00-\x1f\x7f-\x9f]")


def checked_tag(text: str) -> str:
    """The tag as it is kept: in small letters, so that `Work` and `work` are one.

    Raises ValueError if it is none.
    """
    tag = unicodedata.normalize("NFC", text.strip().removeprefix("#")).lower()
    visible = any(unicodedata.category(letter)[0] in "LNSP" for letter in tag)
    if not visible or len(tag) > _LONGEST or tag.startswith("-") or _NONE.search(tag):
        raise ValueError(
            f"{text[:80]!r} is not a tag (up to {_LONGEST} letters, without spaces and commas)"
        )
    return tag


def checked_title(text: str) -> str:
    """The title as it is kept, on one line. Raises ValueError if it is empty or too long."""
    title = " ".join(text.split())
    if not title:
        raise ValueError("a title cannot be empty")
    if len(title) > _LONGEST_TITLE:
        raise ValueError(f"a title has at most {_LONGEST_TITLE} characters, not {len(title)}")
    return title
