"""Clients that make no call a second time: what the journal holds is told from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from moa_cli.bench.run.journal import CallJournal, CallRecord, call_key, occurrence_key
from moa_cli.bench.run.limiter import CallLimiter
from moa_cli.core.conversation import Usage
from moa_cli.core.debug_log import RoomLog
from moa_cli.core.endpoints import CallPlace, Client, Clients, Delta, Endpoint, ModelInfo, Request
from moa_cli.core.errors import ClientError, ClientTimeout
from moa_cli.core.ledger import CallBegun, TurnLedger
from moa_cli.core.money import FREE, priced
from moa_cli.core.tokens import RunningCount, prompt_tokens, usage_of
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.engine.prompts import strip_reasoning

_LOG = RoomLog("moa.bench")
# The provider of answers that were given beforehand.
_GIVEN = "given"


@dataclass(frozen=True)
class RunContext:
    """What all turns of a run share.

    facts: on each model, as known when the run began. given: answers that are there already, by
    model name and item. ended: told of each call that was made, as soon as it is written down.
    ledger: where calls are written down before they are made, by item and turn; None keeps none.
    """

    clients: Clients
    journal: CallJournal
    limiter: CallLimiter
    facts: Mapping[str, ModelInfo]
    given: Mapping[str, Mapping[str, str]]
    ended: Callable[[CallRecord], None]
    ledger: Callable[[str, int], TurnLedger] | None = None


class Replay:
    """The clients of one turn of one arm of one item; see `Clients`.

    answered: the calls that have an answer, by layer and index (see `CallPlace`).
    """

    def __init__(self, shared: RunContext, item: str, turn: int) -> None:
        self.shared = shared
        self.item = item
        self.turn = turn
        self.answered: dict[tuple[int, int], CallRecord] = {}

    def endpoint(self, model_name: str) -> Endpoint:
        """See `Clients.endpoint`."""
        given = self.shared.given.get(model_name)
        if given is not None:
            record = CallRecord("", self.item, self.turn, model_name, given[self.item])
            return Endpoint(client=_Given(self, record), model=model_name, provider=_GIVEN)
        inner = self.shared.clients.endpoint(model_name)
        client = _Journalled(self, model_name, inner)
        return Endpoint(client=client, model=inner.model, provider=inner.provider)

    def known(self, model_name: str) -> ModelInfo:
        """See `Clients.known`."""
        if model_name in self.shared.given:
            return ModelInfo(id=model_name, price=FREE)
        return self.shared.facts[model_name]

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """What was known when the run began: requests and costs must not change on the way."""
        del patience
        return self.known(model_name)

    def note(self, request: Request, record: CallRecord) -> None:
        """A call has an answer."""
        place = place_of(request)
        self.answered[place.layer, place.index] = record


def place_of(request: Request) -> CallPlace:
    """Where in its turn the call stands: all calls of a run are a turn's."""
    assert request.place is not None
    return request.place


