"""The words of a text, as the search index holds them.

A text is folded first: upper and lower case, accents, ligatures, full and half width are one.
Then it is cut into terms. A run of letters and digits is a term. Scripts without spaces between
words (Chinese, Japanese, Korean, Thai and others), and symbols, are cut at each character: the
index holds overlapping pairs of them, so that a query of any length is found by exact lookups.

The index must forget a deleted text, and for that it is given the same terms again, perhaps years
later by another Python. So the classes are ranges of code points, not properties that change with
Python's version of Unicode; case and decomposition of a character never change once it has them.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# Cut at each character: symbols, Thai, Lao, Tibetan, Burmese, Khmer, Korean, Chinese, Japanese,
# Yi, and all above the basic plane (rare characters, emoji).
_SINGLE = (
    r"\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u17d7-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
    r"\u20a0-\u20cf\u2190-\u24ff\u25a0-\u2bff\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f\u3031-\u30fa"
    r"\u30fc-\u4dbf\u4dc0-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00010000-\U0010ffff"
)
# Part terms: controls, blanks, punctuation, box drawing, selectors.
_BETWEEN = (
    r"\x00-/:-@\[-`{-\xa9\xab\xac\xae-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u037e\u0387\u055a-\u055f\u0589"
    r"\u058a\u05be\u060c\u061b\u061f\u06d4\u0964\u0965\u10fb\u1361-\u1368\u17d4-\u17d6\u2000-\u206f"
    r"\u2500-\u259f\u2e00-\u2e7f\u2ff0-\u3004\u3008-\u3020\u3030\u30fb\ud800-\udfff\ufe00-\ufe1f"
    r"\ufe30-\ufe6f\ufeff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufff0-\uffff"
)
# What is written in several ways, soft hyphens and vowel points included.
_VARYING = (
    r"\xad\xc0-\u036f\u0370-\u0373\u0376-\u03ff\u0400-\u052f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a"
    r"\u0622-\u0626\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1d2c-\u1d6a\u1dc0-\u1fff\u2070-\u209c"
    r"\ufb00-\ufb4f\ufb50-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
    r"\U0001d400-\U0001d7ff"
)
_ASCII_RUN = re.compile("[a-z0-9]+")
_RUN = re.compile(f"[{_SINGLE}]+|[^{_SINGLE}{_BETWEEN}]+")
# As a text has it before it is folded: a mark belongs to the character before it.
_RAW_RUN = re.compile(f"[^{_BETWEEN}]+")
_IS_SINGLE = re.compile(f"[{_SINGLE}]")
_VARIES = re.compile(f"[{_VARYING}]+")
_MARK = re.compile(
    "[\xad\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1dc0-\u1dff]"
)
_CLUSTER = re.compile(
    r"[\u1100-\u115f][\u1160-\u11ff]*|.[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*", re.DOTALL
)
# Letters that are not decomposed, but are typed without their strokes where there is no key.
_TYPED = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ŧ": "t"}
    | {"ı": "i", "ŋ": "n", "ſ": "s", "ĸ": "k"}
)
# Words in which parts are looked for. Longer ones are found whole, or by their beginnings.
_SHORTEST_KNOWN, _LONGEST_KNOWN = 4, 64


class Unit(NamedTuple):
    """A word, or one character of those that are cut apart; and where the text has it.

    single: whether it is such a character. joined: whether it follows the one before directly.
    """

    text: str
    single: bool
    joined: bool
    start: int
    end: int


def folded(text: str) -> str:
    """`text` with what is written in several ways written in one."""
    if text.isascii():
        return text.lower()
    return _VARIES.sub(_plain, unicodedata.normalize("NFC", text).casefold())


def varies(text: str) -> bool:
    """Whether folding `text` changes more than upper and lower case."""
    if text.isascii():
        return False
    return _VARIES.search(text) is not None or not unicodedata.is_normalized("NFC", text)


def _plain(match: re.Match[str]) -> str:
    return _plain_run(match.group())


@lru_cache(maxsize=20_000)
def _plain_run(run: str) -> str:
    bare = _MARK.sub("", unicodedata.normalize("NFKD", run).casefold().translate(_TYPED))
    return unicodedata.normalize("NFC", bare)


def runs(text: str) -> list[str]:
    """The runs of a text: of letters and digits, or of characters that are cut apart."""
    if text.isascii():
        return _ASCII_RUN.findall(text.lower())
    return _RUN.findall(folded(text))


def is_single(run: str) -> bool:
    """Whether a run is one of characters that are cut apart."""
    return not run.isascii() and _IS_SINGLE.match(run) is not None


def pairs(run: str) -> list[str]:
    """The terms that stand for a run of characters that are cut apart: one for each of them."""
    return [run[place : place + 2] for place in range(len(run))]


def units(text: str) -> list[Unit]:
    """The units of a text in their order."""
    if text.isascii():
        matches = _ASCII_RUN.finditer(text.lower())
        return [Unit(match.group(), False, False, *match.span()) for match in matches]
    return [
        unit for match in _RAW_RUN.finditer(text) for unit in _units(match.group(), *match.span())
    ]


def _units(raw: str, start: int, end: int) -> Iterator[Unit]:
    """The units of a part that holds nothing that parts them."""
    if raw.isascii():
        yield Unit(raw.lower(), False, False, start, end)
        return
    if _IS_SINGLE.search(raw) is None and _IS_SINGLE.search(folded(raw)) is None:
        for word in runs(raw):
            yield Unit(word, False, False, start, end)
        return
    # Where each folded character comes from.
    origins: list[tuple[str, int, int]] = []
    for cluster in _CLUSTER.finditer(raw):
        span = start + cluster.start(), start + cluster.end()
        origins += [(character, *span) for character in folded(cluster.group())]
    line = "".join(character for character, _, _ in origins)
    for run in _RUN.finditer(line):
        if is_single(run.group()):
            for place in range(run.start(), run.end()):
                yield Unit(origins[place][0], True, place > run.start(), *origins[place][1:])
        else:
            last = origins[run.end() - 1][2]
            yield Unit(run.group(), False, False, origins[run.start()][1], last)


def _indexed(text: str | None) -> str:
    """The terms of a text, blanks between them, for the index to cut at."""
    if not text:
        return ""
    if text.isascii():
        return " ".join(_ASCII_RUN.findall(text.lower()))
    terms: list[str] = []
    for run in _RUN.findall(folded(text)):
        if is_single(run):
            terms += pairs(run)
        else:
            terms.append(run)
    return " ".join(terms)


def _known(*texts: str | None) -> str:
    """The words of texts in which parts of words are looked for, as a JSON list."""
    words = {word for text in texts if text for word in _indexed(text).split(" ")}
    return json.dumps([word for word in words if _may_be_known(word)])


def _may_be_known(word: str) -> bool:
    return _SHORTEST_KNOWN <= len(word) <= _LONGEST_KNOWN and not is_single(word)


def register(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that the triggers of the search index call.

    They are used at each change of a turn, so a connection needs them to write, not to read.
    """
    connection.create_function("moa_terms", 1, _indexed, deterministic=True)
    connection.create_function("moa_words", -1, _known, deterministic=True)
