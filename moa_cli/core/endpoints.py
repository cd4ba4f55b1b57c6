"""What the engine asks of a model endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moa_cli.core.conversation import Citation, Message, Usage
from moa_cli.core.frozen import quickly_made
from moa_cli.core.money import Price, check_price
from moa_cli.core.tools import ToolPiece

# What an endpoint that takes no key is sent as one: the SDK cannot do without.
NO_KEY = "none"


@quickly_made
@dataclass(frozen=True)
class CallPlace:
    """Where in its turn a call stands; no two calls of a turn have the same place.

    The attempts of a call (see `Retrying`) share its place, since they ask for one answer. A
    fallback is a call of its own: it asks another model. `(request, sample)` tells apart what the
    request alone does not.

    layer: counted from 1; rounds + 1 for the aggregator. index: for a proposer, its place in its
    layer, counted from 0, with samples told apart; for the aggregator 0, then 1, 2, … for its
    fallbacks. sample: the number, from 0, among the calls of the layer that send the same request
    to the same model, in the order of `index`.
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
        place: Where in its turn the call stands; None outside of a turn. It is not sent, and two
            requests that differ in nothing else are equal.
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

    The first may be empty: the endpoint has taken the request.

    Attributes:
        text: The next piece of the answer.
        reasoning: The next piece of the reasoning.
        usage: What the call took so far. A later count replaces an earlier one.
        finish_reason: Why the answer ends, in the endpoint's words.
        model: The id of the model that answers, as the endpoint says.
        logprobs: The most likely first tokens of the answer, each with the natural logarithm of
            its probability. Only where `Request.extra` asks for them, and once in a stream.
        refusal: The next piece of the words in which the model refuses to answer.
        tool_calls: The next pieces of the calls of tools that the model makes.
        token_logprobs: The log-probabilities of the next tokens, for each the JSON object that the
            endpoint tells; only where `Request.extra` asks for them.
        replaces: Whether `text` and `reasoning` stand in place of all that came before: where
            reasoning ends in a text that nothing opened as reasoning, only its end tells so.
        citations: The sources that the endpoint has named so far. Later ones replace earlier ones.
        merged: How many more pieces of the endpoint's stream `text` and `reasoning` hold than one
            each: what comes in a burst is one delta.
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
    """What is known of a model; None is unknown.

    Attributes:
        id: The model id as the endpoint knows it.
        context_length: Most tokens of prompt and answer together.
        price: The price.
        kind: What it makes: `chat` for answers to messages, else `embedding`, `image`, `audio`,
            `video`, `rerank`, `moderation` or `other`.
        from_table: Whether the price is that of the table that comes with `moa`.
        as_of: When the provider's list said so, in seconds since 1970; None if no list did.
        trouble: Why that list could not be read, or None.
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
    """`info` as it is. Raises ValueError if it holds what is no price or no length."""
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
            request: What is asked.

        Returns:
            The completion as it comes. Closing the generator ends the call.

        Raises:
            ClientError: The endpoint did not do what was asked. The subclass says why, and
                whether a retry may help.
        """

    async def models(self) -> list[ModelInfo]:
        """List what the endpoint offers.

        Returns:
            What is known of each model.

        Raises:
            ClientError: The endpoint gave no list.
        """

    async def aclose(self) -> None:
        """Give back connections and processes."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model name leads.

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
            ProfileError: The name leads nowhere.
            ClientError: There can be no endpoint now: no key, or no runtime.
        """

    def known(self, model_name: str) -> ModelInfo:
        """What is known of a model without asking its provider.

        Args:
            model_name: The model name in the profile.

        Returns:
            Its price and context length, if they are known.

        Raises:
            ProfileError: The name leads nowhere.
        """

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """What is known of a model; the provider may be asked.

        Args:
            model_name: The model name in the profile.
            patience: Most seconds to wait for the provider.

        Returns:
            Its price and context length, if they are known by then.

        Raises:
            ProfileError: The name leads nowhere.
        """


class NameCheck(Protocol):
    """Clients that can tell before a turn whether a model name leads anywhere."""

    def check_name(self, model_name: str) -> None:
        """Raise ProfileError if `model_name` leads nowhere; nothing is sent."""
