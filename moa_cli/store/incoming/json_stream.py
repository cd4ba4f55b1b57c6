"""Reads JSON in pieces, so that a file of any size takes little memory.

`JsonStream` walks the outer objects and lists, and `json` parses each value in them as a whole. So
errors have the wording of `json`, with line and column. NaN and infinity are accepted, because
older exports of moa may contain them. A parser such as `ijson` refuses them, so it is not used.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_CHUNK = 1 << 16
# The most characters of one value. A longer one would fill the memory.
_LONGEST = 64 << 20
# If an error is this close, in characters, to the end of the text that was read, the cause may only
# be that the rest was not read yet.
_MARGIN = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder()


class JsonFault(ValueError):
    """The file is not JSON, or cannot be read; the message says where."""


class EncodingFault(JsonFault):
    """The file is not text."""


class JsonStream:
    """A JSON file, read from its beginning. All methods raise JsonFault."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False
        # The place in the file where `_text` begins.
        self._line, self._column = 1, 1
        start = file.read(_CHUNK)
        encoding = json.detect_encoding(start[:4]) if len(start) > 1 else "utf-8"
        self._encoding = encoding.removesuffix("-sig").upper()
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._add(start)

    def next(self) -> str:
        """The next character that is not white space, without taking it; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def value(self) -> Any:
        """Read the next value as a whole. Half of a surrogate pair in it becomes `?`."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                begun = error.msg.startswith("Unterminated string")
                if self._ended or not (begun or error.pos >= len(self._text) - _MARGIN):
                    raise self._fault(error.msg, error.pos) from None
            except RecursionError:
                raise self._refusal("it is nested too deeply") from None
            except ValueError:
                raise self._refusal("a number is too long") from None
            else:
                # A number at the end of the text that was read may go on in the rest. Other values
                # have an end mark.
                if self._ended or self._text[end - 1] in '"]}' or end < len(self._text) - _MARGIN:
                    break
            if len(self._text) - self._at > _LONGEST:
                raise self._refusal(f"a value is longer than {_LONGEST >> 20} MB")
            self._more()
        if _HALF.search(self._text, self._at, end):
            try:
                text = json.dumps(value, ensure_ascii=False)
            except RecursionError:
                raise self._refusal("it is nested too deeply") from None
            value = json.loads(text.encode("utf-8", "replace"))
        self._at = end
        return value

    def members(self) -> Iterator[str]:
        """Walk the next object: yield each key; the caller then reads its value."""
        for _ in self._inside("{", "}"):
            if self.next() != '"':
                raise self._fault("Expecting property name enclosed in double quotes", self._at)
            key = self.value()
            self._take(":", "Expecting ':' delimiter")
            yield key

    def items(self) -> Iterator[int]:
        """Walk the next list: yield the number of each item, from 1; the caller then reads it."""
        return self._inside("[", "]")

    def end(self) -> None:
        """Check that the file ends here."""
        if self.next():
            raise self._fault("Extra data", self._at)

    def _inside(self, opening: str, closing: str) -> Iterator[int]:
        self._take(opening, "Expecting value")
        number = 0
        if self.next() != closing:
            while True:
                number += 1
                yield number
                if self.next() != ",":
                    break
                self._at += 1
        self._take(closing, "Expecting ',' delimiter")

    def _take(self, character: str, message: str) -> None:
        if self.next() != character:
            raise self._fault(message, self._at)
        self._at += 1

    def _more(self) -> None:
        """Read more of the file: as much as is held already, so that a long value is not parsed too
        often."""
        gone = self._text[: self._at]
        if lines := gone.count("\n"):
            self._line += lines
            self._column = 1
        self._column += len(gone) - (gone.rfind("\n") + 1)
        self._text = self._text[self._at :]
        self._at = 0
        self._add(self._file.read(max(_CHUNK, len(self._text))))

    def _add(self, data: bytes) -> None:
        self._ended = not data
        try:
            self._text += self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            read = self._text + error.object[: error.start].decode(error.encoding, "ignore")
            line = self._line + read.count("\n")
            byte = len(read[read.rfind("\n") + 1 :].encode("utf-8", "replace")) + 1
            value = error.object[error.start]
            raise EncodingFault(
                f"is not {self._encoding} text: byte {byte} of line {line} is 0x{value:02X}"
            ) from None

    def _refusal(self, what: str) -> JsonFault:
        return self._fault(what, self._at, "not an export of conversations")

    def _fault(self, message: str, at: int, kind: str = "not JSON") -> JsonFault:
        before = self._text[:at]
        lines = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1) + (1 if lines else self._column)
        return JsonFault(f"{kind}: {message} (line {self._line + lines}, column {column})")
