"""A run: many items at once, each one turn after another, and nothing paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from moa_cli.bench.run.gather import failure_of, gathered
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.replay import Replay, Shared
from moa_cli.bench.run.results import Result, TurnResult
from moa_cli.core.conversation import Conversation, Failure, Turn
from moa_cli.core.events import (
    AggregatorStarted,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ReferencesTrimmed,
)
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.engine.prompts import strip_reasoning

__all__ = ["Results", "Runner", "Todo", "still_to_do"]


class Todo(Protocol):
    """All that has to be done."""

    def work(self) -> Iterable[Work]:
        """It, item by item."""


class Results(Protocol):
    """Where results are written down."""

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why the work of that name failed. Raises KeyError if it has not ended."""

    def add(self, result: Result) -> None:
        """Work has ended, or failed for good. Raises OSError."""

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """All has ended: write it in this order, of work's names. Raises OSError."""


def still_to_do(plan: Todo, results: Results) -> list[Work]:
    """What has no result yet, or failed."""
    return [one for one in plan.work() if not _has_ended(results, one, well=True)]


def _has_ended(results: Results, work: Work, *, well: bool) -> bool:
    """well: and not failed."""
    try:
        error = results.error(work.name)
    except KeyError:
        return False
    return error is None or not well


class _Capped(Exception):
    """A cap was reached before a layer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Runner:
    """Does the work of a run, and writes it down.

    limits: the engine's, for each turn; its slots are the gate's. at_once: items in progress.
    told: called with each result, as soon as it is written down. partial: whether a turn that
    lost a proposer, or was answered by a fallback, is a result.

    capped: why the run ended early, if a cap was reached.
    """

    def __init__(
        self,
        results: Results,
        shared: Shared,
        limits: Limits,
        at_once: int,
        told: Callable[[Result], None],
        *,
        partial: bool = False,
    ) -> None:
        self._results = results
        self._shared = shared
        self._limits = limits
        self._at_once = at_once
        self._told = told
        self._partial = partial
        self._failed: list[Work] = []
        # Items that are neither done nor waiting for room below a cap.
        self._running = 0
        self._ended = asyncio.Condition()
        self.capped: Failure | None = None

    async def run(self, plan: Todo, work: Sequence[Work]) -> None:
        """Do all of it; what fails is tried once more at the end. Raises OSError.

        Cancelled, it leaves no call behind, and what has ended is written down.
        """
        await self._pass(work, last=False)
        again, self._failed = sorted(self._failed, key=lambda one: one.order), []
        await self._pass(again, last=True)
        whole = list(plan.work())
        if all(_has_ended(self._results, one, well=False) for one in whole):
            self._results.finish([one.name for one in whole])

    async def _pass(self, work: Sequence[Work], *, last: bool) -> None:
        # The arms of an item go one after another, since they may share calls.
        groups: dict[int, list[Work]] = {}
        for one in work:
            groups.setdefault(one.order, []).append(one)
        queue = iter(groups.values())
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._at_once, len(groups))):
                    tasks.create_task(self._work_off(queue, last=last))
        except BaseExceptionGroup as several:
            # Of one bug or full disk, many workers may tell at once.
            raise several.exceptions[0] from None

    async def _work_off(self, queue: Iterator[list[Work]], *, last: bool) -> None:
        for group in queue:
            self._running += 1
            try:
                for work in group:
                    result = await self.result(work)
                    if result is None:
                        return
                    self._keep(work, result, last=last)
            finally:
                self._running -= 1
                async with self._ended:
                    self._ended.notify_all()

    def _keep(self, work: Work, result: Result, *, last: bool) -> None:
        if result.error is not None and not last:
            self._failed.append(work)
            return
        self._results.add(result)
        self._told(result)

    async def result(self, work: Work) -> Result | None:
        """What comes of it; None if a cap does not let it."""
        while self.capped is None:
            try:
                return await self._converse(work)
            except _Capped as reached:
                await self._wait_for_room(reached.failure)
        return None

    async def _wait_for_room(self, failure: Failure) -> None:
        """Until another item has ended, which may have held more than it took in the end."""
        async with self._ended:
            self._running -= 1
            try:
                if self._running == 0:
                    self.capped = failure
                    self._ended.notify_all()
                else:
                    await self._ended.wait()
            finally:
                self._running += 1

    async def _converse(self, work: Work) -> Result:
        """All turns of an item. Raises _Capped."""
        item = work.item
        conversation = Conversation(before=item.before)
        result = Result(work.arm.name, item.id, item.category)
        for number, prompt in enumerate(item.turns):
            conversation = conversation.ask(prompt)
            turn, told = await self._turn(work, number, conversation)
            error = failure_of(turn, told, partial=self._partial)
            usage = sum((one.usage for one in told.answers()), result.usage)
            result = replace(result, turns=(*result.turns, told), usage=usage, error=error)
            if error is not None:
                return replace(result, replies=())
            reply = strip_reasoning(turn.reply or "")
            result = replace(result, replies=(*result.replies, reply))
            conversation = conversation.answer(reply)
        return result

    async def _turn(
        self, work: Work, number: int, conversation: Conversation
    ) -> tuple[Turn, TurnResult]:
        """One turn, up to the end of the layer that spoiled it, if one did. Raises _Capped."""
        profile = work.arm.profile
        replay = Replay(self._shared, work.item.id, number)
        limits = replace(self._limits, slots=self._shared.gate.lane(work.order))
        events = _Followed(
            run_turn(profile, conversation, replay, limits=limits),
            replay,
            profile.rounds,
            partial=self._partial,
        )
        turn = await deliver(events.run())
        if turn.capped and turn.error is not None:
            raise _Capped(turn.error)
        return turn, gathered(profile, turn, replay.answered, trimmed=events.trimmed)


class _Followed:
    """A turn's events on their way; unless that is `partial`, they end with the layer that has
    lost a proposer, since the reply would be that of another mixture.

    trimmed: whether references were cut.
    """

    def __init__(
        self, events: AsyncGenerator[Event, None], replay: Replay, rounds: int, *, partial: bool
    ) -> None:
        self._events = events
        self._replay = replay
        self._rounds = rounds
        self._partial = partial
        self.trimmed = False

    async def run(self) -> AsyncGenerator[Event, None]:
        """The events."""
        lost = False
        async with aclosing(self._events) as events:
            async for event in events:
                match event:
                    case LayerStarted():
                        self._replay.layer = event.layer
                    case AggregatorStarted():
                        self._replay.layer = self._rounds + 1
                    case ReferencesTrimmed():
                        self.trimmed = True
                    case ProposerFailed():
                        lost = not self._partial
                    case _:
                        pass
                yield event
                if lost and isinstance(event, LayerFinished):
                    return
