"""Reads plain values, as JSON and TOML have them, into frozen dataclasses.

The dataclass is the declaration: its fields are the keys, their types say what each may hold, and a
`Key` in `Annotated[…]` gives bounds, choices and meaning. `load_value` reads values that this
program wrote, `read_fields` values that people and other programs wrote.

Every fault contains the path of the wrong value, so that no caller has to find it in the message.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from moa_cli.core.text import nearest, quoted

_T = TypeVar("_T")
# Names of keys, and places in lists, counted from 0.
KeyPath = tuple[str | int, ...]
Kind = Literal["text", "whole", "number", "flag", "texts", "table", "tables", "other"]
# What is wrong: the field is not known, is missing, may not be used, or holds the wrong value.
Fault = Literal["unknown", "missing", "unsupported", "invalid"]

_PLAIN: dict[Any, Kind] = {
    str: "text",
    Path: "text",
    int: "whole",
    float: "number",
    int | float: "number",
    bool: "flag",
}
# The Python types of each kind of value.
_CLASSES: dict[Kind, type | tuple[type, ...]] = {
    "text": str,
    "whole": int,
    "number": (int, float),
    "flag": bool,
    "texts": list,
    "table": dict,
    "tables": list,
}
# A key with such a character is shown in quotes, because it could be taken for a path.
_MISLEADING = re.compile(r"""[][."'`\\\x00-\x1f\x7f]""")
# The names of types in messages about values that this program wrote itself.
_STORED_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
# Whole numbers of this size, or larger, may not fit a float.
_LARGEST = 10**300


_new, _set = object.__new__, object.__setattr__


def unchecked(kind: type[_T], **fields: Any) -> _T:
    """Make a frozen dataclass of these fields, without a check of their names and types.

    This is for code that runs for each token: the usual `__init__` of a frozen dataclass takes
    several times as long. A field may be left out only if its default is a class attribute.
    """
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


