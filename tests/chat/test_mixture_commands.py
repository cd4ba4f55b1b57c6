"""The commands that change the mixture and the settings of a chat in use.

What a command asks for is told by what the upstream is sent; one that fails changes nothing.
"""

from __future__ import annotations

import pytest

from tests.support.talk import Talk
from tests.support.upstream import Reply

REFUSED = Reply(status=400, error={"error": {"message": "no"}})


def test_a_model_that_is_added_answers_from_the_next_turn_on(talk: Talk) -> None:
    assert talk.do("/add lab:c") == "round 1: lab:a, lab:b, lab:c\naggregator: lab:agg"
    talk.do("hi")
    assert talk.sent("c") == [["hi"]]


def test_adding_a_model_to_the_aggregator_alone_begins_a_round(talk: Talk) -> None:
    talk.do("/rounds 0", "/add lab:c", "hi")
    assert talk.session.profile.rounds == 1
    assert talk.sent("c") == [["hi"]]


def test_a_model_that_is_dropped_is_asked_no_more(talk: Talk) -> None:
    assert talk.do("/drop lab:b") == "round 1: lab:a\naggregator: lab:agg"
    talk.do("hi")
    assert talk.sent("b") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/add", "moa: /add needs a model"),
        ("/add a b", "moa: /add: `proposers[3].model` is not a model name: 'a b'"),
        ("/drop", "moa: /drop needs a model"),
        ("/drop lab:z", "moa: there is no proposer `lab:z` (there are lab:a, lab:b)"),
    ],
)
def test_what_cannot_be_added_or_dropped_is_told(talk: Talk, line: str, said: str) -> None:
    before = talk.session.profile
    assert talk.do(line) == said
    assert talk.session.profile == before


def test_the_last_proposer_stays(talk: Talk) -> None:
    said = talk.do("/drop lab:a", "/drop lab:b")
    assert said.endswith("the last proposer of a round cannot be dropped (use /rounds 0)")
    assert [proposer.model for proposer in talk.session.profile.proposers] == ["lab:b"]


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("temperature 0.3", "temperature", 0.3),
        ("max_tokens 77", "max_tokens", 77),
        ("aggregator.temperature 0.1", "temperature", 0.1),
        ("aggregator.max_tokens 99", "max_tokens", 99),
        ("aggregator.top_p 0.5", "top_p", 0.5),
        ("aggregator.seed 7", "seed", 7),
    ],
)
def test_a_setting_of_the_profile_is_sent(
    talk: Talk, setting: str, field: str, value: float
) -> None:
    assert talk.do(f"/set {setting}") == setting.replace(" ", " = ", 1)
    talk.do("hi")
    [proposer], [aggregator] = (talk.upstream.chats(model) for model in ("a", "agg"))
    assert aggregator.body[field] == value
    assert (field in proposer.body) == (not setting.startswith("aggregator."))


def test_a_strategy_holds_for_the_turns_that_follow(talk: Talk) -> None:
    assert talk.do("/set strategy select") == "strategy = select"
    talk.upstream.enqueue("a", Reply(text="words of a"))
    talk.upstream.enqueue("agg", Reply(text="model_1"))
    talk.do("hi")
    assert talk.out == "words of a\n"
    talk.do("/set strategy synthesize")
    talk.upstream.enqueue("agg", Reply(text="written"))
    talk.do("hi again")
    assert talk.out == "written\n"


def test_settings_that_are_no_fields_of_a_request_hold_too(talk: Talk) -> None:
    talk.upstream.always("c", REFUSED)
    talk.do(
        "/set rounds 2",
        "/set system Be brief.",
        "/set multi_turn off",
        "/set reference_placement user",
        "/set on_all_failed solo",
        "/set timeout 30",
        "/set aggregator.model lab:c",
        '/set aggregator.fallbacks ["lab:d"]',
        "first",
        "second",
    )
    assert len(talk.upstream.chats("a")) == 4
    assert talk.sent("a")[2] == ["second"]
    assert talk.upstream.chats("a")[0].messages[0]["content"] == "Be brief."
    assert "1. ok" in talk.sent("d")[-1][-1]


