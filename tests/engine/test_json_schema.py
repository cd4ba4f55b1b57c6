"""Schemas and answers of strangers: what is taken, what is wrong, and that nothing hangs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from moa_cli.core.values import JSON, ValueFault
from moa_cli.engine.structured.format import FormatCheck, ResponseFormat
from tests.engine.test_structured import by

NESTED: Any = {}
for _ in range(150):
    NESTED = {"not": NESTED}
# Each of sixty steps asks twice for the next: 2^60 ways to the end.
DOUBLING = {f"d{step}": {"anyOf": [{"$ref": f"#/$defs/d{step + 1}"}] * 2} for step in range(60)} | {
    "d60": {"type": "string"}
}
BACKTRACKING = r"^(a|a)+$"
LONG = "a" * 60 + "!"
HUGE = [str(number) for number in range(20_000)]


def verdict(schema: Mapping[str, Any], value: object) -> FormatCheck:
    return by(schema).verdict(json.dumps(value))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ([], "`json_schema.schema` is not a JSON object"),
        ({"type": "strin"}, '`json_schema.schema.type` is not a type: "strin"; there are array,'),
        ({"type": ["string", 3]}, "`json_schema.schema.type` is not a type: 3;"),
        ({"properties": []}, "`json_schema.schema.properties` is not an object"),
        ({"properties": {"a": 1}}, "`json_schema.schema.properties.a` is no schema"),
        ({"required": "a"}, "`json_schema.schema.required` is not a list of names"),
        ({"minLength": -1}, "`json_schema.schema.minLength` is not a whole number from 0"),
        ({"minItems": 1e999}, "`json_schema.schema` is not JSON, or is nested too deeply"),
        ({"multipleOf": 0}, "`json_schema.schema.multipleOf` is not a number above 0"),
        ({"maximum": "9"}, "`json_schema.schema.maximum` is not a number"),
        ({"enum": "a"}, "`json_schema.schema.enum` is not a list"),
        ({"anyOf": []}, "`json_schema.schema.anyOf` is not a list of schemas"),
        ({"allOf": [{"type": "x"}]}, "`json_schema.schema.allOf[0].type` is not a type"),
        ({"pattern": 3}, "`json_schema.schema.pattern` is not a string"),
        ({"uniqueItems": 1}, "`json_schema.schema.uniqueItems` is not true or false"),
        ({"$ref": "https://example.com/s.json"}, "which is not in the schema; nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "which is not in the schema; nothing is fetched"),
        ({"$ref": "other.json#/$defs/a"}, "which is not in the schema; nothing is fetched"),
        ({"$ref": "#/$defs/a"}, '`json_schema.schema.$ref` refers to "#/$defs/a", which is not'),
        ({"$dynamicRef": "#a"}, '`json_schema.schema.$dynamicRef` refers to "#a", which is not'),
        ({"enum": ["x" * 300_000]}, "characters as JSON; at most 262,144 are taken"),
        (NESTED, "is nested too deeply"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_by_its_place(schema: Any, problem: str) -> None:
    with pytest.raises(ValueFault) as raised:
        by(schema)
    assert problem in raised.value.sentence(JSON)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ("json", ()),
        ({}, ("type",)),
        ({"type": "xml"}, ("type",)),
        ({"type": "json_schema"}, ("schema",)),
        ({"type": "json_schema", "json_schema": 3}, ("json_schema",)),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, ("json_schema", "schema")),
        ({"type": "json_schema", "name": "a b", "schema": {}}, ("name",)),
        ({"type": "json_schema", "name": "a", "schema": {}, "strict": 1}, ("strict",)),
        ({"type": "json_schema", "name": "a", "schema": {"type": 1}}, ("schema", "type")),
    ],
)
def test_a_format_that_is_none_is_refused_by_its_place(
    values: object, path: tuple[str, ...]
) -> None:
    with pytest.raises(ValueFault) as raised:
        ResponseFormat.of(values)
    assert raised.value.path == path


def test_the_forms_of_all_wires_mean_the_same() -> None:
    told = {"name": "a", "schema": {"type": "string"}, "strict": True, "description": "Why."}
    flat = ResponseFormat.of({"type": "json_schema", **told})
    assert flat == ResponseFormat.of({"type": "json_schema", "json_schema": told})
    assert flat is not None
    assert flat.body() == {"type": "json_schema", "json_schema": told}
    assert ResponseFormat.of({"type": "text"}) is None
    assert ResponseFormat.of(None) is None
    assert ResponseFormat.of({"type": "json_object"}) == ResponseFormat("json_object")
    unnamed = ResponseFormat.of({"type": "json_object", "schema": {"type": "string"}})
    assert unnamed is not None
    assert (unnamed.kind, unnamed.name, unnamed.schema) == (
        "json_schema",
        "reply",
        {"type": "string"},
    )


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"type": "integer"}, "x", '$ must be an integer, but is "x"'),
        ({"type": ["integer", "null"]}, True, "$ must be an integer or null, but is true"),
        ({"items": {"type": "string"}}, ["a", {}], "$[1] must be a string, but is an object"),
        ({"required": ["a", "b"]}, {"b": 1}, '$ lacks "a"'),
        ({"additionalProperties": False}, {"b": 1}, '$ has what the schema does not allow: "b"'),
        ({"additionalProperties": {"type": "null"}}, {"b": 1}, "$.b must be null, but is 1"),
        ({"properties": {"a": {"enum": [1, "x"]}}}, {"a": 2}, "$.a is 2, which is not one of 1"),
        ({"enum": [1]}, True, "$ is true, which is not one of 1"),
        ({"pattern": "^a"}, "b", "$ breaks `pattern`"),
        ({"pattern": r"^\p{Lu}+$"}, "ÄÖ", None),
        ({"pattern": "["}, "b", None),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"xa": 1}, "$.xa must be null"),
        ({"minimum": 3}, 2, "$ breaks `minimum`"),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "$ holds an object more than once"),
        ({"uniqueItems": True}, [1, True], None),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1, "$ fits more than one"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, 1, "$ must be null"),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a", "type": "null"}}}, 1, "$ must be null"),
        ({"$id": "https://a.b/c", "$ref": "https://a.b/c#/$defs/a", "$defs": {"a": False}}, 1, ""),
        ({"items": [{"type": "string"}]}, [1], "$[0] must be a string"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]},
            [1],
            "$[0] must be null",
        ),
        ({"unevaluatedProperties": False, "properties": {"a": {}}}, {"b": 1}, "unevaluated"),
        ({"format": "email"}, "nobody", None),
        ({"enum": HUGE}, "no", '$ is "no", which is not one of "0"'),
        ({"items": {"enum": HUGE}}, HUGE, None),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    schema: Mapping[str, Any], value: object, problem: str | None
) -> None:
    found = verdict(schema, value)
    assert found.checkable
    if problem is None:
        assert found.problem is None
    else:
        assert found.problem is not None
        assert problem in found.problem
        assert len(found.problem) < 400


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "it is not JSON: Expecting value"),
        ('Sure: {"a": 1}', "it is not JSON: Expecting value"),
        ('{"a": 1} Done.', 'it is not JSON: Extra data (line 1) behind "{\\"a\\": 1} "'),
        ('```json\n{"a": 1}\n``` Done.', "it is not JSON"),
        ('{"a": NaN}', "it is not JSON: NaN is no value"),
        ('{"a": 1e999}', "it holds a number that is too large"),
        ('{"a": ' + "9" * 5000 + "}", "it holds a number that is too large"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": "\x07"}', "it is not JSON: Invalid control character"),
    ],
)
def test_only_exact_json_is_json(answer: str, problem: str) -> None:
    found = by({}).verdict(answer)
    assert found.problem is not None
    assert problem in found.problem


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"pattern": BACKTRACKING}, LONG, "takes too long to be matched"),
        ({"patternProperties": {BACKTRACKING: {}}}, {LONG: 1}, "takes too long to be matched"),
        (
            {"patternProperties": {BACKTRACKING: {}}, "additionalProperties": False},
            {LONG: 1},
            "takes too long to be matched",
        ),
        ({"$ref": "#/$defs/d0", "$defs": DOUBLING}, 1, "its check by the schema takes longer"),
        ({"$ref": "#"}, 1, "nested too deeply"),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}}, 1, "nested too deeply"),
        ({"multipleOf": 0.1}, int("9" * 4000), "too large to be checked"),
        (
            {"$defs": {"a": {"$id": "http://127.0.0.1:9/", "$ref": "#/b"}}, "$ref": "#/$defs/a"},
            1,
            "",
        ),
    ],
    ids=["pattern", "names", "more-names", "doubling", "itself", "loop", "number", "elsewhere"],
)
def test_what_cannot_be_checked_is_told_and_hangs_nothing(
    schema: Mapping[str, Any], value: object, problem: str
) -> None:
    found = verdict(schema, value)
    assert not found.checkable
    assert found.problem is not None
    assert problem in found.problem


def test_patterns_of_names_beside_unevaluated_ones_hang_nothing() -> None:
    schema = {"patternProperties": {"^x": {}}, "unevaluatedProperties": False}
    assert verdict(schema, {"xa": 1, "b": 2}).problem is None


def test_a_long_answer_is_checked_and_a_longer_one_is_not() -> None:
    rows = [{"name": f"row {number}", "size": number} for number in range(20_000)]
    schema = {
        "type": "array",
        "items": {"type": "object", "properties": {"size": {"type": "integer"}}},
    }
    assert verdict(schema, rows).problem is None
    rows[-1]["size"] = "none"
    found = verdict(schema, rows).problem
    assert found == '$[19999].size must be an integer, but is "none"'
    longer = by({}).verdict('"' + "x" * 9_000_000 + '"')
    assert not longer.checkable
