"""Closing or cancelling a turn, at whatever point, leaves no task and no open connection;
what had arrived stays with the sinks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import AsyncGeneratorType
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.core.endpoints import Delta
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import run_turn
from moa_cli.profile import Profile
from tests.support.command import PATIENCE
from tests.support.mixtures import (
    AT_ONCE,
    InProcess,
    asked,
    lab,
    mixture,
    no_task_left,
    pool,
)
from tests.support.scenarios import LIMITED, REFUSED, Script, play
from tests.support.upstream import Reply, Upstream

# Slow enough that some calls are always in flight while others have ended.
WORDS = Reply(chunks=["one ", "two ", "three"], pause=0.001)
EVENTFUL = mixture("a", "b", "c", aggregator=lab("agg", fallbacks=["lab:second"]), rounds=2)
EVENTFUL_SCRIPT: Script = {
    "a": WORDS,
    "b": [LIMITED, WORDS, WORDS],
    "c": [REFUSED, WORDS],
    "agg": REFUSED,
    "second": WORDS,
}


async def closed_after(count: int, profile: Profile, clients: ClientPool) -> bool:
    """Close a turn after `count` of its events; whether there were so many."""
    taken = 0
    async with aclosing(run_turn(profile, asked(), clients, limits=AT_ONCE)) as events:
        while taken < count:
            if await anext(events, None) is None:
                return False
            taken += 1
    await no_task_left()
    return True


async def cancelled_after(count: int, profile: Profile, clients: ClientPool) -> bool:
    """The same, by cancelling the task that waits for the next event."""
    taken = 0

    async def consume() -> None:
        nonlocal taken
        async with aclosing(run_turn(profile, asked(), clients, limits=AT_ONCE)) as events:
            while await anext(events, None) is not None:
                taken += 1
                if taken == count:
                    task.cancel()

    task = asyncio.create_task(consume())
    if count == 0:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


@pytest.mark.parametrize("end", [closed_after, cancelled_after])
def test_a_turn_ended_after_any_of_its_events_leaves_nothing_behind(
    end: Callable[[int, Profile, ClientPool], Any],
) -> None:
    async def once(count: int, up: Upstream) -> bool:
        clients = pool(up)
        try:
            # The list of models is the clients' own errand, not the turn's.
            await clients.facts("lab:a", patience=PATIENCE)
            ended = await end(count, EVENTFUL, clients)
            # Before the clients are closed: ending the calls is the engine's duty.
            up.wait_for(lambda: up.in_flight == 0)
        finally:
            await clients.aclose()
        await no_task_left()
        return bool(ended)

    count = 0
    while True:
        with Upstream() as up:
            play(up, EVENTFUL_SCRIPT)
            there_was_more = asyncio.run(once(count, up))
            up.wait_for(lambda: up.open_connections == 0)
            assert all(request.finished or request.disconnected for request in up.requests)
        if not there_was_more:
            break
        count += 1
    layers = (2 + 3 + 4 + 5 + 1, 2 + 3 + 3 * 4)
    aggregators = 2 + 5
    assert count - 1 == 2 + sum(layers) + aggregators


# The events until nothing more can come: both have begun and stall, or the aggregator does.
STALLS = [
    (mixture("a", "b"), 1 + 1 + 2 + 2 + 2),
    (mixture(aggregator="b"), 1 + 1 + 2),
    (mixture("ok", aggregator="b"), 1 + 1 + 1 + 2 + 1 + 1 + 2),
]


@pytest.mark.parametrize(("profile", "count"), STALLS)
@pytest.mark.parametrize("end", [closed_after, cancelled_after])
def test_ending_a_turn_hangs_up_on_endpoints_that_stall(
    upstream: Upstream,
    profile: Profile,
    count: int,
    end: Callable[[int, Profile, ClientPool], Any],
) -> None:
    stalled = Reply(chunks=["x", "y", "z"], stall_after=2)
    play(upstream, {"a": stalled, "b": stalled, "ok": Reply(chunks=["fi", "ne"])})

    async def once() -> None:
        clients = pool(upstream)
        await clients.facts("lab:a", patience=PATIENCE)
        assert await end(count, profile, clients)
        upstream.wait_for(lambda: upstream.in_flight == 0)
        await clients.aclose()
        await no_task_left()

    asyncio.run(once())
    upstream.wait_for(lambda: upstream.open_connections == 0)
    hung_up = [request.model for request in upstream.chats() if request.disconnected]
    assert sorted(hung_up) == [model for model in ("a", "b") if upstream.chats(model)]


def test_a_turn_that_was_never_begun_needs_no_closing(upstream: Upstream) -> None:
    async def once() -> None:
        clients = pool(upstream)
        run_turn(mixture("a"), asked(), clients)
        await clients.aclose()
        await no_task_left()

    asyncio.run(once())
    assert upstream.requests == []


def test_a_turn_cancelled_before_the_first_token_hangs_up(upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))

    async def once() -> None:
        clients = pool(upstream)
        await clients.facts("lab:a", patience=PATIENCE)
        task = asyncio.create_task(deliver(run_turn(mixture("a", "b"), asked(), clients)))
        while len(upstream.chats()) < 2:
            await asyncio.sleep(0.002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        upstream.wait_for(lambda: upstream.in_flight == 0)
        await clients.aclose()
        await no_task_left()

    asyncio.run(once())
    assert [request.disconnected for request in upstream.chats()] == [True, True]


def test_what_had_arrived_stays_with_the_sinks(upstream: Upstream) -> None:
    upstream.always("a", Reply(text="from a"))
    upstream.always("agg", Reply(chunks=["half ", "a ", "loaf"], stall_after=2))
    fold = TurnFold()

    async def once() -> None:
        clients = pool(upstream)
        task = asyncio.create_task(deliver(run_turn(mixture("a"), asked(), clients), fold))
        while fold.turn().reply != "half a ":
            assert not task.done()
            await asyncio.sleep(0.002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await clients.aclose()

    asyncio.run(once())
    turn = fold.turn()
    assert (turn.status, turn.reply, turn.model) == ("interrupted", "half a ", "lab:agg")
    assert [proposal.text for proposal in turn.proposals[0]] == ["from a"]


def test_a_bug_raises_and_ends_the_other_calls() -> None:
    ended: list[str] = []

    async def waits() -> AsyncGenerator[Delta, None]:
        try:
            yield Delta(text="so far")
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def breaks() -> AsyncGenerator[Delta, None]:
        yield Delta(text="so far")
        raise ZeroDivisionError

    answers = {"lab:a": waits, "lab:b": breaks, "lab:c": waits}

    async def once() -> None:
        with pytest.raises(ZeroDivisionError):
            await deliver(run_turn(mixture("a", "b", "c"), asked(), InProcess(answers)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(once())
    assert ended == ["waits", "waits"]


@pytest.mark.parametrize("count", [6, 7, 8, 100])
def test_every_generator_of_ours_is_closed_by_its_consumer(upstream: Upstream, count: int) -> None:
    # One that is not is left to the event loop's finalizer, which closes it in a task of its
    # own, some time later.
    play(upstream, {"a": WORDS, "b": Reply(chunks=["half ", "a loaf"], drop_after=1)})
    left: list[str] = []

    async def once() -> None:
        hooks = sys.get_asyncgen_hooks()

        def finalizer(generator: AsyncGenerator[Any, Any]) -> None:
            assert isinstance(generator, AsyncGeneratorType)
            assert hooks.finalizer is not None
            if "moa_cli" in generator.ag_code.co_filename:
                left.append(f"{generator.ag_code.co_filename}: {generator.__qualname__}")
            hooks.finalizer(generator)

        sys.set_asyncgen_hooks(firstiter=hooks.firstiter, finalizer=finalizer)
        clients = pool(upstream)
        # The list of models is the clients' own errand, not the turn's.
        await clients.facts("lab:a", patience=PATIENCE)
        await closed_after(count, mixture("a", "b", "c"), clients)
        await clients.aclose()
        await no_task_left()

    asyncio.run(once())
    assert left == []
