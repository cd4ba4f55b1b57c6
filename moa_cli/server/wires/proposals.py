"""Proposals that come side by side, told one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from moa_cli.core import events
from moa_cli.core.conversation import Proposal
from moa_cli.core.events import Event


def proposal_text(proposal: Proposal) -> str:
    """A proposal that has ended."""
    return f"{_heading(proposal.proposer, proposal.layer)}{proposal.text}{_why_lost(proposal)}\n\n"


def _heading(name: str, layer: int) -> str:
    return f"### {name} (round {layer})\n\n"


def _why_lost(proposal: Proposal) -> str:
    if proposal.error is None:
        return ""
    above = "\n\n" if proposal.text else ""
    return f"{above}({proposal.error.message})"


@dataclass
class _Speaker:
    name: str
    held: list[str] = field(default_factory=list)
    ended: bool = False


class ProposalStream:
    """The text of a turn's proposals, and of the aggregator's reasoning, as it grows: the one that
    speaks first is told as it comes, the others are held back until it has ended, and told in the
    order in which they began."""

    def __init__(self) -> None:
        self._layer = 0
        self._names: tuple[str, ...] = ()
        # By index, in the order in which they began to speak.
        self._waiting: dict[int, _Speaker] = {}
        self._live: int | None = None

    def take(self, event: Event) -> str:
        """Take the next event; returns what can be told now."""
        match event:
            case events.LayerStarted():
                self._layer = event.layer
                self._names = tuple(proposer.name for proposer in event.proposers)
                self._waiting, self._live = {}, None
            case events.ProposerDelta() if event.text:
                return self._say(event.index, event.text)
            case events.Retrying() if event.withdrawn and event.index is not None:
                return self._withdraw(event.index)
            case events.ProposerFinished():
                return self._end(event.index)
            case events.ProposerFailed():
                return self._say(event.index, _why_lost(event.proposal)) + self._end(event.index)
            case events.LayerFinished():
                return self._next()
            case events.AggregatorDelta():
                return event.reasoning
        return ""

    def _say(self, index: int, text: str) -> str:
        speaker = self._waiting.setdefault(index, _Speaker(self._names[index]))
        if index == self._live:
            return text
        speaker.held.append(text)
        return "" if self._live is not None else self._next()

    def _withdraw(self, index: int) -> str:
        """What a proposer said is taken back; what of it was told already is marked so."""
        if index == self._live:
            return "\n\n(broke off: it begins anew)\n\n"
        if index in self._waiting:
            self._waiting[index].held = []
        return ""

    def _end(self, index: int) -> str:
        if index in self._waiting:
            self._waiting[index].ended = True
        if index != self._live:
            return ""
        del self._waiting[index]
        self._live = None
        return "\n\n" + self._next()

    def _next(self) -> str:
        """What was held back by those that have their turn now."""
        told = []
        for index, speaker in list(self._waiting.items()):
            told.append(_heading(speaker.name, self._layer) + "".join(speaker.held))
            speaker.held = []
            if not speaker.ended:
                self._live = index
                break
            told.append("\n\n")
            del self._waiting[index]
        return "".join(told)
