"""Reviews on a terminal: each layer by what it asks for, a copied reply with whose words it is,
and how the strategy decided in one line at the end."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace

from moa_cli.core.events import Event
from moa_cli.terminal.board.live import Board
from moa_cli.terminal.decision import decision_line
from moa_cli.terminal.plain import Notices, Proposals, Waiting
from tests.support.reviews import (
    DECISION,
    copied,
    council,
    delivered,
    finished,
    layer,
    reply,
    started,
)

DECIDED = (
    "council: 2 of 3 rankings count;"
    " round 2 was not needed: all are alike (3 calls and about $0.010 saved);"
    " a check was not needed: all are alike (1 call and about $0.0020 saved)"
    " (in all 4 calls and about $0.012 saved)"
)


def notices(events: Sequence[Event], *, steps: bool) -> list[str]:
    """The plain lines of a turn."""
    err = io.StringIO()
    delivered(events, Notices(err, steps=steps))
    return [line.removeprefix("moa: ") for line in err.getvalue().splitlines()]


def board(events: Sequence[Event], size: tuple[int, int] = (80, 24)) -> str:
    """What a board leaves on the screen, without colours."""
    err = io.StringIO()
    delivered(events, Board(err, size=lambda: size))
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", err.getvalue())


def test_the_steps_are_named_by_what_they_ask_for() -> None:
    told = notices(council(), steps=True)
    assert "round 1: asking a, b, c" in told
    assert "ranking: asking a, b, c" in told
    assert "lost the ranking of b: lab:b: status 500" in told
    assert "ranking: 2 of 3 answered in 2.0 s" in told
    assert "report: asking a" in told
    assert told[-1] == DECIDED


def test_without_the_steps_the_decision_is_told_all_the_same() -> None:
    assert notices(council(), steps=False) == [
        "degraded, lost b (ranking): lab:b: status 500",
        DECIDED,
    ]


def test_whose_words_a_copied_reply_is_stands_before_it() -> None:
    told = notices(copied(), steps=True)
    assert told[-2:] == ["the words of b", "vote: 2 of 3 answer 42"]
    left = board(copied())
    assert left.index("the words of b") < left.index("vote: 2 of 3 answer 42")


def test_a_review_that_was_cut_is_no_proposal_that_was_cut() -> None:
    events = [
        started(),
        *layer(1, ["x", "y"]),
        *layer(2, ["all agr"], "compare", finish_reason="length"),
        *reply(),
        finished(4),
    ]
    assert notices(events, steps=False) == [
        "the comparison of a was cut at the token limit (max_tokens)"
    ]


def test_a_layer_that_begins_again_asks_only_those_who_are_new() -> None:
    events = [
        started(),
        *layer(1, ["easy"]),
        *layer(1, ["easy", "hard", "hard too"], known=1),
        *reply(),
        finished(4),
    ]
    told = notices(events, steps=True)
    assert [line for line in told if "asking" in line] == [
        "round 1: asking a",
        "round 1: asking b, c",
    ]
    shown = io.StringIO()
    delivered(events, Proposals(shown), Waiting(shown, lambda: "Esc", None))
    assert [shown.getvalue().count(f"── {name} (round 1)") for name in "abc"] == [1, 1, 1]
    left = board(events)
    assert [len(re.findall(rf"✓ {name} ", left)) for name in "abc"] == [1, 1, 1]


def test_proposals_and_reviews_are_shown_under_what_they_are() -> None:
    shown = io.StringIO()
    delivered(council(), Proposals(shown))
    heads = re.findall(r"── (.+?) ─", shown.getvalue())
    assert heads == [
        *("a (round 1)", "b (round 1)", "c (round 1)"),
        *("a (ranking)", "c (ranking)", "a (report)"),
    ]


def test_the_board_folds_reviews_under_their_name_and_ends_with_the_decision() -> None:
    for size in ((80, 24), (120, 40), (40, 12)):
        left = board(council(), size)
        assert "ranking: 2 of 3 answered in 2.0 s" in left
        assert "report: 1 of 1 answered in 2.0 s" in left
        assert left.count("council: 2 of 3 rankings") == 1
        assert left.rindex("report:") < left.rindex("council:")


def test_what_one_skipped_step_saved_is_told_once() -> None:
    decision = replace(DECISION, skipped=DECISION.skipped[:1], saved_calls=3, saved_cost=0.01)
    assert decision_line(decision).count("saved") == 1


def test_nothing_is_told_of_a_turn_without_a_strategy_of_its_own() -> None:
    events = [started(), *layer(1, ["x"]), *reply(), finished(2)]
    assert notices(events, steps=False) == []
