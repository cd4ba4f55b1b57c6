"""`/profile NAME` in a chat asks those candidates that are offered, and says so."""

from __future__ import annotations

from tests.support.command import Moa
from tests.support.talk import at_prompt
from tests.support.upstream import Reply, Upstream

SAID = [
    "profile mine: for tests",
    "lab:old: not offered now, lab:new is asked instead",
    "round 1: lab:new",
    "aggregator: lab:agg",
]


def prepare(moa: Moa, upstream: Upstream) -> None:
    upstream.models_reply = Reply(error={"data": [{"id": "new"}, {"id": "agg"}]})
    moa.configure(providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}})
    moa.profile("mine", {"model": ["lab:old", "lab:new"]}, description="for tests")


def test_at_a_terminal(moa: Moa, upstream: Upstream) -> None:
    prepare(moa, upstream)
    with moa.terminal("chat", columns=120, rows=40, env={"LAB_KEY": "k"}) as terminal:
        at_prompt(terminal)
        terminal.send("/profile mine\r")
        terminal.wait_for(SAID[-1])
        lines = [line for line in terminal.lines() if line]
        at_prompt(terminal)
        terminal.send("hi\r")
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
    at = lines.index(SAID[0])
    assert lines[at : at + 4] == SAID
    assert {request.model for request in upstream.chats()} == {"new", "agg"}


def test_over_a_pipe(moa: Moa, upstream: Upstream) -> None:
    prepare(moa, upstream)
    ran = moa.run("chat", stdin=b"/profile mine\nhi\n/profile nope\n", env={"LAB_KEY": "k"})
    assert ran.code == 0
    assert "\n".join(SAID) in ran.err
    assert {request.model for request in upstream.chats()} == {"new", "agg"}
    assert "nope" in ran.err.splitlines()[-1]
