"""A report on where proposals disagree, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from moa_cli.core.strategy import PointKind, Report

REPORT: Final = "report on the proposals"
# In the order in which they stand.
_HEADINGS: Final[Mapping[PointKind, str]] = {
    "consensus": "Consensus",
    "conflict": "Conflicts",
    "partial": "Said by some",
    "unique": "Said by one alone",
    "blind_spot": "Blind spots",
}


def report_markdown(report: Report, numbers: Mapping[str, str] | None = None) -> str:
    """A report in readable sections, in Markdown that reads well as it is.

    numbers: of those who hold a point, by name, where they are to be called by these; None calls
    them by their names.
    """
    blocks = [
        "\n".join([heading if ":" in heading else f"{heading}:", *(f"- {line}" for line in lines)])
        for heading, lines in report_sections(report, numbers)
    ]
    return "\n\n".join(blocks)


def report_sections(
    report: Report, numbers: Mapping[str, str] | None = None
) -> list[tuple[str, list[str]]]:
    """The headings of a report, each with what stands below it; see `report_markdown`."""

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
