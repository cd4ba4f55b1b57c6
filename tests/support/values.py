"""Values of any type of the project, for properties."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

__all__ = ["values_of"]


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type; every field of a dataclass is drawn, also one with a default."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint).items()
        return st.builds(hint, **{name: values_of(inner) for name, inner in hints})
    if hint is float:
        # JSON has no NaN, and one would not equal itself anyway.
        return st.floats(allow_nan=False, allow_infinity=False)
    if get_origin(hint) is tuple:
        return st.lists(values_of(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is UnionType:
        return st.one_of(*map(values_of, get_args(hint)))
    return st.from_type(hint)
