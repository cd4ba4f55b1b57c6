"""Turns of the real engine over the real client against the scripted upstream.

Every turn run by these helpers ends in the check that it left no task and no connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation, Failure, Proposal, Usage
from moa_cli.core.endpoints import Delta, Endpoint, ModelInfo, Request
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Decided,
    Event,
    Hedged,
    HistoryTrimmed,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Queued,
    ReferencesTrimmed,
    Reported,
    Retrying,
    TurnFailed,
    TurnFinished,
    TurnStarted,
    from_dict,
    to_dict,
)
from moa_cli.core.strategy import Decision
from moa_cli.core.tools import ToolCallBuilder
from moa_cli.engine import Control, Limits, run_turn
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.profile import ModelSettings, Profile, Proposer, build
from tests.support.upstream import Upstream

__all__ = [
    "AT_ONCE",
    "LAB_KEY",
    "InProcess",
    "asked",
    "check_turn",
    "lab",
    "mixture",
    "no_task_left",
    "of_kind",
    "pool",
    "run",
]

LAB_KEY = "lab-key-0123456789"
_E = TypeVar("_E")
# Retries without a wait worth mentioning.
AT_ONCE = Limits(first_delay=0.001, longest_wait=4.0)


def lab(model: str, **settings: object) -> dict[str, Any]:
    """The table of one model at the upstream."""
    return {"model": f"lab:{model}", **settings}


def mixture(
    *proposers: str | Mapping[str, Any],
    aggregator: str | Mapping[str, Any] = "agg",
    layers: tuple[tuple[str | Mapping[str, Any], ...], ...] = (),
    **settings: Any,
) -> Profile:
    """A profile of models at the upstream, each a model id or what `lab` gives."""
    table: dict[str, Any] = {"aggregator": _model(aggregator), **settings}
    if proposers:
        table["proposers"] = [_model(proposer) for proposer in proposers]
    if layers:
        table["layers"] = [
            {"proposers": [_model(proposer) for proposer in layer]} for layer in layers
        ]
    return build("mixture", table)


def _model(model: str | Mapping[str, Any]) -> dict[str, Any]:
    return lab(model) if isinstance(model, str) else dict(model)


def asked(prompt: str = "What is rain?") -> Conversation:
    """A conversation whose first turn is open."""
    return Conversation().ask(prompt)


def pool(upstream: Upstream, key: str = LAB_KEY) -> ClientPool:
    """The clients, with the upstream as provider `lab`; an empty `key` means there is none."""
    settings = ProviderSettings(base_url=upstream.url, api_key_env="LAB_API_KEY")
    return ClientPool(Config(providers={"lab": settings}), {"LAB_API_KEY": key})


def of_kind(events: Iterable[Event], kind: type[_E]) -> list[_E]:
    """The events of one class."""
    return [event for event in events if isinstance(event, kind)]


def run(
    upstream: Upstream,
    profile: Profile,
    conversation: Conversation | None = None,
    *,
    limits: Limits = AT_ONCE,
    control: Control | None = None,
    watch: Callable[[Event], None] | None = None,
    key: str = LAB_KEY,
    response_format: ResponseFormat | None = None,
) -> list[Event]:
    """The events of one whole turn, which are checked (`check_turn`), as is what it left.

    watch: called with each event before the engine goes on. response_format: what the reply is to
    be; then its text is held back, and not compared with what was told before.
    """
    talk = conversation or asked()
    events: list[Event] = []

    async def turn() -> None:
        clients = pool(upstream, key)
        try:
            async with aclosing(
                run_turn(
                    profile,
                    talk,
                    clients,
                    control=control,
                    limits=limits,
                    response_format=response_format,
                )
            ) as running:
                async for event in running:
                    events.append(event)
                    if watch is not None:
                        watch(event)
            # The loop closes what was closed with its next step, and stands still below.
            await asyncio.sleep(0)
            # While the clients are open still: ending the calls is the engine's duty.
            upstream.wait_for(lambda: upstream.in_flight == 0)
        finally:
            await clients.aclose()
        await no_task_left()

    asyncio.run(turn())
    upstream.wait_for(lambda: upstream.open_connections == 0)
    check_turn(events, profile, talk, held=response_format is not None)
    return events


async def no_task_left() -> None:
    """Fail if any task but this one is there and stays.

    httpx leaves its inner generators to the event loop, which closes each in a task of one
    step; those may pass.
    """
    for _ in range(100):
        if asyncio.all_tasks() == {asyncio.current_task()}:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"left behind: {asyncio.all_tasks() - {asyncio.current_task()}}")


class InProcess:
    """Endpoints without a network, for turns whose every step the test decides.

    answers: by model name, what `Client.stream` does.
    """

    def __init__(self, answers: Mapping[str, Callable[[], AsyncGenerator[Delta, None]]]) -> None:
        self._answers = answers

    def endpoint(self, model_name: str) -> Endpoint:
        """The model's own client."""
        client = _InProcessClient(self._answers[model_name])
        return Endpoint(client=client, model=model_name, provider="test")

    def known(self, model_name: str) -> ModelInfo:
        """Nothing is known."""
        return ModelInfo(id=model_name)

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """Nothing can be found out."""
        del patience
        return self.known(model_name)


