"""References are put where the reference implementation puts them, and hold answers only.

The whole text, byte for byte, is held in `tests/engine/test_parity.py`.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.engine.prompts import (
    AGGREGATE_AND_SYNTHESIZE,
    messages_for,
    references_text,
    strip_reasoning,
    with_references,
)
from tests.support.mixtures import lab, mixture

SYSTEM = Message("system", "Be brief.")
HELLO = (Message("user", "Hello"), Message("assistant", "Hi!"))
RAIN = Message("user", "Rain?\n")
TWO = AGGREGATE_AND_SYNTHESIZE + "\n1. Wet.\n2. Drops."

MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), max_size=5
).map(lambda before: (*before, RAIN))
REFERENCES = st.lists(st.text(min_size=1), min_size=1, max_size=4)


def test_without_references_nothing_changes() -> None:
    for messages in ([RAIN], [SYSTEM, RAIN]):
        assert with_references(messages, []) == tuple(messages)
        assert with_references(messages, [], "user") == tuple(messages)


def test_references_follow_a_first_system_message_after_a_blank_line() -> None:
    found = with_references([SYSTEM, *HELLO, RAIN], ["Wet.", "Drops."])
    assert found == (Message("system", f"Be brief.\n\n{TWO}"), *HELLO, RAIN)


def test_references_are_a_system_message_where_there_is_none() -> None:
    found = with_references([*HELLO, RAIN], ["Wet.", "Drops."])
    assert found == (Message("system", TWO), *HELLO, RAIN)


def test_a_system_message_further_down_is_not_the_first() -> None:
    found = with_references([*HELLO, SYSTEM, RAIN], ["Wet.", "Drops."])
    assert found == (Message("system", TWO), *HELLO, SYSTEM, RAIN)


def test_placement_user_appends_to_the_last_message() -> None:
    found = with_references([SYSTEM, *HELLO, RAIN], ["Wet.", "Drops."], "user")
    assert found == (SYSTEM, *HELLO, Message("user", f"Rain?\n\n\n{TWO}"))


@given(MESSAGES, REFERENCES)
def test_placement_system_leaves_the_conversation_as_it_is(
    messages: tuple[Message, ...], references: list[str]
) -> None:
    found = with_references(messages, references)
    led = messages[0].role == "system"
    assert found[0].role == "system"
    assert found[1:] == (messages[1:] if led else messages)
    before = f"{messages[0].content}\n\n" if led else ""
    assert found[0].content == before + references_text(references)


@given(MESSAGES, REFERENCES)
def test_placement_user_keeps_the_prefix(
    messages: tuple[Message, ...], references: list[str]
) -> None:
    found = with_references(messages, references, "user")
    assert found[:-1] == messages[:-1]
    assert found[-1] == Message("user", f"Rain?\n\n\n{references_text(references)}")


def test_references_are_numbered_from_one_without_names() -> None:
    text = references_text([f"answer {letter}" for letter in "abcdefghijk"])
    assert text.startswith(AGGREGATE_AND_SYNTHESIZE + "\n1. answer a\n2. answer b\n")
    assert text.endswith("\n10. answer j\n11. answer k")


def test_the_prompt_ends_in_a_colon() -> None:
    assert AGGREGATE_AND_SYNTHESIZE.endswith("\n\nResponses from models:")
    assert AGGREGATE_AND_SYNTHESIZE.count("\n") == 2


def test_white_space_around_a_reference_goes_and_that_inside_stays() -> None:
    assert references_text(["\n\t one\n\n  two \r\n\u2003"]) == (
        AGGREGATE_AND_SYNTHESIZE + "\n1. one\n\n  two"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("plain", "plain"),
        ("", ""),
        ("  \n ", ""),
        ("<think>hm</think>answer", "answer"),
        ("\n <think>\nhm\n</think>\n\n answer \n", "answer"),
        ("<think></think>answer", "answer"),
        ("<think>hm</think>", ""),
        # Its tokens ran out while it was thinking.
        ("<think>hm, and", ""),
        # The chat template wrote the opening tag into the prompt.
        ("hm\n</think>\n\nanswer", "answer"),
        ("hm</think>", ""),
        # More than one thought before the answer.
        ("<think>a</think>\n<think>b</think>\nanswer", "answer"),
        ("<think>a</think><think>b", ""),
        # An answer that speaks of the tags keeps its words.
        ("Write <think>hm</think> first.", "Write <think>hm</think> first."),
        ("<think>a</think>Use <think>x</think>.", "Use <think>x</think>."),
        ("<thinking>hm</thinking>", "<thinking>hm</thinking>"),
        ("It begins with <think>", "It begins with <think>"),
        ("It ends with </think> as a rule.", "It ends with </think> as a rule."),
        ("The tag that ends it is </think>", "The tag that ends it is </think>"),
        ("Write:\n\n</think>\n\nThen answer.", "Write:\n\n</think>\n\nThen answer."),
        ("Write `</think>`\n\nThen answer.", "Write `</think>`\n\nThen answer."),
        ("```\nhm\n</think>\n\nx\n```", "```\nhm\n</think>\n\nx\n```"),
    ],
)
def test_reasoning_that_an_answer_opens_with_is_no_part_of_it(text: str, answer: str) -> None:
    assert strip_reasoning(text) == answer


@given(st.text(st.sampled_from("ab \n<>/"), max_size=20), st.text(st.sampled_from("ab \n")))
def test_a_closed_thought_never_reaches_a_reference(thought: str, answer: str) -> None:
    assert strip_reasoning(f"<think>{thought}</think>{answer}") == answer.strip()


def test_an_answer_is_a_reference_without_its_reasoning() -> None:
    text = references_text(["<think>a secret</think>\nWet.", "a secret\n</think>\n\nDrops."])
    assert text == TWO


def test_a_system_prompt_of_its_own_replaces_any_other() -> None:
    profile = mixture(lab("a", system="Doubt."), "b", system="Be brief.")
    doubting, brief = profile.layer(1)
    bare = Conversation().ask("Rain?\n")
    led = Conversation(before=(Message("system", "I lead."),)).ask("Rain?\n")
    assert messages_for(profile, doubting, bare) == (Message("system", "Doubt."), RAIN)
    assert messages_for(profile, doubting, led) == (Message("system", "Doubt."), RAIN)
    assert messages_for(profile, brief, bare) == (SYSTEM, RAIN)
    assert messages_for(profile, brief, led) == (Message("system", "I lead."), RAIN)


def test_an_empty_system_prompt_of_its_own_means_none() -> None:
    profile = mixture(lab("a", system=""), system="Be brief.")
    [proposer] = profile.layer(1)
    assert messages_for(profile, proposer, Conversation().ask("Rain?\n")) == (RAIN,)


def test_without_multi_turn_only_the_lead_and_the_prompt_are_sent() -> None:
    profile = mixture("a", multi_turn=False)
    [proposer] = profile.layer(1)
    talk = Conversation(turns=(Turn(user="Hello", reply="Hi!"),), before=(SYSTEM, *HELLO))
    assert messages_for(profile, proposer, talk.ask("Rain?\n")) == (SYSTEM, RAIN)
