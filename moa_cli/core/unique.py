"""Makes names that are unique across processes."""

from __future__ import annotations

import itertools
import secrets

_PROCESS = secrets.token_hex(8)
_COUNT = itertools.count()


def unique_name() -> str:
    """A new name of 24 or more hexadecimal digits. It is not secret.

    A random part is made only once for each process, because a request to the system for every name
    would take 1 % of the time of a server.
    """
    return f"{_PROCESS}{next(_COUNT):08x}"
