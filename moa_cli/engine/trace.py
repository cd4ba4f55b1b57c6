"""The debug log of a turn: each step of the turn, and the reason for it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, ParamSpec

from moa_cli.core import events
from moa_cli.core.debug_log import TURN, RoomLog
from moa_cli.core.events import Event, to_dict

P = ParamSpec("P")
Events = AsyncGenerator[Event, None]

_LOG = RoomLog("moa.engine")
_NUMBERS = itertools.count(1)


def traced(run: Callable[P, Events]) -> Callable[P, Events]:
    """Wrap `run_turn` so that its events also go to the debug log, if the log is enabled when the
    turn begins."""

    @functools.wraps(run)
    def run_turn(*arguments: P.args, **named: P.kwargs) -> Events:
        turn = run(*arguments, **named)
        return _passed(turn) if _LOG.enabled else turn

    return run_turn


async def _passed(turn: Events) -> Events:
    # The tasks that make the calls of the turn inherit this number.
    TURN.set(next(_NUMBERS))
    lost: str | None = None
    async with aclosing(turn):
        async for event in turn:
            if not isinstance(event, events.ProposerDelta | events.AggregatorDelta):
                values = {**_without_texts(to_dict(event)), "why": _reason(event, lost)}
                _LOG.write(event.kind.replace("_", " "), **values)
                if isinstance(event, events.AggregatorFailed):
                    lost = f"{event.model} failed: {event.error.message}"
            yield event


def _reason(event: Event, lost: str | None) -> str | None:
    """Why the turn takes this step, if it is not simply the next one."""
    match event:
        case events.Retrying() if event.error.kind == "SchemaMismatch":
            return "repair: the reply is not the JSON that was asked for"
        case events.Retrying():
            return f"retry: {event.error.kind} may pass; attempt {event.attempt}"
        case events.Queued():
            return f"limit: {event.reason}" if event.reason else None
        case events.Hedged():
            return f"hedge: no word for {event.seconds:.1f} s"
        case events.ReferencesTrimmed():
            return f"fit: whole references are beyond the context of {event.context} tokens"
        case events.HistoryTrimmed():
            return "fit: all earlier turns are beyond the context of a model"
        case events.ProposerFailed() if event.proposal.error is not None:
            kind = event.proposal.error.kind
            known = {
                "Abandoned": "enough answers: not waited for",
                "BudgetReached": "cap",
                "NotAsked": "its model was silent before",
                "Straggler": "the quorum stands, and the patience is over",
            }
            return known.get(kind, f"lost after its retries: {kind}")
        case events.AggregatorStarted() if event.fallback:
            return f"fallback: {lost or 'the aggregator before it failed'}"
        case events.AggregatorStarted() if event.reused:
            return "fan-out: the proposals of an earlier request on the same message"
        case events.TurnFailed() if event.error.kind == "BudgetReached":
            return "cap"
    return None


def _without_texts(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_texts(value) if isinstance(value, dict) else value
        for name, value in values.items()
        # Texts are left out: the calls have their own entries in the log. A zero is logged only
        # where it tells something: a place of 0 does, a count of 0 usually does not.
        if name not in ("at", "kind", "text", "reasoning", "prompt", "parts")
        and (value or name in ("index", "references"))
    }
