"""The bar below the line of `moa chat`: what it says, and what a narrow terminal still shows."""

from __future__ import annotations

import re

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import Talk, at_empty_prompt
from tests.support.upstream import Reply, Upstream

# A reply of about 330 tokens.
LONG = "word " * 365


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "lab · 1 round · 3 → lab:agg · 0 tokens"),
        (34, "lab · 3 → lab:agg · 0 tokens"),
        (22, "lab · 3 → lab:agg"),
        (12, "lab"),
        (3, "l…"),
    ],
)
def test_a_narrow_terminal_shows_the_most_important_parts_whole(
    moa: Moa, columns: int, shown: str
) -> None:
    with moa.terminal("chat", columns=columns, rows=12) as terminal:
        at_empty_prompt(terminal)
        terminal.wait_for(lambda: terminal.shown()[-1].strip() == shown)


def _with_contexts(moa: Moa, **contexts: int) -> None:
    """The profile with what its models' contexts are."""
    models = {
        name: {"model": f"lab:{name}", "context": contexts[name]} if name in contexts else name
        for name in ("a", "b", "agg")
    }
    moa.profile("lab", models["a"], models["b"], aggregator=models["agg"])


def _turn(terminal: Terminal, prompt: str) -> None:
    """A whole turn, until the prompt is back."""
    told = _told(terminal)
    terminal.send(f"{prompt}\r")
    terminal.wait_for(lambda: _told(terminal) > told)
    at_empty_prompt(terminal)
    terminal.wait_for(lambda: terminal.shown()[-1].startswith("lab · "))


def _told(terminal: Terminal) -> int:
    return sum(bool(re.match(r"\(\d+ calls?, ", line)) for line in terminal.lines())


def test_the_bar_tells_how_full_the_tightest_context_is_then_a_line_warns_once_then_it_is_full(
    moa: Moa, upstream: Upstream
) -> None:
    _with_contexts(moa, a=2000, b=8192)
    upstream.always("*", Reply(text="ok"))
    upstream.always("agg", Reply(text=LONG))
    with moa.terminal("chat", columns=120, rows=40) as terminal:
        at_empty_prompt(terminal)
        assert "context" not in terminal.shown()[-1]
        shares = []
        for turn in range(1, 6):
            _turn(terminal, f"prompt {turn}")
            shares += re.findall(r"context (\d+)% \(lab:a, 2k\)", terminal.shown()[-1])
        assert [int(share) for share in shares] == sorted({int(share) for share in shares})
        assert re.search(r"context full \(lab:a, 2k\) · \d turns? left out", terminal.shown()[-1])
        text = "\n".join(terminal.lines())
        assert len(re.findall(r"moa: the conversation (takes|no longer fits)", text)) == 1
        assert "lab:a (a context of 2,000 tokens)" in text.replace("\n", " ")
        left_out = re.findall(r"(\d) of (\d) earlier turns (?:is|are) left out for lab:a \(", text)
        assert left_out[-1][1] == "4"
        terminal.send("/context\r")
        terminal.wait_for("sent with the next prompt")
        rows = [line.split() for line in terminal.lines() if line.endswith(("lab:a", "lab:b"))]
        assert [row[-1] for row in rows] == ["lab:a", "lab:b"]
        assert "2,000" in rows[0]
        assert "8,192" in rows[1]


def test_models_that_lack_the_same_turns_are_told_of_together(moa: Moa, upstream: Upstream) -> None:
    _with_contexts(moa, a=2000, b=2000)
    upstream.always("*", Reply(text="ok"))
    upstream.always("agg", Reply(text=LONG))
    with moa.terminal("chat", columns=120, rows=40) as terminal:
        at_empty_prompt(terminal)
        for turn in range(1, 6):
            _turn(terminal, f"prompt {turn}")
        lines = [line for line in terminal.lines() if "left out for" in line]
    assert re.fullmatch(
        r"\d of 4 earlier turns (is|are) left out for lab:a, lab:b \(context: 2,000 tokens\)",
        lines[-1],
    )


def test_a_context_that_is_not_known_is_assumed_and_said_to_be(talk: Talk) -> None:
    assert talk.do("/context") == "moa: there are no turns yet"
    talk.do("hello")
    told = talk.do("/context")
    assert "unlimited  " in told
    assert "assumed" not in told


def test_the_setting_says_what_is_assumed(moa: Moa, upstream: Upstream) -> None:
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        default_context=4096,
    )
    with moa.terminal("chat", columns=120, rows=40) as terminal:
        at_empty_prompt(terminal)
        _turn(terminal, "hello")
        assert re.search(r"context \d+% \([\w:]+, 4k assumed\)", terminal.shown()[-1])
        terminal.send("/context\r")
        terminal.wait_for("*: unknown, assumed by the setting default_context")


def test_on_a_narrow_terminal_the_meter_is_brief(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text="ok"))
    with moa.terminal("chat", columns=20, rows=12) as terminal:
        at_empty_prompt(terminal)
        terminal.send("Why?\r")
        terminal.wait_for("cost")
        at_empty_prompt(terminal)
        terminal.wait_for(lambda: terminal.shown()[-1].strip() == "lab · context 0%")
