"""A turn of a strategy as its events, made by hand: proposals, rankings of them, and a reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from moa_cli.core.conversation import Failure, Proposal, Turn, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Decided,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Reported,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.strategy import Decision, Placing, Point, Purpose, Report
from moa_cli.core.stream import Sink, TurnFold, deliver

ONE_CALL = Usage(prompt_tokens=10, completion_tokens=5, calls=1, cost=0.001)
DECISION = Decision(
    "council",
    "2 of 3 rankings count",
    (Placing("b", 1, rank=1.0), Placing("a", 0, rank=1.5), Placing("c", 2, rank=3.0)),
    skipped=(
        "round 2 was not needed: all are alike (3 calls and about $0.010 saved)",
        "a check was not needed: all are alike (1 call and about $0.0020 saved)",
    ),
    saved_calls=4,
    saved_cost=0.012,
)
REPORT = Report(
    (Point("unique", "only b names the tide", ("b",)),), (("a", "c"), ("b",)), consensus=1 / 3
)
REPLY = "the reply of the chairman"


def layer(
    number: int,
    texts: Iterable[str | None],
    purpose: Purpose = "",
    *,
    finish_reason: str = "stop",
    known: int = 0,
) -> list[Event]:
    """A layer from its start to its end. texts: the answers of a, b, c, …; None for one that
    failed. known: how many of them had answered before it began again."""
    answers = [
        Proposal(
            number,
            index,
            name,
            f"lab:{name}",
            text or "",
            usage=ONE_CALL if text else Usage(),
            seconds=1.5,
            finish_reason=finish_reason,
            error=None if text else Failure("ServerFailed", f"lab:{name}: status 500"),
            purpose=purpose,
        )
        for index, (name, text) in enumerate(zip("abcdefgh", texts, strict=False))
    ]
    callers = tuple(Caller(name=answer.proposer, model=answer.model) for answer in answers)
    told: list[Event] = [LayerStarted(layer=number, proposers=callers, purpose=purpose)]
    for answer in answers[known:]:
        index = answer.index
        told.append(ProposerStarted(layer=number, index=index, prompt_tokens=10))
        ended = ProposerFailed if answer.error else ProposerFinished
        told.append(ended(layer=number, index=index, proposal=answer))
    count = sum(answer.error is None for answer in answers)
    return [*told, LayerFinished(layer=number, answered=count, asked=len(answers), seconds=2.0)]


def started(rounds: int = 1) -> TurnStarted:
    """The beginning of a turn."""
    return TurnStarted(profile="panel", prompt="why?", rounds=rounds, aggregator="lab:agg")


def reply(text: str = REPLY, *, name: str = "agg", copied: bool = False) -> list[Event]:
    """A reply from its start to its end. copied: whether it is a proposal's own words."""
    usage = Usage() if copied else ONE_CALL
    model = f"lab:{name}"
    return [
        AggregatorStarted(name=name, model=model, references=3, copied=copied),
        AggregatorDelta(text=text),
        AggregatorFinished(model=model, text=text, usage=usage, finish_reason="stop"),
    ]


def finished(calls: int, *lost: str) -> TurnFinished:
    """The end of a turn of so many calls."""
    return TurnFinished(usage=sum([ONE_CALL] * calls, Usage()), seconds=4.0, lost=lost)


def council() -> list[Event]:
    """A council of three, of which one gives no ranking; a report follows the reply."""
    return [
        started(),
        *layer(1, ["answer of a", "answer of b", "answer of c"]),
        *layer(2, ["1. first", None, "2. second"], "rank"),
        Decided(decision=DECISION),
        *reply(),
        *layer(4, ['{"points": []}'], "report"),
        Reported(report=REPORT),
        finished(7, "b (ranking): lab:b: status 500"),
    ]


def copied() -> list[Event]:
    """A vote, whose reply is a proposal's own words."""
    decision = Decision(
        "vote",
        "2 of 3 answer 42",
        (Placing("b", 1, "42", 2), Placing("c", 2, "42", 2), Placing("a", 0, "41", 1)),
        chosen=1,
    )
    return [
        started(),
        *layer(1, ["it is 41", "it is 42", "42"]),
        Decided(decision=decision),
        *reply("it is 42", name="b", copied=True),
        finished(3),
    ]


def folded(events: Iterable[Event]) -> Turn:
    """The turn that events tell."""
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    return fold.turn()


def delivered(events: Iterable[Event], *sinks: Sink) -> Turn:
    """The same, shown to sinks."""

    async def coming() -> AsyncIterator[Event]:
        for event in events:
            yield event

    return asyncio.run(deliver(coming(), *sinks))
