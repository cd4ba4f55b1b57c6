"""Reads text files of users, and keeps their encoding and line ends.

All files that users write or attach, and standard input, are read here. They are in UTF-8, with or
without a byte order mark, or in UTF-16 with one, as editors and shells on Windows write it. No
other encoding is guessed, because a wrong guess silently changes letters.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import MoAError, UsageError

STANDARD_INPUT = "standard input"

# Byte order marks. The mark of UTF-32 LE comes first, because it begins with the mark of UTF-16 LE.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Files that are not text even if their bytes happen to be UTF-8: how they begin, what they are, and
# what the user can do.
_KINDS = (
    (rb"%PDF-\d\.\d\s*[\r\n]", "a PDF file", "extract its text first: `pdftotext`"),
    (rb"\x1f\x8b", "a compressed file (gzip)", "unpack it first: `gunzip`"),
    (rb"\x28\xb5\x2f\xfd", "a compressed file (zstd)", "unpack it first: `unzstd`"),
    (rb"\xfd7zXZ", "a compressed file (xz)", "unpack it first: `unxz`"),
    (rb"BZh[1-9]1AY&SY", "a compressed file (bzip2)", "unpack it first: `bunzip2`"),
    (rb"PAR1[\0-\x1f]", "a Parquet file", "`moa batch` reads it, if its name ends in .parquet"),
    (rb"PK\x03\x04", "a ZIP archive or an office document", "export it as text first"),
)
_SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class SourceText:
    """The text of a file, with the facts that are needed to write it back in the same form.

    If all line ends of the file are `newline`, `text` has `\\n` in their place. Otherwise `text`
    has the line ends of the file. `encoding` is Python's name.
    """

    text: str
    encoding: str = "utf-8"
    newline: str = "\n"

    def encode(self, text: str) -> bytes:
        """The bytes of a file that holds `text` in the same form. Raises UnicodeEncodeError."""
        mark = next((mark for mark, name in _MARKS if name == self.encoding), b"")
        body = text if self.newline == "\n" else text.replace("\n", self.newline)
        return mark + body.encode(self.encoding.removesuffix("-sig"))


def read_bytes(path: Path, error: type[MoAError] = UsageError) -> bytes:
    """The content of a file. Raises `error`, which names the file, if it cannot be read."""
    try:
        return paths.read_bytes(path)
    except OSError as trouble:
        raise error(f"{path}: cannot be read: {trouble.strerror}") from None


def read_text(path: Path, error: type[MoAError] = UsageError) -> str:
    """The text of a file, with its own line ends.

    Raises `error`, which names the file and what to do, if it cannot be read or is not text.
    """
    return text_of(read_bytes(path, error), str(path), error)


def text_of(
    data: bytes, name: str, error: type[MoAError] = UsageError, *, first_line: int = 1
) -> str:
    """Decode the bytes of a text; keep its line ends, and remove a byte order mark.

    name: of the file, for messages, or STANDARD_INPUT. first_line: the number of the first line of
    `data` in the file. Raises `error`, which names the file, the place and a remedy, if `data` is
    no text.
    """
    return _decoded(data, name, error, first_line)[0]


def read_source(data: bytes, name: str, error: type[MoAError] = UsageError) -> SourceText:
    """Decode the bytes of a text, and keep its form. See `text_of`."""
    text, encoding = _decoded(data, name, error)
    ends = text.count("\n")
    if not ends and "\r" in text:
        return SourceText(line_feeds(text), encoding, "\r")
    if ends and ends == text.count("\r\n"):
        return SourceText(line_feeds(text), encoding, "\r\n")
    return SourceText(text, encoding)


def holds_bytes(text: str) -> bool:
    """Whether a text from the command line or a terminal holds bytes that are not UTF-8.

    Python represents each of them by half of a surrogate pair.
    """
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def lines_of(text: str) -> list[str]:
    """The lines of a text without their ends: `\\n`, `\\r\\n`, or `\\r` if the text has no other.

    Unlike `str.splitlines`, this does not split at characters such as U+2028.
    """
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def line_feeds(text: str) -> str:
    """The text with `\\n` as its line end."""
    return "\n".join(lines_of(text)) if "\r" in text else text


def _decoded(data: bytes, name: str, error: type[MoAError], first_line: int = 1) -> tuple[str, str]:
    """The text, and Python's name of its encoding."""
    # Only the beginning of a file shows its kind, or has a byte order mark.
    kinds, marks = (_KINDS, _MARKS) if first_line == 1 else ((), ())
    for start, kind, remedy in kinds:
        if re.match(start, data):
            raise error(f"{name}: is not {_noun(name)}, but {kind}", hint=remedy)
    found = next((pair for pair in marks if data.startswith(pair[0])), None)
    mark, encoding = found or (b"", "utf-8")
    wide = encoding if encoding == "utf-32" else None if found else _wide(data)
    if wide is not None:
        unmarked = "" if found else ", it seems, without a byte order mark"
        raise error(
            f"{name}: is not UTF-8 text: it is {wide.upper()[:6]}{unmarked}",
            hint=f"convert it to UTF-8: `iconv -f {wide} -t utf-8`",
        )
    if b"\0" in data and not encoding.startswith("utf-16"):
        raise error(_binary(name, data.count(b"\n", 0, data.index(b"\0")) + first_line))
    try:
        text = data[len(mark) :].decode(encoding.removesuffix("-sig"))
    except UnicodeDecodeError as trouble:
        place = len(mark) + trouble.start
        if encoding.startswith("utf-16"):
            raise error(
                f"{name}: is not valid UTF-16 text: byte {place + 1} belongs to no character",
                hint="save it again as UTF-8",
            ) from None
        line = data.count(b"\n", 0, place) + first_line
        byte = place - data.rfind(b"\n", 0, place)
        raise error(
            f"{name}: is not UTF-8 text: byte {byte} of line {line} is 0x{data[place]:02X}",
            hint="convert it to UTF-8; if it is Latin-1: `iconv -f latin1 -t utf-8`",
        ) from None
    if "\0" in text:
        raise error(_binary(name, text.count("\n", 0, text.index("\0")) + 1))
    # Some programs write the mark twice.
    return text.lstrip("\ufeff") if first_line == 1 else text, encoding


def _binary(name: str, line: int) -> str:
    return f"{name}: is not {_noun(name)}: line {line} holds a NUL character"


def _noun(name: str) -> str:
    return "text" if name == STANDARD_INPUT else "a text file"


def _wide(data: bytes) -> str | None:
    """The UTF-16 or UTF-32 encoding that bytes without a byte order mark seem to have; None if they
    seem to have neither."""
    sample = data[:_SAMPLE_BYTES]
    if b"\0" not in sample or len(sample) < 4:
        return None
    for encoding, size, place in (
        ("utf-32le", 4, 0),
        ("utf-32be", 4, 3),
        ("utf-16le", 2, 0),
        ("utf-16be", 2, 1),
    ):
        whole = sample[: len(sample) // size * size]
        characters = len(whole) // size
        # In most languages, most characters have exactly one byte that is not 0, at `place`.
        if whole[place::size].count(0) or whole.count(0) < characters * (size - 1) // 2:
            continue
        try:
            # The sample may end within a character.
            text = codecs.getincrementaldecoder(encoding)().decode(whole)
        except UnicodeDecodeError:
            continue
        if all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text):
            return encoding
    return None
