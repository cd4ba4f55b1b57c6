"""A report on where proposals disagree, in words."""

from __future__ import annotations

from typing import TextIO

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import sanitize
from moa_cli.core.strategy import Report
from moa_cli.engine.comparison import comparison_text
from moa_cli.terminal.tty import folded

_HEADING = "report on the proposals:"


def report_text(report: Report, out: TextIO) -> str:
    """The report in lines, folded at the width of the terminal that `out` is."""
    lines = sanitize(comparison_text(report)).split("\n")
    return "\n".join([_HEADING, "", *(folded(line, out) if line else "" for line in lines)])


class ReportOutput:
    """A sink that prints the report after the reply. apart: put a blank line before it."""

    def __init__(self, out: TextIO, *, apart: bool) -> None:
        self._out = out
        self._apart = apart
        # Fusion has it before the reply.
        self._report: Report | None = None

    def handle(self, event: Event) -> None:
        if isinstance(event, events.Reported):
            self._report = event.report
        elif isinstance(event, events.TurnFinished | events.TurnFailed):
            self.close()

    def close(self) -> None:
        """Print the report, if there is one."""
        report, self._report = self._report, None
        if report is not None:
            self._out.write("\n" * self._apart + report_text(report, self._out) + "\n")
            self._out.flush()
