"""File < environment < flags, each value shown with where it came from, each fault with the
file, variable or flag that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.errors import ProfileError
from moa_cli.profile import Origin, Overrides, Profile, dump, load, model_faults, resolve, rows
from moa_cli.profile.layering import drop_proposer, override, set_value

FILE = """
rounds = 1
temperature = 0.5
system = "from the file"

[[proposers]]
model = "b"
name = "bee"
temperature = 0.1
max_tokens = 11

[[proposers]]
model = "c"
samples = 2

[aggregator]
model = "a"
temperature = 0.2
max_tokens = 22
timeout = 3
top_p = 0.9
seed = 4
extra = { x = 1 }
fallbacks = ["f"]
"""
LAYERED = """
[[layers]]
proposers = [{ model = "b", temperature = 0.1 }]
[[layers]]
proposers = [{ model = "c" }, { model = "d", samples = 3 }]
[aggregator]
model = "a"
"""


def resolved(
    flags: Overrides | None = None, environment: Mapping[str, str] | None = None, text: str = FILE
) -> Profile:
    Path("own.toml").write_text(text)
    return resolve("own.toml", environment=environment or {}, flags=flags)


def told(profile: Profile) -> dict[str, tuple[object, str, str]]:
    """Value, kind of origin and its place, by setting."""
    return {path: (value, row.kind, row.where) for path, value, row in rows(profile)}


def refusal(
    flags: Overrides | None = None, environment: Mapping[str, str] | None = None
) -> ProfileError:
    with pytest.raises(ProfileError) as raised:
        resolved(flags, environment)
    return raised.value


# --- precedence


def test_without_environment_and_flags_the_file_is_what_counts() -> None:
    profile = resolved()
    assert profile == load("own.toml")
    assert resolved(Overrides()) == profile
    assert resolved(None, {"MOA_ROUNDS": "", "MOA_SYSTEM": "", "HOME": "/x"}) == profile


SETTINGS: list[tuple[str, str, object, object]] = [
    ("temperature", "0.3", 0.3, 0.0),
    ("max_tokens", "7", 7, 8),
    ("rounds", "2", 2, 0),
    ("multi_turn", "false", False, True),
    ("max_history", "9", 9, 0),
    ("system", "from the environment", "from the environment", ""),
    ("reference_placement", "user", "user", "system"),
    ("reference_format", "fenced", "fenced", "paper"),
    ("reference_names", "true", True, False),
    ("merge_prompt", "Sum up: {references}", "Sum up: {references}", "Merge {references}"),
    ("timeout", "90.5", 90.5, 60.0),
    ("stall", "9.5", 9.5, 7.0),
    ("first_token", "8.5", 8.5, 6.0),
    ("hedge_after", "2.5", 2.5, 0.0),
    ("quorum", "2", 2, 1),
    ("patience", "1.5", 1.5, 0.0),
    ("use_partial", "true", True, False),
    ("overlap", "true", True, False),
    ("tools", "ignore", "ignore", "refuse"),
    ("fan_out", "request", "request", "user_message"),
    ("strategy", "synthesize", "synthesize", "synthesize"),
    ("judge", "lab:x", "lab:x", "lab:y"),
    ("final_answer", "number", "number", "boxed"),
    ("chosen_by", "proposers", "proposers", "judge"),
    ("one_call", "true", True, False),
    ("stop_when_agreed", "0.8", 0.8, 0.5),
    ("report", "true", True, False),
]


@pytest.mark.parametrize(("setting", "text", "value", "typed"), SETTINGS)
def test_the_environment_beats_the_file_and_a_flag_beats_both(
    setting: str, text: str, value: object, typed: object
) -> None:
    variable = f"MOA_{setting.upper()}"
    under = resolved(None, {variable: text})
    assert getattr(under, setting) == value
    assert told(under)[setting] == (value, "environment", variable)
    flags = Overrides(**{setting: typed})  # type: ignore[arg-type]
    over = resolved(flags, {variable: text})
    assert getattr(over, setting) == typed
    flag = {"judge": "--judge-model"}.get(setting, "--" + setting.replace("_", "-"))
    assert told(over)[setting] == (typed, "flag", flag)


def test_every_override_has_a_variable_and_a_flag() -> None:
    environment = {
        "MOA_AGGREGATOR": "x",
        "MOA_REFERENCE_MODELS": " y , z,,",
        "MOA_SAMPLES": "2",
        **{f"MOA_{setting.upper()}": text for setting, text, _, _ in SETTINGS},
    }
    read = Overrides.from_environment(environment)
    assert None not in [getattr(read, field.name) for field in fields(Overrides)]
    assert read.reference_models == ("y", "z")
    assert Overrides.from_environment({}) == Overrides()
    assert resolved(read).aggregator.model == "x"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "TRUE", "1", "yes", "on")),
        *((text, False) for text in ("false", "0", "No", "off")),
    ],
)
def test_yes_and_no_are_read_in_the_usual_spellings(text: str, value: bool) -> None:
    assert Overrides.from_environment({"MOA_MULTI_TURN": text}).multi_turn is value


# --- where values come from


def test_a_typed_quorum_and_patience_hold_for_every_layer() -> None:
    text = """
        quorum = 4
        [[proposers]]
        model = "b"
        [[layers]]
        quorum = 2
        patience = 1
        [[layers]]
        patience = 3
        [aggregator]
        model = "a"
        """
    profile = resolved(Overrides(quorum=3), {"MOA_PATIENCE": "7"}, text)
    assert [profile.quorum_of(n) for n in (1, 2)] == [3, 3]
    assert [profile.patience_of(n) for n in (1, 2)] == [7.0, 7.0]
    alone = told(resolved(text=text))
    assert alone["quorum"][0] == 4
    assert alone["layers[1].quorum"] == (2, "profile", "own.toml")
    assert alone["layers[1].patience"] == (1.0, "profile", "own.toml")
    assert alone["layers[2].patience"] == (3.0, "profile", "own.toml")
    assert "layers[2].quorum" not in alone


def test_other_models_or_samples_take_out_the_quorum_of_the_profile() -> None:
    text = "quorum = 2\n" + FILE
    assert resolved(text=text).quorum == 2
    for flags in (Overrides(reference_models=("x", "y", "z")), Overrides(samples=4)):
        profile = resolved(flags, text=text)
        assert profile.quorum is None
        assert told(profile)["quorum"][1] == "flag"
        assert resolved(replace(flags, quorum=1), text=text).quorum == 1
        assert resolved(flags, {"MOA_QUORUM": "3"}, text).quorum == 3


def test_other_models_or_samples_take_out_the_route_of_the_profile() -> None:
    text = FILE + "\n[[route]]\nproposers = 1\nverify = true\n"
    assert [stage.proposers for stage in resolved(text=text).route] == [1]
    for flags in (Overrides(reference_models=("x", "y", "z")), Overrides(samples=4)):
        assert resolved(flags, text=text).route == ()


def test_each_value_is_told_with_its_origin() -> None:
    profile = resolved(Overrides(rounds=2), {"MOA_SYSTEM": "s"})
    file = ("profile", "own.toml")
    assert told(profile) == {
        "rounds": (2, "flag", "--rounds"),
        "multi_turn": (True, "default", ""),
        "max_history": (None, "default", ""),
        "system": ("s", "environment", "MOA_SYSTEM"),
        "temperature": (0.5, *file),
        "max_tokens": (None, "default", ""),
        "proposer_max_tokens": (None, "default", ""),
        "reasoning_effort": (None, "default", ""),
        "references": (None, "default", ""),
        "shuffle": (False, "default", ""),
        "window": (None, "default", ""),
        "variety": (None, "default", ""),
        "web": (False, "default", ""),
        "timeout": (None, "default", ""),
        "stall": (None, "default", ""),
        "first_token": (None, "default", ""),
        "hedge_after": (None, "default", ""),
        "quorum": (None, "default", ""),
        "patience": (5.0, "default", ""),
        "use_partial": (False, "default", ""),
        "overlap": (False, "default", ""),
        "tools": ("aggregator", "default", ""),
        "fan_out": ("user_message", "default", ""),
        "reference_placement": ("system", "default", ""),
        "reference_format": ("paper", "default", ""),
        "reference_names": (False, "default", ""),
        "merge_prompt": (None, "default", ""),
        "strategy": ("synthesize", "default", ""),
        "judge": (None, "default", ""),
        "final_answer": ("auto", "default", ""),
        "chosen_by": ("judge", "default", ""),
        "one_call": (False, "default", ""),
        "report": (False, "default", ""),
        "stop_when_agreed": (None, "default", ""),
        "on_all_failed": ("fail", "default", ""),
        "proposers[1].model": ("b", *file),
        "proposers[1].name": ("bee", *file),
        "proposers[1].temperature": (0.1, *file),
        "proposers[1].max_tokens": (11, *file),
        "proposers[2].model": ("c", *file),
        "proposers[2].samples": (2, *file),
        "aggregator.model": ("a", *file),
        "aggregator.temperature": (0.2, *file),
        "aggregator.max_tokens": (22, *file),
        "aggregator.timeout": (3.0, *file),
        "aggregator.top_p": (0.9, *file),
        "aggregator.seed": (4, *file),
        "aggregator.extra": ({"x": 1}, *file),
        "aggregator.fallbacks": (["f"], *file),
    }


def test_an_origin_says_its_place_or_else_its_kind() -> None:
    assert str(Origin("flag", "--rounds")) == "--rounds"
    assert str(Origin("default")) == "default"


def test_origins_are_no_part_of_what_a_profile_is() -> None:
    assert replace(resolved(), origins={}) == resolved()
    assert resolved(Overrides(temperature=0.5)) != resolved()


# --- single flags


def test_a_temperature_from_outside_holds_for_every_model() -> None:
    for flags, environment in (
        (Overrides(temperature=0.0), {}),
        (None, {"MOA_TEMPERATURE": "0"}),
        (Overrides(temperature=0.0), {"MOA_TEMPERATURE": "2"}),
    ):
        profile = resolved(flags, environment)
        calls = [*profile.layer(1), *profile.aggregators()]
        assert {call.temperature for call in calls} == {0.0}
        assert "proposers[1].temperature" not in told(profile)


def test_max_tokens_from_outside_hold_for_every_model_of_every_layer() -> None:
    profile = resolved(Overrides(max_tokens=5, temperature=0.9), text=LAYERED)
    calls = [*profile.layer(1), *profile.layer(2), *profile.aggregators()]
    assert {(call.max_tokens, call.temperature) for call in calls} == {(5, 0.9)}


def test_samples_from_outside_hold_for_every_proposer() -> None:
    profile = resolved(Overrides(samples=2))
    assert [proposer.name for proposer in profile.layer(1)] == ["bee #1", "bee #2", "c #1", "c #2"]
    assert told(profile)["proposers[1].samples"] == (2, "flag", "--samples")
    assert "aggregator.samples" not in told(profile)
    once = resolved(Overrides(samples=1), text=LAYERED)
    assert [len(once.layer(number)) for number in (1, 2)] == [1, 2]


def test_reference_models_replace_the_proposers_and_their_settings() -> None:
    profile = resolved(Overrides(reference_models=("x", "y", "x")))
    assert [proposer.name for proposer in profile.layer(1)] == ["x #1", "y", "x #2"]
    assert {proposer.temperature for proposer in profile.layer(1)} == {0.5}
    assert told(profile)["proposers[1].model"] == ("x", "flag", "--reference-model")
    assert profile.aggregator == load("own.toml").aggregator


def test_reference_models_replace_layers() -> None:
    profile = resolved(Overrides(reference_models=("x",), rounds=3), text=LAYERED)
    assert profile.layers == ()
    assert [[proposer.model for proposer in profile.layer(n)] for n in (1, 2, 3)] == [["x"]] * 3
    assert not any(path.startswith("layers") for path in told(profile))


def test_reference_models_with_samples_are_sampled() -> None:
    profile = resolved(Overrides(reference_models=("x",), samples=3))
    assert [proposer.name for proposer in profile.layer(1)] == ["x #1", "x #2", "x #3"]


def test_naming_reference_models_means_a_round_of_them_unless_rounds_are_typed() -> None:
    alone = "rounds = 0\n[aggregator]\nmodel = 'a'\n"
    named = resolved(Overrides(reference_models=("x",)), text=alone)
    assert named.rounds == 1
    assert told(named)["rounds"] == (1, "flag", "--reference-model")
    assert resolved(Overrides(reference_models=("x",), rounds=0), text=alone).rounds == 0


def test_another_aggregator_takes_over_only_what_fits_any_model() -> None:
    profile = resolved(Overrides(aggregator="z"))
    aggregator = profile.aggregator
    assert (aggregator.model, aggregator.temperature, aggregator.max_tokens) == ("z", 0.2, 22)
    assert (aggregator.timeout, aggregator.top_p, aggregator.seed, aggregator.fallbacks) == (
        None,
        None,
        None,
        (),
    )
    assert aggregator.extra == {}
    rest = told(profile)
    assert rest["aggregator.model"] == ("z", "flag", "--aggregator")
    assert rest["aggregator.temperature"] == (0.2, "profile", "own.toml")


def test_rounds_may_go_down_and_up_again_within_the_layers() -> None:
    down = override(resolved(text=LAYERED), Overrides(rounds=1), "/rounds")
    assert down.models() == ("b", "a")
    up = override(down, Overrides(rounds=2), "/rounds")
    assert up == resolved(text=LAYERED)
    assert told(up)["rounds"] == (2, "flag", "/rounds")
    assert override(override(up, Overrides(rounds=0)), Overrides(rounds=2)) == up


def test_overriding_leaves_the_profile_it_starts_from_alone() -> None:
    profile = resolved()
    before = dump(profile), told(profile)
    changed = override(profile, Overrides(temperature=1.0, reference_models=("x",)), "/set")
    assert (dump(profile), told(profile)) == before
    assert told(changed)["temperature"] == (1.0, "flag", "/set")
    assert told(changed)["aggregator.top_p"] == (0.9, "profile", "own.toml")


# --- faults


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MOA_TEMPERATURE", "warm"),
        ("MOA_TEMPERATURE", "2.1"),
        ("MOA_TEMPERATURE", "-1"),
        ("MOA_TEMPERATURE", "nan"),
        ("MOA_TEMPERATURE", "inf"),
        ("MOA_MAX_TOKENS", "0"),
        ("MOA_MAX_TOKENS", "1.5"),
        ("MOA_MAX_TOKENS", "9" * 5000),
        ("MOA_ROUNDS", "-1"),
        ("MOA_ROUNDS", "two"),
        ("MOA_ROUNDS", "11"),
        ("MOA_SAMPLES", "0"),
        ("MOA_SAMPLES", "65"),
        ("MOA_SAMPLES", "some"),
        ("MOA_MULTI_TURN", "maybe"),
        ("MOA_REFERENCE_PLACEMENT", "assistant"),
        ("MOA_REFERENCE_MODELS", "b,a b"),
        ("MOA_REFERENCE_MODELS", ","),
        ("MOA_AGGREGATOR", "a b"),
        ("MOA_AGGREGATOR", " "),
        ("MOA_AGGREGATOR", "a\udcff"),
    ],
)
def test_a_wrong_value_in_the_environment_names_its_variable(variable: str, text: str) -> None:
    error = refusal(None, {variable: text})
    assert error.message.startswith(f"{variable}: ")
    assert len(error.message) < 6000


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"temperature": 3.0}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"rounds": 11}, "--rounds"),
        ({"samples": 0}, "--samples"),
        ({"reference_placement": "assistant"}, "--reference-placement"),
        ({"reference_models": ("x", "")}, "--reference-model"),
        ({"reference_models": ()}, "--reference-model"),
        ({"aggregator": ""}, "--aggregator"),
    ],
)
def test_a_wrong_flag_is_named(given: dict[str, Any], flag: str) -> None:
    message = refusal(Overrides(**given)).message
    assert message.startswith(f"{flag}: ")
    # Once: the option is named as what it sets.
    [setting] = given
    assert setting == "reference_models" or f"{setting}`" not in message


def test_more_rounds_than_layers_name_who_asked_for_them() -> None:
    Path("own.toml").write_text(LAYERED)
    with pytest.raises(ProfileError, match=r"^--rounds: is 3, but .* 2 layers"):
        resolve("own.toml", environment={}, flags=Overrides(rounds=3))
    with pytest.raises(ProfileError, match=r"^MOA_ROUNDS: is 3"):
        resolve("own.toml", environment={"MOA_ROUNDS": "3"})
    with pytest.raises(ProfileError, match=r"^/rounds: is 3"):
        override(load("own.toml"), Overrides(rounds=3), "/rounds")


def test_a_wrong_file_does_not_hide_behind_a_flag() -> None:
    Path("own.toml").write_text(FILE.replace("0.5", "5"))
    with pytest.raises(ProfileError, match=r"^own.toml: `temperature` must be between 0 and 2"):
        resolve("own.toml", environment={}, flags=Overrides(temperature=1.0))


def test_a_wrong_variable_does_not_hide_behind_a_flag() -> None:
    error = refusal(Overrides(temperature=1.0), {"MOA_ROUNDS": "x"})
    assert error.message.startswith("MOA_ROUNDS: ")


def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(ProfileError, match=r"gone\.toml: no such profile file"):
        resolve("gone.toml", environment={})


def test_samples_of_the_environment_hold_for_proposers_that_were_typed() -> None:
    flags = Overrides(reference_models=("lab:x", "lab:y"))
    profile = resolve("self", environment={"MOA_SAMPLES": "3"}, flags=flags)
    assert [proposer.model for proposer in profile.layer(1)] == ["lab:x"] * 3 + ["lab:y"] * 3
    again = resolve(
        "self",
        environment={"MOA_SAMPLES": "3"},
        flags=Overrides(reference_models=("lab:x",), samples=2),
    )
    assert len(again.layer(1)) == 2


def test_what_a_command_sets_hides_where_the_values_in_it_came_from() -> None:
    def refuse(model: str) -> None:
        raise ProfileError(f"no `{model}`")

    changed = set_value(resolved(), "aggregator.fallbacks", "['g', 'h']", "/set")
    faults = [fault for fault in model_faults(changed, refuse) if "fallbacks" in fault.path]
    assert [fault.message for fault in faults] == ["/set: no `g`", "/set: no `h`"]
    dropped = drop_proposer(resolved(), "bee", "/drop")
    left = [origin for path, _, origin in rows(dropped) if path.startswith("proposers")]
    assert {str(origin) for origin in left} == {"/drop"}


def test_another_aggregator_leaves_the_proposers_as_they_are() -> None:
    profile = resolved()
    assert profile.aggregators()
    other = replace(profile.aggregator, temperature=0.9, fallbacks=())
    changed = profile.with_aggregator(other)
    expected = replace(profile, aggregator=other)
    assert changed == expected
    assert changed.aggregators() == expected.aggregators()
    assert changed.layer(1) is profile.layer(1)
    assert profile.aggregators()[1:]
