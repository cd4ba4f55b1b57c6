"""A second request for one answer: the first to speak is heard, both are paid for."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import ClientError, ConnectionLost, RequestRefused
from moa_cli.core.events import (
    AggregatorFinished,
    Event,
    Hedged,
    ProposerFailed,
    ProposerFinished,
    TurnFinished,
)
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price
from moa_cli.engine import Budget, Cap, Limits, run_turn
from tests.support import timed
from tests.support.mixtures import (
    AT_ONCE,
    InProcess,
    asked,
    check_turn,
    lab,
    mixture,
    no_task_left,
    of_kind,
    run,
)
from tests.support.scenarios import DROPPED, play
from tests.support.upstream import Reply, Request, Upstream

SILENT = Reply(stall_after=0)


@dataclass
class Written:
    """A ledger of one turn that holds what it was told."""

    begun: dict[int, CallBegun] = field(default_factory=dict)
    voided: list[int] = field(default_factory=list)
    ended: list[tuple[tuple[int, ...], str, Usage]] = field(default_factory=list)

    def begin_turn(self) -> Written:
        return self

    def begin(self, call: CallBegun) -> int:
        self.begun[len(self.begun)] = call
        return len(self.begun) - 1

    def grown(self, number: int, completion_tokens: int) -> None:
        pass

    def priced(self, number: int, price: Price) -> None:
        pass

    def void(self, number: int) -> None:
        self.voided.append(number)

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        self.ended.append((tuple(numbers), model, usage))

    def check(self) -> None:
        """Each request that was begun is voided or ended, once."""
        ended = [number for numbers, _, _ in self.ended for number in numbers]
        assert sorted([*self.voided, *ended]) == sorted(self.begun)


@pytest.mark.parametrize("place", ["proposer", "aggregator"])
def test_a_silent_request_is_made_again_and_the_first_to_speak_is_heard(
    upstream: Upstream, place: str
) -> None:
    hedged = lab("x", hedge_after=0.1)
    profile = mixture(hedged) if place == "proposer" else mixture("a", aggregator=hedged)
    play(upstream, {"x": [SILENT, Reply(text="from x")]})
    ledger = Written()
    events = run(upstream, profile, limits=replace(AT_ONCE, ledger=ledger))
    [told] = of_kind(events, Hedged)
    assert (told.index, told.model) == (0 if place == "proposer" else None, "lab:x")
    assert told.seconds >= 0.09
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].lost == ()
    first, second = upstream.chats("x")
    assert (first.disconnected, second.disconnected) == (True, False)
    usage = next(usage for _, model, usage in ledger.ended if model == "lab:x")
    assert (usage.calls, usage.estimated_calls) == (2, 1)
    assert events[-1].usage.calls == 3 if place == "proposer" else 4
    ledger.check()


def test_what_the_slower_one_counts_is_believed_if_its_answer_was_whole() -> None:
    both = asyncio.Barrier(2)

    async def answer() -> AsyncGenerator[Delta, None]:
        await both.wait()
        text = "more words than tokens, by our count " * 4
        usage = Usage(20, 7, calls=1, unpriced_calls=1)
        yield Delta(text=text, usage=usage, finish_reason="stop")

    async def reply() -> AsyncGenerator[Delta, None]:
        yield Delta(text="ok")

    async def turn() -> list[Event]:
        clients = InProcess({"lab:a": answer, "lab:agg": reply})
        return [event async for event in run_turn(profile, asked(), clients)]

    profile = mixture(lab("a", hedge_after=0.01))
    [finished] = of_kind(asyncio.run(turn()), ProposerFinished)
    usage = finished.proposal.usage
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (2, 40, 14)
    assert usage.estimated_calls == 0


def test_one_that_speaks_in_time_is_asked_once(upstream: Upstream) -> None:
    play(upstream, {"a": Reply(chunks=["so ", "far ", "so good"], pause=0.05)})
    events = run(upstream, mixture(lab("a", hedge_after=30)))
    assert of_kind(events, Hedged) == []
    assert len(upstream.chats("a")) == 1


def test_the_first_request_wins_if_it_speaks_after_all(upstream: Upstream) -> None:
    asked_again = threading.Event()

    def second(_: Request) -> Reply:
        asked_again.set()
        return SILENT

    play(upstream, {"a": [Reply(text="late but first", after=asked_again)]})
    upstream.always("a", second)
    events = run(upstream, mixture(lab("a", hedge_after=0.1)))
    [finished] = of_kind(events, ProposerFinished)
    assert finished.proposal.text == "late but first"
    assert finished.proposal.usage.calls == 2


@pytest.mark.parametrize("place", ["proposer", "aggregator"])
def test_a_stand_in_that_wins_is_named(upstream: Upstream, place: str) -> None:
    hedged = lab("x", hedge_after=0.1, hedge_with="lab:other")
    profile = mixture(hedged) if place == "proposer" else mixture("a", aggregator=hedged)
    play(upstream, {"x": SILENT, "other": Reply(text="from other", model="other-2026")})
    ledger = Written()
    events = run(upstream, profile, limits=replace(AT_ONCE, ledger=ledger))
    if place == "proposer":
        [finished] = of_kind(events, ProposerFinished)
        answer = finished.proposal
        assert (answer.proposer, answer.model, answer.answered_by) == (
            *("lab:other", "lab:other"),
            "other-2026",
        )
    else:
        [reply] = of_kind(events, AggregatorFinished)
        assert (reply.model, reply.answered_by) == ("lab:other", "other-2026")
    # Each is written down under its own name.
    booked = {model: usage for _, model, usage in ledger.ended}
    assert (booked["lab:x"].calls, booked["lab:other"].calls) == (1, 1)
    assert booked["lab:x"].estimated_calls == 1
    ledger.check()


def test_where_one_fails_the_other_is_waited_for() -> None:
    profile = mixture(lab("a", hedge_after=1, hedge_with="lab:other"))
    events, _, _ = timed.play(profile, {"a": timed.after(4, "from a"), "other": timed.refused()})
    [finished] = of_kind(events, ProposerFinished)
    assert finished.proposal.text == "from a"
    assert finished.proposal.usage.calls == 1


def test_a_winner_that_breaks_off_is_asked_again_as_any_call(upstream: Upstream) -> None:
    play(upstream, {"a": [SILENT, DROPPED, Reply(text="from a")]})
    events = run(upstream, mixture(lab("a", hedge_after=0.1)))
    [finished] = of_kind(events, ProposerFinished)
    assert finished.proposal.text == "from a"
    assert finished.proposal.usage.calls == 3


def test_without_room_in_a_cap_there_is_no_second_request_and_no_failure() -> None:
    budget = Budget(Cap("max_tokens", "tokens", 700))
    limits = replace(AT_ONCE, budgets=(budget,))
    profile = mixture(lab("a", hedge_after=1), max_tokens=400)
    events, _, clients = timed.play(profile, {"a": timed.after(5, "from a")}, limits=limits)
    assert of_kind(events, Hedged) == []
    assert len(clients.asked["lab:a"]) == 1
    assert isinstance(events[-1], TurnFinished)


def test_both_requests_take_a_slot() -> None:
    limits = replace(AT_ONCE, concurrency=1)
    profile = mixture(lab("a", hedge_after=1))
    events, _, clients = timed.play(profile, {"a": timed.after(4, "from a")}, limits=limits)
    # The second waited for a slot until the first had spoken.
    assert of_kind(events, Hedged) == []
    assert len(clients.asked["lab:a"]) == 1


def test_when_both_are_silent_the_call_is_lost_once() -> None:
    ledger = Written()
    profile = mixture(lab("a", hedge_after=1, first_token=4), "b")
    events, _, clients = timed.play(
        profile, {"a": timed.HANGS}, limits=replace(AT_ONCE, ledger=ledger)
    )
    [lost] = of_kind(events, ProposerFailed)
    assert lost.proposal.error is not None
    assert lost.proposal.error.kind == "ClientTimeout"
    assert len(clients.asked["lab:a"]) == lost.proposal.usage.calls == 2
    ledger.check()


# What a request does: seconds (in hundredths) until each piece, and how it ends.
BEHAVIOURS = st.tuples(
    st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["whole", "lost", "refused", "hangs"])
)


class Endpoints(InProcess):
    """Each request behaves as the next of its model's behaviours, the last one again and again."""

    def __init__(self, behaviours: dict[str, list[tuple[list[int], str]]]) -> None:
        self.open = 0
        self.made = 0
        queues = {model: list(said) for model, said in behaviours.items()}

        def answers(model: str) -> AsyncGenerator[Delta, None]:
            queue = queues[model]
            return self._answer(*(queue.pop(0) if len(queue) > 1 else queue[0]))

        super().__init__({model: lambda model=model: answers(model) for model in behaviours})  # type: ignore[misc]

    async def _answer(self, pauses: list[int], ending: str) -> AsyncGenerator[Delta, None]:
        self.open += 1
        self.made += 1
        try:
            if ending == "refused":
                raise RequestRefused("no")
            yield Delta()
            for number, pause in enumerate(pauses):
                await asyncio.sleep(pause / 100)
                yield Delta(text=f"{number} ") if number else Delta(reasoning="hm")
            if ending == "hangs":
                await asyncio.sleep(3600)
            if ending == "lost":
                raise ConnectionLost("broke")
            yield Delta(finish_reason="stop")
        finally:
            self.open -= 1


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(BEHAVIOURS, min_size=1, max_size=4),
    b=st.lists(BEHAVIOURS, min_size=1, max_size=4),
    agg=st.lists(BEHAVIOURS, min_size=1, max_size=3),
    killed=st.none() | st.integers(0, 14),
    hedge_after=st.sampled_from([0.0, 0.01, 0.02]),
    seed=st.integers(0, 9),
)
def test_any_race_keeps_the_invariants(
    a: list[tuple[list[int], str]],
    b: list[tuple[list[int], str]],
    agg: list[tuple[list[int], str]],
    killed: int | None,
    hedge_after: float,
    seed: int,
) -> None:
    """killed: the number of the event behind which the turn is closed."""
    random.seed(seed)
    profile = mixture(
        lab("a", hedge_with="lab:b"), "b", stall=0.08, first_token=0.08, hedge_after=hedge_after
    )
    clients = Endpoints({"lab:a": a, "lab:b": b, "lab:agg": agg})
    ledger = Written()
    events: list[Event] = []

    async def turn() -> None:
        limits = Limits(first_delay=0.001, retries=2, ledger=ledger)
        async with aclosing(run_turn(profile, asked(), clients, limits=limits)) as running:
            async for event in running:
                events.append(event)
                if killed == len(events) - 1:
                    break
        await no_task_left()

    with suppress(ClientError):
        asyncio.run(turn())
    assert clients.open == 0
    assert clients.made == len(ledger.begun)
    ledger.check()
    if killed is None:
        check_turn(events, profile, asked())
        assert sum((usage for _, _, usage in ledger.ended), Usage()) == events[-1].usage  # type: ignore[union-attr]
