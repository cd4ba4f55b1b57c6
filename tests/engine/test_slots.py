"""How the engine takes and gives back slots, and tells them how its requests were taken."""

from __future__ import annotations

import asyncio
import time

import pytest

from moa_cli.clients.limiter import Limiter
from moa_cli.core.events import AggregatorFailed, AggregatorFinished, ProposerFailed, Retrying
from moa_cli.engine import Limits
from moa_cli.models.table import Provider
from tests.support.mixtures import lab, mixture, of_kind, run
from tests.support.scenarios import BROKEN, HANG_UP, NO_CREDIT, play, refusal
from tests.support.upstream import Reply, Upstream


class Watched:
    """Slots that write down what they are told. held: seconds that they hold the provider back."""

    def __init__(self, held: float = 0.0) -> None:
        self.held = held
        self.told: list[str] = []
        self.notes: list[bool] = []

    def slot(self, model: str) -> Watched:
        assert model == "lab:agg"
        return self

    def enter_at_once(self) -> None:
        return None

    async def __aenter__(self) -> Watched:
        self.told.append("in")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.told.append("out")

    def delay(self, model: str) -> float:
        assert model == "lab:agg"
        return self.held

    def asked_delay(self, model: str) -> float:
        return self.held

    def refused_for(self, model: str) -> float:
        return self.held

    def reason(self, model: str) -> str | None:
        return None

    def silences(self, model: str) -> int:
        return 0

    def slowest(self, model: str) -> float:
        return 0.0

    def note(self, model: str, seconds: float | None) -> None:
        self.notes.append(seconds is not None)

    def next_turn(self) -> Watched:
        return self

    def accepted(self) -> None:
        self.told.append("accepted")

    def refused(self, retry_after: float | None) -> None:
        self.told.append(f"refused {retry_after}")


def test_each_attempt_has_a_slot_of_its_own_which_is_told_how_it_was_taken(
    upstream: Upstream,
) -> None:
    busy, full = refusal(429, Retry_After="0.01"), refusal(503)
    play(upstream, {"agg": [busy, full, BROKEN, HANG_UP, Reply(text="from agg")]})
    slots = Watched()
    run(upstream, mixture(), limits=Limits(first_delay=0.001, slots=slots))
    assert slots.told == [
        *("in", "refused 0.01", "out"),
        *("in", "refused None", "out"),
        *("in", "out"),
        *("in", "out"),
        *("in", "accepted", "out"),
    ]


def test_no_credit_is_no_refusal_for_now(upstream: Upstream) -> None:
    play(upstream, {"agg": NO_CREDIT})
    slots = Watched()
    run(upstream, mixture(), limits=Limits(slots=slots))
    assert slots.told == ["in", "out"]


def test_the_slots_see_to_the_pause_where_they_hold_the_provider_back(upstream: Upstream) -> None:
    play(upstream, {"agg": [refusal(429, Retry_After="7"), Reply(text="from agg")]})
    slots = Watched(held=7.0)
    events = run(upstream, mixture(), limits=Limits(slots=slots))
    # It would have taken these seconds otherwise.
    assert [event.delay for event in of_kind(events, Retrying)] == [7.0]
    assert len(of_kind(events, AggregatorFinished)) == 1


@pytest.mark.parametrize("retries", [0, 4])
def test_a_call_is_given_up_where_its_provider_is_held_back_for_too_long(
    upstream: Upstream, retries: int
) -> None:
    slots = Watched(held=91.0)
    events = run(upstream, mixture(), limits=Limits(slots=slots, retries=retries))
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "RateLimited"
    assert "91 s" in failed.error.message
    assert upstream.chats() == []


class Suspended(Watched):
    """Slots of a provider that takes no call, until after a suspension."""

    async def __aenter__(self) -> Watched:
        # Nothing runs meanwhile, as while the process is stopped.
        asyncio.get_running_loop().call_soon(time.sleep, 3.0)
        await asyncio.sleep(0)
        await asyncio.sleep(0.8)
        self.held = 0.0
        return await super().__aenter__()

    def delay(self, model: str) -> float:
        return 0.0


def test_the_time_of_a_suspension_is_no_time_of_waiting_for_a_provider(upstream: Upstream) -> None:
    play(upstream, {"agg": Reply(text="from agg")})
    events = run(upstream, mixture(), limits=Limits(slots=Suspended(held=99.0), longest_wait=2.5))
    assert of_kind(events, AggregatorFailed) == []
    assert len(of_kind(events, AggregatorFinished)) == 1


def _limits(longest_wait: float) -> Limits:
    """Limits with a limiter of its own; the provider takes what it takes."""
    lab = Provider(name="lab", base_url="https://lab.example/v1", concurrency=8)
    slots = Limiter(8).slots(lambda _: lab)
    return Limits(first_delay=0.001, longest_wait=longest_wait, slots=slots)


def test_a_provider_may_hold_a_call_back_for_as_long_as_a_call_may_be(upstream: Upstream) -> None:
    play(upstream, {"agg": [refusal(429, Retry_After="2"), Reply(text="from agg")]})
    # The second time there is too little left of it.
    events = run(upstream, mixture(), limits=_limits(3.9))
    assert len(of_kind(events, AggregatorFinished)) == 1
    play(upstream, {"agg": [refusal(429, Retry_After="2")] * 2})
    events = run(upstream, mixture(), limits=_limits(3.9))
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "RateLimited"


def test_a_fallback_at_the_busy_provider_is_no_reason_to_wait_less(upstream: Upstream) -> None:
    play(upstream, {"agg": [refusal(429, Retry_After="2"), Reply(text="from agg")]})
    backed = mixture(aggregator=lab("agg", fallbacks=["lab:second"]))
    events = run(upstream, backed, limits=_limits(3.9))
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.model == "lab:agg"


def test_a_provider_that_refuses_everything_ends_a_turn(upstream: Upstream) -> None:
    play(upstream, {"*": refusal(429)})
    events = run(upstream, mixture("a", "b", "c", "d", "e", "f"), limits=_limits(0.5))
    lost = of_kind(events, ProposerFailed)
    assert len(lost) == 6
    kinds = {event.proposal.error.kind for event in lost if event.proposal.error is not None}
    assert kinds == {"RateLimited"}


def test_the_slots_are_told_whether_a_model_spoke(upstream: Upstream) -> None:
    play(upstream, {"agg": [Reply(text="from agg"), Reply(stall_after=0)]})
    slots = Watched()
    run(upstream, mixture(), limits=Limits(slots=slots))
    silent = mixture(aggregator=lab("agg", first_token=0.2))
    run(upstream, silent, limits=Limits(slots=slots))
    assert slots.notes == [True, False]
