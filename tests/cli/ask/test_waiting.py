"""`moa ask` with endpoints that say nothing, break off, or refuse a prompt as too long."""

from __future__ import annotations

import json
import re

import pytest

from moa_cli.core.events import Hedged, Retrying, from_dict
from tests.support.command import Moa
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

AGAIN = {"MOA_RETRIES": "2"}
DROPPED = Reply(chunks=["half ", "a ", "loaf"], drop_after=2)
SILENT = Reply(stall_after=0)


def test_a_proposer_that_says_nothing_is_named_with_the_limit(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", SILENT)
    ran = moa.run("ask", "hi", "--first-token", "0.5")
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert "lost lab:b: lab: no first token within 0.5 s (`first_token`)" in ran.err


def test_an_aggregator_that_stops_in_the_middle_is_named_with_the_limit(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(chunks=["so ", "far ", "so good"], stall_after=2))
    ran = moa.run("ask", "hi", env={"MOA_STALL": "0.5"})
    assert (ran.code, ran.out) == (1, b"so far \n")
    assert "nothing more for 0.5 s in the middle of the answer (`stall`)" in ran.err
    assert "raise `stall`" in ran.err


@pytest.mark.parametrize("how", ["--json", "--no-stream"])
def test_a_reply_that_nobody_saw_is_asked_for_again(moa: Moa, upstream: Upstream, how: str) -> None:
    upstream.enqueue("agg", DROPPED)
    ran = moa.run("ask", "hi", how, env=AGAIN)
    assert ran.code == 0
    told = json.loads(ran.out)["reply"] if how == "--json" else ran.out.decode().strip()
    assert told == "ok"
    assert len(upstream.chats("agg")) == 2


def test_a_reply_on_the_screen_is_not_taken_back(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", DROPPED)
    ran = moa.run("ask", "hi", env=AGAIN)
    assert (ran.code, ran.out) == (1, b"half a \n")
    assert len(upstream.chats("agg")) == 1


def test_a_fallback_replies_in_place_of_half_a_reply_that_nobody_saw(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:second"]})
    upstream.always("agg", DROPPED)
    upstream.always("second", Reply(text="from second"))
    ran = moa.run("ask", "hi", "--no-stream")
    assert (ran.code, ran.out) == (0, b"from second\n")


def test_without_a_whole_reply_the_half_one_is_printed(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", DROPPED)
    ran = moa.run("ask", "hi", "--no-stream")
    assert (ran.code, ran.out) == (1, b"half a \n")


def test_what_a_proposer_said_before_it_broke_off_is_taken_back(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a")
    upstream.enqueue("a", DROPPED)
    ran = moa.run("ask", "hi", "--output", "jsonl", env=AGAIN)
    events = [from_dict(json.loads(line)) for line in ran.out.splitlines()]
    assert [event.withdrawn for event in events if isinstance(event, Retrying)] == [True]
    upstream.enqueue("a", DROPPED)
    told = moa.run("ask", "hi", "-v", env=AGAIN).err
    assert "what it wrote is taken back" in told


def test_a_request_that_is_made_twice_is_told(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", {"model": "lab:a", "hedge_after": 0.2, "hedge_with": "lab:other"})
    upstream.always("a", SILENT)
    ran = moa.run("ask", "hi", "-v")
    assert (ran.code, ran.out) == (0, b"ok\n")
    told = re.search(r"lab:a: silent for (\S+) s, lab:other is asked beside it", ran.err)
    assert told is not None
    # A busy machine may look later.
    assert float(told[1]) >= 0.2
    lines = moa.run("ask", "hi", "--output", "jsonl").out.splitlines()
    [hedged] = [e for e in map(from_dict, map(json.loads, lines)) if isinstance(e, Hedged)]
    assert hedged.model == "lab:other"


@pytest.mark.parametrize("at_terminal", [True, False])
def test_what_is_paid_for_more_than_once_is_told_without_verbose(
    moa: Moa, upstream: Upstream, at_terminal: bool
) -> None:
    """What was thrown away, and what was asked twice, is billed all the same."""
    moa.profile("lab", "a", {"model": "lab:b", "hedge_after": 0.2, "hedge_with": "lab:other"})
    upstream.enqueue("a", DROPPED)
    upstream.always("b", SILENT)
    if at_terminal:
        with moa.terminal("ask", "hi", columns=200, env=AGAIN) as terminal:
            assert terminal.wait() == 0
            lines = terminal.lines()
    else:
        ran = moa.run("ask", "hi", env=AGAIN)
        assert (ran.code, ran.out) == (0, b"ok\n")
        lines = ran.err.splitlines()
    told = sorted(line for line in lines if "paid for more than once" in line)
    assert len(told) == 2
    assert told[0].startswith("moa: paid for more than once: lab:a was asked again (lab: ")
    twice = r"lab:b was silent for \d\.\d s, lab:other was asked beside it"
    assert re.fullmatch(f"moa: paid for more than once: {twice}", told[1])


@pytest.mark.parametrize("field", ["temperature", "reasoning_effort"])
def test_a_setting_that_a_model_does_not_take_is_told_without_verbose(
    moa: Moa, upstream: Upstream, field: str
) -> None:
    option = ("--temperature", "0.7")
    if field == "reasoning_effort":
        option = ("--max-tokens", "99")
        moa.profile("lab", "a", {"model": "lab:b", "reasoning_effort": "low"})
    refusal = {"error": {"message": f"Unsupported parameter: '{field}'"}}
    upstream.enqueue("b", Reply(status=400, error=refusal))
    said = f"moa: lab:b does not accept `{field}`, so it is not sent"
    ran = moa.run("ask", "hi", *option)
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert ran.err.splitlines().count(said) == 1
    upstream.enqueue("b", Reply(status=400, error=refusal))
    assert said not in moa.run("ask", "hi", "-q", *option).err
    upstream.enqueue("b", Reply(status=400, error=refusal))
    with moa.terminal("chat", *option) as terminal:
        at_empty_prompt(terminal)
        terminal.send("Why?\r")
        terminal.wait_for(said)
        at_empty_prompt(terminal)
        terminal.send("And?\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 4)
        at_empty_prompt(terminal)
        assert terminal.lines().count(said) == 1


def test_a_stand_in_that_leads_nowhere_is_named_before_anything_is_sent(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", {"model": "lab:a", "hedge_with": "nowhere:m"})
    ran = moa.run("ask", "hi")
    assert ran.code == 2
    assert "hedge_with" in ran.err
    assert upstream.chats() == []


def test_history_that_an_endpoint_finds_too_long_is_left_out_and_told(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", aggregator="agg", rounds=0)
    assert moa.run("ask", "word " * 300).code == 0
    error = {"error": {"message": "the prompt is too long", "code": "context_length_exceeded"}}
    upstream.enqueue("agg", Reply(status=400, error=error))
    ran = moa.run("ask", "-c", "And now?")
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert "2 earlier messages left out" in ran.err
    assert len(upstream.chats("agg")[-1].messages) == 1
