"""What is computed of an object once, and kept for as long as the object lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

_T = TypeVar("_T")
_V = TypeVar("_V")


def once_each(compute: Callable[[_T], _V]) -> Callable[[_T], _V]:
    """Let a function of one object compute its value only once for each object.

    For what is computed of each turn of a conversation: every later turn sends all of them again,
    to several models. The value is kept with the object, as to hash or to compare what a turn
    holds takes as long as to compute the value. It is no field: it is not compared, not shown, and
    not taken over by `dataclasses.replace`.

    Args:
        compute: The function. Its argument is a frozen dataclass without slots.

    Returns:
        The same function, with a memory.
    """
    name = f"{compute.__module__}.{compute.__qualname__}()"

    @wraps(compute)
    def computed(owner: _T) -> _V:
        kept = owner.__dict__
        if name in kept:
            found: _V = kept[name]
            return found
        value = kept[name] = compute(owner)
        return value

    return computed
