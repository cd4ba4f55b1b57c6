"""With `overlap`, a layer begins once the quorum of the one before stands, and what shows a turn
keeps its layers apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from io import StringIO
from typing import Any

import pytest

from moa_cli.core.events import (
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.stream import TurnFold
from moa_cli.engine import Budget, Cap, Control, Limits, run_turn
from moa_cli.server.wires.proposals import ProposalStream
from moa_cli.terminal.board.view import TurnView
from moa_cli.terminal.plain import Notices, Proposals
from tests.support.mixtures import asked, lab, mixture, of_kind
from tests.support.timed import HANGS, Timed, TimedClients, after, play, refused, run_timed

PROFILE = mixture("a", "b", "c", rounds=2, quorum=2, patience=4, overlap=True)
Scripts = dict[str, Timed | Sequence[Timed]]
QUICK: Scripts = {"a": [after(1, "first a"), after(2, "second a")]}
QUICK |= {"b": [after(2, "first b"), after(2.2, "second b")]}


def order(events: list[Event]) -> list[str]:
    """The layers' beginnings and ends, and the proposals."""
    kinds = (LayerStarted, LayerFinished, ProposerFinished, ProposerFailed)
    return [
        f"{event.kind} {event.layer}" + (f" {index}" if isinstance(index, int) else "")
        for event in events
        if isinstance(event, kinds)
        for index in [getattr(event, "index", None)]
    ]


def times_of(events: list[Event], times: list[float], kind: type[Event]) -> list[float]:
    return [at for event, at in zip(events, times, strict=True) if isinstance(event, kind)]


def test_the_next_layer_begins_as_soon_as_the_quorum_stands() -> None:
    # The third answers while the second layer runs: too late for its prompts.
    scripts = {**QUICK, "c": [after(3, "first c"), after(2.5, "second c")]}
    events, times, clients = play(PROFILE, scripts)
    assert times_of(events, times, LayerStarted) == pytest.approx([0, 2])
    for model in ("a", "b", "c"):
        assert clients.references_of(f"lab:{model}") == "\n1. first a\n2. first b"
    assert clients.references_of("lab:agg") == "\n1. second a\n2. second b\n3. second c"
    assert order(events) == [
        "layer_started 1",
        "proposer_finished 1 0",
        "proposer_finished 1 1",
        "layer_started 2",
        "proposer_finished 1 2",
        "layer_finished 1",
        "proposer_finished 2 0",
        "proposer_finished 2 1",
        "proposer_finished 2 2",
        "layer_finished 2",
    ]
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.lost == ()


def test_stragglers_keep_their_patience_beside_the_next_layer() -> None:
    scripts = {**QUICK, "c": [HANGS, after(9, "second c")]}
    events, times, _ = play(PROFILE, scripts)
    # Both are cut off with the patience of their layer: 2 + 4, and 4.2 + 4.
    assert times_of(events, times, ProposerFailed) == pytest.approx([6, 8.2])
    assert times_of(events, times, LayerFinished) == pytest.approx([6, 8.2])


def test_the_end_of_the_next_layer_ends_the_stragglers() -> None:
    scripts = {**QUICK, "c": [HANGS, after(1, "second c")]}
    events, times, _ = play(PROFILE, scripts)
    assert times_of(events, times, ProposerFailed) == pytest.approx([4.2])
    assert order(events)[-3:] == ["layer_finished 2", "proposer_failed 1 2", "layer_finished 1"]
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.lost == (
        "lab:c: too slow: 2 of 3 answers stood, and the next round has its answers",
    )


def test_a_late_answer_serves_if_the_next_layer_is_lost_wholly() -> None:
    late = {"a": [after(1, "first a"), refused(2)], "b": [after(2, "first b"), refused(2)]}
    events, _, clients = play(PROFILE, {**late, "c": [after(3, "first c"), refused(2)]})
    assert clients.references_of("lab:agg") == "\n1. first a\n2. first b\n3. first c"
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.lost[-1] == "round 2 gave no complete answer: the reply is written from round 1"


@pytest.mark.parametrize("settings", [{"overlap": False}, {"quorum": None}, {"rounds": 1}])
def test_nothing_overlaps_without_the_setting_a_quorum_and_a_layer_behind(
    settings: dict[str, Any],
) -> None:
    given: dict[str, Any] = {"rounds": 2, "quorum": 2, "patience": 4, "overlap": True, **settings}
    profile = mixture("a", "b", "c", **{k: v for k, v in given.items() if v is not None})
    events, _, _ = play(profile, {**QUICK, "c": after(3, "first c")})
    open_layers = 0
    for event in events:
        open_layers += isinstance(event, LayerStarted)
        assert open_layers <= 1
        open_layers -= isinstance(event, LayerFinished)