class _Given:
    """Answers with what is there already."""

    def __init__(self, replay: Replay, record: CallRecord) -> None:
        self._replay = replay
        self._record = record

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Client.stream`."""
        self._replay.note(request, self._record)
        yield _told(self._record)

    async def models(self) -> list[ModelInfo]:
        """Nothing is offered."""
        return []

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class _CallProgress:
    """How far a call has come."""

    began: float = field(default_factory=time.monotonic)
    taken: bool = False
    text: str = ""
    reasoning: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    answered_by: str | None = None
    first_token: float | None = None
    logprobs: tuple[tuple[str, float], ...] | None = None
    ledger: TurnLedger | None = None
    number: int = 0
    count: RunningCount = field(default_factory=RunningCount)
    foreseen: int = 0

    def begin(self, call: CallBegun) -> None:
        """It is about to be made."""
        self.foreseen = call.completion_tokens
        if self.ledger is not None:
            self.number = self.ledger.begin(call)

    def void(self) -> None:
        """Nobody bills it."""
        if self.ledger is not None:
            self.ledger.void(self.number)

    def end(self, record: CallRecord) -> None:
        """It has ended."""
        if self.ledger is not None:
            self.ledger.end([self.number], record.model, record.usage)

    def take(self, delta: Delta) -> None:
        """The next piece."""
        self.taken = True
        if self.first_token is None and (delta.text or delta.reasoning):
            self.first_token = time.monotonic() - self.began
        self.text += delta.text
        self.reasoning += delta.reasoning
        if delta.text or delta.reasoning:
            self.count.take(delta.text + delta.reasoning)
        if self.count.tokens > self.foreseen:
            self.foreseen = self.count.tokens * 2
            if self.ledger is not None:
                self.ledger.grown(self.number, self.foreseen)
        self.usage = delta.usage or self.usage
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.answered_by = delta.model or self.answered_by
        self.logprobs = delta.logprobs or self.logprobs


class _Journalled:
    """The client of one model for one turn."""

    def __init__(self, replay: Replay, model: str, inner: Endpoint) -> None:
        self._replay = replay
        self._model = model
        self._inner: Client = inner.client

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Client.stream`."""
        replay, shared = self._replay, self._replay.shared
        key = call_key(replay.item, replay.turn, self._model, request)
        key = occurrence_key(key, place_of(request).sample)
        record = shared.journal.find(key)
        if record is not None:
            why = "replay: the journal of the run holds its answer"
            _LOG.write("call not made", model=self._model, item=replay.item, why=why)
            replay.note(request, record)
            yield _told(record)
            return
        progress = _CallProgress(ledger=shared.ledger and shared.ledger(replay.item, replay.turn))
        progress.begin(self._begun(key, request))
        try:
            async with aclosing(self._inner.stream(request)) as deltas:
                async for delta in deltas:
                    progress.take(delta)
                    yield delta
        except ClientError as error:
            if error.retry_after is not None:
                shared.limiter.hold(self._model, error.retry_after)
            # One that was refused before it began is billed by nobody.
            if progress.taken or isinstance(error, ClientTimeout):
                self._end(key, request, progress, error.message)
            else:
                progress.void()
                shared.journal.ended(key)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._end(key, request, progress, "cut off")
            raise
        empty = not strip_reasoning(progress.text)
        record = self._end(key, request, progress, "it gave no answer" if empty else None)
        if not empty:
            replay.note(request, record)

    def _end(
        self, key: str, request: Request, progress: _CallProgress, error: str | None
    ) -> CallRecord:
        replay, shared = self._replay, self._replay.shared
        record = CallRecord(
            key=key,
            item=replay.item,
            turn=replay.turn,
            model=self._model,
            text=progress.text,
            reasoning=progress.reasoning,
            answered_by=progress.answered_by,
            usage=self._usage(request, progress),
            finish_reason=progress.finish_reason,
            seconds=time.monotonic() - progress.began,
            first_token=progress.first_token,
            when=time.time(),
            logprobs=progress.logprobs,
            error=error,
        )
        shared.journal.add(record)
        shared.journal.ended(key)
        progress.end(record)
        shared.ended(record)
        return record

    def _begun(self, key: str, request: Request) -> CallBegun:
        """Write down that the call is about to be made, with what it may take."""
        replay = self._replay
        begun = CallBegun(
            model=self._model,
            prompt_tokens=prompt_tokens(request.messages),
            completion_tokens=request.max_tokens or ASSUMED_TOKENS,
            price=replay.known(self._model).price,
            layer=place_of(request).layer,
        )
        record = CallRecord(key, replay.item, replay.turn, self._model, usage=begun.usage)
        replay.shared.journal.begin(record)
        return begun

    def _usage(self, request: Request, progress: _CallProgress) -> Usage:
        prompt = prompt_tokens(request.messages)
        answer = progress.text + progress.reasoning
        usage = usage_of(progress.usage, prompt, answer, progress.count.tokens)
        price = self._replay.known(self._model).price
        return priced(usage, price) if usage.unpriced_calls else usage

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._inner.models()

    async def aclose(self) -> None:
        """The inner client belongs to others."""


def _told(record: CallRecord) -> Delta:
    """The whole answer at once."""
    return Delta(
        text=record.text,
        reasoning=record.reasoning,
        usage=record.usage,
        finish_reason=record.finish_reason,
        model=record.answered_by,
        logprobs=record.logprobs,
    )
