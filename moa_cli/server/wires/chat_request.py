"""The body of a chat completion request: its fields, their check, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from moa_cli.core.conversation import Conversation, Message, Role
from moa_cli.core.values import Key
from moa_cli.server.wires.asked import Asked, MixtureFields
from moa_cli.server.wires.bodies import given_values, json_object, read_body, refuse

_INT64 = 2**63
_INT32 = 2**31
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
# A text that ends the reply; it may be of spaces.
_STOP = Key(low=1, blank=True)
# What a model thought is not said again, as with the providers that tell it.
_THOUGHTS = ("reasoning", "reasoning_content")


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

    def asked(self) -> Asked:
        """What the body asks for."""
        return Asked(
            model=self.model,
            conversation=Conversation.of([message.message() for message in self.messages]),
            stream=bool(self.stream),
            settings=self.reply(),
            extra=self.reply_extra(),
            seed=self.seed,
            user=self.user,
            mixture=self.mixture,
        )

    def reply(self) -> dict[str, Any]:
        """Settings of the model that writes the reply, named as in a profile."""
        limit = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return given_values(temperature=self.temperature, top_p=self.top_p, max_tokens=limit)

    def reply_extra(self) -> dict[str, Any]:
        """Fields of that model's request body."""
        return given_values(
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            reasoning_effort=self.reasoning_effort,
            stop=(self.stop if isinstance(self.stop, str) else list(self.stop or ())) or None,
        )


def parse(body: bytes) -> ChatBody:
    """The request in a body. Raises ApiError, a 400 that names the field which is wrong."""
    request = read_body(ChatBody, _without_thoughts(json_object(body)))
    _check_together(request)
    return request


def _without_thoughts(given: dict[str, Any]) -> dict[str, Any]:
    messages = given.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "assistant":
            for name in _THOUGHTS:
                message.pop(name, None)
    return given


def _check_together(body: ChatBody) -> None:
    """Raise ApiError if fields do not go together."""
    if body.mixture.proposers == ():
        refuse("is empty; to ask none, give `moa.rounds` 0", "moa", "proposers")
    if body.stream_options is not None and not body.stream:
        refuse("may only be given with `stream`", "stream_options")
    if body.messages[-1].role != "user":
        place = len(body.messages) - 1
        refuse("must be user: the last message is the user's", "messages", place, "role")
    if len({body.max_tokens, body.max_completion_tokens} - {None}) > 1:
        refuse("differs from `max_tokens`", "max_completion_tokens")
