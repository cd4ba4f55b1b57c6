"""The reply as plain text, and notices as plain lines: for pipes, files and logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TextIO

from moa_cli.core import events
from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.events import Event
from moa_cli.core.outcomes import cut_of, cut_text, names_the_lost
from moa_cli.core.sanitize import Sanitizer, one_line, sanitize
from moa_cli.core.strategy import Decision, Purpose, answer_name, layer_name
from moa_cli.core.text import plural
from moa_cli.terminal.after_reply import source_lines
from moa_cli.terminal.decision import decision_line
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    import asyncio

    from moa_cli.core.stream import TurnFold

# Returns what a key does at this moment, such as `Esc: write the reply now`; "" if no key does
# anything.
Hint = Callable[[], str]
# The end of a sentence: a mark followed by a space, so `3.5` and `moa.toml` do not match.
_SENTENCE_END = re.compile(r"\n+|[.!?:;…][\"'”’)\]*_]*[ \t]+|[。！？；]")
# If the wait for a layer takes this many seconds, it counts as long.
LONG_SECONDS = 10.0


class PlainReply:
    """A sink that writes the reply as it comes, unwrapped, with exactly one line end after it.

    stream: whether to write piece by piece, and not only the whole reply. sentences: write only
    whole sentences or lines. apart: put a blank line before the reply.
    """

    def __init__(
        self, out: TextIO, *, stream: bool = True, sentences: bool = False, apart: bool = False
    ) -> None:
        self._out = out
        self._stream = stream
        self._sentences = sentences
        self._apart = apart
        self._sanitizer = Sanitizer()
        self._held = ""
        self._wrote = False

    def handle(self, event: Event) -> None:
        if isinstance(event, events.AggregatorDelta) and event.text:
            if self._apart:
                self._out.write("\n")
                self._apart = False
            self._write(self._sanitizer.feed(event.text))
        elif isinstance(event, events.AggregatorFinished | events.AggregatorFailed):
            if not self._stream:
                # Take the text of this event, because sometimes only the end shows which part of
                # the deltas was reasoning.
                self._held = self._sanitizer.feed(event.text) if event.text else ""
            if self._stream or isinstance(event, events.AggregatorFinished):
                # Close here and not in `close`, because other sinks print lines about the end of
                # the turn before that.
                self.close()
        elif isinstance(event, events.AggregatorStarted) and not self._stream:
            # Text of an aggregator that failed is not part of the reply.
            self._held, self._sanitizer = "", Sanitizer()
        elif isinstance(event, events.TurnFailed):
            self.close()

    def _write(self, text: str) -> None:
        # Line ends are held back until more text follows, so that one can be put at the end.
        text = self._held + text
        ready = text[: _end_of_sentence(text)] if self._sentences else text
        body = ready.rstrip("\n")
        self._held = text[len(body) :]
        if self._stream and body:
            self._out.write(body)
            self._out.flush()
            self._wrote = True
        elif not self._stream:
            self._held = text

    def close(self) -> None:
        """Write the rest of the text, and the line end."""
        rest = (self._held + self._sanitizer.flush()).rstrip("\n")
        if rest or self._wrote:
            self._out.write(rest + "\n")
            self._out.flush()
        self._held, self._wrote = "", False


def _end_of_sentence(text: str) -> int:
    """The end of the last complete sentence or line in `text`; 0 if there is none."""
    return max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)


def tell(err: TextIO, text: str) -> None:
    """Write a line of the program, folded at the width of the terminal."""
    err.write(folded(f"moa: {one_line(text)}", err) + "\n")
    err.flush()


class Notices:
    """A sink that prints, on `err`, plain lines with everything that a reader of the reply should
    know.

    steps: print each step. board: whether a board shows steps, retries and lost models already.
    """

    def __init__(self, err: TextIO, *, steps: bool = False, board: bool = False) -> None:
        self._say = partial(tell, err)
        self._steps = steps and not board
        self._board = board
        # By layer: the names of the models that are asked, and the purpose of the layer.
        self._names: dict[int, list[str]] = {}
        self._purposes: dict[int, Purpose] = {}
        # The proposers whose proposals were cut, by the kind of the cut; and sentences about cut
        # reviews.
        self._cut: dict[str, list[Proposal]] = {}
        self._cut_reviews: list[str] = []
        self._decision: Decision | None = None
        self._reply_cut: str | None = None
        self._failed_aggregator: str | None = None
        self._left = False
        # Calls that were paid for and discarded, or made twice, in the order in which that
        # happened.
        self._twice: list[str] = []

    def handle(self, event: Event) -> None:
        match event:
            case events.LayerStarted():
                names = [proposer.name for proposer in event.proposers]
                # With a route, a layer may begin again with more proposers.
                new = names[len(self._names.get(event.layer, ())) :]
                self._names[event.layer] = names
                self._purposes[event.layer] = event.purpose
                if self._steps:
                    self._say(f"{self._layer_name(event.layer)}: asking {', '.join(new)}")
            case events.ProposerFinished() if not self._board:
                self._proposed(event.proposal)
            case events.ProposerFailed():
                self._lost(event.proposal)
            case events.Retrying() if not self._steps:
                if event.withdrawn:
                    why = event.error.message
                    self._twice.append(f"{self._name(event)} was asked again ({why})")
            case events.Retrying():
                name = self._name(event)
                back = ", what it wrote is taken back" if event.withdrawn else ""
                self._say(f"{name}: again in {event.delay:.1f} s ({event.error.message}){back}")
            case events.Queued() if self._steps and event.reason:
                self._say(f"{self._name(event)}: not sent yet, {event.reason}")
            case events.Hedged() if not self._steps:
                name = self._name(event)
                silent = f"{name} was silent for {event.seconds:.1f} s"
                self._twice.append(f"{silent}, {event.model} was asked beside it")
            case events.Hedged():
                self._say(
                    f"{self._name(event)}: silent for {event.seconds:.1f} s,"
                    f" {event.model} is asked beside it"
                )
            case events.ReferencesTrimmed() if not self._board:
                self._say(trimmed_line(self._name(event), event))
            case events.HistoryTrimmed() if not self._board:
                self._say(left_out_line(event))
            case events.LayerFinished():
                if self._steps:
                    self._say(
                        f"{self._layer_name(event.layer)}:"
                        f" {event.answered} of {event.asked} answered"
                        f" in {event.seconds:.1f} s"
                    )
                if self._left and not self._board:
                    self._say(enough_line(event, self._purposes[event.layer]))
                self._left = False
            case events.Decided():
                self._decision = event.decision
            case events.AggregatorStarted() if event.copied and self._steps:
                self._say(f"the words of {event.name}")
            case events.AggregatorFinished():
                self._reply_cut = cut_text(event.finish_reason)
            case events.AggregatorFailed():
                self._failed_aggregator = f"{event.model} failed: {event.error.message}"
            case events.AggregatorStarted() if self._failed_aggregator and not self._board:
                self._say(f"{self._failed_aggregator}; {event.model} replies in its place")
            case events.TurnFinished():
                self._finished(event)
            case events.TurnFailed():
                self._tell_twice()

    def _name(
        self, event: events.Retrying | events.Queued | events.Hedged | events.ReferencesTrimmed
    ) -> str:
        return event.model if event.index is None else self._names[event.layer][event.index]

    def _layer_name(self, layer: int) -> str:
        return layer_name(layer, self._purposes[layer])

    def _lost(self, proposal: Proposal) -> None:
        error = proposal.error
        self._left = self._left or (error is not None and error.kind == "Abandoned")
        if self._steps:
            what = f"the {answer_name(proposal.purpose)} of " if proposal.purpose else ""
            self._say(f"lost {what}{proposal.proposer}: {error.message if error else ''}")

    def _proposed(self, proposal: Proposal) -> None:
        cut = cut_of(proposal)
        if self._steps:
            tokens = plural(proposal.usage.completion_tokens, "token")
            figures = f"{proposal.seconds:.1f} s, {tokens}"
            self._say(f"{proposal.proposer}: {figures}" + (f", {cut}" if cut else ""))
        elif cut and proposal.purpose:
            what = answer_name(proposal.purpose)
            self._cut_reviews.append(f"the {what} of {proposal.proposer} was {cut}")
        elif cut and not proposal.unfinished:
            self._cut.setdefault(cut, []).append(proposal)

    def _finished(self, event: events.TurnFinished) -> None:
        if event.lost and not self._board and not self._steps:
            lead = "degraded, lost " if names_the_lost(event.lost[0]) else "degraded: "
            self._say(lead + "; ".join(event.lost))
        self._tell_twice()
        for cut, proposals in self._cut.items():
            # In the order of the mixture, not in that in which they came.
            proposals.sort(key=lambda proposal: (proposal.layer, proposal.index))
            names = [proposal.proposer for proposal in proposals]
            were = "was" if len(names) == 1 else "were"
            named = ", ".join(dict.fromkeys(names))
            self._say(f"{plural(len(names), 'proposal')} {were} {cut}: {named}")
        for line in self._cut_reviews:
            self._say(line)
        if self._decision is not None and not self._board:
            self._say(decision_line(self._decision))
        if self._reply_cut:
            self._say(f"the reply was {self._reply_cut}")

    def _tell_twice(self) -> None:
        """Print a line for each call that was paid for more than once."""
        for line in dict.fromkeys(self._twice):
            self._say(f"paid for more than once: {line}")

    def close(self) -> None:
        """Nothing is held back."""


class Waiting:
    """A sink that prints, on `err`, which models the layer waits for, and what a key does about it.

    The line is printed again only if the effect of the key has changed. hint: returns what the key
    does at this moment. patience: seconds from the start of a layer until the line is printed; None
    prints it from the first answer on.
    """

    def __init__(self, err: TextIO, hint: Hint, patience: float | None) -> None:
        self._err = err
        self._hint = hint
        self._patience = patience
        self._layer = 0
        # The number of calls that have begun, by layer.
        self._begun: dict[int, int] = {}
        self._waited_for: dict[int, str] = {}
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = patience is None
        self._told = ""

    def handle(self, event: Event) -> None:
        match event:
            case events.LayerStarted():
                # With a route, a layer may begin again with more proposers.
                known = self._begun.get(event.layer, 0)
                self._layer, self._begun[event.layer] = event.layer, len(event.proposers)
                names = enumerate(caller.name for caller in event.proposers)
                self._waited_for = {index: name for index, name in names if index >= known}
                self._asked = len(self._waited_for)
                self._start()
            # With `overlap`, proposers of a layer may end while the next layer runs.
            case events.ProposerFinished() | events.ProposerFailed() if event.layer == self._layer:
                self._waited_for.pop(event.index, None)
                if self._due and event.proposal.error is None:
                    self._tell()
            case events.LayerFinished() if event.layer == self._layer:
                self.close()

    def _start(self) -> None:
        import asyncio

        self.close()
        if self._patience is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._fall_due)

    def _fall_due(self) -> None:
        self._due = True
        self._tell()

    def _tell(self) -> None:
        hint = self._hint()
        if not self._waited_for or hint in ("", self._told):
            return
        self._told = hint
        ended = f"{self._asked - len(self._waited_for)} of {self._asked} have ended"
        names = ", ".join(self._waited_for.values())
        self._err.write(f"moa: {one_line(f'waiting for {names} ({ended}); {hint}')}\n")
        self._err.flush()

    def close(self) -> None:
        """Print nothing more until the next layer."""
        if self._timer is not None:
            self._timer.cancel()


class Proposals:
    """A sink that prints each proposal and each review in full, on `err`, when its layer has ended.

    It waits for that because a board may be on the screen until then. ruled: draw a line in the
    heading of each.
    """

    def __init__(self, err: TextIO, *, ruled: bool = True) -> None:
        self._err = err
        self._ruled = ruled
        self._fold: TurnFold
        self._told: set[tuple[int, int]] = set()

    def follow(self, fold: TurnFold) -> None:
        self._fold = fold

    def handle(self, event: Event) -> None:
        if isinstance(event, events.LayerFinished):
            turn = self._fold.turn()
            self.print_layer(
                [
                    answer
                    for layer in (*turn.proposals, turn.reviews)
                    for answer in layer
                    if answer.layer == event.layer
                ]
            )

    def print_layer(self, proposals: Sequence[Proposal]) -> None:
        """Print the proposals with an answer, and the partial text of one that was stopped at a
        cap."""
        for proposal in proposals:
            place = proposal.layer, proposal.index
            if place in self._told:
                # The layer has begun again with more proposers, so this proposal was shown.
                continue
            self._told.add(place)
            error = proposal.error
            stopped = error is not None and error.kind == "BudgetReached"
            if error is None or (stopped and proposal.text.strip()):
                name = layer_name(proposal.layer, proposal.purpose)
                head = f"{one_line(proposal.proposer)} ({name})"
                head = f"{f'── {head} ':─<60}" if self._ruled else f"{head}:"
                text = sanitize(proposal.text).strip()
                cut = cut_of(proposal)
                lines = [head, text, *([f"({cut})"] if cut else [])]
                lines += source_lines(proposal.citations)
                self._err.write("\n".join(lines) + "\n\n")
                self._err.flush()

    def close(self) -> None:
        """Nothing is held back."""


def print_paid(turn: Turn, err: TextIO) -> None:
    """Print the proposals of a turn that ended at a cap. They were paid for, and are its only
    result."""
    if turn.capped and turn.proposals:
        Proposals(err).print_layer(turn.proposals[-1])


def setting_text(value: object) -> str:
    """A setting's value in words, on one line."""
    if value is None or isinstance(value, bool):
        return "not set" if value is None else str(value).lower()
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def setting_lines(
    rows: Iterable[tuple[str, object, object]], *, widest: int = 50, columns: int | None = None
) -> list[str]:
    """A line for each setting, with name, value and origin in columns.

    widest: the greatest width of the column of values; a longer value moves its origin to the
    right. columns: a row that is wider than this is printed on two or three lines.
    """
    found = [
        (one_line(name), setting_text(value), one_line(str(origin))) for name, value, origin in rows
    ]
    names = min(32, max((len(name) for name, _, _ in found), default=0))
    values = min(widest, max((len(value) for _, value, _ in found), default=0))
    lines = []
    for name, value, origin in found:
        line = f"{name:<{names}}  {value:<{values}}  {origin}"
        if columns is not None and len(line) > columns:
            gap = "  " if 4 + len(value) + 2 + len(origin) <= columns else "\n    "
            line = f"{name}\n    {value}{gap}{origin}"
        lines.append(line)
    return lines


