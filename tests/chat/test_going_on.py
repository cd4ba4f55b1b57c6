"""A conversation goes on with the mixture that it was last held with, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.kept import keep
from tests.support.talk import at_empty_prompt, sent
from tests.support.upstream import Reply, Upstream

CHANGE = "-p NAME changes it"


@pytest.fixture
def held(moa: Moa) -> Moa:
    """A conversation with the profile `other`, at a temperature of its own; `lab` is the default
    profile."""
    moa.profile("other", "x", "y", aggregator="z")
    ran = moa.run("ask", "-p", "other", "-t", "0.25", "-s", "Be brief.", "first")
    assert ran.code == 0
    return moa


def latest(moa: Moa) -> str:
    """The id of the latest conversation."""
    return str(json.loads(moa.run("history", "list", "--json").text)[0]["id"])


def asked(upstream: Upstream) -> set[str]:
    """Which models were asked after the first turn."""
    return {request.model for request in upstream.chats()[3:]}


def test_ask_goes_on_with_the_mixture_of_the_conversation(held: Moa, upstream: Upstream) -> None:
    identity = latest(held)
    ran = held.run("ask", "-c", "second")
    assert ran.code == 0
    assert asked(upstream) == {"x", "y", "z"}
    assert f"moa: continuing {identity} with profile other as it was; {CHANGE}\n" in ran.err
    last = upstream.chats("z")[-1]
    assert last.body["temperature"] == 0.25
    assert str(last.messages[0]["content"]).startswith("Be brief.")
    assert sent(upstream, "z")[-1] == ["first", "ok", "second"]
    assert held.run("ask", "--cid", identity[:6], "-q", "third").err == ""
    assert asked(upstream) == {"x", "y", "z"}


def test_a_chat_goes_on_with_what_was_set_in_the_last_one(held: Moa, upstream: Upstream) -> None:
    held.run("chat", "-c", stdin=b"/set temperature 0.5\n/aggregator lab:w\nsecond\n")
    identity = latest(held)
    with held.terminal("chat", "-c", columns=120) as terminal:
        at_empty_prompt(terminal)
        line = f"moa: continuing {identity} with profile other as it was; {CHANGE}"
        assert line in terminal.lines()
        terminal.send("third\r")
        terminal.wait_for(lambda: len(upstream.chats("w")) == 2)
    last = upstream.chats("w")[-1]
    assert last.body["temperature"] == 0.5
    assert not upstream.chats("agg")


def test_typed_options_win(held: Moa, upstream: Upstream) -> None:
    ran = held.run("ask", "-c", "-t", "0.75", "-m", "lab:b", "second")
    assert ran.code == 0
    assert asked(upstream) == {"b", "z"}
    assert upstream.chats("z")[-1].body["temperature"] == 0.75
    assert str(upstream.chats("z")[-1].messages[0]["content"]).startswith("Be brief.")
    identity = latest(held)
    ran = held.run("ask", "-c", "-p", "lab", "third")
    assert ran.err.startswith(f"moa: continuing {identity} with profile lab, not other\n")
    assert "temperature" not in upstream.chats("agg")[-1].body


def test_the_environment_changes_no_earlier_conversation(held: Moa, upstream: Upstream) -> None:
    env = {"MOA_PROFILE": "lab", "MOA_ROUNDS": "0", "MOA_AGGREGATOR": "lab:agg"}
    assert held.run("ask", "-c", "second", env=env).code == 0
    assert asked(upstream) == {"x", "y", "z"}


def test_the_mixture_stays_when_its_profile_changes_or_goes(
    held: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    held.profile("other", "new", aggregator="new")
    assert held.run("ask", "-c", "second").code == 0
    (held.config / "profiles" / "other.toml").unlink()
    assert held.run("chat", "-c", stdin=b"third\n").code == 0
    assert asked(upstream) == {"x", "y", "z"}


def test_no_default_profile_is_needed(held: Moa, upstream: Upstream) -> None:
    held.configure(
        profile="nowhere",
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
    )
    assert held.run("ask", "anew").code == 2
    assert held.run("ask", "-c", "second").code == 0


@pytest.mark.parametrize("command", [("ask", "-c", "second"), ("chat", "-c")])
def test_a_mixture_that_cannot_be_used_any_more_is_not_replaced_unasked(
    held: Moa, upstream: Upstream, command: tuple[str, ...]
) -> None:
    held.profile("mixed", "x", {"model": "gone:m"})
    held.configure(
        providers={
            "lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"},
            "gone": {"base_url": upstream.url, "api_key_env": "LAB_KEY"},
        }
    )
    assert held.run("ask", "-p", "mixed", "first").code == 0
    before = len(upstream.chats())
    held.configure(providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}})
    identity = latest(held)
    ran = held.run(*command, stdin=b"second\n" if command[0] == "chat" else None)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    because = "`proposers[2].model`: there is no provider `gone`"
    assert ran.err.startswith(
        f"moa: conversation {identity} cannot continue with its own settings: {because}"
    )
    assert "(to continue with another profile: -p NAME)" in ran.err
    assert len(upstream.chats()) == before
    stdin = b"second\n" if command[0] == "chat" else None
    assert held.run(*command, "-p", "lab", stdin=stdin).code == 0
    assert sent(upstream)[-1][-1] == "second"


def test_what_is_typed_wrong_is_blamed_itself(held: Moa) -> None:
    ran = held.run("ask", "-c", "-t", "9", "second")
    assert ran.code == 2
    assert ran.err.startswith("moa: --temperature")


def test_a_key_that_is_missing_is_named(held: Moa) -> None:
    ran = held.run("ask", "-c", "second", env={"LAB_KEY": None})
    assert ran.code == 76
    assert "LAB_KEY" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("other", "profile other as it is now; -p NAME changes it"),
        ("chatgpt", "profile lab, not chatgpt"),
    ],
)
def test_where_no_settings_are_kept_the_name_counts(moa: Moa, profile: str, said: str) -> None:
    moa.profile("other", "x", aggregator="z")
    identity = keep(moa, ("first", "old"), profile=profile)
    ran = moa.run("ask", "-c", "second")
    assert ran.code == 0
    assert ran.err.startswith(f"moa: continuing {identity} with {said}\n")


def test_in_a_chat_the_mixture_of_each_conversation_is_taken_up(
    held: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="indeed"))
    identity = latest(held)
    with held.terminal("chat", rows=40) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"/resume {identity[:6]}\r")
        terminal.wait_for("with profile other as it was; /profile NAME changes it")
        at_empty_prompt(terminal)
        terminal.wait_for("\nother · ")
        terminal.send("second\r")
        terminal.wait_for(lambda: len(upstream.chats("z")) == 2)
    assert asked(upstream) == {"x", "y", "z"}


def test_in_a_chat_a_mixture_that_is_gone_is_told_and_the_chat_goes_on(
    held: Moa, upstream: Upstream
) -> None:
    held.configure(
        providers={
            "lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"},
            "gone": {"base_url": upstream.url, "api_key_env": "LAB_KEY"},
        }
    )
    held.run("ask", "-a", "gone:m", "first")
    identity = latest(held)
    held.configure(providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}})
    ran = held.run("chat", stdin=f"/resume {identity}\nsecond\n".encode())
    assert ran.code == 0
    [line] = [line for line in ran.err.splitlines() if "cannot be used" in line]
    assert line.endswith("(profile lab continues it; /profile NAME changes the profile)")
    assert sent(upstream)[-1] == ["first", "ok", "second"]
