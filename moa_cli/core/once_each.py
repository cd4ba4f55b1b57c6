"""What is computed of an object once, and kept for as long as the object lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import ref

_T = TypeVar("_T")
_V = TypeVar("_V")


def once_each(compute: Callable[[_T], _V]) -> Callable[[_T], _V]:
    """Let a function of one object compute its value only once for each object.

    For what is computed of each turn of a conversation: every later turn sends all of them again,
    to several models. An object is known by its identity, as to hash or to compare what a turn
    holds takes as long as to compute the value. The value stands beside the object and not in it:
    what writes, sends or copies the fields of an object finds nothing more there.

    compute: its argument can be referred to weakly and is never changed. Its value does not hold
    the argument, which would never go.
    """
    known: dict[int, tuple[ref[_T], _V]] = {}

    @wraps(compute)
    def computed(owner: _T) -> _V:
        place = id(owner)
        found = known.get(place)
        if found is None:
            # It goes with the object, before another one can have its identity.
            gone = ref(owner, lambda _: known.pop(place, None))
            found = known[place] = gone, compute(owner)
        return found[1]

    return computed
