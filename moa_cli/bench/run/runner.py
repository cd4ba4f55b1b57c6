"""Does the work of a run: many items at once, the turns of an item one after another. No call is
paid for twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Protocol

from moa_cli.bench.run.journal import CallAnswer, CallRecord, Result, TurnResult
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.replay import Replay, RunContext
from moa_cli.core.conversation import Conversation, Failure, Proposal, Turn, Usage
from moa_cli.core.endpoints import Clients
from moa_cli.core.errors import (
    AnswerRefused,
    AuthenticationFailed,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    LocalModelUnavailable,
    ModelNotFound,
    NoCredit,
    SchemaMismatch,
)
from moa_cli.core.events import (
    AggregatorStarted,
    Event,
    LayerFinished,
    ProposerFailed,
    ReferencesTrimmed,
)
from moa_cli.core.outcomes import BY_QUORUM
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import Profile, short_name


class Results(Protocol):
    """Stores results."""

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why the work with that name failed; None if it did not. Raises KeyError if it has not
        ended."""

    def add(self, result: Result) -> None:
        """Store the result of work that has ended or failed for good. Raises OSError."""

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Put all results in order after all work has ended. order: the names of the work. Raises
        OSError."""


def still_to_do(whole: Iterable[Work], results: Results) -> list[Work]:
    """The part of the work that has no result yet, or has failed."""
    return [work for work in whole if not _has_ended(results, work, well=True)]


def _has_ended(results: Results, work: Work, *, well: bool) -> bool:
    """Whether the work has a result. well: whether it must not be a failure."""
    try:
        error = results.error(work.name)
    except KeyError:
        return False
    return error is None or not well


# How many items are in progress until all arms have answered a first one. So a model that does not
# work is found after few calls. No call is extra, because the run needs these items anyway.
SCOUTS = 4
_MOST_FAILURES = 1000
# After this many items in a row for which a model failed in the same way, the run stops.
STOP_AFTER = 3
# Failures that will be the same for every item.
_PERMANENT = frozenset(
    error.__name__
    for error in (AuthenticationFailed, NoCredit, ModelNotFound, LocalModelUnavailable)
)
# Failures that are due to the item's prompt, or that the model itself decided.
_OF_THE_ITEM = frozenset(
    error.__name__ for error in (AnswerRefused, ContentFiltered, ContextTooLong, SchemaMismatch)
)


@dataclass
class FailureWatch:
    """Detects a dead model, which has failed in the same way for several items in a row: `limit`
    items if the failure is permanent (no such model, no key, no credit). For other failures it
    takes twice as many items, and the model must not have answered at all, because an endpoint that
    is down for a moment comes back. limit: 0 detects nothing.
    """

    limit: int
    _answered: set[str] = field(default_factory=set)
    _failed: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    def answered(self, model: str) -> None:
        """Note that the model has answered a call in this start."""
        self._answered.add(model)
        self._failed.pop(model, None)

    @property
    def suspects(self) -> bool:
        """Whether a model has failed permanently, and has not answered since."""
        return any(kind in _PERMANENT for kind, _ in self._failed.values())

    def failed(self, result: Result) -> Failure | None:
        """Note that an item has failed or lost a model. Returns why the run must stop, or None.

        An item that was answered all the same shows only a permanent failure: its model is lost to
        all further items.
        """
        answers = (answer for turn in result.turns[-1:] for answer in turn.answers())
        told = (
            self.call_failed(answer.model, result.item, answer.error)
            for answer in answers
            if answer.error is not None
            and _spoils(answer.error)
            and (result.error is not None or answer.error.kind in _PERMANENT)
        )
        return next(filter(None, told), None)

    def call_failed(self, model: str, item: str, error: Failure) -> Failure | None:
        """Note that a call for that item has failed; see `failed`."""
        if error.kind in _OF_THE_ITEM:
            return None
        kind, items = self._failed.get(model, ("", set()))
        items = {*items, item} if kind == error.kind else {item}
        self._failed[model] = error.kind, items
        permanent = error.kind in _PERMANENT
        most = self.limit if permanent else 2 * self.limit
        if 0 < most <= len(items) and (permanent or model not in self._answered):
            told = f"{model} failed for {len(items):,} items in a row: {error.message}"
            return Failure(error.kind, told, error.hint)
        return None


class Capped(Exception):
    """A cap was reached before a layer was asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass
