"""Replies that have to be JSON: checked, asked for once more if wrong, and never told if wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    Event,
    Retrying,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.stream import TurnFold
from moa_cli.engine import Budget, Cap
from moa_cli.engine.structured.format import ResponseFormat
from tests.support.mixtures import AT_ONCE, lab, mixture, of_kind, run
from tests.support.scenarios import BROKEN, play
from tests.support.tool_calls import TOOLS, calling
from tests.support.upstream import Reply, Upstream

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
GOOD = '{"city": "Graz", "people": 300000}'
WRONG = '{"city": "Graz", "people": "many"}'


def by(schema: Any) -> ResponseFormat:
    found = ResponseFormat.of(
        {"type": "json_schema", "json_schema": {"name": "town", "strict": True, "schema": schema}}
    )
    assert found is not None
    return found


TOWN = by(SCHEMA)
OBJECT = ResponseFormat("json_object")


def folded(events: list[Event]) -> Turn:
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    return fold.turn()


def told(events: list[Event]) -> list[str]:
    """The texts of the reply's deltas."""
    return [event.text for event in of_kind(events, AggregatorDelta) if event.text]


def test_only_the_aggregator_is_asked_for_json_and_its_text_is_told_at_once(
    upstream: Upstream,
) -> None:
    play(upstream, {"agg": [Reply(chunks=list(GOOD))]})
    events = run(upstream, mixture("a", "b"), response_format=TOWN)
    assert told(events) == [GOOD]
    assert isinstance(events[-1], TurnFinished)
    [asking] = upstream.chats("agg")
    assert asking.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "town", "strict": True, "schema": SCHEMA},
    }
    for proposer in ("a", "b"):
        assert "response_format" not in upstream.chats(proposer)[0].body
    assert not of_kind(events, Retrying)


@pytest.mark.parametrize(
    "written",
    [f"```json\n{GOOD}\n```", f"```\n{GOOD}```", f"\n\n {GOOD} \n", f"\ufeff{GOOD}"],
    ids=["fence", "plain-fence", "blanks", "mark"],
)
def test_what_stands_around_the_json_is_taken_away_without_a_call(
    upstream: Upstream, written: str
) -> None:
    play(upstream, {"agg": [Reply(chunks=[written])]})
    events = run(upstream, mixture("a"), response_format=TOWN)
    assert told(events) == [GOOD]
    assert folded(events).reply == GOOD
    assert len(upstream.chats("agg")) == 1


def test_a_wrong_answer_is_asked_for_once_more_with_what_is_wrong(upstream: Upstream) -> None:
    play(upstream, {"agg": [Reply(text=WRONG), Reply(text=GOOD)]})
    events = run(upstream, mixture("a"), response_format=TOWN)
    assert told(events) == [GOOD]
    [retry] = of_kind(events, Retrying)
    assert (retry.error.kind, retry.withdrawn, retry.attempt) == ("SchemaMismatch", True, 2)
    first, second = upstream.chats("agg")
    assert second.messages[: len(first.messages)] == first.messages
    answer, complaint = second.messages[len(first.messages) :]
    assert answer == {"role": "assistant", "content": WRONG}
    assert complaint["role"] == "user"
    assert '$.people must be an integer, but is "many"' in complaint["content"]
    assert second.body["response_format"] == first.body["response_format"]
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.usage.calls == 2
    turn = folded(events)
    assert turn.usage.calls == 3
    assert turn.usage.completion_tokens == sum(call.usage[1] for call in upstream.requests)
    assert turn.usage.prompt_tokens == sum(call.usage[0] for call in upstream.requests)
    assert turn.ledger[-1].usage.calls == 2


def test_a_second_wrong_answer_is_a_named_error_and_nothing_of_it_is_told(
    upstream: Upstream,
) -> None:
    upstream.always("agg", Reply(text=f"Here you are: {GOOD}"))
    events = run(upstream, mixture("a"), response_format=TOWN)
    assert told(events) == []
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "SchemaMismatch"
    assert failed.usage.calls == 2
    last = events[-1]
    assert isinstance(last, TurnFailed)
    assert last.error.kind == "SchemaMismatch"
    assert "it is not JSON" in last.error.message
    assert last.error.hint
    assert folded(events).reply is None
    assert len(upstream.chats("agg")) == 2


def test_a_fallback_writes_the_reply_but_nobody_is_asked_a_third_time(upstream: Upstream) -> None:
    play(upstream, {"agg": Reply(text=WRONG), "second": Reply(text=GOOD)})
    profile = mixture("a", aggregator=lab("agg", fallbacks=["lab:second"]))
    events = run(upstream, profile, response_format=TOWN)
    assert folded(events).reply == GOOD
    assert upstream.chats("second")[0].body["response_format"] == TOWN.body()
    upstream.always("second", Reply(text=WRONG))
    events = run(upstream, profile, response_format=TOWN)
    assert [len(upstream.chats(model)) for model in ("agg", "second")] == [4, 2]
    assert isinstance(events[-1], TurnFailed)
    assert events[-1].error.kind == "SchemaMismatch"


def test_the_second_call_is_made_again_like_any_other(upstream: Upstream) -> None:
    play(upstream, {"agg": [BROKEN, Reply(text=WRONG), BROKEN, Reply(text=GOOD)]})
    events = run(upstream, mixture("a"), response_format=TOWN)
    assert [event.attempt for event in of_kind(events, Retrying)] == [2, 3, 4]
    assert folded(events).reply == GOOD


