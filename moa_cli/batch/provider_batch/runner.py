"""Works a batch off through jobs: collects what turns ask, hands it in, waits, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TypeVar

from moa_cli.batch.provider_batch.deferred import DeferredCalls, TurnWaits, run_deferred
from moa_cli.batch.provider_batch.job_folder import (
    BatchedCall,
    JobFolder,
    JobRecord,
    answer_lines,
)
from moa_cli.bench.run.journal import CallRecord, Result, TurnResult
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.runner import Capped, Results
from moa_cli.core.conversation import Conversation, Failure
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import (
    BudgetReached,
    ClientError,
    ClientTimeout,
    RequestRefused,
    ServerFailed,
)
from moa_cli.core.ledger import TurnLedger
from moa_cli.core.money import priced
from moa_cli.core.remote_jobs import RemoteJob
from moa_cli.core.text import plural
from moa_cli.core.tokens import usage_of
from moa_cli.core.unique import unique_name
from moa_cli.engine import Limits
from moa_cli.engine.budget import Reservation
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import short_name

# What providers take in a file: OpenAI 50,000 requests and 200 MB, Together 100 MB.
_MOST_CALLS, _MOST_BYTES = 50_000, 90_000_000
_LONGEST_NAME = "n" * 64
# How often a request is put into a job before it has failed.
_MOST_TRIES = 3
# Seconds between two looks at jobs: at first, and at most. A day has 1,440 of these.
_FIRST_LOOK, _LONGEST_LOOK = 0.5, 60.0
# Seconds after which a job that was begun by a request without an answer is in the list of jobs.
_SETTLED = 2.0
# How often a provider that is out of order is asked again, each time after a longer pause.
_MOST_TROUBLES = 8
# The same while a job runs: about an hour.
_MOST_LOOKS = 66
_T = TypeVar("_T")


@dataclass
class JobRunner:
    """Does the work of a batch by jobs, and writes it down.

    results: where what came of items goes. calls: what turns ask. folder: of the jobs. limits: the
    engine's. say: tells a line that stays. told: called with each result once it is written down.
    paid: called with each call that was answered. partial: see `runner.Runner`. ledger: where each
    call is written down as spent; None keeps none.

    capped: why the batch ended early, if a cap was reached.
    """

    results: Results
    calls: DeferredCalls
    folder: JobFolder
    limits: Limits
    say: Callable[[str], None]
    told: Callable[[Result], None]
    paid: Callable[[CallRecord], None]
    partial: bool
    ledger: Callable[[], TurnLedger] | None = None
    capped: Failure | None = None
    _tries: Counter[str] = field(default_factory=Counter)
    _held: dict[str, list[Reservation]] = field(default_factory=dict)

    async def run(self, todo: Iterable[Work]) -> None:
        """Do what is left.

        Stopped at any moment, it leaves jobs that run where they are; the next start goes on with
        them. Raises ClientError if a provider cannot be asked, OSError.
        """
        opened = self.folder.open_jobs()
        for record in opened:
            for call in self.folder.calls(record):
                self.calls.in_jobs.add(call.key)
                self._reserve(call, force=True)
        if opened:
            self.say(f"going on with {plural(len(opened), 'job')} of an earlier start")
        for record in opened:
            await self._hand_in(record, again=True)
        waiting: dict[tuple[str, str], tuple[Work, frozenset[str]]] = {}
        ready = list(todo)
        while ready or waiting:
            self.capped = None
            for work in ready:
                # At a cap, all others wait for what others may give back.
                keys = frozenset() if self.capped else await self._advance(work)
                if keys is not None:
                    waiting[work.name] = (work, keys)
            await self._submit()
            if not self.calls.in_jobs:
                break
            ended = await self._next_ended()
            await self._take(ended)
            ready = [work for work, keys in waiting.values() if not self._unanswered(keys)]
            for work in ready:
                del waiting[work.name]

    def _unanswered(self, keys: frozenset[str]) -> frozenset[str]:
        return keys & (self.calls.in_jobs | self.calls.wanted.keys())

    async def _advance(self, work: Work) -> frozenset[str] | None:
        """Let an item come as far as it can: the calls that it waits for, none for room below a
        cap; None if it has ended."""
        wanted = set(self.calls.wanted)
        try:
            result = await self._converse(work)
        except TurnWaits as waits:
            new = [self.calls.wanted[key] for key in self.calls.wanted if key not in wanted]
            try:
                for call in new:
                    self._reserve(call)
            except BudgetReached as reached:
                for call in new:
                    self._release(call.key)
                    del self.calls.wanted[call.key]
                self.capped = Failure(type(reached).__name__, reached.message, reached.hint)
                return frozenset()
            return waits.keys
        except Capped as reached:
            self.capped = reached.failure
            return frozenset()
        self.results.add(result)
        self.told(result)
        return None

    async def _converse(self, work: Work) -> Result:
        """What came of all turns of an item. Raises TurnWaits, Capped."""
        item = work.item
        conversation = Conversation(before=item.before)
        result = Result(work.arm.name, item.id, item.category)
        for number in range(len(item.turns)):
            conversation = item.ask(conversation, number)
            turn, told, error = await run_deferred(
                self.calls, self.limits, work, number, conversation, partial=self.partial
            )
            result = _with_turn(result, told, error)
            if error is not None:
                return replace(result, replies=())
            reply = strip_reasoning(turn.reply or "")
            result = replace(result, replies=(*result.replies, reply))
            conversation = conversation.answer(reply)
        return result

    def _reserve(self, call: BatchedCall, *, force: bool = False) -> None:
        """Keep free what a call may cost until its job has ended. force: it is in a job already,
        room or not. Raises BudgetReached."""
        if call.key in self._held:
            return
        usage = call.begun(self.calls.facts[call.model].price).usage
        held = self._held[call.key] = []
        for budget in self.limits.budgets:
            amount = budget.cap.amount(usage)
            found = budget.try_reserve(amount) if force else budget.reserve(amount)
            if found is not None:
                held.append(found)

    def _release(self, key: str) -> None:
        for reservation in self._held.pop(key, ()):
            reservation.release()

    async def _submit(self) -> None:
        """Hand in all that is wanted."""
        calls, self.calls.wanted = list(self.calls.wanted.values()), {}
        for model, group in groupby(sorted(calls, key=lambda call: call.model), _model_of):
            for part in _parts(group):
                record = JobRecord(f"moa-{unique_name()}", model, len(part), "written")
                self.folder.write(record, part)
                self.calls.in_jobs.update(call.key for call in part)
                await self._hand_in(record)
                self.say(
                    f"{plural(len(part), 'request')} to {short_name(model)} handed in as a job"
                )

    async def _hand_in(self, record: JobRecord, *, again: bool = False) -> None:
        """Take the steps of a job that are left, up to its beginning at the provider.

        again: whether an earlier process may have begun it without writing that down.
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
                # The list may lag behind a request whose answer was lost.
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
        """Wait until jobs have ended; returns these."""
        pause = _FIRST_LOOK
        while True:
            ended = []
            for record in self.folder.open_jobs():
                client = self.calls.job_client(record.model)
                look = partial(client.look, record.job)
                job = await self._patiently(look, _MOST_LOOKS)
                if job.state != "running":
                    ended.append((record, job))
            if ended:
                return ended
            await asyncio.sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.5)

    async def _take(self, ended: Sequence[tuple[JobRecord, RemoteJob]]) -> None:
        """Write down what jobs brought."""
        for record, job in ended:
            client = self.calls.job_client(record.model)
            lines = {}
            for number, file in enumerate(job.outputs):
                path = self.folder.answers(record, number)
                await self._patiently(partial(client.download, file, path))
                for line in answer_lines(path):
                    lines[str(line.get("custom_id")).rpartition("/")[2]] = line
            lost = 0
            for call in self.folder.calls(record):
                try:
                    if call.key in lines:
                        delta = await client.answer(lines[call.key], call.request())
                    else:
                        raise _without_answer(job)
                except ClientError as error:
                    lost += 1
                    self._failed(call, error)
                else:
                    self._answered(call, delta)
                self.calls.in_jobs.discard(call.key)
            self.folder.note(replace(record, step="ended"))
            self.folder.forget_files(record)
            model = short_name(record.model)
            problem = f" ({job.problem})" if job.problem else ""
            self.say(
                f"job of {plural(record.calls, 'request')} to {model} {job.status}{problem}:"
                f" {record.calls - lost:,} answered, {lost:,} not"
            )

    def _answered(self, call: BatchedCall, delta: Delta) -> None:
        """The answer to a call has come."""
        if self.calls.journal.find(call.key) is not None:
            # An earlier process was killed before it had written the job down as ended.
            self._release(call.key)
            return
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
        if self.ledger is not None:
            ledger = self.ledger()
            ledger.end([ledger.begin(call.begun(price))], call.model, record.usage)
        self.paid(record)
        if empty:
            self._failed(call, ServerFailed("it gave no answer"))
        else:
            self._release(call.key)

    def _failed(self, call: BatchedCall, error: ClientError) -> None:
        """A call was not answered: it is asked again with the next job, or has failed."""
        self._tries[call.key] += 1
        if error.retryable and self._tries[call.key] < _MOST_TRIES:
            self.calls.wanted[call.key] = call
        else:
            self._release(call.key)
            self.calls.failed[call.key] = error

    async def _patiently(self, ask: Callable[[], Awaitable[_T]], most: int = _MOST_TROUBLES) -> _T:
        """What the provider answers, which is asked again while it is out of order.

        Raises ClientError if it is so for long, or refuses.
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


def _with_turn(result: Result, told: TurnResult, error: Failure | None) -> Result:
    usage = sum((answer.usage for answer in told.answers()), result.usage)
    return replace(result, turns=(*result.turns, told), usage=usage, error=error)


def _without_answer(job: RemoteJob) -> ClientError:
    """Why a request has no answer although its job has ended."""
    if job.state == "refused":
        message = f"the job was refused: {job.problem or 'the provider does not say why'}"
        return ServerFailed(message) if job.retryable else RequestRefused(message)
    if job.status == "cancelled":
        return RequestRefused("the job was cancelled before this request was answered")
    return ServerFailed(f"the job ended as `{job.status}` without an answer to this request")


def _may_pass(error: ClientError) -> bool:
    """Whether the same may go well later. What timed out may have been done."""
    return error.retryable or isinstance(error, ClientTimeout)


def _pause(trouble: int, error: ClientError) -> float:
    return max(min(_LONGEST_LOOK, 2.0**trouble), error.retry_after or 0.0)


def _model_of(call: BatchedCall) -> str:
    return call.model


def _parts(calls: Iterator[BatchedCall]) -> Iterator[list[BatchedCall]]:
    """The calls in parts that fit into a file."""
    part: list[BatchedCall] = []
    size = 0
    for call in calls:
        length = len(call.line(_LONGEST_NAME))
        if part and (len(part) == _MOST_CALLS or size + length > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(call)
        size += length
    if part:
        yield part
