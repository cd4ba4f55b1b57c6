"""The board: whatever proposers are called and write, at every size of terminal, its lines are
no wider than the terminal and no more than half as many as its rows, and hold nothing that
could act on it but colours."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from moa_cli.core.conversation import Failure, Proposal, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorStarted,
    Caller,
    Event,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    Retrying,
    TurnStarted,
)
from moa_cli.core.sanitize import sanitize
from moa_cli.terminal.board.drawing import board_lines, call_summary
from moa_cli.terminal.board.live import console_for
from moa_cli.terminal.board.view import TurnView
from moa_cli.terminal.line import Styles

SIZES = [(60, 20), (80, 24), (120, 40)]
COUNTS = [1, 3, 6, 12]
COLOUR = re.compile(r"\x1b\[[\d;]*m")
HOSTILE = "a\x1b]52;c;eA==\x07b\x1b[2J\x1b[9;9Hc\x9b31md\u202ee\U000e0041f\rg\x00h"
MARKUP = "arr[i] [/INST] [red]x[/red] :smile:"
WIDE = "漢字かな交じり文と絵文字😀👩‍👩‍👧⚠️🏽é" * 9
STATES = ("waiting", "thinking", "streaming", "retrying", "failed", "done")


def turn(names: list[str], rounds: int = 1) -> TurnView:
    """A turn whose first layer has begun."""
    view = TurnView()
    callers = tuple(Caller(name=name, model=name) for name in names)
    started = TurnStarted(profile="p", prompt="hi", rounds=rounds, aggregator="agg")
    return told(view, started, LayerStarted(layer=1, proposers=callers))


def told(view: TurnView, *events: Event) -> TurnView:
    """The view after these events."""
    for event in events:
        view.apply(event)
    return view


def wrote(index: int, text: str, at: float = 1.0) -> ProposerDelta:
    """A piece of an answer."""
    return ProposerDelta(at=at, layer=1, index=index, text=text)


def failed(index: int, message: str) -> ProposerFailed:
    """A proposer is lost."""
    error = Failure("RequestRefused", message)
    proposal = Proposal(1, index, "name", "model", "", error=error)
    return ProposerFailed(at=2.0, layer=1, index=index, proposal=proposal)


def finished(index: int, tokens: int) -> ProposerFinished:
    """A proposer has answered."""
    usage = Usage(completion_tokens=tokens)
    proposal = Proposal(1, index, "name", "model", "text", usage=usage)
    return ProposerFinished(at=3.0, layer=1, index=index, proposal=proposal)


def brought(view: TurnView, index: int, state: str, text: str) -> TurnView:
    """The view with that proposer in that state."""
    error = Failure("RateLimited", text)
    again = Retrying(layer=1, index=index, model="m", attempt=2, delay=3.0, error=error)
    events: dict[str, list[Event]] = {
        "waiting": [],
        "thinking": [ProposerDelta(at=1.0, layer=1, index=index, reasoning=text)],
        "streaming": [wrote(index, text), wrote(index, text, 1.5)],
        "retrying": [again],
        "failed": [failed(index, text)],
        "done": [wrote(index, text), finished(index, 1234)],
    }
    return told(view, *events[state])


def drawn(view: TurnView, size: tuple[int, int], now: float = 4.0, hint: str = "") -> list[str]:
    """The board without its colours; its promises are kept."""
    lines = board_lines(Styles(console_for(io.StringIO())), view, now, size, hint)
    plain = [COLOUR.sub("", line) for line in lines]
    width, height = size
    assert len(lines) <= max(1, height // 2)
    for line in plain:
        assert cell_len(line) <= width
        assert sanitize(line) == line
        assert "\n" not in line
        assert "\t" not in line
    return plain


def test_the_figures_of_a_call_mark_estimates() -> None:
    usage = Usage(completion_tokens=18, estimated_completion_tokens=18, estimated_calls=1, calls=1)
    for used, shown in ((usage, "~18 tok · ~$0.25"), (Usage(9, 18, calls=1), "18 tok · $0.25")):
        proposal = Proposal(1, 0, "a", "m", "text", usage=replace(used, cost=0.25))
        view = told(turn(["a"]), ProposerFinished(at=3.0, layer=1, index=0, proposal=proposal))
        assert f" · {shown}" in "\n".join(drawn(view, (80, 10)))


@pytest.mark.parametrize(
    "size", [(36, 20), (52, 20), (60, 20), (80, 24), (140, 40), (80, 5), (80, 6)]
)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rounds", [1, 2])
def test_what_the_key_does_is_said_at_the_end(
    size: tuple[int, int], count: int, rounds: int
) -> None:
    hint = "Ctrl-C: write the reply now"
    view = turn([f"lab:model-{number}" for number in range(count)], rounds)
    said = (hint,) if size[0] >= 80 else (hint, "Ctrl-C: enough")
    assert drawn(view, size, hint=hint)[-1].endswith(said)
    started = AggregatorStarted(name="lab:agg", model="lab:agg", references=count)
    assert drawn(told(view, started), size, hint=hint)[-1].endswith(said)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("text", [HOSTILE, MARKUP, WIDE, "x" * 5000, "\n" * 50, "a\tb\t\n" * 9])
def test_every_state_fits_at_every_size(size: tuple[int, int], count: int, text: str) -> None:
    view = turn([f"{text[:60]} {number}" for number in range(count)])
    for state in STATES:
        for index in range(count):
            view = brought(view, index, state, text)
        assert drawn(view, size, hint="Esc: cancel")


@given(
    st.lists(st.tuples(st.text(max_size=50), st.sampled_from(STATES), st.text()), min_size=1),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(1, 60),
)
def test_whatever_is_said_fits_and_is_harmless(
    calls: list[tuple[str, str, str]], rounds: int, width: int, height: int
) -> None:
    view = turn([name for name, _, _ in calls], rounds)
    for index, (_, state, text) in enumerate(calls):
        view = brought(view, index, state, text)
    drawn(view, (width, height), hint="Ctrl-C: write the reply now")


@pytest.mark.parametrize("count", [1, 3, 6])
def test_on_a_large_terminal_each_proposer_has_a_panel(count: int) -> None:
    view = turn([f"model-{number}" for number in range(count)])
    for index in range(count):
        view = brought(view, index, "streaming", f"words of {index}")
    text = "\n".join(drawn(view, (120, 40)))
    assert text.count("╭─ ▸ ") == text.count("╰") == count
    for index in range(count):
        assert f"▸ model-{index} " in text
        assert f"words of {index}" in text


@pytest.mark.parametrize("size", [(60, 20), (80, 24)], ids=str)
@pytest.mark.parametrize("count", [1, 3, 6])
def test_on_a_small_one_each_has_a_row(size: tuple[int, int], count: int) -> None:
    view = turn([f"model-{number}" for number in range(count)])
    for index in range(count):
        view = brought(view, index, "streaming", f"words of {index} ")
    rows = drawn(view, size)
    status = rows.pop()
    assert status.startswith(f"▸ round 1: 0 of {count} answered · 4.0 s")
    assert len(rows) == count
    for index, row in enumerate(rows):
        assert row.startswith(f"▸ model-{index}  4.0 s · ~2 tok")


def test_where_not_all_have_a_row_those_at_work_have_one() -> None:
    view = turn([f"model-{number}" for number in range(12)])
    for index in range(8):
        view = brought(view, index, "done", "text")
    rows = drawn(view, (60, 20))
    assert len(rows) == 10
    assert [row.split()[1] for row in rows[:4]] == [f"model-{index}" for index in (8, 9, 10, 11)]
    assert rows[-2] == "… and 4 more"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_states_are_told_apart(size: tuple[int, int]) -> None:
    view = turn(list(STATES))
    for index, state in enumerate(STATES):
        view = brought(view, index, state, "some words")
    text = "\n".join(drawn(view, size))
    for mark, state in zip("·…▸↻✗✓", STATES, strict=True):
        assert f"{mark} {state}" in text
    assert "again in 3 s: some words" in text
    assert "1234 tok" in text
    assert "~2 tok" in text


def test_a_failure_says_why_and_markup_in_it_is_text() -> None:
    view = brought(turn(["a"]), 0, "failed", MARKUP)
    for size in SIZES:
        assert MARKUP in "\n".join(drawn(view, size))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_cut_answer_is_marked_and_says_so_when_the_layer_has_ended(
    size: tuple[int, int],
) -> None:
    view = turn(["a", "b"])
    cut = Proposal(1, 0, "a", "a", "half of", finish_reason="length")
    view = told(view, ProposerFinished(at=2.0, layer=1, index=0, proposal=cut))
    assert "cut" in "\n".join(drawn(view, size))
    summary = call_summary(view.proposers[0], 2.0).plain
    assert "cut at the token limit (max_tokens)" in summary
    assert "cut" not in call_summary(view.proposers[1], 2.0).plain


def test_a_panel_shows_the_end_of_what_was_written() -> None:
    view = turn(["a"])
    for number in range(100):
        told(view, wrote(0, f"line {number}\n"))
    told(view, wrote(0, "the last"))
    text = "\n".join(drawn(view, (120, 40)))
    assert "the last" in text
    assert "line 99" in text
    assert "line 9 " not in text


def test_what_a_model_thinks_is_counted_and_not_shown() -> None:
    view = brought(turn(["a"]), 0, "thinking", "a secret thought")
    for size in SIZES:
        text = "\n".join(drawn(view, size))
        assert "thinking" in text
        assert "secret" not in text


def test_tokens_are_about_until_the_endpoint_has_counted_them() -> None:
    view = brought(turn(["a"]), 0, "streaming", "x")
    assert "~2 tok" in drawn(view, (80, 24))[0]
    assert "1234 tok" in drawn(told(view, finished(0, 1234)), (80, 24))[0]
    assert "~" not in drawn(view, (80, 24))[0]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_while_the_reply_is_waited_for_one_line_tells_what_is_read(size: tuple[int, int]) -> None:
    view = told(turn(["a"]), AggregatorStarted(name="agg", model="agg", references=3, at=3.0))
    assert drawn(view, size) == ["· agg  waiting · 4.0 s · reading 3 proposals"]
    told(view, AggregatorDelta(at=3.5, reasoning="hm"))
    [line] = drawn(view, size)
    assert line.startswith("… agg  thinking · 4.0 s · ~1 tok")


def test_before_a_layer_has_begun_the_status_line_is_there_alone() -> None:
    for size in SIZES:
        assert drawn(TurnView(), size) == ["· preparing · 4.0 s"]
