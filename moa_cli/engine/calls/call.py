"""One call of one model: its attempts, its limits on waiting, and its result."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moa_cli.core.conversation import Failure, Message, Proposal, Usage
from moa_cli.core.endpoints import CallPlace, Clients, Delta, ModelInfo
from moa_cli.core.errors import (
    BadResponse,
    BudgetReached,
    ClientError,
    ClientTimeout,
    ContextTooLong,
    MoAError,
    ModelNotFound,
    RateLimited,
    RequestRefused,
)
from moa_cli.core.events import Hedged, Queued, ReferencesTrimmed, Retrying
from moa_cli.core.frozen import quickly_made
from moa_cli.core.ledger import CallBegun, Ledger, TurnLedger
from moa_cli.core.money import Price
from moa_cli.core.strategy import Purpose
from moa_cli.core.stream import EventQueue
from moa_cli.core.tools import ToolCall
from moa_cli.engine.advice import offers_tools
from moa_cli.engine.budget import Budget
from moa_cli.engine.calls.attempt import Attempt, request_of, settled, total
from moa_cli.engine.calls.hedge import Race
from moa_cli.engine.calls.retry import Backoff
from moa_cli.engine.calls.silence import Silence, Watch, silence_of
from moa_cli.engine.calls.slots import CallSlot, Slot, Slots
from moa_cli.engine.fan_out import FanOutMemory
from moa_cli.engine.fit import Fitted
from moa_cli.engine.opening import Opening
from moa_cli.profile import ModelSettings, Proposer, short_name

# An answer that is longer than was foreseen is allowed at least this many more tokens at a time.
_FEWEST_MORE = 64
# Seconds after which the user is told that a call waits to be sent, and between two checks of
# whether its provider accepts calls; and the reason that the user is told if none is known.
_WAIT_TOLD, _NO_TURN = 0.5, "behind other calls"
# The part of the longest wait for a busy provider that is left out if a fallback stands ready.
_LEFT_OUT = 0.75
# A call is not made again after this part of the time for its first word.
_NEARLY_ALL = 0.9
# An answer is stopped at _FAR_BEYOND times its max_tokens plus _BEYOND tokens. The limit is not
# lower because endpoints count tokens differently from our estimate, and some do not count
# reasoning.
_FAR_BEYOND, _BEYOND = 3, 256


@dataclass(frozen=True)
class Limits:
    """The limits of a turn, and what it shares with other turns.

    Attributes:
        concurrency: Most calls in flight at once.
        retries: How many times a failed call is made again, as long as that discards nothing that
            the user has seen. Attempts that a busy provider refused do not count, unless this is 0:
            then no call is made again.
        first_delay: Seconds before the first retry. The delay doubles from retry to retry, and
            is as long as the endpoint asks for, at least.
        longest_wait: Seconds for which a busy provider may refuse a call; a quarter of it for an
            aggregator with a fallback at a provider that is not busy.
        budgets: What calls may cost, in USD or tokens. They are checked before each layer, and when
            an answer becomes longer than was estimated.
        slots: Limits on calls that are shared with other turns, in place of `concurrency`.
        ledger: Where turns and their calls are recorded.
        reply_held: Whether the reply is shown only as a whole. Then the call for a reply that has
            begun may be retried, or replaced by a fallback.
        fan_outs: Where proposals are kept for the next requests on the same user's message, shared
            with other turns. None keeps none.
        client: The client that the turn is made for. Kept proposals are used only in turns of the
            same client.
        undisclosed: The names of budgets that other users share. Errors do not tell how much of
            them was spent.
        trims_history: Whether old turns are left out if a model's context has no room for them. If
            not, such a model is not asked.
        assumed_context: The context, in tokens, to assume for a model whose context is not known
            when old turns are left out. None: such a model is sent all turns.
    """

    concurrency: int = 32
    retries: int = 4
    first_delay: float = 0.5
    longest_wait: float = 90.0
    budgets: tuple[Budget, ...] = ()
    slots: Slots | None = None
    ledger: Ledger | None = None
    reply_held: bool = False
    fan_outs: FanOutMemory | None = None
    client: str = ""
    undisclosed: frozenset[str] = frozenset()
    trims_history: bool = True
    assumed_context: int | None = None


@dataclass(frozen=True)
class Begun:
    """A step of a call: its wait is over, and it is made now."""


# What a call tells its listener. The events among them reach the consumer of the turn unchanged.
Step = Begun | Delta | Retrying | Queued | Hedged | ReferencesTrimmed
_E = TypeVar("_E", Retrying, Queued, Hedged, ReferencesTrimmed)


@quickly_made
@dataclass(frozen=True)
class Planned:
    """A call to be made.

    settings: of the model; the budgets may have set `max_tokens`. fitted: the messages to send.
    info: facts about the model. foreseen: tokens of the answer that the budgets have reserved.
    error: why the call is not made, or None. shrink: given the error of an endpoint that refuses
    the prompt as too long, returns a shorter one, or None. behind: the fallbacks that have not been
    asked. again: whether a call of the model timed out in a layer before, because the
    model was silent. max_tokens: as the profile says, without the budgets. opening: separates the
    comparison from the reply, if the answer may begin with one. about: see `Proposal`.
    """

    place: CallPlace
    settings: ModelSettings
    fitted: Fitted
    info: ModelInfo
    foreseen: int
    error: Failure | None = None
    shrink: Callable[[ContextTooLong], Fitted | None] = lambda _: None
    behind: tuple[str, ...] = ()
    again: bool = False
    max_tokens: int | None = None
    opening: Opening | None = None
    about: str = ""

    @property
    def index(self) -> int | None:
        """The place in its layer, as events have it; None for the aggregator."""
        return self.place.index if isinstance(self.settings, Proposer) else None

    @property
    def name(self) -> str:
        own = self.settings.name if isinstance(self.settings, Proposer) else None
        return own or short_name(self.settings.model)

    def event(self, kind: type[_E], at: float, **values: Any) -> _E:
        """An event about the call. at: seconds since the turn began. values: the other fields of
        the event."""
        told = {"model": self.settings.model, **values}
        return kind(at=at, layer=self.place.layer, index=self.index, **told)

    def trimmed(self, at: float, fitted: Fitted) -> ReferencesTrimmed:
        """The event that the call is sent a shortened prompt."""
        return self.event(
            ReferencesTrimmed,
            at,
            kept=fitted.kept or 0,
            context=fitted.context,
            left_out=fitted.left_out,
        )


def _tell_nobody(step: Step) -> None:
    del step


def failure(error: MoAError) -> Failure:
    return Failure(type(error).__name__, error.message, error.hint)


class Call:
    """A call, which runs once. Its fields tell how far it has come.

    queue: the queue of the turn's events; while it is full, the call waits. turn_began: by
    `time.monotonic`. lost: sentences on what the turn has lost; the call adds to them. ledger:
    records the call before it is sent. grow: called when the answer becomes longer than was
    foreseen, with this call, the tokens that the answer has, and the tokens that it should be
    allowed. It returns how many the answer may have, or raises BudgetReached. spend: called once
    with the usage of the call.

    settings: those of the model that answers. heard: the attempt whose answer counts. begun:
    whether the call no longer waits to be made. settled: the usage of the call, set when the call
    has ended and its price has been looked up.
    """

    def __init__(
        self,
        planned: Planned,
        clients: Clients,
        limits: Limits,
        slots: Slots,
        queue: EventQueue,
        *,
        turn_began: float,
        lost: list[str],
        ledger: TurnLedger | None = None,
        grow: Callable[[Call, int, int], int] | None = None,
        spend: Callable[[Usage], None],
    ) -> None:
        self.planned = planned
        self.settings = planned.settings
        self.settled: Usage | None = None
        self._fitted = planned.fitted
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
        self._turn_began = turn_began
        self._lost = lost
        self._began = time.monotonic()
        self._ended: float | None = None
        self.heard = Attempt(self._foreseen)
        # All attempts that may be billed.
        self._sent: list[Attempt] = []
        # Tokens that the answer may have without asking `grow`.
        self._allowed = self._foreseen.completion_tokens
        self._backoff = Backoff(limits.retries, limits.first_delay, limits.longest_wait)
        # Seconds of the attempts that failed without a word, and the limit on them.
        self._mute, self._first_token = 0.0, math.inf
        self._race: Race | None = None
        self.begun = self._hedged = self._shrunk = False
        self._whole = Watch(None)
        self._offers_tools = offers_tools(planned.settings)
        self._tell: Callable[[Step], None] = _tell_nobody

    def _now(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self._turn_began

    @property
    def text(self) -> str:
        return self.heard.text

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the model was sent last."""
        return self._fitted.messages

    @property
    def attempts(self) -> int:
        """How many times the call was made."""
        return 1 + self._backoff.retries

    @property
    def seconds(self) -> float:
        """Seconds from the start of the call to its end, or until now."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def first_token(self) -> float | None:
        """Seconds from the start to the first token; None until one came."""
        came = self.heard.first_token
        return None if came is None else came - self._began

    @property
    def called(self) -> tuple[ToolCall, ...]:
        """The tool calls in the answer. If no tools were offered, they do not count."""
        return self.heard.tool_calls if self._offers_tools else ()

    def settle(self, price: Price | None) -> Usage:
        """Compute and record the usage of the call: all attempts that an endpoint may bill. Later
        calls return the same result.

        price: of the model that answers. If an endpoint told no token counts, they are estimated.
        If it told a cost, that cost counts.
        """
        if self.settled is None:
            own = self.settings.model

            def price_of(model: str) -> Price | None:
                return price if model == own else self._clients.known(model).price

            taken = settled(self._sent, price_of)
            self.settled = total(usage for _, usage in taken.values())
            self._spend(self.settled)
            for model, (numbers, usage) in taken.items():
                if self._ledger is not None and numbers:
                    self._ledger.end(numbers, model, usage)
        return self.settled

    def committed(self, tokens: int = 0) -> Usage:
        """The most that the call may take in all, with the longest answer that it is allowed.

        tokens: the length of the answer, if it is to be allowed a longer one.
        """
        if self.settled is not None:
            return self.settled
        allowed = max(self._allowed, tokens)
        sent = self._sent
        if not any(attempt.running for attempt in sent):
            # No attempt runs, so one more will be sent.
            sent = [*sent, Attempt(self._foreseen)]
        heard = self.heard if self.heard.running else sent[-1]
        parts = (attempt.committed(allowed if attempt is heard else 0) for attempt in sent)
        return sum(parts, Usage())

    async def run(self, tell: Callable[[Step], None]) -> None:
        """Make the call. tell: called with each step.

        Raises ClientError if the call fails after its retries, or gives no answer; BudgetReached if
        a budget has no room for the rest of its answer.
        """
        self._began, self._tell = time.monotonic(), tell
        try:
            await self._answer()
        except BaseException as error:
            recalled = self._recall()
            if recalled is not None:
                tell(recalled)
            if not isinstance(error, MoAError):
                # The call is cut off, so it records its usage itself: nobody else will.
                self.settle(self._clients.known(self.settings.model).price)
            raise
        finally:
            self._ended = time.monotonic()
            # The listener refers to this call. Without a reference back, the call is freed at once,
            # and not only when the garbage collector looks for cycles.
            self._tell = _tell_nobody
        if not self._is_answer(self.heard):
            raise self.heard.no_answer()

    async def _answer(self) -> None:
        """Make all attempts, within the timeout of the call."""
        if self.settings.timeout is None:
            return await self._attempts()
        try:
            with self._whole:
                await self._attempts()
        except TimeoutError:
            if not self._whole.expired:
                raise
            if self.heard.finish_reason is not None:
                self._end_parts(self.heard)
            if not self._is_complete(self.heard):
                raise ClientTimeout(
                    f"{self.settings.model}: no complete answer within {self.settings.timeout:g} s"
                    " (`timeout`)",
                    hint="raise `timeout` in the profile, or use a faster model",
                ) from None

    async def _attempts(self) -> None:
        """Make attempts until one succeeds, or no retry is left."""
        while True:
            try:
                return await self._attempt()
            except ClientError as error:
                if not self._ask_otherwise(error):
                    await self._wait_to_retry(error)

    async def _attempt(self) -> None:
        """Make the next attempt, with a hedge in parallel if it has no first word in time."""
        # `heard` may be a new attempt that was not sent yet. Then it is the next attempt.
        attempt = self.heard
        if attempt.sent < math.inf or attempt.foreseen is not self._foreseen:
            attempt = Attempt(self._foreseen)
        if self.settings.hedge_after is None or self._hedged:
            await self._try(attempt)
            return
        self._race = Race(self._second)
        try:
            await self._race.run(self._try(attempt))
        finally:
            self._race = None
        if not self.heard.whole:
            # No attempt had a word of an answer: take one that ended without an error.
            self._hear(next((sent for sent in self._sent if sent.whole), self.heard))

    def _second(self) -> Coroutine[Any, Any, None] | None:
        """The hedge: the same request to the same model or its stand-in; None if it is not allowed
        now."""
        self._hedged = True
        model = self.settings.hedge_with or self.settings.model
        price = self._clients.known(model).price
        unknown = price is None and self.heard.price is not None and self._grow is not None
        if unknown or self._slots.delay(model) > 0:
            # A cap in USD could not be kept, or the provider may not be asked now.
            return None
        attempt = Attempt(replace(self._foreseen, model=model, price=price))
        return self._try(attempt, beside=self.heard)

    async def _try(self, attempt: Attempt, *, beside: Attempt | None = None) -> None:
        """Make one attempt, once its slot lets it in. beside: the attempt that it hedges, or
        None."""
        slot = self._slots.slot(attempt.model)
        async with _Admission(self, slot, attempt.model, told=beside is None) as place:
            self._begin()
            endpoint = self._clients.endpoint(attempt.model)
            backed = bool(self.planned.behind)
            spared = self.planned.index is not None or backed
            silence = silence_of(
                self.settings,
                endpoint.provider,
                backed=backed,
                again=self.planned.again and attempt.model == self.planned.settings.model,
                # An aggregator without a fallback keeps its full time: without it, there is no
                # reply.
                silences=self._slots.silences(attempt.model) if spared else 0,
                slowest=self._slots.slowest(attempt.model),
            )
            self._first_token = silence.first_token
            self._book(attempt, beside)
            hedge = None
            if self._race is not None and beside is None:
                hedge = self._race.hedge_in(self.settings.hedge_after or 0.0)
            request = request_of(
                self.planned.settings, self._fitted.messages, endpoint.model, self.planned.place
            )
            stream = endpoint.client.stream(request)
            if self.planned.opening is not None:
                attempt.parts = self.planned.opening.attempt()
            try:
                await self._stream(attempt, stream, place, silence)
                self._end_parts(attempt)
            except ClientError as error:
                if error.overloaded:
                    place.refused(error.retry_after)
                if attempt.finish_reason is not None:
                    self._end_parts(attempt)
                if not self._is_complete(attempt):
                    self._failed(attempt, error)
                    raise
            except TimeoutError:
                if not attempt.speaking:
                    self._slots.note(attempt.model, None)
                if attempt.finish_reason is None:
                    late = silence.error(endpoint.provider, attempt.speaking)
                    self._failed(attempt, late)
                    raise late from None
                self._end_parts(attempt)
            finally:
                if hedge is not None:
                    hedge.cancel()
                attempt.running = False
                if attempt.first_token is not None:
                    self._slots.note(attempt.model, attempt.first_token - attempt.sent)

    def _is_complete(self, attempt: Attempt) -> bool:
        """Whether the whole answer, or the whole refusal, has come, even if the connection has
        failed since."""
        said = attempt.refused or self._is_answer(attempt)
        return said and attempt.finish_reason is not None

    def _is_answer(self, attempt: Attempt) -> bool:
        """Whether an attempt has given an answer: a text, or calls of the tools that were
        offered."""
        called = self._offers_tools and bool(attempt.tool_calls)
        return not attempt.refused and (called or bool(attempt.text.strip()))

    async def let_in(self, slot: Slot, model: str, *, told: bool) -> CallSlot:
        """Enter the slot of an attempt. told: whether the user is told of a long wait.

        Raises the last refusal of the provider, or RateLimited, if the provider asks to wait longer
        than the call may, or accepts no call for that long. As long as the provider accepts some
        calls, there is no limit on the wait.
        """
        # Usually the slot is free, so no timer is needed.
        entered = slot.enter_at_once()
        if entered is not None:
            return entered
        left = self._left
        # Seconds of waiting. Time in which the process was stopped does not count.
        passed, step = 0.0, min(left, _WAIT_TOLD)
        held = self._slots.delay(model)
        is_told = False

        def may_wait() -> bool:
            nonlocal is_told, passed
            passed += step
            waited = min(passed, self._slots.refused_for(model))
            may = max(waited, self._slots.delay(model)) < left
            if may and told and not is_told:
                is_told = True
                self._wait(self._slots.reason(model) or _NO_TURN)
            return may

        try:
            if held > left:
                raise TimeoutError
            with Watch(step, spared=may_wait):
                return await slot.__aenter__()
        except TimeoutError:
            self._begin()
            held = max(held, self._slots.delay(model))
            why = f"asks to wait another {held:.0f} s, which is too long"
            if held <= left:
                why = f"has accepted no call for {self._slots.refused_for(model):.0f} s"
            error = self._backoff.refusal or RateLimited(
                f"{model}: its provider {why}", hint="wait a moment, or use another model"
            )
            error.retryable = False
            raise error from None
        finally:
            if is_told:
                self._wait("")

    @property
    def _left(self) -> float:
        """Seconds for which a busy provider may still hold the call back."""
        ready = any(self._slots.refused_for(model) <= 0 for model in self.planned.behind)
        left_out = _LEFT_OUT * self._limits.longest_wait if ready else 0.0
        return max(0.0, self._backoff.left - left_out)

    def _wait(self, reason: str) -> None:
        """Emit that the call waits to be sent. reason: why it waits; "" once it is sent."""
        self._tell(self.planned.event(Queued, self._now(), reason=reason))

    def _begin(self) -> None:
        """Start the timeout of the call when its first attempt is let in."""
        if not self.begun:
            self.begun = True
            self._whole.since = time.monotonic()
            self._whole.set_limit(self.settings.timeout)
            self._tell(Begun())

    def _book(self, attempt: Attempt, beside: Attempt | None) -> None:
        """Record an attempt that is about to be sent. Raises BudgetReached if a budget has no room
        for it; for a hedge, RequestRefused."""
        again = bool(self._sent)
        self._sent.append(attempt)
        if again and self._grow is not None:
            # The budgets have reserved one attempt, and the earlier ones may be billed, too.
            try:
                self._grow(self, 0, self._allowed)
            except BudgetReached as reached:
                self._sent.remove(attempt)
                if beside is None:
                    raise
                raise RequestRefused(reached.message) from None
        if self._ledger is not None:
            attempt.number = self._ledger.begin(attempt.foreseen)
        if beside is None:
            self.heard = attempt
            self._backoff.sent()
        else:
            seconds = time.monotonic() - beside.sent
            hedged = self.planned.event(Hedged, self._now(), model=attempt.model, seconds=seconds)
            self._tell(hedged)
        attempt.sent = time.monotonic()

    async def _stream(
        self,
        attempt: Attempt,
        stream: AsyncGenerator[Delta, None],
        place: CallSlot,
        silence: Silence,
    ) -> None:
        """Read the answer from the stream. Raises TimeoutError if nothing comes for too long."""
        queue, tell, race = self._queue, self._tell, self._race
        limit = silence.first_token - self._mute
        with Watch(limit) as watch:
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    if not attempt.begun:
                        attempt.begun = True
                        place.accepted()
                    if attempt.parts is not None:
                        delta = attempt.parted(delta)
                    if delta.replaces:
                        delta = attempt.replace(delta)
                    elif attempt.take(delta):
                        watch.since = time.monotonic()
                        wanted = silence.limit(attempt)
                        if wanted != limit:
                            limit = wanted
                            watch.set_limit(limit)
                    if race is not None and (delta.text or delta.reasoning or delta.tool_calls):
                        if not race.claim():
                            # The other attempt was faster: drop this one.
                            attempt.parts = None
                            return
                        self._hear(attempt)
                        race = None
                    tokens = attempt.tokens
                    # At powers of two only, because this code runs for each token.
                    if attempt.price is None and not tokens & (tokens - 1):
                        self._look_for_price(attempt)
                    tell(delta)
                    # The check follows the delta's output, because the delta was paid for.
                    beyond = tokens > self._allowed and attempt.finish_reason is None
                    if beyond and not self._may_go_on(attempt, tokens):
                        attempt.cut()
                        return
                    if not queue.has_room:
                        await self._room(watch)
        attempt.whole = True

    def _end_parts(self, attempt: Attempt) -> None:
        """The answer has ended: pass on the words that were held back."""
        last = None if attempt.parts is None else attempt.parts.end()
        if last is None or (self._race is not None and not self._race.claim()):
            return
        if last.replaces:
            last = attempt.replace(last)
        else:
            attempt.take(last)
        attempt.parts = None
        self._hear(attempt)
        self._tell(last)

    async def _room(self, watch: Watch) -> None:
        """Wait until a slow consumer has made room in the queue. The limits on the model's time
        stop meanwhile."""
        began, whole = time.monotonic(), self._whole
        before, whole.since, watch.since = whole.since, math.inf, math.inf
        await self._queue.room()
        watch.since = time.monotonic()
        whole.since = before + watch.since - began

    def _hear(self, attempt: Attempt) -> None:
        """Take this attempt's answer as the answer of the call."""
        self.heard = attempt
        if attempt.model != self.settings.model:
            self.settings = replace(self.settings, model=attempt.model, alternatives=())
            self._foreseen = attempt.foreseen

    def _failed(self, attempt: Attempt, error: ClientError) -> None:
        """Forget a failed attempt that is not billed: the endpoint refused it, or was not reached.

        An endpoint that timed out may have worked on the request, and one whose answer cannot be
        read (for example because of a wrong encoding) has answered. Both may bill it.
        """
        if not attempt.begun and not isinstance(error, ClientTimeout | BadResponse):
            self._sent.remove(attempt)
            if attempt.number is not None and self._ledger is not None:
                self._ledger.void(attempt.number)

    def _ask_otherwise(self, error: ClientError) -> bool:
        """Prepare the next attempt for another model, or with a shorter prompt, if that can help
        against the error. Returns whether it can."""
        if isinstance(error, ModelNotFound):
            gone = self.settings.model
            if not self._move_on():
                return False
            moved = f"{gone} is not offered, {self.settings.model} was asked instead"
            self._lost.append(moved)
            self._tell(self.retrying(self.attempts, 0.0, error))
            return True
        if not isinstance(error, ContextTooLong) or self._shrunk or self.heard.speaking:
            return False
        self._shrunk = True
        fitted = self.planned.shrink(error)
        if fitted is None:
            return False
        self._fitted = fitted
        self._foreseen = replace(self._foreseen, prompt_tokens=fitted.tokens)
        self._tell(self.planned.trimmed(self._now(), fitted))
        return True

    def _move_on(self) -> bool:
        """Change to the next alternative of the model. Returns whether there is one that may be
        asked.

        Nothing was paid for yet, because the endpoint does not have the model. Raises BudgetReached
        if a budget has no room for the alternative.
        """
        if self.heard.speaking or not self.settings.alternatives:
            return False
        model, *others = self.settings.alternatives
        price = self._clients.known(model).price
        if price is None and self.heard.price is not None and self._grow is not None:
            # Without a price, a cap in USD could not be kept.
            return False
        self.settings = replace(self.settings, model=model, alternatives=tuple(others))
        self._foreseen = replace(self._foreseen, model=model, price=price)
        self.heard = Attempt(self._foreseen)
        if self._grow is not None:
            self._grow(self, 0, self._allowed)
        return True

    async def _wait_to_retry(self, error: ClientError) -> None:
        """Wait until the call may be retried. Raises the error if there is no retry."""
        shown = bool(self.text or self.called)
        told = shown or bool(self.heard.reasoning)
        consumed = shown and self.planned.index is None
        if consumed and not self._limits.reply_held:
            raise error
        if self.heard.sent < math.inf and not self.heard.speaking:
            self._mute += time.monotonic() - self.heard.sent
            if error.retryable and self._mute > _NEARLY_ALL * self._first_token:
                if error.overloaded:
                    raise error
                # A gateway gave up a model that hangs, and would do so again.
                self._slots.note(self.heard.model, None)
                raise ClientTimeout(error.message, hint=error.hint) from error
        model = self.settings.model
        left = min(self._whole.left, self._left)
        delay, held = self._backoff.next(error, self._slots.delay(model), left)
        if told:
            self.heard = Attempt(self._foreseen)
        self._tell(self.retrying(self.attempts, delay, error, withdrawn=told))
        if not held:
            await asyncio.sleep(delay)

    def retrying(
        self, attempt: int, delay: float, error: MoAError, *, withdrawn: bool = False
    ) -> Retrying:
        """The event that the call is made again. attempt: the number of the next attempt. delay:
        seconds until then. withdrawn: whether the text that was shown no longer counts."""
        return self.planned.event(
            Retrying,
            self._now(),
            attempt=attempt,
            delay=delay,
            error=failure(error),
            withdrawn=withdrawn,
        )

    def _recall(self) -> Delta | None:
        """The rest of a failed call's text, which was paid for and may be useful; None if there is
        none. It is the words that were held back. If nothing was shown, or all of it was withdrawn,
        it is the longest text of all attempts."""
        if self.text or self.heard.reasoning or self.called:
            held = self.heard.release()
            return Delta(text=held) if held else None
        best = max(self._sent, key=lambda attempt: len(attempt.received), default=self.heard)
        if not best.received:
            return None
        self._hear(best)
        best.release()
        return Delta(text=self.text, reasoning=self.heard.reasoning)

    def _may_go_on(self, attempt: Attempt, tokens: int) -> bool:
        """Whether an answer that is longer than was foreseen may go on. It is stopped far beyond
        its max_tokens. Raises BudgetReached if a cap leaves no room for more."""
        wanted = tokens + max(_FEWEST_MORE, tokens // 4)
        if self._grow is not None:
            wanted = self._grow(self, tokens, wanted)
        most = self.planned.max_tokens
        if most is not None and attempt.sure_tokens > _FAR_BEYOND * most + _BEYOND:
            return False
        self._allowed = wanted
        if self._ledger is not None and attempt.number is not None:
            self._ledger.grown(attempt.number, wanted)
        return True

    def _look_for_price(self, attempt: Attempt) -> None:
        """Look for the price of the attempt's model: the list of prices may have arrived since the
        call began."""
        attempt.price = self._clients.known(attempt.model).price
        if attempt.price is not None and self._ledger is not None and attempt.number is not None:
            self._ledger.priced(attempt.number, attempt.price)

    def _named(self) -> str:
        """The proposer's name. If it contains the short name of a model that was replaced, it
        changes with the model."""
        first, name = self.planned.settings.model, self.planned.name
        now = self.settings.model
        return name if now == first else name.replace(short_name(first), short_name(now))

    def proposal(self, usage: Usage, error: Failure | None, purpose: Purpose = "") -> Proposal:
        """The result of the call as a proposal, or as a review with that purpose."""
        return Proposal(
            layer=self.planned.place.layer,
            index=self.planned.place.index,
            proposer=self._named(),
            model=self.settings.model,
            text=self.text,
            reasoning=self.heard.reasoning,
            answered_by=self.heard.answered_by,
            usage=usage,
            seconds=self.seconds,
            first_token=self.first_token,
            finish_reason=self.heard.finish_reason,
            error=error,
            citations=self.heard.citations,
            purpose=purpose,
            about=self.planned.about,
        )


class _Admission:
    """A context in which an attempt has its slot; see `Call.let_in`.

    An AsyncExitStack would take more time than all that happens in it.
    """

    def __init__(
        self,
        call: Call,
        slot: Slot,
        model: str,
        *,
        told: bool,
    ) -> None:
        self._call, self._slot, self._model, self._told = call, slot, model, told

    async def __aenter__(self) -> CallSlot:
        return await self._call.let_in(self._slot, self._model, told=self._told)

    async def __aexit__(self, *raised: Any) -> bool | None:
        return await self._slot.__aexit__(*raised)
