"""A turn can be told to go on with what has arrived, and keeps to its limit of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.events import (
    AggregatorFinished,
    AggregatorStarted,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.stream import deliver
from moa_cli.engine import Control, Limits, run_turn
from tests.support.mixtures import (
    InProcess,
    asked,
    check_turn,
    lab,
    mixture,
    no_task_left,
    of_kind,
    pool,
    run,
)
from tests.support.scenarios import REFUSED, play
from tests.support.upstream import Reply, Upstream

STALLED = Reply(chunks=["half ", "a loaf"], stall_after=1)
# So that a turn which goes on waiting fails soon, not after the default of three minutes.
SOON: dict[str, Any] = {"timeout": 20.0}


def enough_when(control: Control, seen: Callable[[list[Event]], bool]) -> Callable[[Event], None]:
    """A watcher that says enough as soon as `seen` holds of the events so far."""
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if seen(events) and not control.said_enough:
            control.enough()

    return watch


def heard(events: list[Event], layer: int) -> set[int]:
    """The proposers of a layer that have said something."""
    return {event.index for event in of_kind(events, ProposerDelta) if event.layer == layer}


def system_of(up: Upstream, model: str) -> str:
    [request] = up.chats(model)
    return str(request.messages[0]["content"])


def test_enough_goes_on_with_what_has_arrived(upstream: Upstream) -> None:
    play(upstream, {"b": STALLED, "c": STALLED})
    control = Control()
    say = enough_when(
        control,
        lambda events: bool(of_kind(events, ProposerFinished)) and len(heard(events, 1)) == 3,
    )

    def watch(event: Event) -> None:
        say(event)
        if isinstance(event, AggregatorStarted):
            # Hung up before the reply is begun.
            upstream.wait_for(lambda: all(upstream.chats(m)[0].disconnected for m in "bc"))

    events = run(upstream, mixture("a", "b", "c", **SOON), control=control, watch=watch)
    abandoned = of_kind(events, ProposerFailed)
    assert [event.index for event in abandoned] == [1, 2]
    for event in abandoned:
        assert event.proposal.text == "half "
        assert event.proposal.error is not None
        assert event.proposal.error.kind == "Abandoned"
    [layer] = of_kind(events, LayerFinished)
    assert (layer.answered, layer.asked) == (1, 3)
    assert system_of(upstream, "agg").endswith("\n\nResponses from models:\n1. from a")
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert [said.partition(": ")[0] for said in last.lost] == ["lab:b", "lab:c"]


def test_enough_skips_the_layers_that_have_not_begun(upstream: Upstream) -> None:
    play(upstream, {"b": STALLED})
    control = Control()
    watch = enough_when(
        control,
        lambda events: bool(of_kind(events, ProposerFinished)) and len(heard(events, 1)) == 2,
    )
    events = run(upstream, mixture("a", "b", rounds=3, **SOON), control=control, watch=watch)
    assert [event.layer for event in of_kind(events, LayerStarted)] == [1]
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert "layers after 1 were skipped" in last.lost


def test_enough_before_the_turn_waits_for_the_first_answer(upstream: Upstream) -> None:
    play(upstream, {"b": Reply(stall_after=0)})
    control = Control()
    control.enough()
    events = run(upstream, mixture("a", "b", **SOON), control=control)
    assert system_of(upstream, "agg").endswith("\n\nResponses from models:\n1. from a")
    assert [event.index for event in of_kind(events, ProposerFailed)] == [1]


def test_enough_does_not_save_a_turn_without_any_answer(upstream: Upstream) -> None:
    play(upstream, {"a": REFUSED, "b": REFUSED})
    control = Control()
    control.enough()
    events = run(upstream, mixture("a", "b", rounds=2), control=control)
    assert isinstance(events[-1], TurnFailed)
    assert upstream.chats("agg") == []


def test_enough_while_a_later_layer_stalls_goes_on_with_the_layer_before(
    upstream: Upstream,
) -> None:
    upstream.enqueue("a", Reply(text="from a"), STALLED)
    upstream.enqueue("b", Reply(text="from b"), STALLED)
    control = Control()
    watch = enough_when(control, lambda events: len(heard(events, 2)) == 2)
    profile = mixture("a", "b", rounds=3, **SOON)
    events = run(upstream, profile, control=control, watch=watch)
    assert isinstance(events[-1], TurnFinished)
    assert system_of(upstream, "agg").endswith("models:\n1. from a\n2. from b")
    assert [(event.layer, event.answered) for event in of_kind(events, LayerFinished)] == [
        (1, 2),
        (2, 0),
    ]


def test_enough_in_a_later_layer_uses_that_layers_answers_if_there_are_any(
    upstream: Upstream,
) -> None:
    upstream.enqueue("a", Reply(text="first a"), Reply(text="second a"))
    upstream.enqueue("b", Reply(text="first b"), STALLED)
    control = Control()
    watch = enough_when(
        control,
        lambda events: len(of_kind(events, ProposerFinished)) == 3 and len(heard(events, 2)) == 2,
    )
    run(upstream, mixture("a", "b", rounds=2, **SOON), control=control, watch=watch)
    assert system_of(upstream, "agg").endswith("models:\n1. second a")


def test_an_answer_that_had_arrived_when_enough_was_said_is_used() -> None:
    # A front end that is busy for a while finds several answers waiting.
    async def answer() -> AsyncGenerator[Delta, None]:
        yield Delta(text="whole", usage=Usage(calls=1))

    profile = mixture("a", "b", "c")
    clients = InProcess(dict.fromkeys(profile.models(), answer))
    control = Control()
    events: list[Event] = []

    async def once() -> None:
        async with aclosing(run_turn(profile, asked(), clients, control=control)) as turn:
            async for event in turn:
                events.append(event)
                if isinstance(event, ProposerFinished) and not control.said_enough:
                    for _ in range(50):
                        await asyncio.sleep(0)
                    control.enough()

    asyncio.run(once())
    check_turn(events, profile, asked())
    assert [event.references for event in of_kind(events, AggregatorStarted)] == [3]


def test_enough_after_the_layers_changes_nothing(upstream: Upstream) -> None:
    play(upstream, {})
    control = Control()
    watch = enough_when(control, lambda events: bool(of_kind(events, AggregatorStarted)))
    events = run(upstream, mixture("a", rounds=2), control=control, watch=watch)
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.lost == ()
    assert [event.text for event in of_kind(events, AggregatorFinished)] == ["from agg"]


def test_calls_in_flight_never_exceed_the_limit(upstream: Upstream) -> None:
    upstream.always("*", Reply(delay=0.01))
    run(upstream, mixture(lab("a", samples=7), rounds=2), limits=Limits(concurrency=2))
    assert len(upstream.chats()) == 15
    assert upstream.peak <= 2


@pytest.mark.parametrize(("concurrency", "in_flight"), [(1, 1), (2, 2), (5, 5), (32, 5)])
def test_a_layer_is_asked_at_once_up_to_the_limit(
    upstream: Upstream, concurrency: int, in_flight: int
) -> None:
    upstream.always("*", Reply(stall_after=0))

    async def until_all_wait() -> None:
        clients = pool(upstream)
        limits = Limits(concurrency=concurrency)
        turn = run_turn(mixture(*"abcde"), asked(), clients, limits=limits)
        task = asyncio.create_task(deliver(turn))
        while upstream.in_flight < in_flight:
            assert not task.done()
            await asyncio.sleep(0.002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await clients.aclose()
        await no_task_left()

    asyncio.run(until_all_wait())
    upstream.wait_for(lambda: upstream.open_connections == 0)
    assert upstream.peak == in_flight
