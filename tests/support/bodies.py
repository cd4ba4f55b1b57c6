"""Request bodies for the server, good and bad, made by its description and by dice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.support.server import QUESTION

__all__ = ["described_body", "malformed"]

# A value of each of JSON's types.
_VALUES: dict[str, tuple[Any, ...]] = {
    "string": ("", "text", "\x00", "\ud800", "9" * 400, "x" * 5000),
    "number": (0.5, -1e300, 1e-320),
    "integer": (-7, 2**63, 10**300, 10**4000),
    "boolean": (True, False),
    "array": ([], [[]], [None] * 50, [{"role": {}}]),
    "object": ({}, {"a": {"a": {}}}, {"role": "user"}),
}


def _types_of(schema: dict[str, Any]) -> set[str]:
    """The types that a field takes, by its description."""
    found = {item for part in schema.get("anyOf", ()) for item in _types_of(part)}
    for value in schema.get("enum", ()):
        found |= {name for name, values in _VALUES.items() if type(value) is type(values[0])}
    named = schema.get("type")
    found |= {named} if isinstance(named, str) else set()
    # For JSON, 2.0 is a whole number and 2 is a number.
    return found | ({"number", "integer"} if found & {"number", "integer"} else set())


def _wrong(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """One of the fields, with a value of a type that it does not take."""
    # What has no effect, or is passed on, may hold anything.
    name = dice.choice(sorted(name for name in fields if _types_of(fields[name])))
    others = sorted(_VALUES.keys() - _types_of(fields[name]))
    return {name: dice.choice(_VALUES[dice.choice(others)])}


def malformed(described: dict[str, Any], dice: random.Random) -> Iterator[bytes]:
    """Bodies that no server may take, without end."""
    request = described["components"]["schemas"]["ChatRequest"]["properties"]
    mixture = request["moa"]["anyOf"][0]["properties"]
    message = {"role": {"enum": ["user"]}, "name": {"type": "string"}}
    whole = json.dumps({"model": "moa", "messages": QUESTION, "temperature": 0.5}).encode()

    def with_fields(**fields: Any) -> bytes:
        return json.dumps({"model": "moa", "messages": QUESTION, **fields}).encode()

    def with_raw(value: bytes) -> bytes:
        return whole.replace(b"0.5", value)

    while True:
        yield whole[: dice.randrange(len(whole))]
        yield with_fields(**_wrong(request, dice))
        yield with_fields(moa=_wrong(mixture, dice))
        yield with_fields(messages=[{**QUESTION[0], **_wrong(message, dice)}])
        depth, digits = dice.randrange(2000, 20_000), dice.randrange(400, 20_000)
        yield dice.choice((b"[", b'{"a":')) * depth
        yield with_raw(b"[" * depth + b"]" * depth)
        yield with_raw(b"9" * digits)
        yield with_raw(dice.choice((b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity")))
        yield with_raw(dice.choice((rb'"\ud800"', rb'"\udfff\ud800"', rb'"\u12"', b"'x'", b"0x1")))
        place = dice.randrange(len(whole))
        yield whole[:place] + dice.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80")) + whole[place:]
        yield dice.choice((b"", b" ", b"\x00", b"null", b"5", b'"x"', b"[]", b"[{}]", b"{}"))
        yield dice.randbytes(dice.randrange(1, 300))
        yield whole.decode().encode(dice.choice(("utf-16", "utf-32", "utf-8-sig")))


_TEXTS = (
    "",
    " ",
    "a",
    "why?",
    "lab:a",
    "lab:b",
    "\x00",
    "\n\r\u2028",
    "\ud800",
    "é🌍",
    "data: [DONE]",
)


def described_body(request: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """A body of many fields, each as it is described; one in five has a field that is not.

    request: the schema.
    """
    body: dict[str, Any] = _value(request, dice)
    body["messages"] = [_sound(message, dice) for message in body["messages"]]
    body["messages"].append(QUESTION[0])
    if dice.random() < 0.8:
        for name in ("tools", "tool_choice", "functions", "function_call", "top_logprobs"):
            body.pop(name, None)
    if not body.get("stream"):
        body.pop("stream_options", None)
    if dice.random() < 0.2:
        body |= _wrong(request["properties"], dice)
    return body


def _sound(message: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """A message which, as a rule, has what its role and the types of its parts ask for."""
    if dice.random() < 0.05:
        return message
    content = message.get("content")
    if not isinstance(content, str):
        message["content"] = [{"type": "text", "text": dice.choice(_TEXTS)}]
    return {k: v for k, v in message.items() if k not in ("tool_calls", "function_call", "audio")}


def _value(schema: dict[str, Any], dice: random.Random) -> Any:
    if "anyOf" in schema:
        return _value(dice.choice(schema["anyOf"]), dice)
    if "enum" in schema or "const" in schema:
        return dice.choice(schema.get("enum") or [schema["const"]])
    low, high = schema.get("minimum", -5), schema.get("maximum", 5)
    match schema.get("type"):
        case "string":
            return dice.choice([text for text in _TEXTS if len(text) >= schema.get("minLength", 0)])
        case "boolean":
            return dice.random() < 0.5
        case "integer":
            return dice.choice((low, min(low + 1, high), high))
        case "number":
            return dice.choice((low, high, dice.uniform(low, high), low + (high - low) // 2))
        case "array":
            count = dice.randrange(schema.get("minItems", 0), 4)
            return [_value(schema["items"], dice) for _ in range(count)]
        case "object":
            parts = schema.get("properties", {})
            named = [
                part for part in parts if part in schema.get("required", ()) or dice.random() < 0.2
            ]
            return {name: _value(parts[name], dice) for name in named}
        case _:
            return None
