"""The decision of a strategy as lines of text. Names and final answers in it are untrusted."""

from __future__ import annotations

from moa_cli.core.money import usd
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import Decision, Placing
from moa_cli.core.text import plural

_LONGEST_ANSWER = 60


def decision_line(decision: Decision) -> str:
    """A line with the decision, the steps that were skipped, and what this saved."""
    told = "; ".join([decision.summary, *decision.skipped])
    line = f"{decision.strategy}: {told}" if told else decision.strategy
    # Each skipped step says what it saved; for several, their sum follows.
    if len(decision.skipped) > 1:
        cost = f" and about {usd(decision.saved_cost)}" if decision.saved_cost else ""
        line += f" (in all {plural(decision.saved_calls, 'call')}{cost} saved)"
    return one_line(line)


def placing_lines(decision: Decision) -> list[str]:
    """A line for the placing of each proposal, the best first."""
    return [
        f"{number}. {_placing(placing)}{' ← the reply' * (placing.index == decision.chosen)}"
        for number, placing in enumerate(decision.placings, 1)
    ]


def _placing(placing: Placing) -> str:
    facts = []
    if placing.answer is not None:
        facts.append(f"answer {one_line(placing.answer, _LONGEST_ANSWER)}")
    if placing.votes:
        facts.append(plural(placing.votes, "vote"))
    if placing.rank is not None:
        facts.append(f"mean rank {round(placing.rank, 2):g}")
    name = one_line(placing.proposer)
    return f"{name}: {', '.join(facts)}" if facts else name
