"""Profiles that name several models for a place: what is offered is asked, and that is said."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moa_cli.api import ask
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.models.candidates import settled
from moa_cli.profile import Profile, build, dump
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

KEY = "k-together"


def mixture(*proposers: object, aggregator: object = "x") -> Profile:
    table = {
        "proposers": [{"model": model} for model in proposers],
        "aggregator": {"model": aggregator},
    }
    return build("test", table)


def chosen(profile: Profile, *offered: str) -> list[str]:
    """The models that are asked if these are offered."""
    listed = {name: name for name in offered}
    made = settled(profile, lambda name: listed.get(name, ""))
    return [proposer.model for proposer in made.proposers] + [made.aggregator.model]


def test_the_first_that_is_offered_is_taken_and_no_model_twice_if_there_is_another() -> None:
    profile = mixture(["a", "b", "c"], ["a", "c"], ["b", "c"], aggregator=["z", "a"])
    assert chosen(profile, "a", "b", "c") == ["a", "c", "b", "a"]
    assert chosen(profile, "b", "c") == ["b", "c", "b", "z"]
    assert chosen(profile, "c") == ["c", "c", "c", "z"]
    assert chosen(profile) == ["a", "a", "b", "z"]


def test_where_nobody_knows_the_order_stays() -> None:
    profile = mixture(["a", "b"], aggregator=["c", "d"])
    made = settled(profile, lambda _: None)
    assert made.proposers == profile.proposers
    assert made.notes == ()


def test_what_was_skipped_is_noted() -> None:
    made = settled(mixture(["a", "b", "c"]), {"a": "", "b": "B", "c": "c", "x": "x"}.get)
    assert made.proposers[0].candidates == ("B", "c")
    assert made.notes == ("a: not offered now, B is asked instead",)


def test_candidates_are_written_as_a_list_and_read_back() -> None:
    profile = mixture(["a", "b"], "c", aggregator=["d", "e"])
    table = tomllib.loads(dump(profile))
    assert [proposer["model"] for proposer in table["proposers"]] == [["a", "b"], "c"]
    assert build("test", table) == profile


@pytest.mark.parametrize("model", [[], ["a", "a"], ["a", ""], ["a", "b c"], [1], 1])
def test_what_is_no_list_of_models_is_refused(model: object) -> None:
    with pytest.raises(ProfileError, match="model"):
        mixture(model)


@pytest.fixture
def together() -> Iterator[Upstream]:
    """A provider whose list lacks two of the four preferred models of the profile `together`."""
    wanted = [proposer["model"] for proposer in shipped("together")["proposers"]]
    with Upstream(
        api_key=KEY, models=[wanted[0][0], wanted[1][1], wanted[2][0], wanted[3][2]]
    ) as up:
        up.always("*", Reply(text="hello"))
        yield up


def shipped(name: str) -> dict[str, Any]:
    file = Path(paths.shipped_profiles_dir(), f"{name}.toml")
    return tomllib.loads(file.read_text("utf-8"))


def models(told: Any) -> list[str]:
    return [proposal["model"] for layer in told["proposals"] for proposal in layer]


def at(up: Upstream) -> dict[str, str]:
    return {"TOGETHER_BASE_URL": up.url, "TOGETHER_API_KEY": KEY}


def test_a_shipped_mixture_asks_the_models_that_are_there(moa: Moa, together: Upstream) -> None:
    ran = moa.run("ask", "-p", "together", "--json", "hi", env=at(together))
    assert ran.code == 0, ran.err
    wanted = [proposer["model"] for proposer in shipped("together")["proposers"]]
    there = [wanted[0][0], wanted[1][1], wanted[2][0], wanted[3][2]]
    assert sorted(request.model for request in together.chats()) == sorted([*there, there[0]])
    told = json.loads(ran.text)
    assert models(told) == there
    assert f"{wanted[1][0]}: not offered now, {wanted[1][1]} is asked instead" in ran.err
    skipped = ", ".join(wanted[3][:2])
    assert f"{skipped}: not offered now, {wanted[3][2]} is asked instead" in ran.err
    # The list is kept for a day.
    lists = [request for request in together.requests if request.route == "/models"]
    again = moa.run("ask", "-p", "together", "hi", env=at(together))
    assert again.code == 0
    assert [r for r in together.requests if r.route == "/models"] == lists


def test_without_a_list_a_missing_model_moves_on_to_the_next(moa: Moa) -> None:
    with Upstream(api_key=KEY) as up:
        up.models_reply = Reply(status=500, error={"error": {"message": "no list today"}})
        body = {"error": {"message": "no such model", "code": "model_not_found"}}
        gone = Reply(status=404, error=body)
        for model in ("gone", "gone-too"):
            up.always(model, gone)
        for model in ("here", "there", "writer"):
            up.always(model, Reply(text=f"from {model}"))
        moa.configure(providers={"lab": {"base_url": up.url, "api_key_env": "LAB_KEY"}})
        moa.profile(
            "mine",
            {"model": ["lab:gone", "lab:gone-too", "lab:here"]},
            {"model": "lab:there"},
            aggregator={"model": ["lab:gone", "lab:writer"]},
        )
        ran = moa.run("ask", "-p", "mine", "--json", "hi", env={"LAB_KEY": KEY})
    assert ran.code == 0, ran.err
    told = json.loads(ran.text)
    assert told["reply"] == "from writer"
    assert told["model"] == "lab:writer"
    assert models(told) == ["lab:here", "lab:there"]
    assert "lab:gone-too is not offered, lab:here was asked instead" in ran.err


def test_a_model_that_had_begun_is_not_changed(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="half an answer", chunks=["half "], drop_after=1))
    moa.profile("mine", aggregator={"model": ["lab:a", "lab:b"]}, rounds=0)
    ran = moa.run("ask", "-p", "mine", "hi")
    assert ran.code != 0
    assert [request.model for request in upstream.chats()] == ["a"]


def test_the_library_asks_what_is_offered_too(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in at(together).items():
        monkeypatch.setenv(name, value)
    turn = ask("hi", profile="together")
    assert turn.status == "finished"
    assert len({request.model for request in together.chats()}) == 4


def test_the_doctor_names_what_is_taken(moa: Moa, together: Upstream) -> None:
    ran = moa.run("doctor", "-p", "together", env=at(together))
    assert "not offered now" in ran.text
    assert "does not list" not in ran.text
