"""`moa ask`: settings. Flags come before the MOA_* environment, which comes before the profile;
the reference implementation's own spellings mean the same as ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Request, Upstream


def models(upstream: Upstream) -> list[str]:
    """The models that were asked: those of a round by name, rounds in order."""
    *proposers, aggregator = [request.model for request in upstream.chats()]
    return [*sorted(proposers), aggregator]


def bodies(upstream: Upstream, key: str) -> set[Any]:
    """What the requests say under that key."""
    return {request.body.get(key) for request in upstream.chats()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "lab:x", "-m", "lab:y", "-a", "lab:z"],
        ["-m", "lab:x, lab:y", "--aggregator", "lab:z"],
        ["--reference-model", "lab:x,", "--reference-model", "lab:y", "--model", "lab:z"],
        ["--reference-models", "lab:x,lab:y", "--model", "lab:z"],
        ["--reference_models", "lab:x,lab:y", "--model=lab:z"],
    ],
)
def test_models_are_named_by_repeating_the_option_or_by_commas(
    moa: Moa, upstream: Upstream, arguments: list[str]
) -> None:
    ran = moa.run("ask", "hi", *arguments)
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert models(upstream) == ["x", "y", "z"]
    assert ran.err == "moa: profile lab (changed): lab:x, lab:y → lab:z\n"


@pytest.mark.parametrize("spelling", ["--max-tokens", "--max_tokens"])
def test_max_tokens_holds_for_every_model(moa: Moa, upstream: Upstream, spelling: str) -> None:
    assert moa.run("ask", "hi", spelling, "77").code == 0
    assert bodies(upstream, "max_tokens") == {77}


def test_a_temperature_of_0_is_not_the_same_as_none(moa: Moa, upstream: Upstream) -> None:
    moa.run("ask", "hi")
    assert bodies(upstream, "temperature") == {None}
    upstream.requests.clear()
    assert moa.run("ask", "hi", "-t", "0").code == 0
    assert bodies(upstream, "temperature") == {0}


def test_samples_ask_each_proposer_that_often(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "-m", "lab:x,lab:y", "--samples", "2")
    assert models(upstream) == ["x", "x", "y", "y", "agg"]
    assert ran.err == "moa: profile lab (changed): lab:x ×2, lab:y ×2 → lab:agg\n"


def test_rounds_are_layers_and_0_is_the_aggregator_alone(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "--rounds", "2")
    assert [request.model for request in upstream.chats()[-1:]] == ["agg"]
    assert models(upstream) == ["a", "a", "b", "b", "c", "c", "agg"]
    assert "(lab:a, lab:b, lab:c) × 2 rounds → lab:agg" in ran.err
    upstream.requests.clear()
    assert moa.run("ask", "hi", "-r", "0").code == 0
    assert models(upstream) == ["agg"]


@pytest.mark.parametrize("spelling", ["--concurrency", "--num_proc", "--num-proc"])
def test_concurrency_bounds_the_calls_in_flight(
    moa: Moa, upstream: Upstream, spelling: str
) -> None:
    upstream.always("*", Reply(delay=0.02))
    assert moa.run("ask", "hi", "-r", "2", spelling, "1").code == 0
    assert len(upstream.chats()) == 7
    assert upstream.peak == 1


def test_without_it_the_proposers_of_a_round_are_asked_at_once(
    moa: Moa, upstream: Upstream
) -> None:
    released = threading.Event()
    upstream.always("*", Reply(after=released))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: upstream.in_flight == 3)
        released.set()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert upstream.peak == 3


@pytest.mark.parametrize(
    "spelling", ["--multi-turn", "--no-multi-turn", "--multi_turn", "--no_multi_turn"]
)
def test_multi_turn_is_taken_in_all_its_spellings(moa: Moa, spelling: str) -> None:
    ran = moa.run("ask", spelling, "--save-profile", "kept")
    assert ran.code == 0
    shown = moa.run("profile", "show", "kept").text
    value = "false" if "no" in spelling else "true"
    assert ["multi_turn", value] in [line.split()[:2] for line in shown.splitlines()]


def test_the_documented_commands_of_the_reference_run(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run(
        *("ask", "--model=lab:z", "--reference-models=lab:x,lab:y", "--rounds", "2"),
        *("--temperature", "0.5", "--max_tokens", "99", "--num_proc", "4", "--multi_turn", "hi"),
    )
    assert ran.code == 0
    assert models(upstream) == ["x", "x", "y", "y", "z"]
    assert (bodies(upstream, "temperature"), bodies(upstream, "max_tokens")) == ({0.5}, {99})


def test_the_system_prompt_and_the_place_of_the_references(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "-s", "be brief", "--reference-placement", "user")
    assert ran.code == 0
    [request] = upstream.chats("agg")
    system, user = request.messages
    assert system == {"role": "system", "content": "be brief"}
    assert user["content"].startswith("hi\n\nYou have been provided with a set of responses")
    assert user["content"].endswith("\n1. ok\n2. ok\n3. ok")


def first(upstream: Upstream) -> Request:
    """The first call."""
    return upstream.chats()[0]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MOA_PROFILE", "other", lambda up: models(up) == ["o", "other-agg"]),
        ("MOA_ROUNDS", "0", lambda up: models(up) == ["agg"]),
        ("MOA_REFERENCE_MODELS", "lab:x,lab:y", lambda up: models(up) == ["x", "y", "agg"]),
        ("MOA_AGGREGATOR", "lab:z", lambda up: models(up) == ["a", "b", "c", "z"]),
        ("MOA_TEMPERATURE", "0", lambda up: bodies(up, "temperature") == {0}),
        ("MOA_MAX_TOKENS", "9", lambda up: bodies(up, "max_tokens") == {9}),
        ("MOA_SAMPLES", "2", lambda up: len(up.chats()) == 7),
        ("MOA_SYSTEM", "s", lambda up: first(up).messages[0]["content"] == "s"),
        ("MOA_CONCURRENCY", "1", lambda up: up.peak == 1),
    ],
)
def test_the_environment_is_laid_over_the_profile(
    moa: Moa, upstream: Upstream, variable: str, value: str, told: Callable[[Upstream], bool]
) -> None:
    moa.profile("other", "o", aggregator="other-agg")
    upstream.always("*", Reply(delay=0.02))
    assert moa.run("ask", "hi", env={variable: value}).code == 0
    assert told(upstream)


def test_flags_come_before_the_environment(moa: Moa, upstream: Upstream) -> None:
    env = {"MOA_ROUNDS": "2", "MOA_TEMPERATURE": "1", "MOA_PROFILE": "nowhere"}
    assert moa.run("ask", "hi", "-p", "lab", "-r", "0", "-t", "0", env=env).code == 0
    assert models(upstream) == ["agg"]
    assert bodies(upstream, "temperature") == {0}


def test_a_variable_that_cannot_be_read_is_named(moa: Moa) -> None:
    ran = moa.run("ask", "hi", env={"MOA_ROUNDS": "two"})
    said = "moa: MOA_ROUNDS: must be a whole number, not 'two'\n"
    assert (ran.code, ran.out, ran.err) == (2, b"", said)


def test_settings_in_force_are_kept_as_a_profile_that_asks_the_same(
    moa: Moa, upstream: Upstream
) -> None:
    ran = moa.run("ask", "-m", "lab:x", "-a", "lab:z", "-t", "0", "--save-profile", "mine", "hi")
    path = moa.config / "profiles" / "mine.toml"
    assert ran.code == 0
    assert ran.err.splitlines()[0] == f"moa: saved profile mine: {path}"
    kept = [request.body for request in upstream.chats()]
    upstream.requests.clear()
    again = moa.run("ask", "-p", "mine", "hi")
    assert (again.code, again.err) == (0, "moa: profile mine: lab:x → lab:z\n")
    assert [request.body for request in upstream.chats()] == kept


def test_settings_are_not_kept_over_a_profile_that_is_there(moa: Moa, upstream: Upstream) -> None:
    before = (moa.config / "profiles" / "lab.toml").read_text()
    ran = moa.run("ask", "-t", "0", "--save-profile", "lab", "hi")
    assert (ran.code, ran.out, upstream.requests) == (2, b"", [])
    assert "there is already a profile `lab`" in ran.err
    assert (moa.config / "profiles" / "lab.toml").read_text() == before


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "x.toml", "", "a b"])
def test_a_profile_cannot_be_kept_outside_its_folder(moa: Moa, name: str) -> None:
    ran = moa.run("ask", f"--save-profile={name}", "hi")
    assert (ran.code, ran.out) == (2, b"")
    assert "cannot be the name of a profile" in ran.err
    assert [path.name for path in (moa.config / "profiles").iterdir()] == ["lab.toml"]
    assert [path.name for path in moa.config.parent.rglob("*evil*")] == []
