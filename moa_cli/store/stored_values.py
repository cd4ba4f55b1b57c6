"""Values in the form in which they are stored: checked titles and tags, and compact JSON.

A turn of a mixture has as many answers as it has proposers, and each answer has its own usage. In
full, they would take ten times the room of the conversation itself. So fields with their default
values are left out, and longer texts are compressed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
import zlib
from collections.abc import Container, Iterable
from itertools import count
from typing import Any

from moa_cli.core.conversation import Part
from moa_cli.core.errors import UsageError

# The last second that a calendar of four-digit years can show in any time zone.
LATEST = 253_402_200_000
# The most characters of a tag, and of a title.
_LONGEST_TAG, _LONGEST_TITLE = 50, 200
# The end of the title of a copy.
_COPY = re.compile(r" \(copy(?: \d+)?\)\Z")
_NOT_IN_TAGS = re.compile(r"[\s,\x00-\x1f\x7f-\x9f]")
# Values of fewer bytes are not compressed, because compression does not make them smaller.
_SHORTEST = 200
# A damaged or hostile value must not expand to more bytes than this.
_MOST_BYTES = 256_000_000
# The most characters of all data URIs of a turn: a little more than the images of a prompt may
# have, in base64.
_MOST_DATA = 64_000_000


def checked_tag(text: str) -> str:
    """A tag in the form for the store: in lower case, so that `Work` and `work` are the same tag.
    Raises UsageError if the text cannot be a tag."""
    tag = as_unicode(unicodedata.normalize("NFC", text.strip().removeprefix("#")).lower())
    visible = any(unicodedata.category(letter)[0] in "LNSP" for letter in tag)
    if not visible or len(tag) > _LONGEST_TAG or tag.startswith("-") or _NOT_IN_TAGS.search(tag):
        raise UsageError(
            f"{text[:80]!r} is not a tag (up to {_LONGEST_TAG} letters, without spaces and commas)"
        )
    return tag


def checked_title(text: str) -> str:
    """A title in the form for the store: on one line. Raises UsageError if it is empty or too
    long."""
    title = " ".join(text.split())
    if not title:
        raise UsageError("a title cannot be empty")
    if len(title) > _LONGEST_TITLE:
        raise UsageError(f"a title has at most {_LONGEST_TITLE} characters, not {len(title)}")
    return title


def storable(parts: Iterable[Part]) -> list[Part]:
    """The parts of a prompt in the form for the store.

    Data beyond the limit of a turn is left out, and only its name stays. A client of the server may
    send more data than `moa` itself allows.
    """
    found, left = [], _MOST_DATA
    for part in parts:
        left -= len(part.url)
        found.append(part if left >= 0 else dataclasses.replace(part, url=""))
    return found


def as_unicode(text: str) -> str:
    """`text` with each half of a surrogate pair replaced, because UTF-8, and so SQLite, cannot
    store it."""
    return text.encode("utf-8", "replace").decode()


def without_defaults(value: Any) -> Any:
    """The plain values of a dataclass (see `dataclasses.asdict`), without fields that have their
    default values.

    `values.load_value` makes the same dataclass from the result.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: without_defaults(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not _is_default(field, getattr(value, field.name))
        }
    if isinstance(value, list | tuple):
        return [without_defaults(item) for item in value]
    return value


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    # 0 and 0.0 are equal, but JSON writes them differently.
    return type(value) is type(default) and bool(value == default)


def dump(values: object) -> str:
    return as_unicode(json.dumps(values, ensure_ascii=False, separators=(",", ":")))


def pack(values: object) -> bytes:
    """Values as JSON, compressed if that is shorter."""
    data = dump(values).encode()
    if len(data) < _SHORTEST:
        return data
    return min(zlib.compress(data, 6), data, key=len)


def unpack(kept: str | bytes) -> Any:
    """The values that were given to `pack` or `dump`. Raises ValueError if `kept` is damaged."""
    data = kept.encode() if isinstance(kept, str) else kept
    # Compressed data begins with neither of these.
    if data[:1] not in (b"{", b"["):
        reader = zlib.decompressobj()
        try:
            data = reader.decompress(data, _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"is damaged: {error}") from None
        if not reader.eof:
            raise ValueError("is damaged: it is cut off")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def without_copy_mark(title: str) -> str:
    """The title of the original, if the title is that of a copy; otherwise the title itself."""
    return _COPY.sub("", title)


def title_of_copy(title: str, taken: Container[str]) -> str:
    """A title for a copy: `Why? (copy)`, or `Why? (copy 2)` if that is taken."""
    marks = (" (copy)" if number == 1 else f" (copy {number})" for number in count(1))
    names = (f"{without_copy_mark(title)[: _LONGEST_TITLE - len(mark)]}{mark}" for mark in marks)
    return next(name for name in names if name not in taken)
