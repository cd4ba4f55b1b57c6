"""Turns that wait for jobs: a turn's requests are noted, and the turn is cancelled until it can go
on.

Nothing of a turn stays in memory while its job runs, which may take a day. When the answers are in
the journal, the turn is started again from its beginning. It gets its earlier answers from the
journal, makes the next requests, and is cancelled again. So it runs through all its layers, with
any strategy, and the engine's code is the only description of a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from moa_cli.batch.provider_batch.job_folder import BatchedCall, CallsInJobs
from moa_cli.bench.run.journal import CallJournal, CallRecord, TurnResult, call_key
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.replay import replayed
from moa_cli.bench.run.runner import PlayedTurn, gathered, play_turn
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.endpoints import Clients, Delta, Endpoint, ModelInfo, Request
from moa_cli.core.errors import ClientError
from moa_cli.core.remote_jobs import JobClient
from moa_cli.core.tokens import prompt_tokens
from moa_cli.engine import Limits
from moa_cli.engine.calls.slots import OwnSlots
from moa_cli.engine.estimate import ASSUMED_TOKENS

# If a turn makes no request for this many rounds of the event loop, it is taken to wait for
# answers. From one request of a layer to the next it takes only a few rounds. If it takes more, the
# rest of the layer goes into the next job.
_QUIET_ROUNDS = 60
# A turn without progress for this many rounds waits for a thread. From then on each round sleeps
# for a moment (seconds), so that the loop does not use the processor for nothing.
_BUSY_ROUNDS = 500
_MOMENT = 0.002
_MANY = 100_000


class TurnWaits(Exception):
    """A turn cannot go on before its calls are answered. calls: its calls that are not in a job
    yet."""

    def __init__(self, calls: tuple[BatchedCall, ...]) -> None:
        super().__init__("waits")
        self.calls = calls


@dataclass
class DeferredCalls:
    """The state of all calls of a batch.

    journal: the calls that were answered. facts: the facts on each model. job_client: gives the
    client for jobs at a model's provider. failed: why calls failed for good, by item and key.
    in_jobs: the calls that are in jobs.
    """

    clients: Clients
    journal: CallJournal
    facts: Mapping[str, ModelInfo]
    job_client: Callable[[str], JobClient]
    failed: dict[str, dict[str, ClientError]] = field(default_factory=dict)
    in_jobs: CallsInJobs = field(default_factory=CallsInJobs)

    def failure(self, item: str, key: str) -> ClientError | None:
        """The error with which a call of an item failed for good; None if it did not."""
        return self.failed.get(item, {}).get(key)


@dataclass
class _TurnClients:
    """The clients of one turn; see `Clients`.

    answered: see `gathered`. waits: whether a call has no answer yet. wanted: the calls without an
    answer that are not in a job yet, by key. moves: how many requests and events there were, which
    shows progress.
    """

    shared: DeferredCalls
    item: str
    turn: int
    answered: dict[tuple[int, int], CallRecord] = field(default_factory=dict)
    waits: bool = False
    wanted: dict[str, BatchedCall] = field(default_factory=dict)
    moves: int = 0

    def endpoint(self, model_name: str) -> Endpoint:
        inner = self.shared.clients.endpoint(model_name)
        client = _TurnClient(self, model_name)
        return Endpoint(client=client, model=inner.model, provider=inner.provider)

    def known(self, model_name: str) -> ModelInfo:
        return self.shared.facts[model_name]

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        del patience
        return self.known(model_name)


@dataclass(frozen=True)
class _TurnClient:
    clients: _TurnClients
    model: str

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        # Every call of a batch belongs to a turn, so it has a place.
        assert request.place is not None
        clients, shared, place = self.clients, self.clients.shared, request.place
        clients.moves += 1
        key = call_key(clients.item, clients.turn, self.model, request, place.sample)
        record = shared.journal.find(key)
        if record is not None:
            clients.answered[place.layer, place.index] = record
            yield replayed(record)
            return
        failure = shared.failure(clients.item, key)
        if failure is not None:
            # Calls that failed alike share this error. Without a new start, its traceback would
            # grow with each raise.
            raise failure.with_traceback(None)
        clients.waits = True
        if key not in shared.in_jobs:
            clients.wanted[key] = BatchedCall(
                key=key,
                item=clients.item,
                turn=clients.turn,
                model=self.model,
                prompt_tokens=prompt_tokens(request.messages),
                most_tokens=request.max_tokens or ASSUMED_TOKENS,
                limited=request.max_tokens is not None,
                model_id=request.model,
                body=shared.job_client(self.model).body(request),
            )
        # Wait until the turn is cancelled. An error here would make the engine ask a fallback.
        await asyncio.Event().wait()

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None:
        """There is nothing to close."""


async def run_deferred(
    calls: DeferredCalls,
    limits: Limits,
    work: Work,
    number: int,
    conversation: Conversation,
    *,
    partial: bool,
) -> tuple[Turn, TurnResult]:
    """Run one turn of an item with the answers that are known. Returns the turn and its result.

    number: the number of the turn, from 0. conversation: it includes the turn's message. partial:
    see `answer_item`. Raises TurnWaits if the turn waits for answers of jobs, Capped if a cap was
    reached before a layer.
    """
    clients = _TurnClients(calls, work.item.id, number)
    limits = replace(limits, slots=OwnSlots(_MANY), reply_held=True, retries=0)
    profile = work.arm.profile

    def seen() -> None:
        clients.moves += 1

    task = asyncio.create_task(
        play_turn(profile, conversation, clients, limits, partial=partial, seen=seen)
    )
    try:
        await _until_quiet(task, clients)
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if clients.waits:
        raise TurnWaits(tuple(clients.wanted.values()))
    played = task.result()
    return played.turn, gathered(profile, played, clients.answered)


async def _until_quiet(task: asyncio.Task[PlayedTurn], clients: _TurnClients) -> None:
    """Wait until the turn has ended or makes no more requests before it gets answers."""
    moves, quiet = -1, 0
    while not task.done():
        await asyncio.sleep(0 if quiet < _BUSY_ROUNDS else _MOMENT)
        quiet = quiet + 1 if clients.moves == moves else 0
        moves = clients.moves
        if clients.waits and quiet > _QUIET_ROUNDS:
            return