class _InProcessClient:
    def __init__(self, answer: Callable[[], AsyncGenerator[Delta, None]]) -> None:
        self._answer = answer

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        del request
        return self._answer()

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None:
        pass


def check_turn(
    events: list[Event], profile: Profile, conversation: Conversation, *, held: bool = False
) -> None:
    """Hold a whole turn's events against what `moa_cli.core.events` promises of them.

    held: whether the text of a reply is told only once it is known to be right.
    """
    _Checker(profile, conversation, held=held).check(events)
    for event in events:
        assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


class _Checker:
    """Reads a turn's events in order, as a strict grammar."""

    def __init__(self, profile: Profile, conversation: Conversation, *, held: bool) -> None:
        self.profile = profile
        self.held = held
        self.prompt = conversation.turns[-1].user
        self.rest: list[Event] = []
        self.usage = Usage()
        self.failures: list[Failure] = []
        # The proposers whose answers were used unfinished.
        self.unfinished: list[str] = []
        # What proposers answered, for replies that are copied; and the last layer so far, reviews
        # and the reply among them.
        self.answers: list[str] = []
        self.depth = 0
        self.decision: Decision | None = None
        self.left_out: dict[str, int] = {}

    def check(self, events: list[Event]) -> None:
        """The whole turn."""
        self.rest = list(events)
        times = [event.at for event in events]
        assert times == sorted(times)
        started = self.rest.pop(0)
        assert isinstance(started, TurnStarted)
        assert started.profile == self.profile.name
        assert started.prompt == self.prompt
        # Proposals that are there already are not made again.
        reused = [event for event in of_kind(events, AggregatorStarted) if event.reused]
        assert started.rounds == (0 if reused else self.profile.rounds)
        assert started.aggregator == self.profile.aggregator.model
        self.depth = started.rounds
        layers: dict[int, _LayerHeard] = {}
        while not isinstance(self.rest[0], AggregatorStarted | TurnFinished | TurnFailed):
            self._step(layers)
        references = reused[0].references if reused else 0
        for number in sorted(layers):
            layer = layers[number]
            assert layer.finished
            if layer.purpose:
                continue
            # Unfinished answers alone do not take the place of those of the layer before.
            references = layer.answered if layer.whole or not references else references
        replied = isinstance(self.rest[0], AggregatorStarted) and self.rest[0].copied
        if replied:
            self._copy(references)
        elif self.decision is not None and self.decision.chosen is not None:
            # Whoever acts for a proposal is given that one alone.
            references = 1
        self.depth += 1
        for place, aggregator in enumerate(self.profile.aggregators()):
            if isinstance(self.rest[0], AggregatorStarted):
                assert not replied
                replied = self._aggregator(aggregator, references, fallback=place > 0)
        # A report follows the reply, and nothing else does.
        while replied and not isinstance(self.rest[0], TurnFinished):
            self._step(layers)
        assert all(layer.finished for layer in layers.values())
        self._end(replied=replied)

    def _copy(self, references: int) -> None:
        """A reply that is a proposal's own words: one piece, and no call."""
        assert self.decision is not None
        assert self.decision.chosen is not None
        started, delta, finished = self.rest[:3]
        del self.rest[:3]
        assert isinstance(started, AggregatorStarted)
        assert isinstance(delta, AggregatorDelta)
        assert isinstance(finished, AggregatorFinished)
        assert delta.text == finished.text
        assert finished.text in self.answers
        assert (started.references, finished.model) == (references, started.model)
        assert finished.usage == Usage()

    def _end(self, *, replied: bool) -> None:
        [last] = self.rest
        assert isinstance(last, TurnFinished if replied else TurnFailed)
        assert isinstance(last, TurnFinished | TurnFailed)
        assert last.usage == self.usage
        if isinstance(last, TurnFailed):
            assert sorted(map(repr, last.causes)) == sorted(map(repr, self.failures))
        said = " | ".join(last.lost)
        if self.decision is None:
            assert bool(last.lost) == bool(self.failures or self.unfinished)
        assert all(failure.message in said for failure in self.failures)
        assert all(f"{name}: " in said for name in self.unfinished)

    def _step(self, layers: dict[int, _LayerHeard]) -> None:
        """The next event of the layers."""
        event = self.rest.pop(0)
        if isinstance(event, Decided):
            self.decision = event.decision
            return
        if isinstance(event, Reported):
            return
        if isinstance(event, HistoryTrimmed):
            assert event.models
            for left in event.models:
                # Told again only where it becomes more.
                assert self.left_out.get(left.model, 0) < left.count <= event.turns
                self.left_out[left.model] = left.count
            return
        assert isinstance(event, _OfALayer)
        number = event.layer
        if isinstance(event, LayerStarted) and event.purpose:
            self.depth += 1
            assert number == self.depth
            assert all(layer.finished for layer in layers.values())
            entries = tuple(self._reviewer(caller) for caller in event.proposers)
            layers[number] = _LayerHeard(entries=entries, purpose=event.purpose)
            return
        if isinstance(event, LayerStarted):
            entries = self.profile.layer(number)
            if number == 1 and self.profile.route:
                # As far as its route goes, a layer begins again with more proposers.
                known = layers.get(1)
                assert known is None or (known.finished and len(event.proposers) > len(known.begun))
                stages = [stage.proposers for stage in self.profile.route]
                assert len(event.proposers) in (*stages, len(entries))
                entries = entries[: len(event.proposers)]
            else:
                assert number == len([layer for layer in layers.values() if not layer.purpose]) + 1
            for earlier, heard_before in layers.items():
                if not heard_before.finished:
                    # It has stragglers, beside which this one may begin.
                    quorum = self.profile.quorum_of(earlier)
                    assert self.profile.overlap
                    assert earlier == number - 1
                    assert quorum is not None
                    assert heard_before.whole >= min(quorum, len(heard_before.begun))
            assert [(c.name, c.model) for c in event.proposers] == [
                (entry.name, entry.model) for entry in entries
            ]
            assert len({caller.name for caller in event.proposers}) == len(entries)
            layers.setdefault(number, _LayerHeard(entries=entries))
            layers[number] = replace(layers[number], entries=entries, finished=False)
            return
        layer = layers[number]
        entries = layer.entries
        assert not layer.finished
        if isinstance(event, LayerFinished):
            assert layer.calls == {}
            assert layer.begun == set(range(len(entries)))
            assert (event.answered, event.asked) == (layer.answered, len(entries))
            layer.finished = True
            return
        assert event.index is not None
        if isinstance(event, Queued) and event.index not in layer.begun:
            # It waits for its first attempt.
            assert event.index in range(len(entries))
            return
        if isinstance(event, ProposerStarted):
            assert event.index not in layer.begun
            layer.begun.add(event.index)
            layer.calls[event.index] = _Heard()
            self._trimmed(number, event.index, entries[event.index].model)
            return
        heard = layer.calls[event.index]
        if isinstance(event, Queued):
            assert event.model == entries[event.index].model
        elif isinstance(event, Hedged):
            assert event.model in _candidates(entries[event.index])
        elif isinstance(event, ReferencesTrimmed):
            assert event.model == entries[event.index].model
        elif isinstance(event, ProposerDelta):
            heard.delta(event)
        elif isinstance(event, Retrying):
            assert event.model == entries[event.index].model
            heard.retry(event)
        else:
            del layer.calls[event.index]
            proposal = event.proposal
            assert (proposal.layer, proposal.index) == (number, event.index)
            if proposal.model == entries[event.index].model:
                assert proposal.proposer == entries[event.index].name
            assert proposal.model in _candidates(entries[event.index])
            self._proposal(proposal, heard, isinstance(event, ProposerFinished))
            assert proposal.purpose == layer.purpose
            self.answers += [] if layer.purpose else [strip_reasoning(proposal.text)]
            layer.answered += proposal.error is None
            layer.whole += proposal.error is None and not proposal.unfinished

    def _reviewer(self, caller: Caller) -> Proposer:
        """One who reviews: a proposer, or the judge."""
        last = self.profile.layer(self.profile.rounds) if self.profile.rounds else ()
        known = [*last, *self.profile.judges()]
        [settings] = [
            settings
            for settings in known
            if (settings.name, settings.model) == (caller.name, caller.model)
        ]
        return settings

    def _trimmed(self, layer: int, index: int | None, model: str) -> None:
        """The event that references are cut, which may follow the start of a call."""
        if isinstance(self.rest[0], ReferencesTrimmed):
            trimmed = self.rest.pop(0)
            assert isinstance(trimmed, ReferencesTrimmed)
            assert (trimmed.layer, trimmed.index, trimmed.model) == (layer, index, model)
            assert 0 <= trimmed.kept < trimmed.context
            assert trimmed.kept or trimmed.left_out

    def _proposal(self, proposal: Proposal, heard: _Heard, finished: bool) -> None:
        self.usage += proposal.usage
        if finished:
            assert proposal.error is None
            assert proposal.text.strip()
            if proposal.unfinished:
                self.unfinished.append(proposal.proposer)
        else:
            assert proposal.error is not None
            assert not proposal.unfinished
            self.failures.append(proposal.error)
        if proposal.error is not None and proposal.error.kind in ("Abandoned", "Straggler"):
            # More may have come than was told before it was given up.
            assert proposal.text.startswith(heard.text)
        else:
            heard.check(proposal.text, proposal.reasoning)

    def _aggregator(self, settings: ModelSettings, references: int, *, fallback: bool) -> bool:
        """One aggregator; whether it replied."""
        model = settings.model
        started = self.rest.pop(0)
        assert isinstance(started, AggregatorStarted)
        assert (started.model, started.fallback) == (model, fallback)
        assert started.references == references
        self._trimmed(self.depth, None, model)
        heard = _Heard()
        while not isinstance(self.rest[0], AggregatorFinished | AggregatorFailed):
            event = self.rest.pop(0)
            assert isinstance(
                event, AggregatorDelta | Retrying | Queued | Hedged | ReferencesTrimmed
            )
            if isinstance(event, Queued):
                assert event.model == model
            elif isinstance(event, Hedged):
                assert event.model in _candidates(settings)
            elif isinstance(event, ReferencesTrimmed):
                assert event.model == model
            elif isinstance(event, AggregatorDelta):
                heard.delta(event)
            else:
                assert (event.layer, event.index) == (self.depth, None)
                assert event.model == model
                heard.retry(event, held=self.held)
        closed = self.rest.pop(0)
        assert isinstance(closed, AggregatorFinished | AggregatorFailed)
        assert closed.model in _candidates(settings)
        self.usage += closed.usage
        if isinstance(closed, AggregatorFailed):
            assert closed.text == heard.text or (self.held and not heard.text)
            self.failures.append(closed.error)
            return False
        heard.check(closed.text, closed.reasoning)
        assert closed.tool_calls == heard.called.calls()
        return True


