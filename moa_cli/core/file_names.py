"""Tells which file names are valid on every system."""

from __future__ import annotations

# Windows opens a device in place of a file with such a name, whatever follows a dot. It treats
# superscript digits as digits.
_PORTS = (f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS})


def why_unfit(name: str) -> str | None:
    """Why Windows cannot have a file called `name`; None if it can.

    This is checked on every system, because users carry settings and results to other ones.
    """
    stem = name.partition(".")[0].rstrip(" ").lower()
    if stem in _DEVICES:
        return f"Windows reserves the name `{stem}`"
    if name.rstrip(". ") != name and name not in (".", ".."):
        return "Windows drops a dot or a space at the end of a name"
    return None
