"""The ledger equals what the upstream counted, to the token, whatever goes wrong in a turn; what
the upstream could not tell is estimated, and marked so."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation, Turn, Usage
from moa_cli.core.events import Event, ProposerFinished
from moa_cli.core.money import Price
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import Budget, Cap, Control, Limits, Reservation, run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, LAB_KEY, asked, lab, mixture
from tests.support.scenarios import LIMITED, REFUSED
from tests.support.upstream import Reply, Request, Upstream

WORDS = Reply(text="one two three four")
PRICES = {f"lab:{name}": Price(1.0, 2.0) for name in ("a", "b", "c", "agg", "second")}


def all_asked(upstream: Upstream, **replies: Reply) -> threading.Event:
    """Have each of these models reply so; set once all of them have been asked."""
    asked_all = threading.Event()
    asked: set[str] = set()

    def answer(request: Request) -> Reply:
        asked.add(request.model)
        if asked == replies.keys():
            asked_all.set()
        return replies[request.model]

    for model in replies:
        upstream.always(model, answer)
    return asked_all


def play(
    upstream: Upstream,
    profile: Profile,
    *,
    control: Control | None = None,
    cancel_at: type[Event] | None = None,
    limits: Limits = AT_ONCE,
    conversation: Conversation | None = None,
) -> Turn:
    """The turn that the events tell; cancelled after the first event of a kind, if given."""
    lab_settings = ProviderSettings(base_url=upstream.url, api_key_env="LAB_API_KEY")
    config = Config(providers={"lab": lab_settings}, prices=PRICES)
    fold = TurnFold()

    class Watch:
        """Says enough, or cancels."""

        def handle(self, event: Event) -> None:
            if control is not None and isinstance(event, ProposerFinished):
                control.enough()
            if cancel_at is not None and isinstance(event, cancel_at):
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        def close(self) -> None:
            """Nothing is held back."""

    async def turn() -> None:
        pool = ClientPool(config, {"LAB_API_KEY": LAB_KEY})
        try:
            talk = conversation or asked()
            events = run_turn(profile, talk, pool, control=control, limits=limits)
            with suppress(asyncio.CancelledError):
                await asyncio.create_task(_deliver(events, fold, Watch()))
        finally:
            await pool.aclose()

    async def _deliver(events: object, *sinks: object) -> None:
        await deliver(events, *sinks)  # type: ignore[arg-type]

    asyncio.run(turn())
    return fold.turn()


def counted(usage: Usage) -> tuple[int, int]:
    """The tokens that are no estimates."""
    return (
        usage.prompt_tokens - usage.estimated_prompt_tokens,
        usage.completion_tokens - usage.estimated_completion_tokens,
    )


def told(upstream: Upstream, *, whole: bool) -> list[Request]:
    """The calls that were answered to the end, or those that were begun and cut off."""
    calls = [request for request in upstream.chats() if request.usage != (0, 0)]
    return [call for call in calls if call.finished is whole]


def summed(requests: list[Request]) -> tuple[int, int]:
    return sum(request.usage[0] for request in requests), sum(
        request.usage[1] for request in requests
    )


def check(turn: Turn, upstream: Upstream) -> None:
    """Hold the turn's sums against its ledger, and the ledger against the upstream's log."""
    total = sum((call.usage for call in turn.ledger), Usage())
    assert turn.usage.calls == total.calls
    assert counted(turn.usage) == counted(total)
    assert turn.usage.cost == pytest.approx(total.cost)
    assert counted(total) == summed(told(upstream, whole=True))
    assert total.cost == pytest.approx((total.prompt_tokens + 2 * total.completion_tokens) / 1e6)
    assert total.unpriced_calls == 0


def test_a_turn_of_three_rounds(upstream: Upstream) -> None:
    upstream.always("*", WORDS)
    turn = play(upstream, mixture("a", "b", "c", rounds=3))
    check(turn, upstream)
    assert (turn.usage.calls, turn.usage.estimated_calls) == (10, 0)
    assert [call.layer for call in turn.ledger] == [1] * 3 + [2] * 3 + [3] * 3 + [4]
    assert counted(turn.usage) == upstream.usage_total


def test_failures_retries_and_a_fallback(upstream: Upstream) -> None:
    upstream.always("*", WORDS)
    upstream.enqueue("a", LIMITED, WORDS)
    upstream.enqueue("b", REFUSED)
    upstream.enqueue("c", Reply(refuse=True), Reply(status=500), WORDS)
    upstream.enqueue("agg", REFUSED)
    profile = mixture("a", "b", "c", aggregator=lab("agg", fallbacks=["lab:second"]))
    turn = play(upstream, profile)
    check(turn, upstream)
    assert turn.status == "finished"
    assert [call.model for call in turn.ledger].count("lab:b") == 0
    assert [call.model for call in turn.ledger][-1] == "lab:second"
    assert (turn.usage.calls, turn.usage.estimated_calls) == (3, 0)
    assert counted(turn.usage) == upstream.usage_total


def test_an_answer_without_words_was_paid_for_all_the_same(upstream: Upstream) -> None:
    upstream.always("*", WORDS)
    upstream.always("a", Reply(chunks=[], reasoning=["hm ", "hm"], finish_reason="length"))
    turn = play(upstream, mixture("a", "b"))
    check(turn, upstream)
    assert turn.usage.calls == 3
    assert turn.proposals[0][0].usage.completion_tokens == 2
    assert counted(turn.usage) == upstream.usage_total


@pytest.mark.parametrize("broken", [Reply(chunks=["x "] * 9, drop_after=4), Reply(end_early=True)])
def test_an_answer_that_broke_off_is_estimated(upstream: Upstream, broken: Reply) -> None:
    upstream.always("*", WORDS)
    upstream.always("a", broken)
    turn = play(upstream, mixture("a", "b"))
    (lost,) = [call for call in turn.ledger if call.model == "lab:a"]
    # Each of its attempts is billed.
    assert (lost.usage.calls, lost.usage.estimated_calls) == (5, 5)
    assert lost.usage.prompt_tokens == lost.usage.estimated_prompt_tokens > 0
    assert lost.usage.completion_tokens == lost.usage.estimated_completion_tokens > 0
    whole = [request for request in upstream.chats() if request.model != "a"]
    assert counted(turn.usage) == summed(whole)


def test_the_prompt_that_an_endpoint_counts_is_believed_though_the_answer_breaks_off(
    upstream: Upstream,
) -> None:
    usage = {"prompt_tokens": 70, "completion_tokens": 1, "cost": 0.125}
    words = [{"choices": [{"delta": {"content": f"word {place} "}}]} for place in range(9)]
    upstream.always("*", WORDS)
    upstream.always("a", Reply(events=[words[0] | {"usage": usage}, *words[1:]], drop_after=6))
    turn = play(upstream, mixture("a", "b"), limits=replace(AT_ONCE, retries=0))
    [lost] = [call.usage for call in turn.ledger if call.model == "lab:a"]
    assert (lost.prompt_tokens, lost.estimated_prompt_tokens) == (70, 0)
    assert lost.completion_tokens == lost.estimated_completion_tokens > 1
    assert lost.cost == pytest.approx((70 + 2 * lost.completion_tokens) / 1e6)


def test_an_attempt_that_ended_before_its_first_token_was_begun_and_counts(
    upstream: Upstream,
) -> None:
    upstream.always("*", WORDS)
    # A good status and not a word: the endpoint took the prompt.
    upstream.enqueue("a", Reply(chunks=["x"], drop_after=0), WORDS)
    turn = play(upstream, mixture("a"))
    (charge, _) = turn.ledger
    assert (charge.usage.calls, charge.usage.estimated_calls) == (2, 1)
    assert counted(turn.usage) == summed([request for request in upstream.chats() if request.sent])


def test_a_straggler_that_is_not_waited_for_is_estimated(upstream: Upstream) -> None:
    stalled, late = Reply(chunks=["x "] * 5, stall_after=3), Reply(delay=60)
    upstream.always("*", replace(WORDS, after=all_asked(upstream, b=stalled, c=late)))
    turn = play(upstream, mixture("a", "b", "c"), control=Control())
    check(turn, upstream)
    by_model = {call.model: call.usage for call in turn.ledger}
    assert by_model["lab:b"].estimated_calls == by_model["lab:c"].estimated_calls == 1
    assert by_model["lab:c"].completion_tokens == 0
    assert (turn.usage.calls, turn.usage.estimated_calls) == (4, 2)


@pytest.mark.parametrize("name", ["ProposerFinished", "LayerFinished", "AggregatorDelta"])
def test_a_cancelled_turn_is_charged_for_what_was_begun(upstream: Upstream, name: str) -> None:
    import moa_cli.core.events

    # Not before the other call has reached the upstream.
    reached = all_asked(upstream, b=Reply(chunks=["x "] * 9, pause=0.05))
    upstream.always("*", Reply(text="one two three four", after=reached))
    upstream.always("agg", Reply(chunks=["x "] * 50, stall_after=9))
    turn = play(upstream, mixture("a", "b"), cancel_at=getattr(moa_cli.core.events, name))
    upstream.wait_for(lambda: upstream.in_flight == 0)
    check(turn, upstream)
    assert turn.status == "interrupted"
    cut_off = told(upstream, whole=False)
    assert turn.usage.estimated_calls >= len(cut_off)
    asked_models = {f"lab:{request.model}" for request in upstream.chats()}
    assert {call.model for call in turn.ledger} == asked_models


def test_the_cost_that_an_endpoint_tells_is_believed(upstream: Upstream) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.125}
    chunk = {"model": "agg", "choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}
    upstream.always("agg", Reply(events=[{**chunk, "usage": usage}, "[DONE]"]))
    turn = play(upstream, mixture(aggregator="agg"))
    assert turn.usage == Usage(7, 3, calls=1, cost=0.125)


def test_layers_that_are_skipped_are_not_reserved_any_more(upstream: Upstream) -> None:
    """Told by the reservations of a shared cap: each is what the layer, and those that are still
    to come, will take."""
    upstream.always("*", WORDS)
    held: list[float] = []

    class Watched(Budget):
        """Notes what is reserved."""

        def reserve(self, amount: float, **more: Any) -> Reservation:
            held.append(amount)
            return super().reserve(amount, **more)

    budget = Watched(Cap("budget.day", "usd", 1.0), "shared")
    profile = mixture("a", "b", rounds=3, max_tokens=1000)
    turn = play(upstream, profile, control=Control(), limits=replace(AT_ONCE, budgets=(budget,)))
    assert turn.status == "finished"
    assert len(turn.proposals) == 1
    *_, first, last = held
    # The first layer and three more; then the aggregator alone: 1,000 tokens at 2 USD a million.
    assert first > 7 * 0.002
    assert 0.002 < last < 0.003
