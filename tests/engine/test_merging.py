"""What of a turn a reply can be written from later, and which turn of a conversation it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moa_cli.core.conversation import Charge, Failure, Proposal, Turn, Usage
from moa_cli.engine.merging import last_turn, mergeable, merged

SENTENCE = "Rain falls from clouds. It is w"


def proposal(text: str, kind: str | None = None, layer: int = 1) -> Proposal:
    """A proposal that is whole, or ended by a failure of that kind."""
    error = Failure(kind, "why") if kind else None
    return Proposal(layer, 0, "a", "lab:a", text, error=error)


def texts(*layers: list[Proposal]) -> list[str]:
    """The texts of what can be merged."""
    return [found.text for found in mergeable(layers)]


def test_all_whole_answers_of_the_last_layer_are_merged() -> None:
    first, second = [proposal("1a"), proposal("1b")], [proposal("2a"), proposal("2b")]
    assert texts(first, second) == ["2a", "2b"]


def test_a_layer_without_a_whole_answer_leaves_the_one_before() -> None:
    first = [proposal("1a"), proposal("1b")]
    assert texts(first, [proposal(SENTENCE, "Interrupted"), proposal("", "Interrupted")]) == [
        "1a",
        "1b",
    ]
    assert texts(first, []) == ["1a", "1b"]


def test_one_whole_answer_of_the_last_layer_counts_with_the_unfinished_beside_it() -> None:
    first = [proposal("1a"), proposal("1b")]
    assert texts(first, [proposal("2a"), proposal(SENTENCE, "Abandoned")]) == ["2a", SENTENCE]


@pytest.mark.parametrize(
    "kind", ["Abandoned", "BudgetReached", "ConnectionLost", "Interrupted", "Straggler"]
)
def test_unfinished_texts_count_where_a_sentence_has_come(kind: str) -> None:
    [found] = mergeable([[proposal(SENTENCE, kind), proposal("Rain falls", kind)]])
    assert (found.text, found.unfinished, found.error) == (SENTENCE, True, None)


def test_a_layer_of_texts_that_were_used_unfinished_is_none_of_whole_answers() -> None:
    used = replace(proposal(SENTENCE), unfinished=True)
    assert texts([proposal("1a")], [used]) == ["1a"]
    assert texts([used]) == [SENTENCE]


@pytest.mark.parametrize("kind", ["AnswerRefused", "ContentFiltered", "RequestRefused"])
def test_what_was_refused_or_filtered_is_no_answer(kind: str) -> None:
    assert texts([proposal(SENTENCE, kind)]) == []


def test_reasoning_is_no_answer() -> None:
    assert texts([proposal(f"<think>{SENTENCE}", "Interrupted")]) == []
    assert texts() == []


def test_a_merged_turn_holds_what_all_its_calls_took() -> None:
    one = Usage(10, 5, calls=1)
    layers = ((proposal("1a"),), (proposal("2a", layer=2),))
    before = Turn("hi", status="failed", proposals=layers, usage=one, ledger=(Charge(1, "a", one),))
    turn = Turn("hi", "reply", "finished", usage=one, ledger=(Charge(1, "agg", one),))
    whole = merged(before, turn)
    assert (whole.reply, whole.status, whole.proposals) == ("reply", "finished", layers)
    assert whole.usage == one + one
    assert [(charge.layer, charge.model) for charge in whole.ledger] == [(1, "a"), (3, "agg")]


def test_the_last_turn_is_the_last_that_left_something() -> None:
    old = Turn("hi", "old", "finished")
    failed = Turn("hi", status="failed", proposals=((proposal("a"),),))
    in_vain = Turn("hi", status="interrupted", asks_again=True)
    running = Turn("hi", status="open")
    other = Turn("more", status="failed")
    assert last_turn([old, in_vain]) is old
    assert last_turn([failed, in_vain, in_vain, running]) is failed
    assert last_turn([old, other]) is other
    assert last_turn([old, failed]) is failed
    assert last_turn([running]) is last_turn([]) is None
