"""Caches a value that is computed from an object, for as long as the object lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import ref

_T = TypeVar("_T")
_V = TypeVar("_V")


def once_each(compute: Callable[[_T], _V]) -> Callable[[_T], _V]:
    """Let a function of one object compute its value only once for each object.

    This is for values that are computed from each turn of a conversation: every later turn sends
    all turns again, to several models. The key of the cache is the identity of the object. A hash
    or a comparison of a turn's contents would take as long as the computation. The values are kept
    in the cache and not in the objects, so that code which writes, sends or copies the fields of an
    object finds no additional ones.

    compute: its argument must support weak references, and must never be changed. Its value must
    not refer to the argument, because then the argument would never be freed.
    """
    known: dict[int, tuple[ref[_T], _V]] = {}

    @wraps(compute)
    def computed(owner: _T) -> _V:
        place = id(owner)
        found = known.get(place)
        if found is None:
            # The entry is removed when the object is freed, before another object can get the same
            # identity.
            gone = ref(owner, lambda _: known.pop(place, None))
            found = known[place] = gone, compute(owner)
        return found[1]

    return computed