def _candidates(settings: ModelSettings) -> set[str]:
    """The models that may answer in a place of the profile."""
    return {settings.model, settings.hedge_with or settings.model}


_OfALayer = (
    LayerStarted
    | ProposerStarted
    | ProposerDelta
    | Retrying
    | Queued
    | Hedged
    | ReferencesTrimmed
    | ProposerFinished
    | ProposerFailed
    | LayerFinished
)


@dataclass
class _LayerHeard:
    """What of a layer has been told: calls that run, those that have begun, and its answers."""

    entries: tuple[Proposer, ...]
    purpose: str = ""
    calls: dict[int, _Heard] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    answered: int = 0
    whole: int = 0
    finished: bool = False


class _Heard:
    """What the deltas of one call have told so far."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.called = ToolCallBuilder()
        self.attempt = 1

    def delta(self, event: ProposerDelta | AggregatorDelta) -> None:
        """The next delta; an empty one says nothing and must not come."""
        called = event.tool_calls if isinstance(event, AggregatorDelta) else ()
        assert event.text or event.reasoning or called
        self.text += event.text
        self.reasoning += event.reasoning
        self.called.take(called)

    def check(self, text: str, reasoning: str) -> None:
        """Check that a call ends as it was heard; or, where a closing tag alone told what of
        the text was reasoning, or its absence that reasoning was text, that nothing else of it is
        gone."""
        if text == self.text and not reasoning:
            assert self.reasoning in text
        elif (text, reasoning) != (self.text, self.reasoning):
            before, tag, after = self.text.partition("</think>")
            assert tag
            assert (text, reasoning) == (after.lstrip(), self.reasoning + before.rstrip())

    def retry(self, event: Retrying, *, held: bool = False) -> None:
        """A retry, which takes back what was told before it, or held back."""
        told = bool(self.text or self.reasoning or self.called)
        assert event.withdrawn == told or (held and event.withdrawn)
        self.text = self.reasoning = ""
        self.called = ToolCallBuilder()
        self.attempt += 1
        assert event.attempt == self.attempt
