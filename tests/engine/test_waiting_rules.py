"""Any mixture of quick, slow, silent and refused proposers is waited for as a simple model of the
rules says: second by second, proposer by proposer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.conversation import Usage
from moa_cli.core.events import (
    AggregatorStarted,
    LayerFinished,
    ProposerFailed,
    ProposerFinished,
    TurnFailed,
    TurnFinished,
)
from moa_cli.engine import Budget, Cap, Limits
from moa_cli.profile import Profile, build
from tests.support.mixtures import lab, of_kind
from tests.support.timed import HANGS, Timed, after, play, refused

# Of a call before its first token, and between tokens; longer than any quorum and patience.
FIRST_TOKEN, STALL = 40.0, 30.0
SENTENCE = "Rain is water that falls."


@dataclass(frozen=True)
class Behaviour:
    """What a proposer does. at: when it answers, is refused, or has said its last word."""

    kind: str
    at: float

    def script(self) -> Timed:
        """The same for the endpoint."""
        if self.kind == "answers":
            return after(self.at, "a whole answer")
        if self.kind == "refused":
            return refused(self.at)
        if self.kind == "silent":
            return HANGS
        text = SENTENCE if self.kind == "writes" else "A word"
        return Timed([(self.at, text)], hangs=True)

    @property
    def end(self) -> float:
        """When its call ends if nobody cuts it off."""
        if self.kind == "silent":
            return FIRST_TOKEN
        return self.at if self.kind in ("answers", "refused") else self.at + STALL


@dataclass
class Outcome:
    """What the rules say of a layer: when it ends, and what becomes of each proposer."""

    seconds: float
    fates: list[str]


def rules(
    behaviours: list[Behaviour],
    asked: list[bool],
    quorum: int | None,
    patience: float,
    partial: bool,
) -> Outcome:
    """The rules, as the documentation tells them."""
    there = [behaviour for behaviour, ask in zip(behaviours, asked, strict=True) if ask]
    ends = [behaviour.end for behaviour in there]
    over = max(ends, default=0.0)
    answers = sorted(behaviour.at for behaviour in there if behaviour.kind == "answers")
    if quorum is not None and there:
        needed = min(quorum, len(there))
        if len(answers) >= needed:
            over = min(over, answers[needed - 1] + patience)
    fates = []
    for behaviour, ask in zip(behaviours, asked, strict=True):
        if not ask:
            fates.append("NotAsked")
        elif behaviour.kind == "answers" and behaviour.end <= over:
            fates.append("whole")
        elif behaviour.kind == "refused" and behaviour.end <= over:
            fates.append("RequestRefused")
        elif partial and behaviour.kind == "writes" and behaviour.at <= over:
            fates.append("unfinished")
        else:
            fates.append("ClientTimeout" if behaviour.end <= over else "Straggler")
    return Outcome(over, fates)


def is_silent(behaviour: Behaviour, fate: str, over: float) -> bool:
    """Whether the model of a proposer is not asked again."""
    spoke = behaviour.kind in ("writes", "mumbles") and behaviour.at <= over
    timed_out = behaviour.end <= over and behaviour.kind not in ("answers", "refused")
    return timed_out or (fate == "Straggler" and not spoke)


@st.composite
def layers(draw: st.DrawFn) -> list[list[Behaviour]]:
    """What each proposer does in each of one to three layers; no two things happen at once."""
    count, rounds = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    moments = draw(
        st.lists(
            st.integers(1, 2000), min_size=count * rounds, max_size=count * rounds, unique=True
        )
    )
    kinds = st.sampled_from(["answers", "answers", "refused", "silent", "writes", "mumbles"])
    # Off the grid of the patience, so that nothing ends in the moment of its end.
    behaviours = [Behaviour(draw(kinds), moment / 100 + 0.0042) for moment in moments]
    return [behaviours[start : start + count] for start in range(0, len(behaviours), count)]


def profile_of(played: list[list[Behaviour]], **values: Any) -> Profile:
    count = len(played[0])
    proposers = [lab(f"m{index}") for index in range(count)]
    return build("mixture", {"aggregator": lab("agg"), "proposers": proposers, **values})


@given(
    layers(),
    st.none() | st.integers(1, 5),
    st.sampled_from([0.0, 0.5, 3.0, 12.0]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_layer_is_waited_for_as_the_rules_say(
    played: list[list[Behaviour]], quorum: int | None, patience: float, partial: bool
) -> None:
    values: dict[str, Any] = {"rounds": len(played), "patience": patience, "use_partial": partial}
    if quorum is not None:
        values["quorum"] = quorum
    asked = [True] * len(played[0])
    now, references, outcomes = 0.0, 0, []
    calls: list[list[Timed]] = [[] for _ in asked]
    for behaviours in played:
        outcome = rules(behaviours, asked, quorum, patience, partial)
        outcomes.append(outcome)
        now += outcome.seconds
        for index, behaviour in enumerate(behaviours):
            if asked[index]:
                calls[index].append(behaviour.script())
        for index, (behaviour, fate) in enumerate(zip(behaviours, outcome.fates, strict=True)):
            if asked[index] and is_silent(behaviour, fate, outcome.seconds):
                asked[index] = False
        given_here = sum(fate in ("whole", "unfinished") for fate in outcome.fates)
        if "whole" not in outcome.fates and (references or not given_here):
            break
        references = given_here
    scripts = {f"m{index}": some or [HANGS] for index, some in enumerate(calls)}
    budget = Budget(Cap("--max-total-tokens", "tokens", 10**6), "turns")
    limits = Limits(first_delay=0.001, budgets=(budget,))
    events, times, clients = play(profile_of(played, **values), scripts, limits=limits)
    ended = [
        at for event, at in zip(events, times, strict=True) if isinstance(event, LayerFinished)
    ]
    assert len(ended) == len(outcomes)
    assert ended[-1] == pytest.approx(now, abs=0.001 * len(ended))
    told: dict[tuple[int, int], str] = {}
    closed: list[ProposerFinished | ProposerFailed] = [
        *of_kind(events, ProposerFinished),
        *of_kind(events, ProposerFailed),
    ]
    for event in closed:
        error = event.proposal.error
        whole = "unfinished" if event.proposal.unfinished else "whole"
        told[event.layer, event.index] = error.kind if error is not None else whole
    assert told == {
        (number, index): fate
        for number, outcome in enumerate(outcomes, 1)
        for index, fate in enumerate(outcome.fates)
    }
    started = of_kind(events, AggregatorStarted)
    assert [event.references for event in started] == ([references] if references else [])
    last = events[-1]
    assert isinstance(last, TurnFinished if references else TurnFailed)
    assert isinstance(last, TurnFinished | TurnFailed)
    lost = sum(fate != "whole" for outcome in outcomes for fate in outcome.fates)
    assert len([line for line in last.lost if line.startswith("lab:m")]) == lost
    # What all calls took is booked, and nothing stays reserved.
    made = sum((event.proposal.usage for event in closed), Usage())
    assert last.usage.calls == made.calls + bool(references)
    assert budget.standing().spent == last.usage.total_tokens
    assert budget.standing().reserved == 0
    assert clients.open == 0
