"""The strategy `vote`: majorities, ties, unreadable answers, and universal self-consistency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    AggregatorStarted,
    Decided,
    Event,
    LayerStarted,
    ProposerFinished,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.strategy import Decision, Placing
from moa_cli.engine.strategies.vote import read_choice
from tests.support.mixtures import asked, lab, mixture, of_kind, run
from tests.support.upstream import Reply, Upstream

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
REFUSED = Reply(status=400, error={"error": {"message": "no"}})
PROSE = ("Rain is water that falls.", "Drops fall from clouds.", "Water falls.")


def voted(
    upstream: Upstream, answers: Mapping[str, str | Reply], **settings: Any
) -> tuple[Decision, str, tuple[str, ...], list[Event]]:
    """A turn by vote: its decision, reply and losses, and all of its events.

    answers: what each model says; all but `agg` and `judge` are proposers.
    """
    for model, answer in answers.items():
        upstream.always(model, Reply(text=answer) if isinstance(answer, str) else answer)
    proposers = [model for model in answers if model not in ("agg", "judge")]
    profile = mixture(*proposers, strategy="vote", **settings)
    events = run(upstream, profile, asked("What is 6 times 7?"))
    [decided] = of_kind(events, Decided)
    [reply] = of_kind(events, AggregatorFinished)
    last = events[-1]
    assert isinstance(last, TurnFinished)
    return decided.decision, reply.text, last.lost, events


def test_the_answer_of_most_wins_in_the_words_of_the_first_that_gives_it(
    upstream: Upstream,
) -> None:
    answers = {
        "a": "It is 41.",
        "b": "6 x 7 = 42, so the answer is 42.",
        "c": "#### 42.0",
        "d": "I cannot tell.",
    }
    decision, reply, lost, events = voted(upstream, answers)
    assert reply == answers["b"]
    assert decision == Decision(
        "vote",
        "2 of 4 answer 42, 1 answers 41; 1 answer is unreadable",
        (
            Placing("lab:b", 1, "42", 2),
            Placing("lab:c", 2, "42", 2),
            Placing("lab:a", 0, "41", 1),
            Placing("lab:d", 3),
        ),
        chosen=1,
    )
    assert lost == ()
    # It is told before the reply, which costs no call, and comes in one piece.
    kinds = [type(event) for event in events]
    assert kinds[-5:-1] == [Decided, AggregatorStarted, AggregatorDelta, AggregatorFinished]
    [started] = of_kind(events, AggregatorStarted)
    assert (started.name, started.model, started.copied) == ("lab:b", "lab:b", True)
    assert sorted(request.model for request in upstream.chats()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("answers", "summary", "chosen"),
    [
        (
            ["It is 41.", "It is 42.", "It is 42.", "It is 41."],
            "2 of 4 answer 41, 2 answer 42: a tie, decided for the first in the profile",
            0,
        ),
        (["It is 42.", "\\boxed{42}", "42"], "all 3 answer 42", 0),
        (["No idea.", "42"], "1 of 2 answers 42; 1 answer is unreadable", 1),
        (["No idea.", "Nor I.", "42"], "1 of 3 answers 42; 2 answers are unreadable", 2),
        (["42"], "1 of 1 answers 42", 0),
        (
            ["1", "2", "3", "4", "5", "5"],
            "2 of 6 answer 5, 1 answers 1, 1 answers 2, 1 answers 3, 1 answers otherwise",
            4,
        ),
        (["(b)", "The answer is B.", "C"], "2 of 3 answer b, 1 answers C", 0),
    ],
)
def test_a_majority_is_told(
    upstream: Upstream, answers: list[str], summary: str, chosen: int
) -> None:
    models = dict(zip("abcdef", answers, strict=False))
    rule = "choice" if "(b)" in answers else "auto"
    decision, reply, lost, _ = voted(upstream, models, final_answer=rule)
    assert decision.summary == (summary.replace("b,", "B,") if rule == "choice" else summary)
    assert (decision.chosen, reply) == (chosen, answers[chosen])
    assert lost == ()


def test_a_rule_of_the_profile_reads_the_answers(upstream: Upstream) -> None:
    answers = {"a": '{"total": {"usd": 18}}', "b": '{"total": {"usd": 18.0}}', "c": '{"total": 9}'}
    decision, reply, _, _ = voted(upstream, answers, final_answer="json:total.usd")
    assert decision.summary == "2 of 3 answer 18; 1 answer is unreadable"
    assert reply == answers["a"]
    decision, _, _, _ = voted(
        upstream, {"a": "x=1 y=2", "b": "x=1 y=3", "c": "x=2"}, final_answer=r"regex:x=(\d)"
    )
    assert decision.summary == "2 of 3 answer 1, 1 answers 2"


def test_an_answer_that_was_cut_does_not_vote(upstream: Upstream) -> None:
    answers: dict[str, str | Reply] = {
        "a": Reply(text="First, 6 x 6 = 36", finish_reason="length"),
        "b": "It is 42.",
    }
    decision, reply, _, _ = voted(upstream, answers)
    assert decision.summary == "1 of 2 answers 42; 1 answer is unreadable"
    assert reply == "It is 42."


def test_lost_proposers_have_no_vote(upstream: Upstream) -> None:
    decision, _, lost, _ = voted(upstream, {"a": REFUSED, "b": "It is 42.", "c": "42"})
    assert decision.summary == "both answer 42"
    assert decision.chosen == 1
    assert len(lost) == 1


def test_texts_are_chosen_from_by_the_paper_s_prompt(upstream: Upstream) -> None:
    answers = {**dict(zip("abc", PROSE, strict=True)), "judge": "The most consistent response is"}
    answers["judge"] += " Response 1. It says what the others say."
    decision, reply, lost, events = voted(upstream, answers, judge="lab:judge")
    assert reply == PROSE[1]
    assert (
        decision.summary
        == "no final answer can be read from 3 proposals: lab:judge finds that of lab:b the most"
        " consistent"
    )
    assert decision.placings == (
        Placing("lab:b", 1, votes=1),
        Placing("lab:a", 0),
        Placing("lab:c", 2),
    )
    assert (decision.chosen, lost) == (1, ())
    [request] = upstream.chats("judge")
    assert request.messages == [
        {
            "role": "user",
            "content": f"""\
