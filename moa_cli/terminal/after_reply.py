"""The output after a reply: its sources, and the report on where the proposals disagree."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from moa_cli.core import events
from moa_cli.core.conversation import Citation
from moa_cli.core.events import Event
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import REPORT, Report, report_markdown
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.terminal.sinks import Show

_LONGEST_TITLE = 100


def source_lines(citations: Iterable[Citation]) -> list[str]:
    """A sanitized line for each source, numbered as in the answer's text. Addresses are not cut,
    because a cut address would not work."""
    lines = []
    for number, cited in enumerate(citations, 1):
        title, url = one_line(cited.title, _LONGEST_TITLE), one_line(cited.url)
        named = f"{title}: " if title not in ("", url) else ""
        lines.append(f"[{number}] {named}{url}")
    return lines


def report_text(report: Report) -> str:
    """The report as a text, whose lines the caller has to fold."""
    return f"{REPORT}:\n\n{sanitize(report_markdown(report))}"


class AfterReply:
    """A sink that prints the sources of the reply, and at the end the report, if `show` says so. If
    standard output is a terminal, they are printed there, else on standard error: a pipe gets only
    the reply.

    apart: put a blank line between the reply and this output, on a terminal.
    """

    def __init__(self, show: Show, *, apart: bool) -> None:
        seen = sys.stdout.isatty() and not show.structured
        self._out = sys.stdout if seen else sys.stderr
        self._apart = apart and seen
        self._show = show
        # With the strategy `fusion`, the report comes before the reply.
        self._report: Report | None = None

    def handle(self, event: Event) -> None:
        if isinstance(event, events.AggregatorFinished):
            if event.citations and not self._show.quiet:
                self._print(["sources:", *source_lines(event.citations)])
        elif isinstance(event, events.Reported):
            self._report = event.report
        elif isinstance(event, events.TurnFinished | events.TurnFailed):
            self.close()

    def close(self) -> None:
        """Print the report, if there is one."""
        report, self._report = self._report, None
        if report is not None and self._show.report:
            self._print([folded(line, self._out) for line in report_text(report).split("\n")])

    def _print(self, lines: Sequence[str]) -> None:
        self._out.write("\n" * self._apart + "\n".join(lines) + "\n")
        self._out.flush()
