"""The aggregator acts, the proposers advise: they read calls and results as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.conversation import Conversation, Message, Part, Turn
from moa_cli.core.errors import ProfileError
from moa_cli.core.events import AggregatorDelta, AggregatorFinished, AggregatorStarted
from moa_cli.core.stream import TurnFold
from moa_cli.engine.advice import view_for
from moa_cli.engine.forecast import forecast_turn
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE, EarlierProposal, messages_for
from moa_cli.profile import Profile
from tests.support.mixtures import asked, lab, mixture, of_kind, run
from tests.support.tool_calls import TOOLS, called, calling, result
from tests.support.upstream import Reply, Upstream

FIX = Message("user", "Fix a.py.")
DONE = Message("assistant", "Done.")
WORK = (
    Message("system", "Be brief."),
    Message("user", "Look."),
    called("read", text="I look."),
    result("read", "x = 1"),
    DONE,
)
NOTE = "logs of another agent"


def offering(*proposers: str, **settings: Any) -> Profile:
    """A mixture whose aggregator is offered tools."""
    extra = {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True, "top_k": 5}
    return mixture(*proposers, aggregator=lab("agg", extra=extra), **settings)


def advised(talk: Conversation, **settings: Any) -> tuple[Message, ...]:
    """What a proposer is sent."""
    profile = offering("a", **settings)
    [proposer] = profile.layer(1)
    return messages_for(profile, proposer, view_for(profile, proposer, talk))


def roles(messages: tuple[Message, ...]) -> list[str]:
    return [message.role for message in messages]


def test_a_conversation_without_tools_is_sent_as_it_is() -> None:
    talk = Conversation(before=(WORK[0], FIX, DONE)).ask("And b.py?")
    for profile in (mixture("a"), mixture("a", tools="ignore")):
        [proposer] = profile.layer(1)
        assert view_for(profile, proposer, talk) is talk
        assert view_for(profile, profile.aggregators()[0], talk) is talk


def test_before_the_first_call_proposers_are_told_that_they_have_no_tools() -> None:
    talk = Conversation(before=(WORK[0], FIX, DONE)).ask("And b.py?")
    found = advised(talk)
    # All before the end is as it was, and so is all of it for who acts.
    assert found[:-1] == (WORK[0], FIX, DONE)
    assert found[-1].content.startswith("And b.py?\n\n[You have no tools, and cannot act")
    assert NOTE not in found[-1].content
    profile = offering("a")
    assert view_for(profile, profile.aggregators()[0], talk) is talk


def test_the_note_stands_with_the_users_message_whatever_that_holds() -> None:
    image = Part("image", url="data:image/png;base64,AAAA", name="a.png")
    shown = advised(Conversation.of([Message.of_parts("user", [Part("text", "Look."), image])]))
    assert shown[-1].parts[1] == image
    assert shown[-1].parts[-1].text.startswith("[You have no tools")
    begun = advised(Conversation.of([FIX, Message("assistant", "Sure: {")]))
    assert roles(begun) == ["user"]
    assert begun[0].content.index("[You have no tools") < begun[0].content.index("Sure: {")


@pytest.mark.parametrize("placement", ["system", "user"])
def test_the_second_layer_is_told_too(upstream: Upstream, placement: Any) -> None:
    upstream.always("agg", calling("read"))
    run(upstream, offering("a", rounds=2, reference_placement=placement), Conversation.of([FIX]))
    prompts = [request.messages[-1]["content"] for request in upstream.chats("a")]
    assert [prompt.count("[You have no tools") for prompt in prompts] == [1, 1]
    assert all(prompt.startswith("Fix a.py.\n\n[You have no tools") for prompt in prompts)
    assert "You have no tools" not in str(upstream.chats("agg")[0].messages)


@pytest.mark.parametrize("work", [(), (called("read"), result("read", "x = 1"))])
def test_whose_tools_are_ignored_is_told_before_the_reply_begins(work: tuple[Message, ...]) -> None:
    profile = offering("a", tools="ignore")
    begun = Message("assistant", "Sure: {")
    told = view_for(profile, profile.aggregators()[0], Conversation.of([FIX, *work, begun]))
    *before, last = told.messages()
    assert last == begun
    assert before[-1].role == "user"
    assert "You have no tools now: answer the latest message in text.]" in before[-1].content


def test_calls_and_results_are_text_that_ends_in_the_users_message() -> None:
    talk = Conversation.of([*WORK, FIX])
    found = advised(talk)
    assert roles(found) == ["system", "user", "assistant", "user", "assistant", "user"]
    assert found[2].content == 'I look.\n\n[called tool: read({"path": "a.py"})]'
    assert found[3].content == "[result of read]\nx = 1"
    assert found[-1].content.startswith("Fix a.py.\n\n[")
    assert NOTE in found[-1].content
    assert not any(message.tool_calls or message.tool_call_id for message in found)


def test_a_step_of_the_work_ends_in_its_results() -> None:
    after = [called("read", "write"), result("read", "x = 1"), result("write", "written")]
    found = advised(Conversation.of([FIX, *after]))
    assert roles(found) == ["user", "assistant", "user"]
    assert found[0] == FIX
    calls = '[called tool: read({"path": "a.py"})]\n[called tool: write({"path": "a.py"})]'
    assert found[1].content == calls
    told = found[2].content
    assert told.startswith("[result of read]\nx = 1\n\n[result of write]\nwritten\n\n[")
    assert NOTE in told


def test_roles_alternate_where_a_user_interrupts_the_work() -> None:
    talk = Conversation.of([FIX, called("read"), result("read", "x"), Message("user", "Stop!")])
    found = advised(talk)
    assert roles(found) == ["user", "assistant", "user"]
    assert "[result of read]\nx\n\nStop!" in found[-1].content
    calls = (called("read"), called("write"))
    assert roles(advised(Conversation.of([FIX, *calls]))) == ["user", "assistant", "user"]


def test_a_long_result_and_long_arguments_are_cut_in_the_middle() -> None:
    text = "first " + "x" * 50_000 + " last"
    talk = Conversation.of([FIX, called("write", arguments=text), result("write", text)])
    for message in advised(talk)[1:]:
        assert len(message.content) < 5_000
        assert "first x" in message.content
        assert "x last" in message.content
        assert "[… 46,011 characters left out …]" in message.content


def test_a_result_without_a_name_or_with_an_image_can_be_told() -> None:
    seen = Message.of_parts("tool", [Part("text", "see"), Part("image", url="https://x/a.png")])
    after = [called("read"), replace(seen, tool_call_id="call_read"), Message("tool", "?")]
    found = advised(Conversation.of([FIX, *after]))
    assert found[-1].content.startswith("[result of read]\nsee\n[image]\n[result of a tool]\n?")
    assert [part.url for part in found[-1].parts if part.kind == "image"] == ["https://x/a.png"]


def test_calls_of_turns_that_are_kept_here_are_text_too() -> None:
    turn = Turn(user="Look.", reply="", tool_calls=called("read").tool_calls)
    found = advised(Conversation((turn,)).ask("And?"))
    assert roles(found) == ["user", "assistant", "user"]
    assert found[1].content.startswith("[called tool: read(")


def test_a_history_that_is_not_sent_along_leaves_the_work_on_the_prompt() -> None:
    after = [called("write"), result("write", "written")]
    talk = Conversation.of([*WORK, FIX, *after])
    found = advised(talk, multi_turn=False)
    assert roles(found) == ["system", "user", "assistant", "user"]
    assert found[1] == FIX
    alone = offering("a", multi_turn=False)
    sent = messages_for(alone, alone.aggregators()[0], talk)
    assert sent == (WORK[0], FIX, *after)


def test_a_proposer_is_told_how_the_reply_begins() -> None:
    talk = Conversation.of([FIX, Message("assistant", "Sure: {")])
    [found] = advised(talk)
    assert found.role == "user"
    assert found.content.startswith("Fix a.py.\n\n[")
    assert found.content.endswith("\nSure: {")


def test_no_proposer_is_sent_a_tool(upstream: Upstream) -> None:
    upstream.always("agg", calling("read", "write"))
    talk = Conversation.of([*WORK, FIX])
    profile = offering("a", "b", rounds=2)
    events = run(upstream, profile, talk)
    for request in (*upstream.chats("a"), *upstream.chats("b")):
        assert request.body.keys() <= {"model", "messages", "stream", "stream_options"}
        assert request.messages[-1]["role"] == "user"
        assert {message["role"] for message in request.messages} <= {"system", "user", "assistant"}
    [acting] = upstream.chats("agg")
    assert acting.body["tools"] == TOOLS
    assert acting.body["tool_choice"] == "auto"
    assert [message["role"] for message in acting.messages] == roles((*WORK, FIX))
    [finished] = of_kind(events, AggregatorFinished)
    assert [call.name for call in finished.tool_calls] == ["read", "write"]
    assert {call.arguments for call in finished.tool_calls} == {'{"path": "a.py"}'}
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    assert fold.turn().tool_calls == finished.tool_calls
    assert fold.turn().reply == ""


def test_ignored_tools_leave_the_aggregator_with_text(upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="ok"))
    talk = Conversation.of([FIX, called("read"), result("read", "x = 1")])
    run(upstream, offering("a", tools="ignore"), talk)
    [acting] = upstream.chats("agg")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & acting.body.keys()
    assert acting.body["top_k"] == 5
    assert [message["role"] for message in acting.messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert "answer the latest message in text" in acting.messages[-1]["content"]
    assert NOTE not in str(acting.messages)


def test_refused_tools_are_an_error_that_names_the_key(upstream: Upstream) -> None:
    with pytest.raises(ProfileError, match='takes no tools: it says `tools = "refuse"`') as raised:
        run(upstream, offering("a", tools="refuse"))
    assert raised.value.path == ("tools",)
    assert upstream.chats() == []
    # Without tools there is nothing to refuse.
    run(upstream, mixture("a", tools="refuse"))


def test_tools_that_were_not_offered_are_not_told(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    events = run(upstream, mixture("a"))
    assert of_kind(events, AggregatorDelta) == []
    assert of_kind(events, AggregatorFinished) == []


OLD = EarlierProposal(1, 0, "a", "lab:a", "Read it.")
STEP = (called("read"), result("read", "x = 1"))


def sent(talk: Conversation, references: list[EarlierProposal | str], **more: Any) -> Any:
    """What the aggregator is sent."""
    profile = offering("a", **more)
    return messages_for(profile, profile.aggregators()[0], talk, references)


def test_references_in_the_system_message_leave_the_work_as_it_is() -> None:
    talk = Conversation.of([WORK[0], FIX, *STEP])
    found = sent(talk, ["Read it."])
    assert found[1:] == (FIX, *STEP)
    assert found[0].content == f"Be brief.\n\n{AGGREGATE_AND_SYNTHESIZE}\n1. Read it."


def test_references_at_the_end_stand_in_a_message_of_their_own_behind_the_work() -> None:
    talk = Conversation.of([WORK[0], FIX, *STEP])
    found = sent(talk, ["Read it."], reference_placement="user")
    assert found[:-1] == (WORK[0], FIX, *STEP)
    assert found[-1] == Message("user", f"{AGGREGATE_AND_SYNTHESIZE}\n1. Read it.")


def test_references_at_the_end_stand_before_the_beginning_of_the_reply() -> None:
    begun = Message("assistant", "Sure: {")
    text = f"{AGGREGATE_AND_SYNTHESIZE}\n1. Read it."
    behind = sent(Conversation.of([FIX, *STEP, begun]), ["Read it."], reference_placement="user")
    assert behind == (FIX, *STEP, Message("user", text), begun)
    at_once = sent(Conversation.of([FIX, begun]), ["Read it."], reference_placement="user")
    assert at_once == (Message("user", f"Fix a.py.\n\n{text}"), begun)


def test_references_at_the_end_follow_words_of_the_user_behind_the_results() -> None:
    hint = Message("user", "Hurry.")
    talk = replace(Conversation.of([FIX]), after=(*STEP, hint))
    found = sent(talk, ["Read it."], reference_placement="user")
    assert found[:-1] == (FIX, *STEP)
    assert found[-1].content == f"Hurry.\n\n{AGGREGATE_AND_SYNTHESIZE}\n1. Read it."


def test_a_merge_prompt_holds_the_prompt_and_not_the_last_result() -> None:
    merge = "{prompt} | {references}"
    talk = Conversation.of([FIX, *STEP])
    found = sent(talk, ["Read it."], reference_placement="user", merge_prompt=merge)
    assert found == (FIX, *STEP, Message("user", "Fix a.py. | 1. Read it."))
    alone = sent(asked("Fix a.py."), ["Read it."], reference_placement="user", merge_prompt=merge)
    assert alone == (Message("user", "Fix a.py. | 1. Read it."),)


def test_an_image_stays_where_references_are_added() -> None:
    parts = (Part("text", "What is it?"), Part("image", url="https://x/a.png"))
    talk = Conversation().ask("What is it?\n[image]", parts)
    [found] = sent(talk, ["A cat."], reference_placement="user")
    assert found.parts[:2] == parts
    assert found.parts[2].text == f"{AGGREGATE_AND_SYNTHESIZE}\n1. A cat."


@pytest.mark.parametrize("placement", ["system", "user"])
def test_earlier_references_are_introduced_as_older_than_the_results(placement: str) -> None:
    talk = Conversation.of([FIX, *STEP])
    found = sent(talk, [OLD], reference_placement=placement)
    [text] = [message.content for message in found if "Responses from models" in message.content]
    label, rest = text.split("\n\n", 1)
    assert "written before the latest tool results" in label
    assert rest == f"{AGGREGATE_AND_SYNTHESIZE}\n1. Read it."


def test_an_estimate_counts_the_view_of_the_proposers() -> None:
    talk = Conversation.of([FIX, called("read"), result("read", "word " * 20_000)])
    profile = offering("a")
    first, last = forecast_turn(profile, talk, {})
    assert first.usage.prompt_tokens < 2_500
    assert last.usage.prompt_tokens > 15_000


def test_the_tools_themselves_count_as_tokens_of_the_prompt(upstream: Upstream) -> None:
    many = [{"type": "function", "function": {"name": "f", "description": "word " * 5_000}}]
    upstream.always("agg", calling("f"))
    profile = mixture("a", aggregator=lab("agg", extra={"tools": many}))
    [started] = of_kind(run(upstream, profile), AggregatorStarted)
    assert started.prompt_tokens > 5_000
    [_, last] = forecast_turn(profile, asked(), {})
    assert last.usage.prompt_tokens > 5_000


def test_arguments_of_calls_count_as_tokens_of_the_prompt() -> None:
    profile = offering("a")
    talk = Conversation.of([FIX, called("write", arguments="word " * 5_000), result("write", "")])
    [_, last] = forecast_turn(profile, talk, {})
    assert last.usage.prompt_tokens > 4_000


def test_a_turn_without_reuse_says_nothing_of_it(upstream: Upstream) -> None:
    [started] = of_kind(run(upstream, mixture("a")), AggregatorStarted)
    assert not started.reused
