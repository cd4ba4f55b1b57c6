"""The body of a request to Anthropic's Messages API: its fields and their meaning.

Source: Anthropic's API reference, "Create a Message" and "Count tokens in a Message".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from moa_cli.core.tokens import extra_tokens, prompt_tokens
from moa_cli.core.tools import OfferedTools
from moa_cli.core.values import Key, ValueFault, keys_of
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.anthropic_tools import builtin_function
from moa_cli.server.wires.asked import AS_IT_IS, Asked, MixtureFields
from moa_cli.server.wires.bodies import (
    INT_MAX,
    AnyText,
    format_of,
    given_values,
    json_object,
    only,
    read_body,
    refusal,
    refuse,
    text_or_none,
)
from moa_cli.server.wires.fields import is_neutral, named, only_known
from moa_cli.server.wires.messages_content import ContentReader
from moa_cli.server.wires.tool_names import sendable

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
_BUDGETS = ((4096, "low"), (16384, "medium"))
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_THINKING = ("enabled", "adaptive", "between_tools")
# The beginnings of the types of tools that Anthropic's servers run themselves.
_SERVER_TOOLS = (
    "advisor_",
    "code_execution_",
    "mcp_toolset",
    "tool_search_tool_",
    "web_fetch_",
    "web_search_",
)
_TOOL_FIELDS = ("name", "description", "input_schema", "strict", "type")
# Anthropic's own code for this error.
THREAD_NOT_FOUND = "thread_not_found"
# About the number of tokens that Anthropic counts for a large image.
_IMAGE_TOKENS = 1500

_Object = Mapping[str, Any]
_Blocks = Annotated[tuple[_Object, ...], Key()]


_HINT = Key("no effect")


@dataclass(frozen=True, kw_only=True)
class MessagesMessage:
    """A message of the conversation."""

    role: Annotated[Literal["user", "assistant", "system"], Key("system may be at any place")]
    content: Annotated[AnyText | _Blocks, Key("a text or a list of content blocks")]


@dataclass(frozen=True, kw_only=True)
class CountBody:
    """The fields of a request for a count of tokens: all parts of a prompt."""

    model: Annotated[str, Key("a profile's name; `moa` is the server's default profile")]
    messages: Annotated[
        tuple[MessagesMessage, ...],
        Key("the conversation; `content` is a text or a list of content blocks", low=1),
    ]
    system: Annotated[
        AnyText | _Blocks | None, Key("the system prompt, a text or a list of text blocks")
    ] = None
    tools: Annotated[
        tuple[_Object, ...] | None,
        Key("tools with an `input_schema`, for the model that writes the reply"),
    ] = None
    tool_choice: Annotated[
        _Object | None, Key("auto, any, tool or none, and `disable_parallel_tool_use`")
    ] = None
    thinking: Annotated[
        _Object | None, Key("whether to send the reply's reasoning, as thinking blocks")
    ] = None
    output_config: Annotated[
        _Object | None, Key("`effort` and `format` (json_schema) of the reply")
    ] = None
    output_format: Annotated[_Object | None, Key("the same as `output_config.format`")] = None
    # Fields that would change the reply and are not supported.
    container: Annotated[Any, only()] = None
    inference_geo: Annotated[Any, only("global", "not_available")] = None
    mcp_servers: Annotated[Any, only([])] = None


@dataclass(frozen=True, kw_only=True)
class MessagesBody(CountBody):
    """All fields of the body. Others, and those without effect, are named in the reply's `moa`
    object."""

    max_tokens: Annotated[int, Key("most tokens of the reply", 1, INT_MAX)]
    stream: Annotated[bool | None, Key("send the reply as it is written")] = None
    temperature: Annotated[float | None, Key("of the reply", 0, 1)] = None
    top_p: Annotated[float | None, Key("of the reply", 0, 1)] = None
    top_k: Annotated[int | None, Key("of the reply", 0, INT_MAX)] = None
    stop_sequences: Annotated[
        tuple[Annotated[str, Key(low=1, blank=True)], ...] | None,
        Key("texts at which the reply ends"),
    ] = None
    moa: Annotated[MixtureFields | None, Key("changes the mixture for this request")] = None
    cache_control: Annotated[_Object | None, _HINT] = None
    context_management: Annotated[_Object | None, _HINT] = None
    metadata: Annotated[_Object | None, _HINT] = None
    service_tier: Annotated[str | None, _HINT] = None
    thread: Annotated[_Object | None, Key("`create` has no effect, `continue` is a 404")] = None
    compaction: Annotated[Any, only()] = None


# Hints, which are accepted and have no effect.
_HINTS = ("cache_control", "context_management", "metadata", "service_tier", "thread")


@dataclass(frozen=True, kw_only=True)
class MessagesRequest:
    """A request that has been read. thinks: whether the client wants the reply's reasoning.
    tool_names: by the name that the model sees, the client's own names of its tools."""

    asked: Asked
    thinks: bool
    tool_names: Mapping[str, str] = field(default_factory=dict)


