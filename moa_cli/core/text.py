"""Helpers for texts: plurals, the nearest name, and JSON that is safe to print."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# Only this many characters of an unknown name are compared, because the comparison of long texts
# takes long. Nobody types a longer name.
_LONGEST_NAME = 60
# A parameter of an address whose name suggests a secret, with its value.
SECRET_PARAMETER = re.compile(
    r"([?&][\w.-]*(?:key|token|secret|sig|signature|auth)=)[^&\s\"'#\\]+", re.IGNORECASE
)
# Characters that control a terminal or cannot be encoded, and that `json.dumps` does not escape.
ACTIVE = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
# A text of this many characters counts as a sentence, even without an end mark.
_A_SENTENCE = 200
# A sentence has at least two words (`1.` and `Dr.` are none), or four letters in a script without
# spaces, before its end mark. A line that is followed by another line also counts as one.
_SENTENCE = re.compile(
    r"\w\S*[ \t]+[^.!?\n]*\w\S*?[.!?:…]+[\"'”’)\]*_]*(?:\s|\Z)"
    r"|\w{4,}[^。！？\n]*[。！？]"
    r"|\w[^\n]*\n\s*\S"
)


def plural(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`, `1,000 turns`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    """`is` for one, `are` for any other number."""
    return "is" if number == 1 else "are"


def without_login(text: str) -> str:
    """The text without the user names and passwords of web addresses in it, and without the values
    of parameters that are named like secrets."""
    return SECRET_PARAMETER.sub(r"\1***", re.sub(r"(?<=://)[^/?#\s]*@", "***@", text))


def without_password(address: str) -> str:
    """The address without its password, or without a token in place of a user name. The scheme may
    be missing."""
    return re.sub(r"(?is)^([a-z][a-z0-9+.-]*://)?([^:/@]*:)?.*@", r"\1\2***@", address)


def when_text(at: float) -> str:
    """The local time, in minutes. at: seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def wrapped(text: str, width: int, measure: Callable[[str], int] = len) -> list[str]:
    """A line folded into rows of at most `width`, one at least. It is folded only between words.

    Spaces before the first word and between two words of a row stay as they are. measure: returns
    the width of a text.
    """
    rows, row, used = [], "", 0
    for space, word in re.findall(r"(\s*)(\S+)", text):
        taken = measure(space) + measure(word)
        if row and used + taken > width:
            rows.append(row)
            row, used = word, measure(word)
        else:
            row, used = row + space + word, used + taken
    return [*rows, row]


def byte_count(count: int) -> str:
    """`512 bytes`, `12 kB`, `3.4 MB`."""
    if count < 1000:
        return plural(count, "byte")
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:,.1f} MB"


def with_hint(message: str, hint: str | None) -> str:
    """A message, with its hint in brackets if there is one."""
    return f"{message} ({hint})" if hint else message


def holds_sentence(text: str) -> bool:
    """Whether `text`, which may break off anywhere, contains a sentence or an equal length of
    text."""
    return len(text) >= _A_SENTENCE or _SENTENCE.search(text) is not None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`; None if none is similar."""
    import difflib

    close = difflib.get_close_matches(word[:_LONGEST_NAME], list(known), n=1, cutoff=0.65)
    return close[0] if close else None


def meant(word: str, known: Collection[str], otherwise: str = "") -> str:
    """A hint for an unknown word that a user has typed: the nearest known word, else `otherwise`,
    else all known words."""
    near = nearest(word, known)
    return f"did you mean `{near}`?" if near else otherwise or f"there are {', '.join(known)}"


def quoted(name: str) -> str:
    """A key in TOML: in quotes unless it is a plain word."""
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def dumps(values: object, *, indent: int | None = None, allow_nan: bool = True) -> str:
    """JSON in readable Unicode, without characters that control a terminal. Unless `allow_nan`,
    NaN and infinite numbers, which are not JSON, raise ValueError."""
    text = json.dumps(values, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    return harmless_json(text)


def loads_or_none(text: str) -> Any:
    """The value of a JSON text; None if the text is not JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_json(text: str) -> bool:
    """Whether a whole text is JSON."""
    return loads_or_none(text) is not None or text.strip() == "null"


def harmless_json(text: str) -> str:
    """A JSON text with characters that control a terminal escaped."""
    return ACTIVE.sub(lambda match: json.dumps(match.group())[1:-1], text)


def fenced(text: str, name: str = "") -> str:
    """`text` in a fence of backticks that is longer than any run of backticks in it. name: a label
    above the fence, if there is one."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    label = f"{' '.join(name.split())}:\n" if name else ""
    return f"{label}{fence}\n{text.rstrip()}\n{fence}"


def prompt_text(text: str) -> str:
    """A prompt without empty lines around it and without white space at its end.

    The first line keeps its indentation, because the prompt may be code. But a single space at the
    beginning of a one-line prompt is removed: users type it to keep the prompt out of the history
    of a chat or a shell.
    """
    whole = re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip()
    return whole.strip() if re.fullmatch(r" \S.*", whole) else whole


class WholeCharacters:
    """The characters of a text that arrives in pieces.

    JSON writes a character beyond U+FFFF, such as an emoji, as two escapes. Some endpoints cut it
    in two, and send each half in its own chunk; neither of them can be encoded.

    half: the first half of a character at the end of the text so far, or "".
    """

    def __init__(self) -> None:
        self.half = ""

    def take(self, piece: str) -> str:
        """The next piece, behind a half that was held back. A half without the other one becomes
        U+FFFD."""
        if piece.isascii() and not self.half:
            return piece
        text, self.half = self.half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.half = text[:-1], text[-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text
