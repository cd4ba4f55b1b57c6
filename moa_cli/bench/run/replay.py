"""Clients that make no call a second time: they take its answer from the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from moa_cli.bench.run.call_cache import CallCache
from moa_cli.bench.run.journal import CallJournal, CallRecord, call_key
from moa_cli.bench.scoring.rating_logprobs import number_tokens
from moa_cli.core.conversation import Citation, Usage
from moa_cli.core.debug_log import RoomLog
from moa_cli.core.endpoints import Client, Clients, Delta, Endpoint, ModelInfo, Request
from moa_cli.core.errors import ClientError, ClientTimeout
from moa_cli.core.ledger import CallBegun, TurnLedger
from moa_cli.core.money import FREE, priced
from moa_cli.core.tokens import RunningCount, prompt_tokens, usage_of
from moa_cli.engine.calls.slots import Slots
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.engine.prompts import strip_reasoning

_LOG = RoomLog("moa.bench")


@dataclass(frozen=True)
class RunContext:
    """The objects that all turns of a run share.

    slots: gives the slots that calls of the item with that place wait for. facts: the facts on each
    model from when the run began. given: answers that were read from files, by model name and item.
    ended: called with each call that was made, after it is in the journal. ledger: gives the ledger
    of an item's turn, in which calls are entered before they are made; None keeps none. cache: the
    answers of other runs.
    """

    clients: Clients
    journal: CallJournal
    slots: Callable[[int], Slots]
    facts: Mapping[str, ModelInfo]
    given: Mapping[str, Mapping[str, str]]
    ended: Callable[[CallRecord], None]
    ledger: Callable[[str, int], TurnLedger] | None = None
    cache: CallCache | None = None


@dataclass
class Replay:
    """The clients of one turn of one arm of one item; see `Clients`.

    answered: the answered calls, by layer and index (see `CallPlace`).
    """

    shared: RunContext
    item: str
    turn: int
    answered: dict[tuple[int, int], CallRecord] = field(default_factory=dict)

    def endpoint(self, model_name: str) -> Endpoint:
        if model_name in self.shared.given:
            client = _ReplayClient(self, model_name, None)
            return Endpoint(client=client, model=model_name, provider="given")
        inner = self.shared.clients.endpoint(model_name)
        client = _ReplayClient(self, model_name, inner.client)
        return Endpoint(client=client, model=inner.model, provider=inner.provider)

    def known(self, model_name: str) -> ModelInfo:
        if model_name in self.shared.given:
            return ModelInfo(id=model_name, price=FREE)
        return self.shared.facts[model_name]

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """The facts from when the run began, because requests and costs must not change during a
        run."""
        del patience
        return self.known(model_name)


@dataclass(frozen=True)
class _ReplayClient:
    """The client of one model for one turn. inner: the client that makes calls; None if the model's
    answers are given in files."""

    replay: Replay
    model: str
    inner: Client | None

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        # Every call of a run belongs to a turn, so it has a place.
        assert request.place is not None
        replay, shared, place = self.replay, self.replay.shared, request.place
        key = call_key(replay.item, replay.turn, self.model, request, place.sample)
        record = shared.journal.find(key)
        why = "replay: the journal of the run holds its answer"
        asked = CallRecord(key, replay.item, replay.turn, self.model)
        if self.inner is None:
            why = ""
            record = replace(asked, key="", text=shared.given[self.model][replay.item])
        elif record is None and shared.cache is not None:
            why = "the cache holds its answer"
            record = shared.cache.find(asked, request, place.sample)
            if record is not None:
                shared.journal.add(record)
        if record is not None:
            if why:
                _LOG.write("call not made", model=self.model, item=replay.item, why=why)
            replay.answered[place.layer, place.index] = record
            yield replayed(record)
            return
        assert self.inner is not None
        call = _Call(replay, key, self.model, request, place.layer)
        try:
            async with aclosing(self.inner.stream(request)) as deltas:
                async for delta in deltas:
                    call.take(delta)
                    yield delta
        except ClientError as error:
            # A call that failed before any answer is not billed, unless it timed out.
            if call.taken or isinstance(error, ClientTimeout):
                call.end(error.message)
            else:
                call.void()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            call.end("cut off")
            raise
        empty = not strip_reasoning(call.text)
        record = call.end("it gave no answer" if empty else None)
        if not empty:
            replay.answered[place.layer, place.index] = record
            if shared.cache is not None:
                shared.cache.add(record, request, place.sample)

    async def models(self) -> list[ModelInfo]:
        return await self.inner.models() if self.inner else []

    async def aclose(self) -> None:
        """There is nothing to close: other turns share the inner client."""


class _Call:
    """A call that is being made. It is recorded before the request, with the most that it may take,
    and again when it has ended.

    taken: whether any part of an answer has arrived. text: the answer so far.
    """

    def __init__(self, replay: Replay, key: str, model: str, request: Request, layer: int) -> None:
        self._key = key
        self._model = model
        self._item, self._turn, self._shared = replay.item, replay.turn, replay.shared
        self._prompt_tokens = prompt_tokens(request.messages)
        self._price = replay.known(model).price
        self._began = time.monotonic()
        self._first_token: float | None = None
        self._reasoning = ""
        self._count = RunningCount()
        # Each of these has the value of the latest delta that had one.
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._answered_by: str | None = None
        self._logprobs: tuple[tuple[str, float], ...] | None = None
        self._citations: tuple[Citation, ...] = ()
        self._tokens: list[str] = []
        self.taken = False
        self.text = ""
        self._foreseen = request.max_tokens or ASSUMED_TOKENS
        begun = CallBegun(model, self._prompt_tokens, self._foreseen, self._price, layer)
        shared = replay.shared
        self._ledger = shared.ledger and shared.ledger(self._item, self._turn)
        shared.journal.begin(CallRecord(key, self._item, self._turn, model, usage=begun.usage))
        self._number = 0 if self._ledger is None else self._ledger.begin(begun)

    def take(self, delta: Delta) -> None:
        self.taken = True
        self._tokens += delta.token_logprobs
        if self._first_token is None and (delta.text or delta.reasoning):
            self._first_token = time.monotonic() - self._began
        if delta.replaces:
            self.text, self._reasoning = delta.text, delta.reasoning
            return
        self.text += delta.text
        self._reasoning += delta.reasoning
        if delta.text or delta.reasoning:
            self._count.take(delta.text + delta.reasoning)
        if self._count.tokens > self._foreseen:
            self._foreseen = self._count.tokens * 2
            if self._ledger is not None:
                self._ledger.grown(self._number, self._foreseen)
        self._usage = delta.usage or self._usage
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._answered_by = delta.model or self._answered_by
        self._logprobs = delta.logprobs or self._logprobs
        self._citations = delta.citations or self._citations

    def void(self) -> None:
        """Record that the call failed before it was made, so that it is not billed."""
        if self._ledger is not None:
            self._ledger.void(self._number)
        self._shared.journal.ended(self._key)

    def end(self, error: str | None) -> CallRecord:
        """Record that the call has ended. error: why there is no complete answer, or None."""
        answer = self.text + self._reasoning
        usage = usage_of(self._usage, self._prompt_tokens, answer, self._count.tokens)
        record = CallRecord(
            key=self._key,
            item=self._item,
            turn=self._turn,
            model=self._model,
            text=self.text,
            reasoning=self._reasoning,
            answered_by=self._answered_by,
            usage=priced(usage, self._price) if usage.unpriced_calls else usage,
            finish_reason=self._finish_reason,
            seconds=time.monotonic() - self._began,
            first_token=self._first_token,
            when=time.time(),
            logprobs=self._logprobs,
            error=error,
            citations=self._citations,
            number_logprobs=number_tokens(self._tokens, self.text),
        )
        self._shared.journal.add(record)
        self._shared.journal.ended(self._key)
        if self._ledger is not None:
            self._ledger.end([self._number], record.model, record.usage)
        self._shared.ended(record)
        return record


def replayed(record: CallRecord) -> Delta:
    return Delta(
        text=record.text,
        reasoning=record.reasoning,
        usage=record.usage,
        finish_reason=record.finish_reason,
        model=record.answered_by,
        logprobs=record.logprobs,
        citations=record.citations,
    )
