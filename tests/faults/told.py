"""The table in words, for the documentation."""

from __future__ import annotations

from tests.faults.fault import Fault
from tests.faults.script import POISON

HEADS = ("the endpoint", "as proposer", "as aggregator", "asked again", "what you read")
INTRO = """\
Each row is a thing that an endpoint does, and what a turn makes of it. The table is the one that
the tests follow: each row is met in the first round, in the second round, as aggregator, and as
an aggregator with a fallback, over real HTTP; checked are what you read, what the next models are
sent, the exit code, what is booked, and that nothing is left open. With each strategy, each row is
met by the models that are asked about proposals, too: a turn with proposals ends in a reply, tells
what it lost, and books what was taken; only its aggregator can fail it.

- A proposer that is *lost* is named, with the sentence in the last column, and its layer goes on
  without it. No error and no unfinished text enters a prompt.
- An aggregator that *fails* is replaced by the first of its `fallbacks`; without one, the turn
  fails with the sentence, and with the [exit code](exit-codes.md) of that kind of error. Once a
  part of the reply was shown, it *breaks off*: what came stays, no fallback follows, and the turn
  fails.
- *Asked again*: a few times (`retries`), each after a longer wait than the time before. An
  endpoint that is busy (429, 503, 529) is asked until the call has waited too long. A reply of
  which a part was shown is not asked for again.
- What an endpoint takes, it may bill: each request that it answers with a good status, or with
  silence, is booked, by its own count of tokens or by an estimate. A refusal is not.

`lab` is the provider's name, `host` its address, and … what the endpoint says.
"""


def row(fault: Fault) -> tuple[str, ...]:
    """A fault in the words of HEADS."""
    if fault.answer is not None:
        again = "at once, without it" if fault.name == "400 field" else "no"
        return (fault.does, "answers", "replies", again, "–")
    aggregator = "breaks off" if fault.begun else "fails"
    again = "as proposer" if fault.begun else "yes"
    if fault.waits is not None:
        again = "after that time"
    return (fault.does, "lost", aggregator, again if fault.again else "no", _shown(fault.reads))


def _shown(text: str) -> str:
    for poison in (f"no {POISON}", POISON):
        text = text.replace(poison, "…")
    text = text.replace("[" * 290 + "…", "…")
    return text.replace("HOST", "host").replace("<", "&lt;")
