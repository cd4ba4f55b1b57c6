"""Dataclasses from plain values, as they come out of JSON."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["hints_of", "load_value"]

_T = TypeVar("_T")


_PLAIN: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _is_plain(value: Any, kind: Any) -> bool:
    # True is a number to Python, and to nobody else; a number may be written without its point.
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


@cache
def hints_of(cls: Hashable) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    return get_type_hints(cls)


@cache
def _required(cls: Hashable) -> tuple[str, ...]:
    unset = dataclasses.MISSING
    return tuple(
        one.name
        for one in dataclasses.fields(cast("Any", cls))
        if one.default is unset and one.default_factory is unset
    )


def load_value(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass from the plain values that `dataclasses.asdict` (and JSON) made of it.

    Raises ValueError if they are not its.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__}: not a table")
    hints = hints_of(cast("Hashable", cls))
    unknown = values.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    if missing := [name for name in _required(cast("Hashable", cls)) if name not in values]:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    try:
        return cls(**{key: _value(hints[key], value, key) for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return load_value(hint, value)
    if hint in _PLAIN:
        if not _is_plain(value, hint):
            raise ValueError(f"{name} is not {_PLAIN[hint]}")
        return value
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError("not a list")
        kinds = get_args(hint)
        if kinds[-1] is not Ellipsis:
            # So many items, each of a kind of its own.
            return tuple(_value(kind, item, name) for kind, item in zip(kinds, value, strict=True))
        return tuple(_value(kinds[0], item, name) for item in value)
    if origin in (Union, types.UnionType) and value is not None:
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return _value(inner, value, name)
    return value
