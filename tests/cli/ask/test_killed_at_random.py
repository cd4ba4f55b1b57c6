"""`moa ask`, killed and cancelled at random points: no connection is left open, and one call merges
every proposal that had been told.

MOA_KILLS sets how many turns are ended so.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.kept import counted_calls, sound
from tests.support.talk import references
from tests.support.upstream import Reply, Request, Upstream

KILLS = int(os.environ.get("MOA_KILLS", "40"))
# Seconds from the start of a turn within which it is ended; a whole one takes about as long.
_LONGEST = 0.9
_ANSWER = re.compile(r"Answer (\d+) of (\w+)\.")


@dataclass
class Ended:
    """A turn that has ended. told: the texts of each layer that were told to be finished."""

    code: int
    replied: bool
    told: list[list[str]] = field(default_factory=list)


@pytest.fixture
def lab(moa: Moa) -> Moa:
    """Two rounds of three proposers."""
    moa.profile("lab", "a", "b", "c", rounds=2)
    return moa


def script(upstream: Upstream, some: random.Random) -> None:
    """Let each model be as fast as chance has it, and answer each call unlike all others."""
    numbers = itertools.count(len(upstream.chats()))

    def text(request: Request) -> str:
        return f"Answer {next(numbers)} of {request.model}. {'It goes on. ' * some.randint(0, 6)}"

    for model in ("a", "b", "c", "agg"):
        delay, pause = some.uniform(0, 0.1), some.uniform(0.002, 0.02)
        upstream.always(model, Reply(text=text, delay=delay, pause=pause))


def answers_in(texts: Iterable[str]) -> set[str]:
    """The answers that these texts begin with."""
    return {match.group() for text in texts if (match := _ANSWER.match(text))}


def end_at_random(process: subprocess.Popen[bytes], some: random.Random) -> None:
    """Kill it, or press Ctrl-C once or twice, at a moment of its turn."""
    numbers = some.choice([[signal.SIGKILL], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
    for number in numbers:
        time.sleep(some.uniform(0, _LONGEST))
        process.send_signal(number)


def ended(moa: Moa, number: int, some: random.Random) -> Ended:
    """A turn that is ended at random, or not, if it was faster."""
    with moa.start("ask", "--output", "jsonl", f"question {number}") as process:
        end_at_random(process, some)
        out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err, err.decode()
    assert b"never" not in err, err.decode()
    turn = Ended(process.returncode, replied=False)
    # A kill leaves half of a line.
    for line in out.splitlines(keepends=True):
        event: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        match event.get("kind"):
            case "layer_started":
                turn.told.append([])
            case "proposer_finished":
                turn.told[-1].append(event["proposal"]["text"])
            case "aggregator_finished":
                turn.replied = True
    # The second signal may come when all is done.
    assert turn.code in (0, 130, -signal.SIGINT, -signal.SIGKILL)
    assert turn.code != 0 or turn.replied
    return turn


def check_merged(moa: Moa, upstream: Upstream, number: int, told: list[list[str]]) -> None:
    """One call merges what the last turn has left, all that was told among it."""
    before = len(upstream.chats())
    ran = moa.run("ask", "--remerge", "--json")
    calls = upstream.chats()[before:]
    if ran.code == 2:
        # Not even one proposal had been told.
        assert not any(told), ran.err
        assert calls == []
        return
    assert ran.code == 0, ran.err
    turn = json.loads(ran.out)
    assert turn["prompt"] == f"question {number}"
    [call] = calls
    assert call.model == "agg"
    given = answers_in(references(upstream))
    whole = [
        answers_in(proposal["text"] for proposal in layer if proposal["error"] is None)
        for layer in turn["proposals"]
    ]
    # What was told is kept, layer by layer; and the last layer with an answer is merged.
    nothing: set[str] = set()
    layers = itertools.zip_longest(map(answers_in, told), whole, fillvalue=nothing)
    assert all(texts <= there for texts, there in layers)
    answered = [texts for texts in whole if texts]
    assert given >= answered[-1] if answered else given


@pytest.mark.slow
@pytest.mark.timeout(60 + 6 * KILLS)
def test_turns_ended_at_random_lose_nothing_that_was_paid(lab: Moa, upstream: Upstream) -> None:
    some = random.Random(5)
    merged = 0
    for number in range(KILLS):
        script(upstream, some)
        turn = ended(lab, number, some)
        upstream.wait_for(lambda: upstream.open_connections == 0)
        if not upstream.chats() or not turn.told:
            # It was ended before it had begun: the last turn is another one.
            continue
        check_merged(lab, upstream, number, turn.told)
        merged += any(turn.told)
    assert merged >= KILLS // 4
    made = len(upstream.chats())
    # A call that was written down, and killed before it was sent, is counted, too.
    assert made <= counted_calls(lab) <= made + 3 * KILLS
    sound(lab)
