"""The body of a chat completion request: its fields, their check, and their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from moa_cli.core.conversation import Conversation
from moa_cli.core.frozen import quickly_made
from moa_cli.core.tools import OfferedTools
from moa_cli.core.values import Key, ValueFault, keys_of
from moa_cli.server.wires import fields
from moa_cli.server.wires.asked import AS_IT_IS, Asked, MixtureFields
from moa_cli.server.wires.bodies import (
    INT_MAX,
    AnyObject,
    format_of,
    given_values,
    json_object,
    only,
    read_body,
    refusal,
    refuse,
)
from moa_cli.server.wires.chat_messages import ChatMessage, each, tidied, with_call_ids

_INT64 = 2**63
_MOST_CHOICES = 16
_MOST_TOOLS = 512
# A text that ends the reply; it may consist of spaces.
_Stop = Annotated[str, Key(low=1, blank=True)]
# OpenAI accepts four, others more; tasks of evaluations have up to six. An endpoint may refuse.
_Stops = Annotated[tuple[_Stop, ...], Key(high=16)]
_Choice = Annotated[Literal["none", "auto", "required", "any"], Key()]
# OpenAI's values, and the further ones of DeepSeek (max) and Groq (default).
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"]
# The value that clients of llama.cpp and LM Studio send for no limit.
_NO_LIMIT = -1
_LIMITS = ("max_tokens", "max_completion_tokens")
# The other fields of a function, their allowed types, and the types in words.
_DESCRIBING = (
    ("parameters", (dict, type(None)), "an object"),
    ("description", (str, type(None)), "a text"),
)


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream ends."""

    include_usage: Annotated[
        bool | None, Key("end the stream with a chunk that holds the usage")
    ] = None
    include_obfuscation: Annotated[bool | None, Key("no effect")] = None


@quickly_made
@dataclass(frozen=True, kw_only=True)
class ChatBody:
    """All fields of the body. The check of requests and `/openapi.json` are made from them."""

    model: Annotated[str, Key("a profile's name; `moa` is the server's default profile")]
    stream: Annotated[bool | None, Key("send the reply as it is written")] = None
    temperature: Annotated[float | None, Key("of the reply", 0, 2)] = None
    top_p: Annotated[float | None, Key("of the reply", 0, 1)] = None
    max_tokens: Annotated[int | None, Key("most tokens of the reply", 1, INT_MAX)] = None
    max_completion_tokens: Annotated[int | None, Key("the same as max_tokens", 1, INT_MAX)] = None
    # Passed on unchanged: an integer stays an integer.
    presence_penalty: Annotated[int | float | None, Key("of the reply", -2, 2)] = None
    frequency_penalty: Annotated[int | float | None, Key("of the reply", -2, 2)] = None
    reasoning_effort: Annotated[_Effort | None, Key("of the reply")] = None
    seed: Annotated[
        int | None, Key("for all models without a seed of their own", -_INT64, _INT64)
    ] = None
    user: Annotated[str | None, Key("passed on to all models", blank=True)] = None
    messages: Annotated[tuple[ChatMessage, ...], Key(low=1)]
    stop: Annotated[_Stop | _Stops | None, Key()] = None
    stream_options: Annotated[StreamOptions | None, Key()] = None
    moa: Annotated[MixtureFields | None, Key()] = None
    tools: Annotated[
        tuple[Mapping[str, Any], ...] | None,
        Key("for the model that writes the reply", high=_MOST_TOOLS),
    ] = None
    tool_choice: Annotated[_Choice | AnyObject | None, Key()] = None
    parallel_tool_calls: Annotated[bool | None, Key("for the model that writes the reply")] = None
    functions: Annotated[
        tuple[Mapping[str, Any], ...] | None,
        Key("the older form of tools", high=_MOST_TOOLS),
    ] = None
    function_call: Annotated[
        Annotated[str, Key()] | AnyObject | None, Key("the same as tool_choice")
    ] = None
    response_format: Annotated[Mapping[str, Any] | None, Key("JSON in place of text")] = None
    n: Annotated[
        int | None, Key("number of replies, all written from the same proposals", 1, _MOST_CHOICES)
    ] = None
    logprobs: Annotated[bool | None, Key("of the tokens of the reply")] = None
    top_logprobs: Annotated[int | None, Key("of the tokens of the reply", 0, 20)] = None
    audio: Annotated[Any, only()] = None
    modalities: Annotated[Any, only(["text"])] = None
    # Checked only with --strict; see `fields`.
    metadata: Annotated[Mapping[str, Any] | None, Key("no effect")] = None
    prompt_cache_key: Annotated[str | None, Key("no effect")] = None
    prompt_cache_retention: Annotated[str | None, Key("no effect")] = None
    safety_identifier: Annotated[str | None, Key("no effect")] = None
    service_tier: Annotated[Any, Key("no effect", only=("auto", "default"))] = None
    store: Annotated[Any, Key("no effect", only=(False,))] = None
    logit_bias: Annotated[Any, Key(fields.PASSED["logit_bias"], only=({},))] = None
    prediction: Annotated[Any, Key(fields.PASSED["prediction"], only=())] = None
    verbosity: Annotated[Any, Key(fields.PASSED["verbosity"], only=("medium",))] = None
    web_search_options: Annotated[Any, Key(fields.PASSED["web_search_options"], only=())] = None

    def asked(self, passed: Mapping[str, Any], ignored: list[str]) -> Asked:
        """The meaning of the body, independent of the wire. passed, ignored: see
        `fields.sort_fields`.

        Raises ValueFault for an incomplete message or tool.
        """
        messages = each("messages", self.messages, ChatMessage.message)
        try:
            conversation = Conversation.of(with_call_ids(messages))
        except ValueError:
            raise ValueFault("contains no message to answer", path=("messages",)) from None
        tools = _tools(self, ignored)
        limit = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return Asked(
            model=self.model,
            conversation=conversation,
            stream=bool(self.stream),
            settings=given_values(temperature=self.temperature, top_p=self.top_p, max_tokens=limit),
            extra={**passed, **self._reply_extra(), **tools},
            schema=format_of(self.response_format, "response_format"),
            seed=self.seed,
            user=self.user or None,
            mixture=self.moa or AS_IT_IS,
            choices=self.n or 1,
            ignored=fields.named(ignored),
        )

    def _reply_extra(self) -> dict[str, Any]:
        """Fields of the request body of the model that writes the reply."""
        return given_values(
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            reasoning_effort=self.reasoning_effort,
            stop=(self.stop if isinstance(self.stop, str) else list(self.stop or ())) or None,
            logprobs=self.logprobs or None,
            top_logprobs=self.top_logprobs if self.logprobs else None,
        )


