"""Data URIs: files as text, which hold their bytes in base64 (RFC 2397).

They go to models and into the store, and nowhere else: whatever is shown, logged or counted tells
of one as `without_data` writes it.
"""

from __future__ import annotations

import base64
import re

_DATA = re.compile(r"(data:[\w.+-]{1,64}/[\w.+-]{1,64}(?:;[\w.=+-]{1,64})*;base64,)([\w+/=-]*)")
_KEPT = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/]*={0,2})")


def data_uri(data: bytes, kind: str) -> str:
    """The URI that holds `data`, of a media type such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def kind_of(uri: str) -> str | None:
    """The media type of a well-formed data URI, in lower case; None for anything else."""
    found = _KEPT.fullmatch(uri)
    return found[1].lower() if found else None


def bytes_of(uri: str) -> bytes:
    """What a data URI holds. Raises ValueError for what is no data URI, or holds no base64."""
    head, comma, text = uri.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise ValueError("is not a data: URI with base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("holds no valid base64") from None


def size_of(uri: str) -> int:
    """How many bytes a data URI holds; 0 for an address of the web."""
    if not uri.startswith("data:"):
        return 0
    text = len(uri) - uri.find(",") - 1
    return max(0, text * 3 // 4 - uri[-2:].count("="))


def without_data(text: str) -> str:
    """`text` with the data of each URI in it replaced by its size:
    `data:image/png;base64,… (12,345 bytes)`."""
    if ";base64," not in text:
        return text
    return _DATA.sub(lambda found: f"{found[1]}… ({size_of(found[0]):,} bytes)", text)
