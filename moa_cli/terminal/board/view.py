"""The state of a turn for the screen. It is computed only from the events, without a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moa_cli.core import events
from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.events import Event
from moa_cli.core.money import Price, cost_text
from moa_cli.core.outcomes import cut_of, cut_text
from moa_cli.core.strategy import Purpose, layer_name

State = Literal[
    "waiting", "queued", "retrying", "thinking", "streaming", "done", "failed", "dropped"
]
Phase = Literal["proposing", "replying", "ended"]

# The mark before a call in each state, and the style of the mark.
MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "queued": ("·", "yellow"),
    "retrying": ("↻", "yellow"),
    "thinking": ("…", "magenta"),
    "streaming": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "dropped": ("–", "yellow"),
}

# Only this many characters of an answer are kept, which is more than any panel shows. With whole
# answers, each frame would take longer than the one before.
_TAIL = 4000
# If this many pieces have come, they are joined even if no frame is drawn.
_MOST_PIECES = 1000


@dataclass
class CallView:
    """The state of one call.

    began, first_token, ended, latest: times in seconds since the turn began; None if not yet.
    latest is the time of its last piece. tokens: the endpoint's count if `exact`, else the number
    of pieces. cost: as a text; "" if free or unknown. note: why it failed, waits, or was cut.
    prompt_tokens: about how many tokens its prompt has. price: of the model, or None. resumes: the
    time when it is retried. why: the failure before the retry.
    """

    name: str
    model: str
    began: float
    state: State = "waiting"
    first_token: float | None = None
    ended: float | None = None
    tokens: int = 0
    exact: bool = False
    cost: str = ""
    note: str = ""
    latest: float | None = None
    prompt_tokens: int = 0
    price: Price | None = None
    resumes: float = 0.0
    why: str = ""
    # USD of its text that was withdrawn before a retry.
    _wasted: float = 0.0
    # The end of its text, in pieces. They are joined only for a frame, because many pieces come
    # between two frames.
    _tail: list[str] = field(default_factory=list)

    def take(self, at: float, text: str, thought: str) -> None:
        """Take the next piece. thought: its reasoning, if reasoning is shown."""
        if self.first_token is None:
            self.first_token = at
        self.latest = at
        if text and self._tail and self.state == "thinking":
            # The reasoning ends here, so a blank line separates it from the answer.
            self._tail.append("\n\n")
        self.state = "streaming" if text else "thinking"
        self.tokens += 1
        if text or thought:
            self._tail.append(thought + text)
            if len(self._tail) > _MOST_PIECES:
                self._tail = [self.tail]

    @property
    def tail(self) -> str:
        if len(self._tail) > 1:
            self._tail = ["".join(self._tail)[-_TAIL:]]
        return self._tail[0] if self._tail else ""

    def hold_up(self, event: events.Retrying | events.Queued | events.Hedged) -> None:
        """Take an event that tells of a delay of the call."""
        match event:
            case events.Retrying():
                self.state = "retrying"
                self.resumes, self.why = event.at + event.delay, event.error.message
                if event.withdrawn:
                    # The text so far is withdrawn, but may be billed.
                    self._wasted = self.running_cost()
                    self.first_token, self.tokens, self._tail = None, 0, []
                self.note = f"again in {event.delay:.0f} s: {event.error.message}"
            case events.Queued():
                self.state = "queued" if event.reason else "waiting"
                self.note = event.reason and f"not sent yet, {event.reason}"
            case events.Hedged():
                other = "" if event.model == self.model else f", {event.model}"
                self.note = f"silent for {event.seconds:.0f} s: asked twice{other}"

    def end(self, at: float, usage: Usage, error: Failure | None, cut: str | None = None) -> None:
        """The call has ended. error: None if it succeeded. cut: how its answer was cut, or None."""
        self.ended = at
        self.cost = cost_text(usage) if usage.cost else ""
        if usage.completion_tokens:
            self.tokens = usage.completion_tokens
            self.exact = not usage.estimated_completion_tokens
        given_up = error is not None and error.kind == "Abandoned"
        self.state = "dropped" if given_up else "failed" if error else "done"
        self.note = error.message if error else cut or ""

    def running_cost(self) -> float:
        """An estimate of its cost so far, in USD. If its price is not known, only withdrawn text
        counts."""
        price = self.price
        if price is None or not self.prompt_tokens:
            return self._wasted
        asked = Usage(self.prompt_tokens, self.tokens, calls=1)
        return self._wasted + price.of(asked)

    def silence(self, now: float) -> float:
        """Seconds since its last piece, or since it began."""
        return now - (self.began if self.latest is None else self.latest)

    def resumes_in(self, now: float) -> float:
        """Seconds until it is retried."""
        return max(0.0, self.resumes - now)

    def seconds(self, now: float) -> float:
        """Seconds from its begin until now, or until its end."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)

    def rate(self, now: float) -> float | None:
        """Tokens a second since the first token; None if there are too few tokens yet."""
        if self.first_token is None or self.tokens < 2:
            return None
        span = (now if self.ended is None else self.ended) - self.first_token
        return self.tokens / span if span > 0.05 else None


