"""Whoever takes a turn's events may be slow, leave, or break: the turn keeps its invariants.

Endpoints in process, which answer as fast as they are asked, so that nothing but the consumer
holds a turn back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from moa_cli.core.endpoints import Delta
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import Budget, Cap, Limits, run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import InProcess, asked, check_turn, lab, mixture, of_kind
from tests.support.timed import run_timed

TRIO = mixture("a", "b", "c")
# Events that may wait for a consumer; see `EventQueue`.
MOST = 64


class Endpoints(InProcess):
    """Models that answer in so many words, without a pause.

    begun, ended: calls by model. words: that were asked for, by model.
    """

    def __init__(self, profile: Profile, words: int) -> None:
        super().__init__({model: self._answer(model, words) for model in profile.models()})
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.words: Counter[str] = Counter()

    def _answer(self, model: str, words: int) -> Callable[[], AsyncGenerator[Delta, None]]:
        async def answer() -> AsyncGenerator[Delta, None]:
            self.begun[model] += 1
            try:
                for _ in range(words):
                    self.words[model] += 1
                    yield Delta(text="word ")
            finally:
                # Not done at once: closing has to be waited for.
                try:
                    await asyncio.sleep(0)
                finally:
                    self.ended[model] += 1

        return answer


async def nothing_left(endpoints: Endpoints) -> None:
    """Fail if a task or a call is left."""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert endpoints.ended == endpoints.begun


async def pause() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_slow_consumer_bounds_what_waits_and_gets_all_of_it() -> None:
    async def once() -> None:
        endpoints = Endpoints(TRIO, 300)
        events: list[Event] = []
        async with aclosing(run_turn(TRIO, asked(), endpoints)) as turn:
            async for event in turn:
                events.append(event)
                await pause()
                for kind in (ProposerDelta, AggregatorDelta):
                    models = (
                        ("lab:agg",) if kind is AggregatorDelta else ("lab:a", "lab:b", "lab:c")
                    )
                    asked_for = sum(endpoints.words[model] for model in models)
                    assert asked_for - len(of_kind(events, kind)) <= MOST + len(models)
        check_turn(events, TRIO, asked())
        [finished] = of_kind(events, AggregatorFinished)
        assert finished.text == "word " * 300
        await nothing_left(endpoints)

    asyncio.run(once())


@pytest.mark.parametrize("model", ["a", "agg"])
def test_the_time_of_a_slow_consumer_is_not_the_models(model: str) -> None:
    impatient = lab(model, timeout=0.3)
    profile = mixture(impatient) if model == "a" else mixture("a", aggregator=impatient)

    async def once() -> None:
        endpoints = Endpoints(profile, 3 * MOST)
        events: list[Event] = []
        async with aclosing(run_turn(profile, asked(), endpoints)) as turn:
            async for event in turn:
                if len(of_kind(events, type(event))) == 1 and isinstance(
                    event, ProposerDelta | AggregatorDelta
                ):
                    await asyncio.sleep(0.5)
                events.append(event)
        assert isinstance(events[-1], TurnFinished)
        check_turn(events, profile, asked())
        await nothing_left(endpoints)

    run_timed(once())


@pytest.mark.parametrize(
    ("last", "models"),
    [
        (TurnStarted, set()),
        (LayerStarted, set()),
        (LayerFinished, {"lab:a", "lab:b", "lab:c"}),
    ],
)
def test_nothing_is_sent_before_the_consumer_asks_for_more(
    last: type[Event], models: set[str]
) -> None:
    async def once() -> None:
        endpoints = Endpoints(TRIO, 5)
        async with aclosing(run_turn(TRIO, asked(), endpoints)) as turn:
            async for event in turn:
                if isinstance(event, last):
                    await pause()
                    assert set(endpoints.begun) == models
                    break
        assert set(endpoints.begun) == models
        await nothing_left(endpoints)

    asyncio.run(once())


@pytest.mark.parametrize("cancel", [False, True])
def test_ending_a_turn_while_there_is_no_room_for_more_leaves_nothing_behind(
    cancel: bool,
) -> None:
    async def once(kind: type[Event]) -> None:
        endpoints = Endpoints(TRIO, 1000)

        async def consume() -> None:
            async with aclosing(run_turn(TRIO, asked(), endpoints)) as turn:
                async for event in turn:
                    if isinstance(event, kind):
                        await pause()
                        full.set()
                        if cancel:
                            await asyncio.Event().wait()
                        return

        full = asyncio.Event()
        task = asyncio.create_task(consume())
        await full.wait()
        task.cancel()
        await asyncio.wait([task])
        assert 0 < endpoints.words["lab:a"] <= 1000
        await nothing_left(endpoints)

    asyncio.run(once(ProposerDelta))
    asyncio.run(once(AggregatorDelta))


class Breaking:
    """A sink that raises at one event, counted from 0. closed: how often it was closed."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.closed = 0

    def handle(self, event: Event) -> None:
        """Raise, if this is the event."""
        self._left -= 1
        if self._left < 0:
            raise ZeroDivisionError

    def close(self) -> None:
        """Count it."""
        self.closed += 1


