"""What the server counts, in Prometheus's format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from moa_cli.core import events
from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.server.limits import TurnLimiter

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """The counters of one server.

    served: whether the profiles use a model of that name. Other names, which requests bring along,
    are counted as `other`, since each value of a label is kept for good.
    """

    def __init__(self, limiter: TurnLimiter, served: Callable[[str], bool]) -> None:
        self._served = served
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._turns = Counter(
            "moa_turns", "Turns, by how they ended.", ["model", "status"], registry=registry
        )
        self._tokens = Counter(
            "moa_tokens", "Tokens of all calls, by kind.", ["kind"], registry=registry
        )
        self._cost = Counter(
            "moa_cost_usd", "USD, of the calls whose price is known.", registry=registry
        )
        self._layers = Histogram(
            "moa_layer_seconds",
            "Seconds of each layer; the last is `aggregator`.",
            ["layer"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "moa_model_failures",
            "Calls that gave no answer, by model and kind of error.",
            ["model", "kind"],
            registry=registry,
        )
        running = Gauge("moa_turns_in_flight", "Turns that run now.", registry=registry)
        running.set_function(lambda: limiter.running)
        waiting = Gauge("moa_queue_length", "Turns that wait to run.", registry=registry)
        waiting.set_function(lambda: limiter.waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def handle(self, event: Event) -> None:
        match event:
            case events.LayerFinished():
                self._layers.labels(str(event.layer)).observe(event.seconds)
            case events.AggregatorFinished():
                self._layers.labels("aggregator").observe(event.seconds)
            case events.ProposerFailed() if event.proposal.error is not None:
                self._failed(event.proposal.model, event.proposal.error.kind)
            case events.AggregatorFailed():
                self._failed(event.model, event.error.kind)

    def close(self) -> None:
        """The events of a turn have ended; see `ended`."""

    def _failed(self, model: str, kind: str) -> None:
        self._failures.labels(model if self._served(model) else "other", kind).inc()

    def ended(self, model: str, turn: Turn) -> None:
        """A turn has ended. model: as the client named it."""
        self._turns.labels(model, turn.status).inc()
        self._tokens.labels("prompt").inc(turn.usage.prompt_tokens)
        self._tokens.labels("completion").inc(turn.usage.completion_tokens)
        self._cost.inc(turn.usage.cost)
