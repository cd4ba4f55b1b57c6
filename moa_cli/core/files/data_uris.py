"""Data URIs: files as text, with their bytes in base64 (RFC 2397).

Only the models and the store get whole data URIs. On screen, in logs and in counts, `without_data`
replaces the data by its size.
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
    """The bytes in a data URI. Raises ValueError if it is no data URI, or has no valid base64."""
    head, comma, text = uri.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise ValueError("is not a data: URI with base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("holds no valid base64") from None


def size_of(uri: str) -> int:
    """How many bytes a data URI contains; 0 for a web address."""
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