def test_no_more_than_two_layers_run_side_by_side() -> None:
    profile = mixture("a", "b", rounds=4, quorum=1, patience=60, overlap=True)
    events, times, _ = play(
        profile, {"a": after(1, "from a"), "b": Timed([(0.5, "x")], hangs=True)}
    )
    assert times_of(events, times, LayerStarted) == pytest.approx([0, 1, 2, 3])
    open_layers: set[int] = set()
    for event in events:
        if isinstance(event, LayerStarted):
            open_layers.add(event.layer)
        elif isinstance(event, LayerFinished):
            open_layers.remove(event.layer)
        assert len(open_layers) <= 2


def test_enough_ends_both_layers() -> None:
    control = Control()
    scripts: Scripts = {
        "a": [after(1, "first a"), HANGS],
        "b": [after(2, "first b"), HANGS],
        "c": HANGS,
    }
    events, times, clients = play(PROFILE, scripts, control=control, enough_at=[3])
    assert clients.references_of("lab:agg") == "\n1. first a\n2. first b"
    assert times[-1] == pytest.approx(3)
    assert isinstance(events[-1], TurnFinished)


def test_a_cap_that_a_straggler_passes_ends_both_layers() -> None:
    endless = Timed([(0.005, "word ")] * 9000)
    scripts: Scripts = {
        "a": [after(1, "first a"), HANGS],
        "b": [after(2, "first b"), HANGS],
        "c": endless,
    }
    budget = Budget(Cap("--max-total-tokens", "tokens", 12_000), "turns")
    wordy = lab("c", max_tokens=3000)
    profile = mixture("a", "b", wordy, rounds=2, quorum=2, patience=900, overlap=True)
    events, _, _ = play(profile, scripts, limits=Limits(budgets=(budget,)))
    assert order(events)[-2:] == ["proposer_failed 2 2", "layer_finished 2"]
    last = events[-1]
    assert isinstance(last, TurnFailed)
    assert last.error.kind == "BudgetReached"
    assert budget.standing().reserved == 0
    assert budget.standing().spent == last.usage.total_tokens
    started = [(event.layer, event.index) for event in of_kind(events, ProposerStarted)]
    ended = of_kind(events, ProposerFinished), of_kind(events, ProposerFailed)
    assert sorted(started) == sorted((e.layer, e.index) for some in ended for e in some)


def test_closing_a_turn_of_two_layers_side_by_side_leaves_nothing_behind() -> None:
    scripts = {f"lab:{m}": [after(n + 1, "first"), after(2, "second")] for n, m in enumerate("ab")}
    clients = TimedClients({**scripts, "lab:c": [after(3, "late"), after(3, "again")]})

    async def once(count: int) -> bool:
        fold, taken = TurnFold(), 0
        async with aclosing(run_turn(PROFILE, asked(), clients)) as events:
            async for event in events:
                fold.handle(event)
                taken += 1
                if taken == count:
                    break
        fold.close()
        assert clients.open == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        turn = fold.turn()
        assert turn.status == ("finished" if isinstance(event, TurnFinished) else "interrupted")
        for number, layer in enumerate(turn.proposals, 1):
            assert {proposal.layer for proposal in layer} <= {number}
        return taken == count

    count = 1
    while run_timed(once(count)):
        clients.asked.clear()
        count += 1
    assert count > 25


def test_whoever_shows_a_turn_keeps_its_layers_apart() -> None:
    chatty = Timed([(1, "late "), (2, "words")])
    scripts = {**QUICK, "c": [chatty, after(2.5, "second c")]}
    events, _, _ = play(PROFILE, scripts)
    fold, err, notices = TurnFold(), StringIO(), StringIO()
    view, stream = TurnView(), ProposalStream()
    shown, steps, told = Proposals(err), Notices(notices, steps=True), ""
    shown.follow(fold)
    for event in events:
        for sink in (fold, shown, steps):
            sink.handle(event)
        view.apply(event)
        told += stream.take(event)
    first, second = fold.turn().proposals
    assert [proposal.text for proposal in first] == ["first a", "first b", "late words"]
    assert [proposal.text for proposal in second] == ["second a", "second b", "second c"]
    for text in (told, err.getvalue()):
        for proposal in (*first, *second):
            assert text.count(proposal.text) == 1
            head, _, _ = text.partition(proposal.text)
            assert head.rstrip("─\n ").endswith(f"{proposal.proposer} (round {proposal.layer})")
    assert notices.getvalue().count("lab:c: ") == 2
    assert [len(calls) for calls in view.layers.values()] == [3, 3]
