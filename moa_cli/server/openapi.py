"""The description of the API (OpenAPI 3.1), made from the same fields that requests are checked
by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from moa_cli.core.values import Key, keys_of, required_keys
from moa_cli.server.wires import fields
from moa_cli.server.wires.asked import MixtureFields
from moa_cli.server.wires.chat_request import ChatBody
from moa_cli.server.wires.completions import OF_A_CHAT, CompletionsBody
from moa_cli.server.wires.messages_request import CountBody, MessagesBody
from moa_cli.server.wires.responses_request import ResponsesBody
from moa_cli.version import __version__

_REFUSED = ("400", "401", "402", "403", "404", "408", "413", "415", "429", "502", "503", "504")
_NOT_COUNTED = ("400", "401", "403", "404", "408", "413", "415")
_TYPES = {"text": "string", "whole": "integer", "number": "number", "flag": "boolean"}


def description(models: Sequence[str], *, keyed: bool, strict: bool = False) -> dict[str, Any]:
    """The description as JSON values.

    models: the names that can be requested. keyed: whether the server requires a key. strict:
    whether it refuses fields that have no effect.
    """
    chat = _turn("Answer a conversation by a mixture.", "ChatRequest", "Completion")
    completion = _turn(
        "The same for one prompt, for clients of the older text API.",
        *("CompletionsRequest", "TextCompletion"),
    )
    responses = _turn(
        "The same over the Responses API: the whole conversation is sent each time.",
        *("ResponsesRequest", "Response"),
    )
    message = _turn(
        "The same over the Messages API of Anthropic.",
        *("MessagesRequest", "Message"),
        error="MessagesError",
    )
    count = _operation(
        "About how many tokens a prompt of the Messages API has. No model is asked.",
        _done("TokenCount"),
        _NOT_COUNTED,
        error="MessagesError",
    )
    count["requestBody"] = {"required": True, "content": _json("CountRequest")}
    model = _operation("A model.", _done("Model"), ("401", "403", "404"))
    named = {"type": "string", "enum": list(models)}
    model["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": named}]
    listed = _operation("All models: each profile is one.", _done("Models"), ("401", "403"))
    health = _operation("Whether the server is up.", {"description": "The server is up."}, ())
    health["security"] = []
    ready = _operation("Whether a turn could begin.", {"description": "A turn could begin."}, ())
    ready["responses"]["503"] = {"description": "No turn could begin; the body says why."}
    ready["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "moa", "version": __version__},
        "security": [{"key": []}] if keyed else [],
        "paths": {
            "/v1/chat/completions": {"post": chat},
            "/v1/completions": {"post": completion},
            "/v1/responses": {"post": responses},
            "/v1/messages": {"post": message},
            "/v1/messages/count_tokens": {"post": count},
            "/v1/models": {"get": listed},
            "/v1/models/{model}": {"get": model},
            "/health": {"get": health},
            "/ready": {"get": ready},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(named, strict=strict),
        },
    }


def _turn(summary: str, request: str, reply: str, *, error: str = "Error") -> dict[str, Any]:
    """The operation of a wire. request, reply, error: the names of their schemas."""
    done = {"description": "Done.", "content": _json(reply) | {"text/event-stream": {}}}
    operation = _operation(summary, done, _REFUSED, error=error)
    operation["requestBody"] = {"required": True, "content": _json(request)}
    return operation


def _operation(
    summary: str, done: dict[str, Any], errors: tuple[str, ...], *, error: str = "Error"
) -> dict[str, Any]:
    refused = {"description": "An error.", "content": _json(error)}
    return {"summary": summary, "responses": {"200": done} | dict.fromkeys(errors, refused)}


def _done(schema: str) -> dict[str, Any]:
    return {"description": "Done.", "content": _json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _open(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def schema_of(cls: Any, *, strict: bool = True) -> dict[str, Any]:
    """The JSON schema of the object that is read into a dataclass. strict: whether other fields are
    forbidden."""
    required = required_keys(cls)
    return {
        "type": "object",
        "properties": {
            name: _schema(key, strict) if name in required else _nullable(_schema(key, strict))
            for name, key in keys_of(cls).items()
        },
        "required": list(required),
        "additionalProperties": not strict and cls is not MixtureFields,
    }


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if not schema.keys() - {"description"}:
        return schema
    if "enum" in schema and "type" not in schema:
        return schema | {"enum": [None, *schema["enum"]]}
    return {"anyOf": [schema, {"type": "null"}]}


def _schema(key: Key, strict: bool = True) -> dict[str, Any]:
    told = {"description": key.help} if key.help else {}
    if key.type is Any:
        return {"enum": list(key.only or ())} | told
    if key.kind in _TYPES:
        return _scalar(key) | told
    if key.kind == "other":
        return {"anyOf": [_schema(choice, strict) for choice in key.either]} | told
    if key.kind == "table":
        is_open = get_origin(key.type) is Mapping
        return ({"type": "object"} if is_open else schema_of(key.type, strict=strict)) | told
    bounds = {"minItems": key.low, "maxItems": key.high}
    return {"type": "array", "items": _schema(key.item, strict)} | _told(bounds) | told


def _scalar(key: Key) -> dict[str, Any]:
    if len(key.choices) == 1:
        return {"const": key.choices[0]}
    if key.choices:
        return {"type": "string", "enum": list(key.choices)}
    names = ("minLength", "maxLength") if key.kind == "text" else ("minimum", "maximum")
    bounds = dict(zip(names, (key.low, key.high), strict=True))
    return {"type": _TYPES[key.kind]} | _told(bounds)


def _told(bounds: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _of_prompts(chat: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    """The fields of a text completion: its own, and those of a chat completion except the
    messages."""
    own = schema_of(CompletionsBody, strict=strict)
    shared = {k: v for k, v in chat["properties"].items() if k not in OF_A_CHAT}
    return own | {
        "properties": {**shared, **own["properties"]},
        "required": ["model", *own["required"]],
    }


def _schemas(named: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    request, messages = schema_of(ChatBody, strict=strict), schema_of(MessagesBody, strict=strict)
    responses, counted = schema_of(ResponsesBody, strict=strict), schema_of(CountBody, strict=False)
    if not strict:
        for name, told in (*fields.HINTS.items(), *fields.PASSED.items()):
            request["properties"][name] = {"description": told}
            responses["properties"].setdefault(name, {"description": told})
    for schema in (request, responses, messages, counted):
        schema["properties"]["model"] |= named
    text = {"type": "string"}
    number, maybe = {"type": "integer"}, {"type": ["string", "null"]}
    model = _open(id=text, object={"const": "model"}, created=number, owned_by=text)
    error = _open(message=text, type=text, param=maybe, code=maybe)
    many = {"type": "array", "items": {"type": "object"}}

    def reply(**own: Any) -> dict[str, Any]:
        return _open(id=text, **own, usage={"type": "object"}, moa={"type": "object"})

    chat, prompt = {"const": "chat.completion"}, {"const": "text_completion"}
    made: dict[str, Any] = {"created": number, "model": text}
    ended = {"enum": ["completed", "incomplete"]}
    said = {"type": {"const": "message"}, "role": {"const": "assistant"}, "model": text}
    return {
        "ChatRequest": request,
        "Completion": reply(object=chat, **made, system_fingerprint=text, choices=many),
        "CompletionsRequest": _of_prompts(request, strict=strict),
        "TextCompletion": reply(object=prompt, **made, choices=many),
        "ResponsesRequest": responses,
        "Response": reply(
            object={"const": "response"}, created_at=number, status=ended, model=text, output=many
        ),
        "Model": model,
        "Models": _open(object={"const": "list"}, data={"type": "array", "items": model}),
        "Error": _open(error=error),
        "MessagesRequest": messages,
        "CountRequest": counted,
        "Message": reply(**said, content=many, stop_reason=text, stop_sequence=maybe),
        "TokenCount": _open(input_tokens=number),
        "MessagesError": _open(
            type={"const": "error"}, error=_open(type=text, message=text), request_id=text
        ),
    }
