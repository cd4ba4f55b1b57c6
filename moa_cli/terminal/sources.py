"""The sources of an answer, which its endpoint names, as a numbered list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from moa_cli.core import events
from moa_cli.core.conversation import Citation
from moa_cli.core.events import Event
from moa_cli.core.sanitize import one_line

_LONGEST_TITLE = 100


def source_lines(citations: Iterable[Citation]) -> list[str]:
    """A line for each source, numbered as in the answer's text, without what could act on a
    terminal. An address is not cut: it would lead nowhere."""
    return [
        f"[{number}] {_named(one_line(cited.title, _LONGEST_TITLE), one_line(cited.url))}"
        for number, cited in enumerate(citations, 1)
    ]


def _named(title: str, url: str) -> str:
    return f"{title}: {url}" if title and title != url else url


class SourcesOutput:
    """A sink that lists the sources of the reply after it. apart: put a blank line before them."""

    def __init__(self, out: TextIO, *, apart: bool) -> None:
        self._out = out
        self._apart = apart

    def handle(self, event: Event) -> None:
        if isinstance(event, events.AggregatorFinished) and event.citations:
            lines = ["sources:", *source_lines(event.citations)]
            self._out.write("\n" * self._apart + "\n".join(lines) + "\n")
            self._out.flush()

    def close(self) -> None:
        """Nothing is held back."""
