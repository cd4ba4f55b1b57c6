"""How many files and connections the process may have open at once."""

from __future__ import annotations

import errno
from contextlib import suppress

# Descriptors that the process needs for other things: streams, databases, journals, name lookups.
_RESERVED = 64


def room_for(wanted: int) -> int:
    """How many of `wanted` connections the process can have open at once; at least one.

    This raises the soft limit of the process as far as needed and allowed. Windows has no such
    limit.
    """
    try:
        import resource
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = wanted + _RESERVED
    if soft != unlimited and soft < needed:
        raised = needed if hard == unlimited else min(needed, hard)
        # macOS may refuse a limit that is below the hard limit.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return wanted if soft == unlimited else max(1, min(wanted, soft - _RESERVED))


def is_shortage(error: object) -> bool:
    """Whether an error is that of a process, or a system, that can open no more files."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