@pytest.mark.parametrize("key", ["compact", "live", "plain", "reasoning", "vi"])
def test_a_setting_of_the_chat_is_switched(talk: Talk, key: str) -> None:
    for word, value in (("on", True), ("off", False), ("yes", True), ("FALSE", False)):
        assert talk.do(f"/set {key} {word}") == f"{key} = {word}"
        assert getattr(talk.chat.options, key) is value


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rouds 2", "there is no key `rouds` to set (did you mean `rounds`?)"),
        ("compcat on", "there is no key `compcat` to set (did you mean `compact`?)"),
        ("aggregator.modell x", "there is no key `aggregator.modell` to set (did you mean `agg"),
        ("zzz 1", "there is no key `zzz` to set (known: description, rounds, "),
        ("rounds x", "/set: `rounds` must be a whole number, not 'x'"),
        ("rounds", "/set needs a key and a value (/profile show lists the keys)"),
        ("", "/set needs a key and a value"),
        ("temperature 9", "/set: `temperature` must be between 0 and 2, not 9"),
        ("on_all_failed cry", "/set: `on_all_failed` must be one of fail, solo, not 'cry'"),
        ("compact perhaps", "compact must be on or off, not 'perhaps'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(talk: Talk, setting: str, said: str) -> None:
    before, options = talk.session.profile, str(talk.chat.options)
    assert talk.do(f"/set {setting}").startswith(f"moa: {said}")
    assert (talk.session.profile, str(talk.chat.options)) == (before, options)


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (
            "multiline",
            "Alt-Enter sends, Enter begins a new line",
            "Enter sends, Alt-Enter begins a new line",
        ),
        ("plain", "replies are shown as raw text", "replies are shown as Markdown"),
    ],
)
def test_multiline_and_plain_are_switched_and_back(
    talk: Talk, command: str, first: str, second: str
) -> None:
    for said, value in ((first, True), (second, False)):
        assert talk.do(f"/{command}") == said
        assert getattr(talk.chat.options, command) is value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/temperature none", "temperature not set"),
        ("/max-tokens none", "max-tokens not set"),
        ("/set temperature none", "temperature = none"),
        ("/set max_tokens none", "max_tokens = none"),
        ("/set system none", "system = none"),
        ("/set judge none", "judge = none"),
    ],
)
def test_none_takes_a_setting_away(talk: Talk, line: str, said: str) -> None:
    before = talk.session.profile
    talk.do("/temperature 0.5", "/max-tokens 9", "/system be brief", "/set judge lab:a")
    assert talk.do(line) == said
    changed = "max_tokens" if "max" in line else line.removeprefix("/set").split()[0].strip("/")
    assert getattr(talk.session.profile, changed) == getattr(before, changed)


def test_none_takes_the_temperature_of_each_model_away(talk: Talk) -> None:
    talk.do("/set aggregator.temperature 0.1", "/temperature none", "hi")
    assert "temperature" not in talk.upstream.chats("agg")[0].body
    talk.do("/set aggregator.temperature 0.1", "/set aggregator.temperature none", "hi")
    assert "temperature" not in talk.upstream.chats("agg")[1].body


def test_none_that_is_a_value_stays_one(talk: Talk) -> None:
    talk.do("/set reasoning_effort none")
    assert talk.session.profile.reasoning_effort == "none"


@pytest.mark.parametrize("word", ["on", "yes", "TRUE"])
def test_a_setting_is_switched_by_each_word_for_it(talk: Talk, word: str) -> None:
    talk.do(f"/set use_partial {word}")
    assert talk.session.profile.use_partial
    assert talk.do("/set use_partial 3") == "moa: use_partial must be on or off, not '3'"


@pytest.mark.parametrize("line", ["/profile show other", "/profile list other"])
def test_what_would_show_another_profile_is_refused(talk: Talk, line: str) -> None:
    assert " takes no argument" in talk.do(line)
