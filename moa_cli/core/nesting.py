"""How deep JSON is nested.

Python writes and reads nested values by recursion. What was read near its limit may be beyond it
where it is written again, from a place with more calls above it: that is an error in the middle of
an answer. So what comes from outside and is passed on is bounded first, without recursion.
"""

from __future__ import annotations

# Levels of JSON that is passed on. Real bodies have about twenty.
MOST_LEVELS = 100


def is_deeper(value: object, most: int = MOST_LEVELS) -> bool:
    """Whether a value that was read from JSON has more than so many objects and lists inside each
    other."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            entry
            for outer in level
            for entry in (outer.values() if isinstance(outer, dict) else outer)
            # Types of Python's own: a request has many values, and for `Mapping` each would be
            # asked what it is registered as.
            if isinstance(entry, (dict, list))
        ]
    return bool(level)
