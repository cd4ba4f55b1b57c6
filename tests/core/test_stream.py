"""Many workers emit into one stream without a stall or a leak, and one stream reaches every sink,
which is closed whatever happens; what the events tell folds into the turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest

from moa_cli.core.conversation import Failure, Proposal, Turn, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.stream import EventQueue, TurnFold, deliver
from tests.support.command import PATIENCE


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which must not hang, and must leave no task behind."""

    async def checked() -> None:
        await asyncio.wait_for(work, PATIENCE)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(checked())


Work = Callable[[EventQueue], Coroutine[Any, Any, None]]


async def emitted(*workers: Work, most: int = 64) -> AsyncGenerator[str, None]:
    """The texts that the workers emit, each in a task of its own, as a turn's are yielded."""

    async def run(queue: EventQueue) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for worker in workers:
                    group.create_task(worker(queue))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async with EventQueue(most) as queue:
        queue.start(run(queue))
        async for event in queue:
            assert isinstance(event, AggregatorDelta)
            yield event.text


class Source:
    """Workers that tell when they were begun and closed."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.closed: list[str] = []
        self.emitted = 0

    def of(
        self, name: str, *items: str | Exception, pause: int = 1, then_wait: bool = False
    ) -> Work:
        """Emits the items (an exception is raised), `pause` turns of the loop before each."""

        async def work(queue: EventQueue) -> None:
            self.begun.append(name)
            try:
                for item in items:
                    for _ in range(pause):
                        await asyncio.sleep(0)
                    if isinstance(item, Exception):
                        raise item
                    queue.emit(AggregatorDelta(text=item))
                if then_wait:
                    await asyncio.Event().wait()
            finally:
                # Not done at once: closing has to be waited for.
                try:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                finally:
                    self.closed.append(name)

        return work

    def endless(self, name: str) -> Work:
        """Emits as much as there is room for, for ever."""

        async def work(queue: EventQueue) -> None:
            self.begun.append(name)
            try:
                while True:
                    queue.emit(AggregatorDelta(text=name))
                    self.emitted += 1
                    if not queue.has_room:
                        await queue.room()
            finally:
                self.closed.append(name)

        return work


def texts(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def test_events_keep_the_order_of_each_worker() -> None:
    async def work() -> None:
        source = Source()
        low, high = texts(*range(10)), texts(*range(100, 110))
        workers = source.of("a", *low), source.of("b", *high, pause=3)
        found = [item async for item in emitted(*workers)]
        assert [item for item in found if item in low] == low
        assert [item for item in found if item in high] == high
        assert len(found) == 20
        assert sorted(source.closed) == ["a", "b"]

    finish(work())


def test_a_worker_that_waits_does_not_hold_up_the_others() -> None:
    async def work() -> None:
        source = Source()
        slow, fast = source.of("slow", then_wait=True), source.of("fast", "1", "2", "3")
        async with aclosing(emitted(slow, fast)) as events:
            assert [await anext(events) for _ in range(3)] == ["1", "2", "3"]
        assert sorted(source.closed) == ["fast", "slow"]

    finish(work())


def test_without_workers_there_are_no_events() -> None:
    async def work() -> None:
        assert [item async for item in emitted()] == []

    finish(work())


def test_workers_that_emit_nothing_give_no_events() -> None:
    async def work() -> None:
        source = Source()
        assert [item async for item in emitted(source.of("a"), source.of("b"))] == []
        assert sorted(source.closed) == ["a", "b"]

    finish(work())


def test_an_error_of_one_worker_is_raised_behind_its_events_and_ends_the_others() -> None:
    async def work() -> None:
        source = Source()
        broken = source.of("broken", "1", "2", ZeroDivisionError())
        others = [source.of("waits", then_wait=True), source.endless("endless")]
        found: list[str] = []

        async def consume() -> None:
            async for item in emitted(broken, *others):
                found.append(item)

        with pytest.raises(ZeroDivisionError):
            await consume()
        assert [item for item in found if item != "endless"] == ["1", "2"]
        assert sorted(source.closed) == ["broken", "endless", "waits"]

    finish(work())


def test_two_errors_raise_the_first() -> None:
    async def work() -> None:
        source = Source()
        late, soon = source.of("late", KeyError(), pause=9), source.of("soon", ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await anext(emitted(late, soon))
        assert sorted(source.closed) == ["late", "soon"]

    finish(work())


@pytest.mark.parametrize("taken", [0, 1, 2, 5, 50])
def test_closing_the_events_closes_all_that_were_begun(taken: int) -> None:
    async def work() -> None:
        source = Source()
        workers = [source.endless("a"), source.of("b", then_wait=True), source.of("c", "1", "2")]
        async with aclosing(emitted(*workers)) as events:
            for _ in range(taken):
                await anext(events)
        assert sorted(source.closed) == sorted(source.begun)
        assert len(source.begun) == (3 if taken else 0)

    finish(work())


def test_a_consumer_that_leaves_with_many_events_unread_does_not_dead_lock() -> None:
    async def work() -> None:
        source = Source()
        workers = [source.of(str(n), *texts(*range(500)), pause=0) for n in range(8)]
        async with aclosing(emitted(*workers)) as events:
            async for _ in events:
                break
        assert len(source.closed) == 8

    finish(work())


def test_cancelling_the_consumer_closes_all() -> None:
    async def work() -> None:
        source = Source()

        async def consume() -> None:
            workers = source.of("a", "1", then_wait=True), source.of("b", "2")
            async with aclosing(emitted(*workers)) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(consume())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(source.closed) == ["a", "b"]

    finish(work())


@pytest.mark.parametrize("pauses", range(6))
def test_a_second_cancellation_leaves_no_worker_behind(pauses: int) -> None:
    async def work() -> None:
        source = Source()

        async def consume() -> None:
            async with aclosing(emitted(source.of("a", "1", then_wait=True))) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(consume())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed == ["a"]

    finish(work())


def test_a_slow_consumer_holds_back_workers_without_end() -> None:
    async def work() -> None:
        source = Source()
        workers = [source.endless(name) for name in "abc"]
        async with aclosing(emitted(*workers, most=10)) as events:
            for taken in range(1, 30):
                await anext(events)
                for _ in range(20):
                    await asyncio.sleep(0)
                # Those that wait, and one of each worker.
                assert source.emitted - taken <= 10 + 3
        assert sorted(source.closed) == ["a", "b", "c"]

    finish(work())


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_while_there_is_no_room_ends_the_workers_that_wait_for_it(cancel: bool) -> None:
    async def work() -> None:
        source = Source()

        async def consume() -> None:
            async with aclosing(emitted(*map(source.endless, "abc"), most=2)) as events:
                await anext(events)
                for _ in range(20):
                    await asyncio.sleep(0)
                if cancel:
                    await asyncio.Event().wait()

        task = asyncio.create_task(consume())
        if cancel:
            for _ in range(40):
                await asyncio.sleep(0)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert sorted(source.closed) == ["a", "b", "c"]

    finish(work())


def test_delivered_waits_until_the_consumer_asks_for_more() -> None:
    async def work() -> None:
        steps: list[str] = []

        async def careful(queue: EventQueue) -> None:
            for text in "12":
                queue.emit(AggregatorDelta(text=text))
                steps.append(f"told {text}")
                await queue.delivered()
                steps.append(f"delivered {text}")

        async for item in emitted(careful):
            for _ in range(20):
                await asyncio.sleep(0)
            steps.append(f"dealt with {item}")
        assert steps == [
            "told 1",
            "dealt with 1",
            "delivered 1",
            "told 2",
            "dealt with 2",
            "delivered 2",
        ]

    finish(work())


def test_a_worker_that_somebody_else_cancels_ends_the_events() -> None:
    async def work() -> None:
        source = Source()

        async def consume() -> None:
            async with EventQueue() as queue:
                before = asyncio.all_tasks()
                queue.start(source.of("a", "1", then_wait=True)(queue))
                [worker] = asyncio.all_tasks() - before
                async for _ in queue:
                    worker.cancel()

        with pytest.raises(asyncio.CancelledError):
            await consume()
        assert source.closed == ["a"]

    finish(work())


ROUND: tuple[Event, ...] = (
    TurnStarted(profile="p", prompt="Rain?", rounds=1, aggregator="lab:agg"),
    LayerStarted(layer=1, proposers=()),
    ProposerStarted(layer=1, index=0),
    ProposerStarted(layer=1, index=1),
    ProposerDelta(layer=1, index=1, text="Drops."),
    ProposerFinished(
        layer=1, index=1, proposal=Proposal(1, 1, "b", "lab:b", "Drops.", answered_by="b-2")
    ),
    ProposerFailed(
        layer=1, index=0, proposal=Proposal(1, 0, "a", "lab:a", "", error=Failure("K", "gone"))
    ),
    LayerFinished(layer=1, answered=1, asked=2, seconds=0.5),
)
REPLY: tuple[Event, ...] = (
    AggregatorStarted(name="agg", model="lab:agg", references=1),
    AggregatorDelta(reasoning="hm"),
    AggregatorDelta(text="It is "),
    AggregatorDelta(text="water."),
    AggregatorFinished(
        model="lab:agg",
        text="It is water.",
        reasoning="hm",
        answered_by="agg-2",
        finish_reason="stop",
    ),
    TurnFinished(usage=Usage(calls=2), seconds=1.5, lost=("a: gone",)),
)


class Log:
    """A sink that notes what it is told, with others in one list."""

    def __init__(self, name: str, log: list[str], breaks_at: str = "") -> None:
        self.name = name
        self.log = log
        self.events: list[Event] = []
        self._breaks_at = breaks_at

    def handle(self, event: Event) -> None:
        """Note the event."""
        self.events.append(event)
        if event.kind == self._breaks_at:
            raise ZeroDivisionError

    def close(self) -> None:
        """Note the end."""
        self.log.append(f"{self.name} closed")
        if self._breaks_at == "close":
            raise ZeroDivisionError


async def told(
    log: list[str], *events: Event, then: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> AsyncGenerator[Event, None]:
    """The events, and a note when they are closed."""
    try:
        for event in events:
            await asyncio.sleep(0)
            yield event
        if then is not None:
            await then()
    finally:
        await asyncio.sleep(0)
        log.append("events closed")


async def wait() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise KeyError


def test_every_sink_is_shown_every_event_and_closed_after_them() -> None:
    async def work() -> None:
        log: list[str] = []
        sinks = [Log("one", log), Log("two", log)]
        turn = await deliver(told(log, *ROUND, *REPLY), *sinks)
        assert [tuple(sink.events) for sink in sinks] == [ROUND + REPLY] * 2
        assert log[0] == "events closed"
        assert sorted(log[1:]) == ["one closed", "two closed"]
        assert turn.reply == "It is water."

    finish(work())


def test_sinks_are_closed_after_the_events_when_the_delivery_is_cancelled() -> None:
    async def work() -> None:
        log: list[str] = []
        sinks = [Log("one", log), Log("two", log)]
        task = asyncio.create_task(deliver(told(log, *ROUND, then=wait), *sinks))
        while len(sinks[1].events) < len(ROUND):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log[0] == "events closed"
        assert sorted(log[1:]) == ["one closed", "two closed"]

    finish(work())


def test_sinks_are_closed_after_the_events_when_the_events_break() -> None:
    async def work() -> None:
        log: list[str] = []
        with pytest.raises(KeyError):
            await deliver(told(log, *ROUND, then=fail), Log("one", log), Log("two", log))
        assert log[0] == "events closed"
        assert sorted(log[1:]) == ["one closed", "two closed"]

    finish(work())


def test_sinks_are_closed_after_the_events_when_one_of_them_breaks() -> None:
    async def work() -> None:
        log: list[str] = []
        sinks = [Log("one", log), Log("two", log, breaks_at="layer_started"), Log("three", log)]
        with pytest.raises(ZeroDivisionError):
            await deliver(told(log, *ROUND, then=wait), *sinks)
        assert log[0] == "events closed"
        assert sorted(log[1:]) == ["one closed", "three closed", "two closed"]
        assert [len(sink.events) for sink in sinks] == [2, 2, 1]

    finish(work())


def test_a_sink_that_breaks_in_closing_does_not_keep_the_others_open() -> None:
    async def work() -> None:
        log: list[str] = []
        sinks = [Log(name, log, breaks_at="close") for name in ("one", "two", "three")]
        with pytest.raises(ZeroDivisionError):
            await deliver(told(log, *ROUND, *REPLY), *sinks)
        assert sorted(log) == ["events closed", "one closed", "three closed", "two closed"]

    finish(work())


def test_events_need_not_come_from_a_generator() -> None:
    class Replay:
        def __init__(self) -> None:
            self._left = list(ROUND + REPLY)

        def __aiter__(self) -> AsyncIterator[Event]:
            return self

        async def __anext__(self) -> Event:
            if not self._left:
                raise StopAsyncIteration
            return self._left.pop(0)

    async def work() -> None:
        assert (await deliver(Replay())).status == "finished"

    finish(work())


def fold(*events: Event, close: bool = True) -> Turn:
    """The turn that the events tell."""
    sink = TurnFold()
    for event in events:
        sink.handle(event)
    if close:
        sink.close()
    return sink.turn()


PROPOSALS = (
    (
        Proposal(1, 0, "a", "lab:a", "", error=Failure("K", "gone")),
        Proposal(1, 1, "b", "lab:b", "Drops.", answered_by="b-2"),
    ),
)


def test_a_finished_turn_folds_to_all_that_was_told() -> None:
    turn = fold(*ROUND, *REPLY)
    assert turn == Turn(
        user="Rain?",
        reply="It is water.",
        status="finished",
        profile="p",
        proposals=PROPOSALS,
        model="lab:agg",
        answered_by="agg-2",
        reasoning="hm",
        finish_reason="stop",
        usage=Usage(calls=2),
        seconds=1.5,
        lost=("a: gone",),
    )
    assert turn.degraded


def test_a_turn_cut_short_folds_to_what_had_come() -> None:
    turn = fold(*ROUND, *REPLY[:3])
    assert turn == Turn(
        user="Rain?",
        reply="It is ",
        status="interrupted",
        profile="p",
        proposals=PROPOSALS,
        model="lab:agg",
        reasoning="hm",
    )


def test_a_turn_cut_short_before_the_reply_has_none() -> None:
    assert fold(*ROUND).reply is None
    assert fold(*ROUND, REPLY[0], REPLY[1]).reply is None
    assert fold(*ROUND[:3]).proposals == ((),)
    assert fold().status == "interrupted"


def test_a_turn_is_open_until_it_is_closed() -> None:
    assert fold(*ROUND, *REPLY[:3], close=False).status == "open"


def test_a_failed_turn_keeps_its_causes_and_what_was_written() -> None:
    error, cause = Failure("TurnError", "there is no whole reply"), Failure("K", "broke off")
    ending = TurnFailed(
        error=error, causes=(cause,), usage=Usage(calls=1), seconds=2.0, lost=("x",)
    )
    failed = AggregatorFailed(model="lab:agg", error=cause, text="It is ")
    turn = fold(*ROUND, *REPLY[:3], failed, ending)
    assert (turn.status, turn.reply) == ("failed", "It is ")
    assert (turn.error, turn.causes) == (error, (cause,))
    assert (turn.usage, turn.seconds, turn.lost) == (Usage(calls=1), 2.0, ("x",))
    assert fold(*ROUND, ending).reply is None


def test_a_fallback_begins_the_reply_anew() -> None:
    first = AggregatorStarted(name="x", model="lab:x", references=1)
    failed = AggregatorFailed(model="lab:x", error=Failure("K", "gone"))
    turn = fold(*ROUND, first, AggregatorDelta(reasoning="lost thought"), failed, *REPLY)
    assert (turn.model, turn.reply, turn.reasoning) == ("lab:agg", "It is water.", "hm")


def test_layers_are_kept_apart_and_in_profile_order() -> None:
    def finished(layer: int, index: int) -> Event:
        proposal = Proposal(layer, index, "n", "m", f"{layer}.{index}")
        return ProposerFinished(layer=layer, index=index, proposal=proposal)

    turn = fold(
        ROUND[0],
        LayerStarted(layer=1, proposers=()),
        *(finished(1, index) for index in (2, 0, 1)),
        LayerStarted(layer=2, proposers=()),
        finished(2, 0),
    )
    texts = [[proposal.text for proposal in layer] for layer in turn.proposals]
    assert texts == [["1.0", "1.1", "1.2"], ["2.0"]]


def test_a_cancelled_delivery_leaves_a_partial_turn_in_the_fold() -> None:
    async def work() -> None:
        sink = TurnFold()
        task = asyncio.create_task(deliver(told([], *ROUND, *REPLY[:4], then=wait), sink))
        while sink.turn().reply != "It is water.":
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert sink.turn().status == "interrupted"

    finish(work())
