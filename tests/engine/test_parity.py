"""What is sent is, byte for byte and in call order, what the paper and the reference send.

The golden messages are written out by hand from the rules (paper, Table 1; the reference's
`utils.py`): the prompt and its numbered references after a blank line at the end of a first
system message, or as a system message of their own before all else; every model of a later
layer is given all answers of the layer before, stripped, its own included; history is user
messages and replies. With one call at a time the upstream's log is the call order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.engine import Limits
from moa_cli.profile import Profile
from tests.support.mixtures import asked, lab, mixture, run
from tests.support.upstream import Reply, Upstream

# Table 1 of the paper (arXiv:2406.04692); no line end after the last colon.
TABLE_1 = (
    "You have been provided with a set of responses from various open-source models to the"
    " latest user query. Your task is to synthesize these responses into a single, high-quality"
    " response. It is crucial to critically evaluate the information provided in these"
    " responses, recognizing that some of it may be biased or incorrect. Your response should"
    " not simply replicate the given answers but should offer a refined, accurate, and"
    " comprehensive reply to the instruction. Ensure your response is well-structured,"
    " coherent, and adheres to the highest standards of accuracy and reliability.\n"
    "\n"
    "Responses from models:"
)
ONE_BY_ONE = Limits(concurrency=1, retries=0)
REFUSED = Reply(status=400)


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


Golden = list[tuple[str, list[dict[str, str]]]]
# By model, call by call.
Answers = Mapping[str, Sequence[str | Reply]]


def sent(up: Upstream, profile: Profile, answers: Answers, talk: Conversation) -> Golden:
    """Run the turn with these answers, model by model and call by call; what was sent."""
    for model, replies in answers.items():
        up.enqueue(model, *(Reply(chunks=[r]) if isinstance(r, str) else r for r in replies))
    run(up, profile, talk, limits=ONE_BY_ONE)
    return [(request.model, request.messages) for request in up.chats()]


def test_no_rounds_are_the_bare_conversation(upstream: Upstream) -> None:
    assert sent(upstream, mixture("a", "b", rounds=0), {}, asked("What is rain?")) == [
        ("agg", [{"role": "user", "content": "What is rain?"}]),
    ]


def test_no_rounds_with_a_system_message(upstream: Upstream) -> None:
    profile = mixture("a", rounds=0, system="Be brief.")
    assert sent(upstream, profile, {}, asked("What is rain?")) == [
        (
            "agg",
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is rain?"},
            ],
        ),
    ]


def test_one_round(upstream: Upstream) -> None:
    answers = {
        "a": ["Water that falls."],
        "b": ["\n  Drops from\n\n- clouds  \n"],
        "c": ["<think>wet</think>\n\nÉ pluie\u2028🌧 "],
    }
    assert sent(upstream, mixture("a", "b", "c"), answers, asked("What is rain?")) == [
        ("a", [{"role": "user", "content": "What is rain?"}]),
        ("b", [{"role": "user", "content": "What is rain?"}]),
        ("c", [{"role": "user", "content": "What is rain?"}]),
        (
            "agg",
            [
                {
                    "role": "system",
                    "content": TABLE_1
                    + "\n1. Water that falls."
                    + "\n2. Drops from\n\n- clouds"
                    + "\n3. É pluie\u2028🌧",
                },
                {"role": "user", "content": "What is rain?"},
            ],
        ),
    ]


def test_one_round_whole_prompt_in_bytes(upstream: Upstream) -> None:
    # The one golden prompt that is written out as a whole, as the endpoint reads it.
    [_, (_, messages)] = sent(upstream, mixture("a"), {"a": ["Wet."]}, asked("Rain?"))
    assert messages[0]["content"].encode() == (
        b"You have been provided with a set of responses from various open-source models to "
        b"the latest user query. Your task is to synthesize these responses into a single, "
        b"high-quality response. It is crucial to critically evaluate the information provided "
        b"in these responses, recognizing that some of it may be biased or incorrect. Your "
        b"response should not simply replicate the given answers but should offer a refined, "
        b"accurate, and comprehensive reply to the instruction. Ensure your response is "
        b"well-structured, coherent, and adheres to the highest standards of accuracy and "
        b"reliability.\n\nResponses from models:\n1. Wet."
    )


def test_one_round_with_a_system_message(upstream: Upstream) -> None:
    profile = mixture("a", "b", system="Be brief.")
    answers = {"a": ["Water."], "b": ["Drops."]}
    own = [system("Be brief."), user("What is rain?")]
    assert sent(upstream, profile, answers, asked("What is rain?")) == [
        ("a", own),
        ("b", own),
        (
            "agg",
            [
                system("Be brief.\n\n" + TABLE_1 + "\n1. Water.\n2. Drops."),
                user("What is rain?"),
            ],
        ),
    ]


def test_two_rounds(upstream: Upstream) -> None:
    answers = {"a": ["a one", "a two"], "b": ["b one", "b two"]}
    question = user("What is rain?")
    assert sent(upstream, mixture("a", "b", rounds=2), answers, asked("What is rain?")) == [
        ("a", [question]),
        ("b", [question]),
        ("a", [system(TABLE_1 + "\n1. a one\n2. b one"), question]),
        ("b", [system(TABLE_1 + "\n1. a one\n2. b one"), question]),
        ("agg", [system(TABLE_1 + "\n1. a two\n2. b two"), question]),
    ]


def test_three_rounds_with_system_message_and_history(upstream: Upstream) -> None:
    profile = mixture("a", "b", rounds=3, system="Be brief.")
    answers = {
        "a": ["a one", "a two", "a three"],
        "b": ["b one", "b two", "b three"],
    }
    talk = Conversation(turns=(Turn(user="Hello\n", reply=" Hi! "),)).ask("What is rain?")
    rest = [user("Hello\n"), assistant(" Hi! "), user("What is rain?")]
    assert sent(upstream, profile, answers, talk) == [
        ("a", [system("Be brief."), *rest]),
        ("b", [system("Be brief."), *rest]),
        ("a", [system("Be brief.\n\n" + TABLE_1 + "\n1. a one\n2. b one"), *rest]),
        ("b", [system("Be brief.\n\n" + TABLE_1 + "\n1. a one\n2. b one"), *rest]),
        ("a", [system("Be brief.\n\n" + TABLE_1 + "\n1. a two\n2. b two"), *rest]),
        ("b", [system("Be brief.\n\n" + TABLE_1 + "\n1. a two\n2. b two"), *rest]),
        ("agg", [system("Be brief.\n\n" + TABLE_1 + "\n1. a three\n2. b three"), *rest]),
    ]


def test_three_rounds_with_history_and_no_system_message(upstream: Upstream) -> None:
    answers = {"a": ["one", "two", "three"]}
    talk = Conversation(turns=(Turn(user="Hello", reply="Hi!"),)).ask("What is rain?")
    rest = [user("Hello"), assistant("Hi!"), user("What is rain?")]
    assert sent(upstream, mixture("a", rounds=3), answers, talk) == [
        ("a", rest),
        ("a", [system(TABLE_1 + "\n1. one"), *rest]),
        ("a", [system(TABLE_1 + "\n1. two"), *rest]),
        ("agg", [system(TABLE_1 + "\n1. three"), *rest]),
    ]


def test_history_is_prompts_and_replies_never_references(upstream: Upstream) -> None:
    # Two turns, the second on what came of the first.
    profile = mixture("a", system="Be brief.")
    first = sent(upstream, profile, {"a": ["Water."], "agg": ["It is water."]}, asked("Rain?"))
    assert first == [
        ("a", [system("Be brief."), user("Rain?")]),
        ("agg", [system("Be brief.\n\n" + TABLE_1 + "\n1. Water."), user("Rain?")]),
    ]
    talk = Conversation(turns=(Turn(user="Rain?", reply="It is water."),)).ask("And snow?")
    rest = [user("Rain?"), assistant("It is water."), user("And snow?")]
    assert sent(upstream, profile, {"a": ["Ice."]}, talk)[2:] == [
        ("a", [system("Be brief."), *rest]),
        ("agg", [system("Be brief.\n\n" + TABLE_1 + "\n1. Ice."), *rest]),
    ]


def test_a_turn_without_a_reply_leaves_the_history(upstream: Upstream) -> None:
    lost = Turn(user="Lost?", reply=None, status="failed")
    kept = Turn(user="Hello", reply="Hi!")
    talk = Conversation(turns=(kept, lost)).ask("Rain?")
    assert sent(upstream, mixture(rounds=0), {}, talk) == [
        ("agg", [user("Hello"), assistant("Hi!"), user("Rain?")]),
    ]


@pytest.mark.parametrize(
    ("lost", "references"),
    [
        ("a", "\n1. from b\n2. from c"),
        ("b", "\n1. from a\n2. from c"),
        ("c", "\n1. from a\n2. from b"),
    ],
)
def test_a_failed_proposer_is_dropped_and_the_others_are_renumbered(
    upstream: Upstream, lost: str, references: str
) -> None:
    answers: dict[str, list[str | Reply]] = {model: [f"from {model}"] for model in "abc"}
    answers[lost] = [REFUSED]
    assert sent(upstream, mixture("a", "b", "c"), answers, asked("Rain?")) == [
        ("a", [user("Rain?")]),
        ("b", [user("Rain?")]),
        ("c", [user("Rain?")]),
        ("agg", [system(TABLE_1 + references), user("Rain?")]),
    ]


def test_a_proposer_that_failed_once_is_asked_again_in_the_next_round(upstream: Upstream) -> None:
    answers: Answers = {
        "a": [REFUSED, "a two", "a three"],
        "b": ["b one", "b two", REFUSED],
    }
    profile = mixture("a", "b", rounds=3, system="Be brief.")
    assert sent(upstream, profile, answers, asked("Rain?")) == [
        ("a", [system("Be brief."), user("Rain?")]),
        ("b", [system("Be brief."), user("Rain?")]),
        ("a", [system("Be brief.\n\n" + TABLE_1 + "\n1. b one"), user("Rain?")]),
        ("b", [system("Be brief.\n\n" + TABLE_1 + "\n1. b one"), user("Rain?")]),
        ("a", [system("Be brief.\n\n" + TABLE_1 + "\n1. a two\n2. b two"), user("Rain?")]),
        ("b", [system("Be brief.\n\n" + TABLE_1 + "\n1. a two\n2. b two"), user("Rain?")]),
        ("agg", [system("Be brief.\n\n" + TABLE_1 + "\n1. a three"), user("Rain?")]),
    ]


def test_a_fallback_is_sent_what_the_aggregator_was(upstream: Upstream) -> None:
    profile = mixture("a", aggregator=lab("agg", fallbacks=["lab:second"]))
    given = [system(TABLE_1 + "\n1. Wet."), user("Rain?")]
    assert sent(upstream, profile, {"a": ["Wet."], "agg": [REFUSED]}, asked("Rain?")) == [
        ("a", [user("Rain?")]),
        ("agg", given),
        ("second", given),
    ]


def test_layers_of_their_own(upstream: Upstream) -> None:
    answers = {"a": ["from a"], "b": ["from b"], "c": ["from c"]}
    profile = mixture(layers=(("a", "b"), ("c",)))
    assert sent(upstream, profile, answers, asked("Rain?")) == [
        ("a", [user("Rain?")]),
        ("b", [user("Rain?")]),
        ("c", [system(TABLE_1 + "\n1. from a\n2. from b"), user("Rain?")]),
        ("agg", [system(TABLE_1 + "\n1. from c"), user("Rain?")]),
    ]


def test_samples_are_references_of_their_own(upstream: Upstream) -> None:
    answers = {"a": ["first", "second", "first"]}
    assert sent(upstream, mixture(lab("a", samples=3)), answers, asked("Rain?")) == [
        ("a", [user("Rain?")]),
        ("a", [user("Rain?")]),
        ("a", [user("Rain?")]),
        ("agg", [system(TABLE_1 + "\n1. first\n2. second\n3. first"), user("Rain?")]),
    ]


@pytest.mark.parametrize("led", [[], ["Be brief."]])
def test_placement_user_leaves_all_before_the_last_message_as_it_is(
    upstream: Upstream, led: list[str]
) -> None:
    settings: dict[str, Any] = {"system": led[0]} if led else {}
    profile = mixture("a", "b", rounds=2, reference_placement="user", **settings)
    answers: Answers = {"a": ["a one", "a two"], "b": [REFUSED, "b two"]}
    talk = Conversation(turns=(Turn(user="Hello", reply="Hi!"),)).ask("Rain?")
    before = [*map(system, led), user("Hello"), assistant("Hi!")]
    assert sent(upstream, profile, answers, talk) == [
        ("a", [*before, user("Rain?")]),
        ("b", [*before, user("Rain?")]),
        ("a", [*before, user("Rain?\n\n" + TABLE_1 + "\n1. a one")]),
        ("b", [*before, user("Rain?\n\n" + TABLE_1 + "\n1. a one")]),
        ("agg", [*before, user("Rain?\n\n" + TABLE_1 + "\n1. a two\n2. b two")]),
    ]


def test_a_model_with_a_system_prompt_of_its_own_gets_that_one(upstream: Upstream) -> None:
    profile = mixture(
        lab("a", system="Doubt."), "b", aggregator=lab("agg", system="Sum up."), system="Be brief."
    )
    answers = {"a": ["from a"], "b": ["from b"]}
    assert sent(upstream, profile, answers, asked("Rain?")) == [
        ("a", [system("Doubt."), user("Rain?")]),
        ("b", [system("Be brief."), user("Rain?")]),
        (
            "agg",
            [system("Sum up.\n\n" + TABLE_1 + "\n1. from a\n2. from b"), user("Rain?")],
        ),
    ]


def test_a_conversation_that_brings_its_system_message_keeps_it(upstream: Upstream) -> None:
    # As a client of the server does: its messages come before the open turn.
    said = (Message("system", "I lead."), Message("user", "Hello"), Message("assistant", "Hi!"))
    talk = replace(Conversation(), before=said).ask("Rain?")
    rest = [user("Hello"), assistant("Hi!"), user("Rain?")]
    assert sent(upstream, mixture("a", system="Be brief."), {"a": ["Wet."]}, talk) == [
        ("a", [system("I lead."), *rest]),
        ("agg", [system("I lead.\n\n" + TABLE_1 + "\n1. Wet."), *rest]),
    ]


def test_single_turn_profiles_leave_the_history_out(upstream: Upstream) -> None:
    profile = mixture("a", system="Be brief.", multi_turn=False)
    talk = Conversation(turns=(Turn(user="Hello", reply="Hi!"),)).ask("Rain?")
    assert sent(upstream, profile, {"a": ["Wet."]}, talk) == [
        ("a", [system("Be brief."), user("Rain?")]),
        ("agg", [system("Be brief.\n\n" + TABLE_1 + "\n1. Wet."), user("Rain?")]),
    ]
