"""Reads the text for a custom tool from the arguments of its function."""

from __future__ import annotations

import json
import re

from moa_cli.core.text import loads_or_none

# The beginning of arguments in the usual form, and any incomplete beginning of it.
_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HEAD_SO_FAR = re.compile(r'\s*(\{\s*("(i(n(p(u(t("(\s*(:\s*)?)?)?)?)?)?)?)?)?)?')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
# Matches the complete part of a JSON string, up to its closing quote. A part that the next piece
# may continue is not matched: a single backslash, an incomplete escape, and the first escape of a
# surrogate pair.
_WHOLE = re.compile(
    r"""(?:
        [^"\\]++
        | \\u [dD][89abAB][0-9a-fA-F]{2} (?! (?: \\ (?: u[0-9a-fA-F]{0,3} )? )? \Z )
        | \\u (?! [dD][89abAB] ) [0-9a-fA-F]{4}
        | \\ (?! u[0-9a-fA-F]{4} | u[0-9a-fA-F]{0,3}\Z ) .
    )*+""",
    re.DOTALL | re.VERBOSE,
)


def input_arguments(text: str) -> str:
    """The arguments for the function of a custom tool, from its text."""
    return json.dumps({"input": text}, ensure_ascii=False)


class CustomInput:
    """Reads the text from the arguments while they arrive: `{"input": "the text"}`.

    Arguments in another form are held back to their end, and then converted as well as possible.
    """

    def __init__(self) -> None:
        self._held = ""
        self._all: list[str] = []
        self._inside = self._other = False
        # Whether the text is complete.
        self.is_whole = False

    def take(self, piece: str) -> str:
        """The text in the next piece of the arguments."""
        if self.is_whole:
            return ""
        if not self._inside:
            self._all.append(piece)
            if self._other:
                return ""
            self._held += piece
            head = _HEAD.match(self._held)
            if head is None:
                self._other = _HEAD_SO_FAR.fullmatch(self._held) is None
                return ""
            self._inside = True
            piece, self._held = self._held[head.end() :], ""
        raw = self._held + piece
        whole = _WHOLE.match(raw)
        assert whole is not None  # the pattern also matches nothing
        self._held = raw[whole.end() :]
        self.is_whole = self._held.startswith('"')
        return _unescaped(whole[0])

    def end(self) -> str:
        """The rest of the text, after all arguments have arrived."""
        if self.is_whole:
            return ""
        self.is_whole = True
        if self._inside:
            return _unescaped(self._held)
        return _text_of("".join(self._all))


def _unescaped(raw: str) -> str:
    """The value of a JSON string. An invalid escape stays unchanged, because models forget to
    double backslashes."""

    def sign(found: re.Match[str]) -> str:
        code = found[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code in '"\\/':
            return code
        return _SIGNS.get(code, found[0])

    text = _ESCAPE.sub(sign, raw)
    # Joins the two halves of a surrogate pair; a lone half stays.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _text_of(arguments: str) -> str:
    given = loads_or_none(arguments)
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        said = [value for value in given.values() if isinstance(value, str)]
        if isinstance(given.get("input"), str):
            return str(given["input"])
        if len(given) == len(said) == 1:
            return said[0]
    # The model has written the text itself instead of JSON.
    return arguments