def test_a_broken_stream_is_asked_for_again_as_nobody_was_shown_it(upstream: Upstream) -> None:
    play(upstream, {"agg": [Reply(chunks=list(GOOD), drop_after=5), Reply(text=GOOD)]})
    events = run(upstream, mixture("a"), response_format=TOWN)
    assert told(events) == [GOOD]


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(text='{"city": "Gr', finish_reason="length"), "SchemaMismatch", "max_tokens"),
        (Reply(text="I cannot say.", finish_reason="refusal"), "AnswerRefused", "I cannot say."),
        (Reply(text="I can", finish_reason="content_filter"), "ContentFiltered", "filter"),
    ],
    ids=["length", "refusal", "filter"],
)
def test_what_would_not_help_is_not_asked_for_again(
    upstream: Upstream, reply: Reply, kind: str, words: str
) -> None:
    upstream.always("agg", reply)
    events = run(upstream, mixture("a"), response_format=TOWN)
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == kind
    assert words in failed.error.message
    assert len(upstream.chats("agg")) == 1
    assert told(events) == []


def test_an_answer_that_is_cut_but_right_is_right(upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=GOOD, finish_reason="length"))
    assert folded(run(upstream, mixture("a"), response_format=TOWN)).reply == GOOD


def test_an_object_is_an_object(upstream: Upstream) -> None:
    play(upstream, {"agg": [Reply(text="[1]"), Reply(text='{"a": [1]}')]})
    events = run(upstream, mixture("a"), response_format=OBJECT)
    assert told(events) == ['{"a": [1]}']
    assert upstream.chats("agg")[0].body["response_format"] == {"type": "json_object"}


def test_a_cap_has_the_last_word_on_the_second_call(upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=WRONG, usage=(400, 30)))
    budget = Budget(Cap("the cap", "tokens", 600))
    profile = mixture(rounds=0, aggregator=lab("agg", max_tokens=50))
    events = run(
        upstream, profile, limits=replace(AT_ONCE, budgets=(budget,)), response_format=TOWN
    )
    assert len(upstream.chats("agg")) == 1
    assert isinstance(events[-1], TurnFailed)
    assert events[-1].error.kind == "BudgetReached"


def test_the_second_call_counts_for_a_cap(upstream: Upstream) -> None:
    play(upstream, {"agg": [Reply(text=WRONG), Reply(text=GOOD)]})
    budget = Budget(Cap("the cap", "tokens", 5000), "shared")
    profile = mixture(rounds=0, aggregator=lab("agg", max_tokens=50))
    events = run(
        upstream, profile, limits=replace(AT_ONCE, budgets=(budget,)), response_format=TOWN
    )
    used = folded(events).usage
    assert used.calls == 2
    assert budget.remaining() == 5000 - used.total_tokens


def test_a_second_prompt_that_does_not_fit_is_not_sent(upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=" ".join(["word"] * 300)))
    profile = mixture(rounds=0, aggregator=lab("agg", context=300, max_tokens=100))
    events = run(upstream, profile, response_format=TOWN)
    assert len(upstream.chats("agg")) == 1
    assert isinstance(events[-1], TurnFailed)
    assert events[-1].error.kind == "SchemaMismatch"


def test_calls_of_tools_in_place_of_text_are_not_checked(upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    profile = mixture("a", aggregator=lab("agg", extra={"tools": TOOLS}))
    events = run(upstream, profile, response_format=TOWN)
    [finished] = of_kind(events, AggregatorFinished)
    assert [call.name for call in finished.tool_calls] == ["read"]
    assert len(upstream.chats("agg")) == 1


@pytest.mark.parametrize(
    ("message", "lasting"),
    [
        ("Unrecognized request argument supplied: response_format", True),
        ("This response_format type is unavailable now", True),
        ("This model does not support response format `json_schema`.", True),
        ("Invalid schema for response_format 'town': 'temperature' is not permitted", False),
    ],
)
def test_an_endpoint_that_takes_no_format_is_told_in_words(
    upstream: Upstream, message: str, lasting: bool
) -> None:
    refusal = Reply(status=400, error={"error": {"message": message}})
    # A second turn shows what was learned of the model.
    replies = [refusal, Reply(text=WRONG), *([] if lasting else [refusal]), Reply(text=GOOD)]
    upstream.enqueue("agg", *replies)
    profile = mixture("a", aggregator=lab("agg", temperature=0.5))
    events = run(upstream, profile, response_format=TOWN)
    assert folded(events).reply == GOOD
    assert folded(events).usage.calls == 3
    refused, taken, *_, again = upstream.chats("agg")
    assert len(upstream.chats("agg")) == len(replies)
    assert "response_format" not in taken.body
    assert taken.body["temperature"] == 0.5
    assert taken.messages[:-1] == refused.messages
    for request in (taken, again):
        last = request.messages[-1]
        assert last["role"] == "system"
        assert json.dumps(SCHEMA) in last["content"]


def test_an_object_is_asked_for_in_words_too(upstream: Upstream) -> None:
    message = "'messages' must contain the word 'json' in some form, to use 'response_format'"
    refusal = Reply(status=400, error={"error": {"message": message}})
    upstream.enqueue("agg", refusal, Reply(text="{}"))
    assert folded(run(upstream, mixture("a"), response_format=OBJECT)).reply == "{}"
    assert "JSON" in upstream.chats("agg")[1].messages[-1]["content"]


def test_a_refusal_of_something_else_is_told_as_it_is(upstream: Upstream) -> None:
    upstream.always("agg", Reply(status=400, error={"error": {"message": "No such voice."}}))
    events = run(upstream, mixture("a"), response_format=TOWN)
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "RequestRefused"
    assert len(upstream.chats("agg")) == 1
