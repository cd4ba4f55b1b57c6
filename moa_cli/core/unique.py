"""Names that nothing else has, in this process or another."""

from __future__ import annotations

import itertools
import secrets

_PROCESS = secrets.token_hex(8)
_COUNT = itertools.count()


def unique_name() -> str:
    """24 or more hexadecimal digits; not secret. Asking the system for random ones each time
    would take a server 1 % of its time."""
    return f"{_PROCESS}{next(_COUNT):08x}"