@dataclass
class TurnView:
    """The state of a turn: the calls of the running layer, and the aggregator's.

    layer: the number of the running layer. rounds: the number of rounds. purposes: the purpose of
    each layer. layers: the calls of each layer that has not ended, by its number. Besides the
    running layer, the one before may still have running calls. A layer that has ended may begin
    again with more calls. reasoning: whether the text of the reasoning is shown, and not only that
    a model thinks. used: the usage of the calls that have ended. zoomed: the call that is shown
    alone, or None.
    """

    reasoning: bool = False
    layer: int = 0
    rounds: int = 0
    purposes: dict[int, Purpose] = field(default_factory=dict)
    layers: dict[int, list[CallView]] = field(default_factory=dict)
    # By the number of a layer: how many of its calls were removed.
    _taken: dict[int, int] = field(default_factory=dict)
    aggregator: CallView | None = None
    references: int = 0
    phase: Phase = "proposing"
    used: Usage = field(default_factory=Usage)
    zoomed: CallView | None = None

    def zoom(self) -> None:
        """Show the first call alone; at the next call of this the next one; after the last one
        none."""
        calls = [] if self.phase == "replying" else self.proposers
        places = [place for place, call in enumerate(calls) if call is self.zoomed]
        following = calls[places[0] + 1 :] if places else calls
        self.zoomed = following[0] if following else None

    def running(self) -> list[CallView]:
        """All calls that have not ended."""
        calls = [call for layer in self.layers.values() for call in layer]
        if self.aggregator is not None:
            calls.append(self.aggregator)
        return [call for call in calls if call.ended is None]

    @property
    def proposers(self) -> list[CallView]:
        """The calls of the running layer, after those of earlier layers that still run."""
        earlier = (calls for number, calls in self.layers.items() if number < self.layer)
        running = [call for calls in earlier for call in calls if call.ended is None]
        return [*running, *self.layers.get(self.layer, ())]

    @property
    def name(self) -> str:
        return self.name_of(self.layer)

    def name_of(self, layer: int) -> str:
        """The name of a layer: `round 2`, or the name of its reviews."""
        return layer_name(layer, self.purposes.get(layer, ""))

    def call(self, layer: int, index: int) -> CallView:
        """A call of a layer that has not ended."""
        return self.layers[layer][index - self._taken.get(layer, 0)]

    def take_out(self, layer: int) -> list[CallView]:
        """Remove the calls of a layer that has ended. Returns them."""
        calls = self.layers.pop(layer)
        self._taken[layer] = self._taken.get(layer, 0) + len(calls)
        return calls

    def apply(self, event: Event) -> None:
        match event:
            # The most frequent events come first.
            case events.ProposerDelta():
                call = self.layers[event.layer][event.index - self._taken.get(event.layer, 0)]
                call.take(event.at, event.text, event.reasoning if self.reasoning else "")
            case events.AggregatorDelta() if self.aggregator:
                thought = event.reasoning if self.reasoning else ""
                self.aggregator.take(event.at, event.text, thought)
            case events.TurnStarted():
                self.rounds = event.rounds
            case events.LayerStarted():
                self.phase, self.layer = "proposing", event.layer
                self.purposes[event.layer] = event.purpose
                running = self.layers.setdefault(event.layer, [])
                known = self._taken.get(event.layer, 0) + len(running)
                running += [
                    CallView(caller.name, caller.model, event.at)
                    for caller in event.proposers[known:]
                ]
            case events.ProposerStarted():
                call = self.call(event.layer, event.index)
                call.prompt_tokens, call.price = event.prompt_tokens, event.price
            case events.ProposerFinished() | events.ProposerFailed():
                proposal = event.proposal
                self.used += proposal.usage
                call = self.call(event.layer, event.index)
                call.end(event.at, proposal.usage, proposal.error, cut_of(proposal))
            case events.Retrying() | events.Queued() | events.Hedged():
                index = event.index
                held = self.aggregator if index is None else self.call(event.layer, index)
                if held is not None:
                    held.hold_up(event)
            case events.AggregatorStarted():
                self.phase = "replying"
                self.references = event.references
                self.aggregator = CallView(
                    event.name,
                    event.model,
                    event.at,
                    prompt_tokens=event.prompt_tokens,
                    price=event.price,
                )
            case events.AggregatorFinished() if self.aggregator:
                cut = cut_text(event.finish_reason)
                self.used += event.usage
                self.aggregator.end(event.at, event.usage, None, cut)
            case events.AggregatorFailed() if self.aggregator:
                self.used += event.usage
                self.aggregator.end(event.at, event.usage, event.error)
            case events.TurnFinished() | events.TurnFailed():
                self.phase = "ended"
