"""Files that a user adds to a prompt: images, PDF files and text files, as parts of a message.

The kind of a file is found by its content, not by its name. A text file becomes a part of the
prompt's text, in a fence. Of a PDF file, only the text goes to the models. An image is stored in a
data URI.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.conversation import Part, text_of_parts
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.files.data_uris import bytes_of, data_uri, kind_of, size_of
from moa_cli.core.files.notebooks import without_pictures
from moa_cli.core.files.pdf import MOST_BYTES, is_pdf, pdf_text
from moa_cli.core.files.text import read_bytes, text_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import fenced, plural

# The most bytes of one image, and of all images of a prompt. They are limited because each image is
# sent to every model that can see, with each turn.
MOST_IMAGE_BYTES, MOST_PROMPT_BYTES = 10_000_000, 30_000_000
# The most bytes of a text file. No model can read as much.
MOST_TEXT_BYTES = 50_000_000
# The first bytes of the kinds of images that models take.
_IMAGES = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
)
SHOWN_IMAGES = frozenset(kind for _, kind in _IMAGES)
_OTHER_IMAGES = (
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "HEIC"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"BM.{4}\0\0\0\0", "BMP"),
    (rb"II\*\0|MM\0\*", "TIFF"),
    (rb"\x00\x00\x01\x00", "ICO"),
    (rb"8BPS", "Photoshop"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb"\0\0\0\x0cjP  ", "JPEG 2000"),
)
_KINDS = (*_IMAGES, *_OTHER_IMAGES)
_HEAD = 64
# A text file in a prompt, as `fenced` writes it. The fence is longer than any fence in the file.
_TEXT_FILE = re.compile(
    r"(?:(?<=\n\n)|\A)(?P<name>[^\n]+):\n(?P<fence>`{3,})\n(?P<text>.*?)\n(?P=fence)(?=\n\n|\Z)",
    re.DOTALL,
)
_FENCE = ":\n```"
_TAKEN = "PNG, JPEG, GIF and WebP"


def image_kind(data: bytes) -> str | None:
    """The media type of an image of a kind that models take; None for other data. data: the first
    bytes are enough."""
    return next((kind for start, kind in _IMAGES if _begins(start, data)), None)


def is_text(data: bytes) -> bool:
    """Whether bytes are read as a text: they do not begin like an image or a PDF file."""
    return not is_pdf(data) and not any(_begins(start, data) for start, _ in _KINDS)


def read_part(path: Path) -> Part:
    """Read a file of the user as a part: an image, a PDF file with its text, or a text with the
    file in a fence and its path above. Raises UsageError if the file cannot be read, is too large,
    or is none of these."""
    return part_of(content_of(path), str(path))


def content_of(path: Path) -> bytes:
    """The bytes of a file of the user. A pipe, as in `-f <(command)`, is read to its end.

    Raises UsageError if the path cannot be read, is too large, or is no file.
    """
    _check_file(path)
    if not paths.is_pipe(path):
        return read_bytes(path)
    try:
        with path.open("rb") as pipe:
            data = pipe.read(MOST_TEXT_BYTES + 1)
    except OSError as trouble:
        raise UsageError(f"{path}: cannot be read: {trouble.strerror}") from None
    if len(data) > MOST_TEXT_BYTES:
        raise _too_large(path, f"more than {MOST_TEXT_BYTES:,}")
    return data


def part_of(
    data: bytes,
    name: str,
    error: type[MoAError] = UsageError,
    *,
    tell: Callable[[str], object] = lambda text: None,
) -> Part:
    """As `read_part`, for a file whose bytes were read already. tell: called with a note on what is
    left out of the file.

    Raises `error` where `read_part` raises UsageError.
    """
    short = one_line(Path(name).name) or "file"
    kind = image_kind(data)
    if kind is not None:
        if len(data) > MOST_IMAGE_BYTES:
            raise error(
                f"{name}: has {len(data):,} bytes; an image may have {MOST_IMAGE_BYTES:,}",
                hint="make it smaller: models see no more in a larger one",
            )
        return Part("image", url=data_uri(data, kind), name=short)
    if is_pdf(data):
        return Part("file", text=pdf_text(data, name, error), name=short)
    other = next((told for start, told in _OTHER_IMAGES if _begins(start, data)), None)
    if other is not None:
        raise error(
            f"{name}: is a {other} image, which models do not take",
            hint=f"convert it: they take {_TAKEN}",
        )
    text, left_out = without_pictures(text_of(data, name, error))
    if left_out:
        tell(f"{name}: left out {left_out}")
    return Part("text", fenced(text, name))


def file_of_uri(uri: str, name: str = "", error: type[MoAError] = UsageError) -> Part:
    """The part for a file that a program sends as a data URI. Its content decides its kind.

    Raises `error` if it is no data URI, or contains a file that cannot be a part (see `read_part`).
    """
    try:
        data = bytes_of(uri)
    except ValueError as fault:
        raise error(f"{name or 'a file'}: {fault}") from None
    return part_of(data, name or "file", error)


def prompt_of(parts: Iterable[Part]) -> tuple[str, tuple[Part, ...]]:
    """Make a prompt of texts and files. Returns its text, and its parts; no parts if all are texts.

    Neighbouring texts become one, with a blank line between them. Raises UsageError if the images
    are too large together.
    """
    joined: list[Part] = []
    for is_text, run in groupby(parts, lambda part: part.kind == "text"):
        beside = list(run)
        joined += [Part("text", "\n\n".join(part.text for part in beside))] if is_text else beside
    size = sum(size_of(part.url) for part in joined)
    if size > MOST_PROMPT_BYTES:
        raise UsageError(
            f"the images have {size:,} bytes; together they may have {MOST_PROMPT_BYTES:,}",
            hint="attach fewer, or smaller ones",
        )
    others = any(part.kind != "text" for part in joined)
    return text_of_parts(joined), tuple(joined) if others else ()


def with_texts_folded(prompt: str) -> tuple[str, dict[str, str]]:
    """A prompt for the screen: a line replaces each text file that `part_of` put into it. Also
    returns the replaced text for each of these lines."""
    held: dict[str, str] = {}
    # A fast check, because this is called for all messages of a conversation, and nearly all of
    # them contain no file.
    if _FENCE not in prompt:
        return prompt, held

    def fold(found: re.Match[str]) -> str:
        lines = found["text"].count("\n") + 1 if found["text"] else 0
        name = one_line(found["name"], 200)
        line = f"[attached: {name}, {plural(lines, 'line')}, {len(found['text']):,} characters]"
        held[line] = found[0]
        return line

    return _TEXT_FILE.sub(fold, prompt), held


def with_texts_whole(prompt: str, held: Mapping[str, str]) -> str:
    """The reverse of `with_texts_folded`: a prompt with the text files in place of their lines. If
    the prompt already contains a file, perhaps in a newer state, the line of that file is
    removed."""
    there = {_label(text) for text in with_texts_folded(prompt)[1].values()}
    for line, text in held.items():
        before, found, behind = prompt.partition(line)
        if found:
            # The fences of the file must stand on lines of their own.
            whole = "" if _label(text) in there else text
            prompt = "\n\n".join(filter(None, [before.rstrip(), whole, behind.strip()]))
    return prompt


def _label(text: str) -> str:
    return text.partition("\n")[0]


def attached(parts: Sequence[Part]) -> list[str]:
    """A line on each file of a message, such as `photo.png (image/png, 12,345 bytes)`."""
    return [_described(part) for part in parts if part.kind != "text"]


def _described(part: Part) -> str:
    name = one_line(part.name) or part.kind
    if part.url.startswith("data:"):
        kind = kind_of(part.url) or part.kind
        return f"{name} ({kind}, {size_of(part.url):,} bytes)"
    if part.url:
        return f"{name} ({one_line(part.url, 200)})"
    return f"{name} ({len(part.text):,} characters of text)" if part.text else name


def _begins(start: bytes, data: bytes) -> bool:
    return re.match(start, data[:_HEAD], re.DOTALL) is not None


def _check_file(path: Path) -> None:
    """Raise UsageError if a path is no file, or if the file is too large. It is not read here."""
    try:
        status = path.stat()
        mode = status.st_mode
        if not stat.S_ISREG(mode):
            # A pipe and the null device have an end, so they can be read. For a folder, the error
            # comes when it is read.
            may_be_read = stat.S_ISFIFO(mode) or stat.S_ISDIR(mode)
            if not may_be_read and not (stat.S_ISCHR(mode) and path.samefile(os.devnull)):
                raise UsageError(
                    f"{path}: is a device or a socket, not a file", hint="name a file, or a pipe"
                )
            return
        if (size := status.st_size) <= MOST_TEXT_BYTES:
            return
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        # The error comes when the file is read.
        return
    if image_kind(head) or is_pdf(head):
        raise UsageError(
            f"{path}: has {size:,} bytes; an image may have {MOST_IMAGE_BYTES:,}, a PDF file"
            f" {MOST_BYTES:,}",
            hint="make it smaller, or split it",
        )
    raise _too_large(path, f"{size:,}")


def _too_large(path: Path, size: str) -> UsageError:
    return UsageError(
        f"{path}: has {size} bytes; a text file may have {MOST_TEXT_BYTES:,}",
        hint="send the part that matters: `head`, `tail` or `grep`",
    )
