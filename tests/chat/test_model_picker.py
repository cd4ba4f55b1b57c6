"""Choosing models from what providers list, at a real terminal: what is shown of each, what typing
leaves, and that nothing changes before Enter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.command import KEY, Moa, Terminal
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

KEYS = "Ctrl-A aggregator"
FILLERS: list[dict[str, object]] = [{"id": f"filler-{number}"} for number in range(30)]
MODELS: list[dict[str, object]] = [
    {"id": "org/rain-70b", "context_length": 8192, "pricing": {"input": 0.6, "output": 1.2}},
    {"id": "org/Sun-mini", "context_length": 131072},
    {"id": "embed-3"},
    {"id": "evil\x1b[2Jname"},
    *FILLERS,
]


@pytest.fixture
def offering(moa: Moa, upstream: Upstream) -> Moa:
    """A machine whose provider `lab` lists MODELS."""
    upstream.models_reply = Reply(error={"object": "list", "data": MODELS})
    return moa


@contextmanager
def picker(moa: Moa, line: str = "/model", columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """A chat that shows the list of models, which is read by then."""
    with moa.terminal("chat", columns=columns, rows=rows) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{line}\r")
        terminal.wait_for("Models:")
        terminal.wait_for("rain-70b")
        yield terminal


def listed(terminal: Terminal) -> list[list[str]]:
    """The rows of the list, word by word."""
    lines = terminal.shown()
    start = next(place for place, line in enumerate(lines) if line.startswith("Models:"))
    return [line.split() for line in lines[start + 1 :] if "lab:" in line and " · " not in line]


def test_all_models_are_shown_with_context_and_prices(offering: Moa) -> None:
    with picker(offering) as terminal:
        rows = listed(terminal)
        assert rows[0] == ["›", "P", "lab:a", "?", "?", "?"]
        assert rows[3] == ["A", "lab:agg", "?", "?", "?"]
        assert rows[4] == ["lab:org/rain-70b", "8,192", "0.60", "1.20"]
        assert rows[5] == ["lab:org/Sun-mini", "131,072", "?", "?"]
        text = "\n".join(terminal.shown())
        assert "Tab proposer · Ctrl-A aggregator · Enter makes it A · Esc leaves" in text
        assert "embed" not in text
        assert "evil" not in text


def test_enter_makes_the_marked_model_the_aggregator(offering: Moa) -> None:
    with picker(offering) as terminal:
        terminal.send("RAIN lab")
        terminal.wait_for(lambda: len(listed(terminal)) == 1)
        terminal.send("\r")
        terminal.wait_for("aggregator: lab:org/rain-70b")
        terminal.wait_for("round 1: lab:a, lab:b, lab:c")
        at_empty_prompt(terminal)
        assert KEYS not in "\n".join(terminal.lines())


def test_tab_and_ctrl_a_choose_proposers_and_aggregator(offering: Moa, upstream: Upstream) -> None:
    with picker(offering) as terminal:
        # The proposer a out, the next one in the list too; rain in, and the sun writes.
        terminal.send("\t\x1b[B\t\x1b[B\x1b[B\x1b[B\t\x1b[B\x01")
        terminal.wait_for("P proposers: lab:c, lab:org/rain-70b · A: lab:org/Sun-mini")
        terminal.wait_for("Enter uses these")
        terminal.send("\r")
        terminal.wait_for("round 1: lab:c, lab:org/rain-70b")
        at_empty_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
    assert len(upstream.chats("org/Sun-mini")) == 1
    assert len(upstream.chats("org/rain-70b")) == 1
    assert upstream.chats("a") == []


@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x04"])
def test_leaving_the_list_changes_nothing(offering: Moa, key: str) -> None:
    with picker(offering) as terminal:
        terminal.send("\t\x01")
        terminal.wait_for("Enter uses these")
        terminal.send(key)
        at_empty_prompt(terminal)
        terminal.send("/models\r")
        terminal.wait_for("round 1: lab:a, lab:b, lab:c")
        terminal.wait_for("aggregator: lab:agg")


def test_the_last_proposer_cannot_be_taken_away(offering: Moa) -> None:
    with picker(offering) as terminal:
        terminal.send("\t\x1b[B\t\x1b[B\t")
        terminal.wait_for("P proposers: none")
        terminal.send("\r")
        terminal.wait_for("the last proposer of a round cannot be dropped")
        at_empty_prompt(terminal)
        terminal.send("/models\r")
        terminal.wait_for("round 1: lab:a, lab:b, lab:c")


def test_words_behind_the_command_narrow_the_list(offering: Moa) -> None:
    with picker(offering, "/model rain") as terminal:
        terminal.wait_for("1/1")
        assert len(listed(terminal)) == 1
        terminal.send("!\x1b[A")
        terminal.wait_for("no listed model matches")
        terminal.send("\r\x1b")
        at_empty_prompt(terminal)


@pytest.mark.parametrize(("columns", "rows"), [(200, 50), (40, 12), (40, 6)])
def test_the_list_fits_the_terminal(offering: Moa, columns: int, rows: int) -> None:
    with picker(offering, "/model rain", columns=columns, rows=rows) as terminal:
        assert max(map(len, terminal.shown())) <= columns
        terminal.send("\r")
        terminal.wait_for("aggregator:")


def test_a_list_that_cannot_be_read_is_told_of(moa: Moa, upstream: Upstream) -> None:
    upstream.models_reply = Reply(status=401, error={"error": {"message": "bad key"}})
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/model\r")
        terminal.wait_for("not read: lab")
        assert KEY not in "\n".join(terminal.lines())
        assert "lab:agg" in "\n".join(terminal.shown())


def test_what_was_listed_once_is_completed_without_a_request(
    offering: Moa, upstream: Upstream
) -> None:
    with picker(offering):
        pass
    before = len(upstream.requests)
    with offering.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/add rain")
        terminal.wait_for("context 8,192, $0.60 in, $1.20 out")
        terminal.send("\t\r")
        terminal.wait_for("round 1: lab:a, lab:b, lab:c, lab:org/rain-70b")
        at_empty_prompt(terminal)
        terminal.send("/models lab:a,sun\t")
        terminal.wait_for("› /models lab:a,lab:org/Sun-mini")
    assert len(upstream.requests) == before


def test_a_pipe_gets_a_table(offering: Moa) -> None:
    with picker(offering):
        pass
    ran = offering.run("chat", stdin=b"/model rain\n/model xyz\n")
    assert ["lab:org/rain-70b", "8,192", "0.60", "1.20"] in [
        line.split() for line in ran.err.splitlines()
    ]
    assert "no listed model matches" in ran.err