def enough_line(event: events.LayerFinished, purpose: Purpose) -> str:
    """A line that says that the turn no longer waits for the answers of a layer. purpose: of the
    layer."""
    if purpose:
        what = answer_name(purpose)
        left = plural(event.answered, what) if event.answered else f"no {what}"
        return f"enough: going on with {left}"
    left = f"{event.answered} of {event.asked}" if event.answered else "the round before"
    return f"enough: going on with {left}"


def trimmed_line(name: str, event: events.ReferencesTrimmed) -> str:
    """A line that says that a model is sent shorter references, or fewer earlier messages."""
    cut = []
    if event.left_out:
        cut.append(f"{plural(event.left_out, 'earlier message')} left out")
    if event.kept:
        cut.append(f"references cut to about {event.kept:,} tokens each")
    return f"{name}: {', '.join(cut)}, to fit its context of {event.context:,}"


def left_out_line(event: events.HistoryTrimmed) -> str:
    """A line that says which models are not sent the oldest turns of the conversation, and why."""
    contexts: dict[str, dict[int, list[str]]] = {}
    for left in sorted(event.models, key=lambda left: -left.count):
        context = f"context: {left.context:,} tokens" + (" assumed" if left.assumed else "")
        contexts.setdefault(context, {}).setdefault(left.count, []).append(left.model)
    told = ", ".join(
        ", ".join(f"{count} for {', '.join(models)}" for count, models in counts.items())
        + f" ({context})"
        for context, counts in contexts.items()
    )
    most, _, rest = told.partition(" ")
    turns = f"{most} of {plural(event.turns, 'earlier turn')}"
    return f"{turns} {'is' if most == '1' else 'are'} left out {rest}"


def failure_line(turn: Turn) -> str:
    """Why a turn failed, on one line: its causes by name, or the one cause they share."""
    if turn.error is None:
        return ""
    if turn.capped:
        # The error reports the call that was stopped at the cap already.
        before = [told for told in turn.lost if not told.endswith(turn.error.message)]
        lost = f"; lost before: {'; '.join(before)}" if before else ""
        return one_line(f"{turn.error.message} ({turn.error.hint}){lost}")
    messages = list(dict.fromkeys(cause.message for cause in turn.causes))
    hints = list(dict.fromkeys(cause.hint for cause in turn.causes if cause.hint))
    if len(messages) == 1:
        # An error before any call names no model, so the sentence about the loss is used if there
        # is one.
        line = turn.lost[-1] if len(turn.causes) == 1 and turn.lost else messages[0]
    elif messages:
        line = f"{turn.error.message}: {'; '.join(turn.lost)}"
    else:
        line = turn.error.message
    return one_line(f"{line} ({hints[0]})" if len(hints) == 1 else line)
