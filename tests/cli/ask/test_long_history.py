"""`moa ask -c` in a conversation that outgrows a context: what is sent, and what is told."""

from __future__ import annotations

import json

import pytest

from tests.support.command import Moa
from tests.support.talk import sent
from tests.support.upstream import Reply, Upstream

# A reply of about 330 tokens.
LONG = "word " * 365


@pytest.fixture
def long(moa: Moa, upstream: Upstream) -> Moa:
    """A machine with a conversation of four turns; the aggregator has a context of 2,000 tokens."""
    moa.profile("lab", aggregator={"model": "lab:agg", "context": 2000}, rounds=0)
    upstream.always("agg", Reply(text=LONG))
    for number in range(4):
        typed = ("-c",) if number else ()
        assert moa.run("ask", *typed, f"prompt {number}").code == 0
    return moa


def prompts(upstream: Upstream) -> list[str]:
    """The prompts that were sent last, the newest one behind the earlier ones."""
    return [text for text in sent(upstream)[-1] if text.startswith("prompt")]


def test_the_oldest_turns_are_left_out_and_a_line_says_so(long: Moa, upstream: Upstream) -> None:
    ran = long.run("ask", "-c", "prompt 4")
    assert (ran.code, ran.text.strip()) == (0, LONG.strip())
    assert "moa: 1 of 4 earlier turns is left out for lab:agg (context: 2,000 tokens)" in ran.err
    assert prompts(upstream) == ["prompt 1", "prompt 2", "prompt 3", "prompt 4"]
    assert long.run("ask", "-c", "-q", "prompt 5").err == ""


def test_events_tell_it(long: Moa) -> None:
    ran = long.run("ask", "-c", "--output", "jsonl", "prompt 4")
    events = [json.loads(line) for line in ran.text.splitlines()]
    [trimmed] = [event for event in events if event["kind"] == "history_trimmed"]
    assert trimmed["turns"] == 4
    assert trimmed["models"] == [
        {"model": "lab:agg", "count": 1, "context": 2000, "assumed": False}
    ]


def test_a_dry_run_shows_what_would_be_sent(long: Moa, upstream: Upstream) -> None:
    told = long.run("ask", "-c", "--dry-run", "prompt 4").text
    assert "prompt 0" not in told
    assert "prompt 1" in told


@pytest.mark.parametrize(
    ("options", "environment"),
    [(("--max-history", "1"), {}), (("-p", "lab"), {"MOA_MAX_HISTORY": "1"})],
)
def test_max_history_sends_at_most_so_many_turns(
    long: Moa, upstream: Upstream, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    ran = long.run("ask", "-c", *options, "prompt 4", env=environment)
    assert "left out" not in ran.err
    assert prompts(upstream) == ["prompt 3", "prompt 4"]
    shown = long.run("ask", "-c", *options, "--dry-run", "prompt 5", env=environment).text
    assert "prompt 4" in shown
    assert "prompt 3" not in shown


@pytest.mark.parametrize(("assumed", "left"), [("2000", 1), ("0", 0), ("9000", 0)])
def test_a_context_that_is_not_known_is_what_the_setting_says(
    long: Moa, upstream: Upstream, assumed: str, left: int
) -> None:
    long.profile("lab", rounds=0)
    settings = {"MOA_DEFAULT_CONTEXT": assumed}
    ran = long.run("ask", "-c", "-p", "lab", "prompt 4", env=settings)
    assert ran.code == 0
    assert ("(context: 2,000 tokens assumed)" in ran.err) == bool(left)
    assert len(prompts(upstream)) == 5 - left
