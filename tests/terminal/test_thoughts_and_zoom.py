"""What the aggregator thinks, one proposer alone, and layers that fold into lines that fit."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from moa_cli.core.conversation import Failure
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorStarted,
    Event,
    ProposerDelta,
)
from moa_cli.terminal.board.live import Board
from moa_cli.terminal.board.screen import most_rows
from tests.support.command import Moa
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream
from tests.terminal.test_frames import (
    PLACE_KEPT,
    PROMPT,
    RAIN,
    SIZES,
    UNEVEN,
    Stage,
    done,
    layer,
    lost,
    over,
    replied,
    said,
    turn,
)

THOUGHT = "First I weigh what rain is.\n\nThen I write: " + "water that falls, " * 30


def thinking(text: str, at: float, seconds: float = 1.0) -> list[Event]:
    """The aggregator begins, and thinks word by word."""
    words = re.findall(r"\S*\s+|\S+", text)
    started = AggregatorStarted(at=at, name="agg", model="lab:agg", references=1)
    return [
        started,
        *(
            AggregatorDelta(at=at + 0.1 + seconds * n / len(words), reasoning=word)
            for n, word in enumerate(words)
        ),
    ]


def words(lines: list[str]) -> list[str]:
    return " ".join(lines).split()


@pytest.mark.parametrize(("columns", "rows"), [*SIZES, (40, 12), (50, 4)])
def test_what_the_aggregator_thinks_stands_once_above_its_reply(columns: int, rows: int) -> None:
    stage = Stage(columns, rows, reasoning=True)
    events = [*turn("a"), done(0, 0.5), over(0.5, 1, 1), *thinking(THOUGHT, 0.6, 3.0)]
    events += replied("It is.", 4.0)[1:]
    [early] = stage.play(events, 2.0)
    assert "water that falls" in " ".join(early)
    lines = stage.lines()
    start = next(place for place, line in enumerate(lines) if line == "… agg thinks:")
    assert lines[-2:] == ["", "It is."]
    assert words(lines[start + 1 : -2]) == THOUGHT.split()
    assert all(len(line) <= columns for line in lines)


def test_what_it_thinks_is_not_shown_unless_asked_for() -> None:
    stage = Stage(80, 24)
    events = [*turn("a"), done(0, 0.5), over(0.5, 1, 1), *thinking(THOUGHT, 0.6)]
    stage.play([*events, *replied("It is.", 2.0)[1:]])
    assert not any("weigh" in line for line in stage.lines())


def test_what_one_that_failed_had_thought_stays_apart_from_the_next_one_s() -> None:
    stage = Stage(80, 24, reasoning=True)
    gone = Failure("ProviderError", "it is gone (503)")
    stage.play(
        [
            *turn("a"),
            done(0, 0.5),
            over(0.5, 1, 1),
            *thinking("One thought.", 0.6, 0.5),
            AggregatorFailed(at=1.5, model="lab:agg", error=gone),
            AggregatorStarted(at=1.6, name="two", model="lab:two", references=1, fallback=True),
            AggregatorDelta(at=1.7, reasoning="Another."),
            *replied("It is.", 2.0)[1:],
        ]
    )
    assert stage.lines()[2:] == [
        "… agg thinks:",
        "  One thought.",
        "✗ lab:agg: it is gone (503)",
        "↻ lab:two replies in its place",
        "… two thinks:",
        "  Another.",
        "",
        "It is.",
    ]


@pytest.mark.parametrize("kind", UNEVEN)
def test_no_thought_is_wider_than_the_screen_or_acts_on_it(kind: str) -> None:
    stage = Stage(60, 20, reasoning=True)
    events = [*turn("a"), done(0, 0.5), over(0.5, 1, 1), *thinking(UNEVEN[kind], 0.6)]
    stage.play([*events, *replied("It is.", 2.0)[1:]])
    ours = r"\x1b\[(?:\?(?:2026|25|7)[hl]|[0-9;]*m|[0-9]*[KJ]|\d+[AB])"
    assert "\x1b" not in re.sub(f"{ours}|{PLACE_KEPT}", "", stage.raw)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f\u202e]", stage.raw)
    assert stage.lines()[0] == PROMPT


@pytest.mark.parametrize("options", [["--no-live"], ["--plain", "--no-live"]])
def test_in_plain_lines_it_stands_under_its_name(
    moa: Moa, upstream: Upstream, options: list[str]
) -> None:
    thought = ["Hm\x1b[2J, ", "let me\n", "\x9b31m", "see."]
    upstream.always("agg", Reply(text="It *is*.", reasoning=thought))
    ran = moa.run("ask", "hi", "--show-reasoning", *options)
    assert ran.out == b"It *is*.\n"
    assert "moa: lab:agg thinks:\nHm, let me\nsee.\n" in ran.err
    assert "\x1b" not in ran.err
    assert "see." not in moa.run("ask", "hi", *options).err
    assert "see." not in moa.run("ask", "hi", "--show-reasoning", "-q").err


def test_at_a_terminal_it_is_seen_in_the_plain_reply_too(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="It *is*.", reasoning=["Let me ", "see."]))
    with moa.terminal("ask", "hi", "--plain", "--show-reasoning") as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[-4:] == ["… lab:agg thinks:", "  Let me see.", "", "It *is*."]


def zooming(stage: Stage) -> Callable[[], None]:
    [board] = [sink for sink in stage.sinks if isinstance(sink, Board)]
    return board.zoom


@pytest.mark.parametrize(("columns", "rows"), [(40, 12), (80, 24), (120, 40), (200, 60)])
def test_one_proposer_can_be_read_alone_while_it_writes(columns: int, rows: int) -> None:
    stage = Stage(columns, rows)
    zoom = zooming(stage)
    events = [*turn("alpha", "beta"), *said(0, RAIN * 40, seconds=4.0), *said(1, "It is wet.")]
    acts = [(1.05, zoom), (2.05, zoom), (3.05, zoom)]
    before, first, second, after = stage.play(events, 1.0, 1.95, 2.95, 3.95, acts=acts)
    assert "alpha (1 of 2)" in first[0]
    assert len(first) == most_rows((columns, rows))
    assert all(line.startswith("│") for line in first[1:-2])
    assert "beta (2 of 2)" in second[0]
    assert "It is wet." in " ".join(second)
    assert (len(after), "(" in after[0]) == (len(before), False)
    assert stage.lines() == [PROMPT]


def test_what_a_proposer_thinks_stands_apart_from_what_it_writes() -> None:
    stage = Stage(80, 24, reasoning=True)
    thought: Event = ProposerDelta(layer=1, index=0, at=0.2, reasoning="I weigh it.")
    events = [*turn("alpha"), thought, *said(0, "Rain is water.")]
    [frame] = stage.play(events, 1.95, acts=[(1.05, zooming(stage))])
    rows = [line.strip("│ ") for line in frame[1:4]]
    assert rows == ["I weigh it.", "", "Rain is water."]


def test_a_zoom_ends_with_its_layer() -> None:
    stage = Stage(80, 24)
    zoom = zooming(stage)
    events = [*turn("a", "b", rounds=2), *said(0, RAIN), done(0, 1.5), done(1, 1.6)]
    events += [over(1.7, 2, 2), layer("a", "b", number=2, at=1.7)]
    zoomed, later = stage.play(events, 1.2, 2.2, acts=[(1.05, zoom)])
    assert "a (1 of 2)" in zoomed[0]
    assert later[0].startswith("· a  waiting")


def test_before_and_behind_the_proposers_there_is_nothing_to_zoom() -> None:
    stage = Stage(80, 24)
    zoom = zooming(stage)
    events = [*turn("a"), done(0, 0.5), over(0.5, 1, 1), *replied("It is.", 0.6)]
    stage.play(events, acts=[(0.0, zoom), (0.9, zoom), (1.5, zoom)])
    assert stage.lines()[-2:] == ["", "It is."]


def test_a_key_zooms_in_the_chat_and_is_no_part_of_the_next_prompt(
    moa: Moa, upstream: Upstream
) -> None:
    for name in "abc":
        upstream.always(name, Reply(text=f"{name} writes " + RAIN * 3, stall_after=8))
    with moa.terminal("chat", columns=100) as terminal:
        at_empty_prompt(terminal)
        terminal.send("hi\r")
        terminal.wait_for("Ctrl-O: zoom")
        for place, name in enumerate("abc", 1):
            terminal.send("\x0f")
            terminal.wait_for(f"lab:{name} ({place} of 3)")
        terminal.send("\x0f")
        terminal.wait_for(lambda: not any("of 3)" in line for line in terminal.shown()))
        terminal.send("\x1b")
        terminal.wait_for("calls, ")
        # A turn that was cancelled gives the prompt back.
        terminal.wait_for(lambda: terminal.shown().count("› hi") == 2)
        assert not any("of 3)" in line for line in terminal.lines())


LONG_NAME = "provider:some-family-of-models-70b-instruct"


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("compact", [False, True])
def test_a_layer_folds_into_lines_that_fit(columns: int, compact: bool) -> None:
    stage = Stage(columns, 24, compact=compact)
    names = [f"{LONG_NAME}-{n}" for n in range(5)]
    events = turn(*names)
    events += [event for n in range(5) for event in said(n, RAIN)]
    events += [done(n, 12.5 + n / 10, tokens=12345) for n in range(5)]
    stage.play([*events, over(13.0, 5, 5), *replied("It is.", 13.1)])
    folded = stage.lines()[1:-2]
    assert len(folded) == (1 if compact else 5)
    assert all(len(line) <= columns for line in folded)
    if compact:
        assert folded[0].startswith("round 1: 5 of 5 answered in 13.0 s")
        assert (" more)" in folded[0]) == (columns >= 120)


def test_why_a_proposer_failed_is_told_whole() -> None:
    stage = Stage(60, 24)
    why = "the provider is overloaded (503), after 3 attempts in 42 seconds"
    stage.play([*turn("a", "b"), done(0, 0.5), lost(1, 1.0, why), over(1.1, 1, 2)])
    assert why in " ".join(" ".join(stage.lines()).split())
