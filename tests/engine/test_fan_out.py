"""The proposers answer a user's message once, however many steps the work on it has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.core.events import Event, LayerStarted
from moa_cli.core.stream import deliver
from moa_cli.engine import FanOutMemory, Limits, run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, check_turn, lab, mixture, no_task_left, pool
from tests.support.tool_calls import TOOLS, called, calling, result
from tests.support.upstream import Reply, Upstream

FIX = Message("user", "Fix a.py.")
OLDER = "written before the latest tool results"
Run = Callable[..., Coroutine[Any, Any, Turn]]


def offering(*proposers: str, offered: bool = True, **settings: Any) -> Profile:
    """A mixture whose aggregator is offered tools."""
    extra = {"tools": TOOLS} if offered else {}
    return mixture(*proposers, aggregator=lab("agg", extra=extra), **settings)


def step(number: int, *, first: Message = FIX) -> Conversation:
    """The request behind so many calls."""
    after = [message for _ in range(number) for message in (called("read"), result("read", "x"))]
    return Conversation.of([Message("system", "Work."), first, *after], 1)


def play(
    up: Upstream,
    scenario: Callable[[Run, ClientPool], Coroutine[Any, Any, None]],
    memory: FanOutMemory | None = None,
) -> None:
    """Turns that share a memory, in one event loop; each is checked, as is what they leave."""
    limits = replace(AT_ONCE, fan_outs=memory or FanOutMemory())

    async def main() -> None:
        clients = pool(up)

        async def one_turn(profile: Profile, talk: Conversation) -> Turn:
            events: list[Event] = []
            running = noted(run_turn(profile, talk, clients, limits=limits), events)
            turn = await deliver(running)
            check_turn(events, profile, talk)
            return turn

        try:
            await scenario(one_turn, clients)
        finally:
            await clients.aclose()
        await no_task_left()

    asyncio.run(main())


async def noted(
    running: AsyncGenerator[Event, None], events: list[Event]
) -> AsyncGenerator[Event, None]:
    async with aclosing(running):
        async for event in running:
            events.append(event)
            yield event


def test_a_loop_of_twenty_requests_asks_the_proposers_once(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b", "c")
        turns = [await turn(profile, step(number)) for number in range(20)]
        assert [done.reused for done in turns] == [False] + [True] * 19
        assert turns[-1].proposals == ()
        assert turns[-1].usage.calls == 1
        assert turns[-1].tool_calls[0].name == "read"

    play(upstream, scenario)
    assert len(upstream.chats()) == 20 + 3
    assert not any("tools" in request.body for name in "abc" for request in upstream.chats(name))
    first, *others = upstream.chats("agg")
    assert OLDER not in str(first.messages)
    for request in others:
        assert OLDER in request.messages[0]["content"]
        assert "1. ok\n2. ok\n3. ok" in request.messages[0]["content"]
    # From the second request on, all before the last results stays as it was.
    assert others[3].messages == others[4].messages[: len(others[3].messages)]


def test_each_request_asks_them_where_the_profile_says_so(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        for number in range(3):
            await turn(offering("a", "b", fan_out="request"), step(number))

    play(upstream, scenario)
    assert len(upstream.chats()) == 3 * 3
    assert OLDER not in str(upstream.chats("agg")[-1].messages)
    assert "[result of read]" in str(upstream.chats("a")[-1].messages)


def test_the_next_message_of_the_user_is_a_new_fan_out(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    more = Message("user", "And b.py.")

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        await turn(profile, step(0))
        await turn(profile, step(1))
        await turn(profile, Conversation.of([*step(1).messages(), Message("assistant", "."), more]))
        await turn(profile, step(0, first=more))

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 3


def test_a_prompt_that_comes_again_is_a_new_turn(upstream: Upstream) -> None:
    async def scenario(turn: Run, _: ClientPool) -> None:
        for profile in (offering("a", "b"), offering("a", "b", offered=False)):
            await turn(profile, step(0))
            await turn(profile, step(0))

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 4


def test_another_mixture_has_proposals_of_its_own_and_another_aggregator_has_not(
    upstream: Upstream,
) -> None:
    upstream.always("*", calling("read"))
    upstream.always("a", Reply())
    upstream.always("b", Reply())

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        await turn(profile, step(0))
        other = replace(profile.aggregator, model="lab:other", temperature=0.1)
        assert (await turn(replace(profile, aggregator=other), step(1))).reused
        assert not (await turn(offering("a"), step(1))).reused
        assert not (await turn(offering("a", "b", temperature=0.5), step(1))).reused

    play(upstream, scenario)


def test_proposals_that_saw_results_are_older_only_than_later_ones(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        # As behind a restart.
        assert not (await turn(profile, step(2))).reused
        assert (await turn(profile, step(2))).reused
        assert (await turn(profile, step(3))).reused

    play(upstream, scenario)
    labelled = [OLDER in str(request.messages) for request in upstream.chats("agg")]
    assert labelled == [False, False, True]
    assert "[result of read]" in str(upstream.chats("a")[0].messages)


def test_equal_requests_at_once_share_one_fan_out(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        turns = await asyncio.gather(*(turn(profile, step(0)) for _ in range(8)))
        assert sum(done.reused for done in turns) == 7
        await asyncio.gather(*(turn(profile, step(1)) for _ in range(8)))

    play(upstream, scenario)
    assert len(upstream.chats("a")) == len(upstream.chats("b")) == 1
    assert len(upstream.chats("agg")) == 16


def test_equal_prompts_without_tools_are_turns_of_their_own(upstream: Upstream) -> None:
    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b", offered=False)
        await asyncio.gather(*(turn(profile, step(0)) for _ in range(4)))

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 4


def test_a_first_request_that_is_cancelled_leaves_the_others_to_ask(upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue("a", Reply(after=go))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        first = asyncio.create_task(turn(profile, step(0)))
        while not upstream.chats("a"):
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(turn(profile, step(0))) for _ in range(3)]
        await asyncio.sleep(0.05)
        first.cancel()
        done = await asyncio.gather(*others)
        assert sum(other.reused for other in done) == 2
        assert all(other.status == "finished" for other in done)
        go.set()
        await asyncio.gather(first, return_exceptions=True)

    play(upstream, scenario)
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert upstream.chats("a")[0].disconnected
    assert len(upstream.chats("a")) == 2


def test_a_waiting_request_that_is_cancelled_leaves_the_first_one_alone(upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue("a", Reply(after=go))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        first = asyncio.create_task(turn(profile, step(0)))
        while not upstream.chats("a"):
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(turn(profile, step(0)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go.set()
        assert (await first).status == "finished"
        assert (await turn(profile, step(1))).reused

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 1


def test_a_repeated_prompt_that_is_cancelled_leaves_the_proposals_of_the_first(
    upstream: Upstream,
) -> None:
    go = threading.Event()
    upstream.enqueue("a", Reply(), Reply(after=go))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        await turn(profile, step(0))
        again = asyncio.create_task(turn(profile, step(0)))
        while len(upstream.chats("a")) < 2:
            await asyncio.sleep(0.01)
        # The work on the first one goes on, and need not wait.
        assert (await turn(profile, step(1))).reused
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        go.set()
        assert (await turn(profile, step(2))).reused

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 2


def test_proposals_survive_an_aggregator_that_fails(upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(status=400), calling("read"), Reply(status=400))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        assert (await turn(profile, step(0))).status == "failed"
        # Nobody had a reply to it, so this is the same turn once again.
        again = await turn(profile, step(0))
        assert (again.status, again.reused) == ("finished", True)
        assert (await turn(profile, step(1))).status == "failed"
        assert (await turn(profile, step(1))).reused
        # Now somebody had one.
        assert not (await turn(profile, step(0))).reused

    play(upstream, scenario)
    assert len(upstream.chats("a")) == 2


def test_a_fan_out_without_an_answer_is_not_kept(upstream: Upstream) -> None:
    upstream.enqueue("a", Reply(status=400))
    upstream.enqueue("b", Reply(status=400))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b")
        assert (await turn(profile, step(0))).status == "failed"
        assert (await turn(profile, step(0))).status == "finished"
        assert (await turn(profile, step(1))).reused

    play(upstream, scenario)


def test_a_lost_proposer_is_not_asked_again_in_each_step(upstream: Upstream) -> None:
    upstream.always("b", Reply(status=400))
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        assert (await turn(offering("a", "b"), step(0))).degraded
        for number in range(1, 4):
            assert not (await turn(offering("a", "b"), step(number))).degraded

    play(upstream, scenario)
    assert len(upstream.chats("b")) == 1


def test_proposals_are_kept_for_some_time_and_in_some_number(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    upstream.always("a", Reply(text="x" * 4_000))
    now = 0.0
    memory = FanOutMemory(most=2, most_bytes=12_000, seconds=60, clock=lambda: now)
    others = [Message("user", f"Fix {name}.py.") for name in "bcd"]

    async def scenario(turn: Run, _: ClientPool) -> None:
        nonlocal now
        profile = offering("a")
        await turn(profile, step(0))
        now = 59.0
        assert (await turn(profile, step(1))).reused
        # Each request puts it off.
        now = 118.0
        assert (await turn(profile, step(2))).reused
        now = 179.0
        assert not (await turn(profile, step(3))).reused
        for other in others:
            await turn(profile, step(0, first=other))
        assert not (await turn(profile, step(4))).reused
        assert (await turn(profile, step(1, first=others[2]))).reused

    play(upstream, scenario, memory)


def test_proposals_that_are_larger_than_the_memory_are_still_used(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    upstream.always("a", Reply(text="x" * 4_000))

    async def scenario(turn: Run, _: ClientPool) -> None:
        assert (await turn(offering("a"), step(0))).status == "finished"
        assert not (await turn(offering("a"), step(1))).reused

    play(upstream, scenario, FanOutMemory(most_bytes=100))


def test_reviews_count_among_what_the_memory_may_hold(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    upstream.always("judge", Reply(text=f"{'x' * 8_000}\nmodel_1"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        for strategy, reused in (("synthesize", True), ("select", False)):
            profile = offering("a", "b", strategy=strategy, judge="lab:judge")
            await turn(profile, step(0))
            assert (await turn(profile, step(1))).reused == reused

    play(upstream, scenario, FanOutMemory(most_bytes=8_000))


def test_a_turn_that_reuses_begins_no_layer(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    kinds: list[type[Event]] = []

    async def scenario(_: Run, clients: ClientPool) -> None:
        limits = Limits(fan_outs=FanOutMemory())
        profile = offering("a", "b", "c")
        await deliver(run_turn(profile, step(0), clients, limits=limits))
        async with aclosing(run_turn(profile, step(1), clients, limits=limits)) as running:
            async for event in running:
                kinds.append(type(event))

    play(upstream, scenario)
    assert LayerStarted not in kinds


@pytest.mark.parametrize("rounds", [0, 2])
def test_other_shapes_of_mixtures(upstream: Upstream, rounds: int) -> None:
    upstream.always("agg", calling("read"))

    async def scenario(turn: Run, _: ClientPool) -> None:
        profile = offering("a", "b", rounds=rounds)
        for number in range(3):
            assert (await turn(profile, step(number))).reused == (rounds > 0 and number > 0)

    play(upstream, scenario)
    assert len(upstream.chats()) == 3 + 2 * rounds
