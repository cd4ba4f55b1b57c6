"""One call of one model: retries, time limit, and what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Protocol

from moa_cli.clients.base import Clients, Delta, Request
from moa_cli.conversation import Failure, Message, Proposal, Usage
from moa_cli.engine.budget import Cap
from moa_cli.engine.deadline import Deadline
from moa_cli.errors import BadResponse, ClientError, ClientTimeout, MoAError
from moa_cli.money import Price, priced
from moa_cli.profile import ModelSettings, Proposer
from moa_cli.tokens import counted

__all__ = ["Begun", "Call", "Limits", "Retry", "Slots", "failure", "request_of"]

_LONGEST_DELAY = 60.0
# At or below this the reference implementation sends 0.
_ZERO_TEMPERATURE = 1e-4


class Slots(Protocol):
    """How many calls may be in flight at once."""

    def slot(self, model: str) -> AbstractAsyncContextManager[None, bool | None]:
        """A call of that model is made while inside; entering waits for its turn."""


@dataclass(frozen=True)
class Limits:
    """concurrency: calls in flight at once. retries: times a failed call is made again.

    first_delay: seconds before the first retry; it doubles from retry to retry.
    caps: checked before each layer.
    slots: shared with other turns, in place of `concurrency`, which is one turn's.
    """

    concurrency: int = 32
    retries: int = 4
    first_delay: float = 0.5
    caps: tuple[Cap, ...] = ()
    slots: Slots | None = None


@dataclass(frozen=True)
class Begun:
    """The call is made now; before, it waited for others to end."""


@dataclass(frozen=True)
class Retry:
    """The call failed and is made again. attempt: from 2. delay: seconds until then."""

    attempt: int
    delay: float
    error: Failure


def failure(error: MoAError) -> Failure:
    """The error as a value."""
    return Failure(type(error).__name__, error.message, error.hint)


def request_of(settings: ModelSettings, messages: tuple[Message, ...], model: str) -> Request:
    """What a model is asked. model: its id at its endpoint."""
    temperature = settings.temperature
    if temperature is not None and temperature <= _ZERO_TEMPERATURE:
        temperature = 0
    return Request(
        model=model,
        messages=messages,
        temperature=temperature,
        max_tokens=settings.max_tokens,
        top_p=settings.top_p,
        seed=settings.seed,
        extra=settings.extra,
    )


class Call:
    """A call to be made once; its fields tell how far it has come.

    prompt_tokens: about how many tokens its messages are.
    seconds, first_token: from the start, in seconds; first_token is None until one came.
    """

    def __init__(
        self,
        settings: ModelSettings,
        messages: tuple[Message, ...],
        prompt_tokens: int,
        clients: Clients,
        limits: Limits,
        slots: Slots,
        *,
        timeout: float,
    ) -> None:
        self._settings = settings
        self._messages = messages
        self._prompt_tokens = prompt_tokens
        self._clients = clients
        self._limits = limits
        self._slots = slots
        self._timeout = settings.timeout or timeout
        self._began = time.monotonic()
        self._ended: float | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        # What earlier attempts took, and how far the one that runs has come.
        self._taken: list[Usage] = []
        self._told: Usage | None = None
        self._sent = False
        self._begun = False
        self.first_token: float | None = None
        self.finish_reason: str | None = None
        self.answered_by: str | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)

    @property
    def seconds(self) -> float:
        """Since the start, or from start to end."""
        return (self._ended or time.monotonic()) - self._began

    def usage(self, price: Price | None) -> Usage:
        """What it took so far, each attempt that an endpoint may bill, at that price.

        What an endpoint did not count is estimated; what it told of the cost stays.
        """
        taken = [*self._taken, *self._attempt_usage()]
        return sum(
            (one if not one.unpriced_calls else priced(one, price) for one in taken), Usage()
        )

    def _attempt_usage(self) -> list[Usage]:
        if not self._sent:
            return []
        return [counted(self._told, self._prompt_tokens, self.text + self.reasoning)]

    async def run(self) -> AsyncGenerator[Begun | Delta | Retry, None]:
        """Make the call. Raises a ClientError if it fails for good, or gives an empty answer."""
        self._began = time.monotonic()
        try:
            async with self._slots.slot(self._settings.model):
                yield Begun()
                with Deadline(self._timeout) as deadline:
                    async with aclosing(self._attempts(deadline)) as pieces:
                        async for piece in pieces:
                            yield piece
        finally:
            self._ended = time.monotonic()
        if not self.text.strip():
            raise self._empty()

    async def _attempts(self, deadline: Deadline) -> AsyncGenerator[Delta | Retry, None]:
        attempt = 1
        while True:
            try:
                async with aclosing(self._attempt(deadline)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except ClientError as error:
                self._failed(error)
                delay = self._delay(attempt, error)
                begun = self.first_token is not None
                last = attempt > self._limits.retries or delay > deadline.left
                if begun or not error.retryable or last:
                    raise
                retry = Retry(attempt + 1, delay, failure(error))
            yield retry
            await asyncio.sleep(retry.delay)
            attempt += 1

    def _failed(self, error: ClientError) -> None:
        """Keep what the attempt took: nothing if the endpoint refused it, or was not reached."""
        begun = self._begun or isinstance(error, ClientTimeout)
        self._taken += self._attempt_usage() if begun else []
        self._told, self._sent, self._begun = None, False, False

    def _delay(self, attempt: int, error: ClientError) -> float:
        """Seconds to wait: as long as the endpoint asks, else exponential with jitter."""
        if error.retry_after is not None:
            return error.retry_after
        longest = min(_LONGEST_DELAY, self._limits.first_delay * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.5, 1)  # noqa: S311

    async def _attempt(self, deadline: Deadline) -> AsyncGenerator[Delta, None]:
        endpoint = self._clients.endpoint(self._settings.model)
        self._sent = True
        async with aclosing(endpoint.client.stream(self._request(endpoint.model))) as deltas:
            while True:
                try:
                    delta = await deadline.next(deltas)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise ClientTimeout(
                        f"{endpoint.provider}: no whole answer within {self._timeout:g} s",
                        hint="raise `timeout` in the profile, or use a faster model",
                    ) from None
                self._take(delta)
                yield delta

    def _request(self, model: str) -> Request:
        return request_of(self._settings, self._messages, model)

    def _take(self, delta: Delta) -> None:
        self._begun = True
        if self.first_token is None and (delta.text or delta.reasoning):
            self.first_token = self.seconds
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        self._told = delta.usage or self._told
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.answered_by = delta.model or self.answered_by

    def _empty(self) -> ClientError:
        if self.finish_reason == "length" and self._reasoning:
            return BadResponse(
                "its tokens ran out while it was thinking", hint="raise max_tokens for this model"
            )
        return BadResponse("it gave an empty answer")

    def proposal(
        self, layer: int, index: int, proposer: Proposer, usage: Usage, error: Failure | None
    ) -> Proposal:
        """What came of the call, as the proposal of `proposer`."""
        return Proposal(
            layer=layer,
            index=index,
            proposer=proposer.name or proposer.model,
            model=proposer.model,
            text=self.text,
            reasoning=self.reasoning,
            answered_by=self.answered_by,
            usage=usage,
            seconds=self.seconds,
            first_token=self.first_token,
            finish_reason=self.finish_reason,
            error=error,
        )
