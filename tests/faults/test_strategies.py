"""Each fault with each strategy: at a proposer, at a model that is asked about proposals, and where
the reply is written. A turn with proposals ends in a reply, or in the error of its aggregator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from moa_cli.cli import exit_codes
from moa_cli.core.conversation import Failure
from moa_cli.core.events import ProposerFailed, ProposerFinished
from moa_cli.core.strategy import REVIEW_NAMES
from moa_cli.engine.merging import mergeable
from tests.faults.endpoint import Endpoint
from tests.faults.places import Place
from tests.faults.playing import (
    SOUND,
    Played,
    play_all,
    script_of,
    strategic_cases,
)
from tests.faults.script import POISON, UNFINISHED
from tests.faults.table import KINDS
from tests.faults.test_matrix import failure_of, ledger_problems, request_problems, told_problems


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_with_a_strategy_meets_it(kind: str, tmp_path: Path) -> None:
    with Endpoint(script_of) as endpoint:
        wrong = asyncio.run(play_all(kind, endpoint, tmp_path, strategic_cases, problems))
    assert not wrong, "\n".join(wrong)


def problems(played: Played, place: Place) -> Iterator[str]:
    """What is not as the table says."""
    case, fault = played.case, played.case.fault
    if not played.asked and not fault.at:
        yield "its model was not asked"
        return
    error = failure_of(played) if case.position == "aggregator" else _lost_by(played)
    # An aggregator that is offered tools may call one.
    calls = case.position == "aggregator" and fault.name == "tool call"
    if (fault.answer is not None or (calls and played.turn.tool_calls != ())) != (error is None):
        yield f"answered {error is None}, {error}"
        return
    if error is not None:
        yield from told_problems(played, place, error)
    yield from _outcome(played, error)
    # A proposer that answers may be asked about the others, too, and an aggregator for merges.
    if error is not None and case.strategy != "window":
        yield from request_problems(played)
    yield from _prompts(played)
    if not (fault.headless and case.answers_first):
        yield from ledger_problems(played, good=error is None)


def _lost_by(played: Played) -> Failure | None:
    """Why the model at fault gave no proposal, or no review; None if it gave one."""
    way = played.case.way
    assert way is not None
    purpose = way.purpose if played.case.position == "review" else ""
    for event in played.events:
        if isinstance(event, ProposerFailed | ProposerFinished):
            proposal = event.proposal
            if (proposal.model, proposal.purpose) == (f"lab:{played.case.key}", purpose):
                return proposal.error
    raise AssertionError(f"{played.case}: its model was not asked")


def _outcome(played: Played, error: Failure | None) -> Iterator[str]:
    """What becomes of the turn."""
    case, turn, fault = played.case, played.turn, played.case.fault
    way = case.way
    assert way is not None
    failed = case.position == "aggregator" and error is not None
    if turn.status != ("failed" if failed else "finished"):
        yield f"the turn is {turn.status}: {turn.error}"
    if failed:
        by_kind = {
            "RateLimited": 75,
            "NoCredit": 75,
            "AuthenticationFailed": 76,
            "ModelNotFound": 77,
        }
        if exit_codes.of_turn(turn) != by_kind.get(fault.error, 1):
            yield f"exit code {exit_codes.of_turn(turn)}"
        if len(mergeable(turn.proposals)) != 4:
            yield "its proposals are not kept"
    replies = (SOUND,) if error is not None else (SOUND, fault.answer)
    if not failed and not turn.tool_calls and turn.reply not in replies:
        yield f"the reply is {turn.reply!r}"
    if case.position == "review" and error is not None:
        about = f"({REVIEW_NAMES[way.purpose]})"  # type: ignore[index]
        if not any(about in sentence for sentence in turn.lost):
            yield f"no lost review is told: {turn.lost}"
    asked = {call.purpose for call in turn.reviews}
    # Where the first answer is lost, or was cut, a route has nothing to verify.
    unasked = case.strategy == "route" and case.position == "round 1"
    if way.purpose and way.purpose not in asked and not failed and not unasked:
        yield f"nobody was asked to {way.purpose}: {asked}"


def _prompts(played: Played) -> Iterator[str]:
    """No error, and no unfinished answer, is put before a model."""
    for asked in (*played.next, *played.asked):
        for message in asked.messages:
            content = str(message["content"])
            words = (POISON, UNFINISHED, "None", played.case.fault.reads)
            if any(word and word in content for word in words):
                yield f"{asked.model} was sent {content!r:.300}"
        if "tools" in asked.body and not (
            asked.model.endswith("-writer") or played.case.position == "aggregator"
        ):
            yield f"{asked.model} was offered tools"
