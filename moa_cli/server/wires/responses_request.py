"""The body of a Responses request: its fields, their check, and their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from moa_cli.core.conversation import Conversation, Message
from moa_cli.core.tools import OfferedTools
from moa_cli.core.values import Key, ValueFault, keys_of
from moa_cli.server.wires import fields
from moa_cli.server.wires.asked import AS_IT_IS, Asked, MixtureFields
from moa_cli.server.wires.bodies import (
    INT_MAX,
    AnyObject,
    AnyText,
    format_of,
    given_values,
    json_object,
    read_body,
    refuse,
    text_or_none,
)
from moa_cli.server.wires.responses_input import InputMessages
from moa_cli.server.wires.responses_tools import ToolTable

_KEPT = "this server stores nothing between requests: send the whole conversation in input"
# Values of single fields that mean the same as a missing field; see `fields.is_neutral` for values
# that do so in every field.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "truncation": ("disabled",),
    "stream_options": ({"include_obfuscation": False},),
}
# Bookkeeping of clients, which has no effect and is accepted also with --strict.
_BOOKKEEPING = (
    "client_metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
)
_LOGPROBS = "message.output_text.logprobs"
# Asks for encrypted reasoning. This server shows reasoning openly, so there is nothing to add.
_SEALED_REASONING = "reasoning.encrypted_content"


def _unsupported(why: str, *, but: Any = None) -> Key:
    """A field that is refused with a reason. but: the only accepted value."""

    def check(value: Any) -> None:
        if value is not but:
            raise ValueFault(f"is not supported: {why}", code="unsupported")

    return Key(f"Not supported: {why}.", check=check)


@dataclass(frozen=True, kw_only=True)
class ResponsesBody:
    """The fields of the body that are read. Other fields have no effect."""

    model: Annotated[str, Key("a profile's name; `moa` is the server's default profile")]
    input: Annotated[AnyText | Annotated[tuple[AnyObject, ...], Key()], Key()]
    instructions: Annotated[str | None, Key("a system message before all items", blank=True)] = None
    stream: Annotated[bool | None, Key("send the reply as it is written")] = None
    temperature: Annotated[float | None, Key("of the reply", 0, 2)] = None
    top_p: Annotated[float | None, Key("of the reply", 0, 1)] = None
    max_output_tokens: Annotated[int | None, Key("most tokens of the reply", 1, INT_MAX)] = None
    tools: Annotated[
        tuple[AnyObject, ...] | None,
        Key("functions and custom tools that the client runs, alone or in namespaces"),
    ] = None
    tool_choice: Annotated[
        str | AnyObject | None,
        Key("auto, none, required, a tool, or the tools that are allowed"),
    ] = None
    parallel_tool_calls: Annotated[bool | None, Key("whether one reply may call several tools")] = (
        None
    )
    text: Annotated[
        Mapping[str, Any] | None, Key("`format`: text, json_object, json_schema; `verbosity`")
    ] = None
    reasoning: Annotated[
        Mapping[str, Any] | None,
        Key("`effort` is passed on; with `summary`, the reasoning is sent"),
    ] = None
    metadata: Annotated[Mapping[str, Any] | None, Key("given back")] = None
    user: Annotated[str | None, Key("passed on to all models", blank=True)] = None
    moa: Annotated[MixtureFields | None, Key()] = None
    background: Annotated[
        bool | None, _unsupported("this server answers while the client waits", but=False)
    ] = None
    include: Annotated[tuple[str, ...] | None, Key(f"`{_LOGPROBS}`; others have no effect")] = None
    top_logprobs: Annotated[int | None, Key("of the tokens of the reply", 0, 20)] = None
    previous_response_id: Annotated[Any, _unsupported(_KEPT)] = None
    conversation: Annotated[Any, _unsupported(_KEPT)] = None
    prompt: Annotated[Any, _unsupported("this server stores no prompts; send the text")] = None


@dataclass(frozen=True)
class ResponsesRequest:
    """A request that has been read. table: its tools. given: the unchanged body."""

    body: ResponsesBody
    table: ToolTable
    given: Mapping[str, Any]


def parse(body: bytes, *, strict: bool = False) -> tuple[Asked, ResponsesRequest]:
    """The request in a body; see `wire.Wire`."""
    given = json_object(body)
    kept, passed, unused = fields.sort_fields(given, keys_of(ResponsesBody), strict=False)
    read = read_body(ResponsesBody, kept)
    table = ToolTable()
    table.add(read.tools or (), ("tools",))
    history = InputMessages(table)
    said = _messages(read, history)
    extra = {**passed, **_reply_extra(read, table)}
    unused = [name for name in unused if given[name] not in _NEUTRAL.get(name, ())]
    if set(read.include or ()) - {_LOGPROBS, _SEALED_REASONING}:
        unused.append("include")
    unused += table.ignored + history.ignored
    if strict:
        for name in (*passed, *unused):
            if name not in _BOOKKEEPING:
                refuse("is not supported", name[:60])
    asked = Asked(
        model=read.model,
        conversation=Conversation.of(said),
        stream=bool(read.stream),
        settings=given_values(
            temperature=read.temperature, top_p=read.top_p, max_tokens=read.max_output_tokens
        ),
        extra=extra,
        schema=format_of((read.text or {}).get("format"), "text", "format"),
        user=read.user or None,
        mixture=read.moa or AS_IT_IS,
        ignored=fields.named(unused),
    )
    return asked, ResponsesRequest(read, table, given)


def _messages(body: ResponsesBody, history: InputMessages) -> list[Message]:
    said = []
    if body.instructions:
        said.append(Message("system", body.instructions))
    if isinstance(body.input, str):
        return [*said, Message("user", body.input)]
    history.read(body.input)
    items = history.messages()
    if not any(message.role != "assistant" for message in items):
        refuse("contains no message to answer", "input")
    return [*said, *items]


def _reply_extra(body: ResponsesBody, table: ToolTable) -> dict[str, Any]:
    """Fields of the request body of the model that writes the reply."""
    verbosity = text_or_none(body.text or {}, "verbosity", "text")
    effort = text_or_none(body.reasoning or {}, "effort", "reasoning")
    tokens = _LOGPROBS in (body.include or ())
    return given_values(
        **_tools(body, table),
        verbosity=verbosity,
        reasoning_effort=effort,
        logprobs=tokens or None,
        top_logprobs=body.top_logprobs if tokens else None,
    )


def _tools(body: ResponsesBody, table: ToolTable) -> dict[str, Any]:
    asked = "auto" if body.tool_choice is None else body.tool_choice
    choice = table.choose(asked)
    if not table.functions:
        if choice not in ("auto", "none"):
            refuse(
                "asks for a tool call, but the request offers no tool that can be called",
                "tool_choice",
            )
        return {}
    return {
        "tools": OfferedTools(table.functions.values()),
        # Default values are not sent, because some endpoints do not know these fields.
        **({} if choice == "auto" else {"tool_choice": choice}),
        **({"parallel_tool_calls": False} if body.parallel_tool_calls is False else {}),
    }
