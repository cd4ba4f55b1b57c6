"""A trace of each turn, for a collector that speaks OpenTelemetry's protocol (OTLP over HTTP).

A turn is a span, and each of its calls is a child span. Names and attributes follow the semantic
conventions for generative AI (https://github.com/open-telemetry/semantic-conventions-genai, v0.1):
a turn is the operation `invoke_workflow`, a call is `chat`. The calls have the attributes for
tokens and costs, so that their sum is that of the turn's ledger; the totals of the turn are
attributes named `moa.…`. Prompts and answers are not sent.

OpenTelemetry comes with the extra `otel`, and is imported only if traces are wanted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from moa_cli.core import events
from moa_cli.core.conversation import Failure, Turn, Usage
from moa_cli.core.errors import MoAError
from moa_cli.core.events import Event
from moa_cli.core.installation import install_command
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import Purpose
from moa_cli.core.stream import TurnFold
from moa_cli.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

    from moa_cli.models.providers import Providers

# Variables with the address of a collector. OpenTelemetry itself reads these and many others.
VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PARENTS = ("traceparent", "tracestate")
_NANOSECONDS = 1e9
# Milliseconds to send the remaining spans at the end.
_FLUSH = 5000
# The trace headers for the calls of the running task.
_carried: ContextVar[Mapping[str, str]] = ContextVar("carried", default={})  # noqa: B039


def collector(environment: Mapping[str, str]) -> str | None:
    """The variable that names a collector; None if there is none."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    return next((name for name in VARIABLES if environment.get(name, "").strip()), None)


def trace_headers() -> Mapping[str, str]:
    """The headers that put an upstream call of the running task into its turn's trace."""
    return _carried.get()


class Tracing:
    """Traces the turns of this process. Raises MoAError if OpenTelemetry is not installed, or
    refuses a variable of its own.

    endpoint: the collector's address for traces, such as http://localhost:4318/v1/traces. patience:
    the timeout in seconds for sending. For each, None means that the OTEL_… variables decide.
    """

    def __init__(self, endpoint: str | None = None, *, patience: float | None = None) -> None:
        # Otherwise OpenTelemetry would log an unreachable collector with each batch, between the
        # lines of our own log, and print tracebacks about variables when it is imported.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        try:
            self._set_up(endpoint, patience)
        except ImportError:
            command = install_command("otel")
            raise MoAError(
                "OpenTelemetry is not installed", hint=f"install it with: {command}"
            ) from None
        except (ValueError, RuntimeError) as error:
            said = one_line(str(error).rstrip("."), 200)
            raise MoAError(
                f"OpenTelemetry refuses its settings: {said}",
                hint="correct or unset the OTEL_ variable",
            ) from None

    def _set_up(self, endpoint: str | None, patience: float | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        own = {"service.name": "moa", "service.version": __version__}
        # The attributes from the environment come last, so that they override ours.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sender = _Sender(OTLPSpanExporter(endpoint=endpoint, timeout=patience))
        self._provider.add_span_processor(BatchSpanProcessor(self._sender))  # type: ignore[arg-type]
        self._tracer: Tracer = self._provider.get_tracer("moa", __version__)

    def tell(self, warn: Callable[[str], None]) -> None:
        """Set the function that is called, in another thread, when traces cannot be sent any
        more."""
        self._sender.warn = warn

    def turn(
        self,
        providers: Providers,
        headers: Mapping[str, str],
        *,
        served: bool = False,
        **attributes: str | None,
    ) -> TurnTrace:
        """Begin the span of a turn, whose calls are made by the running task or its children.

        headers: the headers of the request for the turn; its `traceparent` is continued. served:
        whether another program sent that request. attributes: facts about the turn, each named
        `moa.…`.
        """
        given = {f"moa.{name}": value for name, value in attributes.items() if value is not None}
        return TurnTrace(self._tracer, providers, headers, given, served=served)

    def close(self) -> None:
        """Send the remaining spans. Spans that the collector does not accept within a few seconds
        are lost."""
        self._provider.force_flush(_FLUSH)
        self._provider.shutdown()


class _Sender:
    """A SpanExporter that warns when a collector does not accept spans: once, and again only after
    a success."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = False
        self.warn: Callable[[str], None] = lambda _: None

    def export(self, spans: Any) -> Any:
        """Send spans."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            self.warn("the collector of traces cannot be reached, or refuses them: they are lost")
        self._lost = lost
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = _FLUSH) -> bool:
        """Send the remaining spans."""
        return self._exporter.force_flush(timeout_millis)