def supported_fields(*, tools: bool) -> list[str]:
    """The names of the request fields that have an effect, for lists of models. tools: whether the
    model calls tools."""
    shape = {"model", "messages", "stream", "stream_options", "moa", "audio", "modalities"}
    if not tools:
        shape |= {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"}
    known = [name for name in keys_of(ChatBody) if name not in fields.HINTS]
    return [name for name in dict.fromkeys([*known, *fields.PASSED]) if name not in shape]


def parse(body: bytes, *, strict: bool = False) -> tuple[Asked, ChatBody]:
    """The request in a body; see `wire.Wire`."""
    return parse_object(json_object(body), strict=strict)


def parse_object(body: Mapping[str, Any], *, strict: bool) -> tuple[Asked, ChatBody]:
    """The request in the parsed values of a body; see `parse`."""
    given, passed, ignored = fields.sort_fields(body, _used_fields(), strict=strict)
    _tidy(given, ignored, strict=strict)
    request = read_body(ChatBody, given)
    _check_together(request, strict=strict)
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        ignored.append("stream_options.include_obfuscation")
    try:
        return request.asked(passed, ignored), request
    except ValueFault as fault:
        raise refusal(fault) from None


@cache
def _used_fields() -> frozenset[str]:
    """The fields that a mixture uses itself."""
    return frozenset(keys_of(ChatBody).keys() - fields.HINTS.keys() - fields.PASSED.keys())


def _tidy(given: dict[str, Any], ignored: list[str], *, strict: bool) -> None:
    """Remove fields without effect from messages and stream options, and limits that mean no
    limit."""
    messages = given.get("messages")
    if isinstance(messages, list):
        given["messages"] = [tidied(message, ignored, strict=strict) for message in messages]
    options = given.get("stream_options")
    if isinstance(options, dict) and not strict:
        given["stream_options"] = fields.only_known(
            options, keys_of(StreamOptions), ignored, "stream_options."
        )
    for name in _LIMITS:
        if given.get(name) == _NO_LIMIT and not strict:
            del given[name]


def _tools(body: ChatBody, ignored: list[str]) -> dict[str, Any]:
    """The fields for the aggregator's request about tools; empty if there are no tools.

    Raises ValueFault for an invalid tool, and for the choice of a tool that does not exist.
    """
    found: dict[str, list[str]] = {"function": [], "custom": []}
    tools = []
    given = list(body.tools or ())
    for place, tool in enumerate(given):
        kind = "function" if tool.get("type") is None else tool["type"]
        if kind not in ("function", "custom"):
            # OpenAI's servers run such a tool themselves.
            ignored.append(f"tools[].type={kind}")
            continue
        inner = tool.get(kind)
        path: tuple[str | int, ...] = ("tools", place, kind)
        if inner is None and "name" in tool:
            # The form of the Responses API, or of Anthropic's API.
            inner, path = {**tool, "parameters": tool.get("parameters")}, path[:2]
            schema = inner.pop("input_schema", None)
            inner["parameters"] = schema if inner["parameters"] is None else inner["parameters"]
            inner.pop("type", None)
            tool = {}
        described = _described(inner, path)
        found[kind].append(described["name"])
        tools.append({**tool, "type": kind, kind: described})
    if not given:
        for place, function in enumerate(body.functions or ()):
            described = _described(function, ("functions", place))
            found["function"].append(described["name"])
            tools.append({"type": "function", "function": described})
    choice = _tool_choice(body, found)
    if not tools:
        if choice in (None, "auto", "none") or ignored:
            return {}
        raise ValueFault("needs `tools`", path=("tool_choice",))
    return {"tools": OfferedTools(tools)} | given_values(
        tool_choice=choice, parallel_tool_calls=body.parallel_tool_calls
    )


def _described(tool: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
    """A function or custom tool in the form that endpoints accept. Raises ValueFault if it is
    invalid."""
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueFault("is missing", path=(*path, "name"), code="missing")
    for field, kinds, told in _DESCRIBING:
        if not isinstance(tool.get(field), kinds):
            raise ValueFault(f"must be {told}", path=(*path, field))
    # Some endpoints do not accept null for a missing value.
    return given_values(**tool)


def _tool_choice(body: ChatBody, names: Mapping[str, Sequence[str]]) -> Any:
    """The choice in the form that all endpoints know. Clients also use the forms of other APIs:
    Mistral's `any`, Anthropic's objects, the Responses API's functions without an inner object.

    names: the names of the request's functions and custom tools.
    """
    choice: Any = body.tool_choice
    if choice is None and body.function_call is not None:
        choice = body.function_call
        if isinstance(choice, Mapping):
            choice = {"type": "function", "function": choice}
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    if kind in ("auto", "none", "required"):
        return kind
    if kind == "any":
        return "required"
    if not isinstance(choice, Mapping):
        raise ValueFault("must be one of none, auto, required", path=("function_call",))
    if kind == "allowed_tools":
        return dict(choice)
    kind = "function" if kind in (None, "tool") else kind
    if kind not in ("function", "custom"):
        told = "must be auto, none, required, function, custom or allowed_tools"
        raise ValueFault(told, path=("tool_choice", "type"))
    inner = choice.get(kind)
    name = inner.get("name") if isinstance(inner, Mapping) else choice.get("name")
    if name not in names[kind]:
        raise ValueFault("names no tool of the request", path=("tool_choice",))
    return {"type": kind, kind: {"name": name}}


def _check_together(body: ChatBody, *, strict: bool) -> None:
    """Raise ApiError if fields contradict each other."""
    if strict and body.stream_options is not None:
        if not body.stream:
            refuse("may only be given with `stream`", "stream_options")
        if body.stream_options.include_obfuscation:
            refuse("must be false: true is not supported", "stream_options", "include_obfuscation")
    if body.top_logprobs and not body.logprobs:
        refuse("needs `logprobs`", "top_logprobs")
    if len({body.max_tokens, body.max_completion_tokens} - {None}) > 1:
        refuse("differs from `max_tokens`", "max_completion_tokens")
