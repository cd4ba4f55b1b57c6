"""The metrics of the server, in Prometheus's format."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

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
from moa_cli.core.outcomes import refusal_of
from moa_cli.core.strategy import Purpose
from moa_cli.server.limits import TurnLimiter

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
# The label for names that are not in a profile. Each value of a label is kept forever, and clients
# can send any name.
_OTHER = "other"


class Calls(Protocol):
    """Counts the calls of all turns."""

    @property
    def in_flight(self) -> int:
        """Calls that are made now."""

    @property
    def waiting(self) -> int:
        """Calls that wait to be made."""


@dataclass
class _ModelSums:
    """The sums over the calls of a model since the metrics were last read.

    A turn with five calls would update twenty counters, but the counters are read only once in many
    turns.
    """

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    cost: float = 0.0


class Metrics:
    """The counters of one server.

    served: whether a profile uses a model of that name. Other names, which come from requests, are
    counted as `other`. calls: the counts of calls of all turns.
    """

    def __init__(
        self, limiter: TurnLimiter, served: Callable[[str], bool], calls: Calls | None = None
    ) -> None:
        self._served = served
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry(auto_describe=True)

        # Counters are cached by the values of their labels, because prometheus_client takes longer
        # to find a counter than to increment it.
        def counter(name: str, meaning: str, *labels: str) -> Callable[..., Counter]:
            return cache(Counter(name, meaning, labels, registry=registry).labels)

        def seconds(name: str, meaning: str, *labels: str) -> Callable[..., Histogram]:
            return cache(
                Histogram(name, meaning, labels, buckets=_SECONDS, registry=registry).labels
            )

        def gauge(name: str, meaning: str, value: Callable[[], float]) -> None:
            Gauge(name, meaning, registry=registry).set_function(value)

        self._requests = counter(
            "moa_requests", "Requests, by path and HTTP status.", "path", "status"
        )
        self._turns = counter("moa_turns", "Turns, by how they ended.", "model", "status")
        self._tokens = counter("moa_tokens", "Tokens of all calls, by kind.", "kind")
        self._cost = Counter(
            "moa_cost_usd", "USD, of the calls whose price is known.", registry=registry
        )
        self._layers = seconds(
            "moa_layer_seconds",
            "Seconds of each layer; of reviews by purpose, and of `aggregator`.",
            "layer",
        )
        self._turn = seconds("moa_turn_seconds", "Seconds of each turn, by how it ended.", "status")
        self._first = Histogram(
            "moa_first_token_seconds",
            "Seconds from a turn's start to the reply's first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = counter(
            "moa_model_failures",
            "Calls that gave no answer, by model and kind of error.",
            "model",
            "kind",
        )
        self._model_calls = counter("moa_model_calls", "Calls that are billed.", "model")
        self._model_tokens = counter("moa_model_tokens", "Tokens of calls.", "model", "kind")
        self._model_cost = counter(
            "moa_model_cost_usd", "USD, of the calls whose price is known.", "model"
        )
        self._sums: defaultdict[str, _ModelSums] = defaultdict(_ModelSums)
        self._key_turns = counter(
            "moa_key_turns", "Turns of named keys, by how they ended.", "key", "status"
        )
        self._key_cost = counter("moa_key_cost_usd", "USD, of the turns of named keys.", "key")
        gauge("moa_turns_in_flight", "Turns that run now.", lambda: limiter.running)
        gauge("moa_queue_length", "Turns that wait to run.", lambda: limiter.waiting)
        if calls is not None:
            gauge("moa_calls_in_flight", "Calls that are made now.", lambda: calls.in_flight)
            gauge("moa_calls_waiting", "Calls that wait to be made.", lambda: calls.waiting)

    def text(self) -> bytes:
        """All metrics as text for Prometheus."""
        for model, sums in self._sums.items():
            self._model_calls(model).inc(sums.calls)
            self._model_tokens(model, "prompt").inc(sums.prompt)
            self._model_tokens(model, "completion").inc(sums.completion)
            self._model_cost(model).inc(sums.cost)
        self._sums.clear()
        return generate_latest(self._registry)

    def responded(self, path: str, status: int) -> None:
        """Count a request that has ended. path: the path of its route."""
        self._requests(path, str(status)).inc()

    def turn(self) -> TurnMetrics:
        """The sink that counts the events of a new turn."""
        return TurnMetrics(self)

    def handle(self, event: Event) -> None:
        """Count an event of any turn."""
        match event:
            case events.ProposerFailed() if event.proposal.error is not None:
                self._failed(event.proposal.model, event.proposal.error.kind)
            case events.AggregatorFailed():
                self._failed(event.model, event.error.kind)

    def took(self, layer: str, seconds: float) -> None:
        """Note the seconds of a layer. layer: its number, or the purpose of its reviews, or
        `aggregator`."""
        self._layers(layer).observe(seconds)

    def _label(self, model: str) -> str:
        return model if self._served(model) else _OTHER

    def _failed(self, model: str, kind: str) -> None:
        self._failures(self._label(model), kind).inc()

    def spoke(self, seconds: float) -> None:
        """Note the seconds to the first token of a reply."""
        self._first.observe(seconds)

    def ended(self, model: str, turn: Turn, key: str | None = None) -> None:
        """Count a turn that has ended. model: the name that the client sent. key: the name of the
        client's key."""
        # The client gets a refusal as an answer.
        status = "finished" if refusal_of(turn) is not None else turn.status
        self._turns(model, status).inc()
        self._turn(status).observe(turn.seconds)
        self._tokens("prompt").inc(turn.usage.prompt_tokens)
        self._tokens("completion").inc(turn.usage.completion_tokens)
        self._cost.inc(turn.usage.cost)
        for charge in turn.ledger:
            usage, sums = charge.usage, self._sums[self._label(charge.model)]
            sums.calls += usage.calls
            sums.prompt += usage.prompt_tokens
            sums.completion += usage.completion_tokens
            sums.cost += usage.cost
        if key is not None:
            self._key_turns(key, status).inc()
            self._key_cost(key).inc(turn.usage.cost)


class TurnMetrics:
    """Counts the events of one turn; a sink."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = time.monotonic()
        self._silent = True
        self._purposes: dict[int, Purpose] = {}
        self._copied = False

    def handle(self, event: Event) -> None:
        """Count an event."""
        # The most frequent event is checked first.
        if isinstance(event, events.AggregatorDelta):
            if self._silent and (event.text or event.tool_calls):
                self._silent = False
                self._metrics.spoke(time.monotonic() - self._began)
        elif not isinstance(event, events.ProposerDelta):
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case events.LayerStarted():
                self._purposes[event.layer] = event.purpose
            case events.LayerFinished():
                purpose = self._purposes.get(event.layer, "")
                self._metrics.took(purpose or str(event.layer), event.seconds)
            case events.AggregatorStarted():
                self._copied = event.copied
            case events.AggregatorFinished() if not self._copied:
                # A reply that copies a proposal needs no call, so its time is not counted.
                self._metrics.took("aggregator", event.seconds)
            case _:
                self._metrics.handle(event)

    def close(self) -> None:
        """Nothing to do: `Metrics.ended` counts the end of a turn."""
