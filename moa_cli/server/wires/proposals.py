"""Turns parallel proposals into one stream of text."""

from __future__ import annotations

from dataclasses import dataclass, field

from moa_cli.core import events
from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.events import Event
from moa_cli.core.outcomes import UNFINISHED

_Place = tuple[int, int]


def proposal_text(proposal: Proposal) -> str:
    """The text of a finished proposal."""
    return f"{_heading(proposal.proposer, proposal.layer)}{proposal.text}{_remark(proposal)}\n\n"


def proposals_of(turn: Turn) -> str:
    """The text of all proposals of a finished turn."""
    return "".join(proposal_text(proposal) for layer in turn.proposals for proposal in layer)


def _heading(name: str, layer: int) -> str:
    return f"### {name} (round {layer})\n\n"


def _remark(proposal: Proposal) -> str:
    """Why the proposal is lost, or that it was used unfinished."""
    told = UNFINISHED if proposal.unfinished else proposal.error and proposal.error.message
    above = "\n\n" if proposal.text else ""
    return f"{above}({told})" if told else ""


@dataclass
class _Speaker:
    heading: str
    held: list[str] = field(default_factory=list)
    ended: bool = False


class ProposalStream:
    """The text of a turn's proposals, and of the aggregator's reasoning, as it grows. The proposal
    that begins first is passed on as it arrives. The others are held back until it has ended, and
    follow in the order in which they began."""

    def __init__(self) -> None:
        # By layer and index; the waiting proposals are in the order in which they began.
        self._names: dict[_Place, str] = {}
        self._waiting: dict[_Place, _Speaker] = {}
        self._live: _Place | None = None

    def take(self, event: Event) -> str:
        """Handle the next event; returns the text that can be sent now."""
        match event:
            case events.LayerStarted() if not event.purpose:
                for index, proposer in enumerate(event.proposers):
                    self._names[event.layer, index] = proposer.name
            # A review is no proposal.
            case events.ProposerDelta() if event.text and self._is_proposal(event):
                return self._say((event.layer, event.index), event.text)
            case events.Retrying() if event.withdrawn and event.index is not None:
                return self._withdraw((event.layer, event.index))
            case events.ProposerFinished() if not event.proposal.unfinished:
                return self._end((event.layer, event.index))
            case events.ProposerFinished() | events.ProposerFailed() if self._is_proposal(event):
                place = event.layer, event.index
                return self._say(place, _remark(event.proposal)) + self._end(place)
            case events.AggregatorDelta():
                return event.reasoning
        return ""

    def _is_proposal(
        self, event: events.ProposerDelta | events.ProposerFinished | events.ProposerFailed
    ) -> bool:
        return (event.layer, event.index) in self._names

    def _say(self, place: _Place, text: str) -> str:
        heading = _heading(self._names[place], place[0])
        speaker = self._waiting.setdefault(place, _Speaker(heading))
        if place == self._live:
            return text
        speaker.held.append(text)
        return "" if self._live is not None else self._next()

    def _withdraw(self, place: _Place) -> str:
        """Withdraw the text of a proposer that starts again. If it was sent already, it is marked
        as interrupted."""
        if place == self._live:
            return "\n\n(interrupted: it starts again)\n\n"
        if place in self._waiting:
            self._waiting[place].held = []
        return ""

    def _end(self, place: _Place) -> str:
        if place in self._waiting:
            self._waiting[place].ended = True
        if place != self._live:
            return ""
        del self._waiting[place]
        self._live = None
        return "\n\n" + self._next()

    def _next(self) -> str:
        """The held text of the proposals that are next."""
        told = []
        for place, speaker in list(self._waiting.items()):
            told.append(speaker.heading + "".join(speaker.held))
            speaker.held = []
            if not speaker.ended:
                self._live = place
                break
            told.append("\n\n")
            del self._waiting[place]
        return "".join(told)
