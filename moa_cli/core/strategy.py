"""The results of a strategy beside the reply, and their texts: how the reply was decided, and where
the models disagree.

A strategy is the way from proposals to the reply. On this way it may ask for reviews: answers about
the proposals, which are no proposals themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Strategy = Literal["synthesize", "fusion", "vote", "select", "council"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
# The purpose of a call: "" is a proposal; all others are reviews. "merge" makes one proposal of
# several, if the aggregator reads them in windows.
Purpose = Literal["", "merge", "compare", "rank", "choose", "verify", "report"]
# The name of each kind of review on screen.
REVIEW_NAMES: Final[dict[Purpose, str]] = {
    "merge": "merge",
    "compare": "comparison",
    "rank": "ranking",
    "choose": "choice",
    "verify": "check",
    "report": "report",
}


def layer_name(layer: int, purpose: Purpose) -> str:
    """The name of a layer on screen: `round 2`, or the name of its reviews."""
    return REVIEW_NAMES.get(purpose) or f"round {layer}"


def answer_name(purpose: Purpose) -> str:
    """The name of an answer on screen: `proposal`, or the name of the review."""
    return REVIEW_NAMES.get(purpose) or "proposal"


# Reviews that the reply does not depend on. Without them, there is still a reply, but perhaps a
# worse one.
SKIPPABLE: Final[frozenset[Purpose]] = frozenset({"merge", "compare", "rank", "report"})


@dataclass(frozen=True)
class Placing:
    """The placing of one proposal in a decision.

    Attributes:
        proposer: The proposer's name on screen.
        index: The proposal's place in its layer, counted from 0.
        answer: The final answer that was read from it; None if the strategy reads none, or it has
            none.
        votes: How many proposals have that answer, or how many judges chose it.
        rank: The mean of the ranks that it was given, 1 is the best; None without rankings.
    """

    proposer: str
    index: int
    answer: str | None = None
    votes: int = 0
    rank: float | None = None


@dataclass(frozen=True)
class Decision:
    """How a strategy came to its reply.

    Attributes:
        strategy: The name of the strategy.
        summary: One sentence, such as `3 of 5 answer 42; 1 answer is unreadable`.
        placings: The placing of each proposal, the best first.
        chosen: The place in its layer of the proposal that became the reply word for word, or None
            if the reply was written.
        skipped: A sentence for each step that was not needed, with the calls that this saved.
        saved_calls: How many calls were not made.
        saved_cost: About what those calls would have cost, in USD.
    """

    strategy: str
    summary: str
    placings: tuple[Placing, ...] = ()
    chosen: int | None = None
    skipped: tuple[str, ...] = ()
    saved_calls: int = 0
    saved_cost: float = 0.0


PointKind = Literal["consensus", "conflict", "partial", "unique", "blind_spot"]


@dataclass(frozen=True)
class Point:
    """One point of a report.

    Attributes:
        kind: `consensus` (all hold it), `conflict` (they contradict each other), `partial` (some
            hold it), `unique` (one holds it), or `blind_spot` (none does).
        text: What it says.
        proposers: The names of the proposers that hold it.
    """

    kind: PointKind
    text: str
    proposers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Where the proposals of a turn agree, and where they do not.

    Attributes:
        points: The points, as a model found them.
        groups: The names of the proposers, grouped by the position that they take.
        consensus: The share of all pairs of proposals in which both are in the same group, 0 to 1;
            None for fewer than two proposals, or without groups. It is computed from `groups`.
        notes: A sentence for each proposal that the model put into no group, or into several.
    """

    points: tuple[Point, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    consensus: float | None = None
    notes: tuple[str, ...] = ()


REPORT: Final = "report on the proposals"
# The headings of a report, in this order.
_HEADINGS: Final[Mapping[PointKind, str]] = {
    "consensus": "Consensus",
    "conflict": "Conflicts",
    "partial": "Said by some",
    "unique": "Said by one alone",
    "blind_spot": "Blind spots",
}


def report_markdown(report: Report, numbers: Mapping[str, str] | None = None) -> str:
    """A report in sections, as Markdown that is also readable as plain text.

    numbers: the numbers of proposers by their names; they are shown in place of the names. None
    shows the names.
    """
    blocks = [
        "\n".join([heading if ":" in heading else f"{heading}:", *(f"- {line}" for line in lines)])
        for heading, lines in report_sections(report, numbers)
    ]
    return "\n\n".join(blocks)


def report_sections(
    report: Report, numbers: Mapping[str, str] | None = None
) -> list[tuple[str, list[str]]]:
    """The headings of a report, each with the lines below it; see `report_markdown`."""

    def held_by(names: Sequence[str]) -> str:
        if numbers is None:
            return ", ".join(names)
        told = ", ".join(numbers.get(name, name) for name in names)
        return f"response{'s' * (len(names) > 1)} {told}"

    found = [
        (
            heading,
            [
                point.text + (f" ({held_by(point.proposers)})" if point.proposers else "")
                for point in report.points
                if point.kind == kind
            ],
        )
        for kind, heading in _HEADINGS.items()
    ]
    agreement = f"Agreement: {agreement_text(report)}"
    found.append((agreement, [held_by(group) for group in report.groups]))
    if numbers is None:
        found.append(("Notes", list(report.notes)))
    return [(heading, lines) for heading, lines in found if lines]


def agreement_text(report: Report) -> str:
    """How far the proposals agree, in words."""
    if report.consensus is None:
        return "not known"
    groups = len(report.groups)
    if groups == 1:
        return "all take the same position"
    return f"{report.consensus:.0%} of the pairs of answers take the same of {groups} positions"
