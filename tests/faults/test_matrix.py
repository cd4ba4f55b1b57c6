"""Each fault, in round 1, in round 2, as aggregator, and as one with a fallback: what the user is
told, what the next models are sent, the exit code, the ledger, and what is left open.

The turns of a kind run side by side, over the real client and real HTTP on loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from moa_cli.cli import exit_codes
from moa_cli.core.conversation import Failure
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorFinished,
    ProposerFailed,
    ProposerFinished,
    Retrying,
)
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from tests.faults.endpoint import Endpoint
from tests.faults.places import Place
from tests.faults.playing import (
    FIRST_DELAY,
    KEY,
    PRICE,
    PROMPT,
    RETRIES,
    SOUND,
    Played,
    cases,
    normal,
    play_all,
    script_of,
)
from tests.faults.script import ANSWER, POISON, UNFINISHED
from tests.faults.table import FAULTS, KINDS

# The refusals of a busy endpoint are not counted, but bounded by time.
_BUSY = ("RateLimited", "429", "503", "529")


def test_every_fault_has_a_name_of_its_own_and_says_what_happens() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({fault.does for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert (fault.answer is None) == bool(fault.error) == bool(fault.reads)
        assert bool(fault.scripts) != bool(fault.at)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_meets_it(kind: str, tmp_path: Path) -> None:
    with Endpoint(script_of) as endpoint:
        wrong = asyncio.run(play_all(kind, endpoint, tmp_path, cases, problems))
    assert not wrong, "\n".join(wrong)


def problems(played: Played, place: Place) -> Iterator[str]:
    """What is not as the table says."""
    case = played.case
    fault = case.fault
    good = fault.answer is not None or case.once
    if fault.begun and case.once and case.position == "aggregator":
        # What the user has seen is not taken back.
        good = False
    error = failure_of(played)
    if good != (error is None):
        yield f"answered {error is None}, {error}"
        return
    if error is not None:
        yield from told_problems(played, place, error)
    yield from _outcome(played, error)
    yield from request_problems(played)
    yield from _prompts(played, good)
    yield from ledger_problems(played, good)


def failure_of(played: Played) -> Failure | None:
    """Why the model at fault gave no answer; None if it gave one."""
    model = f"lab:{played.case.key}"
    for event in played.events:
        if isinstance(event, ProposerFailed | ProposerFinished) and event.proposal.model == model:
            return event.proposal.error
        if isinstance(event, AggregatorFailed | AggregatorFinished) and event.model == model:
            return event.error if isinstance(event, AggregatorFailed) else None
    raise AssertionError(f"{played.case}: its model was not asked")


def told_problems(played: Played, place: Place, error: Failure) -> Iterator[str]:
    """What the user reads."""
    fault = played.case.fault
    said = normal(error.message, place)
    if (error.kind, said) != (fault.error, fault.reads):
        yield f"{error.kind}: {said!r}, not {fault.error}: {fault.reads!r}"
    for text in (error.message, error.hint or ""):
        if KEY in text or "\n" in text or "Traceback" in text:
            yield f"it says {text!r}"
    if not any(error.message in sentence for sentence in played.turn.lost):
        yield f"the turn does not name it: {played.turn.lost}"


def _outcome(played: Played, error: Failure | None) -> Iterator[str]:
    """What becomes of the turn."""
    case, turn = played.case, played.turn
    fault = case.fault
    falls_back = case.position == "held" or (case.position == "fallback" and not fault.begun)
    expected: int | str = "finished"
    if error is not None and not case.position.startswith("round") and not falls_back:
        expected = "failed"
    if turn.status != expected:
        yield f"the turn is {turn.status}, not {expected}: {turn.error}"
    code = exit_codes.of_turn(turn)
    by_kind = {"RateLimited": 75, "NoCredit": 75, "AuthenticationFailed": 76, "ModelNotFound": 77}
    right = 0 if expected == "finished" else by_kind.get(fault.error, 1)
    if code != right:
        yield f"exit code {code}, not {right}"
    if error is None and case.position == "aggregator":
        text = fault.answer if fault.answer is not None else ANSWER
        if turn.reply != text:
            yield f"the reply is {turn.reply!r}, not {text!r}"
    if falls_back and error is not None and turn.reply != SOUND:
        yield f"the fallback replied {turn.reply!r}"


def request_problems(played: Played) -> Iterator[str]:
    """How often it was asked, and after what."""
    case = played.case
    fault = case.fault
    # The beginning of a reply that may open with a comparison is held back.
    held = case.strategy == "fusion in one call" and case.position == "aggregator"
    shown = fault.begun and case.position in ("aggregator", "fallback") and not held
    again = fault.again and not shown
    retries = [event for event in played.events if isinstance(event, Retrying)]
    if bool(retries) != again:
        yield f"made again: {bool(retries)}, not {again}"
    # What was told of an answer that broke off is taken back.
    spoke = (fault.begun and not held) or fault.spoke
    if any(retry.withdrawn != spoke for retry in retries):
        yield f"what was told is withdrawn: {not spoke}"
    if fault.scripts and not fault.again:
        right = fault.requests or 1
        if len(played.asked) != right:
            yield f"{len(played.asked)} requests, not {right}"
    busy = any(word in f"{fault.error} {fault.reads}" for word in _BUSY)
    if fault.scripts and again:
        most = None if busy and not case.once else 2 if case.once else RETRIES + 1
        if len(played.asked) < 2 or (most is not None and len(played.asked) > most):
            yield f"{len(played.asked)} requests, and it was to be made again"
    for event in retries:
        # Of its own the call waits twice as long each time.
        own = FIRST_DELAY * 2.0 ** (event.attempt - 2)
        longest = max(fault.waits + 1, own) if fault.waits is not None else 0.0
        if fault.waits is not None and not fault.waits <= event.delay <= longest:
            yield f"it waits {event.delay} s, not {fault.waits} s"
        if fault.waits is None and not event.delay > 0:
            yield f"it waits {event.delay} s"
    for asked in played.asked:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            yield "it was not sent the key"


def _prompts(played: Played, good: bool) -> Iterator[str]:
    """What the models behind it are sent: answers, and nothing else."""
    case = played.case
    fault = case.fault
    answer = (fault.answer if fault.answer is not None else ANSWER) if good else None
    texts = [SOUND, answer] if answer is not None else [SOUND]
    for asked in (*played.next, *(played.asked if case.position == "round 1" else ())):
        for message in asked.messages:
            content = str(message["content"])
            if any(word and word in content for word in (POISON, UNFINISHED, "None", fault.reads)):
                yield f"{asked.model} was sent {content!r}"
    if case.position in ("round 1", "round 2"):
        numbered = [f"\n{number}. {text.strip()}" for number, text in enumerate(texts, 1)]
        told = AGGREGATE_AND_SYNTHESIZE + "".join(numbered)
        expected = [{"role": "system", "content": told}, {"role": "user", "content": PROMPT}]
        if not played.next or played.next[0].messages != expected:
            found = [asked.messages for asked in played.next]
            yield f"the next model was sent {found!r:.300}"


def ledger_problems(played: Played, good: bool) -> Iterator[str]:
    """Each request is written down before it is sent, and closed once: billed if the endpoint
    took it, or said nothing at all; void otherwise."""
    written, turn, fault = played.written, played.turn, played.case.fault
    closed = [*written.ended, *written.void_]
    if sorted(closed) != sorted(written.begun):
        yield f"the ledger has {len(written.begun)} calls, and closed {closed}"
    if written.usage != turn.usage:
        yield f"the ledger says {written.usage}, the turn {turn.usage}"
    model = f"lab:{played.case.key}"
    ended = [number for number in written.ended if written.begun[number].model == model]
    # Beside the proposal that it gave before.
    del ended[: int(played.case.answers_first)]
    if fault.scripts:
        # One that says nothing may be at work, one that cannot be read has answered.
        perhaps = fault.error in ("ClientTimeout", "BadResponse")
        taken = [asked.accepted or perhaps for asked in played.asked]
        if fault.headless:
            taken = taken[-1:] if played.case.once and good else []
        billed = sum(taken)
        if len(ended) != billed:
            yield f"{len(ended)} calls are billed, and the endpoint took {billed}"
    elif ended and fault.error != "BadResponse":
        yield "a call is billed that was never made"
    charges = [charge for charge in turn.ledger if charge.model == model]
    usage = charges[-1].usage if charges else None
    if good and usage is not None and len(played.asked) == (fault.requests or 1):
        tokens = (usage.prompt_tokens, usage.completion_tokens)
        if fault.told is not None and tokens != fault.told:
            yield f"{tokens} tokens are booked, not {fault.told}"
        if fault.told is None and not usage.estimated_calls:
            yield f"its tokens are not estimated: {usage}"
        if max(tokens) > 10_000_000 or min(tokens) < 0:
            yield f"{tokens} tokens are booked"
        cost = (tokens[0] * PRICE.prompt + tokens[1] * PRICE.completion) / 1e6
        if abs(usage.cost - cost) > 1e-12:
            yield f"{usage.cost} USD are booked, not {cost}"
