"""Calls are bounded by silence, not by how long a good answer takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import ClientError, ConnectionLost, RateLimited, ServerFailed
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    ProposerFailed,
    ProposerFinished,
    Retrying,
)
from moa_cli.engine import Limits, run_turn
from moa_cli.engine.calls.silence import Watch, silence_of
from moa_cli.profile import Proposer
from tests.support import timed
from tests.support.mixtures import InProcess, asked, lab, mixture, of_kind, run
from tests.support.scenarios import play
from tests.support.upstream import Reply, Upstream

# Longer than any limit of these tests, all pieces together.
STEADY = Reply(chunks=["word "] * 12, pause=0.05)


@pytest.mark.parametrize(
    ("settings", "reply", "words", "setting"),
    [
        ({"first_token": 0.2}, Reply(stall_after=0), "no first token within 0.2 s", "first_token"),
        (
            {"stall": 0.2},
            Reply(chunks=["so ", "far ", "so good"], stall_after=2),
            "nothing more for 0.2 s",
            "stall",
        ),
        ({"timeout": 0.3}, STEADY, "no complete answer within 0.3 s", "timeout"),
    ],
)
def test_an_error_names_the_limit_the_seconds_and_the_setting(
    upstream: Upstream, settings: dict[str, Any], reply: Reply, words: str, setting: str
) -> None:
    play(upstream, {"b": reply})
    events = run(upstream, mixture("a", lab("b", **settings)))
    [lost] = of_kind(events, ProposerFailed)
    error = lost.proposal.error
    assert error is not None
    assert error.kind == "ClientTimeout"
    assert words in error.message
    assert f"`{setting}`" in error.message
    assert error.hint is not None
    assert f"raise `{setting}`" in error.hint
    # It is not asked again: it would say as little.
    assert of_kind(events, Retrying) == []


def test_an_answer_that_comes_steadily_is_never_cut() -> None:
    steady = timed.Timed([(2, "word ")] * 12)
    events, _, _ = timed.play(mixture(lab("a", first_token=3, stall=3)), {"a": steady})
    [finished] = of_kind(events, ProposerFinished)
    assert finished.proposal.text == "word " * 12
    assert finished.proposal.seconds == pytest.approx(24)


def test_signs_of_life_are_no_progress() -> None:
    async def alive() -> AsyncGenerator[Delta, None]:
        yield Delta(text="so ")
        while True:
            await asyncio.sleep(0.02)
            yield Delta(model="m")

    events = played(alive, stall=0.2)
    [failed] = of_kind(events, AggregatorFailed)
    assert (failed.error.kind, failed.text) == ("ClientTimeout", "so ")


def played(answer: Any, *, slow: float = 0.0, **settings: Any) -> list[Any]:
    """The events of a turn of one aggregator. slow: seconds that the consumer takes for each."""

    async def turn() -> list[Any]:
        events = []
        profile = mixture(aggregator=lab("agg", **settings))
        clients = InProcess({"lab:agg": answer})
        async with aclosing(run_turn(profile, asked(), clients)) as running:
            async for event in running:
                events.append(event)
                if isinstance(event, AggregatorDelta):
                    await asyncio.sleep(slow)
        return events

    return timed.run_timed(turn())


def test_the_time_of_a_slow_consumer_does_not_count() -> None:
    async def many() -> AsyncGenerator[Delta, None]:
        for _ in range(100):
            yield Delta(text="x ")
        yield Delta(finish_reason="stop")

    events = played(many, slow=0.01, stall=0.1, first_token=0.1, timeout=0.2)
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.text == "x " * 100


def test_time_in_which_the_whole_loop_is_blocked_does_not_count() -> None:
    async def blocked() -> AsyncGenerator[Delta, None]:
        yield Delta(text="so ")
        # As a sink does that writes to a pipe that nobody reads.
        asyncio.get_running_loop().call_later(0.01, timed.block, 1.0)
        await asyncio.sleep(1.2)
        yield Delta(text="far", finish_reason="stop")

    [finished] = of_kind(played(blocked, stall=0.5), AggregatorFinished)
    assert finished.text == "so far"


@pytest.mark.parametrize("ending", ["hangs", "breaks"])
def test_a_whole_answer_survives_its_connection(upstream: Upstream, ending: str) -> None:
    """Behind the finish reason only a usage is missing."""
    said = {"index": 0, "delta": {"content": "all of it"}, "finish_reason": "stop"}
    chunk = {"model": "m", "choices": [said]}
    hangs = Reply(events=[chunk, "[DONE]"], stall_after=1)
    breaks = Reply(events=[chunk, "[DONE]"], drop_after=1)
    play(upstream, {"agg": hangs if ending == "hangs" else breaks})
    events = run(upstream, mixture())
    [finished] = of_kind(events, AggregatorFinished)
    assert (finished.text, finished.finish_reason) == ("all of it", "stop")
    assert finished.usage.calls == finished.usage.estimated_calls == 1
    assert len(upstream.chats()) == 1


def test_a_whole_answer_survives_an_error_behind_it() -> None:
    from moa_cli.core.errors import ServerFailed

    async def fails() -> AsyncGenerator[Delta, None]:
        yield Delta(text="all of it", finish_reason="stop")
        raise ServerFailed("lab failed")

    [finished] = of_kind(played(fails), AggregatorFinished)
    assert finished.text == "all of it"


def test_an_answer_far_beyond_its_max_tokens_is_stopped_kept_and_told_as_cut() -> None:
    closed = []

    async def endless() -> AsyncGenerator[Delta, None]:
        try:
            while True:
                yield Delta(text="one more word ")
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    [finished] = of_kind(played(endless, max_tokens=100), AggregatorFinished)
    assert finished.finish_reason == "length"
    assert 300 < finished.usage.completion_tokens < 2_000
    assert closed == [True]


@pytest.mark.parametrize(
    ("profile", "provider", "first"),
    [
        (mixture("a"), "lab", 40.0),
        (mixture("a"), "ollama", 300.0),
        (mixture("a"), "local", 300.0),
        (mixture("a", first_token=7), "ollama", 7.0),
    ],
)
def test_a_model_of_this_machine_has_time_to_be_loaded(
    profile: Any, provider: str, first: float
) -> None:
    [proposer] = profile.layer(1)
    silence = silence_of(proposer, provider)
    assert (silence.first_token, silence.stall) == (first, 30.0)


def test_an_aggregator_is_given_up_earlier_where_a_fallback_stands_ready() -> None:
    proposer = mixture("a").layer(1)[0]
    assert silence_of(proposer, "lab", backed=True).first_token == 20.0


@pytest.mark.parametrize("seconds", [10, 30, 39])
@pytest.mark.parametrize("error", [ServerFailed("504"), ConnectionLost("broke")])
def test_a_model_whose_gateway_gives_it_up_again_and_again_is_waited_for_as_one_that_hangs(
    error: ClientError, seconds: int
) -> None:
    hangs = timed.Timed([(seconds, "")], error=error)
    events, times, clients = timed.play(mixture("a", "b", rounds=2), {"a": hangs})
    assert times[-1] < 45
    assert len(clients.asked["lab:a"]) == 40 // seconds + bool(40 % seconds > 4)
    lost = [event.proposal for event in of_kind(events, ProposerFailed)]
    assert [told.error and told.error.kind for told in lost] == ["ClientTimeout", "NotAsked"]


def test_a_model_that_fails_at_once_is_asked_again_as_often_as_ever() -> None:
    fails = timed.Timed([(0.1, "")], error=ServerFailed("500"))
    script = {"a": [*[fails] * 4, timed.after(0, "from a")]}
    _, _, clients = timed.play(mixture("a", first_token=1), script)
    assert len(clients.asked["lab:a"]) == 5


def test_a_busy_aggregator_is_waited_for_less_where_a_fallback_stands_ready() -> None:
    busy = {"agg": timed.Timed([(0.1, "")], error=RateLimited("busy"))}
    backed = mixture("a", aggregator=lab("agg", fallbacks=["lab:second"]))
    _, alone, _ = timed.play(mixture("a"), busy, limits=Limits())
    events, times, _ = timed.play(backed, busy, limits=Limits())
    assert 80 < alone[-1] < 100
    assert 15 < times[-1] < 30
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.model == "lab:second"


def test_a_watch_that_is_over_says_so_and_one_that_is_put_off_does_not() -> None:
    async def over() -> None:
        with pytest.raises(TimeoutError), Watch(0.05) as watch:
            await asyncio.sleep(5)
        assert watch.expired
        with Watch(0.1) as watch:
            for _ in range(10):
                await asyncio.sleep(0.03)
                watch.since = time.monotonic()
        assert not watch.expired
        # A limit that becomes shorter holds from then on.
        with Watch(60.0) as watch:
            watch.set_limit(0.05)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(5)
        assert watch.expired

    timed.run_timed(over())


def test_watches_with_much_time_share_a_timer_and_each_ends_at_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def watched(limit: float, ended: dict[float, float], put_off: float = 0.0) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError), Watch(limit) as watch:
            if put_off:
                await asyncio.sleep(put_off)
                watch.since = time.monotonic()
            await asyncio.sleep(60)
        ended[limit] = time.monotonic() - began

    async def several() -> None:
        ended: dict[float, float] = {}
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_later = loop.call_later

        def counted(delay: float, *rest: Any, **named: Any) -> asyncio.TimerHandle:
            timers.append(delay)
            return call_later(delay, *rest, **named)

        monkeypatch.setattr(loop, "call_later", counted)
        many = [asyncio.create_task(watched(3600 + place, {})) for place in range(100)]
        await asyncio.sleep(0)
        # One for all of them, beside those of their sleep.
        assert [delay for delay in timers if delay < 60] == [2.0]
        await asyncio.gather(
            watched(2.2, ended), watched(2.6, ended, put_off=0.5), watched(3.1, ended)
        )
        for task in many:
            assert not task.done()
            task.cancel()
        # None is over too early; the machine may be busy.
        assert next(iter(ended)) == 2.2
        assert ended[2.2] >= 2.2
        assert ended[2.6] >= 3.1
        assert ended[3.1] >= 3.1

    asyncio.run(several())


def test_a_task_that_is_cancelled_by_others_stays_cancelled() -> None:
    async def inner() -> None:
        with Watch(60.0):
            await asyncio.sleep(5)

    async def outer() -> None:
        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(outer())


@pytest.mark.parametrize(
    ("silences", "expected"), [(0, 40.0), (1, 20.0), (2, 10.0), (3, 5.0), (4, 5.0), (1000, 5.0)]
)
def test_a_model_that_was_silent_in_turns_before_has_less_time(
    silences: int, expected: float
) -> None:
    assert silence_of(Proposer(model="lab:a"), "lab", silences=silences).first_token == expected
    own = Proposer(model="lab:a", first_token=60.0)
    assert silence_of(own, "lab", silences=silences).first_token == 60.0
    assert silence_of(Proposer(model="ollama:a"), "ollama", silences=silences).first_token == 300.0


@pytest.mark.parametrize(("slowest", "expected"), [(1.0, 5.0), (8.0, 16.0), (30.0, 40.0)])
def test_a_slow_model_that_was_silent_has_twice_the_time_that_it_needed(
    slowest: float, expected: float
) -> None:
    proposer = Proposer(model="lab:a")
    silence = silence_of(proposer, "lab", silences=9, slowest=slowest)
    assert silence.first_token == expected
