"""Limits how deep JSON is nested.

Python reads and writes nested JSON by recursion, within the recursion limit. A value that was just
within the limit when it was read can exceed it when it is written, from a deeper place in the call
stack. This would be an error in the middle of an answer. So the depth of a value from outside is
checked first, without recursion, before the value is passed on.
"""

from __future__ import annotations

# The most levels of JSON that is passed on. Real request bodies have about twenty.
MOST_LEVELS = 100


def is_deeper(value: object, most: int = MOST_LEVELS) -> bool:
    """Whether a value that was read from JSON has more than `most` levels of objects and lists."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            entry
            for outer in level
            for entry in (outer.values() if isinstance(outer, dict) else outer)
            # `dict` and `list`, because the check against an abstract class such as `Mapping` is
            # slow, and a request has many values.
            if isinstance(entry, (dict, list))
        ]
    return bool(level)
