"""Old turns are left out where a model's context has no room for them: the oldest first, whole, and
told once for all models of the turn."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import FrameType

import pytest

from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.core.events import Event, HistoryTrimmed, LeftOutTurns, TurnFinished
from moa_cli.core.tokens import prompt_tokens
from moa_cli.engine import Limits
from moa_cli.engine.history import history_uses, newest, without_oldest
from moa_cli.engine.prompts import messages_for
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, of_kind, run
from tests.support.upstream import Reply, Upstream

CONTEXTS = {"a": 8192, "small": 2000, "agg": 8192, "unknown": None}
# A turn of about 200 tokens.
LONG = "word " * 195
ASSUMING = replace(AT_ONCE, assumed_context=1_000_000)
TURNS = tuple(Turn(user=f"prompt {n}", reply=f"reply {n} {LONG}") for n in range(1, 11))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    models = [
        {"id": name, **({} if tokens is None else {"context_length": tokens})}
        for name, tokens in CONTEXTS.items()
    ]
    with Upstream(models=models) as running:
        running.always("*", Reply(text="ok"))
        yield running


def said(upstream: Upstream, model: str) -> list[str]:
    """The first two words of each message of the last call of a model, but for a system message."""
    messages = upstream.chats(model)[-1].messages
    texts = [str(message["content"]) for message in messages if message["role"] != "system"]
    return [" ".join(text.split()[:2]) for text in texts]


def spoken(first: int) -> list[str]:
    """The same of a model that is sent the turns from that number on."""
    turns = [word for n in range(first, 11) for word in (f"prompt {n}", f"reply {n}")]
    return [*turns, "go on"]


def played(upstream: Upstream, profile: object, **named: object) -> list[Event]:
    """The events of a turn after ten others, the provider's list read before."""
    run(upstream, mixture(aggregator="agg"), asked())
    upstream.requests.clear()
    talk = Conversation(TURNS).ask("go on")
    return run(upstream, profile, talk, **named)  # type: ignore[arg-type]


def test_a_model_without_room_for_all_turns_is_sent_the_newest_ones(upstream: Upstream) -> None:
    events = played(upstream, mixture("a", "small", aggregator=lab("agg", system="Be brief.")))
    [trimmed] = of_kind(events, HistoryTrimmed)
    assert trimmed.turns == 10
    [left] = trimmed.models
    assert (left.model, left.context, left.assumed) == ("lab:small", 2000, False)
    assert 2 <= left.count <= 6
    assert said(upstream, "small") == spoken(left.count + 1)
    assert said(upstream, "a") == said(upstream, "agg") == spoken(1)
    assert upstream.chats("agg")[-1].messages[0]["content"].startswith("Be brief.")
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].lost == ()


def test_it_is_told_once_for_all_models_and_before_any_is_asked(upstream: Upstream) -> None:
    profile = mixture("small", lab("small", max_tokens=400), rounds=2, aggregator="small")
    events = played(upstream, profile)
    assert [event.kind for event in events[:3]] == [
        "turn_started",
        "history_trimmed",
        "layer_started",
    ]
    assert len(of_kind(events, HistoryTrimmed)) == 1


def test_room_is_set_aside_for_references(upstream: Upstream) -> None:
    def left_out(*proposers: str) -> int:
        [trimmed] = of_kind(
            played(upstream, mixture(*proposers, aggregator="small")), HistoryTrimmed
        )
        return trimmed.models[0].count

    assert left_out() < left_out("a", "agg") <= 9


@pytest.mark.parametrize(("assumed", "left"), [(2000, True), (20_000, False), (None, False)])
def test_an_unknown_context_is_assumed_and_said_to_be(
    upstream: Upstream, assumed: int | None, left: bool
) -> None:
    limits = Limits(retries=0, assumed_context=assumed)
    events = played(upstream, mixture(aggregator="unknown"), limits=limits)
    trimmed = of_kind(events, HistoryTrimmed)
    if not left:
        assert trimmed == []
        assert said(upstream, "unknown") == spoken(1)
        return
    [models] = [event.models for event in trimmed]
    assert models == (LeftOutTurns("lab:unknown", models[0].count, 2000, assumed=True),)
    assert said(upstream, "unknown") == spoken(models[0].count + 1)


def test_a_prompt_that_is_beyond_an_assumed_context_is_sent_all_the_same(
    upstream: Upstream,
) -> None:
    talk = Conversation(TURNS).ask("go on " + LONG * 20)
    limits = Limits(retries=0, assumed_context=2000)
    events = run(upstream, mixture(aggregator="unknown"), talk, limits=limits)
    assert [left.count for left in of_kind(events, HistoryTrimmed)[0].models] == [10]
    assert said(upstream, "unknown") == ["go on"]
    assert isinstance(events[-1], TurnFinished)


def test_messages_that_another_program_keeps_are_not_left_out(upstream: Upstream) -> None:
    messages = [*Conversation(TURNS).messages(), Message("user", "go on")]
    profile = mixture(aggregator="small")
    run(upstream, profile, asked())
    events = run(upstream, profile, Conversation.of(messages))
    assert of_kind(events, HistoryTrimmed) == []
    assert events[-1].kind == "turn_failed"


def test_nothing_is_left_out_where_that_is_not_wanted(upstream: Upstream) -> None:
    limits = Limits(retries=0, trims_history=False)
    events = played(upstream, mixture(aggregator="small"), limits=limits)
    assert of_kind(events, HistoryTrimmed) == []
    assert events[-1].kind == "turn_failed"


