"""Traces the turns of a command if the environment names a collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from moa_cli.core.errors import MoAError
from moa_cli.core.stream import Sink
from moa_cli.core.text import with_hint
from moa_cli.observability.tracing import Tracing, collector, trace_headers

if TYPE_CHECKING:
    from moa_cli.models.providers import Providers

# The variables with the trace of the program that runs the command. Source: OpenTelemetry's
# specification of context propagation by environment variables.
_PARENTS = ("traceparent", "tracestate")
# Seconds that a command waits at its end for a collector that does not answer, and the variables
# that change this time.
_PATIENCE = 2.0
_PATIENCES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")


def tracing_of(
    environment: Mapping[str, str], *, patience: float | None = None
) -> tuple[Tracing | None, list[str]]:
    """The tracing, if the environment names a collector, and the reasons if tracing is not
    possible. patience: see `Tracing`."""
    variable = collector(environment)
    if variable is None:
        return None, []
    try:
        return Tracing(patience=patience), []
    except MoAError as error:
        # Not an error, because the variable may be set for all programs of a machine.
        return None, [f"{variable} is set, but {with_hint(error.message, error.hint)}"]


class CommandTraces:
    """The traces of one command. Without a collector, it does nothing.

    command: the name of the command in the traces. tell: called at the end with each remaining note
    for the user.
    """

    def __init__(
        self, command: str, environment: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        self._command = command
        self._tell = tell
        self._parent = {
            name: environment[name.upper()] for name in _PARENTS if name.upper() in environment
        }
        # Notices for the user that were not printed yet; another thread may add to them.
        self._notes: list[str] = []
        is_set = any(environment.get(name, "").strip() for name in _PATIENCES)
        patience = None if is_set else _PATIENCE
        self._tracing, self._notes[:] = tracing_of(environment, patience=patience)
        if self._tracing is not None:
            self._tracing.tell(self._notes.append)

    @property
    def headers(self) -> Callable[[], Mapping[str, str]] | None:
        """The function that returns the headers for a call, which connect it to the trace of its
        turn; None without tracing."""
        return None if self._tracing is None else trace_headers

    def sinks(self, providers: Providers) -> tuple[Sink, ...]:
        """Begin the trace of a turn, whose calls are made by the running task or its children."""
        if self._tracing is None:
            return ()
        return (self._tracing.turn(providers, self._parent, command=self._command),)

    def notes(self) -> list[str]:
        """The notes for the user since the last call of this method."""
        told, self._notes[:] = list(self._notes), []
        return told

    def close(self) -> None:
        """Send the remaining spans. Spans that the collector does not accept within a few seconds
        are lost."""
        if self._tracing is not None:
            self._tracing.close()
        for note in self.notes():
            self._tell(note)
