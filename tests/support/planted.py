"""A word that stands nowhere else, and the search for it on a user's machine."""

from __future__ import annotations

import base64
import contextlib
import re
import zlib
from pathlib import Path

__all__ = ["WORD", "holders"]

WORD = "quokkasaurus"
_MOST = 200_000


def _forms() -> list[bytes]:
    """The word as files may hold it: in UTF-8, UTF-16, base64 and as hexadecimal digits."""
    plain = WORD.encode()
    forms = [plain, WORD.encode("utf-16-le"), WORD.encode("utf-16-be"), plain.hex().encode()]
    for shift in range(3):
        # Of base64, the digits that do not depend on what stands before and behind.
        encoded = base64.b64encode(b"\0" * shift + plain)
        forms.append(encoded[4 if shift else 0 : len(encoded) - 4])
    return forms


_FORMS = _forms()


def holders(*folders: Path) -> list[str]:
    """The files and folders below these that have the word in their content or name."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if WORD in path.name or (path.is_file() and _holds(path.read_bytes())):
                found.append(str(path.relative_to(folder)))
    return found


def _holds(data: bytes) -> bool:
    if any(form in data or form in data.lower() for form in _FORMS):
        return True
    # What zlib compressed, also in the midst of a file.
    for head in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        inner = zlib.decompressobj()
        found = b""
        with contextlib.suppress(zlib.error):
            # In pieces: what comes before an end that is torn counts.
            for start in range(head.start(), min(head.start() + _MOST, len(data)), 64):
                found += inner.decompress(data[start : min(start + 64, len(data))])
        if WORD.encode() in found:
            return True
    return False
