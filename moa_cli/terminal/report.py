"""A report on where proposals disagree, in words."""

from __future__ import annotations

from typing import TextIO

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import sanitize
from moa_cli.core.strategy import REPORT, Report, report_markdown
from moa_cli.terminal.tty import folded


def report_text(report: Report) -> str:
    """The report in lines, which are to be folded."""
    return f"{REPORT}:\n\n{sanitize(report_markdown(report))}"


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
            lines = [folded(line, self._out) for line in report_text(report).split("\n")]
            self._out.write("\n".join(["", *lines][not self._apart :]) + "\n")
            self._out.flush()
