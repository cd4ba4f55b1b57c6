"""Makes names that are unique across processes."""

from __future__ import annotations

import itertools
import secrets

_PROCESS = secrets.token_hex(8)
_COUNT = itertools.count()


def unique_name() -> str:
    """A new name of 24 or more hexadecimal digits. It is not secret.

    Asking the system for random digits each time would take a server 1 % of its time.
    """
    return f"{_PROCESS}{next(_COUNT):08x}"