class Runner:
    """Does the work of a run, and stores the results.

    answer: answers an item with an arm; raises Capped if a cap does not allow it now. concurrency:
    how many items are in progress at once. keep: stores a result. stop_after: the run stops after
    this many items in a row for which a model failed in the same way; 0 never stops it.
    tries_again: whether failed work is tried once more at the end.

    capped: why the run ended early, if a cap was reached. stopped: why it ended early, if a model
    is dead.
    """

    results: Results
    answer: Callable[[Work], Awaitable[Result]]
    concurrency: int
    keep: Callable[[Result], None]
    stop_after: int = STOP_AFTER
    tries_again: bool = True
    capped: Failure | None = None
    _failed: set[tuple[str, str]] = field(default_factory=set)
    stopped: Failure | None = None
    # The last failures, which show why a run has stopped. Their number is bounded to save memory.
    _failures: deque[Result] = field(default_factory=lambda: deque(maxlen=_MOST_FAILURES))
    _scouted: asyncio.Event = field(default_factory=asyncio.Event)
    # How many items are in progress and do not wait for room below a cap.
    _running: int = 0
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._watch = FailureWatch(self.stop_after)

    def ended(self, record: CallRecord) -> None:
        if record.error is None:
            self._watch.answered(record.model)

    async def run(self, whole: Sequence[Work], todo: Iterable[Work]) -> None:
        """Do the rest of the work. Raises OSError.

        whole: all work. todo: the rest, in which the arms of an item are together. It is iterated
        twice, item by item, so it need not be in memory. If this is cancelled, no call stays open,
        and all calls that have ended are recorded.
        """
        await self._pass(todo, last=not self.tries_again)
        failed, self._failed = self._failed, set()
        if self.stopped is not None:
            for result in self._failures:
                self.keep(result)
        elif failed:
            await self._pass((work for work in todo if work.name in failed), last=True)
        if all(_has_ended(self.results, work, well=False) for work in whole):
            self.results.finish([work.name for work in whole])

    async def _pass(self, work: Iterable[Work], *, last: bool) -> None:
        # The arms of an item run one after another, because they may share calls.
        groups = groupby(work, key=lambda task: task.order)
        queue = (list(group) for _, group in groups)
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self.concurrency):
                    scouts = number < SCOUTS
                    tasks.create_task(self._work_off(queue, last=last, scouts=scouts))
        except BaseExceptionGroup as several:
            # Many tasks may report the same bug or full disk, so one of the errors is enough.
            raise several.exceptions[0] from None

    async def _work_off(self, queue: Iterator[list[Work]], *, last: bool, scouts: bool) -> None:
        """Answer items from the queue. scouts: whether to begin at once; otherwise wait until an
        item has shown that all models answer."""
        if not scouts:
            await self._scouted.wait()
        try:
            for group in queue:
                if not await self._group(group, last=last):
                    return
        finally:
            self._scouted.set()

    async def _group(self, group: Sequence[Work], *, last: bool) -> bool:
        """Answer an item with all its arms. Returns whether the run goes on."""
        self._running += 1
        well = True
        try:
            for work in group:
                result = await self.result(work)
                if result is None:
                    return False
                self.stopped = self.stopped or self._watch.failed(result)
                if result.error is None:
                    self.keep(result)
                    continue
                well = False
                if last:
                    self.keep(result)
                else:
                    self._failed.add(work.name)
                    self._failures.append(result)
        finally:
            self._running -= 1
            async with self._ended:
                self._ended.notify_all()
        if well and not self._watch.suspects:
            self._scouted.set()
        return True

    async def result(self, work: Work) -> Result | None:
        """The result of this work; None if a cap does not allow it, or a model is dead."""
        while self.capped is None and self.stopped is None:
            try:
                return await self.answer(work)
            except Capped as reached:
                await self._wait_for_room(reached.failure)
        return None

    async def _wait_for_room(self, failure: Failure) -> None:
        """Wait until another item has ended, because it may have reserved more than it took. If no
        other item is in progress, the run is capped."""
        async with self._ended:
            self._running -= 1
            try:
                # Below 0 if `result` is called before the run, which does not count as an item.
                if self._running <= 0:
                    self.capped = failure
                    self._ended.notify_all()
                else:
                    await self._ended.wait()
            finally:
                self._running += 1


async def answer_item(work: Work, shared: RunContext, limits: Limits, *, partial: bool) -> Result:
    """Answer all turns of an item. partial: whether a turn that lost a proposer, or was answered by
    a fallback, is a result. Raises Capped."""
    # Nobody sees the reply before its end, so a broken reply can be tried again.
    limits = replace(limits, slots=shared.slots(work.order), reply_held=True)

    async def take(number: int, conversation: Conversation) -> tuple[Turn, TurnResult]:
        replay = Replay(shared, work.item.id, number)
        played = await play_turn(work.arm.profile, conversation, replay, limits, partial=partial)
        return played.turn, gathered(work.arm.profile, played, replay.answered)

    return await converse(work, take, partial=partial)


async def converse(
    work: Work,
    take: Callable[[int, Conversation], Awaitable[tuple[Turn, TurnResult]]],
    *,
    partial: bool,
) -> Result:
    """Run all turns of an item, up to the first one without a result. take: runs the turn with that
    number (from 0) in a conversation that includes its message, and returns the turn and its
    result. partial: see `answer_item`.
    """
    item = work.item
    conversation = Conversation(before=item.before)
    result = Result(work.arm.name, item.id, item.category)
    for number in range(len(item.turns)):
        conversation = item.ask(conversation, number)
        turn, told = await take(number, conversation)
        error = failure_of(turn, told, partial)
        usage = sum((answer.usage for answer in told.answers()), result.usage)
        result = replace(result, turns=(*result.turns, told), usage=usage, error=error)
        if error is not None:
            return replace(result, replies=())
        reply = strip_reasoning(turn.reply or "")
        result = replace(result, replies=(*result.replies, reply))
        conversation = conversation.answer(reply)
    return result


