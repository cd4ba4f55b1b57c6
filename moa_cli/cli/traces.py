"""The traces of a command's turns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moa_cli.cli.output import say

if TYPE_CHECKING:
    from moa_cli.observability.commands import CommandTraces


@contextmanager
def traced_by(command: str, *, quiet: bool = False) -> Iterator[CommandTraces]:
    """Inside, turns may be traced; at the end, the traces are sent. quiet: say nothing of them."""
    from moa_cli.observability.commands import CommandTraces

    traces = CommandTraces(command, os.environ)
    try:
        yield traces
    finally:
        traces.close()
        for note in traces.notes():
            if not quiet:
                say(note)
