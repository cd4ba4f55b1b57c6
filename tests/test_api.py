"""The library: one call, or the events, with or without clients of one's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import moa_cli
from moa_cli import (
    Aggregator,
    Event,
    Profile,
    ProfileError,
    Proposer,
    Turn,
    ask,
    ask_async,
    load_profile,
    open_clients,
    run_turn,
)
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(api_key="k")
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    return upstream


def test_all_names_of_the_package_are_there() -> None:
    for name in moa_cli.__all__:
        assert getattr(moa_cli, name) is not None
    assert set(moa_cli.__all__) <= set(dir(moa_cli))
    with pytest.raises(AttributeError):
        _ = moa_cli.no_such_name


def test_one_call_returns_the_turn(together: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(text="blue"))
        turn = ask("why?", profile=load_profile("together"))
    assert isinstance(turn, Turn)
    assert (turn.reply, turn.status, turn.profile) == ("blue", "finished", "together")
    assert [one.text for one in turn.proposals[0]] == ["blue"] * 4


def test_without_a_profile_the_default_one_answers_under_the_environment(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        monkeypatch.setenv("MOA_ROUNDS", "0")
        assert ask("why?").profile == "together"
        assert len(upstream.chats()) == 1


def test_a_failed_turn_is_returned_not_raised(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(status=400))
        turn = ask("why?", profile="together")
    assert (turn.status, turn.reply) == ("failed", None)
    assert turn.error is not None
    assert len(turn.causes) == 4


def test_a_conversation_and_clients_can_be_kept(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> list[str]:
        clients = open_clients()
        profile = load_profile("together")
        try:
            first = await ask_async("one", profile=profile, clients=clients)
            conversation = moa_cli.Conversation(turns=(first,))
            events: list[str] = [
                event.kind async for event in run_turn(profile, conversation.ask("two"), clients)
            ]
        finally:
            await clients.aclose()
        return events

    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(text="yes"))
        kinds = asyncio.run(talk())
        assert upstream.chats()[-1].messages[1:] == [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "two"},
        ]
    assert (kinds[0], kinds[-1]) == ("turn_started", "turn_finished")


def test_an_unknown_profile_is_an_error_with_a_hint() -> None:
    with pytest.raises(ProfileError) as raised:
        ask("why?", profile="tgether")
    assert raised.value.hint == "did you mean `together`?"


def test_a_mistyped_provider_is_refused_before_anything_is_sent(
    together: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        '[[proposers]]\nmodel = "org/a"\n'
        '[aggregator]\nmodel = "org/agg"\nfallbacks = ["opnai:secret"]\n'
    )
    in_code = Profile(
        name="mine",
        proposers=(Proposer(model="org/a"),),
        aggregator=Aggregator(model="opnai:secret"),
    )
    said = "there is no provider `opnai` (model `opnai:secret`); did you mean `openai`?"

    async def events() -> list[Event]:
        clients = open_clients()
        try:
            asked = moa_cli.Conversation().ask("why?")
            return [event async for event in run_turn(in_code, asked, clients)]
        finally:
            await clients.aclose()

    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        for profile in (str(path), load_profile(str(path)), in_code):
            with pytest.raises(ProfileError) as raised:
                ask("why?", profile=profile)
            assert said in raised.value.message
        with pytest.raises(ProfileError) as raised:
            ask("why?", profile=str(path))
        assert raised.value.message == f"{path}: `aggregator.fallbacks[1]`: {said}"
        with pytest.raises(ProfileError, match=r"`aggregator\.model`: there is no provider"):
            asyncio.run(events())
        monkeypatch.setenv("MOA_AGGREGATOR", "opnai:secret")
        with pytest.raises(ProfileError, match=r"^MOA_AGGREGATOR: there is no provider"):
            ask("why?")
        assert upstream.requests == []