def test_a_sink_that_raises_at_any_event_ends_the_turn_and_leaves_nothing_behind() -> None:
    profile = mixture("a", "b", rounds=2)
    # Two layers of 2 + 2 × (1 + 3 + 1) events, the reply's 1 + 3 + 1, and the turn's own.
    count = 2 * (2 + 2 * 5) + 5 + 2

    async def once(at: int) -> bool:
        endpoints = Endpoints(profile, 3)
        fold, sinks = TurnFold(), [Breaking(10_000), Breaking(at), Breaking(10_000)]
        raised = False
        try:
            await deliver(run_turn(profile, asked(), endpoints), *sinks, fold=fold)
        except ZeroDivisionError:
            raised = True
        assert [sink.closed for sink in sinks] == [1, 1, 1]
        assert (fold.turn().status == "interrupted") == (at < count - 1)
        await nothing_left(endpoints)
        return raised

    at = 0
    while asyncio.run(once(at)):
        at += 1
    assert at == count


def test_a_slow_consumer_does_not_change_what_a_cap_allows() -> None:
    profile = mixture(aggregator=lab("agg", max_tokens=20))

    async def once(*, slow: bool) -> tuple[Counter[str], float]:
        endpoints = Endpoints(profile, 400)
        budget = Budget(Cap("--max-total-tokens", "tokens", 300), "turns")
        events: list[Event] = []
        limits = Limits(budgets=(budget,))
        async with aclosing(run_turn(profile, asked(), endpoints, limits=limits)) as turn:
            async for event in turn:
                events.append(event)
                if slow:
                    await pause()
        assert isinstance(events[-1], TurnFailed)
        assert events[-1].error.kind == "BudgetReached"
        # What the reply had when it was stopped is shown.
        assert len(of_kind(events, AggregatorDelta)) == endpoints.words["lab:agg"]
        assert budget.standing().reserved == 0
        assert budget.standing().spent == events[-1].usage.total_tokens
        await nothing_left(endpoints)
        return endpoints.words, budget.standing().spent

    words, spent = asyncio.run(once(slow=False))
    assert 250 < spent <= 301
    assert asyncio.run(once(slow=True)) == (words, spent)


def test_turns_that_share_a_budget_pass_it_by_no_more_than_a_token_each() -> None:
    profile = mixture(aggregator=lab("agg", max_tokens=20))

    async def one_turn(endpoints: Endpoints, limits: Limits, slow: bool) -> TurnFinished | None:
        events: list[Event] = []
        async with aclosing(run_turn(profile, asked(), endpoints, limits=limits)) as turn:
            async for event in turn:
                events.append(event)
                if slow:
                    await pause()
        return events[-1] if isinstance(events[-1], TurnFinished) else None

    async def once() -> None:
        endpoints = Endpoints(profile, 200)
        budget = Budget(Cap("budget.session", "tokens", 1000), "shared")
        limits = Limits(budgets=(budget,))
        ends = await asyncio.gather(
            *(one_turn(endpoints, limits, slow=bool(number % 2)) for number in range(8))
        )
        assert 0 < sum(end is not None for end in ends) < 8
        standing = budget.standing()
        assert standing.reserved == 0
        assert standing.spent <= 1008

    asyncio.run(once())


def test_a_reservation_is_given_back_when_it_is_released() -> None:
    budget = Budget(Cap("budget.session", "usd", 1.0), "shared")
    reservation = budget.reserve(0.75)
    assert (reservation.amount, budget.remaining()) == (0.75, 0.25)
    assert budget.try_reserve(0.5) is None
    assert budget.remaining() == 0.25
    # In place of the first, in one step.
    assert budget.try_reserve(0.9, instead_of=reservation) is not None
    assert budget.remaining() == pytest.approx(0.1)
    reservation.release()
    assert budget.remaining() == 1.0
