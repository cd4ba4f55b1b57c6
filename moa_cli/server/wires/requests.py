"""The body of a chat completion request, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from moa_cli.core.conversation import Conversation, Message, Role
from moa_cli.profile import Overrides
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.fields import (
    HARMLESS,
    KNOWN,
    MESSAGE_HARMLESS,
    MIXTURE,
    NO_EFFECT,
    PLAIN,
    STREAM_OPTIONS,
    check,
    refuse_unknown,
)

__all__ = ["ChatRequest", "parse"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_MOST_STOPS = 4


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a client asks for.

    reply: settings of the model that writes the reply, named as in a profile; reply_extra:
    fields of its request body. seed, user: for all models. overrides: of the mixture.
    show_proposals: None leaves it to the server.
    """

    model: str
    conversation: Conversation
    stream: bool = False
    include_usage: bool = False
    reply: Mapping[str, Any] = field(default_factory=dict)
    reply_extra: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    user: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    show_proposals: bool | None = None


def parse(body: bytes) -> ChatRequest:
    """The request in a body. Raises ApiError, a 400 that names the field which is wrong."""
    # null is as good as not given.
    given = {name: value for name, value in _object(body).items() if value is not None}
    refuse_unknown(given, KNOWN)
    for name in ("model", "messages"):
        if name not in given:
            _refuse(name, f"`{name}` is missing", "missing_required_parameter")
    for name, key in {**PLAIN, **NO_EFFECT}.items():
        if name in given:
            check(name, given[name], key)
    _refuse_unsupported(given, HARMLESS)
    stream = given.get("stream", False)
    mixture = _mixture(given.get("moa", {}))
    return ChatRequest(
        model=given["model"],
        conversation=_conversation(given["messages"]),
        stream=stream,
        include_usage=_include_usage(given, stream=stream),
        reply=_reply(given),
        reply_extra=_reply_extra(given),
        seed=given.get("seed"),
        user=given.get("user"),
        overrides=_overrides(mixture),
        show_proposals=mixture.get("show_proposals"),
    )


def _refuse(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    raise ApiError(400, message, param=param, code=code)


def _object(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        given = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8 text", code="invalid_json") from None
    except (ValueError, RecursionError):
        # Besides malformed text: numbers too long for Python, lists nested too deep.
        raise ApiError(400, "the body is not valid JSON", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return given


def _refuse_unsupported(
    given: Mapping[str, Any], harmless: Mapping[str, tuple[Any, ...]], prefix: str = ""
) -> None:
    for name, values in harmless.items():
        value = given.get(name)
        # For Python, True is 1.
        asks_nothing = any(value == one and type(value) is type(one) for one in values)
        if value is not None and not asks_nothing:
            allowed = f" (only {' or '.join(map(json.dumps, values))})" if values else ""
            path = prefix + name
            _refuse(path, f"`{path}` is not supported{allowed}", "unsupported_parameter")


def _include_usage(given: Mapping[str, Any], *, stream: bool) -> bool:
    if "stream_options" not in given:
        return False
    options = given["stream_options"]
    if not isinstance(options, dict):
        _refuse("stream_options", "`stream_options` must be an object")
    if not stream:
        _refuse("stream_options", "`stream_options` may only be given with `stream`")
    prefix = "stream_options."
    refuse_unknown(options, tuple(STREAM_OPTIONS), prefix)
    for name, value in options.items():
        if value is not None:
            check(name, value, STREAM_OPTIONS[name], prefix)
    _refuse_unsupported(options, {"include_obfuscation": (False,)}, prefix)
    return bool(options.get("include_usage"))


def _reply(given: Mapping[str, Any]) -> dict[str, Any]:
    limits = {given[name] for name in ("max_tokens", "max_completion_tokens") if name in given}
    if len(limits) > 1:
        _refuse("max_completion_tokens", "`max_tokens` and `max_completion_tokens` differ")
    settings: dict[str, Any] = {
        name: float(given[name]) for name in ("temperature", "top_p") if name in given
    }
    return settings | ({"max_tokens": limits.pop()} if limits else {})


def _reply_extra(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("presence_penalty", "frequency_penalty", "reasoning_effort")
    extra = {name: given[name] for name in names if name in given}
    if "stop" in given:
        stops = given["stop"]
        texts = [stops] if isinstance(stops, str) else stops
        if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
            _refuse("stop", "`stop` must be a text or a list of texts, none of them empty")
        if len(texts) > _MOST_STOPS:
            _refuse("stop", f"`stop` may hold {_MOST_STOPS} texts at most")
        if texts:
            extra["stop"] = stops
    return extra


def _mixture(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        _refuse("moa", "`moa` must be an object")
    refuse_unknown(given, tuple(MIXTURE), "moa.")
    asked = {name: value for name, value in given.items() if value is not None}
    for name, value in asked.items():
        check(name, value, MIXTURE[name], "moa.")
    if "proposers" in asked and not asked["proposers"]:
        _refuse("moa.proposers", "`moa.proposers` is empty; to ask none, give `moa.rounds` 0")
    return asked


def _overrides(mixture: Mapping[str, Any]) -> Overrides:
    named = {
        name: mixture[name]
        for name in ("aggregator", "samples", "rounds", "reference_placement")
        if name in mixture
    }
    if "proposers" in mixture:
        named["reference_models"] = tuple(mixture["proposers"])
    return Overrides(**named)


def _conversation(messages: Any) -> Conversation:
    if not isinstance(messages, list) or not messages:
        _refuse("messages", "`messages` must be a list of at least one message")
    said = [_message(one, f"messages[{place}]") for place, one in enumerate(messages)]
    *before, last = said
    if last.role != "user":
        path = f"messages[{len(before)}].role"
        _refuse(path, f"`{path}`: the last message must be the user's")
    return Conversation(before=tuple(before)).ask(last.content)


def _message(given: Any, path: str) -> Message:
    if not isinstance(given, dict):
        _refuse(path, f"`{path}` must be an object")
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        what = "is not supported" if role in ("tool", "function") else "must be one of"
        _refuse(f"{path}.role", f"`{path}.role` {what}: use {', '.join(_ROLES)}")
    # What a model thought is not said again, as with the providers that tell it.
    thoughts = ("reasoning", "reasoning_content") if role == "assistant" else ()
    known = ("role", "content", *thoughts, *MESSAGE_HARMLESS)
    refuse_unknown(given, known, f"{path}.")
    _refuse_unsupported(given, MESSAGE_HARMLESS, f"{path}.")
    return Message(_ROLES[role], _content(given.get("content"), f"{path}.content"))


def _content(given: Any, path: str) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        _refuse(path, f"`{path}` must be a text or a list of text parts")
    texts = []
    for place, part in enumerate(given):
        here = f"{path}[{place}]"
        if not isinstance(part, dict):
            _refuse(here, f"`{here}` must be an object")
        if part.get("type") != "text":
            _refuse(f"{here}.type", f'`{here}.type` must be "text": others are not supported')
        refuse_unknown(part, ("type", "text"), f"{here}.")
        if not isinstance(part.get("text"), str):
            _refuse(f"{here}.text", f"`{here}.text` must be a text")
        texts.append(part["text"])
    return "\n".join(texts)