def tokens_of(asked: Asked) -> int:
    """About how many tokens a prompt has, whose files have been read, without proposals."""
    messages = asked.conversation.messages()
    images = sum(part.kind == "image" for message in messages for part in message.parts)
    tools = asked.extra.get("tools")
    return prompt_tokens(messages) + _IMAGE_TOKENS * images + extra_tokens({"tools": tools})


def parse(body: bytes, *, strict: bool = False) -> tuple[Asked, MessagesRequest]:
    """The request in a body; see `wire.Wire`."""
    request = parse_as(MessagesBody, body)
    if strict and request.asked.ignored:
        name = request.asked.ignored[:1]
        raise refusal(ValueFault("is not supported", path=name, code="unsupported"))
    return request.asked, request


def parse_as(kind: type[CountBody], body: bytes) -> MessagesRequest:
    """The request in a body with the fields of `kind`. Raises ApiError, a 400 that names the wrong
    field."""
    ignored: list[str] = []
    given = json_object(body)
    _check_thread(given.get("thread"))
    request = read_body(kind, _known(given, kind, ignored))
    reader = ContentReader(ignored)
    if request.system is not None:
        reader.system(request.system)
    for place, message in enumerate(request.messages):
        reader.message(message.role, message.content, place)
    conversation = reader.conversation()
    thinking = request.thinking or {}
    thinks = thinking.get("type") in _THINKING and thinking.get("display") != "omitted"
    schema = _format(request)
    extra = {**_tools(request, ignored), **_effort(request, ignored)}
    if not isinstance(request, MessagesBody):
        return MessagesRequest(
            asked=Asked(model=request.model, conversation=conversation, extra=extra), thinks=thinks
        )
    for name in _HINTS:
        if not is_neutral(name, getattr(request, name)):
            ignored.append(name)
    extra |= given_values(top_k=request.top_k, stop=list(request.stop_sequences or ()) or None)
    asked = Asked(
        model=request.model,
        conversation=conversation,
        stream=bool(request.stream),
        settings=given_values(
            temperature=request.temperature, top_p=request.top_p, max_tokens=request.max_tokens
        ),
        extra=extra,
        schema=schema,
        mixture=request.moa or AS_IT_IS,
        ignored=named(ignored),
    )
    names = [tool.get("name") for tool in request.tools or ()]
    known = {sendable(name): name for name in names if isinstance(name, str)}
    return MessagesRequest(asked=asked, thinks=thinks, tool_names=known)


def _check_thread(thread: Any) -> None:
    """Raise ApiError if a request holds only the new messages of a conversation. Anthropic keeps
    the others for a while, and clients send all of them again after this error."""
    if isinstance(thread, Mapping) and thread.get("type") == "continue":
        why = "`thread`: this server stores nothing between requests: send the whole conversation"
        raise ApiError(404, why, param="thread", code=THREAD_NOT_FOUND)


def _known(given: dict[str, Any], kind: Any, ignored: list[str]) -> Any:
    """The body with only its known fields, also in its messages."""
    messages = given.get("messages")
    if isinstance(messages, list):
        known = keys_of(MessagesMessage)
        given["messages"] = [only_known(message, known, ignored) for message in messages]
    return only_known(given, keys_of(kind), ignored)


