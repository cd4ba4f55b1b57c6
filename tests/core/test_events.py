"""Disk, wire and screen speak one vocabulary: every event survives `to_dict`, JSON and
`from_dict`, and nothing else is taken for an event."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core import events
from moa_cli.core.conversation import Failure, Proposal, Usage, without_empty
from moa_cli.core.events import (
    Caller,
    Event,
    LayerStarted,
    ProposerFinished,
    TurnFinished,
    from_dict,
    to_dict,
)
from moa_cli.core.money import Price
from moa_cli.core.strategy import Decision, Placing, Point, Report
from tests.support.values import values_of

CLASSES: tuple[type[Any], ...] = get_args(Event)


# One of each class, made by hand; `test_every_class_has_an_example` keeps it whole.
FAILURE = Failure("RateLimited", "lab: too many requests", "wait a little")
USAGE = Usage(12, 7, 3, 4, 2, 1)
PROPOSAL = Proposal(
    layer=1,
    index=0,
    proposer="a",
    model="lab:a",
    text="Ünïcode \u2028 \x00 🌧",
    reasoning="hm",
    answered_by="a-2026",
    usage=USAGE,
    seconds=1.5,
    first_token=0.25,
    finish_reason="stop",
)
LOST = dataclasses.replace(PROPOSAL, text="", first_token=None, error=FAILURE)
EXAMPLES: tuple[Event, ...] = (
    events.TurnStarted(at=0.0, profile="p", prompt="Rain?\n", rounds=2, aggregator="lab:agg"),
    LayerStarted(
        at=0.1, layer=1, proposers=(Caller(name="a", model="lab:a"), Caller(name="b", model="b"))
    ),
    LayerStarted(layer=2, proposers=()),
    events.ProposerStarted(layer=1, index=0, prompt_tokens=12, price=Price(0.5, 1.5)),
    events.ProposerDelta(layer=1, index=0, text="so", reasoning="hm"),
    ProposerFinished(layer=1, index=0, proposal=PROPOSAL),
    events.ProposerFailed(layer=1, index=0, proposal=LOST),
    events.Retrying(layer=1, index=None, model="m", attempt=2, delay=0.5, error=FAILURE),
    events.Retrying(
        layer=1, index=2, model="m", attempt=2, delay=0.5, error=FAILURE, withdrawn=True
    ),
    events.Queued(layer=1, index=2, model="m", reason="waiting for the limit of lab"),
    events.Queued(layer=2, index=None, model="m"),
    events.Hedged(layer=1, index=2, model="m", seconds=8.0),
    events.Hedged(layer=2, index=None, model="m", seconds=8.0),
    events.Retrying(layer=1, index=3, model="m", attempt=2, delay=0.0, error=Failure("K", "m")),
    events.HistoryTrimmed(
        turns=40,
        models=(
            events.LeftOutTurns("m", 3, 8192),
            events.LeftOutTurns("other", 9, 32768, assumed=True),
        ),
    ),
    events.ReferencesTrimmed(layer=2, index=0, model="m", kept=300, context=4096),
    events.LayerFinished(layer=1, answered=1, asked=2, seconds=2.5),
    events.AggregatorStarted(name="agg", model="lab:agg", references=3, fallback=True),
    events.AggregatorDelta(text="so", reasoning="hm"),
    events.AggregatorFinished(
        model="lab:agg", text="so it is", answered_by="agg-2", usage=USAGE, first_token=0.5
    ),
    events.AggregatorFailed(model="lab:agg", error=FAILURE, text="so", usage=USAGE),
    TurnFinished(at=9.0, usage=USAGE, seconds=9.0, lost=("a: gone", "b: gone")),
    events.TurnFailed(error=FAILURE, causes=(FAILURE, FAILURE), usage=USAGE, seconds=3.0),
    events.LayerStarted(layer=2, proposers=(Caller(name="judge", model="j"),), purpose="rank"),
    events.Decided(
        decision=Decision(
            strategy="vote",
            summary="2 of 3 answer 42",
            placings=(Placing("a", 0, "42", 2), Placing("b", 1, None, 0, 1.5)),
            chosen=0,
            skipped=("no aggregator was asked",),
            saved_calls=1,
            saved_cost=0.25,
        )
    ),
    events.Reported(
        report=Report(
            points=(Point("conflict", "is it 42?", ("a", "b")),),
            groups=(("a",), ("b",)),
            consensus=0.0,
        )
    ),
)


def through_json(values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def required(cls: type[Any]) -> list[str]:
    missing = dataclasses.MISSING
    return [
        kind.name
        for kind in dataclasses.fields(cls)
        if kind.default is missing and kind.default_factory is missing
    ]


def test_every_class_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(CLASSES)


def test_every_class_with_a_kind_is_in_the_union_and_exported() -> None:
    found = {
        event
        for event in vars(events).values()
        if getattr(event, "__module__", "") == events.__name__ and hasattr(event, "kind")
    }
    assert found == set(CLASSES)
    assert {kind.__name__ for kind in CLASSES} <= set(events.__all__)


def test_a_kind_is_the_name_of_its_class() -> None:
    for cls in CLASSES:
        assert cls.kind == re.sub(r"(?<=.)([A-Z])", r"_\1", cls.__name__).lower()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: str(event.kind))
def test_an_event_survives_json(event: Event) -> None:
    assert from_dict(through_json(to_dict(event))) == event
    assert from_dict(to_dict(event)) == event


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_any_event_survives_json(cls: type[Any], data: st.DataObject) -> None:
    event = data.draw(values_of(cls))
    back = from_dict(through_json(to_dict(event)))
    assert back == event
    assert hash(back) == hash(event)
    values = dataclasses.asdict(event, dict_factory=without_empty)
    assert to_dict(event) == {"kind": event.kind, **values}


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: str(event.kind))
def test_the_kind_comes_first(event: Event) -> None:
    assert next(iter(to_dict(event).items())) == ("kind", event.kind)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": None},
        {"kind": "turn_exploded"},
        {"kind": "TurnFinished"},
        {"kind": ["turn_finished"]},
        {"at": 0.0, "text": "so"},
    ],
)
def test_what_is_of_no_known_kind_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an event"):
        from_dict(values)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: str(event.kind))
def test_an_unknown_key_is_refused_and_named(event: Event) -> None:
    with pytest.raises(ValueError, match="colour"):
        from_dict(to_dict(event) | {"colour": "red"})


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: str(event.kind))
def test_a_missing_key_is_refused_and_named(event: Event) -> None:
    for name in required(type(event)):
        values = to_dict(event)
        del values[name]
        with pytest.raises(ValueError, match=name):
            from_dict(values)


def test_a_key_that_has_a_default_may_be_missing() -> None:
    # What an older version wrote stays readable.
    values = {"kind": "proposer_delta", "layer": 1, "index": 0}
    assert from_dict(values) == events.ProposerDelta(layer=1, index=0)


@pytest.mark.parametrize("wrong", [None, "text", 7, ["list"], {"colour": "red"}, {}])
def test_a_proposal_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="Proposal"):
        from_dict({"kind": "proposer_finished", "layer": 1, "index": 0, "proposal": wrong})


@pytest.mark.parametrize("wrong", ["ab", 7, {"name": "a", "model": "a"}, [{"name": "a"}], ["a"]])
def test_proposers_that_are_no_list_of_callers_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"LayerStarted|Caller"):
        from_dict({"kind": "layer_started", "layer": 1, "proposers": wrong})
