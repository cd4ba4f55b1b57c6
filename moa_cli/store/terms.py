"""Cuts texts into the terms of the search index.

A text is folded first, so that case, accents, ligatures, and full and half width make no
difference. Then it is cut into terms. A run of letters and digits is a term. Scripts without spaces
between words (Chinese, Japanese, Korean, Thai and others) and symbols are cut at each character:
the index has overlapping pairs of characters, so that exact lookups find a query of any length.

To remove a deleted text from the index, SQLite needs the same terms again, perhaps years later and
from another version of Python. So this module defines classes of characters as ranges of code
points, and does not use properties of characters, which change with the version of Unicode. It does
use case and decomposition, which never change after they are defined.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

# Characters that are cut apart: symbols, Thai, Lao, Tibetan, Burmese, Khmer, Korean, Chinese,
# Japanese, Yi, and all above the basic plane (rare characters, emoji).
_SINGLE = (
    r"\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u17d7-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
    r"\u20a0-\u20cf\u2190-\u24ff\u25a0-\u2bff\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f\u3031-\u30fa"
    r"\u30fc-\u4dbf\u4dc0-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00010000-\U0010ffff"
)
# Characters between terms: controls, white space, punctuation, box drawing, variation selectors.
_BETWEEN = (
    r"\x00-/:-@\[-`{-\xa9\xab\xac\xae-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u037e\u0387\u055a-\u055f\u0589"
    r"\u058a\u05be\u060c\u061b\u061f\u06d4\u0964\u0965\u10fb\u1361-\u1368\u17d4-\u17d6\u2000-\u206f"
    r"\u2500-\u259f\u2e00-\u2e7f\u2ff0-\u3004\u3008-\u3020\u3030\u30fb\ud800-\udfff\ufe00-\ufe1f"
    r"\ufe30-\ufe6f\ufeff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufff0-\uffff"
)
# Characters that folding may change, such as soft hyphens and vowel points.
_VARYING = (
    r"\xad\xc0-\u036f\u0370-\u0373\u0376-\u03ff\u0400-\u052f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a"
    r"\u0622-\u0626\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1d2c-\u1d6a\u1dc0-\u1fff\u2070-\u209c"
    r"\ufb00-\ufb4f\ufb50-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
    r"\U0001d400-\U0001d7ff"
)
_ASCII_RUN = re.compile("[a-z0-9]+")


_RUN = f"[{_SINGLE}]+|[^{_SINGLE}{_BETWEEN}]+"
# The run of a text before folding, in which a combining mark belongs to the character before it.
_RAW_RUN = f"[^{_BETWEEN}]+"
_CUT = f"[{_SINGLE}]"
_VARYING_RUN = f"[{_VARYING}]+"
_MARK = (
    "[\xad\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06ed\u1dc0-\u1dff]"
)
_CLUSTER = r"[\u1100-\u115f][\u1160-\u11ff]*|(?s:.)[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*"


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """The compiled pattern. It is compiled on first use, for a text that is not ASCII, because this
    takes 5 ms and would slow down the start of each command."""
    return re.compile(text)


# Letters that have no decomposition, with the plain letters that people often type for them.
_TYPED = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ŧ": "t"}
    | {"ı": "i", "ŋ": "n", "ſ": "s", "ĸ": "k"}
)
# A search finds parts of words only in words of these lengths. Other words are found as a whole, or
# by their beginning.
_SHORTEST_KNOWN, LONGEST_KNOWN = 4, 64


class Unit(NamedTuple):
    """A word or a single character of a text, folded, with its place in the text.

    joined: whether it directly follows the unit before.
    """

    text: str
    joined: bool
    start: int
    end: int


def folded(text: str) -> str:
    """Fold a text: different ways to write the same word become the same text."""
    if text.isascii():
        return text.lower()
    return _pattern(_VARYING_RUN).sub(
        lambda run: _plain_run(run[0]), unicodedata.normalize("NFC", text).casefold()
    )


def varies(text: str) -> bool:
    """Whether folding `text` changes more than upper and lower case."""
    if text.isascii():
        return False
    changed = _pattern(_VARYING_RUN).search(text)
    return changed is not None or not unicodedata.is_normalized("NFC", text)


@lru_cache(maxsize=20_000)
def _plain_run(run: str) -> str:
    bare = _pattern(_MARK).sub("", unicodedata.normalize("NFKD", run).casefold().translate(_TYPED))
    return unicodedata.normalize("NFC", bare)


def runs(text: str) -> list[str]:
    """The runs of a text: words, or sequences of characters that are cut apart."""
    if text.isascii():
        return _ASCII_RUN.findall(text.lower())
    return _pattern(_RUN).findall(folded(text))


def is_single(run: str) -> bool:
    """Whether a run is a sequence of characters that are cut apart."""
    return not run.isascii() and _pattern(_CUT).match(run) is not None


def pairs(run: str) -> list[str]:
    """The terms for a sequence of characters that are cut apart, one for each character."""
    return [run[place : place + 2] for place in range(len(run))]


def units(text: str) -> list[Unit]:
    """The words and single characters of a text, in order."""
    if text.isascii():
        matches = _ASCII_RUN.finditer(text.lower())
        return [Unit(match.group(), False, *match.span()) for match in matches]
    return [
        unit
        for match in _pattern(_RAW_RUN).finditer(text)
        for unit in _units(match.group(), *match.span())
    ]


def _units(raw: str, start: int, end: int) -> Iterator[Unit]:
    """The units of a part of a text without separators."""
    if raw.isascii():
        yield Unit(raw.lower(), False, start, end)
        return
    cut = _pattern(_CUT).search
    if cut(raw) is None and cut(folded(raw)) is None:
        for word in runs(raw):
            yield Unit(word, False, start, end)
        return
    # Each folded character with its place in the original text.
    origins: list[tuple[str, int, int]] = []
    for cluster in _pattern(_CLUSTER).finditer(raw):
        span = start + cluster.start(), start + cluster.end()
        origins += [(character, *span) for character in folded(cluster.group())]
    line = "".join(character for character, _, _ in origins)
    for run in _pattern(_RUN).finditer(line):
        if is_single(run.group()):
            for place in range(run.start(), run.end()):
                yield Unit(origins[place][0], place > run.start(), *origins[place][1:])
        else:
            last = origins[run.end() - 1][2]
            yield Unit(run.group(), False, origins[run.start()][1], last)


def _indexed(text: str | None) -> str:
    """The terms of a text with spaces between them. The index cuts at the spaces."""
    if not text:
        return ""
    if text.isascii():
        return " ".join(runs(text))
    terms: list[str] = []
    for run in runs(text):
        if is_single(run):
            terms += pairs(run)
        else:
            terms.append(run)
    return " ".join(terms)


def _known(*texts: str | None) -> str:
    """The words of texts in which parts can be found, as a JSON list."""
    words = {word for text in texts if text for word in _indexed(text).split(" ")}
    fitting = (word for word in words if _SHORTEST_KNOWN <= len(word) <= LONGEST_KNOWN)
    return json.dumps([word for word in fitting if word.isascii() or not is_single(word)])


def register(connection: sqlite3.Connection) -> None:
    """Register the functions that the triggers call, which update the index with each turn."""
    connection.create_function("moa_terms", 1, _indexed, deterministic=True)
    connection.create_function("moa_words", -1, _known, deterministic=True)