class TurnTrace:
    """The spans of one turn; a sink."""

    def __init__(
        self,
        tracer: Tracer,
        providers: Providers,
        headers: Mapping[str, str],
        attributes: Mapping[str, str],
        *,
        served: bool,
    ) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name: headers[name] for name in _PARENTS if name in headers}
        propagator = TraceContextTextMapPropagator()
        self._tracer = tracer
        self._providers = providers
        self._began = time.time_ns()
        self._turn: Span = tracer.start_span(
            "invoke_workflow",
            context=propagator.extract(carrier),
            kind=SpanKind.SERVER if served else SpanKind.INTERNAL,
            attributes={"gen_ai.operation.name": "invoke_workflow", **attributes},
            start_time=self._began,
        )
        self._inside = set_span_in_context(self._turn)
        carried: dict[str, str] = {}
        propagator.inject(carried, self._inside)
        _carried.set(carried)
        # By layer and index; the aggregator has neither.
        self._callers: dict[tuple[int, int], events.Caller] = {}
        self._purposes: dict[int, Purpose] = {}
        self._calls: dict[tuple[int, int] | None, Span] = {}
        self._fold: TurnFold | None = None
        self._ended = False

    def follow(self, fold: TurnFold) -> None:
        """Set the fold, which knows the usage of an interrupted turn."""
        self._fold = fold

    def handle(self, event: Event) -> None:
        """Take the next event."""
        match event:
            # The most frequent events come first.
            case events.AggregatorDelta() | events.ProposerDelta():
                return
            case events.TurnStarted():
                self._turn.update_name(f"invoke_workflow {event.profile}")
                self._turn.set_attribute("gen_ai.agent.name", event.profile)
                self._turn.set_attribute("moa.rounds", event.rounds)
            case events.LayerStarted():
                for index, caller in enumerate(event.proposers):
                    self._callers[event.layer, index] = caller
                self._purposes[event.layer] = event.purpose
            case events.ProposerStarted():
                place = event.layer, event.index
                caller = self._callers[place]
                call = self._begin(place, caller.model, event.at)
                call.set_attribute("moa.layer", event.layer)
                call.set_attribute("moa.proposer", caller.name)
                if purpose := self._purposes[event.layer]:
                    call.set_attribute("moa.purpose", purpose)
            case events.ProposerFinished() | events.ProposerFailed():
                proposal = event.proposal
                self._end(
                    (event.layer, event.index),
                    event.at,
                    proposal.usage,
                    proposal.error,
                    proposal.answered_by,
                    proposal.finish_reason,
                )
            case events.AggregatorStarted() if not event.copied:
                call = self._begin(None, event.model, event.at)
                call.set_attribute("moa.references", event.references)
                if event.fallback:
                    call.set_attribute("moa.fallback", True)
                if event.reused:
                    self._turn.set_attribute("moa.fan_out", "reused")
            case events.AggregatorFinished():
                if (replying := self._calls.get(None)) and event.first_token is not None:
                    name = "gen_ai.response.time_to_first_chunk"
                    replying.set_attribute(name, event.first_token)
                self._end(None, event.at, event.usage, None, event.answered_by, event.finish_reason)
            case events.AggregatorFailed():
                self._end(None, event.at, event.usage, event.error)
            case events.Decided():
                self._turn.set_attribute("moa.strategy", event.decision.strategy)
                if event.decision.saved_calls:
                    self._turn.set_attribute("moa.saved_calls", event.decision.saved_calls)
            case events.Retrying():
                self._note(event, "retry", {"error.type": event.error.kind})
            case events.Hedged():
                self._note(event, "hedge", {"moa.model": event.model})
            case events.Queued():
                self._note(event, "queued" if event.reason else "begun", {})
            case events.TurnFinished():
                self._end_turn(event.at, event.usage, None, event.lost)
            case events.TurnFailed():
                self._end_turn(event.at, event.usage, event.error, event.lost)

    def close(self) -> None:
        """End the spans. If the events ended without the end of the turn, it was interrupted."""
        if self._ended:
            return
        turn = self._fold.turn() if self._fold is not None else Turn(user="")
        at = (time.time_ns() - self._began) / _NANOSECONDS
        stopped = Failure("Interrupted", "cancelled")
        for layer in (*turn.proposals, turn.reviews):
            for proposal in layer:
                self._end((proposal.layer, proposal.index), at, proposal.usage, stopped)
        if None in self._calls and turn.ledger:
            self._end(None, at, turn.ledger[-1].usage, stopped)
        for place in list(self._calls):
            self._end(place, at, Usage(), stopped)
        self._end_turn(at, turn.usage, stopped, turn.lost)

    def _begin(self, place: tuple[int, int] | None, model: str, at: float) -> Span:
        from opentelemetry.trace import SpanKind

        provider, identity = self._providers.parse(model)
        call = self._calls[place] = self._tracer.start_span(
            f"chat {identity}",
            context=self._inside,
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider.name,
                "gen_ai.request.model": identity,
            },
            start_time=self._time(at),
        )
        return call

    def _end(
        self,
        place: tuple[int, int] | None,
        at: float,
        usage: Usage,
        error: Failure | None,
        answered_by: str | None = None,
        finish_reason: str | None = None,
    ) -> None:
        call = self._calls.pop(place, None)
        if call is None:
            return
        if usage.calls:
            call.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
            call.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)
            if usage.cached_tokens:
                cached = "gen_ai.usage.cache_read.input_tokens"
                call.set_attribute(cached, usage.cached_tokens)
            if usage.reasoning_tokens:
                reasoning = "gen_ai.usage.reasoning.output_tokens"
                call.set_attribute(reasoning, usage.reasoning_tokens)
        self._cost(call, usage)
        if answered_by is not None:
            call.set_attribute("gen_ai.response.model", answered_by)
        if finish_reason is not None:
            call.set_attribute("gen_ai.response.finish_reasons", (finish_reason,))
        self._fail(call, error)
        call.end(self._time(at))

    def _end_turn(
        self, at: float, usage: Usage, error: Failure | None, lost: tuple[str, ...]
    ) -> None:
        self._ended = True
        self._turn.set_attribute("moa.input_tokens", usage.prompt_tokens)
        self._turn.set_attribute("moa.output_tokens", usage.completion_tokens)
        self._turn.set_attribute("moa.lost", len(lost))
        self._cost(self._turn, usage)
        self._fail(self._turn, error)
        self._turn.end(self._time(at))

    def _cost(self, span: Span, usage: Usage) -> None:
        span.set_attribute("moa.calls", usage.calls)
        if usage.calls > usage.unpriced_calls:
            span.set_attribute("moa.cost_usd", usage.cost)

    def _fail(self, span: Span, error: Failure | None) -> None:
        if error is None:
            return
        from opentelemetry.trace import Status, StatusCode

        # Only the kind: the message may quote an endpoint, and so the prompt.
        span.set_attribute("error.type", error.kind)
        span.set_status(Status(StatusCode.ERROR))

    def _note(
        self,
        event: events.Retrying | events.Hedged | events.Queued,
        name: str,
        values: Mapping[str, Any],
    ) -> None:
        place = None if event.index is None else (event.layer, event.index)
        call = self._calls.get(place)
        if call is not None:
            call.add_event(name, values, timestamp=self._time(event.at))

    def _time(self, at: float) -> int:
        """Nanoseconds since 1970. at: seconds since the turn began."""
        return self._began + int(at * _NANOSECONDS)
