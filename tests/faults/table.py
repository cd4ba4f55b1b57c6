"""All rows, by their kinds: what may go wrong at an endpoint, and what is expected then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.faults import connections, places, statuses, streams
from tests.faults.fault import Fault

KINDS: Mapping[str, Sequence[Fault]] = {
    "Refusals": statuses.REFUSALS,
    "Limits": statuses.LIMITS,
    "Failures": statuses.FAILURES,
    "Errors under a good status": statuses.UNDER_200,
    "Heads": connections.HEADERS,
    "Drops": connections.DROPS,
    "Silence": connections.SILENCE,
    "Redirects": connections.REDIRECTS,
    "Frames": streams.FRAMES,
    "Malformed streams": streams.MALFORMED,
    "Errors in a stream": streams.ERRORS_MIDWAY,
    "Encodings": streams.ENCODINGS,
    "Counts of tokens": streams.COUNTS,
    "Answers that are none": streams.NO_ANSWERS,
    "Addresses": places.UNREACHABLE,
    "TLS": places.TLS,
    "Proxies": places.PROXIES,
}
FAULTS = [fault for kind in KINDS.values() for fault in kind]
