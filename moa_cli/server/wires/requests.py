"""The body of a chat completion request: its fields, their check, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NoReturn

from moa_cli.core.conversation import Conversation, Message, Role
from moa_cli.core.values import JSON, Key, ValueFault, read_fields
from moa_cli.profile import Overrides
from moa_cli.profile.schema import PROFILE_KEYS, PROPOSER_KEYS, Placement, ReferenceFormat
from moa_cli.server.errors import ApiError

_INT64 = 2**63
_INT32 = 2**31
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_CODES = {
    "unknown": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported": "unsupported_parameter",
    "invalid": "invalid_value",
}
# A text that ends the reply; it may be of spaces.
_STOP = Key(low=1, blank=True)
# What a model thought is not said again, as with the providers that tell it.
_THOUGHTS = ("reasoning", "reasoning_content")
_LONGEST_NAME = 60
_LEAST_SECONDS = 1.0


def _only(*values: Any) -> Key:
    """A field that is not supported; values: those that ask for nothing."""
    return Key("Not supported otherwise.", only=values)


@dataclass(frozen=True, kw_only=True)
class TextPart:
    type: Annotated[Literal["text"], Key()]
    text: Annotated[str, Key(blank=True)]


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """A message of the conversation. Client libraries send back a reply with its empty fields."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], Key()]
    content: Annotated[
        Annotated[str, Key(blank=True)] | Annotated[tuple[TextPart, ...], Key(low=1)], Key()
    ]
    annotations: Annotated[Any, _only([])] = None
    audio: Annotated[Any, _only()] = None
    function_call: Annotated[Any, _only()] = None
    name: Annotated[Any, _only()] = None
    refusal: Annotated[Any, _only()] = None
    tool_calls: Annotated[Any, _only([])] = None

    def message(self) -> Message:
        """What is said, and by whom."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        return Message(_ROLES[self.role], text)


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream ends."""

    include_usage: Annotated[
        bool | None, Key("end the stream with a chunk that holds the usage")
    ] = None
    include_obfuscation: Annotated[bool | None, Key("must be false if given", only=(False,))] = None


def _seconds(name: str) -> Key:
    """A limit of the profile's, but never so low that no model could keep to it."""
    return replace(PROFILE_KEYS[name], low=_LEAST_SECONDS)


@dataclass(frozen=True, kw_only=True)
class MixtureFields:
    """The `moa` object: overrides of the mixture for one request."""

    rounds: Annotated[int | None, PROFILE_KEYS["rounds"]] = None
    proposers: Annotated[
        tuple[str, ...] | None, Key("models in place of the profile's proposers")
    ] = None
    aggregator: Annotated[str | None, Key("the model that writes the reply")] = None
    samples: Annotated[int | None, PROPOSER_KEYS["samples"]] = None
    reference_placement: Annotated[Placement | None, PROFILE_KEYS["reference_placement"]] = None
    reference_format: Annotated[ReferenceFormat | None, PROFILE_KEYS["reference_format"]] = None
    reference_names: Annotated[bool | None, PROFILE_KEYS["reference_names"]] = None
    timeout: Annotated[float | None, _seconds("timeout")] = None
    stall: Annotated[float | None, _seconds("stall")] = None
    first_token: Annotated[float | None, _seconds("first_token")] = None
    hedge_after: Annotated[float | None, PROFILE_KEYS["hedge_after"]] = None
    quorum: Annotated[int | None, PROFILE_KEYS["quorum"]] = None
    patience: Annotated[float | None, PROFILE_KEYS["patience"]] = None
    use_partial: Annotated[bool | None, PROFILE_KEYS["use_partial"]] = None
    overlap: Annotated[bool | None, PROFILE_KEYS["overlap"]] = None
    show_proposals: Annotated[bool | None, Key("give the proposals as `reasoning_content`")] = None

    def overrides(self) -> Overrides:
        """The settings that are laid over the profile."""
        return Overrides(
            reference_models=self.proposers,
            aggregator=self.aggregator,
            samples=self.samples,
            rounds=self.rounds,
            reference_placement=self.reference_placement,
            reference_format=self.reference_format,
            reference_names=self.reference_names,
            timeout=self.timeout,
            stall=self.stall,
            first_token=self.first_token,
            hedge_after=self.hedge_after,
            quorum=self.quorum,
            patience=self.patience,
            use_partial=self.use_partial,
            overlap=self.overlap,
        )