def _tools(request: CountBody, ignored: list[str]) -> dict[str, Any]:
    """The tools, and the choice of tools, in the form of OpenAI's API."""
    tools: list[dict[str, Any]] = []
    for place, tool in enumerate(request.tools or ()):
        kind = tool.get("type") or "custom"
        if isinstance(kind, str) and kind.startswith(_SERVER_TOOLS):
            ignored.append(f"tools[].type={kind}")
        else:
            tools.append(_function(tool, kind, place, ignored))
    choice = _tool_choice(request, tools, ignored)
    # Some endpoints refuse an empty list, and a choice without tools.
    return {"tools": OfferedTools(tools), **choice} if tools else {}


def _function(tool: _Object, kind: Any, place: int, ignored: list[str]) -> dict[str, Any]:
    path = ("tools", place)
    only_known(tool, _TOOL_FIELDS, ignored)
    name, schema = tool.get("name"), tool.get("input_schema")
    is_builtin = kind != "custom" and schema is None
    builtin = builtin_function(kind) if is_builtin and isinstance(kind, str) else None
    if is_builtin and builtin is None:
        refuse(
            "is a tool built into Anthropic's models; describe it with `input_schema`",
            *path,
            "type",
        )
    if not isinstance(name, str) or not name:
        refuse("must be the name of the tool", *path, "name")
    if builtin is not None:
        return {"type": "function", "function": {"name": sendable(name), **builtin}}
    if not isinstance(schema, Mapping):
        refuse("must be a JSON schema", *path, "input_schema")
    said = text_or_none(tool, "description", *path)
    strict = True if tool.get("strict") is True else None
    name, parameters = sendable(name), dict(schema)
    if parameters.get("type") == "object":
        # OpenAI refuses an object without them.
        parameters.setdefault("properties", {})
    function = given_values(name=name, description=said, parameters=parameters, strict=strict)
    return {"type": "function", "function": function}


def _tool_choice(
    request: CountBody, tools: Sequence[_Object], ignored: list[str]
) -> dict[str, Any]:
    choice = request.tool_choice
    if choice is None:
        return {}
    kind, names = choice.get("type"), [tool["function"]["name"] for tool in tools]
    if kind in ("any", "tool") and not tools:
        refuse(
            "asks for a tool that only Anthropic's servers run" if request.tools else "needs tools",
            "tool_choice",
        )
    chosen: Any
    if kind == "tool":
        name = choice.get("name")
        if not isinstance(name, str) or sendable(name) not in names:
            refuse("must be the name of one of the tools", "tool_choice", "name")
        chosen = {"type": "function", "function": {"name": sendable(name)}}
    elif isinstance(kind, str) and kind in _CHOICES:
        chosen = _CHOICES[kind]
    else:
        refuse("must be one of auto, any, tool, none", "tool_choice", "type")
    alone = choice.get("disable_parallel_tool_use")
    if not isinstance(alone, bool | None):
        refuse("must be true or false", "tool_choice", "disable_parallel_tool_use")
    only_known(choice, ("type", "name", "disable_parallel_tool_use"), ignored)
    return given_values(tool_choice=chosen, parallel_tool_calls=False if alone else None)


def _effort(request: CountBody, ignored: list[str]) -> dict[str, Any]:
    """The effort of the reply, in the form of OpenAI's API."""
    config = request.output_config or {}
    effort = config.get("effort")
    found: dict[str, Any] = {}
    if isinstance(effort, str) and effort in _EFFORTS:
        found["reasoning_effort"] = _EFFORTS[effort]
    elif effort is not None:
        ignored.append("output_config.effort")
    elif (budget := (request.thinking or {}).get("budget_tokens")) is not None:
        if type(budget) is not int or budget < 1:
            refuse("must be a number of tokens", "thinking", "budget_tokens")
        # OpenAI's API has no budget of tokens, only these words.
        fits = (word for most, word in _BUDGETS if budget <= most)
        found["reasoning_effort"] = next(fits, "high")
    others = (name for name in config if name not in ("effort", "format"))
    ignored += [f"output_config.{name}" for name in others]
    return found


def _format(request: CountBody) -> ResponseFormat | None:
    """The requested format of the reply."""
    form = (request.output_config or {}).get("format")
    path: tuple[str, ...] = ("output_config", "format")
    if form is None:
        form, path = request.output_format, ("output_format",)
    if isinstance(form, Mapping):
        if form.get("type") != "json_schema":
            refuse("must be json_schema", *path, "type")
        form = {**form, "strict": True}
    return format_of(form, *path)
