"""Untrusted JSON Schemas: the check of a schema itself.

A schema must contain all parts that it refers to, because nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from moa_cli.core.nesting import MOST_LEVELS, is_deeper
from moa_cli.core.values import KeyPath, ValueFault

# The most characters of a schema, written as JSON.
_MOST_CHARACTERS = 256 * 1024

TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_SCHEMA = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMA_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_COUNTS = (
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
)
_NUMBERS = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
_TEXTS = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "pattern")


def check_schema(schema: object) -> None:
    """Check that a value is a JSON Schema that refers only to its own parts.

    The check takes about a millisecond for each 10,000 characters. Raises ValueFault if the value
    is no schema, is too large, or refers to a part that it does not have.
    """
    if not isinstance(schema, Mapping):
        raise ValueFault("is not a JSON object")
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ValueFault("is not JSON, or is nested too deeply") from None
    if size > _MOST_CHARACTERS:
        raise ValueFault(f"has {size:,} characters as JSON; at most {_MOST_CHARACTERS:,} are taken")
    if is_deeper(schema):
        raise ValueFault(f"is nested too deeply: at most {MOST_LEVELS} levels are taken")
    _Walk(schema).run()


class _Walk:
    """A check that visits all parts of a schema, and then looks up their references."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._refs: list[tuple[KeyPath, str]] = []
        self._anchors: set[str] = set()
        self._ids: set[str] = set()
        self._nested_ids = False

    def run(self) -> None:
        self._schema(self._root, ())
        for path, ref in self._refs:
            self._check_ref(path, ref)

    def _schema(self, schema: object, path: KeyPath) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping):
            raise ValueFault("is no schema: an object, true or false", path=path)
        for keyword, value in schema.items():
            self._keyword(keyword, value, (*path, keyword))

    def _keyword(self, keyword: str, value: Any, path: KeyPath) -> None:
        if keyword in _SCHEMA or (keyword == "items" and not isinstance(value, list)):
            self._schema(value, path)
        elif keyword in _SCHEMA_LISTS or keyword == "items":
            if not isinstance(value, list) or not value:
                raise ValueFault("is not a list of schemas", path=path)
            for place, each in enumerate(value):
                self._schema(each, (*path, place))
        elif keyword in _SCHEMA_MAPS:
            for name, each in self._mapping(value, path):
                self._schema(each, (*path, name))
        elif keyword in ("dependencies", "dependentRequired"):
            for name, each in self._mapping(value, path):
                if isinstance(each, list):
                    self._names(each, (*path, name))
                else:
                    self._schema(each, (*path, name))
        elif keyword == "required":
            self._names(value, path)
        elif keyword == "type":
            self._type(value, path)
        elif keyword == "enum":
            if not isinstance(value, list):
                raise ValueFault("is not a list", path=path)
        elif keyword in _COUNTS:
            if not _is_number(value) or value < 0 or value != int(value):
                raise ValueFault("is not a whole number from 0", path=path)
        elif keyword in _NUMBERS:
            if not _is_number(value) or (keyword == "multipleOf" and value <= 0):
                raise ValueFault(
                    "is not a number" + " above 0" * (keyword == "multipleOf"), path=path
                )
        elif keyword == "uniqueItems":
            if not isinstance(value, bool):
                raise ValueFault("is not true or false", path=path)
        elif keyword in _TEXTS:
            self._text(keyword, value, path)

    def _mapping(self, value: object, path: KeyPath) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, Mapping):
            raise ValueFault("is not an object", path=path)
        yield from value.items()

    def _names(self, value: object, path: KeyPath) -> None:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueFault("is not a list of names", path=path)

    def _type(self, value: object, path: KeyPath) -> None:
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or name not in TYPES:
                known = ", ".join(TYPES)
                raise ValueFault(f"is not a type: {short(name)}; there are {known}", path=path)

    def _text(self, keyword: str, value: object, path: KeyPath) -> None:
        if not isinstance(value, str):
            raise ValueFault("is not a string", path=path)
        if keyword in ("$ref", "$dynamicRef"):
            self._refs.append((path, value))
        elif keyword in ("$anchor", "$dynamicAnchor"):
            self._anchors.add(value)
        elif keyword == "$id":
            self._ids.add(value.partition("#")[0])
            self._nested_ids = self._nested_ids or len(path) > 1

    def _check_ref(self, path: KeyPath, ref: str) -> None:
        resource, _, fragment = ref.partition("#")
        missing = ValueFault(f"refers to {short(ref)}, which is not in the schema", path=path)
        if resource:
            if resource not in self._ids:
                raise ValueFault(
                    f"refers to {short(ref)}, which is not in the schema; nothing is fetched",
                    path=path,
                )
        elif self._nested_ids or not fragment:
            # In a part with its own `$id`, a reference means a place of that part. Such references
            # are not checked.
            return
        elif fragment.startswith("/"):
            at: Any = self._root
            for step in unquote(fragment)[1:].split("/"):
                at = _entry(at, step.replace("~1", "/").replace("~0", "~"))
                if at is None:
                    raise missing
            if not isinstance(at, Mapping | bool):
                raise missing
        elif fragment not in self._anchors:
            raise missing


def _entry(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and len(step) < 9 and int(step) < len(value):
        return value[int(step)]
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: object) -> str:
    """A value as JSON for a message: a long text is cut, and objects and arrays are only named."""
    if isinstance(value, dict | list):
        return f"{TYPES['object' if isinstance(value, dict) else 'array']}"
    try:
        told = json.dumps(value[:60] if isinstance(value, str) else value, ensure_ascii=False)
    except (TypeError, ValueError):
        return "what is not JSON"
    return told if len(told) <= 62 else f"{told[:60]}…"
