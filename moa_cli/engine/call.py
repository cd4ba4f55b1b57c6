"""One call of one model: retries, time limit, and what came of it."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from moa_cli.core.conversation import Citation, Failure, Message, Proposal, Usage
from moa_cli.core.endpoints import CallPlace, Clients, Delta, ModelInfo, Request
from moa_cli.core.errors import (
    AnswerRefused,
    BadResponse,
    ClientError,
    ClientTimeout,
    ContentFiltered,
    MoAError,
    ModelNotFound,
    RateLimited,
)
from moa_cli.core.ledger import CallBegun, Ledger, TurnLedger
from moa_cli.core.money import Price, priced
from moa_cli.core.outcomes import REFUSED, ending_of
from moa_cli.core.stream import EventQueue
from moa_cli.core.tokens import RunningCount, estimated_usage, usage_of
from moa_cli.engine.budget import Budget
from moa_cli.engine.fit import Fitted
from moa_cli.engine.silence import Watch
from moa_cli.engine.slots import Place, Slots
from moa_cli.profile import ModelSettings, Proposer, short_name

_LONGEST_DELAY = 60.0
# Seconds that a call may take which is given no time of its own.
_PROPOSER_TIMEOUT, _AGGREGATOR_TIMEOUT = 180.0, 600.0
# Tokens that an answer beyond what was foreseen is allowed at a time.
_FEWEST_MORE = 64
# A count that an endpoint told before so many tokens of its answer, or more, was not the last word.
_MANY_MORE = 8
# At or below this the reference implementation sends 0.
_ZERO_TEMPERATURE = 1e-4
# What is said of an answer without a word from a model that did answer.
_STILL_THINKING = "its tokens ran out while it was thinking"
_CUT_BEFORE = "its tokens ran out before its answer began"
_ONLY_THOUGHT = "it gave reasoning, but no answer"
_EMPTY = "it gave an empty answer"
WORDLESS = (_STILL_THINKING, _CUT_BEFORE, _ONLY_THOUGHT, _EMPTY)


@dataclass(frozen=True)
class Limits:
    """What a turn may do.

    Attributes:
        concurrency: Most calls in flight at once.
        retries: How many times a failed call is made again, before its first token. Attempts that
            a busy provider refused do not count, unless this is 0: then no call is made again.
        first_delay: Seconds before the first retry. The delay doubles from retry to retry, and
            is as long as the endpoint asks for, at least.
        longest_wait: Seconds that a call may spend with being refused by a busy provider.
        budgets: What calls may cost, in USD or tokens. Each is asked before each layer, and while
            an answer comes that is longer than was estimated.
        slots: Shared with other turns, in place of `concurrency`.
        ledger: Where turns and their calls are recorded.
        reply_held: Whether nobody is shown the reply before its end. Then a reply that has begun
            may be asked for again.
    """

    concurrency: int = 32
    retries: int = 4
    first_delay: float = 0.5
    longest_wait: float = 60.0
    budgets: tuple[Budget, ...] = ()
    slots: Slots | None = None
    ledger: Ledger | None = None
    reply_held: bool = False


@dataclass(frozen=True)
class Begun:
    """The call is made now; before, it waited for its turn."""


@dataclass(frozen=True)
class Retry:
    """The call failed and is made again. attempt: from 2. delay: seconds until then. moved: that
    another candidate is asked, in words."""

    attempt: int
    delay: float
    error: Failure
    moved: str | None = None


@dataclass(frozen=True)
class Planned:
    """A call to be made.

    settings: its limits of length as far as the budgets allow. fitted: what it is sent. info: on
    its model. foreseen: tokens of the answer that the budgets were asked for. error: why it is not
    made, if so.
    """

    place: CallPlace
    settings: ModelSettings
    fitted: Fitted
    info: ModelInfo
    foreseen: int
    error: Failure | None = None

    @property
    def index(self) -> int | None:
        """As in events: the place in its layer, None for the aggregator."""
        return self.place.index if isinstance(self.settings, Proposer) else None

    @property
    def name(self) -> str:
        own = self.settings.name if isinstance(self.settings, Proposer) else None
        return own or short_name(self.settings.model)


def failure(error: MoAError) -> Failure:
    return Failure(type(error).__name__, error.message, error.hint)


def request_of(
    settings: ModelSettings,
    messages: tuple[Message, ...],
    model: str,
    place: CallPlace | None = None,
) -> Request:
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
        place=place,
    )


def _summed(usages: list[Usage], price: Price | None) -> Usage:
    return sum(
        (priced(usage, price) if usage.unpriced_calls else usage for usage in usages), Usage()
    )


class Call:
    """A call to be made once; its fields tell how far it has come.

    queue: of the turn's events; while it has no room, the call does not go on. ledger: where it
    is written down before it is sent. grow: asked when the answer goes beyond what was foreseen:
    given this call, and the tokens that the answer has and should be allowed; returns how many it
    may have, or raises BudgetReached. spend: told what the call took, once.

    seconds, first_token: from the start, in seconds; first_token is None until one came.
    """

    def __init__(
        self,
        planned: Planned,
        clients: Clients,
        limits: Limits,
        slots: Slots,
        queue: EventQueue,
        *,
        ledger: TurnLedger | None = None,
        grow: Callable[[Call, int, int], int] | None = None,
        spend: Callable[[Usage], None],
    ) -> None:
        self.planned = planned
        self.settings = planned.settings
        # As it is written down before it is sent.
        self._foreseen = CallBegun(
            model=planned.settings.model,
            prompt_tokens=planned.fitted.tokens,
            completion_tokens=planned.foreseen,
            price=planned.info.price,
            layer=planned.place.layer,
            index=planned.index,
        )
        self._ledger = ledger
        self._grow = grow
        self._spend = spend
        self._clients = clients
        self._limits = limits
        self._slots = slots
        self._queue = queue
        default = _PROPOSER_TIMEOUT if planned.index is not None else _AGGREGATOR_TIMEOUT
        self._seconds = planned.settings.timeout or default
        self._began = time.monotonic()
        self._ended: float | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls = False
        self._hidden_reasoning = False
        # What earlier attempts took, and how far the one that runs has come.
        self._taken: list[Usage] = []
        self._told: Usage | None = None
        self._told_at = 0
        self._sent = False
        self._begun = False
        self._ended_well = False
        # Attempts made; those of them that failed; when the last was made. Seconds that the call
        # was refused for by a busy provider, and the last refusal.
        self._attempts = self._failures = 0
        self._tried = 0.0
        self._waited = 0.0
        self._refusal_before: ClientError | None = None
        self._count = RunningCount()
        # Tokens of the answer up to which nobody needs to be asked.
        self._allowed = self._foreseen.completion_tokens
        # In the ledger: requests that may be billed, and the one that runs.
        self._numbers: list[int] = []
        self._number: int | None = None
        # What it took, once it has ended and its price is known as well as it will be.
        self.settled: Usage | None = None
        self._price = self._foreseen.price
        self._provider = ""
        self._timeout: asyncio.Timeout
        self.first_token: float | None = None
        self.finish_reason: str | None = None
        self.answered_by: str | None = None
        self.citations: tuple[Citation, ...] = ()

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def seconds(self) -> float:
        """Since the start, or from start to end."""
        return (self._ended or time.monotonic()) - self._began

    def settle(self, price: Price | None) -> Usage:
        """What it took, each attempt that an endpoint may bill, at that price; from now on this
        stands, and is written down.

        What an endpoint did not count is estimated; what it told of the cost stays.
        """
        if self.settled is None:
            self.settled = _summed([*self._taken, *self._attempt_usage()], price)
            self._spend(self.settled)
            if self._number is not None:
                self._numbers.append(self._number)
            if self._ledger is not None and self._numbers:
                self._ledger.end(self._numbers, self.settings.model, self.settled)
        return self.settled

    def committed(self, tokens: int = 0) -> Usage:
        """What it may have taken in the end, as far as it was allowed to.

        tokens: of an answer that it is to be allowed beside.
        """
        if self.settled is not None:
            return self.settled
        foreseen, told = self._foreseen, self._told or Usage()
        answer = max(self._allowed, tokens, told.completion_tokens)
        running = estimated_usage(max(foreseen.prompt_tokens, told.prompt_tokens), answer)
        return _summed([*self._taken, running], foreseen.price)

    def _attempt_usage(self) -> list[Usage]:
        if not self._sent:
            return []
        prompt = self._foreseen.prompt_tokens
        told = self._told
        open_end = not self._ended_well or self._count.tokens - self._told_at >= _MANY_MORE
        if told is not None and open_end and told.completion_tokens < self._tokens:
            # It has gone on since it told.
            told = None
        return [usage_of(told, prompt, self.text + self.reasoning, self._tokens)]

    @property
    def _tokens(self) -> int:
        """Of the answer so far, by the highest count that there is."""
        told = self._told.completion_tokens if self._told is not None else 0
        return max(self._count.tokens, told)

    async def run(self, tell: Callable[[Begun | Delta | Retry], None]) -> None:
        """Make the call. tell: told each step.

        Raises a ClientError if it fails for good, or gives no answer; BudgetReached if a
        budget has no room for the rest of its answer.
        """
        self._began = time.monotonic()
        try:
            await self._answer(tell)
        except MoAError:
            raise
        except BaseException:
            # It is cut off: nobody will ask any more.
            self.settle(self._clients.known(self.settings.model).price)
            raise
        finally:
            self._ended = time.monotonic()
        if self._refusal or not self.text.strip():
            raise self.no_answer()

    async def _answer(self, tell: Callable[[Begun | Delta | Retry], None]) -> None:
        """All attempts, within the time that the call may take."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                while True:
                    try:
                        return await self._try(tell)
                    except ClientError as error:
                        self._failed(error)
                        gone = self.settings.model
                        if isinstance(error, ModelNotFound) and self._move_on():
                            moved = (
                                f"{gone} is not offered, {self.settings.model} was asked instead"
                            )
                            tell(Retry(self._attempts, 0.0, failure(error), moved))
                            continue
                        delay, held = self._delay(error)
                        retry = Retry(self._attempts + 1, delay, failure(error))
                    tell(retry)
                    if not held:
                        await asyncio.sleep(delay)
        except TimeoutError:
            raise ClientTimeout(
                f"{self._provider}: no whole answer within {self._seconds:g} s",
                hint="raise `timeout` in the profile, or use a faster model",
            ) from None

    async def _try(self, tell: Callable[[Begun | Delta | Retry], None]) -> None:
        """One attempt, once it is let in."""
        async with AsyncExitStack() as stack:
            place = await self._let_in(stack, tell)
            self._attempts += 1
            self._tried = time.monotonic()
            if self._attempts == 1:
                self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)
                tell(Begun())
            try:
                await self._attempt(place, tell)
            except ClientError as error:
                if error.overloaded:
                    place.refused(error.retry_after)
                raise

    async def _let_in(
        self, stack: AsyncExitStack, tell: Callable[[Begun | Delta | Retry], None]
    ) -> Place:
        """Wait for the turn of an attempt.

        Raises the error of the attempt before, or RateLimited, where the provider is held back
        for longer than a call may be.
        """
        model, left = self.settings.model, self._limits.longest_wait - self._waited
        held = self._slots.delay(model)
        try:
            if held > left:
                raise TimeoutError
            with Watch(left, spared=lambda: self._slots.delay(model) <= 0):
                return await stack.enter_async_context(self._slots.slot(model))
        except TimeoutError:
            if not self._attempts:
                tell(Begun())
            if self._refusal_before is not None:
                raise self._refusal_before from None
            held = max(held, self._slots.delay(model))
            raise RateLimited(
                f"{model}: its provider asks to wait another {held:.0f} s, which is too long",
                hint="wait a little, or use another model",
            ) from None

    def _move_on(self) -> bool:
        """Ask the next candidate from now on; whether there is one that may be asked.

        Nothing was paid for yet: the endpoint does not have the model. Raises BudgetReached if
        the next one is too expensive.
        """
        if self.first_token is not None or not self.settings.alternatives:
            return False
        model, *others = self.settings.alternatives
        price = self._clients.known(model).price
        if price is None and self._price is not None and self._grow is not None:
            # A cap that depends on prices would not be kept.
            return False
        self.settings = replace(self.settings, model=model, alternatives=tuple(others))
        self._foreseen = replace(self._foreseen, model=model, price=price)
        self._price = price
        if self._grow is not None:
            self._grow(self, 0, self._allowed)
        return True

    def _failed(self, error: ClientError) -> None:
        """Keep what the attempt took: nothing if the endpoint refused it, or was not reached."""
        billed = self._begun or isinstance(error, ClientTimeout)
        self._taken += self._attempt_usage() if billed else []
        if self._number is not None and self._ledger is not None:
            if billed:
                self._numbers.append(self._number)
            else:
                self._ledger.void(self._number)
        self._told, self._sent, self._begun = None, False, False
        self._number, self._count = None, RunningCount()

    def _delay(self, error: ClientError) -> tuple[float, bool]:
        """Seconds to wait before the call is made again, and whether the slots see to that.

        As long as the provider is held back; else as long as the endpoint asks, and exponential
        with jitter at least. Raises the error where the call is not made again.
        """
        refused, limits = error.overloaded, self._limits
        delay = self._slots.delay(self.settings.model)
        held = delay > 0
        if refused:
            self._refusal_before = error
            self._waited += time.monotonic() - self._tried
        else:
            self._failures += 1
        left = min(limits.longest_wait - self._waited, self._seconds_left())
        if not held:
            longest = min(_LONGEST_DELAY, limits.first_delay * 2.0 ** (self._attempts - 1))
            delay = longest * random.uniform(0.5, 1)  # noqa: S311
            if refused and left > 0:
                delay = min(delay, left)
            delay = max(delay, error.retry_after or 0.0)
        tries = limits.retries if refused else limits.retries - self._failures + 1
        begun = self.first_token is not None
        if begun or not error.retryable or tries < 1 or left <= 0 or delay > left:
            raise error
        if refused:
            self._waited += delay
        return delay, held

    async def _attempt(self, place: Place, tell: Callable[[Begun | Delta | Retry], None]) -> None:
        endpoint = self._clients.endpoint(self.settings.model)
        self._provider = endpoint.provider
        if self._taken and self._grow is not None:
            # An attempt that failed is billed, too, and only one was foreseen.
            self._grow(self, 0, self._allowed)
        if self._ledger is not None:
            self._number = self._ledger.begin(self._foreseen)
        self._sent = True
        self.citations = ()
        planned = self.planned
        request = request_of(
            planned.settings, planned.fitted.messages, endpoint.model, planned.place
        )
        async with aclosing(endpoint.client.stream(request)) as deltas:
            async for delta in deltas:
                if not self._begun:
                    place.accepted()
                if delta.replaces:
                    delta = self._replace(delta)
                else:
                    self._take(delta)
                tokens = self._tokens
                # Ever more rarely, since this runs once a token.
                if self._price is None and not tokens & (tokens - 1):
                    self._look_for_price()
                tell(delta)
                # Behind what has come: it was paid for, and is shown.
                if self.finish_reason is None and tokens > self._allowed:
                    self._go_on(tokens)
                if not self._queue.has_room:
                    # The time of a slow consumer is not the model's.
                    left = self._seconds_left()
                    self._timeout.reschedule(None)
                    await self._queue.room()
                    self._timeout.reschedule(asyncio.get_running_loop().time() + left)
        self._ended_well = True

    def _seconds_left(self) -> float:
        """Until the call has run out of time."""
        when = self._timeout.when()
        return math.inf if when is None else when - asyncio.get_running_loop().time()

    def _go_on(self, tokens: int) -> None:
        """The answer is longer than was foreseen. Raises BudgetReached if a cap ends it here."""
        wanted = tokens + max(_FEWEST_MORE, tokens // 4)
        if self._grow is not None:
            wanted = self._grow(self, tokens, wanted)
        self._allowed = wanted
        if self._ledger is not None and self._number is not None:
            self._ledger.grown(self._number, wanted)

    def _look_for_price(self) -> None:
        """Lists of prices are read beside the calls: one may have come in the meantime."""
        self._price = self._clients.known(self.settings.model).price
        if self._price is not None and self._ledger is not None and self._number is not None:
            self._ledger.priced(self._number, self._price)

    def _take(self, delta: Delta) -> None:
        self._begun = True
        if self.first_token is None and (delta.text or delta.reasoning):
            self.first_token = self.seconds
        if delta.text:
            self._text.append(delta.text)
            self._count.take(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            self._count.take(delta.reasoning)
        if delta.usage is not None:
            self._told, self._told_at = delta.usage, self._count.tokens
            self._hidden_reasoning = delta.usage.reasoning_tokens > 0
        if delta.refusal:
            self._refusal.append(delta.refusal)
        self._tool_calls = self._tool_calls or delta.tool_calls
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.answered_by = delta.model or self.answered_by
        self.citations = delta.citations or self.citations

    def _replace(self, delta: Delta) -> Delta:
        """Take what stands in place of all that came; what of it is still to be told."""
        told = any(self._text)
        self._text, self._reasoning = [delta.text], [delta.reasoning]
        return Delta(text="" if told else delta.text)

    def no_answer(self) -> ClientError:
        """Why there is no answer in what came, as far as that is known."""
        ending = ending_of(self.finish_reason)
        thought = bool(self._reasoning) or self._hidden_reasoning
        if self._refusal or ending == "refusal":
            words = " ".join("".join(self._refusal).split())
            return AnswerRefused(f"{REFUSED}: {words}" if words else REFUSED)
        if ending == "content_filter":
            return ContentFiltered(
                "the provider's content filter stopped its answer",
                hint="rephrase the prompt, or ask another model",
            )
        if self._tool_calls or ending == "tool_calls":
            return BadResponse("it called a tool in place of an answer")
        if ending == "length":
            return BadResponse(
                _STILL_THINKING if thought else _CUT_BEFORE, hint="raise max_tokens for this model"
            )
        return BadResponse(_ONLY_THOUGHT if thought else _EMPTY)

    def _named(self) -> str:
        """The proposer's name; it follows the model, if it was made of that."""
        first, name = self.planned.settings.model, self.planned.name
        now = self.settings.model
        return name if now == first else name.replace(short_name(first), short_name(now))

    @property
    def price(self) -> Price | None:
        """The price of its model, as far as it is known."""
        return self._price

    def proposal(self, usage: Usage, error: Failure | None) -> Proposal:
        """What came of the call, as a proposal."""
        return Proposal(
            layer=self.planned.place.layer,
            index=self.planned.place.index,
            proposer=self._named(),
            model=self.settings.model,
            text=self.text,
            reasoning=self.reasoning,
            answered_by=self.answered_by,
            usage=usage,
            seconds=self.seconds,
            first_token=self.first_token,
            finish_reason=self.finish_reason,
            error=error,
            citations=self.citations,
        )