I have generated the following responses to the question: What is 6 times 7?

Response 0: {PROSE[0]}

Response 1: {PROSE[1]}

Response 2: {PROSE[2]}

Evaluate these responses.
Select the most consistent response based on majority consensus.
Start your answer with "The most consistent response is Response X" (without quotes).""",
        }
    ]
    assert upstream.chats("agg") == []
    assert [(event.layer, event.purpose) for event in of_kind(events, LayerStarted)] == [
        (1, ""),
        (2, "choose"),
    ]
    [*_, review] = of_kind(events, ProposerFinished)
    assert review.proposal.purpose == "choose"


def test_the_rule_text_reads_nothing_and_the_aggregator_s_model_judges(upstream: Upstream) -> None:
    answers = {"a": "42", "b": "41", "agg": "The most consistent response is Response 0"}
    decision, reply, _, _ = voted(upstream, answers, final_answer="text")
    assert reply == "42"
    told = "2 proposals are compared as texts: lab:agg finds that of lab:a the most consistent"
    assert decision.summary == told


@pytest.mark.parametrize("said", ["They are all fine.", "Response 0 or Response 1", "Response 7"])
def test_a_choice_that_cannot_be_read_leaves_the_writing_to_the_aggregator(
    upstream: Upstream, said: str
) -> None:
    answers = {**dict(zip("abc", PROSE, strict=True)), "judge": said, "agg": "Rain falls."}
    decision, reply, lost, _ = voted(upstream, answers, judge="lab:judge")
    assert reply == "Rain falls."
    assert lost == (
        "judge (choice): its answer cannot be read",
        "the choice cannot be read: the reply is written from all proposals",
    )
    assert decision.chosen is None
    told = "no final answer can be read from 3 proposals, and the judge has not chosen"
    assert decision.summary == told


def test_a_judge_that_fails_is_replaced_by_a_fallback_of_the_aggregator(
    upstream: Upstream,
) -> None:
    upstream.always("second", Reply(text="The most consistent response is Response 2."))
    answers: dict[str, str | Reply] = {**dict(zip("abc", PROSE, strict=True)), "judge": REFUSED}
    decision, reply, lost, _ = voted(
        upstream,
        answers,
        judge="lab:judge",
        aggregator=lab("agg", fallbacks=["lab:second"]),
    )
    assert reply == PROSE[2]
    assert "lab:second" in decision.summary
    assert len(lost) == 1
    assert lost[0].startswith("judge (choice): ")


def test_a_single_text_needs_no_choice(upstream: Upstream) -> None:
    decision, reply, _, _ = voted(upstream, {"a": PROSE[0]})
    assert (decision.summary, reply) == ("lab:a gave the only proposal", PROSE[0])
    assert [request.model for request in upstream.chats()] == ["a"]


def test_with_tools_the_aggregator_acts_on_the_answer_that_won(upstream: Upstream) -> None:
    answers = {"a": "It is 41.", "b": "It is 42.", "c": "42", "agg": "I say 42."}
    aggregator = lab("agg", extra={"tools": [TOOL]})
    decision, reply, _, events = voted(upstream, answers, aggregator=aggregator)
    assert (decision.chosen, reply) == (1, "I say 42.")
    [request] = upstream.chats("agg")
    [system] = [said["content"] for said in request.messages if said["role"] == "system"]
    assert system.endswith("Responses from models:\n1. It is 42.")
    assert not of_kind(events, AggregatorStarted)[0].copied


def test_without_proposals_the_turn_fails_as_ever(upstream: Upstream) -> None:
    upstream.always("a", REFUSED)
    events = run(upstream, mixture("a", strategy="vote"))
    assert isinstance(events[-1], TurnFailed)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The most consistent response is Response 2", 2),
        ("**The most consistent response is Response 2**, not Response 1.", 2),
        ('"The most consistent response is response #1."', 1),
        ("The most consistent response is: 0", 0),
        ("Response 0 and 1 differ. The most consistent response is Response 1.", 1),
        ("I choose Response 2.", 2),
        ("2", 2),
        ("Response 3", None),
        ("The most consistent response is Response 10", None),
        ("Response 0, Response 1", None),
        ("", None),
    ],
)
def test_a_choice_is_read_tolerantly(text: str, place: int | None) -> None:
    assert read_choice(text, count=3) == place


@pytest.mark.parametrize("filler", [" ", "*", "(", "response "])
def test_a_long_choice_does_not_take_forever(filler: str) -> None:
    """Were a pattern quadratic, the test would run into the suite's time limit."""
    assert read_choice("The most consistent response is" + filler * 500_000, count=3) is None
