"""Answers a batch through jobs at providers: it collects the calls of turns, submits them as jobs,
waits for the answers, and lets the turns go on."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from moa_cli.batch.prompts import Todo
from moa_cli.batch.provider_batch.deferred import DeferredCalls, TurnWaits, run_deferred
from moa_cli.batch.provider_batch.job_folder import (
    BatchedCall,
    JobAnswers,
    JobDraft,
    JobFolder,
    JobRecord,
)
from moa_cli.bench.run.journal import CallRecord, Result
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.runner import STOP_AFTER, Capped, FailureWatch, converse
from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import (
    AuthenticationFailed,
    BudgetReached,
    ClientError,
    ClientTimeout,
    RequestRefused,
    ServerFailed,
)
from moa_cli.core.money import priced
from moa_cli.core.remote_jobs import RemoteJob
from moa_cli.core.text import plural
from moa_cli.core.tokens import usage_of
from moa_cli.engine import Limits
from moa_cli.engine.budget import Budget, Reservation
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import short_name

# The most requests and bytes in one file. Providers accept more bytes (OpenAI 50,000 requests and
# 200 MB, Together 100 MB), but a file is in memory three times during its upload.
_MOST_CALLS, _MOST_BYTES = 50_000, 48_000_000
_LONGEST_NAME = "n" * 64
# A request has failed when this many jobs have not answered it.
_MOST_TRIES = 3
# Seconds between two looks at the jobs, at first and at most. So even jobs that take a day are
# looked at only about 1,440 times.
_FIRST_LOOK, _LONGEST_LOOK = 0.5, 60.0
# A job whose creation got no response appears in the provider's list of jobs within this many
# seconds, or does not exist.
_SETTLED = 2.0
# How many attempts there are while a provider is out of order, each after a longer pause.
_MOST_TROUBLES = 8
# The same for looks at a running job: together they last about an hour.
_MOST_LOOKS = 66
# If a model fails for every item, at most this many items are written as failed. They are enough to
# show the reason.
_MOST_FAILURES = 1000
_T = TypeVar("_T")


@dataclass
class _Held:
    """What calls in jobs may still take of a budget. jobs: the amount for each job that has not
    ended. total: the sum of these."""

    budget: Budget
    jobs: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    reservation: Reservation | None = None

    def check(self, more: Usage) -> None:
        """Raise BudgetReached if the budget has no room for this usage, too."""
        amount = self.total + self.budget.cap.amount(more)
        self.reservation = self.budget.reserve(amount, instead_of=self.reservation)

    def add(self, job: str, usage: Usage) -> None:
        """Count a call that is in a job, even if the budget has no room for it."""
        amount = self.budget.cap.amount(usage)
        self.jobs[job] = self.jobs.get(job, 0.0) + amount
        self.total += amount
        self._reserve()

    def release(self, job: str) -> None:
        """Release the amount of a job that has ended: the actual usage of its calls is counted as
        spent."""
        self.jobs.pop(job, None)
        self.total = sum(self.jobs.values())
        if self.reservation is not None:
            self.reservation.release()
        self.reservation = None
        self._reserve()

    def _reserve(self) -> None:
        found = self.budget.try_reserve(self.total, instead_of=self.reservation)
        self.reservation = found or self.reservation


@dataclass
class JobRunner:
    """Does the work of a batch through jobs, and writes the results.

    calls: the state of all calls. folder: the folder of the jobs. limits: the limits for the
    engine. say: shows a line to the user that stays. keep: writes the result of an item. paid:
    called with each call that was answered. partial: see `answer_item`. stop_after: see
    `runner.Runner`.

    capped: why the batch ended early, if a cap was reached. stopped: why it ended early, if a model
    failed in the same way for item after item.
    """

    calls: DeferredCalls
    folder: JobFolder
    limits: Limits
    say: Callable[[str], None]
    keep: Callable[[Result], None]
    paid: Callable[[CallRecord], None]
    partial: bool
    stop_after: int = STOP_AFTER
    capped: Failure | None = None
    stopped: Failure | None = None
    _drafts: dict[str, JobDraft] = field(default_factory=dict)
    # What calls in jobs may take of each budget.
    _held: dict[Budget, _Held] = field(default_factory=dict)
    # Errors by type and message: calls that fail alike share one error, which saves memory.
    _errors: dict[tuple[type, str], ClientError] = field(default_factory=dict)
    # The unknown states of jobs that were told to the user.
    _told: set[tuple[str, str]] = field(default_factory=set)
    # Models with a job that the provider had no room for, each with how many of the jobs that have
    # ended since have made room for another one.
    _crowded: dict[str, int] = field(default_factory=dict)
    # For each of these models whose job found no room even alone, the most requests of a job.
    _most: dict[str, int] = field(default_factory=dict)
    # How many jobs have ended, and how many found no room, even alone, since then.
    _jobs_ended: int = 0
    _roomless: int = 0

    def __post_init__(self) -> None:
        self._held = {budget: _Held(budget) for budget in self.limits.budgets}
        self._watch = FailureWatch(self.stop_after)

    async def run(self, todo: Todo) -> None:
        """Answer all prompts that have no answer.

        If it is stopped at any moment, jobs continue at the provider, and the next start goes on
        with them. Memory holds only a number for each item. Raises ClientError if a provider cannot
        be asked, OSError.
        """
        self._todo = todo
        # For each place: how many calls of its item are in jobs, and whether it has ended.
        self._open, self._ended = array("L", [0]) * todo.count, bytearray(todo.count)
        try:
            await self._take_up()
            # The work that can go on now. The first iterator goes first.
            queue: deque[Iterator[Work]] = deque([iter(todo)])
            while True:
                await self._advance_all(queue)
                for draft in self._drafts.values():
                    draft.finish()
                self._drafts.clear()
                await self._submit()
                if not self.folder.open_jobs():
                    return
                queue.appendleft(todo.at(await self._take(await self._next_ended())))
                if self.stopped is not None:
                    self._fail_all(self.stopped)
                    return
        finally:
            for draft in self._drafts.values():
                draft.drop()

    def _fail_all(self, why: Failure) -> None:
        """Write items with a failed call as failed, because no more calls are made in this
        start."""
        places = [self._todo.place(item) for item in islice(self.calls.failed, _MOST_FAILURES)]
        for work in self._todo.at(sorted(place for place in places if place is not None)):
            self._end(work, Result(work.arm.name, work.item.id, work.item.category, error=why))

    def _end(self, work: Work, result: Result) -> None:
        self._ended[work.order] = 1
        self.calls.failed.pop(work.item.id, None)
        self.keep(result)

    async def _take_up(self) -> None:
        """Go on with the jobs of an earlier start."""
        opened = self.folder.open_jobs()
        for record in opened:
            for call in self.folder.calls(record):
                place = self._todo.place(call.item)
                # Answers that were written before a kill need no job any more.
                if place is not None and self.calls.journal.find(call.key) is None:
                    self._hold(record.name, [call])
                    self._enter(call, place)
        if opened:
            self.say(f"going on with {plural(len(opened), 'job')} of an earlier start")
        for record in opened:
            with self._named(record):
                await self._hand_in(record, again=True)

    def _enter(self, call: BatchedCall, place: int, *, waited: bool = False) -> None:
        """Note that a call of the item at that place is in a job. A place beyond this start's
        limit was asked by an earlier start."""
        if call.key not in self.calls.in_jobs and place < len(self._open):
            self._open[place] += 1
        self.calls.in_jobs.add(call.key, counts=not waited)

    def _leave(self, call: BatchedCall) -> int | None:
        """Note that a call is in no job any more. Returns the place of its item, if that can go on
        now."""
        self.calls.in_jobs.discard(call.key)
        place = self._todo.place(call.item)
        if place is None or place >= len(self._open):
            return None
        self._open[place] -= 1
        return None if self._open[place] else place

    async def _advance_all(self, queue: deque[Iterator[Work]]) -> None:
        """Run each item of the queue until it waits or ends. At a cap, the rest stays in the queue:
        jobs that end may release a part of what is reserved for them."""
        self.capped = None
        while queue:
            for work in queue[0]:
                calls = () if self._ended[work.order] else await self._advance(work)
                if calls is None:
                    queue.appendleft(iter([work]))
                    return
                for call in calls:
                    await self._collect(call, work.order)
            queue.popleft()

    async def _advance(self, work: Work) -> tuple[BatchedCall, ...] | None:
        """Run an item until it waits or ends. Returns the calls to put into jobs: none if it has
        ended or all its calls are in jobs, and None if a cap has no room for them."""
        take = partial(run_deferred, self.calls, self.limits, work, partial=self.partial)
        try:
            result = await converse(work, take, partial=self.partial)
        except TurnWaits as waits:
            try:
                self._check_room(waits.calls)
            except BudgetReached as reached:
                self.capped = Failure(type(reached).__name__, reached.message, reached.hint)
                return None
            return waits.calls
        except Capped as reached:
            self.capped = reached.failure
            return None
        self._end(work, result)
        return ()

    async def _collect(self, call: BatchedCall, place: int, *, waited: bool = False) -> None:
        """Put a call into the next job of its model. A full job is submitted. waited: whether it
        was in a job that found no room."""
        length = len(call.line(_LONGEST_NAME))
        draft = self._drafts.get(call.model)
        full = draft is not None and (
            draft.count >= self._most.get(call.model, _MOST_CALLS)
            or draft.size + length > _MOST_BYTES
        )
        if full:
            self._drafts.pop(call.model).finish()
            await self._submit()
        if call.model not in self._drafts:
            self._drafts[call.model] = self.folder.draft(call.model)
        draft = self._drafts[call.model]
        draft.add(call, length)
        self._hold(draft.name, [call])
        self._enter(call, place, waited=waited)

    async def _submit(self) -> None:
        """Submit the jobs whose requests are complete, as far as providers have room for them."""
        for record in self.folder.open_jobs():
            if record.step == "written" and self._has_room(record.model):
                with self._named(record):
                    await self._hand_in(record)
                requests = plural(record.calls, "request")
                self.say(f"{requests} to {short_name(record.model)} handed in as a job")

    def _has_room(self, model: str) -> bool:
        """Whether a job of that model may be handed in. Where there was no room for one, each job
        that ends makes room for another."""
        if self._crowded.get(model, self._jobs_ended) < self._jobs_ended:
            self._crowded[model] += 1
            return True
        return model not in self._crowded or not self._at_provider()

    def _at_provider(self) -> list[JobRecord]:
        """The jobs that providers have."""
        return [record for record in self.folder.open_jobs() if record.step == "submitted"]

    async def _finds_no_room(self, record: JobRecord, job: RemoteJob) -> bool:
        """Whether the requests of a job are to wait for room at the provider. Where no other job
        can make room, they go into smaller jobs, after a pause: other programs may have jobs there.
        """
        if not job.retryable:
            self._jobs_ended, self._roomless = self._jobs_ended + 1, 0
            return False
        self._crowded[record.model] = self._jobs_ended
        if len(self._at_provider()) > 1:
            return True
        await asyncio.sleep(min(_LONGEST_LOOK, 2.0**self._roomless))
        self._roomless += 1
        self._most[record.model] = max(1, record.calls // 2)
        return record.calls > 1

    def _usage_of(self, calls: Iterable[BatchedCall]) -> Usage:
        facts = self.calls.facts
        return sum((call.begun(facts[call.model].price).usage for call in calls), Usage())

    def _check_room(self, calls: Sequence[BatchedCall]) -> None:
        """Raise BudgetReached if a budget has no room for what these calls may cost."""
        usage = self._usage_of(calls)
        for held in self._held.values():
            held.check(usage)

    def _hold(self, job: str, calls: Sequence[BatchedCall]) -> None:
        """Reserve what these calls may cost, until their job has ended."""
        for held in self._held.values():
            held.add(job, self._usage_of(calls))

    async def _hand_in(self, record: JobRecord, *, again: bool = False) -> None:
        """Take the remaining steps of a job until the provider has started it.

        again: whether an earlier process may have started it without noting that.
        """
        client = self.calls.job_client(record.model)
        if record.step == "written":
            requests = self.folder.requests(record)
            file = await self._patiently(partial(client.upload, requests))
            record = replace(record, step="uploaded", file=file)
            self.folder.note(record)
            requests.unlink()
            again = False
        if record.step != "uploaded":
            return
        find = partial(client.find, record.file, record.name)
        job: RemoteJob | None = None
        for trouble in range(_MOST_TROUBLES):
            if again or trouble:
                # A request without a response may have created the job, and the provider's list may
                # show it late.
                for pause in (0.0, _SETTLED):
                    await asyncio.sleep(pause)
                    job = await self._patiently(find)
                    if job is not None:
                        break
            if job is not None:
                break
            try:
                job = await client.create(record.file, record.name)
                break
            except ClientError as error:
                if not _may_pass(error) or trouble == _MOST_TROUBLES - 1:
                    raise
                await asyncio.sleep(_pause(trouble, error))
        assert job is not None
        self.folder.note(replace(record, step="submitted", job=job.id))

    async def _next_ended(self) -> list[tuple[JobRecord, RemoteJob]]:
        """Wait until at least one job has ended. Returns all that have."""
        pause = _FIRST_LOOK
        while True:
            ended = []
            for record in self._at_provider():
                client = self.calls.job_client(record.model)
                look = partial(client.look, record.job)
                with self._named(record):
                    job = await self._patiently(look, _MOST_LOOKS)
                if job.state in ("ended", "refused"):
                    ended.append((record, job))
                elif job.state == "unknown" and (job.id, job.status) not in self._told:
                    self._told.add((job.id, job.status))
                    self.say(
                        f"job {job.id} to {short_name(record.model)} has a status that moa does not"
                        f" know, `{job.status}`; waiting for it to end"
                    )
            if ended:
                return ended
            await asyncio.sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.5)

    async def _take(self, ended: Sequence[tuple[JobRecord, RemoteJob]]) -> list[int]:
        """Write the answers of jobs to the journal. Returns the places of items that can go on."""
        ready: list[int] = []
        # Jobs that found no room come first: those that end with them make room.
        for record, job in sorted(ended, key=lambda pair: not pair[1].retryable):
            waits = await self._finds_no_room(record, job)
            client = self.calls.job_client(record.model)
            answers = JobAnswers(self.folder, record)
            for number, file in enumerate(job.outputs):
                path = self.folder.answers(record, number)
                with self._named(record):
                    await self._patiently(partial(client.download, file, path))
                answers.read(number)
            again: set[str] = set()
            lost = 0
            for call in self.folder.calls(record):
                if call.key not in self.calls.in_jobs:
                    # A process that was killed has already written this answer to the journal.
                    continue
                try:
                    line = answers.find(call.key)
                    if line is None:
                        raise _without_answer(job)
                    self._answered(call, await client.answer(line, call.request()))
                except ClientError as error:
                    lost += 1
                    tries = self.calls.in_jobs.tries(call.key)
                    if waits or (error.retryable and tries < _MOST_TRIES):
                        again.add(call.key)
                        continue
                    self._failed(call, error)
                place = self._leave(call)
                ready += [] if place is None else [place]
            # Note this before any of its calls is in another job: a job noted as ended is not taken
            # again by a later start.
            self.folder.note(replace(record, step="ended"))
            for held in self._held.values():
                held.release(record.name)
            for call in self.folder.calls(record) if again else ():
                place = self._todo.place(call.item)
                if call.key in again and place is not None:
                    await self._collect(call, place, waited=waits)
            self.folder.forget_files(record)
            model = short_name(record.model)
            problem = f" ({job.problem})" if job.problem else ""
            self.say(
                f"job of {plural(record.calls, 'request')} to {model} {job.status}{problem}:"
                f" {record.calls - lost:,} answered, {lost:,} not" + "; they wait for room" * waits
            )
        return sorted(ready)

    def _answered(self, call: BatchedCall, delta: Delta) -> None:
        """Write the answer to a call to the journal. Raises ServerFailed if it is empty."""
        answer = delta.text + delta.reasoning
        usage = usage_of(delta.usage, call.prompt_tokens, answer)
        price = self.calls.facts[call.model].price
        empty = not strip_reasoning(delta.text) and not delta.tool_calls
        record = CallRecord(
            key=call.key,
            item=call.item,
            turn=call.turn,
            model=call.model,
            text=delta.text,
            reasoning=delta.reasoning,
            answered_by=delta.model,
            usage=priced(usage, price) if usage.unpriced_calls else usage,
            finish_reason=delta.finish_reason,
            when=time.time(),
            logprobs=delta.logprobs,
            error="it gave no answer" if empty else None,
            citations=delta.citations,
        )
        self.calls.journal.add(record)
        self.paid(record)
        if empty:
            raise ServerFailed("it gave no answer")
        self._watch.answered(call.model)

    def _failed(self, call: BatchedCall, error: ClientError) -> None:
        """Note that a call has failed for good."""
        error = self._errors.setdefault((type(error), error.message), error)
        self.calls.failed.setdefault(call.item, {})[call.key] = error
        aggregator = self._todo.batch.arm.profile.aggregator
        if call.model in (aggregator.model, *aggregator.fallbacks)[:-1]:
            # A fallback is asked in its place.
            return
        failure = Failure(type(error).__name__, error.message, error.hint)
        self.stopped = self.stopped or self._watch.call_failed(call.model, call.item, failure)

    @contextmanager
    def _named(self, record: JobRecord) -> Iterator[None]:
        """Name the job in a refusal, and how to go on without it. Nobody but the user can know
        whether it is gone, or whether only the key is that of another account."""
        try:
            yield
        except ClientError as error:
            if not _may_pass(error) and not isinstance(error, AuthenticationFailed):
                named = record.job or f"of {plural(record.calls, 'request')}"
                error.message = f"job {named} to {short_name(record.model)}: {error.message}"
                if record.step != "written":
                    error.hint = (
                        "use the account that began it; if it is deleted there, delete"
                        f" {self.folder.calls_file(record.name)}, and the same command asks its"
                        " requests in a new job"
                    )
            raise

    async def _patiently(self, ask: Callable[[], Awaitable[_T]], most: int = _MOST_TROUBLES) -> _T:
        """The provider's response. While the provider is out of order, it is asked again.

        most: after how many attempts to give up. Raises ClientError then, or if the provider
        refuses.
        """
        for trouble in range(most - 1):
            try:
                return await ask()
            except ClientError as error:
                if not _may_pass(error):
                    raise
                if trouble in (0, _MOST_TROUBLES):
                    self.say(f"{error.message}; asking again")
                await asyncio.sleep(_pause(trouble, error))
        return await ask()


def _without_answer(job: RemoteJob) -> ClientError:
    """The error for a request without an answer in a job that has ended."""
    if job.state == "refused":
        message = f"the job was refused: {job.problem or 'the provider does not say why'}"
        return ServerFailed(message) if job.retryable else RequestRefused(message)
    if job.status in ("cancelled", "canceled"):
        return RequestRefused("the job was cancelled before this request was answered")
    return ServerFailed(f"the job ended as `{job.status}` without an answer to this request")


def _may_pass(error: ClientError) -> bool:
    """Whether the same request may succeed later. That includes a timeout, although the provider
    may have done what was asked."""
    return error.retryable or isinstance(error, ClientTimeout)


def _pause(trouble: int, error: ClientError) -> float:
    return max(min(_LONGEST_LOOK, 2.0**trouble), error.retry_after or 0.0)
