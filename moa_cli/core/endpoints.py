"""What the engine asks of a model endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from moa_cli.core.conversation import Message, Usage
from moa_cli.core.money import Price, check_price

__all__ = [
    "NO_KEY",
    "CallPlace",
    "Client",
    "Clients",
    "Delta",
    "Endpoint",
    "ModelInfo",
    "NameCheck",
    "Request",
]

# What an endpoint that takes no key is sent as one: the SDK cannot do without.
NO_KEY = "none"


@dataclass(frozen=True)
class CallPlace:
    """Where in its turn a call stands; no two calls of a turn have the same place.

    The attempts of a call (see `Retrying`) share its place, since they ask for one answer. A
    fallback is a call of its own: it asks another model.

    layer: from 1, as in the events; the aggregator's is one more than the turn has rounds.
    index: from 0; among proposers the one of their events, which is the place in the profile's
    layer with samples told apart; 0 for the aggregator, then 1, 2, … for its fallbacks.
    sample: from 0; counts the calls of the layer that send the same request to the same model,
    in the order of `index`. So (request, sample) tells apart what the request alone does not.
    """

    layer: int
    index: int
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class Request:
    """One chat completion to be streamed. None leaves a setting to the endpoint.

    model: the id as the endpoint knows it. extra: further fields of the request body.
    place: of the call in its turn, None outside of one. It is not sent, and two requests that
    differ in nothing else are equal.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: CallPlace | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The next piece of a completion; any of its parts may be missing.

    The first may be empty: the endpoint has taken the request.
    usage: the count for the whole call, cumulative: a later one replaces an earlier.
    logprobs: the likeliest tokens in the place of the answer's first, each with the natural
    logarithm of its probability; where they were asked for (`Request.extra`), told once.
    model: the id of the model that answers, as the endpoint says.
    """

    text: str = ""
    reasoning: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None
    logprobs: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of a model; None is unknown.

    context_length: tokens of prompt and answer together. as_of: when its provider's list told
    this, seconds since 1970; None if no list did. trouble: why that list could not be had.
    """

    id: str
    context_length: int | None = None
    price: Price | None = None
    as_of: float | None = None
    trouble: str | None = None


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
        """The completion as it comes. Raises a ClientError; closing it ends the call."""

    async def models(self) -> list[ModelInfo]:
        """What the endpoint offers. Raises a ClientError."""

    async def aclose(self) -> None:
        """Give back connections and processes."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model name leads: a client, and the model's id there."""

    client: Client
    model: str
    provider: str


class Clients(Protocol):
    """The way from model names to endpoints."""

    def endpoint(self, model_name: str) -> Endpoint:
        """The endpoint of `model_name`; nothing is sent.

        Raises ProfileError if the name leads nowhere, a ClientError if there can be no endpoint
        now (no key, no runtime).
        """

    def known(self, model_name: str) -> ModelInfo:
        """What is known of a model, price and context, without asking anybody.

        Raises ProfileError if the name leads nowhere.
        """

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """The same, but the provider may be asked.

        patience: seconds that may be waited until the provider has told.
        """


@runtime_checkable
class NameCheck(Protocol):
    """Clients that can tell before a turn whether a model name leads anywhere."""

    def check_name(self, model_name: str) -> None:
        """Raise ProfileError if `model_name` leads nowhere; nothing is sent."""