@dataclass(frozen=True)
class PlayedTurn:
    """A turn that was run. trimmed: whether one of its prompts was shortened. copied: whether its
    reply is the copy of a proposal."""

    turn: Turn
    trimmed: bool
    copied: bool


async def play_turn(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    limits: Limits,
    *,
    partial: bool,
    seen: Callable[[], None] = lambda: None,
) -> PlayedTurn:
    """Run one turn. It ends after a layer in which a proposer was lost, unless `partial`.

    partial: see `answer_item`. seen: called at each event.
    """
    trimmed = copied = False

    async def events() -> AsyncGenerator[Event, None]:
        nonlocal trimmed, copied
        lost = False
        async with aclosing(run_turn(profile, conversation, clients, limits=limits)) as told:
            async for event in told:
                seen()
                trimmed = trimmed or isinstance(event, ReferencesTrimmed)
                copied = copied or (isinstance(event, AggregatorStarted) and event.copied)
                lost = lost or (isinstance(event, ProposerFailed) and _spoils(event.proposal.error))
                yield event
                # Without this proposer, the reply would be that of another mixture.
                if lost and not partial and isinstance(event, LayerFinished):
                    return

    return PlayedTurn(await deliver(events()), trimmed, copied)


def gathered(
    profile: Profile, played: PlayedTurn, answered: Mapping[tuple[int, int], CallRecord]
) -> TurnResult:
    """The result of a turn. answered: see `Replay`. Raises Capped if a cap was reached in it."""
    turn = played.turn
    if turn.capped and turn.error is not None:
        raise Capped(turn.error)

    def answer_of(said: Proposal) -> CallAnswer:
        answer = CallAnswer(
            said.model,
            said.text,
            reasoning=said.reasoning,
            usage=said.usage if said.unfinished else Usage(),
            error=said.error,
            unfinished=said.unfinished,
            purpose=said.purpose,
        )
        return _with_record(answer, answered.get((said.layer, said.index)))

    reply = None
    if turn.model is not None:
        error = _reply_error(turn)
        reply = CallAnswer(turn.model, turn.reply or "", reasoning=turn.reasoning, error=error)
        if played.copied:
            # No call was made for the reply; its cost is part of the proposal's.
            reply = replace(
                reply,
                answered_by=turn.answered_by,
                finish_reason=turn.finish_reason,
                citations=turn.citations,
            )
        else:
            # The last aggregator or fallback that was asked is the one that answered.
            reviewed = {(review.layer, review.index) for review in turn.reviews}
            ends = [
                record
                for (layer, index), record in answered.items()
                if layer > profile.rounds and (layer, index) not in reviewed
            ]
            reply = _with_record(reply, ends[-1] if ends else None)
    return TurnResult(
        proposals=tuple(tuple(map(answer_of, layer)) for layer in turn.proposals),
        reply=reply,
        lost=turn.lost,
        trimmed=played.trimmed,
        reviews=tuple(
            tuple(map(answer_of, layer))
            for _, layer in groupby(
                sorted(turn.reviews, key=lambda review: (review.layer, review.index)),
                key=lambda review: review.layer,
            )
        ),
        copied=played.copied,
        decision=turn.decision,
    )


def _spoils(error: Failure | None) -> bool:
    """Whether the loss of a proposer means that the turn has no result. A loss that is due to the
    quorum that the user set does not."""
    return error is not None and error.kind not in BY_QUORUM


def _with_record(answer: CallAnswer, record: CallRecord | None) -> CallAnswer:
    if record is None or answer.error is not None:
        return answer
    return replace(
        answer,
        key=record.key,
        answered_by=record.answered_by,
        finish_reason=record.finish_reason,
        usage=record.usage,
        citations=record.citations,
    )


def _reply_error(turn: Turn) -> Failure | None:
    if turn.status != "finished":
        return turn.causes[0] if turn.causes else turn.error
    if not strip_reasoning(turn.reply or ""):
        return Failure(BadResponse.__name__, "it gave reasoning, but no answer")
    return None


def failure_of(turn: Turn, result: TurnResult, partial: bool) -> Failure | None:
    """Why the turn is not a result, or None. The message begins with the model's name.

    partial: see `answer_item`.
    """
    told = (result.reply,) if partial else result.answers()
    for answer in told:
        if answer is not None and answer.error is not None and _spoils(answer.error):
            error = answer.error
            name = short_name(answer.model)
            return Failure(error.kind, f"{name}: {error.message}", error.hint)
    return turn.error