@pytest.mark.parametrize(("most", "first"), [(0, 11), (1, 10), (3, 8), (10, 1), (99, 1)])
def test_max_history_is_the_most_turns_that_are_sent(most: int, first: int) -> None:
    profile = mixture("a", max_history=most)
    talk = Conversation(TURNS).ask("go on")
    kept_elsewhere = Conversation.of([*Conversation(TURNS).messages(), Message("user", "go on")])
    for conversation in (talk, kept_elsewhere):
        messages = messages_for(profile, profile.layer(1)[0], conversation)
        assert [" ".join(message.content.split()[:2]) for message in messages] == spoken(first)


def test_max_history_counts_turns_with_their_calls_of_tools_and_keeps_the_system_message() -> None:
    def shorter(most: int) -> list[str]:
        talk = Conversation.of(
            [
                Message("system", "s"),
                Message("user", "1"),
                Message("assistant", "calls"),
                Message("tool", "result"),
                Message("assistant", "r1"),
                Message("user", "2"),
                Message("assistant", "r2"),
                Message("user", "3"),
            ]
        )
        return [message.content for message in newest(talk, most).messages()]

    assert shorter(2) == ["s", "1", "calls", "result", "r1", "2", "r2", "3"]
    assert shorter(1) == ["s", "2", "r2", "3"]
    assert shorter(0) == ["s", "3"]


def test_a_summary_stands_in_place_of_the_turns_up_to_its_own(upstream: Upstream) -> None:
    turns = (*TURNS[:7], replace(TURNS[7], summary_so_far="We spoke of words."), *TURNS[8:])
    talk = Conversation(turns, (Message("system", "Be kind."), Message("user", "before"))).ask("go")
    run(upstream, mixture(aggregator="agg"), talk)
    messages = upstream.chats("agg")[-1].messages
    assert [message["role"] for message in messages] == [
        "system",
        *("user", "assistant") * 3,
        "user",
    ]
    assert messages[1]["content"] == "A summary of our conversation so far:\n\nWe spoke of words."
    assert said(upstream, "agg")[2:] == ["prompt 9", "reply 9", "prompt 10", "reply 10", "go"]


def test_a_summary_stays_while_turns_behind_it_are_left_out(upstream: Upstream) -> None:
    turns = (replace(TURNS[0], summary_so_far="We spoke of words."), *TURNS[1:])
    run(upstream, mixture(aggregator="small"), asked())
    events = run(upstream, mixture(aggregator="small"), Conversation(turns).ask("go on"))
    [trimmed] = of_kind(events, HistoryTrimmed)
    assert trimmed.turns == 9
    assert said(upstream, "small")[:1] == ["A summary"]
    assert said(upstream, "small")[2:] == spoken(trimmed.models[0].count + 2)


def test_what_an_endpoint_finds_too_long_loses_turns_behind_a_summary_before_the_summary() -> None:
    turns = (*TURNS[:3], replace(TURNS[3], summary_so_far="S."), TURNS[4], TURNS[5])
    talk = Conversation(turns).ask("go on")
    left: list[int] = []
    texts: list[Sequence[str]] = []
    while True:
        talk, dropped = without_oldest(talk)
        if not dropped:
            break
        left.append(dropped)
        texts.append([message.content.split()[-1] for message in talk.messages()])
    assert left == [2, 2, 2]
    assert [len(kept) for kept in texts] == [5, 3, 1]
    assert texts[-1] == ["on"]


def test_the_meter_says_what_the_engine_then_leaves_out(upstream: Upstream) -> None:
    profile = mixture("a", "small", aggregator="unknown")
    talk = Conversation(TURNS)
    contexts = {f"lab:{name}": tokens for name, tokens in CONTEXTS.items()}
    tight, *others = history_uses(profile, talk, contexts, 4096)
    assert [use.model for use in (tight, *others)] == ["lab:small", "lab:unknown", "lab:a"]
    assert [use.assumed for use in (tight, *others)] == [False, True, False]
    assert tight.share > 1
    assert tight.left_out > 0
    assert tight.tokens == prompt_tokens(talk.messages()) - prompt_tokens(())
    assert others[1].share < 0.5
    limits = Limits(retries=0, assumed_context=4096)
    [trimmed] = of_kind(played(upstream, profile, limits=limits), HistoryTrimmed)
    assert 0 <= trimmed.models[0].count - tight.left_out <= 1


def test_what_is_computed_of_earlier_turns_is_computed_once(upstream: Upstream) -> None:
    """A later turn encodes and counts what is new, and not the whole conversation once more."""
    profile = mixture("unknown", "unknown", "unknown", aggregator="unknown")
    work: Counter[str] = Counter()

    def note(frame: FrameType, what: str, _: object) -> None:
        if what == "call" and "moa_cli" in frame.f_code.co_filename:
            work["calls"] += 1
        if what == "call" and frame.f_code is json.dumps.__code__:
            work["encoded"] += len(repr(frame.f_locals["obj"]))

    def work_of_a_later_turn(turns: tuple[Turn, ...]) -> Counter[str]:
        run(upstream, profile, Conversation(turns).ask("one question"), limits=ASSUMING)
        work.clear()
        sys.setprofile(note)
        try:
            run(upstream, profile, Conversation(turns).ask("another one"), limits=ASSUMING)
        finally:
            sys.setprofile(None)
        return work.copy()

    few, many = work_of_a_later_turn(TURNS), work_of_a_later_turn(many_turns(210))
    assert many["encoded"] < few["encoded"] + 1000
    # Of each earlier turn, in four calls.
    assert (many["calls"] - few["calls"]) / 200 < 30


def many_turns(count: int) -> tuple[Turn, ...]:
    return tuple(Turn(user=f"prompt {n}", reply=f"reply {n} {LONG}") for n in range(count))
