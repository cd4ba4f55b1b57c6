"""The protocols by which the engine uses model endpoints, and the values that they exchange."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moa_cli.core.conversation import Citation, Message, Usage
from moa_cli.core.frozen import quickly_made
from moa_cli.core.money import Price, check_price
from moa_cli.core.tools import ToolPiece

# The key that is sent to an endpoint that needs none, because the SDK requires a key.
NO_KEY = "none"


@quickly_made
@dataclass(frozen=True)
class CallPlace:
    """The place of a call in its turn. No two calls of a turn have the same place.

    The attempts of a call (see `Retrying`) share its place, because they ask for one answer. A
    fallback is a separate call, because it asks another model. Calls of a layer that send the same
    request to the same model differ in `sample`.

    layer: its number, from 1; rounds + 1 for the aggregator. index: for a proposer, its place in
    its layer, from 0, where each sample has its own place; for the aggregator 0, then 1, 2, … for
    its fallbacks. sample: the number, from 0, among the calls of the layer with the same request
    and model, in the order of `index`.
    """

    layer: int
    index: int
    sample: int = 0


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Request:
    """One chat completion to be streamed. None leaves a setting to the endpoint.

    Attributes:
        model: The model id as the endpoint knows it.
        messages: The conversation.
        temperature: Sampling temperature.
        max_tokens: Most tokens that the answer may have.
        top_p: Nucleus sampling, 0 to 1.
        seed: Seed for sampling.
        extra: Further fields of the request body.
        web: Whether the model is to search the web, in the way of its provider.
        place: The place of the call in its turn; None outside of a turn. It is not sent, and does
            not count when requests are compared.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    web: bool = False
    place: CallPlace | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The next piece of a completion; any of its parts may be missing.

    The first delta may be empty. It only tells that the endpoint has accepted the request.

    Attributes:
        text: The next piece of the answer.
        reasoning: The next piece of the reasoning.
        usage: The usage of the call so far. A later count replaces an earlier one.
        finish_reason: Why the answer ends, in the endpoint's words.
        model: The id of the model that answers, as the endpoint says.
        logprobs: The most likely first tokens of the answer, each with the natural logarithm of
            its probability. Only where `Request.extra` asks for them, and once in a stream.
        refusal: The next piece of the words in which the model refuses to answer.
        tool_calls: The next pieces of the tool calls that the model makes.
        token_logprobs: The log-probabilities of the next tokens, as the JSON objects of the
            endpoint. Only where `Request.extra` asks for them.
        replaces: Whether `text` and `reasoning` replace all that came before. This happens if a
            model ends its reasoning with a tag but has not begun it with one: until the end tag,
            the reasoning looks like the answer.
        citations: The sources that the endpoint has named so far. Later ones replace earlier ones.
        merged: How many further pieces of the endpoint's stream were merged into `text` and
            `reasoning`, because they came in a burst.
    """

    text: str = ""
    reasoning: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None
    logprobs: tuple[tuple[str, float], ...] | None = None
    refusal: str = ""
    tool_calls: tuple[ToolPiece, ...] = ()
    token_logprobs: tuple[str, ...] = ()
    replaces: bool = False
    citations: tuple[Citation, ...] = ()
    merged: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The known facts about a model. None means unknown.

    Attributes:
        id: The model id as the endpoint knows it.
        context_length: Most tokens of prompt and answer together.
        price: The price.
        kind: The kind of its output: `chat` for answers to messages, else `embedding`, `image`,
            `audio`, `video`, `rerank`, `moderation` or `other`.
        from_table: Whether the price is from the table that comes with `moa`.
        as_of: When the provider's list was read, in seconds since 1970; None if the facts are from
            no list.
        trouble: Why the provider's list could not be read, or None.
        sees: Whether it takes images.
        tools: Whether it can call tools.
    """

    id: str
    context_length: int | None = None
    price: Price | None = None
    kind: str = "chat"
    from_table: bool = False
    as_of: float | None = None
    trouble: str | None = None
    sees: bool | None = None
    tools: bool | None = None


def check_info(info: ModelInfo) -> ModelInfo:
    """`info`, unchanged. Raises ValueError if its price or its context length is invalid."""
    if info.price is not None:
        check_price(info.price)
    if info.context_length is not None and info.context_length < 1:
        raise ValueError(f"context_length is no length: {info.context_length}")
    return info


class Client(Protocol):
    """One endpoint."""

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Stream a completion.

        Args:
            request: The request.

        Returns:
            The completion as it comes. Closing the generator ends the call.

        Raises:
            ClientError: The endpoint did not do what was asked. The subclass says why, and
                whether a retry may help.
        """

    async def models(self) -> list[ModelInfo]:
        """List the models that the endpoint offers.

        Returns:
            The known facts about each model.

        Raises:
            ClientError: The endpoint gave no list.
        """

    async def aclose(self) -> None:
        """Close connections, and end processes."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The endpoint that a model name leads to.

    Attributes:
        client: The client of the endpoint.
        model: The model id as the endpoint knows it.
        provider: The name of the provider.
    """

    client: Client
    model: str
    provider: str


class Clients(Protocol):
    """The way from model names to endpoints."""

    def endpoint(self, model_name: str) -> Endpoint:
        """The endpoint of a model. Nothing is sent.

        Args:
            model_name: The model name in the profile.

        Returns:
            The endpoint.

        Raises:
            ProfileError: The name leads to no endpoint.
            ClientError: There can be no endpoint now: no key, or no runtime.
        """

    def known(self, model_name: str) -> ModelInfo:
        """The facts about a model that are known without a request to its provider.

        Args:
            model_name: The model name in the profile.

        Returns:
            The facts, such as its price and context length, if they are known.

        Raises:
            ProfileError: The name leads to no endpoint.
        """

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """The facts about a model. The provider may be asked for them.

        Args:
            model_name: The model name in the profile.
            patience: Most seconds to wait for the provider.

        Returns:
            The facts, such as its price and context length, if they are known by then.

        Raises:
            ProfileError: The name leads to no endpoint.
        """


class NameCheck(Protocol):
    """Clients that can tell before a turn whether a model name leads to an endpoint."""

    def check_name(self, model_name: str) -> None:
        """Raise ProfileError if `model_name` leads to no endpoint. Nothing is sent."""