class ValueFault(ValueError):
    """A plain value is not what its field takes.

    problem: a text that follows the field's name in a sentence; "" if the field is unknown. path:
    of the wrong value. code: the kind of fault. hint: what the user can do, or None.
    """

    def __init__(
        self, problem: str, *, path: KeyPath = (), code: Fault = "invalid", hint: str | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.code = code
        self.hint = hint

    def sentence(self, style: Style) -> str:
        """The fault as a sentence, with the path."""
        name = f"`{style.path(self.path)}`"
        return (
            f"unknown {style.noun} {name}" if self.code == "unknown" else f"{name} {self.problem}"
        )


@dataclass(frozen=True, eq=False)
class Style:
    """The words of a format in messages: the name of each kind of value, the noun for a field, and
    the number of the first item of a list."""

    kinds: Mapping[Kind, str]
    noun: str
    first: int

    def path(self, path: KeyPath) -> str:
        """The path as users of the format write it: `proposers[2].model`."""
        text = ""
        for part in path:
            if isinstance(part, int):
                text += f"[{part + self.first}]"
            else:
                name = quoted(part) if self is TOML and _MISLEADING.search(part) else part
                text += f".{name}" if text else name
        return text


TOML = Style(
    {
        "text": "a text in quotes",
        "whole": "a whole number",
        "number": "a number",
        "flag": "true or false",
        "texts": "a list of texts",
        "table": "a table",
        "tables": "a list of tables",
    },
    noun="key",
    first=1,
)
JSON = Style(
    {**TOML.kinds, "text": "a text", "table": "an object", "tables": "a list of objects"},
    noun="field",
    first=0,
)


@dataclass(frozen=True, eq=False)
class Key:
    """What a field may hold, and what it means.

    Args:
        help: One line, used wherever the field is explained: by options, files and the README.
        low: The least number, or the least length of a text or a list.
        high: The largest number, or the largest length.
        example: A value to show where there is no default.
        blank: Whether a text may be empty, or of spaces only.
        off: Whether `false` means 0.
        only: The only supported values, of any type.
        check: Raises ValueFault for a value that has passed all other checks but is wrong.
        secret: Whether messages must not show a wrong value.
        written: The type of the written value, if it is not the type of the field.
        type: The field's type without None; filled in from the field.
        choices: The only texts allowed; filled in from a `Literal`.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    example: object = None
    blank: bool = False
    off: bool = False
    only: tuple[Any, ...] | None = None
    check: Callable[[Any], object] | None = None
    secret: bool = False
    written: Any = None
    type: Any = None
    choices: tuple[str, ...] = ()

    @cached_property
    def kind(self) -> Kind:
        origin = get_origin(self.type)
        if origin is tuple:
            return "texts" if self.item.kind == "text" else "tables"
        if origin is Mapping or dataclasses.is_dataclass(self.type):
            return "table"
        return "text" if origin is Literal else _PLAIN.get(self.type, "other")

    @cached_property
    def item(self) -> Key:
        """The key of the items of a list, or of the values of a table with names that the user
        chooses."""
        return key_of(get_args(self.type)[0 if get_origin(self.type) is tuple else 1])

    @cached_property
    def either(self) -> tuple[Key, ...]:
        """The keys of all kinds that the value may have, if there are several."""
        return tuple(map(key_of, get_args(self.type)))


@cache
def key_of(hint: Any) -> Key:
    """The key of a field with that annotation; an empty `Key` if the annotation has none."""
    key = Key()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        key = next(note for note in notes if isinstance(note, Key))
    if key.written is not None:
        hint = key.written
    if get_origin(hint) in (Union, types.UnionType):
        some = [arg for arg in get_args(hint) if arg is not types.NoneType]
        hint = Union[tuple(some)]  # noqa: UP007
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return dataclasses.replace(key, type=hint, choices=choices)


@cache
def keys_of(cls: Any) -> dict[str, Key]:
    """The keys of the fields that users can write, by name: the fields with a `Key`."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: key_of(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}


@cache
def field_names(kind: Any) -> tuple[str, ...] | None:
    """The field names of a dataclass; None if `kind` is no dataclass. They are cached."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def required_fields(cls: Any) -> tuple[str, ...]:
    unset = dataclasses.MISSING
    return tuple(
        field.name
        for field in dataclasses.fields(cls)
        if field.default is unset and field.default_factory is unset
    )


@cache
def required_keys(cls: Any) -> tuple[str, ...]:
    """The required fields that users can write."""
    return tuple(name for name in required_fields(cls) if name in keys_of(cls))


# --- what people and other programs write


def read_fields(cls: Any, values: Mapping[str, Any], style: Style) -> dict[str, Any]:
    """The arguments of a dataclass, from values that people or other programs wrote. A null counts
    as not given.

    Raises ValueFault for an unknown field, a missing one, or a value that its field does not take.
    """
    keys = keys_of(cls)
    required = required_keys(cls)
    # A required field with choices often decides which other fields there are. So its fault is
    # reported first.
    read = {
        name: _inside(name, keys[name], values[name], style)
        for name in required
        if keys[name].choices and values.get(name) is not None
    }
    for name in values:
        if name not in keys:
            raise _unknown(name, keys, style)
    for name in required:
        if values.get(name) is None:
            raise ValueFault("is missing", path=(name,), code="missing")
    # Filtered, because the body of a request has only a few of its fifty possible fields.
    for name in filter(values.__contains__, keys):
        if name not in read and values[name] is not None:
            read[name] = _inside(name, keys[name], values[name], style)
    return read


def read_value(key: Key, value: Any, style: Style) -> Any:
    """The value of one field. Raises ValueFault."""
    if key.off and value is False:
        return 0
    if key.only is not None:
        _check_only(key.only, value)
    if key.kind == "other":
        made = value if key.type is Any else _of_either(key, value, style)
    elif _is_kind(value, key.kind, style):
        made = _with_parts(key, value, style)
        _check_bounds(key, value)
    else:
        told = "" if key.secret else f", not {_misfit(value, [key.kind], style)}"
        raise ValueFault(f"must be {style.kinds[key.kind]}{told}")
    if key.check is not None:
        key.check(made)
    return float(made) if key.type is float else made


def _inside(part: str | int, key: Key, value: Any, style: Style) -> Any:
    try:
        return read_value(key, value, style)
    except ValueFault as fault:
        fault.path = (part, *fault.path)
        raise


def _unknown(name: str, keys: Mapping[str, Key], style: Style) -> ValueFault:
    near = nearest(name, keys)
    hint = f"did you mean `{near}`?" if near else None
    if hint is None and style is TOML:
        hint = f"known keys: {', '.join(keys)}"
    return ValueFault("", path=(name,), code="unknown", hint=hint)


def _check_only(only: tuple[Any, ...], value: Any) -> None:
    import json

    # The types are compared too, because in Python True equals 1.
    if not any(value == allowed and type(value) is type(allowed) for allowed in only):
        told = f" (only {' or '.join(map(json.dumps, only))})" if only else ""
        raise ValueFault(f"is not supported{told}", code="unsupported")


def _with_parts(key: Key, value: Any, style: Style) -> Any:
    """A value of the key's kind, with its items or fields read."""
    match key.kind:
        case "texts":
            return tuple(read_value(key.item, item, style) for item in value)
        case "tables":
            return tuple(_inside(place, key.item, item, style) for place, item in enumerate(value))
        case "table" if dataclasses.is_dataclass(key.type):
            return cast("Any", key.type)(**read_fields(key.type, value, style))
        case "table" if key.item.type is not Any:
            return {name: _inside(name, key.item, item, style) for name, item in value.items()}
    return value


def _of_either(key: Key, value: Any, style: Style) -> Any:
    for choice in key.either:
        if _is_kind(value, choice.kind, style):
            return read_value(choice, value, style)
    kinds = [choice.kind for choice in key.either]
    names = " or ".join(map(style.kinds.__getitem__, kinds))
    raise ValueFault(f"must be {names}, not {_misfit(value, kinds, style)}")


def _misfit(value: Any, kinds: Sequence[Kind], style: Style) -> str:
    """The wrong value, as a text for a message. If a list of texts or tables was possible, a list
    is described by its first item of another kind."""
    item_class = str if "texts" in kinds else dict if "tables" in kinds else None
    if item_class is not None and isinstance(value, list):
        wrong = next(item for item in value if not isinstance(item, item_class))
        return f"a list with {shown(wrong, style)}"
    return shown(value, style)


def _is_kind(value: Any, kind: Kind, style: Style) -> bool:
    # In Python, a bool is an int, so it needs a check of its own.
    fits = isinstance(value, _CLASSES[kind]) and isinstance(value, bool) == (kind == "flag")
    if fits and kind == "texts":
        return all(isinstance(item, str) for item in value)
    # In JSON, a wrong item has its own fault, with the path of the item.
    if fits and kind == "tables" and style is TOML:
        return all(isinstance(item, dict) for item in value)
    return fits


def _check_bounds(key: Key, value: Any) -> None:
    if key.kind in ("whole", "number"):
        # TOML allows inf, nan and numbers that no float can hold. No field takes them.
        low = -sys.float_info.max if key.low is None else key.low
        high = sys.float_info.max if key.high is None else key.high
        if not low <= value <= high:
            raise ValueFault(f"must be {range_text(key)}, not {shown(value)}")
    elif key.kind not in ("flag", "table"):
        if key.kind == "text" and not key.blank and not value.strip():
            raise ValueFault("must not be empty")
        if key.choices and value not in key.choices:
            raise ValueFault(f"must be {choices_text(key)}, not {shown(value)}")
        if key.low is not None and len(value) < key.low:
            raise ValueFault("must not be empty")
        if key.high is not None and len(value) > key.high:
            raise ValueFault(f"may hold {key.high:g} at most")


def range_text(key: Key) -> str:
    if key.high is None:
        return "a number" if key.low is None else f"{key.low:.12g} or more"
    high = f"{key.high:.12g}"
    return f"≤ {high}" if key.low is None else f"between {key.low:.12g} and {high}"


def choices_text(key: Key) -> str:
    return f"one of {', '.join(key.choices)}" if len(key.choices) > 1 else f'"{key.choices[0]}"'


def shown(value: object, style: Style = TOML) -> str:
    """A value as a short text for a message. Tables and lists are only named."""
    if isinstance(value, dict | list):
        return style.kinds["table"] if isinstance(value, dict) else "a list"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# --- what this program wrote

_UNCHANGING = frozenset((str, int, float, bool, types.NoneType))


def plain_values(held: Any, made: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """The plain values of a dataclass, as from `dataclasses.asdict`, in a third of the time.

    made: the argument that `asdict` calls `dict_factory`.
    """
    kind: Any = type(held)
    if kind in _UNCHANGING:
        return held
    if kind is tuple or kind is list:
        return kind([plain_values(item, made) for item in held])
    if kind is dict:
        return {plain_values(key, made): plain_values(held[key], made) for key in held}
    names = field_names(kind)
    if names is None:
        return copy.deepcopy(held)
    return made([(name, plain_values(getattr(held, name), made)) for name in names])


def load_value(cls: type[_T], values: Mapping[str, Any], *, strict: bool = False) -> _T:
    """The dataclass that `values` were made from by `dataclasses.asdict`, and perhaps by JSON.

    Fields with a default may be missing. strict: whether to check that a text is one of its
    `Literal`, and that a number fits a float; for files that another program may have changed.
    Raises ValueError, which names the field, if a value does not belong to its field.
    """
    return cast("_T", _loader(cast("Any", cls), strict)(values, ""))


def check_plain(kind: type, value: Any, name: str) -> None:
    """Raise ValueError, with that name, unless `value` is a plain value of that type."""
    _load_plain(kind, True, value, name)


@cache
def _loader(hint: Any, strict: bool) -> Callable[[Any, str], Any]:
    """The function that loads a value of a type, given the value and the name for messages. It is
    cached, because a file may hold millions of values."""
    origin, kinds = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        loaders = {name: _loader(kind, strict) for name, kind in get_type_hints(hint).items()}
        return partial(_load_fields, hint, required_fields(cast("Any", hint)), loaders)
    if hint in _STORED_NAMES:
        return partial(_load_plain, hint, strict)
    if origin is tuple:
        items = [_loader(kind, strict) for kind in kinds if kind is not Ellipsis]
        return partial(_load_items, items, kinds[-1] is Ellipsis)
    if origin in (Union, types.UnionType):
        some = _loader(next(kind for kind in kinds if kind is not types.NoneType), strict)
        return lambda value, name: None if value is None else some(value, name)
    if origin is Literal and strict:
        return partial(_load_choice, kinds)
    return lambda value, _: value


def _load_fields(
    cls: Any,
    required: tuple[str, ...],
    loaders: Mapping[str, Callable[[Any, str], Any]],
    values: Any,
    _: str,
) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__}: not a table")
    if unknown := values.keys() - loaders.keys():
        raise ValueError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    try:
        return cls(**{name: loaders[name](value, name) for name, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None


def _load_plain(kind: type, strict: bool, value: Any, name: str) -> Any:
    # `type`, because in Python True is an int. A float may be written as a whole number.
    is_whole = kind is float and type(value) is int and not (strict and abs(value) >= _LARGEST)
    if type(value) is not kind and not is_whole:
        raise ValueError(f"{name} is not {_STORED_NAMES[kind]}")
    return value


def _load_items(
    loaders: list[Callable[[Any, str], Any]], repeats: bool, values: Any, name: str
) -> Any:
    if not isinstance(values, list | tuple):
        raise TypeError("not a list")
    if repeats:
        return tuple(loaders[0](item, name) for item in values)
    # A tuple of fixed length: each item has its own type.
    return tuple(load(item, name) for load, item in zip(loaders, values, strict=True))


def _load_choice(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    if value not in choices:
        raise ValueError(f"{name} is none of {', '.join(map(str, choices))}")
    return value
