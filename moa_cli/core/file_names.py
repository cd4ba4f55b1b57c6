"""Which names a file may have on every system."""

from __future__ import annotations

# Windows opens a device in place of a file of such a name, whatever stands behind a dot. It takes
# the superscript digits for digits.
_PORTS = (f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS})


def why_unfit(name: str) -> str | None:
    """Why no file can be called `name` on Windows; None if one can.

    It is asked on every system, because configurations and results are carried to others.
    """
    stem = name.partition(".")[0].rstrip(" ").lower()
    if stem in _DEVICES:
        return f"Windows reserves the name `{stem}`"
    if name.rstrip(". ") != name and name not in (".", ".."):
        return "Windows drops a dot or a space at the end of a name"
    return None
