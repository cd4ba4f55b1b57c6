"""The description of the API (OpenAPI 3.1), from the same table of fields as its checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moa_cli.config.tables import Key
from moa_cli.server.wires.fields import (
    HARMLESS,
    MESSAGE_HARMLESS,
    MIXTURE,
    NO_EFFECT,
    PLAIN,
    STREAM_OPTIONS,
)
from moa_cli.version import __version__

__all__ = ["description"]

_TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "table": {"type": "object"},
}


def description(models: Sequence[str], *, keyed: bool) -> dict[str, Any]:
    """The description, as JSON values.

    models: the names that can be asked for. keyed: whether the server asks for a key.
    """
    chat = _operation(
        "Answer a conversation by a mixture.",
        {"200": _ok("#/components/schemas/Completion", stream=True)},
        ("400", "401", "402", "403", "404", "408", "413", "415", "429", "502", "503", "504"),
    )
    chat["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
    }
    one = _operation("A model.", {"200": _ok("#/components/schemas/Model")}, ("401", "403", "404"))
    named = {"type": "string", "enum": list(models)}
    one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": named}]
    listed = _operation(
        "All models: each profile is one.",
        {"200": _ok("#/components/schemas/Models")},
        ("401", "403"),
    )
    health = _operation("Whether the server is up.", {"200": {"description": "It is."}}, ())
    health["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "moa", "version": __version__},
        "security": [{"key": []}] if keyed else [],
        "paths": {
            "/v1/chat/completions": {"post": chat},
            "/v1/models": {"get": listed},
            "/v1/models/{model}": {"get": one},
            "/health": {"get": health},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(named),
        },
    }


def _operation(summary: str, responses: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    refused = {
        "description": "An error.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {"summary": summary, "responses": responses | dict.fromkeys(errors, refused)}


def _ok(reference: str, *, stream: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": reference}}}
    if stream:
        content["text/event-stream"] = {}
    return {"description": "Done.", "content": content}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _open(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _keys(keys: dict[str, Key]) -> dict[str, Any]:
    return {name: _nullable(_key(key)) for name, key in keys.items()}


def _key(key: Key) -> dict[str, Any]:
    schema = {**_TYPES[key.kind], "description": key.help}
    bounds = {"minimum": key.low, "maximum": key.high}
    schema |= {
        name: int(bound) if key.kind == "whole" else bound
        for name, bound in bounds.items()
        if bound is not None
    }
    return schema | ({"enum": list(key.choices)} if key.choices else {})


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _harmless(values: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    return {
        name: {"enum": [None, *allowed], "description": "Not supported otherwise."}
        for name, allowed in values.items()
    }


def _schemas(named: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    part = _object({"type": {"const": "text"}, "text": text}, "type", "text")
    content = {"anyOf": [text, {"type": "array", "items": part, "minItems": 1}]}
    roles = {"enum": ["system", "developer", "user", "assistant"]}
    message = _object(
        {"role": roles, "content": content, **_harmless(MESSAGE_HARMLESS)}, "role", "content"
    )
    stops = {"type": "array", "items": {**text, "minLength": 1}, "maxItems": 4}
    request = _object(
        {
            **_keys(PLAIN),
            "model": {**_key(PLAIN["model"]), **named},
            "messages": {"type": "array", "items": message, "minItems": 1},
            "stop": _nullable({"anyOf": [{**text, "minLength": 1}, stops]}),
            "stream_options": _nullable(_object(_keys(STREAM_OPTIONS))),
            "moa": _nullable(_object(_keys(MIXTURE))),
            **_keys(NO_EFFECT),
            **_harmless(HARMLESS),
        },
        "model",
        "messages",
    )
    number, maybe = {"type": "integer"}, {"type": ["string", "null"]}
    model = _open(id=text, object={"const": "model"}, created=number, owned_by=text)
    error = _open(message=text, type=text, param=maybe, code=maybe)
    choices = {"type": "array", "items": {"type": "object"}}
    return {
        "ChatRequest": request,
        "Completion": _open(
            id=text,
            object={"const": "chat.completion"},
            created=number,
            model=text,
            system_fingerprint=text,
            choices=choices,
            usage={"type": "object"},
            moa={"type": "object"},
        ),
        "Model": model,
        "Models": _open(object={"const": "list"}, data={"type": "array", "items": model}),
        "Error": _open(error=error),
    }
