"""Random mixtures of faults and settings keep the invariants of a turn.

1. What started is closed once, deltas come to the finished text, and the turn's end comes last.
2. Trouble is an event; no error, no "None" and no unfinished text that was not asked for enters a
   prompt.
3. A layer without an answer leaves the one before; without any answer there is no reply.
4. Nobody replies in place of an aggregator of which something was shown.
5. A turn that is closed at any point leaves no task, no connection and no open call.
6. Events survive JSON.
7. Nothing hangs.
8. What was asked is in the ledger, and the ledger says what the turn says.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from moa_cli.core import events
from moa_cli.core.conversation import Conversation
from moa_cli.core.events import Event, from_dict, to_dict
from moa_cli.core.strategy import STRATEGIES
from moa_cli.core.stream import TurnFold
from moa_cli.engine import Control, Limits, run_turn
from moa_cli.profile import Profile, build
from tests.faults.endpoint import Endpoint
from tests.faults.playing import PROMPT, Written, clients, over, script_of
from tests.faults.script import POISON, UNFINISHED
from tests.faults.table import FAULTS, KINDS
from tests.support.mixtures import no_task_left

# Those that take no time to speak of, and no place of their own.
_SLOW = ("long line", "endless line", "slow", "silent after finish", "silent after usage")
_QUICK = [
    number for number, fault in enumerate(FAULTS) if fault.scripts and fault.name not in _SLOW
]
_SILENT = {fault.name for fault in KINDS["Silence"]}
# The limits of models that are silent, and those of all others: a busy machine makes any wait.
_IMPATIENT = {"stall": 0.3, "first_token": 0.3}
_PATIENT = {"stall": 60, "first_token": 60}
# Seconds after which a turn hangs.
_HANGS = 120
_COUNTER = itertools.count()
_HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@dataclass(frozen=True)
class Plan:
    """A turn to be played: layers of faults (None: a sound model), settings, and how it is met.

    enough_at, closed_at: after how many events the turn is told "enough", and is closed.
    """

    layers: list[list[int | None]]
    aggregators: list[int | None]
    settings: dict[str, Any]
    retries: int
    enough_at: int | None
    closed_at: int | None


_MODEL = st.one_of(st.none(), st.none(), st.sampled_from(_QUICK))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any of them."""
    layers = draw(st.lists(st.lists(_MODEL, min_size=1, max_size=4), min_size=1, max_size=3))
    chosen: dict[str, Any] = {
        "quorum": draw(st.none() | st.integers(1, 3)),
        "patience": draw(st.sampled_from([0, 0.05, 5])),
        "hedge_after": draw(st.none() | st.sampled_from([0, 0.05])),
        "use_partial": draw(st.booleans()),
        "overlap": draw(st.booleans()),
        "on_all_failed": draw(st.sampled_from(["fail", "solo"])),
        "reference_placement": draw(st.sampled_from(["system", "user"])),
        "reference_format": draw(st.sampled_from(["paper", "fenced"])),
        "strategy": draw(st.sampled_from(STRATEGIES)),
        "chosen_by": draw(st.sampled_from(["judge", "proposers"])),
        "one_call": draw(st.booleans()),
        "report": draw(st.booleans()),
        "stop_when_agreed": draw(st.none() | st.just(0.9)),
    }
    return Plan(
        layers,
        draw(st.lists(_MODEL, min_size=1, max_size=3)),
        {name: value for name, value in chosen.items() if value is not None},
        draw(st.integers(0, 1)),
        draw(st.none() | st.integers(1, 30)),
        draw(st.none() | st.none() | st.integers(1, 40)),
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(script_of) as running:
        yield running


# Without shrinking: a turn that hangs would be played for minutes.
@settings(max_examples=40, suppress_health_check=_HEALTH, phases=[Phase.generate])
@given(st.lists(plans(), min_size=3, max_size=3))
def test_the_invariants_hold(endpoint: Endpoint, chosen: list[Plan]) -> None:
    asyncio.run(_play_all(endpoint, chosen))


async def _play_all(endpoint: Endpoint, chosen: list[Plan]) -> None:
    turns = [asyncio.wait_for(_play(endpoint, plan), _HANGS) for plan in chosen]
    for plan, raised in zip(
        chosen, await asyncio.gather(*turns, return_exceptions=True), strict=True
    ):
        if raised is not None:
            named = [[number and FAULTS[number].name for number in layer] for layer in plan.layers]
            last = [number and FAULTS[number].name for number in plan.aggregators]
            raise AssertionError(f"{plan}: {named}, {last}") from raised
    await no_task_left()
    for _ in range(20_000):
        if not endpoint.open_connections:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("a connection was left open")


def _profile(plan: Plan, number: int) -> Profile:
    def model(fault: int | None) -> dict[str, Any]:
        place = next(places)
        if fault is None:
            return {**_PATIENT, "model": f"sound:sound-{number}-{place}"}
        limits = _IMPATIENT if FAULTS[fault].name in _SILENT else {}
        named = {"model": f"lab:m{fault}-{number:04}{place:02}-0"}
        return {**_PATIENT, **FAULTS[fault].settings, **limits, **named}

    places = itertools.count()
    layers = [{"proposers": [model(fault) for fault in layer]} for layer in plan.layers]
    first, *others = [model(fault) for fault in plan.aggregators]
    # Fallbacks have the settings of the first, and judges those of the profile.
    silent = any(fault is not None and FAULTS[fault].name in _SILENT for fault in plan.aggregators)
    limits = _IMPATIENT if silent else {}
    first |= limits
    first["fallbacks"] = [other["model"] for other in others]
    return build("mixture", {**plan.settings, **limits, "layers": layers, "aggregator": first})


async def _play(endpoint: Endpoint, plan: Plan) -> None:
    number = next(_COUNTER)
    profile, written, control = _profile(plan, number), Written(), Control()
    limits = Limits(retries=plan.retries, first_delay=0.001, longest_wait=0.2, ledger=written)
    told: list[Event] = []
    async with clients({"lab": endpoint.url, "sound": endpoint.url}, []) as pool:
        talk = Conversation().ask(PROMPT)
        turn = run_turn(profile, talk, pool, control=control, limits=limits)
        async with aclosing(turn):
            async for event in turn:
                told.append(event)
                if len(told) == plan.enough_at:
                    control.enough()
                if len(told) == plan.closed_at:
                    break
        for model in profile.models():
            await over(endpoint, model.partition(":")[2])
    whole = isinstance(told[-1], events.TurnFinished | events.TurnFailed)
    assert whole or len(told) == plan.closed_at
    for event in told:
        assert from_dict(json.loads(json.dumps(to_dict(event)))) == event
    _check_calls(told, whole=whole)
    _check_reply(told, plan, whole=whole)
    _check_prompts(endpoint, profile)
    _check_ledger(told, written, whole=whole)


def _check_calls(told: list[Event], *, whole: bool) -> None:
    """What started is closed once, and deltas come to the finished text."""
    running: dict[tuple[int, int], str] = {}
    replying: list[str] = []
    for event in told:
        match event:
            case events.ProposerStarted():
                assert (event.layer, event.index) not in running
                running[event.layer, event.index] = ""
            case events.ProposerDelta():
                running[event.layer, event.index] += event.text
            case events.ProposerFinished() | events.ProposerFailed():
                heard, text = running.pop((event.layer, event.index)), event.proposal.text
                assert _came_to(heard, text), (heard, text)
            case events.AggregatorStarted():
                assert not replying
                replying.append("")
            case events.AggregatorDelta():
                replying[0] += event.text
            case events.AggregatorFinished() | events.AggregatorFailed():
                assert _came_to(replying.pop(), event.text)
            case events.Retrying() if event.withdrawn and event.index is None:
                replying[0] = ""
            case events.Retrying() if event.withdrawn:
                assert event.index is not None
                running[event.layer, event.index] = ""
            case events.TurnFinished() | events.TurnFailed():
                assert event is told[-1]
    if whole:
        assert not running
        assert not replying


def _came_to(heard: str, text: str) -> bool:
    """Whether a call's deltas came to its text: more may have come than was told before it was
    given up, and reasoning may have shown as such only at its end."""
    return text.startswith(heard) or heard.endswith(text) or text in heard


def _check_reply(told: list[Event], plan: Plan, *, whole: bool) -> None:
    """Who replied, and whether anybody could."""
    answered = any(isinstance(event, events.ProposerFinished) for event in told)
    partly = plan.settings["use_partial"] or plan.enough_at is not None
    started = [event for event in told if isinstance(event, events.AggregatorStarted)]
    if started and plan.settings["on_all_failed"] == "fail":
        assert answered or partly
    if whole and answered:
        assert started
    shown = False
    for event in told:
        if isinstance(event, events.AggregatorStarted):
            assert not shown
        elif isinstance(event, events.AggregatorDelta):
            shown = shown or bool(event.text)
        elif isinstance(event, events.Retrying) and event.index is None and event.withdrawn:
            assert not shown


def _check_prompts(endpoint: Endpoint, profile: Profile) -> None:
    for model in profile.models():
        for asked in endpoint.of(model.partition(":")[2]):
            for message in asked.messages:
                content = str(message["content"])
                assert POISON not in content
                assert "None" not in content
                if UNFINISHED in content:
                    assert "unfinished" in content.lower().replace(UNFINISHED.lower(), "")


def _check_ledger(told: list[Event], written: Written, *, whole: bool) -> None:
    assert sorted([*written.ended, *written.void_]) == sorted(written.begun)
    if whole:
        fold = TurnFold()
        for event in told:
            fold.handle(event)
        assert fold.turn().usage == written.usage