@dataclass(frozen=True, kw_only=True)
class ChatBody:
    """All fields of the body. The check of a request and `/openapi.json` come from here."""

    model: Annotated[str, Key("a profile's name; `moa` is the server's default profile")]
    stream: Annotated[bool | None, Key("send the reply as it is written")] = None
    temperature: Annotated[float | None, Key("of the reply", 0, 2)] = None
    top_p: Annotated[float | None, Key("of the reply", 0, 1)] = None
    max_tokens: Annotated[int | None, Key("most tokens of the reply", 1, _INT32 - 1)] = None
    max_completion_tokens: Annotated[int | None, Key("the same as max_tokens", 1, _INT32 - 1)] = (
        None
    )
    # Passed on as they are, without a point that the client has not sent.
    presence_penalty: Annotated[int | float | None, Key("of the reply", -2, 2)] = None
    frequency_penalty: Annotated[int | float | None, Key("of the reply", -2, 2)] = None
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None, Key("of the reply")
    ] = None
    seed: Annotated[
        int | None, Key("for all models without a seed of their own", -_INT64, _INT64)
    ] = None
    user: Annotated[str | None, Key("passed on to all models")] = None
    messages: Annotated[tuple[ChatMessage, ...], Key(low=1)]
    stop: Annotated[
        Annotated[str, _STOP] | Annotated[tuple[Annotated[str, _STOP], ...], Key(high=4)] | None,
        Key(),
    ] = None
    stream_options: Annotated[StreamOptions | None, Key()] = None
    moa: Annotated[MixtureFields | None, Key()] = None
    # Bookkeeping that client libraries send. It changes nothing in a reply, so nothing is lost.
    metadata: Annotated[Mapping[str, Any] | None, Key("no effect")] = None
    parallel_tool_calls: Annotated[bool | None, Key("no effect: there are no tools")] = None
    prompt_cache_key: Annotated[str | None, Key("no effect")] = None
    prompt_cache_retention: Annotated[str | None, Key("no effect")] = None
    safety_identifier: Annotated[str | None, Key("no effect")] = None
    audio: Annotated[Any, _only()] = None
    function_call: Annotated[Any, _only("auto", "none")] = None
    functions: Annotated[Any, _only([])] = None
    logit_bias: Annotated[Any, _only({})] = None
    logprobs: Annotated[Any, _only(False)] = None
    modalities: Annotated[Any, _only(["text"])] = None
    n: Annotated[Any, _only(1)] = None
    prediction: Annotated[Any, _only()] = None
    response_format: Annotated[Any, _only({"type": "text"})] = None
    service_tier: Annotated[Any, _only("auto", "default")] = None
    store: Annotated[Any, _only(False)] = None
    tool_choice: Annotated[Any, _only("auto", "none")] = None
    tools: Annotated[Any, _only([])] = None
    top_logprobs: Annotated[Any, _only(0)] = None
    verbosity: Annotated[Any, _only("medium")] = None
    web_search_options: Annotated[Any, _only()] = None

    @property
    def mixture(self) -> MixtureFields:
        return self.moa or MixtureFields()

    def conversation(self) -> Conversation:
        """What was said, up to the message to answer."""
        *before, last = [message.message() for message in self.messages]
        return Conversation(before=tuple(before)).ask(last.content)

    def reply(self) -> dict[str, Any]:
        """Settings of the model that writes the reply, named as in a profile."""
        limit = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return _given(temperature=self.temperature, top_p=self.top_p, max_tokens=limit)

    def reply_extra(self) -> dict[str, Any]:
        """Fields of that model's request body."""
        return _given(
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            reasoning_effort=self.reasoning_effort,
            stop=(self.stop if isinstance(self.stop, str) else list(self.stop or ())) or None,
        )


def parse(body: bytes) -> ChatBody:
    """The request in a body. Raises ApiError, a 400 that names the field which is wrong."""
    try:
        request = ChatBody(**read_fields(ChatBody, _without_thoughts(_object(body)), JSON))
        _check_together(request)
        return request
    except ValueFault as fault:
        raise refusal(fault) from None


def refusal(fault: ValueFault) -> ApiError:
    """The 400 that names the field which is to blame."""
    *above, last = fault.path
    if isinstance(last, str) and len(last) > _LONGEST_NAME:
        fault.path = (*above, last[: _LONGEST_NAME - 1] + "…")
    message = fault.sentence(JSON) + (f"; {fault.hint}" if fault.hint else "")
    return ApiError(400, message, param=JSON.path(fault.path), code=_CODES[fault.code])


def _object(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

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


def _without_thoughts(given: dict[str, Any]) -> dict[str, Any]:
    messages = given.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "assistant":
            for name in _THOUGHTS:
                message.pop(name, None)
    return given


def _check_together(body: ChatBody) -> None:
    """Raise ValueFault if fields do not go together."""
    if body.mixture.proposers == ():
        _refuse("is empty; to ask none, give `moa.rounds` 0", "moa", "proposers")
    if body.stream_options is not None and not body.stream:
        _refuse("may only be given with `stream`", "stream_options")
    if body.messages[-1].role != "user":
        place = len(body.messages) - 1
        _refuse("must be user: the last message is the user's", "messages", place, "role")
    if len({body.max_tokens, body.max_completion_tokens} - {None}) > 1:
        _refuse("differs from `max_tokens`", "max_completion_tokens")


def _refuse(problem: str, *path: str | int) -> NoReturn:
    raise ValueFault(problem, path=path)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
